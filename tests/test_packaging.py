"""What a user gets from ``pip install kinto-orm``."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FEATURES = {"fxa", "server", "server-postgres", "cli", "pandas", "polars", "arrow", "dask", "schemas"}
EXTRAS = FEATURES | {"test", "docs", "all"}


@pytest.fixture(scope="module")
def config() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """A wheel of this source tree, built outside of it."""
    if tuple(map(int, metadata.version("setuptools").split(".")[:2])) < (77, 0):
        pytest.skip("building needs setuptools>=77, see pyproject.toml")
    source = tmp_path_factory.mktemp("source")
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg", "setup.py"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "kinto_orm", source / "kinto_orm", ignore=shutil.ignore_patterns("__pycache__"))
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip_wheel, "--wheel-dir", source / "dist", source], check=True)
    (archive,) = (source / "dist").glob("*.whl")
    return zipfile.Path(archive)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist outside of this source tree, and unpack it."""
    if tuple(map(int, metadata.version("setuptools").split(".")[:2])) < (77, 0):
        pytest.skip("building needs setuptools>=77, see pyproject.toml")
    folder = tmp_path_factory.mktemp("sdist")
    ignored = shutil.ignore_patterns(".git", ".venv", ".tox", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    program = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, folder], cwd=folder / "source", check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def test_o17_sdist_contains_every_file_of_the_repository(sdist: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no repository")
    tracked = {name for name in listed.stdout.splitlines() if not name.endswith(".gitignore")}

    assert tracked - {path.relative_to(sdist).as_posix() for path in sdist.rglob("*")} == set()


def test_o17_sdist_passes_its_tests(sdist: Path) -> None:
    """Run those that read files: cassettes, pages, the sources, settings of tools."""
    chosen = ["tests/recorded", "tests/test_architecture.py", "tests/test_coverage_page.py", "tests/test_public_api.py"]
    environment = {**os.environ, "PYTHONPATH": str(sdist), "KINTO_ORM_RECORD": ""}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
        cwd=sdist,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout


def test_core_needs_requests_and_pydantic_and_what_these_bring_along(config: ConfigParser) -> None:
    assert {"requests", "urllib3", "pydantic", "typing_extensions"} == {
        requirement.name for requirement in requirements(config["options"]["install_requires"])
    }


def test_extras_are_the_promised_ones(config: ConfigParser) -> None:
    assert set(config["options.extras_require"]) == EXTRAS


def test_extra_all_covers_the_others(config: ConfigParser) -> None:
    covered = set[str]()

    for requirement in requirements(config["options.extras_require"]["all"]):
        assert requirement.name == "kinto-orm"
        covered |= requirement.extras

    assert covered == EXTRAS - {"all"}


def test_setup_py_is_two_lines() -> None:
    assert len((ROOT / "setup.py").read_text("utf-8").splitlines()) == 2


def test_pyproject_holds_only_the_build_system() -> None:
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))) == {"build-system"}


def test_wheel_contains_every_module(wheel: zipfile.Path) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kinto_orm").rglob("*.py")}

    assert {name for name in wheel.root.namelist() if name.endswith(".py")} == sources


def test_wheel_is_typed(wheel: zipfile.Path) -> None:
    assert (wheel / "kinto_orm" / "py.typed").exists()


def test_wheel_states_its_licence(wheel: zipfile.Path) -> None:
    (dist_info,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))

    assert "License-Expression: Apache-2.0\n" in (dist_info / "METADATA").read_text("utf-8")
    assert (dist_info / "licenses" / "LICENSE").exists()


def test_wheel_installs_command_and_pytest_plugin(wheel: zipfile.Path) -> None:
    (dist_info,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    entry_points = ConfigParser()

    entry_points.read_string((dist_info / "entry_points.txt").read_text("utf-8"))

    assert entry_points["console_scripts"]["kinto-orm"] == "kinto_orm.cli:main"
    assert entry_points["pytest11"]["kinto_orm"] == "kinto_orm.pytest_plugin"


def requirements(lines: str) -> list[Requirement]:
    return [Requirement(line) for line in lines.split("\n") if line]

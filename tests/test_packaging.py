"""What a user gets from ``pip install kinto-orm``."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FEATURES = {"fxa", "server", "server-postgres", "cli", "async", "pandas", "polars", "arrow", "dask", "schemas"}
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

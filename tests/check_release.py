"""``make release``: build wheel and sdist, check them, and install them from an index on this machine.

Each Python that is found, with the oldest and with the newest dependencies, runs a program in an empty folder.
The wheel is also run without any extra, against a server of another environment.
Needs the packages that kinto_orm rests on, from the index that pip knows; publishes nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from file_host import serve_files

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = "server,cli,pandas"
SMOKE = """
from kinto_orm import Client, ConflictError, Record

class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False

with Client.embedded() as client:
    client.ensure(Todo)
    mine = Todo(title="Buy milk").save()
    Todo.records.get(mine.id).patch(title="Buy oat milk")
    mine.done = True
    try:
        mine.save()
    except ConflictError as conflict:
        mine = conflict.merge()
    assert (mine.title, mine.done) == ("Buy oat milk", True)
    Todo.records.bulk_create({"title": f"Task {n}"} for n in range(60))
    assert Todo.records.count() == 61
    assert len(Todo.records.to_pandas()) == 61
client.close()
"""
CORE = """
import sys
import kinto_orm
client = kinto_orm.Client("http://localhost:1/v1", auth=("alexis", "p4ssw0rd"))
assert "***" not in repr(client) and "p4ssw0rd" not in repr(client)
try:
    kinto_orm.Client.embedded()
except kinto_orm.MissingExtraError as error:
    assert "kinto-orm[server]" in str(error)
else:
    raise AssertionError("Kinto is here without its extra")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, check and try the distributions; return 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where they are built (default: %(default)s)")
    options = parser.parse_args(arguments)
    version = build(options.dist)
    failed = [*contents_faults(options.dist)]
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(options.dist.iterdir()))])
    with TemporaryDirectory() as folder, simple_index(options.dist, Path(folder)) as url:
        for name, python in found_pythons():
            for which, constraints in (("newest", []), ("oldest", oldest())):
                begun = time.monotonic()
                problem = trial(Path(folder), python, url, version, constraints)
                print(f"{name}, {which}: {problem or 'fine'}, {time.monotonic() - begun:.0f} s", flush=True)
                failed += [problem] if problem else []
    for problem in failed:
        print(f"FAULT {problem}")
    return 1 if failed else 0


def build(dist: Path) -> str:
    """Build wheel and sdist of what is committed, and return the version."""
    shutil.rmtree(dist, ignore_errors=True)
    with TemporaryDirectory() as folder:
        run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), folder])
        run([sys.executable, "-m", "build", "--outdir", str(dist.resolve()), folder])
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config["metadata"]["version"]


def contents_faults(dist: Path) -> Iterator[str]:
    """Yield what the distributions lack, and what they have too much."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    tops = {name.split("/")[0].partition("-")[0] for name in zipfile.ZipFile(wheel).namelist()}
    if tops != {"kinto_orm"}:
        yield f"{wheel.name} holds {sorted(tops)}"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "docs/index.md", "tests/conftest.py"):
        if wanted not in names:
            yield f"{sdist.name} lacks {wanted}"
    print(
        f"{wheel.name} {wheel.stat().st_size // 1024} KiB, {sdist.name} {sdist.stat().st_size // 1024} KiB", flush=True
    )


def found_pythons() -> Iterator[tuple[str, str]]:
    """Yield version and path of each Python that is on PATH, or that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in PYTHONS:
        places = [*map(str, sorted(pyenv.glob(f"{version}.*/bin"))), os.environ["PATH"]]
        found = shutil.which(f"python{version}", path=os.pathsep.join(places))
        if found:
            yield version, found


def oldest() -> list[str]:
    """Return the oldest versions that ``tox -e oldest`` tests with."""
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini", "utf-8")
    return re.findall(r"^\w+==\S+$", config["testenv:oldest"]["deps"], re.MULTILINE)


@contextmanager
def simple_index(dist: Path, folder: Path) -> Iterator[str]:
    """Serve the distributions as a package index on this machine; yield its URL."""
    (folder / "simple").mkdir()
    shutil.copytree(dist, folder / "simple" / "kinto-orm")

    with serve_files(folder) as host:
        yield f"{host.url}simple/"


def trial(folder: Path, python: str, url: str, version: str, constraints: Sequence[str]) -> str | None:
    """Install from the index into new environments and run the programs; return what went wrong."""
    with TemporaryDirectory(dir=folder) as place:
        here = Path(place)
        (here / "empty").mkdir()
        (here / "constraints.txt").write_text("\n".join(constraints), "utf-8")
        try:
            for extras, program in (("", CORE), (f"[{EXTRAS}]", SMOKE)):
                environment = here / f"env{len(extras)}"
                run([python, "-m", "venv", str(environment)])
                pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
                wanted = f"kinto-orm{extras}=={version}"
                run([*pip, "install", "--extra-index-url", url, "-c", str(here / "constraints.txt"), wanted])
                run([*pip, "check"])
                run(
                    [str(environment / "bin" / "python"), "-W", "error::DeprecationWarning:kinto_orm", "-c", program],
                    here / "empty",
                )
                shown = ["demo", "--limit", "100"] if extras else ["--version"]
                run([str(environment / "bin" / "kinto-orm"), *shown], here / "empty")
        except subprocess.CalledProcessError as error:
            return f"{python}: {' '.join(error.cmd[:6])} …: {str(error.output).strip()[-600:]}"
    return None


def run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a command; raise ``CalledProcessError`` with its output where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


if __name__ == "__main__":
    sys.exit(main())

"""Every snippet of README and docs/ is run, against the embedded Kinto; one namespace for each page.

Shell sessions are run, too: in the folder of the page, with ``KINTO_SERVER`` and ``KINTO_AUTH`` of a server that is
started for the page. Commands that install, or do not end, are checked without being run.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
import os
import pydoc
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack
from importlib.metadata import distribution
from pathlib import Path

import pytest
from file_host import serve_files
from packaging.requirements import Requirement
from sybil import Example, Sybil
from sybil.example import SybilFailure
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

import kinto_orm
from kinto_orm import Bucket, CachedQuery, Client, Collection, Query, RecordManager, SyncPlan, errors
from kinto_orm.cli.program import COMMANDS
from kinto_orm.cli.screen import Exit
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.application import DEFAULT_SETTINGS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_SNIPPETS = {
    "api.md",
    "changelog.md",
    "comparison.md",
    "coverage.md",
    "glossary.md",
    "performance.md",
    "releasing.md",
}


def snippets(page: Path) -> list[Example]:
    parser = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)
    return list(Sybil(parsers=[parser, CodeBlockParser("console", run_session)]).parse(page).examples())


def sources(page: Path) -> list[str]:
    """Return the Python of a page."""
    return [str(example.parsed) for example in snippets(page) if not str(example.parsed).startswith("$ ")]


def run_session(example: Example) -> str | None:
    """Run the commands of a shell session; return how the first that differs does so."""
    for command, expected in commands(str(example.parsed)):
        if INSTALLS.match(command):
            problem = installing_fault(command)
        elif command.startswith("kinto-orm serve"):
            problem = serving_fault(command)
        else:
            problem = output_fault(command, expected)
        if problem:
            return f"$ {command}\n{problem}"
    return None


def commands(session: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a session, its lines joined, with the output that the page shows."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, lines = "", part.splitlines(keepends=True)
        while lines and (not command or command.endswith("\\\n")):
            command += lines.pop(0)
        yield command.strip(), "".join(lines)


INSTALLS = re.compile(r"(?:pip|make|git|python -m venv)\b")
"""Commands that are not run: they need an index of packages, or a clone."""


def installing_fault(command: str) -> str | None:
    """Return what is wrong with a command that is not run: a target or an extra that is not there."""
    targets = set(re.findall(r"^make ([\w-]+)", command))
    extras = {extra for found in re.findall(r"kinto-orm\[(.*?)\]", command) for extra in found.split(",")}
    unknown = targets - set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    unknown |= extras - set(distribution("kinto-orm").metadata.get_all("Provides-Extra") or ())
    return f"there is no {', '.join(sorted(unknown))}" if unknown else None


def serving_fault(command: str) -> str | None:
    """Start a server, at any free port, and stop it; return what it said if it did not start."""
    shell = ["bash", "-c", f"exec {command.partition('  #')[0]} --port 0"]
    out = subprocess.PIPE
    with subprocess.Popen(shell, env=environment(), stdout=out, stderr=subprocess.STDOUT, text=True) as served:
        assert served.stdout is not None
        said = served.stdout.readline()
        if said.startswith("Kinto is running at"):
            served.terminate()
            return None
        return said + served.stdout.read()


def output_fault(command: str, expected: str) -> str | None:
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    found = done.stdout + done.stderr
    if doctest.OutputChecker().check_output(expected, found, doctest.ELLIPSIS):
        return None
    return f"expected:\n{expected}\nfound (exit code {done.returncode}):\n{found}"


def environment() -> dict[str, str]:
    """Return the environment of a page's shell: the commands of this Python, and no colours."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": folders, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120"}


WITH_PLUGINS = {"attachments.md", "reviews.md"}
"""Pages whose server has plugins that cannot be installed everywhere: here, what stands in for them."""


@pytest.fixture
def namespace(
    page: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, object]]:
    """The names of one page; its clients and servers are closed at the end."""
    names: dict[str, object] = {}
    with ExitStack() as stack:
        if page.name in WITH_PLUGINS:
            host = stack.enter_context(serve_files(tmp_path_factory.mktemp("files")))
            includes = f"{DEFAULT_SETTINGS['includes']} attachment_stub signer_stub"
            settings = {"attachment.base_path": str(host.folder), "attachment.base_url": host.url}
            settings["signer.to_review_enabled"] = "true"
            names["server"] = EmbeddedServer.memory(includes=includes, **settings)
        if "$ kinto-orm" in page.read_text("utf-8"):
            url = stack.enter_context(listening(stack.enter_context(EmbeddedServer.memory())))
            monkeypatch.setenv("KINTO_SERVER", url)
            monkeypatch.setenv("KINTO_AUTH", "alexis:p4ssw0rd")
        yield names
    for value in names.values():
        if isinstance(value, (Client, EmbeddedServer)):
            value.close()


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_the_snippets_of_the_page_run_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)  # a page may make files
    found = snippets(page)

    assert bool(found) is (page.name not in WITHOUT_SNIPPETS)
    for example in found:
        example.namespace = namespace
        example.evaluate()


@pytest.mark.parametrize(
    ("session", "fault"),
    [
        ("$ echo one\none\n$ echo two\nthree\n", "$ echo two\nexpected:\nthree"),
        ("$ kinto-orm nothing\n", "there is no verb 'nothing'"),
        ("$ kinto-orm serve --nothing\n", "there is no '--nothing' here"),
        ("$ pip install 'kinto-orm[sever]'\n", "there is no sever"),
        ("$ make nothing\n", "there is no nothing"),
    ],
)
def test_a_session_that_differs_is_a_fault(session: str, fault: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```console\n{session}```\n", "utf-8")
    (example,) = snippets(page)

    with pytest.raises(SybilFailure, match=re.escape(fault)):
        example.evaluate()


def test_every_fence_is_closed_before_the_next_one() -> None:
    for page in PAGES:
        for fence in re.findall(r"^```[^\n]*\n.*?^```[^\n]*$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            assert fence.splitlines()[-1] == "```", f"{page.name}: {fence}"


@pytest.mark.parametrize("page", ["testing.md", "tutorial.md"])
def test_the_test_that_a_page_shows_passes(page: str, pytester: pytest.Pytester) -> None:
    found = sources(ROOT / "docs" / page)
    pytester.makepyfile("\n".join(found if page == "testing.md" else found[-1:]))

    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_example_of_the_readme_prints_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    source = sources(ROOT / "README.md")[0]

    exec(source, {})

    said = [line.partition("  # ")[2] for line in source.splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == said


def test_the_readme_and_its_example_are_short() -> None:
    source = sources(ROOT / "README.md")[0]

    assert len([line for line in source.splitlines() if line.strip()]) <= 24
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 80


def test_the_figures_of_the_readme_are_those_of_the_pages() -> None:
    block = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))["block"]

    assert block() in (ROOT / "README.md").read_text("utf-8")


def test_the_script_of_the_page_on_authentication_runs(
    kinto_client: Client, kinto_server: EmbeddedServer, tmp_path: Path
) -> None:
    payments = Bucket(id="payments", client=kinto_client, permissions={"read": ["system.Authenticated"]}).save()
    todos = Collection(bucket=payments, id="todos").save()
    todos.records.bulk_create([{"title": "Buy milk"}, {"title": "Drink it"}])
    script = tmp_path / "count.py"
    (source,) = [source for source in sources(ROOT / "docs" / "authentication.md") if "__main__" in source]
    script.write_text(source, "utf-8")

    with listening(kinto_server) as url:
        done = subprocess.run(
            [sys.executable, script, "--server", url, "--bucket", "payments"],
            env={**os.environ, "KINTO_AUTH": "alexis:p4ssw0rd", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert (done.stdout, done.stderr) == ("todos 2\n", "")


def table_rows(page: Path) -> list[list[str]]:
    """Return the cells of all tables of a page, without the lines that draw the head."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if not line.startswith("| ---")
    ]


def test_the_options_of_a_client_are_those_of_its_signature_with_their_defaults() -> None:
    parameters = inspect.signature(Client.__init__).parameters.values()
    expected = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    del expected["async_transport"]  # refused: it was an option once

    found = [cells for cells in table_rows(ROOT / "docs" / "client.md") if cells[0] != "Option"]

    assert {name.strip("`"): ast.literal_eval(default.strip("`")) for name, default, _ in found} == expected


def test_the_page_of_extras_names_each_extra_and_the_licence_of_each_package_that_it_brings() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    extras = dict(config["options.extras_require"])
    for_users = [lines for name, lines in extras.items() if name not in {"test", "docs", "all"}]
    packages = {
        requirement.name
        for lines in [config["options"]["install_requires"], *for_users]
        for requirement in map(Requirement, filter(None, lines.split("\n")))
        if requirement.name != "kinto-orm"
    }

    firsts = [cells[0] for cells in table_rows(ROOT / "docs" / "extras.md")]

    assert packages - set(firsts) == set()
    assert set(extras) == {word for first in firsts for word in re.findall(r"`([a-z-]+)`", first)}


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

    missing = [name for name in kinto_orm.__all__ if f":: {name}\n" not in page and not hasattr(errors, name)]

    assert missing == []


def prose(*without: str) -> str:
    """Return the text of all pages but the generated and listing ones."""
    return "\n".join(page.read_text("utf-8") for page in PAGES if page.name not in {"api.md", "coverage.md", *without})


@pytest.mark.parametrize("owner", [Query, RecordManager, CachedQuery, SyncPlan])
def test_a_page_explains_each_verb_of_a_query(owner: type[object]) -> None:
    names = {name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name))}
    pages = prose()

    names -= {f"a{name}" for name in names}
    assert {name for name in names if not re.search(rf"\b{name}\(|`{name}`", pages)} == set()


def test_the_page_on_the_command_names_each_verb() -> None:
    page = (ROOT / "docs" / "command.md").read_text("utf-8")

    assert [name for name in COMMANDS if not re.search(rf"\b{name.split()[-1]}\b", page)] == []


def test_the_exit_codes_of_the_command_are_those_of_the_table() -> None:
    rows = table_rows(ROOT / "docs" / "command.md")

    assert [int(cells[0]) for cells in rows if cells[0].isdigit()] == list(Exit)


def test_errors_and_modules_that_the_pages_name_are_there() -> None:
    pages = prose("comparison.md")
    of_errors = set(re.findall(r"\b[A-Z]\w+(?:Error|Warning|Conflict)\b", pages))
    of_modules = set(re.findall(r"\bkinto_orm(?:\.\w+)+", pages))

    assert {name for name in of_errors if not any(hasattr(one, name) for one in (errors, builtins))} == set()
    assert {name for name in of_modules if pydoc.locate(name) is None} == set()


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()

    assert [page.stem for page in PAGES[1:] if page.stem not in index] == ["index"]

"""Every snippet of README and docs/ is run, against the embedded Kinto; one namespace for each page."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from file_host import serve_files
from sybil import Example, Sybil
from sybil.parsers.myst import PythonCodeBlockParser

import kinto_orm
from kinto_orm import Bucket, Client, Collection, errors
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.application import DEFAULT_SETTINGS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_SNIPPETS = {"api.md", "changelog.md", "comparison.md", "coverage.md", "glossary.md", "performance.md"}


def snippets(page: Path) -> list[Example]:
    parser = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)
    return list(Sybil(parsers=[parser]).parse(page).examples())


WITH_PLUGINS = {"attachments.md", "reviews.md"}
"""Pages whose server has plugins that cannot be installed everywhere: here, what stands in for them."""


@pytest.fixture
def namespace(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """The names of one page; its clients and servers are closed at the end."""
    names: dict[str, object] = {}
    with ExitStack() as stack:
        if page.name in WITH_PLUGINS:
            host = stack.enter_context(serve_files(tmp_path_factory.mktemp("files")))
            includes = f"{DEFAULT_SETTINGS['includes']} attachment_stub signer_stub"
            settings = {"attachment.base_path": str(host.folder), "attachment.base_url": host.url}
            settings["signer.to_review_enabled"] = "true"
            names["server"] = EmbeddedServer.memory(includes=includes, **settings)
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


def test_the_test_that_the_page_on_testing_shows_passes(pytester: pytest.Pytester) -> None:
    source = "\n".join(example.parsed for example in snippets(ROOT / "docs" / "testing.md"))
    pytester.makepyfile(source)

    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_example_of_the_readme_prints_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    example = snippets(ROOT / "README.md")[0]

    example.evaluate()

    said = [line.partition("  # ")[2] for line in example.parsed.splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == said


def test_the_example_of_the_readme_is_short() -> None:
    example = snippets(ROOT / "README.md")[0]

    assert len([line for line in example.parsed.splitlines() if line.strip()]) <= 24


def test_the_script_of_the_readme_runs(kinto_client: Client, kinto_server: EmbeddedServer, tmp_path: Path) -> None:
    payments = Bucket(id="payments", client=kinto_client, permissions={"read": ["system.Authenticated"]}).save()
    todos = Collection(bucket=payments, id="todos").save()
    todos.records.bulk_create([{"title": "Buy milk"}, {"title": "Drink it"}])
    script = tmp_path / "count.py"
    script.write_text(snippets(ROOT / "README.md")[1].parsed, "utf-8")

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


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

    missing = [name for name in kinto_orm.__all__ if f":: {name}\n" not in page and not hasattr(errors, name)]

    assert missing == []


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()

    assert [page.stem for page in PAGES[1:] if page.stem not in index] == ["index"]

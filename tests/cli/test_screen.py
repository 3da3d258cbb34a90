"""What reaches a terminal, a pipe, a file."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from canary import CANARY
from command_line import Command, Run
from hypothesis import given
from hypothesis import strategies as st
from terminal import show_in_terminal

from kinto_orm import Client, Collection, GuardError, Record
from kinto_orm.cli import COMMANDS, screen
from kinto_orm.cli.screen import Screen, escaped, escaped_json, table

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-W", "error", "-c", "import sys; from kinto_orm.cli import main; sys.exit(main())"]
EVIL = "\x1b[2J\x9b31m\u202e\x07\r\x00"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@given(st.text())
def test_no_text_commands_a_terminal(text: str) -> None:
    assert escaped(text).isprintable()
    shown = escaped_json(json.dumps(text, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == text


def test_what_a_server_says_is_escaped_in_every_form(kinto: Command, cfg: Collection[Record]) -> None:
    cfg.records.create(id="evil", data={"title": EVIL.replace("\x00", ""), EVIL[:5]: [EVIL[:5]]})

    for arguments in (
        ("list", "main/cfg"),
        ("get", "main/cfg/evil"),
        ("diff", "main/cfg", "main"),
        ("history", "main"),
    ):
        for run in (kinto(*arguments), kinto.in_terminal(*arguments)):
            shown = run.out.replace("\x1b[1m", "").replace("\x1b[0m", "") + run.err.replace("\x1b", "")
            assert shown.replace("\n", "").isprintable()
    assert kinto("get", "main/cfg/evil").lines[0]["title"] == EVIL.replace("\x00", "")


@pytest.mark.parametrize("width", [20, 40, 200])
def test_a_table_fits_into_its_terminal(width: int) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "title": "x" * 300, "last_modified": 0, "n": None},
        {"id": "b", "title": "日本語" * 20, "last_modified": 10**18, "more": {"a": [1]}},
    ]

    lines = [line.rstrip("\n") for line in table(rows, width, Screen())]

    assert [line.split()[0] for line in lines] == ["id", "a", "b"]
    assert max(map(screen.cells_of, lines)) <= width
    assert list(table([], width, Screen())) == []
    if width == 200:
        assert "1970-01-01 00:00:00" in lines[1] and "null" in lines[1] and '{"a": [1]}' in lines[2]


@pytest.fixture
def many(cfg: Collection[Record]) -> Collection[Record]:
    # Of a longer batch webob leaves a temporary file open, and warnings are errors here.
    cfg.records.bulk_create({"id": f"r{n:04}", "text": "x" * 200} for n in range(300))
    return cfg


@pytest.mark.usefixtures("many")
class TestPipes:
    def test_a_reader_that_goes_ends_a_list_quietly(self) -> None:
        line = f"{shlex.join(PROGRAM)} list main/cfg | head -n 1"

        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment(), capture_output=True, text=True)

        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["id"] == "a"

    def test_a_reader_that_goes_does_not_end_a_sync(self, many: Collection[Record]) -> None:
        line = f"{shlex.join(PROGRAM)} update main/cfg --everything text=y | head -n 1"

        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=environment(), capture_output=True, text=True)

        assert (done.returncode, done.stderr) == (0, "kinto-orm: 303 updated\n")
        assert many.records.filter(text="y").count() == 303

    def test_a_bar_is_drawn_where_the_rows_go_into_a_file(self, tmp_path: Path) -> None:
        with (tmp_path / "out").open("w") as out:
            program, settings = [*PROGRAM, "list", "main/cfg"], environment(TERM="xterm")
            _, shown = show_in_terminal(
                lambda end: subprocess.run(program, env=settings, stdout=out, stderr=end, check=False)
            )

        assert "303" in shown
        assert len((tmp_path / "out").read_text().splitlines()) == 303


@pytest.mark.usefixtures("kinto")
def test_a_terminal_of_ascii_shows_other_characters_escaped(cfg: Collection[Record]) -> None:
    cfg.records.create(id="d", data={"title": "日本" * 200})
    settings = environment(PYTHONIOENCODING="ascii", TERM="dumb")

    done, shown = show_in_terminal(
        lambda end: subprocess.run([*PROGRAM, "list", "main/cfg"], env=settings, stdout=end, stderr=end, check=False)
    )

    assert (done.returncode, "\\u65e5\\u672c" in shown) == (0, True)


class TestSecrets:
    """Every verb, with the same secret as the user's password and as a password that is stored."""

    @pytest.fixture
    def runs(self, kinto: Command, cfg: Collection[Record], tmp_path: Path, client: Client) -> list[Run]:
        rows, model, schema = tmp_path / "rows.csv", tmp_path / "model.py", tmp_path / "schema.json"
        rows.write_text("id,title\na,Anna\nd,Dee\n")
        model.write_text("from kinto_orm import Record\n\nclass Cfg(Record):\n    title: str\n")
        schema.write_text('{"type": "object", "properties": {"title": {"type": "string"}}}')
        backup, plan = tmp_path / "backup", tmp_path / "plan.json"
        arguments: list[tuple[object, ...]] = [
            ("info",),
            ("serve", "--port", "-1"),
            ("list", "main/cfg"),
            ("get", "main/cfg/a"),
            ("put", "main/cfg/new", "n=1"),
            ("put", "/accounts/canary", f"password={CANARY}"),
            ("update", "main/cfg", "--everything", "x=1"),
            ("edit", "main/cfg/a"),
            ("plan", "main/cfg", rows, "--out", plan),
            ("apply", plan),
            ("sync", "main/cfg", rows, "--from-server", client.server_url, "--from-auth", f"canary:{CANARY}"),
            ("diff", "main/cfg", "main/cfg", "--from-server", client.server_url, "--from-auth", f"canary:{CANARY}"),
            ("changes", "main/cfg", "--state", tmp_path / "token", "--horizon", "0"),
            ("dump", "main", backup, "--horizon", "0"),
            ("load", backup, "--as", "restored"),
            ("load", backup, "--as", "again", "--dry-run"),
            (
                "copy",
                "main",
                "copied",
                "--horizon",
                "0",
                "--to-server",
                client.server_url,
                "--to-auth",
                f"canary:{CANARY}",
            ),
            ("permissions", "main"),
            ("history", "main"),
            ("schema", "push", "main/cfg", schema),
            ("schema", "show", "main/cfg"),
            ("schema", "diff", "main/cfg", schema),
            ("schema", "check", "main/cfg"),
            ("schema", "pending", "main/cfg"),
            ("models", "pull", "main/cfg"),
            ("models", "check", "main/cfg", f"{model}:Cfg"),
            ("completion", "bash"),
            *(("review", step, "main/cfg") for step in ("show", "approve", "sign")),
            *(("review", step, "main/cfg", "-m", "Please") for step in ("request", "decline", "rollback")),
            ("delete", "main", "--yes"),
            ("list", "-s", "http://localhost:1/v1", "--retry", "0"),
        ]
        named = {" ".join(map(str, one[:2])) for one in arguments} | {str(one[0]) for one in arguments}
        assert set(COMMANDS) - {"demo"} <= named
        return [
            kinto(*map(str, one), "-D") if one[0] not in ("serve", "completion") else kinto(*map(str, one))
            for one in arguments
        ]

    def test_no_verb_shows_a_secret(self, runs: list[Run], tmp_path: Path) -> None:
        assert not [run for run in runs if CANARY in run.out + run.err]
        assert sum(run.code == 0 for run in runs) >= 20
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_what_a_shell_says_for_python_is_still_said_in_python() -> None:
    said = re.sub(r'"\s*"', "", "".join(path.read_text("utf-8") for path in (ROOT / "kinto_orm").rglob("*.py")))

    assert [words for words in screen.IN_SHELL if said.count(words) < 2] == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "a.csv: No such file or directory"),
        (
            GuardError("max_deletes=0.125 allows 3, max_deletes=10 ten."),
            "--max-deletes 12.5% allows 3, --max-deletes 10 ten.",
        ),
    ],
)
def test_messages_are_in_the_words_of_the_command(error: Exception, message: str) -> None:
    assert screen.message_of(error) == message

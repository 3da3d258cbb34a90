"""``edit``: the editor is a small program, which may write to the server as another client does."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from command_line import Command

from kinto_orm import Collection, Record

Edit: TypeAlias = Callable[[str], None]
"""Makes this program the editor: it has ``path``, ``text``, ``turn`` and ``rival()``."""

EDITOR = """
import base64, json, os, sys, urllib.request

def rival(method="PATCH", **data):
    headers = {{"Authorization": "Basic " + base64.b64encode(os.environ["KINTO_AUTH"].encode()).decode()}}
    headers["Content-Type"] = "application/json"
    body = json.dumps({{"data": data}}).encode()
    url = "{url}/buckets/main/collections/cfg/records/a"
    urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)).read()

path = sys.argv[1]
text = open(path).read()
count = "{folder}/count"
try:
    turn = int(open(count).read()) + 1
except FileNotFoundError:
    turn = 1
open(count, "w").write(str(turn))
open("{folder}/seen" + str(turn), "w").write(text)
"""


@pytest.fixture
def edit(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    def make(program: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(EDITOR.format(url=url, folder=tmp_path) + program)
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, "-S", str(script)]))
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)

    return make


def test_what_changed_is_saved(kinto: Command, cfg: Collection[Record], edit: Edit, tmp_path: Path) -> None:
    edit('open(path, "w").write(text.replace("Ann", "Anna"))')

    run = kinto("edit", "main/cfg/a")

    assert run.lines == [{"id": "a", "status": "updated"}]
    assert sorted((tmp_path / "seen1").read_text().split(",\n")) == ['  "n": 1\n}\n', '{\n  "title": "Ann"']
    assert cfg.records.get("a").data == {"title": "Anna", "n": 1}


@pytest.mark.parametrize("program", ["", 'open(path, "w").write(json.dumps(json.loads(text)))'])
def test_nothing_is_sent_where_nothing_changed(
    program: str, kinto: Command, cfg: Collection[Record], edit: Edit
) -> None:
    timestamp = cfg.records.timestamp()
    edit(program)

    assert kinto("edit", "main/cfg/a").lines == [{"id": "a", "status": "unchanged"}]
    assert cfg.records.timestamp() == timestamp


def test_a_dry_run_shows_what_would_be_saved(kinto: Command, cfg: Collection[Record], edit: Edit) -> None:
    edit('open(path, "w").write("{}")')

    run = kinto("edit", "main/cfg/a", "--dry-run")

    assert (run.code, run.lines[0]["new"]) == (1, {})
    assert cfg.records.get("a").data == {"title": "Ann", "n": 1}


def test_the_changes_of_both_sides_are_stored_and_shown(kinto: Command, cfg: Collection[Record], edit: Edit) -> None:
    edit('rival(n=7)\nopen(path, "w").write(text.replace("Ann", "Anna"))')

    run = kinto("edit", "main/cfg/a")

    assert (run.code, run.lines) == (0, [{"id": "a", "status": "updated"}])
    assert run.err == (
        "kinto-orm: another client changed a since you opened it:\n    n: 1 -> 7\nkinto-orm: both changes are stored.\n"
    )
    assert cfg.records.get("a").data == {"title": "Anna", "n": 7}


def test_one_field_that_both_changed_is_shown_from_both_sides(
    kinto: Command, cfg: Collection[Record], edit: Edit, tmp_path: Path
) -> None:
    edit(
        'if turn == 1:\n    rival(title="Theirs", n=7)\n    open(path, "w").write(text.replace("Ann", "Mine"))\n'
        'else:\n    open(path, "w").write(\'{"n": 7, "title": "Ours"}\')'
    )

    run = kinto.in_terminal("edit", "main/cfg/a")

    assert run.code == 0
    assert (tmp_path / "seen2").read_text() == (
        '{\n  "n": 7,\n<<<<<<< yours\n  "title": "Mine"\n=======\n  "title": "Theirs"\n>>>>>>> theirs\n}\n'
    )
    assert cfg.records.get("a").data == {"title": "Ours", "n": 7}


def test_without_a_terminal_such_a_conflict_keeps_what_was_typed(
    kinto: Command, cfg: Collection[Record], edit: Edit
) -> None:
    edit('rival(title="Theirs")\nopen(path, "w").write(text.replace("Ann", "Mine"))')

    run = kinto("edit", "main/cfg/a")

    assert run.code == 1
    assert "title" in run.err
    kept = re.search(r"^kinto-orm: your text is kept in (.*)$", run.err, re.MULTILINE)
    assert kept is not None and '"Mine"' in Path(kept[1]).read_text()
    assert cfg.records.get("a").data["title"] == "Theirs"


def test_text_that_is_no_json_is_edited_again(kinto: Command, cfg: Collection[Record], edit: Edit) -> None:
    edit('open(path, "w").write("{" if turn < 3 else "{}")')

    in_pipe = kinto("edit", "main/cfg/a", stdin="")
    run = kinto.in_terminal("edit", "main/cfg/a", answers="y\n")

    assert (in_pipe.code, "your text is kept in" in in_pipe.err) == (2, True)
    assert run.code == 0
    assert "This cannot be saved: it is no JSON" in run.err
    assert cfg.records.get("a").data == {}


def test_a_record_that_is_gone_keeps_what_was_typed(kinto: Command, cfg: Collection[Record], edit: Edit) -> None:
    edit('rival("DELETE")\nopen(path, "w").write("{}")')

    run = kinto("edit", "main/cfg/a")

    assert (run.code, "your text is kept in" in run.err) == (3, True)
    assert kinto("edit", "main/cfg/a").code == 3


@pytest.mark.parametrize("editor", ["/no/such/editor", "false"])
def test_an_editor_that_fails_saves_nothing(
    editor: str, kinto: Command, cfg: Collection[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", editor)

    run = kinto("edit", "main/cfg/a")

    assert (run.code, "your text" in run.err) == (2, False)
    assert "editor" in run.err

"""``edit``: an object in the user's editor, saved with its precondition, merged where another client was faster."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinto_orm import ConflictError, InvalidValueError, KintoError, MergeConflict, PlannedChange, UsageError
from kinto_orm.cli.objects import add_path, show_done, show_planned
from kinto_orm.cli.options import Command, add_connection, add_dry_run, connect, json_object, manager_of, path_of
from kinto_orm.cli.screen import Exit, Screen, can_ask
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.merge import merge_data

MINE, BETWEEN, THEIRS = "<<<<<<< yours", "=======", ">>>>>>> theirs"


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``edit``."""
    add_path(parser, "the object", nargs=None)
    add_dry_run(parser)
    add_connection(parser)


def run_edit(options: argparse.Namespace, screen: Screen) -> Exit:
    """Open the data of an object in ``$EDITOR``, and save what changed.

    Where another client changed it too, both changes are stored; where both changed one field, the editor shows them
    side by side. Raises ``MergeConflict`` where there is no terminal for that.
    """
    with connect(options, screen) as client, tempfile.TemporaryDirectory(prefix="kinto-orm-edit-") as folder:
        path = path_of(options, options.path)
        one = manager_of(client, path).get(path.id)
        file = Path(folder) / f"{path.id}.json"
        shown = _text_of(dict(one.data))
        file.write_text(shown, "utf-8")
        try:
            return _edit(one, file, options, screen)
        except (KintoError, KeyboardInterrupt):
            if (typed := file.read_text("utf-8", "replace")) != shown:
                kept = Path(tempfile.mkdtemp(prefix="kinto-orm-edit-")) / file.name
                kept.write_text(typed, "utf-8")
                screen.complain(f"your text is kept in {kept}")
            raise


def _edit(one: Any, file: Path, options: argparse.Namespace, screen: Screen) -> Exit:
    while True:
        data = _edited(file, screen)
        change = PlannedChange("update", one.id, "", one.last_modified, dict(one.data), data)
        if options.dry_run:
            return show_planned(change, screen)
        one.data = data
        try:
            _save(one, screen)
        except MergeConflict as conflict:
            if conflict.theirs is None or not can_ask():
                raise
            file.write_text(text_with_both(conflict), "utf-8")
            conflict.reload()
        else:
            return show_done(change, screen)


def _save(one: Any, screen: Screen) -> None:
    """Save the object; where another client changed it, show that change, and store both."""
    try:
        one.save()
    except ConflictError as conflict:
        if conflict.theirs is None:
            raise
        theirs = PlannedChange("update", one.id, old=dict(conflict.base or {}), new=dict(conflict.theirs))
        screen.note(f"kinto-orm: another client changed {one.id} since you opened it:")
        for path, old, new in theirs.differences():
            screen.note(f"    {path}: {screen.said(old)} -> {screen.said(new)}")
        conflict.merge()
        screen.note("kinto-orm: both changes are stored.")


def _edited(file: Path, screen: Screen) -> JSONObject:
    """Return the data of the file as the user leaves it; open it again where that is no JSON object."""
    while True:
        _open_editor(file)
        try:
            return json_object(file.read_text("utf-8"))
        except (argparse.ArgumentTypeError, UnicodeDecodeError) as error:
            if not can_ask():
                raise InvalidValueError(f"What the editor left cannot be saved: {error}.") from error
            screen.confirm(f"This cannot be saved: {error}. Edit it again?", is_confirmed=False)


def _open_editor(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(file)], check=False)
    except OSError as error:
        raise UsageError(f"The editor {editor!r} does not start ({error}): set EDITOR.") from error
    if done.returncode:
        raise UsageError(f"The editor {editor!r} ended with {done.returncode}: nothing was saved.")


def _text_of(data: JSONObject) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def text_with_both(conflict: MergeConflict) -> str:
    """Return the data with the changes of both sides, and both versions of each field that both changed."""
    base, mine, theirs = (dict(one or {}) for one in (conflict.base, conflict.mine, conflict.theirs))
    sides = (merge_data(base, mine, theirs).data, merge_data(base, theirs, mine).data)
    first, second = (json.dumps(one, indent=2, ensure_ascii=False, sort_keys=True).splitlines() for one in sides)
    return "".join(f"{line}\n" for line in _lines_of_both(first, second))


def _lines_of_both(mine: list[str], theirs: list[str]) -> Iterator[str]:
    for tag, start, end, other_start, other_end in difflib.SequenceMatcher(
        a=mine, b=theirs, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            yield from mine[start:end]
        else:
            yield from (MINE, *mine[start:end], BETWEEN, *theirs[other_start:other_end], THEIRS)


COMMANDS = (
    Command(
        "edit",
        "Objects",
        "open an object in your editor; changes of others are merged",
        "kinto-orm edit main/cfg/welcome",
        add_edit_options,
        run_edit,
        "Nothing was saved after the last message.",
    ),
)

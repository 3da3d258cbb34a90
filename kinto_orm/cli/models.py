"""The verbs that make and check models: ``models pull``, ``models check``."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinto_orm import Collection, KintoError, Record
from kinto_orm.cli.jobs import collection_of
from kinto_orm.cli.objects import add_path
from kinto_orm.cli.options import Command, add_connection, connect, finish, load_model
from kinto_orm.cli.screen import Exit, Screen, counted, one_line
from kinto_orm.protocol.json_values import JSONObject


def add_pull_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``models pull``."""
    add_path(parser, "the collection")
    add_connection(parser)


def run_pull(options: argparse.Namespace, screen: Screen) -> Exit:
    """Print a module with a model of the records, made of the schema of the collection."""
    with connect(options, screen) as client:
        screen.say(collection_of(options, client).model_source().rstrip("\n"))
    return Exit.DONE


def add_check_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``models check``."""
    add_path(parser, "the collection", nargs=None)
    parser.add_argument(
        "file", metavar="MODEL", help="FILE.py, as models pull wrote it; or a model of yours, as FILE.py:CLASS"
    )
    add_connection(parser)


def run_check(options: argparse.Namespace, screen: Screen) -> Exit:
    """Compare the file with what ``models pull`` would write, or load each record by the model.

    The exit code is 1 where they differ, or a record does not fit.
    """
    if options.file.endswith(".py"):
        return _compare_file(options, screen)
    options.model = load_model(options.file)
    with connect(options, screen) as client:
        found = list(_misfits(collection_of(options, client), options.model))
    if found:
        screen.show_all(found)
    screen.sum_up(f"{counted(len(found), 'record')} do not fit" if found else "every record fits")
    return finish(bool(found))


def _compare_file(options: argparse.Namespace, screen: Screen) -> Exit:
    text = Path(options.file).read_text("utf-8")
    with connect(options, screen) as client:
        wanted = collection_of(options, client).model_source()
    name = options.file
    for line in difflib.unified_diff(text.splitlines(), wanted.splitlines(), name, "models pull", lineterm=""):
        colour = {"+": "green", "-": "red"}.get(line[:1], "")
        screen.say(line, colour)
    screen.sum_up(f"{name} is {'not ' if text != wanted else ''}as models pull would write it")
    return finish(text != wanted)


def _misfits(collection: Collection[Any], model: type[Record]) -> Iterator[JSONObject]:
    for one in collection.records.filter(on_invalid="keep"):
        if not isinstance(one, model):
            try:
                model(data=one.data)
            except KintoError as error:
                yield {"id": one.id, "problem": one_line(error)}


COMMANDS = (
    Command(
        "models pull",
        "Models and shells",
        "write a typed model of the records, made of the schema",
        "kinto-orm models pull main/cfg > cfg.py",
        add_pull_options,
        run_pull,
    ),
    Command(
        "models check",
        "Models and shells",
        "compare such a file with the schema, or a model with each record",
        "kinto-orm models check main/cfg cfg.py",
        add_check_options,
        run_check,
    ),
)

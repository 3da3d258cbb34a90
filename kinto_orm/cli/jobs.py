"""The verbs about all of a collection: ``sync``, ``plan``, ``apply``, ``diff``, ``changes``."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePath
from typing import Any

from kinto_orm import Client, Collection, FeedChange, Record, SyncPlan
from kinto_orm.cli.objects import AGAIN, add_max_deletes, add_on_conflict, add_path, to_row
from kinto_orm.cli.options import (
    Command,
    add_connection,
    add_dry_run,
    add_other_server,
    connect,
    connect_other,
    finish,
    load_model,
    names,
    path_of,
)
from kinto_orm.cli.screen import Exit, Screen, counted
from kinto_orm.jobs.sources import read_json_lines
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.paths import Kind
from kinto_orm.repository.disk import write_text

SUFFIXES = (".csv", ".jsonl", ".json")


# -- sync, plan, diff -------------------------------------------------------------------------------------------------


def add_source(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the collection, the rows, and how they are compared."""
    add_path(parser, what, nargs=None)
    parser.add_argument(
        "source", metavar="SOURCE", help="a file (.csv .jsonl .json), another collection, or - for JSON Lines on stdin"
    )
    parser.add_argument("--key", type=names, default=["id"], metavar="FIELDS", help="what matches rows with records")
    parser.add_argument("--fields", type=_fields, help="exact, given, or the keys to compare: see the documentation")
    parser.add_argument("--model", type=load_model, metavar="FILE.py:CLASS", help="the model of the records")
    add_other_server(parser, "from", "of a collection that is the source")


def _fields(text: str) -> Any:
    return text if text in ("exact", "given") else names(text)


def add_deletes(parser: argparse.ArgumentParser) -> None:
    """Add the deletion of what the rows lack, and its guard."""
    parser.add_argument("--delete", action="store_true", help="delete the records that the source lacks")
    add_max_deletes(parser, "with --delete, refuse to delete more")


def add_sync_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sync``."""
    add_source(parser, "the collection that is made equal to the source")
    add_deletes(parser)
    add_on_conflict(parser)
    add_review(parser)
    add_dry_run(parser)
    add_connection(parser)


def add_review(parser: argparse.ArgumentParser) -> None:
    """Add ``--request-review``."""
    parser.add_argument(
        "--request-review", metavar="MESSAGE", help="ask for a review at the end, if there is anything to review"
    )


def collection_of(options: argparse.Namespace, client: Client) -> Collection[Any]:
    """Return the collection that the options name, of their model."""
    path = path_of(options, options.path, Kind.COLLECTION)
    return _collection(client, path.ids, getattr(options, "model", None))


def _collection(client: Client, ids: tuple[str, ...], model: type[Record] | None) -> Collection[Any]:
    bucket = client.bucket(ids[0])
    return bucket.collection(ids[1]) if model is None else Collection(bucket=bucket, id=ids[1], model=model)


def rows_of(options: argparse.Namespace, client: Client) -> Any:
    """Return the rows of the source: an iterable, the path of a file, or the records of a collection."""
    text: str = options.source
    if text == "-":
        return (row for _, row in read_json_lines(sys.stdin, "stdin"))
    if not options.from_server and (PurePath(text).suffix.lower() in SUFFIXES or os.path.exists(text)):
        return text
    path = path_of(options, text, Kind.COLLECTION)
    return _collection(connect_other(options, "from", client), path.ids, options.model).records


def run_sync(options: argparse.Namespace, screen: Screen) -> Exit:
    """Make the collection equal to the source: create and update records, and with ``--delete`` delete the others."""
    with connect(options, screen) as client:
        collection = collection_of(options, client)
        rows = rows_of(options, client)
        if options.dry_run:
            return _show_plan(_plan(options, collection, rows, screen), screen)
        with reviewed(options, collection), screen.progress() as progress:
            report = collection.records.sync(
                rows,
                key=options.key,
                delete=options.delete,
                max_deletes=options.max_deletes,
                fields=options.fields,
                on_conflict=options.on_conflict,
                progress=progress,
                on_outcome=screen.show_outcome,
            )
        screen.show_report(report)
        if report.without_key:
            screen.note(
                f"kinto-orm: left alone, without {', '.join(options.key)}: {counted(report.without_key, 'record')}"
            )
    return Exit.DONE


def reviewed(options: argparse.Namespace, collection: Collection[Any]) -> AbstractContextManager[object]:
    """Return the block at whose end a review is asked for, where the user wants that."""
    return nullcontext() if options.request_review is None else collection.publication(options.request_review)


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``plan``."""
    add_source(parser, "the collection that the plan would make equal to the source")
    add_deletes(parser)
    parser.add_argument("--out", metavar="FILE", help="keep the plan there, for kinto-orm apply FILE")
    add_connection(parser)


def run_plan(options: argparse.Namespace, screen: Screen) -> Exit:
    """Show what ``sync`` would do, and keep it with ``--out``; the exit code is 1 where anything differs."""
    with connect(options, screen) as client:
        plan = _plan(options, collection_of(options, client), rows_of(options, client), screen)
        if options.out is not None:
            plan.save(options.out)
        code = _show_plan(plan, screen)
        if options.out is not None:
            screen.note(f"kinto-orm: {options.out} has the plan: kinto-orm apply {options.out}")
        return code


def _plan(options: argparse.Namespace, collection: Collection[Any], rows: Any, screen: Screen) -> SyncPlan:
    with screen.progress() as progress:
        return collection.records.plan(
            rows,
            key=options.key,
            delete=options.delete,
            max_deletes=options.max_deletes,
            fields=options.fields,
            progress=progress,
        )


def _show_plan(plan: SyncPlan, screen: Screen) -> Exit:
    for change in plan:
        screen.show_change(change)
        if screen.is_closed:
            break
    counts = plan.counts
    screen.sum_up(
        f"{counts.create:,} to create, {counts.update:,} to update, {counts.delete:,} to delete, "
        f"{counts.unchanged:,} unchanged"
    )
    return finish(not plan.is_empty)


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``diff``."""
    add_source(parser, "the collection")
    add_connection(parser)


def run_diff(options: argparse.Namespace, screen: Screen) -> Exit:
    """Show all that would make the collection equal to the source; the exit code is 1 where anything differs."""
    with connect(options, screen) as client:
        records, rows = collection_of(options, client).records, rows_of(options, client)
        with screen.progress() as progress:
            plan = records.diff(rows, key=options.key, fields=options.fields, progress=progress)
        return _show_plan(plan, screen)


# -- apply ------------------------------------------------------------------------------------------------------------


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``apply``."""
    parser.add_argument("plan", metavar="FILE", help="what kinto-orm plan --out wrote")
    add_dry_run(parser)
    add_connection(parser, bucket=False, collection=False)


def run_apply(options: argparse.Namespace, screen: Screen) -> Exit:
    """Apply a plan: exactly what was shown, or nothing where the collection was changed since."""
    with connect(options, screen) as client:
        plan = client.load_plan(options.plan)
        if options.dry_run:
            return _show_plan(plan, screen)
        with screen.progress() as progress:
            report = plan.apply(progress=progress, on_outcome=screen.show_outcome)
        screen.show_report(report)
    return Exit.DONE


# -- changes ----------------------------------------------------------------------------------------------------------


def add_changes_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``changes``."""
    add_path(parser, "the collection")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--state", metavar="FILE", help="go on from the token in this file, and keep the next one there")
    where.add_argument("--since", metavar="TOKEN", help="go on from this token")
    parser.add_argument(
        "--horizon",
        type=float,
        default=10,
        metavar="SECONDS",
        help="how long a transaction of the server may take (default: 10)",
    )
    add_connection(parser)


def run_changes(options: argparse.Namespace, screen: Screen) -> Exit:
    """Print each change since the last time once; without a token, each record."""
    state = None if options.state is None else Path(options.state)
    token = state.read_text("utf-8").strip() if state is not None and state.exists() else options.since
    with connect(options, screen) as client:
        feed = collection_of(options, client).records.changes(since=token, horizon=options.horizon)
        for change in feed:
            _show_feed_change(change, screen)
            screen.flush()
            if screen.is_closed:
                return Exit.DONE  # what was read is not known: the token stays as it was
        if state is None:
            screen.note(f"kinto-orm: go on with --since {feed.token}")
        else:
            write_text(state, [f"{feed.token}\n"])
    return Exit.DONE


def _show_feed_change(change: FeedChange[Any], screen: Screen) -> None:
    row: JSONObject = to_row(change.record)
    if not screen.is_for_people:
        screen.show({"id": row.pop("id"), "kind": change.kind, "record": row})
    elif change.kind == "deleted":
        screen.say(f"- {change.record.id}", "red")
    else:
        screen.say(f"~ {change.record.id}", "yellow")
        screen.show({key: value for key, value in row.items() if key != "id"})


COMMANDS = (
    Command(
        "sync",
        "Collections",
        "make a collection equal to a file, stdin or another collection",
        "kinto-orm sync main/countries countries.csv --delete --max-deletes 10%",
        add_sync_options,
        run_sync,
        AGAIN,
    ),
    Command(
        "plan",
        "Collections",
        "show what sync would do, field by field, and keep it",
        "kinto-orm plan main/countries countries.csv --out plan.json",
        add_plan_options,
        run_plan,
    ),
    Command(
        "apply",
        "Collections",
        "apply a plan: exactly what was shown, or nothing",
        "kinto-orm apply plan.json",
        add_apply_options,
        run_apply,
        "Run the same command again: what is stored of the plan is not sent again.",
    ),
    Command(
        "diff",
        "Collections",
        "show what would make a collection equal to another, or to a file",
        "kinto-orm diff main/countries stage/countries",
        add_diff_options,
        run_diff,
    ),
    Command(
        "changes",
        "Collections",
        "print what changed since the last time, each change once",
        "kinto-orm changes main/countries --state countries.token",
        add_changes_options,
        run_changes,
        "The token was not moved: run the same command again; some changes may come twice.",
    ),
)

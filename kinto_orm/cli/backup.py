"""The verbs about whole buckets: ``dump``, ``load``, ``copy``."""

from __future__ import annotations

import argparse
from typing import Any

from kinto_orm import LoadReport
from kinto_orm.cli.objects import AGAIN, add_max_deletes
from kinto_orm.cli.options import (
    Command,
    add_connection,
    add_dry_run,
    add_other_server,
    connect,
    connect_other,
    pair,
    path_of,
)
from kinto_orm.cli.screen import Exit, Screen, counted
from kinto_orm.protocol.paths import Kind

HORIZON_HELP = (
    "how long a transaction of the server may take; a list that was changed later is waited for (default: 10)"
)


# -- dump -------------------------------------------------------------------------------------------------------------


def add_dump_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``dump``."""
    parser.add_argument("path", metavar="BUCKET")
    parser.add_argument(
        "folder", metavar="FOLDER", help="made where there is none; an earlier dump is brought up to date"
    )
    parser.add_argument("--horizon", type=float, default=10, metavar="SECONDS", help=HORIZON_HELP)
    add_connection(parser, bucket=False, collection=False)


def run_dump(options: argparse.Namespace, screen: Screen) -> Exit:
    """Write a bucket into a folder: groups, collections, records, files."""
    path = path_of(options, options.path, Kind.BUCKET)
    with connect(options, screen) as client, screen.progress() as progress:
        report = client.bucket(path.id).dump(options.folder, horizon=options.horizon, progress=progress)
    if not screen.is_for_people:
        for id, count in report.collections.items():
            screen.show({"id": id, "records": count, "reused": id in report.reused})
    counts = {"collection": len(report.collections), "record": sum(report.collections.values())}
    counts |= {noun: count for noun, count in (("group", report.groups), ("file", report.files)) if count}
    screen.sum_up(f"{options.folder}: {', '.join(counted(count, noun) for noun, count in counts.items())}")
    problems = {
        "was changed while it was read: its records are of no one moment": report.unsettled,
        "the server has lost its file": report.lost_files,
        "its permissions are unknown": report.unknown_permissions,
    }
    for text, paths in problems.items():
        for one in paths:
            screen.note(f"kinto-orm: {one}: {text}")
    return Exit.DIFFERS if report.unsettled or report.lost_files else Exit.DONE


# -- load, copy -------------------------------------------------------------------------------------------------------


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``load``."""
    parser.add_argument("folder", metavar="FOLDER", help="what kinto-orm dump wrote")
    parser.add_argument("--as", dest="target", metavar="BUCKET", help="another id for the bucket")
    _add_loading(parser)
    add_connection(parser, bucket=False, collection=False)


def _add_loading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--permissions",
        choices=("exact", "add", "skip"),
        default="exact",
        help="set them as they were, add them to those that are there, or leave them alone (default: exact)",
    )
    parser.add_argument(
        "--principal",
        type=pair,
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="another user in the place of that one; OLD= leaves it out; may be repeated",
    )
    parser.add_argument("--delete", action="store_true", help="delete what the dump lacks")
    add_max_deletes(parser, "with --delete, refuse to delete more of a collection")
    parser.add_argument("--timestamps", action="store_true", help="keep last_modified, in collections that are empty")
    add_dry_run(parser)


def _loading(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "bucket": options.target,
        "permissions": options.permissions,
        "principals": {old: new or None for old, new in options.principal},
        "delete": options.delete,
        "max_deletes": options.max_deletes,
        "timestamps": options.timestamps,
    }


def run_load(options: argparse.Namespace, screen: Screen) -> Exit:
    """Load a dump: create what is missing, change what differs."""
    with connect(options, screen) as client:
        target = client.clone(dry_mode=True) if options.dry_run else client
        with screen.progress() as progress:
            report = target.load(options.folder, **_loading(options), progress=progress)
        return screen.show_requests(target.plan()) if options.dry_run else _show_load(report, screen)


def add_copy_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``copy``."""
    parser.add_argument("path", metavar="BUCKET")
    parser.add_argument("target", metavar="COPY", nargs="?", help="the id of the copy; without it the same")
    add_other_server(parser, "to", "of the copy")
    _add_loading(parser)
    parser.add_argument("--horizon", type=float, default=10, metavar="SECONDS", help=HORIZON_HELP)
    add_connection(parser, bucket=False, collection=False)


def run_copy(options: argparse.Namespace, screen: Screen) -> Exit:
    """Copy a bucket: a dump and a load without the folder."""
    path = path_of(options, options.path, Kind.BUCKET)
    with connect(options, screen) as client:
        target = connect_other(options, "to", client)
        target = target.clone(dry_mode=True) if options.dry_run else target
        with screen.progress() as progress:
            report = client.bucket(path.id).copy_to(
                target, **_loading(options), horizon=options.horizon, progress=progress
            )
        return screen.show_requests(target.plan()) if options.dry_run else _show_load(report, screen)


def _show_load(report: LoadReport, screen: Screen) -> Exit:
    screen.show_report(report)
    for path, principal in report.added_principals.items():
        screen.note(f"kinto-orm: {path}: {principal} may write it, too: Kinto says that of who creates an object")
    for path in report.unknown_permissions:
        screen.note(f"kinto-orm: {path}: the server does not show its permissions: left alone")
    for violation in report.violations or ():
        screen.note(f"kinto-orm: it violates the schema of its collection: {violation}")
    for path in report.lost_files:
        screen.note(f"kinto-orm: {path}: its file was lost when the dump was made")
    return Exit.DONE


COMMANDS = (
    Command(
        "dump",
        "Buckets",
        "write a bucket into a folder that git can compare",
        "kinto-orm dump main backup/",
        add_dump_options,
        run_dump,
        "The dump is not whole, and load refuses it: run the same command again to finish it.",
    ),
    Command(
        "load",
        "Buckets",
        "load a dump, into this server or another; a second run writes nothing",
        "kinto-orm load backup/ --as restored",
        add_load_options,
        run_load,
        AGAIN,
    ),
    Command(
        "copy",
        "Buckets",
        "copy a bucket, under another id or to another server",
        "kinto-orm copy main stage",
        add_copy_options,
        run_copy,
        AGAIN,
    ),
)

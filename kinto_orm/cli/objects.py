"""The verbs about objects: ``list``, ``get``, ``put``, ``update``, ``delete``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kinto_orm import (
    Bucket,
    BulkReport,
    Collection,
    ForbiddenError,
    InvalidIdError,
    PlannedChange,
    UnauthorizedError,
    UsageError,
)
from kinto_orm.cli.options import (
    Command,
    add_connection,
    add_dry_run,
    add_yes,
    any_path,
    assignment,
    connect,
    finish,
    json_object,
    manager_of,
    names,
    pair,
    path_of,
    share,
)
from kinto_orm.cli.screen import Exit, Screen, counted
from kinto_orm.protocol.accounts import without_secrets
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, draw_id

FILTER_HELP = 'Kinto\'s own: done=false, gt_priority=3, like_title=buy*, in_id=["a","b"]; may be repeated'


def add_path(parser: argparse.ArgumentParser, what: str, *, nargs: str | None = "?") -> None:
    """Add the place that the verb is about."""
    parser.add_argument("path", metavar="PATH", nargs=nargs, help=f"{what}, such as main/cfg")


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add ``--filter``."""
    parser.add_argument("--filter", type=assignment, action="append", default=[], metavar="KEY=VALUE", help=FILTER_HELP)


# -- list -------------------------------------------------------------------------------------------------------------


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``list``."""
    add_path(parser, "the bucket or collection whose objects are listed; without it, the buckets")
    add_filter(parser)
    parser.add_argument("--groups", action="store_true", help="the groups of the bucket, in the place of collections")
    parser.add_argument("--sort", type=names, metavar="FIELDS", help="by these fields; =-name for the largest first")
    parser.add_argument("--fields", type=names, metavar="FIELDS", help="only these")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many")
    parser.add_argument("--count", action="store_true", help="only how many")
    add_connection(parser)


def run_list(options: argparse.Namespace, screen: Screen) -> Exit:
    """List buckets, groups, collections or records."""
    with connect(options, screen) as client:
        query = manager_of(client, _listed(options)).filter(**dict(options.filter))
        if options.sort:
            query = query.order_by(*options.sort)
        if options.fields:
            query = query.only(*options.fields)
        if options.limit is not None:
            query = query.limit(options.limit)
        if options.count:
            screen.show(query.count())
        else:
            with screen.progress(beside_output=True) as progress:
                screen.show_all(_rows(query, progress))
    return Exit.DONE


def _listed(options: argparse.Namespace) -> PluralPath:
    path = any_path(options, options.path)
    if options.groups:
        if not isinstance(path, ObjectPath) or path.kind is not Kind.BUCKET:
            raise InvalidIdError("--groups are those of a bucket: kinto-orm list main --groups.")
        return PluralPath(Kind.GROUP, path.ids)
    if isinstance(path, PluralPath):
        return path
    below = {Kind.BUCKET: Kind.COLLECTION, Kind.COLLECTION: Kind.RECORD}
    if path.kind not in below:
        raise InvalidIdError(f"{path} holds no list: kinto-orm get shows it.")
    return PluralPath(below[path.kind], path.ids)


def _rows(query: Any, progress: Callable[[int, int | None, str], object]) -> Iterator[JSONObject]:
    done = 0
    for page in query.pages():
        yield from map(to_row, page.objects)
        done += len(page.objects)
        progress(done, None, "read")


def to_row(one: Any) -> JSONObject:
    """Return the id, the data and the timestamp of an object."""
    found: JSONObject = one.to_dict()
    return {"id": found.pop("id", one.id), **found}


# -- get --------------------------------------------------------------------------------------------------------------


def add_get_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``get``."""
    add_path(parser, "an object; several are read one after the other", nargs="*")
    add_connection(parser)


def run_get(options: argparse.Namespace, screen: Screen) -> Exit:
    """Print objects: a line of JSON each, or in a terminal indented."""
    with connect(options, screen) as client:
        for text in options.path or [None]:
            path = path_of(options, text)
            screen.show(to_row(manager_of(client, path).get(path.id)), indent=2 if screen.is_for_people else None)
    return Exit.DONE


# -- put --------------------------------------------------------------------------------------------------------------


def add_put_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``put``."""
    add_path(parser, "the object; main/cfg/ draws an id for a new record", nargs=None)
    parser.add_argument("values", nargs="*", type=assignment, metavar="KEY=VALUE", help="JSON, else text")
    parser.add_argument("--data", metavar="JSON", help="all of the data, as a JSON object; - reads it from stdin")
    parser.add_argument("--parents", action="store_true", help="make the bucket and the collection where they lack")
    add_dry_run(parser)
    add_connection(parser)


def run_put(options: argparse.Namespace, screen: Screen) -> Exit:
    """Make the object equal to the given data: create it, or write what differs.

    Raises ``ConflictError`` where another client changed the object in between.
    """
    data = {**_given_data(options.data), **dict(options.values)}
    with connect(options, screen) as client:
        path = any_path(options, options.path)
        if isinstance(path, PluralPath):
            path = path.object(draw_id(path.kind))
        manager = manager_of(client, path)
        if options.parents and not options.dry_run:
            client.ensure(*_parents(path))
        found = _found(manager, path, may_lack_parents=options.parents)
        change = _planned(path, found, data)
        if options.dry_run:
            return show_planned(change, screen)
        if found is None:
            manager.create(id=path.id, data=data)
        elif change.fields:
            found.data = data
            found.save()
        return show_done(change, screen)


def _planned(path: ObjectPath, found: Any, data: JSONObject) -> PlannedChange:
    new = without_secrets(path, data) or {}
    if found is None:
        return PlannedChange("create", path.id, new=new)
    old = dict(found.data)
    # Where no data is given, that the object is there is all that was asked for.
    return PlannedChange("update", path.id, "", found.last_modified, old, new if data else old)


def _given_data(text: str | None) -> JSONObject:
    if text is None:
        return {}
    try:
        return json_object(sys.stdin.read() if text == "-" else text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--data: {error}.") from error


def _parents(path: ObjectPath) -> list[Any]:
    bucket = Bucket(id=path.ids[0])
    if path.kind is Kind.RECORD:
        return [bucket, Collection(bucket=bucket, id=path.ids[1])]
    return [bucket]


def _found(manager: Any, path: ObjectPath, *, may_lack_parents: bool) -> Any:
    try:
        return manager.get_or_none(path.id)
    except (ForbiddenError, UnauthorizedError):
        if path.kind not in (Kind.BUCKET, Kind.ACCOUNT) and not may_lack_parents:
            raise
        return None  # Kinto says 401 or 403 for what does not exist, too; if it does, creating it will say so


# -- update -----------------------------------------------------------------------------------------------------------


def add_update_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``update``."""
    add_path(parser, "the object; with --filter or --everything the collection whose records are changed", nargs=None)
    parser.add_argument("values", nargs="*", type=assignment, metavar="KEY=VALUE", help="JSON, else text")
    parser.add_argument("--remove", action="append", default=[], metavar="KEY", help="a key to remove")
    parser.add_argument("--rename", type=pair, action="append", default=[], metavar="OLD=NEW", help="a key to rename")
    add_filter(parser)
    parser.add_argument("--everything", action="store_true", help="all records of the collection")
    add_on_conflict(parser)
    add_dry_run(parser)
    add_connection(parser)


def add_on_conflict(parser: argparse.ArgumentParser) -> None:
    """Add ``--on-conflict``."""
    parser.add_argument(
        "--on-conflict",
        choices=("raise", "merge", "mine", "theirs"),
        default="raise",
        help="where another client changed a record in between (default: it is left alone, and reported)",
    )


def run_update(options: argparse.Namespace, screen: Screen) -> Exit:
    """Change keys of an object, or of all records that a filter selects; only what differs is sent."""
    if not (options.values or options.remove or options.rename):
        raise UsageError("There is nothing to change: say KEY=VALUE, --remove KEY or --rename OLD=NEW.")
    edit = _edit_of(options)
    with connect(options, screen) as client:
        if not (options.filter or options.everything):
            path = path_of(options, options.path)
            return _update_one(manager_of(client, path).get(path.id), edit, options, screen)
        path = path_of(options, options.path, Kind.COLLECTION)
        query = manager_of(client, PluralPath(Kind.RECORD, path.ids)).filter(**dict(options.filter))
        if options.dry_run:
            return finish(_show_edits(query, edit, screen))
        with screen.progress() as progress:
            report = query.update(
                edit, on_conflict=options.on_conflict, progress=progress, on_outcome=screen.show_outcome
            )
        screen.show_report(report)
    return Exit.DONE


def _edit_of(options: argparse.Namespace) -> Callable[[Any], None]:
    values: Mapping[str, Any] = dict(options.values)

    def edit(one: Any) -> None:
        data = one.data
        for old, new in options.rename:
            if old in data:
                data[new] = data.pop(old)
        for name in options.remove:
            data.pop(name, None)
        data.update(values)

    return edit


def _edited(one: Any, edit: Callable[[Any], None]) -> PlannedChange:
    old = dict(one.data)
    edit(one)
    return PlannedChange("update", one.id, "", one.last_modified, old, dict(one.data))


def _update_one(one: Any, edit: Callable[[Any], None], options: argparse.Namespace, screen: Screen) -> Exit:
    change = _edited(one, edit)
    if not options.dry_run:
        one.save(on_conflict=options.on_conflict)
        return show_done(change, screen)
    return show_planned(change, screen)


def _show_edits(query: Iterable[Any], edit: Callable[[Any], None], screen: Screen) -> bool:
    differs = False
    for one in query:
        change = _edited(one, edit)
        if change.fields:
            differs = True
            screen.show_change(change)
    return differs


def show_planned(change: PlannedChange, screen: Screen) -> Exit:
    """Print the change that a dry run would write, if there is one."""
    if change.kind == "update" and not change.fields:
        return Exit.DONE
    screen.show_change(change)
    return Exit.DIFFERS


def show_done(change: PlannedChange, screen: Screen) -> Exit:
    """Print the change that was written; in a terminal field by field."""
    is_changed = change.kind != "update" or bool(change.fields)
    status = DONE_WORDS[change.kind] if is_changed else "unchanged"
    if not screen.is_for_people:
        screen.show({"id": change.id, "status": status})
        return Exit.DONE
    if is_changed and change.kind != "delete":
        screen.show_change(change)
    screen.say(f"{status}: {change.id}")
    return Exit.DONE


DONE_WORDS = {"create": "created", "update": "updated", "delete": "deleted"}


# -- delete -----------------------------------------------------------------------------------------------------------


def add_delete_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``delete``."""
    add_path(parser, "objects; with --filter or --everything the collection whose records are deleted", nargs="*")
    add_filter(parser)
    parser.add_argument("--everything", action="store_true", help="all records of the collection")
    add_max_deletes(parser, "of a list, refuse to delete more")
    parser.add_argument("--if-exists", action="store_true", help="what is gone already is no error")
    add_yes(parser)
    add_dry_run(parser)
    add_connection(parser)


def add_max_deletes(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--max-deletes``."""
    parser.add_argument(
        "--max-deletes",
        type=share,
        default=0.5,
        metavar="N",
        help=f"{what} than this number of records, or share of them (default: 50%%)",
    )


def run_delete(options: argparse.Namespace, screen: Screen) -> Exit:
    """Delete objects, or the records that a filter selects."""
    texts = options.path or [None]
    if options.filter or options.everything:
        if len(texts) > 1:
            raise UsageError("--filter and --everything select records of one collection.")
        return _delete_selected(options, path_of(options, texts[0], Kind.COLLECTION), screen)
    paths = [path_of(options, text) for text in texts]
    with connect(options, screen) as client:
        for path in paths:
            if options.dry_run:
                screen.show_change(PlannedChange("delete", path.id))
                continue
            if path.kind in (Kind.BUCKET, Kind.COLLECTION):
                screen.confirm(f"Delete {path} and all that is in it?", is_confirmed=options.yes)
            manager_of(client, path).ref(path.id).delete(if_exists=options.if_exists)
            screen.stored += 1
            show_done(PlannedChange("delete", path.id), screen)
    return finish(options.dry_run)


def _delete_selected(options: argparse.Namespace, path: ObjectPath, screen: Screen) -> Exit:
    with connect(options, screen) as client:
        query = manager_of(client, PluralPath(Kind.RECORD, path.ids)).filter(**dict(options.filter))
        if options.dry_run:
            found = False
            for one in query:
                found = True
                screen.show_change(PlannedChange("delete", one.id, "", one.last_modified, dict(one.data)))
            return finish(found)
        if not options.yes and (count := query.count()):
            screen.confirm(f"Delete {counted(count, 'record')} of {path}?", is_confirmed=False)
        with screen.progress() as progress:
            count = query.delete(everything=options.everything, max_deletes=options.max_deletes, progress=progress)
        screen.show_report(BulkReport(deleted=count))
    return Exit.DONE


AGAIN = "Run the same command again: it compares, and writes what is left."

COMMANDS = (
    Command(
        "list",
        "Objects",
        "list buckets, groups, collections or records",
        "kinto-orm list main/cfg --filter done=false --sort=-priority",
        add_list_options,
        run_list,
    ),
    Command(
        "get",
        "Objects",
        "print objects",
        "kinto-orm get main/cfg/welcome | jq .title",
        add_get_options,
        run_get,
    ),
    Command(
        "put",
        "Objects",
        "make an object equal to the given data; create it where there is none",
        "kinto-orm put main/cfg/welcome title=Hello priority=3 --parents",
        add_put_options,
        run_put,
        AGAIN,
    ),
    Command(
        "update",
        "Objects",
        "change keys of an object, or of all records that match",
        "kinto-orm update main/cfg --everything --rename colour=color",
        add_update_options,
        run_update,
        AGAIN,
    ),
    Command(
        "delete",
        "Objects",
        "delete objects, or all records that match",
        "kinto-orm delete main/cfg --filter done=true --max-deletes 10%",
        add_delete_options,
        run_delete,
        "Run the same command again to delete the rest; names need --if-exists.",
    ),
)

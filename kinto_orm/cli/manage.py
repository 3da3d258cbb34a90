"""The verbs about what a server keeps beside the data: permissions, history, schemas, reviews."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kinto_orm import MISSING, Client, Collection, Record, SchemaDiff, UsageError
from kinto_orm.cli.jobs import collection_of
from kinto_orm.cli.objects import AGAIN, add_filter, add_path, show_planned
from kinto_orm.cli.options import (
    Command,
    add_connection,
    add_dry_run,
    add_yes,
    connect,
    finish,
    json_object,
    load_model,
    manager_of,
    pair,
    path_of,
    place_of,
)
from kinto_orm.cli.screen import Exit, Screen, counted
from kinto_orm.jobs.comparing import PlannedChange
from kinto_orm.protocol.json_values import JSON, JSONObject
from kinto_orm.protocol.paths import Kind, ObjectPath

# -- permissions ------------------------------------------------------------------------------------------------------


def add_permissions_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``permissions``."""
    add_path(parser, "the object; without it, what you may do, object by object")
    for name, what in (("--grant", "give"), ("--revoke", "take away")):
        parser.add_argument(
            name,
            type=pair,
            action="append",
            default=[],
            metavar="NAME=PRINCIPAL",
            help=f"{what} a permission, such as write=account:bob; may be repeated",
        )
    add_dry_run(parser)
    add_connection(parser)


def run_permissions(options: argparse.Namespace, screen: Screen) -> Exit:
    """Show who may do what with an object, or change it."""
    with connect(options, screen) as client:
        if options.path is None and not options.bucket:
            screen.show_all(_own_permissions(entry, screen) for entry in client.permissions)
            return Exit.DONE
        path = path_of(options, options.path)
        one = manager_of(client, path).get(path.id)
        old = _lists(one)
        for name, principal in options.grant:
            one.permissions.add(name, principal)
        for name, principal in options.revoke:
            one.permissions.remove(name, principal)
        if options.dry_run:
            return show_planned(PlannedChange("update", path.id, "", one.last_modified, old, _lists(one)), screen)
        if options.grant or options.revoke:
            one.save()
        _show_permissions(str(path), _lists(one), screen)
    return Exit.DONE


def _own_permissions(entry: Any, screen: Screen) -> JSONObject:
    names = sorted(entry.permissions)
    if screen.is_for_people:
        return {"id": place_of(entry.uri), "you may": ", ".join(names)}
    return {"id": entry.uri, "permissions": {name: ["you"] for name in names}}


def _lists(one: Any) -> JSONObject:
    return {name: sorted(one.permissions[name]) for name in one.permissions}


def _show_permissions(path: str, permissions: JSONObject, screen: Screen) -> None:
    if not screen.is_for_people:
        screen.show({"id": path, "permissions": permissions})
        return
    screen.say(path, "bold")
    for name, principals in permissions.items():
        screen.say(f"    {name:<18}{', '.join(principals)}")


# -- history ----------------------------------------------------------------------------------------------------------


def add_history_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``history``."""
    add_path(parser, "a bucket, or an object in one", nargs=None)
    add_filter(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only the newest")
    add_connection(parser)


def run_history(options: argparse.Namespace, screen: Screen) -> Exit:
    """Print who wrote what, the newest first; in a pipe with the object as it was then."""
    with connect(options, screen) as client:
        path = path_of(options, options.path)
        whole = client.bucket(path.id).history if path.kind is Kind.BUCKET else _history_of(client, path)
        query = whole.filter(**dict(options.filter))
        screen.show_all(
            _entry(entry, screen) for entry in (query if options.limit is None else query.limit(options.limit))
        )
    return Exit.DONE


def _history_of(client: Client, path: ObjectPath) -> Any:
    return manager_of(client, path).history(path.id)


def _entry(entry: Any, screen: Screen) -> JSONObject:
    found: JSONObject = {"last_modified": entry.last_modified, "action": entry.action}
    if screen.is_for_people:
        return {**found, "object": place_of(entry.uri), "user_id": entry.user_id}
    return {"id": entry.id, **found, "user_id": entry.user_id, "uri": entry.uri, "data": entry.target.data}


# -- schemas ----------------------------------------------------------------------------------------------------------


def add_schema(parser: argparse.ArgumentParser) -> None:
    """Add the collection of a schema."""
    add_path(parser, "the collection")


def add_schema_model(parser: argparse.ArgumentParser) -> None:
    """Add the schema that is compared with that of the collection."""
    add_path(parser, "the collection", nargs=None)
    parser.add_argument(
        "model", type=model_or_schema, metavar="MODEL", help="FILE.py:CLASS, or a JSON schema in FILE.json"
    )
    parser.add_argument("--enforce-formats", action="store_true", help="a pattern for each format, which Kinto ignores")


def model_or_schema(text: str) -> type[Record] | JSONObject:
    """Return a model, or the JSON schema of a file."""
    if not text.endswith(".json"):
        return load_model(text)
    try:
        return json_object(Path(text).read_text("utf-8"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"it cannot be read: {error}") from error


def add_schema_show_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``schema show``."""
    add_schema(parser)
    add_connection(parser)


def run_schema_show(options: argparse.Namespace, screen: Screen) -> Exit:
    """Print the schema of the collection."""
    with connect(options, screen) as client:
        screen.show(_stored_schema(collection_of(options, client)), indent=2)
    return Exit.DONE


def _stored_schema(collection: Collection[Any]) -> JSONObject:
    schema = collection.refresh().schema_
    if schema is None:
        raise UsageError(
            f"{collection.__kinto_path__()} has no schema. To make one, write a model of its records, then: kinto-orm "
            "schema push PATH FILE.py:CLASS."
        )
    return schema


def add_schema_diff_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``schema diff``."""
    add_schema_model(parser)
    add_connection(parser)


def _diff(options: argparse.Namespace, client: Client) -> SchemaDiff[Any]:
    path = path_of(options, options.path, Kind.COLLECTION)
    collection = client.bucket(path.ids[0]).collection(path.ids[1])
    model: Any = options.model
    return collection.schema_diff(model, enforce_formats=options.enforce_formats)


def run_schema_diff(options: argparse.Namespace, screen: Screen) -> Exit:
    """Show each keyword in which the schema of the collection differs; the exit code is 1 where any does."""
    with connect(options, screen) as client:
        diff = _diff(options, client)
        _show_schema_diff(diff, screen)
        for one in diff.unenforced:
            screen.note(f"kinto-orm: Kinto does not check the format: {one}; --enforce-formats adds a pattern")
        return finish(not diff.is_empty)


def _show_schema_diff(diff: SchemaDiff[Any], screen: Screen) -> None:
    for path, old, new in diff.differences():
        if screen.is_for_people:
            screen.show_difference(path, old, new)
        else:
            screen.show({"id": path, **_known(old=old, new=new)})


def _known(**values: JSON) -> JSONObject:
    return {name: value for name, value in values.items() if value is not MISSING}


def add_schema_check_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``schema check``."""
    add_schema(parser)
    parser.add_argument(
        "model", type=model_or_schema, nargs="?", metavar="MODEL", help="another schema than the one of the collection"
    )
    parser.set_defaults(enforce_formats=False)
    add_connection(parser)


def run_schema_check(options: argparse.Namespace, screen: Screen) -> Exit:
    """List the records that violate the schema; the exit code is 1 where there are any."""
    with connect(options, screen) as client:
        if options.model is None:
            options.model = _stored_schema(collection_of(options, client))
        with screen.progress() as progress:
            violations = _diff(options, client).violations(progress=progress)
        if violations:
            rows = ({"id": one.id, "field": ".".join(map(str, one.loc)), "problem": one.msg} for one in violations)
            screen.show_all(rows)
            records = len({one.id for one in violations})
            screen.sum_up(f"{counted(records, 'record')} would be refused")
        else:
            screen.sum_up("no record violates the schema")
        return finish(bool(violations))


def add_schema_push_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``schema push``."""
    add_schema_model(parser)
    parser.add_argument("--force", action="store_true", help="also where records violate it, which locks them")
    add_dry_run(parser)
    add_connection(parser)


def run_schema_push(options: argparse.Namespace, screen: Screen) -> Exit:
    """Store the schema, unless records violate it."""
    with connect(options, screen) as client:
        diff = _diff(options, client)
        _show_schema_diff(diff, screen)
        if options.dry_run:
            return finish(not diff.is_empty)
        is_empty = diff.is_empty
        diff.push(force=options.force)
        screen.sum_up("unchanged" if is_empty else "stored")
    return Exit.DONE


def add_schema_pending_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``schema pending``."""
    add_schema(parser)
    parser.set_defaults(enforce_formats=False)
    add_connection(parser)


def run_schema_pending(options: argparse.Namespace, screen: Screen) -> Exit:
    """List the records that were not written since the schema was changed, so that the server never checked them."""
    with connect(options, screen) as client:
        options.model = _stored_schema(collection_of(options, client))
        screen.show_all({"id": one.id, "last_modified": one.last_modified} for one in _diff(options, client).pending())
    return Exit.DONE


# -- reviews ----------------------------------------------------------------------------------------------------------


def add_review_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the steps of a review that need no message."""
    add_path(parser, "the collection")
    add_connection(parser)


def add_review_message_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the steps that need a message."""
    add_path(parser, "the collection")
    parser.add_argument("-m", "--message", required=True, help="what others are told")
    add_connection(parser)


def add_judging_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``review approve``."""
    add_seen(parser)
    add_review_options(parser)


def add_declining_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``review decline``."""
    add_seen(parser)
    add_review_message_options(parser)


def add_rollback_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``review rollback``."""
    add_yes(parser)
    add_review_message_options(parser)


def add_seen(parser: argparse.ArgumentParser) -> None:
    """Add ``--seen``."""
    parser.add_argument(
        "--seen", type=int, metavar="TIMESTAMP", help="what review show printed: refuse what was changed since"
    )


def run_review_show(options: argparse.Namespace, screen: Screen) -> Exit:
    """Show how far the review of a collection is, and the timestamp of what is seen."""
    with connect(options, screen) as client:
        seen = collection_of(options, client).records.timestamp()
        _show_review(collection_of(options, client).refresh(), screen, seen=seen)
    return Exit.DONE


def run_review_step(options: argparse.Namespace, screen: Screen) -> Exit:
    """Take one step of a review."""
    step: str = options.command.name.partition(" ")[2]
    with connect(options, screen) as client:
        collection = collection_of(options, client).refresh()
        if step == "request":
            collection.request_review(options.message)
        elif step == "approve":
            collection.approve(seen=options.seen)
        elif step == "decline":
            collection.decline(options.message, seen=options.seen)
        elif step == "rollback":
            question = f"Drop all changes of {collection.id} since it was published, those of others too?"
            screen.confirm(question, is_confirmed=options.yes)
            collection.rollback(options.message)
        else:
            collection.refresh_signature()
        _show_review(collection, screen)
    return Exit.DONE


def _show_review(collection: Collection[Any], screen: Screen, **more: JSON) -> None:
    data = collection.data
    names = ("last_edit_by", "last_review_request_by", "last_editor_comment", "last_review_by", "last_reviewer_comment")
    found = {name: data[name] for name in names if data.get(name)}
    row = {"id": collection.id, "status": data.get("status"), **found, **more}
    if screen.is_for_people:
        for name, value in row.items():
            screen.hang(f"{name.replace('_', ' ').capitalize():<24}{'none' if value is None else value}", 24)
    else:
        screen.show(row)


GROUP = "Management"

COMMANDS = (
    Command(
        "permissions",
        GROUP,
        "show or change who may do what; without PATH, what you may do",
        "kinto-orm permissions main/cfg --grant write=account:bob",
        add_permissions_options,
        run_permissions,
        AGAIN,
    ),
    Command(
        "history",
        GROUP,
        "print who wrote what, the newest first",
        "kinto-orm history main/cfg/welcome --limit 5",
        add_history_options,
        run_history,
    ),
    Command(
        "schema show",
        GROUP,
        "print the JSON schema of a collection",
        "kinto-orm schema show main/cfg > cfg.json",
        add_schema_show_options,
        run_schema_show,
    ),
    Command(
        "schema diff",
        GROUP,
        "show in what a schema differs from that of the collection",
        "kinto-orm schema diff main/cfg cfg.json",
        add_schema_diff_options,
        run_schema_diff,
    ),
    Command(
        "schema check",
        GROUP,
        "list the records that violate a schema",
        "kinto-orm schema check main/cfg",
        add_schema_check_options,
        run_schema_check,
    ),
    Command(
        "schema push",
        GROUP,
        "store a schema, unless records violate it",
        "kinto-orm schema push main/cfg cfg.json",
        add_schema_push_options,
        run_schema_push,
        AGAIN,
    ),
    Command(
        "schema pending",
        GROUP,
        "list the records that the server never checked by its schema",
        "kinto-orm schema pending main/cfg",
        add_schema_pending_options,
        run_schema_pending,
    ),
    Command(
        "review show",
        GROUP,
        "show how far the review of a collection is",
        "kinto-orm review show workspace/products",
        add_review_options,
        run_review_show,
    ),
    Command(
        "review request",
        GROUP,
        "ask for a review, if there is anything to review",
        'kinto-orm review request workspace/products -m "Prices of today"',
        add_review_message_options,
        run_review_step,
        AGAIN,
    ),
    Command(
        "review approve",
        GROUP,
        "approve the changes, which publishes them",
        "kinto-orm review approve workspace/products --seen 1795965653891",
        add_judging_options,
        run_review_step,
        AGAIN,
    ),
    Command(
        "review decline",
        GROUP,
        "send the changes back to their editors",
        'kinto-orm review decline workspace/products -m "Tea is 4"',
        add_declining_options,
        run_review_step,
        AGAIN,
    ),
    Command(
        "review rollback",
        GROUP,
        "drop all changes since the last publication",
        'kinto-orm review rollback workspace/products -m "A mistake" --yes',
        add_rollback_options,
        run_review_step,
        AGAIN,
    ),
    Command(
        "review sign",
        GROUP,
        "sign the published records again",
        "kinto-orm review sign workspace/products",
        add_review_options,
        run_review_step,
        AGAIN,
    ),
)

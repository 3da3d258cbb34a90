"""What the verbs take: the server and its credentials, places, values, shares; and what a verb is."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kinto_orm import Client, ConfigurationError, InvalidIdError, Record
from kinto_orm.cli.screen import Exit, Screen, can_ask
from kinto_orm.cli_options import (
    AUTH_VARIABLE,
    SERVER_VARIABLE,
    AuthAction,
    add_parser_options,
    client_from_args,
    setup_logger,
)
from kinto_orm.protocol.json_values import JSON, JSONObject
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, check_id

JOB_SERVER, JOB_AUTH, JOB_DRY_RUN = "SERVER", "AUTHORIZATION", "DRY_RUN"
"""What the ingestion jobs of Remote Settings find in their environment."""


@dataclass(frozen=True, slots=True)
class Command:
    """One verb: its purpose, an example, its options and its work."""

    name: str
    """One word, or two: ``schema push``."""
    group: str
    summary: str
    example: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Screen], Exit]
    after_interrupt: str = ""
    """What Ctrl-C leaves behind, and how to go on."""


# -- the server -------------------------------------------------------------------------------------------------------


class SeenAuthAction(AuthAction):
    """Credentials on the command line, where the list of processes shows them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the credentials; note whether a secret is in sight."""
        namespace.is_secret_seen = bool(set(values) & {":", " "})
        super().__call__(parser, namespace, values, option_string)

    @classmethod
    def parsed(cls, text: str) -> Any:
        """Return the credentials; raise ``ConfigurationError``, also where there is no terminal to ask for them in."""
        return parsed_auth(text)


def parsed_auth(text: str) -> Any:
    """Return the credentials of a text; raise ``ConfigurationError``, also where no terminal can ask for a password."""
    if not set(text) & {":", " "} and not can_ask():
        raise ConfigurationError(
            f"There is no terminal to ask for the password of {text!r:.60} in: say user:password in {AUTH_VARIABLE}."
        )
    return AuthAction.parsed(text)


def add_connection(parser: argparse.ArgumentParser, *, bucket: bool = True, collection: bool = True) -> None:
    """Add the options by which a verb finds its server, and those of its output."""
    group = parser.add_argument_group("server and output")
    add_parser_options(
        group,  # type: ignore[arg-type]  # a group takes options as a parser does
        include_bucket=bucket,
        include_collection=collection,
        auth_action=SeenAuthAction,
    )
    group.add_argument("--job-env", action="store_true", help=f"read {JOB_SERVER}, {JOB_AUTH} and {JOB_DRY_RUN}, too")
    group.add_argument("--allow-insecure", action="store_true", help="send credentials over http:// to other machines")
    group.add_argument("--json", action="store_true", help="print JSON Lines in a terminal, too")


@contextmanager
def connect(options: argparse.Namespace, screen: Screen) -> Generator[Client]:
    """Yield the client that options and environment name; raise ``ConfigurationError`` where they name none."""
    setup_logger(logging.getLogger("kinto_orm"), options)
    if getattr(options, "is_secret_seen", False):
        screen.note(f"kinto-orm: the list of processes shows what --auth says: {AUTH_VARIABLE} hides it.")
    environment = os.environ
    is_job = options.job_env and not options.server and not environment.get(SERVER_VARIABLE)
    if options.job_env and environment.get(JOB_DRY_RUN, "").lower() in ("1", "true", "yes", "on"):
        options.dry_run = True
    if is_job:
        options.server = environment.get(JOB_SERVER)
    variable = JOB_AUTH if is_job else AUTH_VARIABLE
    if options.auth is None and (text := environment.get(variable)):
        options.auth = parsed_auth(text)
    if is_job and options.auth is None and environment.get(AUTH_VARIABLE):
        raise ConfigurationError(f"{AUTH_VARIABLE} is not sent to the server that {JOB_SERVER} names: set {JOB_AUTH}.")
    with ExitStack() as options.closing:
        client = client_from_args(options)
        options.closing.callback(client.close)
        yield options.closing.enter_context(client)


def add_other_server(parser: argparse.ArgumentParser, which: str, what: str) -> None:
    """Add ``--from-server`` and ``--from-auth``, or ``--to-server`` and ``--to-auth``."""
    variable = other_variable(which)
    parser.add_argument(f"--{which}-server", metavar="URL", help=f"the server {what}, where it is another one")
    parser.add_argument(
        f"--{which}-auth", metavar="AUTH", action=SeenAuthAction, help=f"the credentials there, or {variable}"
    )


def connect_other(options: argparse.Namespace, which: str, client: Client) -> Client:
    """Return the client of the other server; the same client where none is named.

    The credentials of the one server are never sent to the other.
    """
    server, auth = (getattr(options, f"{which}_{name}") for name in ("server", "auth"))
    if server is None:
        return client
    if auth is None and (text := os.environ.get(other_variable(which))):
        auth = parsed_auth(text)
    other = Client(
        server,
        auth=auth,
        retry=options.retry,
        retry_after=options.retry_after,
        allow_insecure=options.allow_insecure,
    )
    options.closing.callback(other.close)
    return other


def other_variable(which: str) -> str:
    """Return the name of the variable with the credentials for the other server."""
    return f"KINTO_{which.upper()}_AUTH"


# -- places -----------------------------------------------------------------------------------------------------------

AnyPath = ObjectPath | PluralPath

PATH_HELP = "bucket, bucket/collection or bucket/collection/record, below -b and -c; or a path of Kinto, /buckets/…"


def path_of(options: argparse.Namespace, text: str | None, *kinds: Kind) -> ObjectPath:
    """Return the object that the text names; raise ``InvalidIdError`` for a list, and for a kind that is not wanted."""
    found = any_path(options, text)
    if isinstance(found, PluralPath) or (kinds and found.kind not in kinds):
        wanted = " or ".join(kind.value for kind in kinds) or "object"
        raise InvalidIdError(f"{text or ''!r} names no {wanted}: {PATH_HELP}.")
    return found


def any_path(options: argparse.Namespace, text: str | None) -> AnyPath:
    """Return the object or the list that the text names, below ``-b`` and ``-c``; nothing names the list of buckets.

    ``main/cfg/`` is the list below ``main/cfg``. Raises ``InvalidIdError``.
    """
    bucket, collection = getattr(options, "bucket", None), getattr(options, "collection", None)
    if text is not None and text.startswith("/"):
        return _path_of_kinto(text)
    if collection and not bucket:
        raise InvalidIdError("-c needs -b: a collection is in a bucket.")
    is_list = text is not None and text.endswith("/")
    ids = [one for one in (bucket, collection) if one]
    ids += [] if text is None else text.removesuffix("/").split("/")
    kinds = (Kind.BUCKET, Kind.COLLECTION, Kind.RECORD)
    if len(ids) > 3 - is_list:
        raise InvalidIdError(f"{'/'.join(ids)!r} has too many parts: {PATH_HELP}.")
    if not ids:
        return PluralPath(Kind.BUCKET)
    checked = tuple(check_id(id, kind.value) for id, kind in zip(ids, kinds, strict=False))
    return PluralPath(kinds[len(ids)], checked) if is_list else ObjectPath(kinds[len(ids) - 1], checked)


def _path_of_kinto(text: str) -> AnyPath:
    ids: list[str] = []
    above: Kind | None = None
    names = text.strip("/").split("/")
    for plural, id in zip(names[::2], [*names[1::2], None], strict=False):
        kind = next((one for one in Kind if one.plural == plural and one.parent is above), None)
        if kind is None:
            break
        if id is None:
            return PluralPath(kind, tuple(ids))
        above = kind
        ids.append(check_id(id, kind.value, kind))
    else:
        if above is not None:
            return ObjectPath(above, tuple(ids))
    raise InvalidIdError(f"{text!r} is no path of Kinto, such as /buckets/main/groups/staff or /accounts/alexis.")


def manager_of(client: Client, path: AnyPath) -> Any:
    """Return the manager of a list, or of the list that an object is in."""
    plural = path.plural if isinstance(path, ObjectPath) else path
    if plural.kind is Kind.ACCOUNT:
        return client.accounts
    if plural.kind is Kind.BUCKET:
        return client.buckets
    bucket = client.bucket(plural.parent_ids[0])
    if plural.kind is Kind.RECORD:
        return bucket.collection(plural.parent_ids[1]).records
    return bucket.groups if plural.kind is Kind.GROUP else bucket.collections


def place_of(uri: str) -> str:
    """Return the shortest ``PATH`` of an object: ``main/cfg`` for a collection."""
    names = uri.strip("/").split("/")
    is_short = all(map(str.__eq__, names[::2], ("buckets", "collections", "records")))
    return "/".join(names[1::2]) if is_short else uri


# -- values -----------------------------------------------------------------------------------------------------------


def assignment(text: str) -> tuple[str, JSON]:
    """Return key and value of ``KEY=VALUE``; the value is JSON where it can be read as such, else text."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise argparse.ArgumentTypeError(f"it is KEY=VALUE, not {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def pair(text: str) -> tuple[str, str]:
    """Return both sides of ``OLD=NEW``."""
    old, equals, new = text.partition("=")
    if not (equals and old):
        raise argparse.ArgumentTypeError(f"it is two names with = between them, not {text!r}")
    return old, new


def json_object(text: str) -> JSONObject:
    """Return the JSON object of a text."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("it is no JSON object")
    return found


def share(text: str) -> int | float:
    """Return a number of records, or a share of them as a float: ``50%``."""
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it is a number of records or a share such as 50%, not {text!r}") from None


def names(text: str) -> list[str]:
    """Return the names of ``a,b,c``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def load_model(text: str) -> type[Record]:
    """Return the class that ``FILE.py:CLASS`` or ``package.module:CLASS`` names; it is imported."""
    place, _, name = text.rpartition(":")
    if not place:
        raise argparse.ArgumentTypeError(f"a model is FILE.py:CLASS or package.module:CLASS, not {text!r}")
    try:
        found = getattr(_import(place), name)
    except Exception as error:  # the user's own code may raise anything
        raise argparse.ArgumentTypeError(f"{place} cannot be imported: {error!r:.200}") from error
    if not (isinstance(found, type) and issubclass(found, Record)):
        raise argparse.ArgumentTypeError(f"{text} is no subclass of kinto_orm.Record")
    return found


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(place)
    name = f"kinto_orm_models.{Path(place).stem}"  # a file may be called json.py
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are resolved by it
    spec.loader.exec_module(module)
    return module


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run``."""
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add ``--yes``."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def finish(sides_differ: bool) -> Exit:  # noqa: FBT001  # one question, one answer
    """Return the exit code of a comparison."""
    return Exit.DIFFERS if sides_differ else Exit.DONE

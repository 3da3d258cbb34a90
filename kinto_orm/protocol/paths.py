"""The kinds of object, their ids and their URLs.

https://docs.kinto-storage.org/en/stable/api/1.x/index.html
"""

from __future__ import annotations

import re
import secrets
import string
from enum import Enum
from functools import lru_cache
from os import urandom
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote
from uuid import UUID

from kinto_orm.errors import InvalidIdError, InvalidTypeError
from kinto_orm.protocol.json_values import say_value

MAX_ID_LENGTH = 255
"""Kinto on PostgreSQL answers 503 to very long ids; the exact limit depends on how well they compress."""

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_ACCOUNT_ID = re.compile(r"[a-zA-Z0-9][+.@a-zA-Z0-9_-]*")
# Quoting cannot protect these segments: URL normalisation removes them on the way to the server.
_REMOVED_SEGMENTS = ("", ".", "..")
_DRAWN_LETTERS = string.ascii_lowercase + string.digits
_DRAWN_LENGTH = 8

PASSWORD = frozenset({"password"})
_CREATE = {"bucket": ("collection:create", "group:create"), "collection": ("record:create",)}


class Kind(Enum):
    """A kind of object; the value is Kinto's name for it."""

    BUCKET = "bucket"
    GROUP = "group"
    COLLECTION = "collection"
    RECORD = "record"
    ACCOUNT = "account"

    plural: str
    """The last segment of its plural endpoint."""
    level: int
    """Its place in the order of creation: parents first."""
    permissions: tuple[str, ...]
    """The names of its permissions. https://docs.kinto-storage.org/en/stable/api/1.x/permissions.html"""
    capability: str | None
    """The capability of servers that have this kind; ``None`` where every server has it."""
    secrets: frozenset[str]
    """The keys of its data that are written but neither read nor shown."""

    # Its members are looked up for each object, and Enum's own hash is computed from the name each time.
    __hash__ = object.__hash__

    def __init__(self, name: str) -> None:
        is_account = name == "account"
        self.plural = f"{name}s"
        self.level = {"group": 1, "collection": 2, "record": 3}.get(name, 0)
        self.permissions = ("read", "write", *_CREATE.get(name, ()))
        self.capability = "accounts" if is_account else None
        self.secrets = PASSWORD if is_account else frozenset()

    @property
    def parent(self) -> Kind | None:
        """The kind of its parent."""
        return _PARENTS.get(self)


_PARENTS = {Kind.GROUP: Kind.BUCKET, Kind.COLLECTION: Kind.BUCKET, Kind.RECORD: Kind.COLLECTION}


class PluralPath(NamedTuple):
    """The plural endpoint of a kind: ``/buckets/b/collections``."""

    kind: Kind
    parent_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _plural_path(self.kind, self.parent_ids)

    @property
    def name(self) -> str:
        """The last segment."""
        return self.kind.plural

    def object(self, id: str) -> ObjectPath:
        """Return the path of the object with that id."""
        return ObjectPath(self.kind, (*self.parent_ids, id))


class EntriesPath(NamedTuple):
    """The endpoint of a list whose entries have no URL: ``/permissions``, ``/buckets/b/history`` or the ``changeset``
    of a collection.
    """

    name: str
    parent_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = Kind.BUCKET if len(self.parent_ids) == 1 else Kind.COLLECTION
        return f"{ObjectPath(kind, self.parent_ids) if self.parent_ids else ''}/{self.name}"


ListPath: TypeAlias = PluralPath | EntriesPath
"""The endpoint of a list."""


class ObjectPath(NamedTuple):
    """The path of an object: its kind and the ids from the bucket down to the object."""

    # A tuple, because each write makes and hashes several paths.

    kind: Kind
    ids: tuple[str, ...]

    def __str__(self) -> str:
        ids = self.ids
        id = ids[-1]
        return f"{_plural_path(self.kind, ids[:-1])}/{id if _ID.fullmatch(id) else _segment(id)}"

    @property
    def id(self) -> str:
        """The object's id."""
        return self.ids[-1]

    def is_in(self, path: PluralPath) -> bool:
        """Return whether that list holds the object."""
        return self.kind is path.kind and self.ids[:-1] == path.parent_ids

    @property
    def plural(self) -> PluralPath:
        """The plural endpoint that lists the object."""
        return PluralPath(self.kind, self.ids[:-1])


# Every record of a collection has the same path above it.
@lru_cache(maxsize=1024)
def _plural_path(kind: Kind, parent_ids: tuple[str, ...]) -> str:
    if kind.parent is None:
        assert not parent_ids, f"too many ids: {parent_ids}"
        return f"/{kind.plural}"
    assert parent_ids, f"too few ids for {kind.plural}"
    return f"{ObjectPath(kind.parent, parent_ids)}/{kind.plural}"


def _segment(id: str) -> str:
    if id in _REMOVED_SEGMENTS:
        raise InvalidIdError(f"{id!r} is not an id: the URL would be that of another object.")
    return quote(id, safe="")  # an id of another form that the server accepted


def check_id(value: Any, what: str = "id", kind: Kind | None = None) -> str:
    """Return the id as a string, exactly as given.

    ``what`` names the argument in the message. Takes strings and UUIDs; of accounts also e-mail addresses.

    Raises ``InvalidIdError`` for a string that Kinto does not take as an id. Ids are never rewritten, because the new
    id would be that of another object. Raises ``InvalidTypeError`` for other types.
    """
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be a string or a UUID, not {type(value).__name__} ({say_value(value)}).")
    # fullmatch, because `$` would let a trailing newline pass: the server's own expression does.
    if not (_ACCOUNT_ID if kind is Kind.ACCOUNT else _ID).fullmatch(value):
        signs = "'-', '_', '+', '.' and '@'" if kind is Kind.ACCOUNT else "'-' and '_'"
        raise InvalidIdError(
            f"{say_value(value)} is no {what}: use letters, digits, {signs}, beginning with a letter or digit. "
            "Ids are never rewritten."
        )
    if len(value) > MAX_ID_LENGTH:
        raise InvalidIdError(f"{what} has {len(value)} characters; at most {MAX_ID_LENGTH} are safe on every server.")
    return str.__str__(value)  # the text itself, also of a member of an enumeration


def draw_id(kind: Kind) -> str:
    """Return a fresh random id as Kinto draws them: a UUID4 for a record, 8 letters and digits for other kinds."""
    if kind is Kind.RECORD:
        # As text at once: a UUID object takes three times as long, and is not needed.
        drawn = urandom(16).hex()
        variant = _VARIANTS[drawn[16]]
        return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"
    while True:
        id = "".join(secrets.choice(_DRAWN_LETTERS) for _ in range(_DRAWN_LENGTH))
        # Inside a batch Kinto refuses every path with the text "/batch", so also such ids.
        if not id.startswith("batch"):
            return id


_VARIANTS = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


ENDPOINTS = {
    "root": "/",
    "batch": "/batch",
    "permissions": "/permissions",
    "buckets": "/buckets",
    "bucket": "/buckets/{bucket}",
    "history": "/buckets/{bucket}/history",
    "groups": "/buckets/{bucket}/groups",
    "group": "/buckets/{bucket}/groups/{group}",
    "collections": "/buckets/{bucket}/collections",
    "collection": "/buckets/{bucket}/collections/{collection}",
    "records": "/buckets/{bucket}/collections/{collection}/records",
    "record": "/buckets/{bucket}/collections/{collection}/records/{id}",
    "attachment": "/buckets/{bucket}/collections/{collection}/records/{id}/attachment",
    "changeset": "/buckets/{bucket}/collections/{collection}/changeset",
}
"""The named endpoints: the pattern of each path, with the names of the ids in it."""


def endpoint_ids(name: str) -> list[str]:
    """Return the names of the ids in the path of an endpoint; raise ``InvalidIdError`` for an unknown endpoint."""
    if name not in ENDPOINTS:
        raise InvalidIdError(f"There is no endpoint {name!r}; there are {', '.join(ENDPOINTS)}.")
    return re.findall(r"{(\w+)}", ENDPOINTS[name])


def endpoint(name: str, **ids: str | None) -> str:
    """Return the path of a named endpoint, below the server's root URL.

    Raises ``InvalidIdError`` (a ``ValueError``) for an unknown name, and for an id that is missing or invalid.
    """
    needed = endpoint_ids(name)
    missing = [key for key in needed if ids.get(key) is None]
    if missing:
        raise InvalidIdError(f"The endpoint {name!r} needs {' and '.join(missing)}.")
    return ENDPOINTS[name].format(**{key: check_id(ids[key], key) for key in needed})

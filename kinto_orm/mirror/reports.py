"""Values that a mirror returns: what is pending, what is in conflict, what a sync did, what a verification found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from kinto_orm.errors import InvalidValueError, KintoError, UsageError
from kinto_orm.mirror import merging
from kinto_orm.mirror.store import Row, Store
from kinto_orm.models.codec import codec_of
from kinto_orm.models.kinds import Record
from kinto_orm.protocol.json_values import JSONObject, say_value, to_json_object
from kinto_orm.protocol.paging import without_envelope

Choice: TypeAlias = Literal["park", "mine", "theirs"]

OnConflict: TypeAlias = "Choice | Callable[[Conflict], Choice | Mapping[str, Any] | None]"
"""The treatment of records that both sides changed: keep the conflict in the file; prefer a side where they clash; or
a function that returns one of these, the data that the record shall have, or ``None`` to delete it."""

OnReset: TypeAlias = Literal["ask", "pull", "push"]
"""The treatment of a collection that the server lost: ``ServerResetError``; take what is there now, and create again
what was changed here; or create everything again."""


class Pending(NamedTuple):
    """A record that the server lacks as it is here."""

    collection: str
    """The path of the collection: ``/buckets/b/collections/c``."""
    id: str
    kind: Literal["created", "updated", "deleted"]
    error: str | None
    """The reason for which the server refused it: it is not sent again before it is edited."""


class Conflict:
    """A record that was changed here and on the server, so that the two could not be merged.

    It stays in the file until it is resolved; the other records go on being synchronised.
    """

    def __init__(self, store: Store, number: int, collection: str, row: Row, model: type[Record]) -> None:
        self.collection = collection
        self.id = row.id
        self.base: JSONObject | None = merging.base_of(row)
        self.mine: JSONObject | None = merging.data_of(row.mine)
        self.theirs: JSONObject | None = merging.data_of(row.theirs)
        self.fields: tuple[str, ...] = merging.clashing(row)
        self._store, self._number, self._row, self._model = store, number, row, model

    def merge(self, prefer: Literal["mine", "theirs"]) -> JSONObject | None:
        """Return both sides in one, with the preferred one where they clash; ``None`` where that one deleted it."""
        if prefer not in ("mine", "theirs"):
            raise UsageError(f"prefer is 'mine' or 'theirs', not {say_value(prefer)}.")
        return merging.preferring(self._row, prefer)

    def resolve(self, data: Mapping[str, Any] | None) -> None:
        """Give the record this data; ``None`` deletes it. The next sync pushes it.

        Raises ``InvalidValueError`` for data with another id, or that the model of the collection does not read;
        ``UsageError`` where the record was changed since this conflict was read.
        """
        kept, seen = None if data is None else self._checked(to_json_object(data)), self._row
        with self._store.transaction():
            row = self._store.get(self._number, self.id)
            if row is None or (row.version, row.modified) != (seen.version, seen.modified):
                raise UsageError(
                    f"{self.collection}/records/{self.id}: the record was changed since this conflict was read, and "
                    "nothing was stored: look at mirror.conflicts again."
                )
            version = self._store.next_version(self._number)
            self._store.put(self._number, merging.resolved(row, kept, version))

    def _checked(self, data: JSONObject) -> JSONObject:
        """Return the data of the record, without its envelope; what a side has, or both in one, is taken as it is."""
        if data.get("id", self.id) != self.id:
            raise InvalidValueError(f"{self!r}: a record keeps its id, and this data has another one: leave it out.")
        kept = without_envelope(data)
        if kept not in (self.mine, self.theirs, self.merge("mine"), self.merge("theirs")):
            codec_of(self._model).load({**kept, "id": self.id, "last_modified": None}, f"{self!r}: ")
        return kept

    def keep_mine(self) -> None:
        """Give the record the data that it has here, all of it."""
        self.resolve(self.mine)

    def take_theirs(self) -> None:
        """Give the record the data that it has on the server, all of it."""
        self.resolve(self.theirs)

    def __repr__(self) -> str:
        return f"<Conflict of {self.collection}/records/{self.id}: {', '.join(self.fields) or 'deleted'}>"


class SyncError(NamedTuple):
    """A part of a sync that failed."""

    collection: str
    id: str | None
    """The record; ``None`` where the whole collection is meant."""
    error: KintoError


@dataclass(slots=True)
class MirrorResult:
    """The effects of a sync. Records are named by their paths."""

    pulled: list[str] = field(default_factory=list)
    """Changed here, as the server has them."""
    pushed: list[str] = field(default_factory=list)
    """Stored or deleted on the server."""
    merged: list[str] = field(default_factory=list)
    """Changed on both sides, and merged."""
    recreated: list[str] = field(default_factory=list)
    """Deleted on the server, and created again because they were changed here."""
    conflicts: list[str] = field(default_factory=list)
    """In conflict at the end of the sync: see ``mirror.conflicts``."""
    refused: list[str] = field(default_factory=list)
    """Refused by the server, now or earlier, and not sent again before they are edited: see ``mirror.pending``."""
    errors: list[SyncError] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    """Collections that the server had lost."""

    @property
    def ok(self) -> bool:
        """Whether both sides are equal now, but for edits since."""
        return not (self.errors or self.conflicts or self.refused)


@dataclass(slots=True)
class VerifyReport:
    """The differences of the file from the server, without those that the next sync would push. Paths of records."""

    missing: list[str] = field(default_factory=list)
    """On the server and not in the file."""
    extra: list[str] = field(default_factory=list)
    """In the file and not on the server."""
    different: list[str] = field(default_factory=list)
    """With other data than the server has."""

    @property
    def ok(self) -> bool:
        """Whether the file has what the server has."""
        return not (self.missing or self.extra or self.different)

"""Compare rows with records, both in the order of their keys: the changes that would make the records equal.

Nothing here asks the server or reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from kinto_orm.errors import InvalidValueError, ProtocolError
from kinto_orm.jobs.spool import Spooled
from kinto_orm.protocol.json_values import (
    JSON,
    MISSING,
    JSONObject,
    encode,
    is_same,
    is_stored_as,
    say_path,
    to_json_value,
)
from kinto_orm.protocol.paging import ENVELOPE_KEYS, without_envelope
from kinto_orm.protocol.paths import Kind
from kinto_orm.repository.verbs import is_schema_timestamp

G = TypeVar("G")

ChangeKind: TypeAlias = Literal["create", "update", "delete"]

_SERVER_OWNED = ENVELOPE_KEYS | {"attachment"}
"""The keys that are not compared unless they are asked for; ``schema`` is another one, where it is a timestamp."""


class GivenRow(NamedTuple):
    """One row of the source, checked, in JSON types and by wire names."""

    data: JSONObject
    """All of it, without ``id`` and ``last_modified``: the data of a record that is created."""
    mentioned: Collection[str] | None = None
    """The keys that an existing record takes from it; ``None``: all, and others are removed from the record."""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One change of a plan: a record that is created, updated or deleted."""

    kind: ChangeKind
    id: str
    """The id of the record."""
    key: str = field(default="", repr=False)
    """The natural key by which the row was matched, as JSON; empty where that is the id."""
    last_modified: int | None = None
    """The timestamp of the record when the plan was made, in milliseconds; ``None`` for one that is created."""
    old: JSONObject | None = field(default=None, repr=False)
    """The data that the record had; ``None`` for one that is created."""
    new: JSONObject | None = field(default=None, repr=False)
    """The data that the record shall have; ``None`` for one that is deleted."""

    @property
    def fields(self) -> dict[str, tuple[JSON, JSON]]:
        """The old and the new value of each key that differs; ``MISSING`` where a side has no such key."""
        return changed_fields(self.old or {}, self.new or {})

    def differences(self) -> Iterator[tuple[str, JSON, JSON]]:
        """Yield the path, the old and the new value of each field that differs, also within objects.

        ``MISSING`` stands for a field that a side does not have. A deletion has none.
        """
        if self.kind != "delete":
            yield from _differences(self.old or {}, self.new or {}, ())

    def as_json(self) -> JSONObject:
        """Return the change as JSON values, as a saved plan has it; ``None`` is left out."""
        names = ("kind", "id", "key", "last_modified", "old", "new")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, "")}


def _differences(
    old: Mapping[str, JSON], new: Mapping[str, JSON], path: tuple[str, ...]
) -> Iterator[tuple[str, JSON, JSON]]:
    for key, (before, after) in changed_fields(old, new).items():
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, (*path, key))
        else:
            yield say_path((*path, key)), before, after


def changed_fields(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> dict[str, tuple[JSON, JSON]]:
    """Return the old and the new value of each key that differs."""
    pairs = ((key, old.get(key, MISSING), new.get(key, MISSING)) for key in dict.fromkeys((*old, *new)))
    return {key: (before, after) for key, before, after in pairs if not is_same(before, after)}


class Key:
    """The fields by which rows and records are matched."""

    __slots__ = ("is_id", "names")

    def __init__(self, *names: str) -> None:
        self.names = names
        self.is_id = names == ("id",)
        """Whether they are matched by id."""

    def of(self, row: Mapping[str, JSON]) -> str | None:
        """Return the key of a row or record as text; ``None`` where a part of it is missing, null, or no scalar."""
        if self.is_id:
            return row.get("id")
        parts = [_key_part(row.get(name)) for name in self.names]
        if None in parts:
            return None
        return parts[0] if len(parts) == 1 else f"[{','.join(map(str, parts))}]"

    def __str__(self) -> str:
        return ", ".join(self.names)


def _key_part(value: JSON) -> str | None:
    if value is None:
        return None
    try:
        value = to_json_value(value, "key")
    except InvalidValueError:
        return None
    if isinstance(value, (dict, list)):
        return None
    # 1 and 1.0 are one key, as they are one value; True is another.
    return encode(int(value) if isinstance(value, float) and value.is_integer() else value).decode()


class FieldRules(NamedTuple):
    """The keys that are compared, and when two values of one are the same."""

    canonical: Callable[[JSONObject], Mapping[str, JSON]]
    """Returns the declared fields of this data as their model writes them; nothing where the data does not fit it."""
    names: frozenset[str] | None = None
    """The keys to compare; ``None``: all but those that the server owns."""

    def own(self, row: Mapping[str, JSON]) -> JSONObject:
        """Return the part of a row that is compared."""
        names = self.names
        if names is not None:
            return {key: value for key, value in row.items() if key in names}
        if "schema" in row and is_schema_timestamp(Kind.RECORD, row["schema"]):
            return {key: value for key, value in row.items() if key not in _SERVER_OWNED and key != "schema"}
        return {key: value for key, value in row.items() if key not in _SERVER_OWNED}

    def wanted(self, stored: JSONObject, given: GivenRow) -> JSONObject | None:
        """Return the data that a record shall have; ``None`` where it is as the row wants it.

        Keys that do not differ keep the spelling of the server.
        """
        before = self.own(stored)
        after = given.data
        if given.mentioned is not None:
            after = {key: value for key, value in after.items() if key in given.mentioned}
        differing = [key for key in after if key not in before or not is_stored_as(after[key], before[key])]
        if given.mentioned is None:
            differing += [key for key in before if key not in after]
        if differing:
            differing = self._unlike(differing, before, given.data)
        if not differing:
            return None
        gone = {key for key in differing if key not in after}
        kept = {key: value for key, value in stored.items() if key not in gone} if gone else stored
        return {**kept, **{key: after[key] for key in differing if key not in gone}}

    def _unlike(self, keys: list[str], before: JSONObject, after: JSONObject) -> list[str]:
        """Return the keys whose values the model takes for different ones, too."""
        old, new = self.canonical(before), self.canonical(after)
        return [key for key in keys if not (key in old and key in new and is_stored_as(new[key], old[key]))]


@dataclass(slots=True)
class PlanCounts:
    """The number of records, by what a plan does with them."""

    create: int = 0
    update: int = 0
    delete: int = 0
    unchanged: int = 0
    without_key: int = 0
    """Records of the target that lack the natural key: they are left alone."""

    @property
    def changes(self) -> int:
        """The number of records that the plan changes."""
        return self.create + self.update + self.delete


@dataclass(eq=False, repr=False)
class Comparison(Generic[G]):
    """The merge of a source with the records of a collection, both in the order of their keys.

    Give it the records, some at a time, by :meth:`take`; then call :meth:`finish`.
    """

    source: Iterator[Spooled[G]]
    key: Key
    rules: FieldRules
    encode: Callable[[Spooled[G]], GivenRow]
    """Returns a row checked and encoded; raises ``InvalidInputError``, with its position."""
    new_id: Callable[[Spooled[G]], str]
    """Returns the id for a new record of that row; raises ``InvalidInputError``, with its position."""
    deletes: bool = False
    counts: PlanCounts = field(default_factory=PlanCounts)
    total: int = 0
    """The number of records of the target that have a key."""

    def __post_init__(self) -> None:
        self._is_whole = self.rules.names is None and self.key.is_id  # as nearly always
        self._row = next(self.source, None)
        self._last_key: str | None = None

    def take(self, records: Iterable[tuple[str, JSONObject]]) -> Iterator[PlannedChange]:
        """Compare the next records, each with its key; the changes up to there.

        Raises ``ProtocolError`` where the keys do not ascend: to go on would take records for missing ones.
        """
        for key, record in records:
            if self._last_key is not None and key <= self._last_key:
                raise ProtocolError(f"The server's order is not by {self.key}: {key!r} came after {self._last_key!r}.")
            self._last_key = key
            self.total += 1
            while (row := self._row) is not None and row[0] < key:
                self._row = next(self.source, None)
                yield self._create(row)
            if row is not None and row[0] == key:
                self._row = next(self.source, None)
                if self._is_as_it_came(row[2], record):
                    self.counts.unchanged += 1
                elif (change := self._update(row, record)) is not None:
                    yield change
            elif self.deletes:
                self.counts.delete += 1
                yield self._change("delete", key, record, None)

    def finish(self) -> Iterator[PlannedChange]:
        """Return the changes that are left after the last record."""
        while (row := self._row) is not None:
            self._row = next(self.source, None)
            yield self._create(row)

    def _create(self, row: Spooled[G]) -> PlannedChange:
        self.counts.create += 1
        return PlannedChange("create", self.new_id(row), self._shown(row[0]), new=self.encode(row).data)

    def _update(self, row: Spooled[G], record: JSONObject) -> PlannedChange | None:
        new = self.rules.wanted(without_envelope(record), self.encode(row))
        if new is None:
            self.counts.unchanged += 1
            return None
        self.counts.update += 1
        return self._change("update", row[0], record, new)

    def _change(self, kind: ChangeKind, key: str, record: JSONObject, new: JSONObject | None) -> PlannedChange:
        timestamp = record.get("last_modified")
        return PlannedChange(kind, record["id"], self._shown(key), timestamp, without_envelope(record), new)

    def _shown(self, key: str) -> str:
        return "" if self.key.is_id else key

    def _is_as_it_came(self, given: Any, record: JSONObject) -> bool:
        """Return whether the row is the record already, so that it needs neither a check nor the model."""
        if type(given) is not dict:
            return False
        row: JSONObject = given
        if self._is_whole and "schema" not in record and "attachment" not in record:
            # The timestamps are made the same, because to copy two rows takes longer.
            timestamp = record.pop("last_modified", None)
            if "last_modified" in row:
                record["last_modified"] = row["last_modified"]
            is_equal = is_same(row, record)
            record["last_modified"] = timestamp
            if is_equal:
                return True
        return is_same(self.rules.own(row), self.rules.own(record))

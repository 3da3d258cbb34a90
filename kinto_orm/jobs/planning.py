"""Plan a sync: read the source and the records, compare them, keep the changes. Nothing is written to the server."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeAlias, cast
from uuid import NAMESPACE_URL, uuid5

from kinto_orm.errors import (
    DuplicateKeyError,
    EmptySourceError,
    InvalidInputError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    NotLoadedError,
    TooManyDeletesError,
)
from kinto_orm.jobs.comparing import (
    Comparison,
    FieldRules,
    GivenRow,
    Key,
    PlanCounts,
    PlannedChange,
)
from kinto_orm.jobs.sources import NumberedRow, RowCodec, Rows, Source, open_source
from kinto_orm.jobs.spool import Spool, Spooled
from kinto_orm.protocol.accounts import DUMPED, SECRETS
from kinto_orm.protocol.json_values import JSONObject, decode, encode, pause_collector, say_value
from kinto_orm.protocol.paging import ENVELOPE_KEYS, check_flags
from kinto_orm.protocol.paths import Kind, check_id
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.query.execution import Page, PageWalk, Place, RawRows, Selection
from kinto_orm.query.writing import allowed_deletes, check_max_deletes
from kinto_orm.repository.state import FlowRunner, Progress

Fields: TypeAlias = Literal["exact", "given"] | Collection[str] | None
"""The keys that a sync compares: ``exact``: all, so that what a row lacks is removed from its record; ``given``: only
what the row mentions; or these very keys."""

PAGE_SIZE = 10_000
"""The number of records on each page: the most that Kinto gives in one answer unless it is configured otherwise.
https://docs.kinto-storage.org/en/stable/configuration/settings.html"""


class SyncOptions(NamedTuple):
    """The options of a sync, checked."""

    key: Key
    delete: bool = False
    max_deletes: int | float = 0.5
    names: frozenset[str] | None = None
    """The keys to compare; ``None``: all but the server's own."""
    mode: Literal["exact", "given"] | None = None

    @classmethod
    def check(
        cls, key: str | Sequence[str], fields: Fields = None, *, delete: bool = False, max_deletes: int | float = 0.5
    ) -> SyncOptions:
        """Return the options; raises ``InvalidInputError`` or ``InvalidTypeError`` for what makes no sense."""
        check_flags(delete=delete)
        names, mode = _checked_fields(fields)
        return cls(Key(*_checked_names(key, "key")), delete, check_max_deletes(max_deletes), names, mode)

    @classmethod
    def of_diff(cls, key: str | Sequence[str], fields: Fields) -> SyncOptions:
        """Return the options that show every difference."""
        return cls.check(key, fields, delete=True, max_deletes=1.0)


def _checked_names(names: str | Collection[str], what: str) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else tuple(names) if isinstance(cast(object, names), Iterable) else ()
    if not found or not all(isinstance(cast(object, name), str) and name for name in found):
        raise InvalidTypeError(f"{what} is the wire name of a field, or several, not {say_value(names)}.")
    if found != ("id",) and not ENVELOPE_KEYS.isdisjoint(found):
        raise InvalidValueError(f"{what}: {', '.join(sorted(ENVELOPE_KEYS & set(found)))} cannot be part of it.")
    return found


def _checked_fields(fields: Fields) -> tuple[frozenset[str] | None, Literal["exact", "given"] | None]:
    if fields is None:
        return None, None
    if fields == "exact":
        return None, "exact"
    if fields == "given":
        return None, "given"
    if isinstance(fields, str):
        raise InvalidValueError(f"fields is 'exact', 'given' or a list of wire names, not {say_value(fields)}.")
    if isinstance(cast(object, fields), Collection) and "id" in fields:
        raise InvalidValueError("fields: the id of a record never changes, so it cannot be compared.")
    return frozenset(_checked_names(fields, "fields")), None


@dataclass(eq=False, repr=False)
class PlannedChanges:
    """The changes of a plan, in the order in which they are written: by id, the deletions last."""

    counts: PlanCounts = field(default_factory=PlanCounts)

    def __post_init__(self) -> None:
        self._saves = self._spool()
        self._deletes = self._spool()

    def _spool(self) -> Spool[PlannedChange]:
        return Spool(lambda _, change: encode(change.as_json()), lambda text: PlannedChange(**decode(text, "a change")))

    def add(self, changes: Iterable[PlannedChange]) -> None:
        """Keep the changes."""
        with pause_collector():
            for change in changes:
                spool = self._deletes if change.kind == "delete" else self._saves
                spool.add([(change.id, len(spool), change)])

    def __iter__(self) -> Iterator[PlannedChange]:
        for spool in (self._saves, self._deletes):
            for _, _, change in spool:
                yield change

    def find(self, ids: Sequence[str]) -> dict[str, PlannedChange]:
        """Return the changes of these records."""
        return {**self._saves.find(ids), **self._deletes.find(ids)}

    def close(self) -> None:
        """Free what the changes hold."""
        self._saves.close()
        self._deletes.close()


@dataclass(eq=False, repr=False)
class Planned:
    """A plan in its parts."""

    place: Place
    codec: RowCodec
    changes: PlannedChanges
    timestamp: int | None
    """The timestamp of the list before its first record was read, in milliseconds."""
    key: str

    @property
    def counts(self) -> PlanCounts:
        """The number of records, by what becomes of them."""
        return self.changes.counts


@dataclass(eq=False, repr=False)
class Planning:
    """The making of one plan."""

    place: Place
    codec: RowCodec
    options: SyncOptions
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self._runner: FlowRunner = self.place.runner
        self._rules = FieldRules(self.codec.canonical, self.options.names)
        self._timestamp: int | None = None
        self._count = 0

    def plan(self, rows: Rows) -> Flow[Planned]:
        """Plan the changes that make the collection equal to the rows.

        Raises ``InvalidInputError`` for a row that cannot be written, ``DuplicateKeyError``, ``EmptySourceError`` and
        ``TooManyDeletesError``.
        """
        source = open_source(rows, self.codec, self._runner)
        changes = PlannedChanges()
        given = Spool[Any](
            lambda position, value: encode(list(self._encode(source, position, value))),
            _decode_row,
        )
        try:
            yield from self._collect(source, given)
            yield from self._compare(source, given, changes)
        except BaseException:
            changes.close()
            raise
        finally:
            given.close()
        return Planned(self.place, self.codec, changes, self._timestamp, str(self.options.key))

    def _collect(self, source: Source, given: Spool[Any]) -> Flow[None]:
        """Read the whole source. Raises where a row has no key, or the key of another one."""
        while rows := (yield from source.take()):
            with pause_collector():
                keyed = self._keyed(source, rows)
            yield from call_blocking("rows", partial(given.add, keyed))
            self._tell(len(given), "read source")
        repeated = yield from call_blocking("rows", given.find_repeated)
        if repeated is not None:
            (key, first, _), (_, second, _) = repeated
            raise DuplicateKeyError(
                f"{self._say(key)} comes twice: {source.describe(first)} and {source.describe(second)}. "
                "Nothing was sent."
            )

    def _keyed(self, source: Source, rows: Iterable[NumberedRow]) -> list[Spooled[Any]]:
        """Return the rows, each with its key."""
        is_id, keyed = self.options.key.is_id, []
        for position, value in rows:
            key = value.get("id") if is_id and type(value) is dict else None
            keyed.append((key if type(key) is str and key else self._key_of(source, position, value), position, value))
        return keyed

    def _key_of(self, source: Source, position: int, value: Any) -> str:
        wanted = self.options.key
        try:
            values = self.codec.values_of(value)
            key = wanted.of(values if wanted.is_id else self.codec.key_values(values, wanted.names))
            if key is None:
                raise InvalidValueError(
                    f"it has no {wanted} that is text, a number or a boolean; key= names other fields"
                )
            return check_id(key, kind=Kind.RECORD) if wanted.is_id else key
        except (InvalidInputError, InvalidTypeError) as error:
            raise _located(error, source, position) from error

    def _new_id(self, source: Source, namespace: str, row: Spooled[Any]) -> str:
        key, position, _ = row
        if not self.options.key.is_id:
            return str(uuid5(NAMESPACE_URL, f"{namespace}{key}"))
        try:
            return check_id(key, kind=Kind.RECORD)
        except InvalidInputError as error:
            raise _located(error, source, position) from error

    def _encode(self, source: Source, position: int, value: Any) -> GivenRow:
        mode = "given" if source.is_partial and self.options.mode is None else self.options.mode
        try:
            data, mentioned = self.codec.encode(value, mode)
        except (InvalidInputError, InvalidTypeError, NotLoadedError) as error:
            raise _located(error, source, position) from error
        return GivenRow(self._rules.own(data), mentioned)

    def _compare(self, source: Source, given: Spool[Any], changes: PlannedChanges) -> Flow[None]:
        key = self.options.key
        namespace = "" if key.is_id else (yield from self._namespace())
        comparison = Comparison(
            iter(given),
            key,
            self._rules,
            lambda row: row[2] if type(row[2]) is GivenRow else self._encode(source, row[1], row[2]),
            partial(self._new_id, source, namespace),
            self.options.delete,
            changes.counts,
        )
        yield from (self._compare_by_id if key.is_id else self._compare_by_key)(comparison, changes)
        yield from call_blocking("rows", lambda: changes.add(comparison.finish()))
        self._check_deletes(len(given), changes.counts, comparison.total)

    def _compare_by_id(self, comparison: Comparison[Any], changes: PlannedChanges) -> Flow[None]:
        # The records come in the order of their ids: they are compared page by page, and none is kept.
        walk = self._walk()
        while (flow := walk.next_page()) is not None:
            rows = yield from self._read(flow)
            keyed = zip(map(itemgetter("id"), rows), rows, strict=True)
            yield from call_blocking("rows", lambda keyed=keyed: changes.add(comparison.take(keyed)))  # type: ignore[misc]

    def _compare_by_key(self, comparison: Comparison[Any], changes: PlannedChanges) -> Flow[None]:
        records: Spool[JSONObject] = Spool(lambda _, record: encode(record), lambda text: decode(text, "a record"))
        try:
            walk = self._walk()
            while (flow := walk.next_page()) is not None:
                rows = yield from self._read(flow)
                keyed = [
                    (key, self._count, row)
                    for row in rows
                    if (key := comparison.key.of(self.codec.key_values(row, comparison.key.names))) is not None
                ]
                changes.counts.without_key += len(rows) - len(keyed)
                yield from call_blocking("rows", partial(records.add, keyed))
            repeated = yield from call_blocking("rows", records.find_repeated)
            if repeated is not None:
                (key, _, first), (_, _, second) = repeated
                raise DuplicateKeyError(
                    f"{self._say(key)} is the key of two records of {self.place.path}: {first['id']} and "
                    f"{second['id']}. Nothing was written."
                )
            pairs = ((key, record) for key, _, record in records)
            yield from call_blocking("rows", lambda: changes.add(comparison.take(pairs)))
        finally:
            records.close()

    def _say(self, key: str) -> str:
        name = str(self.options.key)
        return f"{name} {say_key(key, name, SECRETS.get(str(self.place.path), {}))}"

    def _walk(self) -> PageWalk[JSONObject]:
        return PageWalk(RawRows(), self.place, Selection(page_size=PAGE_SIZE), "raise")

    def _read(self, flow: Flow[Page[JSONObject]]) -> Flow[Sequence[JSONObject]]:
        page = yield from flow
        if self._count == 0:
            self._timestamp = page.timestamp
        self._count += len(page.objects)
        self._tell(self._count, "read records")
        return page.objects

    def _namespace(self) -> Flow[str]:
        """Return the namespace of new ids: the same for all clients that sync the collection by this key."""
        bucket, collection = self.place.path.parent_ids
        if bucket == "default":
            # The same bucket has another name, too.
            info = yield from self._runner.__kinto_describe_server__()
            bucket = info.get("user", {}).get("bucket", bucket)
        return f"/buckets/{bucket}/collections/{collection}/records?{self.options.key}="

    def _check_deletes(self, given: int, counts: PlanCounts, total: int) -> None:
        limit = self.options.max_deletes
        total += counts.without_key
        if not self.options.delete or (isinstance(limit, float) and limit == 1):
            return
        if given == 0 and total:
            raise EmptySourceError(
                f"The source is empty, and {self.place.path} has {total} records: to delete them all, say "
                "max_deletes=1.0. Nothing was written."
            )
        if counts.delete > (allowed := allowed_deletes(limit, total)):
            raise TooManyDeletesError(
                f"{counts.delete} of the {total} records of {self.place.path} are not in the source, and "
                f"max_deletes={limit} allows {allowed}. Nothing was written."
            )

    def _tell(self, done: int, what: str) -> None:
        if self.progress is not None:
            self.progress(done, None, what)


def say_key(value: str, key: str, secrets: Collection[str]) -> str:
    """Return the value of a key for a text: stars where a part of it is secret."""
    return value if set(key.split(", ")).isdisjoint(secrets) else DUMPED


def _located(error: KintoError, source: Source, position: int) -> KintoError:
    """Return the error with the words for its row."""
    return type(error)(f"{source.describe(position)}: {error}")


def _decode_row(text: bytes) -> GivenRow:
    return GivenRow(*decode(text, "a row"))

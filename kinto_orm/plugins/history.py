"""What objects were like: the verbs of managers that rest on the history of the bucket.

https://docs.kinto-storage.org/en/stable/api/1.x/history.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from kinto_orm.errors import InvalidTypeError, InvalidValueError, PartialObjectError, UnsavedChangesError, UsageError
from kinto_orm.plugins.as_of import Snapshot
from kinto_orm.protocol.entries import HistoryEntry
from kinto_orm.protocol.json_values import TimestampInput, is_same, parse_timestamp
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id
from kinto_orm.protocol.writes import Flow
from kinto_orm.query import History, Place, Query, Source, history_of, moment
from kinto_orm.repository import get_or_none, is_schema_timestamp, require_history, version_at, version_in
from kinto_orm.repository.conflicts import carry_out
from kinto_orm.repository.state import Draft, Intent, ObjectState, Stateful, Status, Verb


class Standing(Protocol):
    """The part of an object's envelope that decides whether it can be reverted."""

    @property
    def status(self) -> Status:
        """The status of the object."""
        ...

    @property
    def is_partial(self) -> bool:
        """Whether the object holds only some of its fields."""
        ...


class Revertible(Stateful, Protocol):
    """An object that the server can put back to an earlier version."""

    @property
    def is_deleted(self) -> bool:
        """Whether the object is a tombstone."""
        ...

    @property
    def is_dirty(self) -> bool:
        """Whether the object has unsaved changes."""
        ...

    def __kinto_envelope__(self) -> Standing:
        """Return the envelope of the object."""
        ...

    def __kinto_state__(self) -> ObjectState:
        """Return what the server last said of the object."""
        ...


M = TypeVar("M", bound=Revertible)


class HistoryMixin(Query[M]):
    """The part of a manager that looks back."""

    __slots__ = ()

    def history(self, one: M | str | UUID, /) -> History:
        """What happened to the object, or to what had that id, the newest first; asks nothing before it ends."""
        place = self.reading.source.locate()
        path = _path_of(one, place)
        return history_of(lambda: (place.runner, path.ids[0]), path)

    def as_of(self, timestamp: TimestampInput) -> Snapshot[M]:
        """The records of the collection as they were at that time (milliseconds, ETag or aware datetime).

        To be iterated, or ended with ``all``, ``count`` or ``get``. Raises ``UsageError`` for other kinds of objects.
        """
        kind = self.reading.source.kind
        if kind is not Kind.RECORD:
            raise UsageError(f"as_of() is for records: of {kind.plural} Kinto has no snapshots; look at history(id).")
        return Snapshot(self.reading.source, moment(timestamp, "as_of"))

    def revert(self, one: M | str | UUID, /, *, to: TimestampInput | HistoryEntry) -> M:
        """The object, stored as it was at that time, or after that entry of its history; permissions too where the
        history shows them.

        The write expects the version that was seen last: of an object that was given the one it holds, of an id the
        one that is read now. Raises ``ConflictError`` where somebody changed it since. One that was deleted is created
        again, unless somebody else did. Raises ``UsageError`` where it was not there then, ``HistoryIncompleteError``
        where the history does not reach back to then, ``UnsavedChangesError`` where local changes would be lost.
        """
        return self._run(_reverting(self, one, to))

    async def arevert(self, one: M | str | UUID, /, *, to: TimestampInput | HistoryEntry) -> M:
        """Like :meth:`revert`."""
        return await self._arun(_reverting(self, one, to))


@dataclass(frozen=True, slots=True)
class _Reverting(Generic[M]):
    """One call of ``revert()``."""

    source: Source[M]
    given: M | None
    """The object, where it was given by itself and not by its id."""
    id: str
    when: int | HistoryEntry

    def flow(self, place: Place) -> Flow[M]:
        """The object, stored as it was."""
        place.runner.refuse_staging("revert()")
        path = _path_of(self.id if self.given is None else self.given, place)
        if isinstance(self.when, HistoryEntry):
            _check_is_about(self.when, path)
        yield from require_history("revert()", path, place.runner)
        if self.given is None or self.given.__kinto_envelope__().status is Status.REFERENCE:
            return (yield from self._after_reading(path, place))
        if self.given.is_deleted:
            return (yield from self._store(ObjectState(path, Status.NEW), place))
        return (yield from self._write_over(self.given, place))

    def _after_reading(self, path: ObjectPath, place: Place) -> Flow[M]:
        state = (yield from get_or_none(path)) or ObjectState(path, Status.NEW)
        is_loaded = state.status is Status.LOADED
        if is_loaded and not isinstance(self.when, HistoryEntry) and (state.last_modified or 0) <= self.when:
            return self._taken(self.source.load_one(state, place))
        return (yield from self._store(state, place))

    def _store(self, state: ObjectState, place: Place) -> Flow[M]:
        """Writes over the state, which nobody holds yet; or creates it again."""
        version = yield from self._version(state.path, exists=state.status is Status.LOADED)
        if state.status is Status.LOADED and _is_as_in(state, version):
            return self._taken(self.source.load_one(state, place))
        draft = _draft(version)
        stored = self._loaded(version, draft, place)
        yield from carry_out(stored, Intent(Verb.REPLACE, state, draft), place.runner)
        return self._taken(stored)

    def _write_over(self, holder: M, place: Place) -> Flow[M]:
        version = yield from self._version(holder.__kinto_path__(), exists=True)
        draft = _draft(version)
        self._loaded(version, draft, place)
        state, shown = holder.__kinto_describe__()
        # ``seen`` says that the object is not what is sent: its own data are no edits made since.
        yield from carry_out(holder, Intent(Verb.REPLACE, state, draft, seen=shown), place.runner)
        return holder

    def _taken(self, stored: M) -> M:
        """The object that was given, in the state of the stored one."""
        if self.given is None:
            return stored
        self.given.__kinto_apply_state__(stored.__kinto_state__(), None)
        return self.given

    def _version(self, path: ObjectPath, *, exists: bool) -> Flow[ObjectState]:
        if isinstance(self.when, HistoryEntry):
            found: ObjectState | None = version_in(self.when, path)
        else:
            found = yield from version_at(path, self.when, exists=exists)
        if found is None or found.status is Status.DELETED:
            raise UsageError(f"{path} was not there then: to go back to that, delete() it. Nothing was written.")
        return found

    def _loaded(self, version: ObjectState, draft: Draft, place: Place) -> M:
        """The object as it shall be; raises ``InvalidValueError`` where that does not fit its model any more."""
        state = ObjectState(version.path, Status.LOADED, draft.data, version.last_modified)
        try:
            return self.source.load_one(state, place)
        except InvalidValueError as error:
            raise InvalidValueError(f"revert() wrote nothing, because the old version does not fit: {error}") from error


def _reverting(query: Query[M], one: M | str | UUID, to: TimestampInput | HistoryEntry) -> Callable[[Place], Flow[M]]:
    when = to if isinstance(to, HistoryEntry) else parse_timestamp(to, "to")
    if not isinstance(one, str | UUID):
        _check_is_clean(one)
        return _Reverting(query.reading.source, one, "", when).flow
    return _Reverting(query.reading.source, None, check_id(one), when).flow


def _path_of(one: Revertible | str | UUID, place: Place) -> ObjectPath:
    """Where the object is; raises ``InvalidTypeError`` where that is not in the list of the manager."""
    if place.path.kind is Kind.ACCOUNT:
        raise UsageError("Kinto keeps no history of accounts.")
    path = one.__kinto_path__() if not isinstance(one, str | UUID) else place.path.object(check_id(one))
    if path.plural != place.path:
        raise InvalidTypeError(f"{path} is not of {place.path}: ask the manager of its own list.")
    return path


def _check_is_clean(given: Revertible) -> None:
    if given.__kinto_envelope__().is_partial:
        raise PartialObjectError(f"{given!r} holds only some of its fields (only()): refresh() it, or give its id.")
    if not given.is_deleted and given.is_dirty:
        raise UnsavedChangesError(
            f"{given!r} has unsaved changes, which revert() would drop: refresh(discard=True) it, or give its id."
        )


def _check_is_about(entry: HistoryEntry, path: ObjectPath) -> None:
    # The default bucket is in its history by its real id.
    mine, its = (uri.split("/")[3 if path.ids[0] == "default" else 2 :] for uri in (str(path), entry.uri))
    if mine != its:
        raise InvalidValueError(f"to is an entry about {entry.uri}, not about {path}.")


def _draft(version: ObjectState) -> Draft:
    data = dict(version.data or {})
    if is_schema_timestamp(version.path.kind, data.get("schema")):
        del data["schema"]  # the server's own: it sets it again
    permissions = {name: sorted(principals) for name, principals in (version.permissions or {}).items()}
    return Draft(data, permissions or None, permissions or None)


def _is_as_in(state: ObjectState, version: ObjectState) -> bool:
    """Whether the object, just read, is as it was in that version."""
    now, then = _draft(state), _draft(version)
    return is_same(now.data, then.data) and (not then.permissions or _granted(now) == _granted(then))


def _granted(draft: Draft) -> dict[str, list[str]]:
    return {name: list(principals) for name, principals in (draft.permissions or {}).items() if principals}

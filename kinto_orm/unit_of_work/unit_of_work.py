"""The unit of work: many writes, staged and committed as one batch.

A batch is one HTTP request. On PostgreSQL it is one transaction for failures of the server, but a refused write (a
stale object, a missing permission) leaves the others stored. So a commit returns an outcome for each object.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import (
    DryRunError,
    DuplicateObjectError,
    InvalidTypeError,
    NestedUnitError,
    NotStageableError,
    UnitClosedError,
    UnitOfWorkError,
)
from kinto_orm.protocol.json_values import TimestampInput, say_value
from kinto_orm.protocol.paging import check_flags
from kinto_orm.protocol.patches import Patch
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id
from kinto_orm.protocol.responses import raise_for_status
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Flow, Write
from kinto_orm.repository.conflicts import check_policy, make_resolvable
from kinto_orm.repository.state import (
    Change,
    FlowRunner,
    OnConflict,
    Outcome,
    Stateful,
    Status,
    Verb,
    activate,
    deactivate,
)
from kinto_orm.repository.verbs import encode_change
from kinto_orm.unit_of_work.compensation import compensate
from kinto_orm.unit_of_work.engine import CommitOptions, commit, raise_unless_stored
from kinto_orm.unit_of_work.staging import Fetchable, Plan, check_source, coalesce, freeze, in_order, plan_of, restart

H = TypeVar("H", bound=Stateful)
T = TypeVar("T")

_open_units: ContextVar[tuple[UnitOfWork, ...]] = ContextVar("kinto_orm_open_units", default=())


def open_unit(runner: FlowRunner) -> UnitOfWork | None:
    """Return this client's unit of work around the current context, also one that was left elsewhere."""
    for unit in reversed(_open_units.get()):
        if unit.client is runner:
            return unit
    return None


def refuse_staging(runner: FlowRunner, what: str) -> None:
    """Raise ``NotStageableError`` inside a unit of this client: ``what`` is refused there."""
    if (unit := open_unit(runner)) is not None:
        unit.__kinto_admit__(None, what)


class UnitOfWork:
    """Staged writes of one client, made by ``client.unit_of_work()``.

    The block commits at its end; after an exception it sends nothing. It stages save, replace, patch, delete and
    ``manager.create`` of its client, in the context of the block and the tasks started inside it. Other threads write
    at once, unless they call ``uow.save(object)`` and the like.
    """

    def __init__(
        self,
        runner: FlowRunner,
        *,
        atomic: bool = False,
        lock: str | Stateful | None = None,
        on_conflict: OnConflict = "raise",
        chunked: bool = False,
    ) -> None:
        check_flags(atomic=atomic, chunked=chunked)
        if atomic and chunked:
            raise UnitOfWorkError("A unit of work is atomic or chunked: several batches are never all or nothing.")
        check_policy(on_conflict)
        self.client = runner
        """The client whose writes are staged."""
        self._common_lock = None if lock is None else lock_of(lock, runner)
        taking = None if self._common_lock is None else self._common_lock.write
        self._options = CommitOptions(atomic, taking, on_conflict, chunked)
        self._lock = threading.RLock()
        self._staged: dict[ObjectPath, Change[Any]] = {}
        self._cancelled: set[ObjectPath] = set()
        """Staged paths with nothing left to send: an object that was created and deleted again."""
        self._loaded: dict[ObjectPath, Any] = {}
        self._answered: dict[ObjectPath, Change[Any]] = {}
        self._is_closed = False
        self._own_flow: Flow[Any] | None = None
        self._on_its_way: frozenset[ObjectPath] = frozenset()

    @property
    def outcomes(self) -> tuple[Outcome[Any], ...]:
        """The outcome of each staged object, in staging order; empty before the commit.

        After several commits, each object has its last outcome here.
        """
        return _outcomes(self._answered.values())

    # -- staging --------------------------------------------------------------------------------------------------

    def __kinto_stage__(self, change: Change[Any]) -> None:
        """Take the change into the unit; it becomes one operation with an earlier one of the same object."""
        path = change.state.path
        with self._lock:
            self._check_open()
            self._check_identity(change.holder, path)
            if path in self._on_its_way:
                raise UnitOfWorkError(f"{path} is being sent: stage it again when the commit has ended.")
            frozen = change if change.patch is None else freeze(change)
            if change.verb is Verb.PATCH and path in self._loaded and path not in self._staged:
                # The other edits of an object that came from get() would have joined the commit: they still do.
                unsaved = change.holder.__kinto_change__(Verb.SAVE)
                if encode_change(unsaved):
                    self._staged[path] = unsaved
            before = self._staged.get(path)
            if path in self._cancelled:
                combined = restart(frozen)
            else:
                combined = frozen if before is None else coalesce(before, frozen)
            if combined is None:
                self._cancelled.add(path)
                self._staged[path] = frozen
            else:
                encode_change(combined)  # raises now, not at the end, where a batch cannot carry it
                self._staged[path] = combined
                self._cancelled.discard(path)

    def save(
        self, holder: H, *, safe: bool = True, if_match: TimestampInput | None = None, if_not_exists: bool = False
    ) -> H:
        """Stage ``holder.save()``, from any thread."""
        with self._inside(holder, "save") as model:
            model.save(safe=safe, if_match=if_match, if_not_exists=if_not_exists)
        return holder

    def replace(self, holder: H, *, safe: bool = True, if_match: TimestampInput | None = None) -> H:
        """Stage ``holder.replace()``, from any thread."""
        with self._inside(holder, "replace") as model:
            model.replace(safe=safe, if_match=if_match)
        return holder

    def patch(
        self,
        holder: H,
        changes: Patch | Mapping[str, Any] | None = None,
        /,
        *,
        safe: bool = True,
        if_match: TimestampInput | None = None,
        **values: Any,
    ) -> H:
        """Stage ``holder.patch()``, from any thread."""
        with self._inside(holder, "patch") as model:
            model.patch(changes, safe=safe, if_match=if_match, **values)
        return holder

    def delete(
        self, holder: H, *, safe: bool = True, if_match: TimestampInput | None = None, if_exists: bool = False
    ) -> H:
        """Stage ``holder.delete()``, from any thread."""
        with self._inside(holder, "delete") as model:
            model.delete(safe=safe, if_match=if_match, if_exists=if_exists)
        return holder

    @contextmanager
    def _inside(self, holder: Any, verb: str) -> Generator[Any]:
        """Put this context inside the block for one call of the object's verb."""
        if isinstance(holder, type) or not hasattr(holder, "__kinto_runner__"):
            raise InvalidTypeError(f"{verb}() takes an object to stage, not {say_value(holder)}.")
        activate(self.client)
        around = _open_units.get()
        _open_units.set((*around, self))
        try:
            if holder.__kinto_runner__() is not self.client:
                raise NotStageableError(f"{holder!r} belongs to another client than this unit of work.")
            yield holder
        finally:
            _open_units.set(around)
            deactivate(self.client)

    def get(self, source: Fetchable[H], id: str | UUID) -> H:
        """Return the object of that id: one path gives one Python object, also where it is staged already.

        The server is asked only the first time. An object that is changed but not staged joins the commit. Takes a
        model, a manager or a query.
        """
        return self.client.run(self._get(source, id))

    async def aget(self, source: Fetchable[H], id: str | UUID) -> H:
        """Like :meth:`get`."""
        return await self.client.arun(self._get(source, id))

    def _get(self, source: Fetchable[H], id: str | UUID) -> Flow[H]:
        self._check_open()
        check_source(source)
        path = source.__kinto_locate__(self.client, id)
        if (known := self._known(path)) is not None:
            if isinstance(source, type) and not isinstance(known, source):
                raise DuplicateObjectError(
                    f"{path} is in this unit as {type(known).__name__} already, so it cannot be {source.__name__} too: "
                    "get() it by one model."
                )
            return cast(H, known)
        loaded = yield from source.__kinto_fetch__(self.client, id)
        with self._lock:
            return cast(H, self._known(path) or self._loaded.setdefault(path, loaded))

    def _known(self, path: ObjectPath) -> Stateful | None:
        """Return the one Python object of that path, where the unit has it."""
        staged = self._staged.get(path)
        return staged.holder if staged is not None else self._loaded.get(path)

    def _check_identity(self, holder: Stateful, path: ObjectPath) -> None:
        known = self._staged.get(path) if path not in self._cancelled else None
        other = known.holder if known is not None else self._loaded.get(path)
        if other is not None and other is not holder:
            raise DuplicateObjectError(f"{path} is in this unit already, as another Python object: use that one.")

    def _check_open(self) -> None:
        if self._is_closed:
            raise UnitClosedError("This unit of work was left: open another one with client.unit_of_work().")

    def __kinto_admit__(self, flow: Flow[Any] | None, what: str) -> None:
        """Raise unless the flow is the unit's own commit: no other flow may write inside the block."""
        if flow is None or flow is not self._own_flow:
            self._check_open()
            raise NotStageableError(f"{what} is sent at once and cannot be part of a unit of work: call it outside.")

    # -- commit ---------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Return the operations and the exact requests of a commit, in their order; send nothing."""
        with self._lock:
            return plan_of(in_order(self._to_send().values()), self._options.lock)

    def commit(self) -> tuple[Outcome[Any], ...]:
        """Send the staged writes as one batch, and return one outcome for each object, in staging order.

        Raises ``BatchTooLargeError`` and ``AtomicityUnavailableError`` before anything is sent, and ``CommitError``
        with all outcomes where some were not stored: those stay staged, for a second commit.
        """
        self._check_open()
        return _outcomes(self.client.run(self._begin(self._commit())))

    async def acommit(self) -> tuple[Outcome[Any], ...]:
        """Like :meth:`commit`."""
        self._check_open()
        return _outcomes(await self.client.arun(self._begin(self._commit())))

    def rollback(self) -> None:
        """Forget the staged writes. No write that was sent is undone; the objects keep their local changes."""
        with self._lock:
            self._staged.clear()
            self._cancelled.clear()
            self._loaded.clear()

    def _begin(self, flow: Flow[T], refusal: str = " already") -> Flow[T]:
        """Return the flow as the one that may write inside of the block; raise while there is another one."""
        with self._lock:
            if self._own_flow is not None:
                raise UnitOfWorkError(f"This unit of work is being committed{refusal}.")
            self._own_flow = whole = self._moved(flow)
            return whole

    def _moved(self, flow: Flow[T]) -> Flow[T]:
        try:
            return (yield from flow)
        finally:
            self._on_its_way = frozenset()
            self._own_flow = None

    def _commit(self) -> Flow[Sequence[Change[Any]]]:
        with self._lock:
            to_send = self._to_send()
            ordered = in_order(to_send.values())
            self._on_its_way = frozenset((*self._staged, *to_send))
            in_staging_order = {**self._staged, **to_send}
        if ordered and self._common_lock is not None:
            yield from self._common_lock.prepare(self.client)
        try:
            if ordered:
                yield from commit(ordered, self.client, self._options)
        except GeneratorExit:  # the call was cancelled, or interrupted from the keyboard
            self._leave_in_doubt(in_staging_order)
            raise
        answered = self._settle(in_staging_order)
        raise_unless_stored(answered, _Undo(self.client, partial(self._compensate, answered)))
        return answered

    def _compensate(self, answered: Sequence[Change[Any]]) -> Flow[tuple[Outcome[Any], ...]]:
        """Return the flow that undoes the stored writes. It begins like a commit: the block may still be open."""
        return self._begin(compensate(answered, self.client), ": compensate when that has ended")

    def _settle(self, changes: Mapping[ObjectPath, Change[Any]]) -> Sequence[Change[Any]]:
        """Forget the stored writes; keep the rest staged."""
        with self._lock:
            for path, one in changes.items():
                if one.status is None:  # it cancelled itself out, and was never sent
                    one.status = "unchanged"
                if one.error is not None:
                    make_resolvable(one.error, self.client, one, partial(self._forget, path))
                if one.is_stored or one.status == "planned":
                    self._staged.pop(path, None)
                    self._cancelled.discard(path)
                elif path in self._staged:
                    self._staged[path] = _to_be_repeated(one)
            self._answered.update(changes)
        return tuple(changes.values())

    def _leave_in_doubt(self, changes: Mapping[ObjectPath, Change[Any]]) -> None:
        """Forget what is stored; keep the rest staged, as writes of which some may be stored."""
        with self._lock:
            for path, one in changes.items():
                if one.is_stored:
                    self._answered[path] = one
                    self._staged.pop(path, None)
                elif path in self._staged and path not in self._cancelled:
                    self._staged[path] = _to_be_repeated(one)

    def _forget(self, path: ObjectPath) -> None:
        with self._lock:
            self._staged.pop(path, None)
            self._cancelled.discard(path)

    def _to_send(self) -> dict[ObjectPath, Change[Any]]:
        """Return the staged changes, and those of objects from ``get()`` that were changed and not staged."""
        found = {path: one for path, one in self._staged.items() if path not in self._cancelled}
        for path, holder in self._loaded.items():
            if path not in self._staged:
                change = holder.__kinto_change__(Verb.SAVE)
                # Partial objects cannot be written, deleted ones need not be.
                if change.state.status is not Status.LOADED or change.state.is_partial:
                    continue
                if encode_change(change):
                    found[path] = change
        if self._common_lock is not None:
            self._common_lock.check(found)
        return found

    # -- the block ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._check_open()
        around = open_unit(self.client)
        if around is not None and not around._is_closed:
            raise NestedUnitError("A unit of work of this client is open already: units are not nested.")
        activate(self.client)
        _open_units.set((*_open_units.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._may_commit(kind):
                self.client.run(self._begin(self._commit()))
        finally:
            self._leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._may_commit(kind):
                await self.client.arun(self._begin(self._commit()))
        finally:
            self._leave()

    def _may_commit(self, kind: type[BaseException] | None) -> bool:
        # From here on, because a write that a task stages during the last commit would be lost.
        self._is_closed = True
        if kind is not None:
            self.rollback()
            return False
        if not any(unit is self for unit in _open_units.get()[-1:]):
            self.rollback()
            raise UnitOfWorkError(
                "This unit of work is not the innermost one of this context (a generator or a task holds it): "
                "nothing was sent."
            )
        return True

    def _leave(self) -> None:
        # Not Token.reset: a generator or a task may leave the block in another context than it was entered in.
        _open_units.set(tuple(unit for unit in _open_units.get() if unit is not self))
        deactivate(self.client)

    def __repr__(self) -> str:
        return f"<UnitOfWork of {len(self._staged)} staged objects{', left' if self._is_closed else ''}>"


def _outcomes(changes: Iterable[Change[Any]]) -> tuple[Outcome[Any], ...]:
    return tuple(one.outcome for one in changes)


def _to_be_repeated(one: Change[Any]) -> Change[Any]:
    """Return the change as a second commit sends it, which knows its own write where it finds it."""
    latest = one.again or one
    if one.status not in ("unknown", None):
        return replace(latest)
    return replace(latest, state=latest.state._replace(in_doubt=one.holder.__kinto_state__().in_doubt))


class _Undo(NamedTuple):
    """Undoing of the stored part of a failed commit."""

    runner: FlowRunner
    begin: Callable[[], Flow[tuple[Outcome[Any], ...]]]

    def compensate(self) -> tuple[Outcome[Any], ...]:
        return self.runner.run(self.begin())

    async def acompensate(self) -> tuple[Outcome[Any], ...]:
        return await self.runner.arun(self.begin())


# A lock for units of work: an object that each of them writes first in its batch. On PostgreSQL its row stays locked
# until the batch is stored, so units with the same lock come one after the other, and the versions that ``If-Match``
# compares cannot change in between. On the memory backend it has no effect.

MOST_ATTEMPTS = 4
"""The number of attempts to create one object where other clients write to the same list."""


class Lock(NamedTuple):
    """The lock of a unit of work: an object of that name, or the caller's object."""

    path: ObjectPath
    is_named: bool

    def check(self, staged: Container[ObjectPath]) -> None:
        """Raise ``UnitOfWorkError`` where the unit writes the object, too: it would conflict with itself."""
        if self.path in staged:
            raise UnitOfWorkError(
                f"{self.path} is the lock of this unit, and cannot be written in it: take another one."
            )

    @property
    def write(self) -> Write:
        """The write that takes the lock. It has no data, so the object keeps its data."""
        return Write(self.path, Action.PUT, UNCONDITIONAL)

    def prepare(self, runner: FlowRunner) -> Flow[None]:
        """Create the object of a name, where it is missing."""
        if self.is_named and self.path not in runner.__kinto_locks__:
            yield from create_lock(self.path)
            runner.__kinto_locks__.add(self.path)


def lock_of(lock: str | Stateful, runner: FlowRunner) -> Lock:
    """Return the lock: the given object, or one for that name in the client's default bucket."""
    if isinstance(lock, str):
        # Alone in its list: two objects of one list that are written in the same millisecond get a 409, which would
        # undo the lock and store the rest without it. The id never begins with "batch", which a batch does not take.
        name = check_id(f"lock-{check_id(lock, 'lock')}", "lock")
        return Lock(ObjectPath(Kind.RECORD, (runner.default_bucket, name, "lock")), is_named=True)
    if not hasattr(lock, "__kinto_path__"):
        raise InvalidTypeError(f"lock is a name or an object of Kinto's, not {say_value(lock)}.")
    return Lock(lock.__kinto_path__(), is_named=False)


def create_lock(path: ObjectPath) -> Flow[None]:
    """Make sure that the object of a name exists: two units that both create it would not wait for each other.

    Raises the error of the server where it cannot be created.
    """
    for one in (ObjectPath(Kind.COLLECTION, path.ids[:-1]), path):
        with suppress(DryRunError):  # the creation is planned, like the rest of the unit
            yield from _create(one)


def _create(path: ObjectPath) -> Flow[None]:
    write = Write(path, Action.PUT, ABSENT, new={})
    response = yield write
    for _ in range(MOST_ATTEMPTS - 1):
        if response.status != 409:  # another client wrote to the list at that moment; the object may still be missing
            break
        response = yield write
    if response.status != 412:
        raise_for_status(response, "PUT", path)

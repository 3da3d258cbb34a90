"""Many writes, staged and committed as one batch.

A batch is one HTTP request; on PostgreSQL it is one transaction for failures of the server, but what is refused
(a stale object, a missing permission) leaves the others stored. So a commit answers for each object.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from uuid import UUID

from kinto_orm.conflicts import make_resolvable
from kinto_orm.errors import (
    BatchTooLargeError,
    DuplicateObjectError,
    NestedUnitError,
    NotStageableError,
    UnitClosedError,
    UnitOfWorkError,
)
from kinto_orm.outcomes import Outcome, Staged, commit, raise_unless_stored
from kinto_orm.protocol.batch import batch_limit
from kinto_orm.protocol.endpoints import Kind, ObjectPath, check_id
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.patches import BasicPatch
from kinto_orm.protocol.values import JSONObject
from kinto_orm.protocol.writes import Write, encode_entry
from kinto_orm.repository import patched_data, plan
from kinto_orm.state import Draft, Holder, Intent, Runner, Status, Verb, activate, deactivate

H = TypeVar("H", bound=Holder)
H_co = TypeVar("H_co", bound=Holder, covariant=True)

_open_units: ContextVar[tuple[UnitOfWork, ...]] = ContextVar("kinto_orm_open_units", default=())


def open_unit(runner: Runner) -> UnitOfWork | None:
    """The unit of work of this very client that is open in this context."""
    for unit in reversed(_open_units.get()):
        if unit.runner is runner:
            return unit
    return None


class Fetchable(Protocol[H_co]):
    """What ``uow.get()`` loads from: a model, a manager, a query."""

    def __kinto_fetch__(self, runner: Runner, id: str | UUID) -> Flow[H_co]: ...


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """One write of a plan, with the exact request that it becomes in the batch."""

    object: Holder
    verb: Verb
    request: JSONObject

    def __str__(self) -> str:
        headers = "".join(f" {name}: {value}" for name, value in self.request.get("headers", {}).items())
        body = f" {self.request['body']}" if "body" in self.request else ""
        return f"{self.request['method']} {self.request['path']}{headers}{body}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a commit would send, in its order."""

    writes: tuple[PlannedWrite, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.writes)) or "nothing to send"


class UnitOfWork:
    """Staged writes of one client. Made by ``client.unit_of_work()``; left cleanly, it commits; by an exception, it
    sends nothing.

    Staged are save, replace, patch, delete and ``manager.create`` of its own client, in the context of the block and
    the tasks started inside it. Other threads write at once, unless they call ``uow.save(object)`` and its like.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.outcomes: tuple[Outcome[Any], ...] = ()
        self._lock = threading.RLock()
        self._staged: dict[ObjectPath, Staged[Any]] = {}
        self._dropped: dict[ObjectPath, Staged[Any]] = {}
        self._loaded: dict[ObjectPath, Any] = {}
        self._is_closed = False
        self.is_committing = False
        """Whether the batch is on its way: only then may a write of this context be sent."""

    # -- staging --------------------------------------------------------------------------------------------------

    def stage(self, holder: H, intent: Intent) -> H:
        """Takes the intent into the unit; what was staged for the same object becomes one operation with it."""
        with self._lock:
            self._check_open()
            path = intent.state.path
            before = self._staged.get(path)
            self._check_identity(holder, path)
            combined = _combine(before.intent, intent) if before is not None else intent
            if combined is None:
                assert before is not None
                self._dropped[path] = before
                del self._staged[path]
                return holder
            planned = plan(combined)
            if planned is not None:
                encode_entry(planned)  # refuses now, not at the end, what a batch cannot carry
            self._staged[path] = Staged(holder, combined)
            return holder

    def save(self, holder: H) -> H:
        """Stages a save, from any thread."""
        return self._stage_verb(holder, Verb.SAVE)

    def replace(self, holder: H) -> H:
        """Stages a replace, from any thread."""
        return self._stage_verb(holder, Verb.REPLACE)

    def patch(self, holder: H, **values: Any) -> H:
        """Stages a patch of these wire names and values, from any thread."""
        return self._stage_verb(holder, Verb.PATCH, BasicPatch(values))

    def delete(self, holder: H) -> H:
        """Stages a delete, from any thread."""
        return self._stage_verb(holder, Verb.DELETE)

    def _stage_verb(self, holder: H, verb: Verb, patch: BasicPatch | None = None) -> H:
        state, draft = holder.__kinto_describe__()
        return self.stage(holder, Intent(verb, state, draft, patch=patch))

    def get(self, source: Fetchable[H], id: str | UUID) -> H:
        """The object of that id, loaded once: the same path gives the same Python object.

        Where it is changed but not staged, it joins the commit. Takes a model, a manager or a query.
        """
        return self.runner.run(self._get(source, id))

    async def aget(self, source: Fetchable[H], id: str | UUID) -> H:
        """Like :meth:`get`."""
        return await self.runner.arun(self._get(source, id))

    def _get(self, source: Fetchable[H], id: str | UUID) -> Flow[H]:
        self._check_open()
        check_id(id)
        loaded = yield from source.__kinto_fetch__(self.runner, id)
        state, _ = loaded.__kinto_describe__()
        with self._lock:
            known: H = self._loaded.setdefault(state.path, loaded)
            return known

    def _check_identity(self, holder: Holder, path: ObjectPath) -> None:
        known = self._staged.get(path)
        other = known.holder if known is not None else self._loaded.get(path)
        if other is not None and other is not holder:
            raise DuplicateObjectError(f"{path} is in this unit already, as another Python object: use that one.")

    def _check_open(self) -> None:
        if self._is_closed:
            raise UnitClosedError("This unit of work was left: open another one with client.unit_of_work().")

    # -- commit ---------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The operations and the exact requests of a commit, in their order; sends nothing."""
        with self._lock:
            planned = [(one, plan(one.intent)) for one in self._ordered()]
        return Plan(
            tuple(
                PlannedWrite(one.holder, one.intent.verb, encode_entry(write))
                for one, write in planned
                if write is not None
            )
        )

    def commit(self) -> tuple[Outcome[Any], ...]:
        """Sends what is staged as one batch; one outcome for each object, in staging order.

        Raises ``BatchTooLargeError`` before anything is sent where the server takes fewer in one batch, and
        ``CommitError`` with all outcomes where some were not stored: those stay staged, for a second commit.
        """
        return self.runner.run(self._commit())

    async def acommit(self) -> tuple[Outcome[Any], ...]:
        """Like :meth:`commit`."""
        return await self.runner.arun(self._commit())

    def rollback(self) -> None:
        """Forgets what is staged. Nothing that was sent is undone; the objects keep their local changes."""
        with self._lock:
            self._staged.clear()
            self._dropped.clear()
            self._loaded.clear()

    def _commit(self) -> Flow[tuple[Outcome[Any], ...]]:
        self._check_open()
        self._join_changed()
        with self._lock:
            in_staging_order = list(self._staged.values())
            ordered = self._ordered()
            dropped = [Outcome(one.holder, one.intent.verb, "unchanged") for one in self._dropped.values()]
        writes = [write for write in (plan(one.intent) for one in ordered) if write is not None]
        if writes:
            yield from self._check_size(writes)
        self.is_committing = True
        try:
            found = (yield from commit(ordered)) if ordered else []
        finally:
            self.is_committing = False
        for one, outcome in zip(ordered, found, strict=True):
            make_resolvable(outcome.error, self.runner, one.holder, one.intent)
        by_holder = {id(outcome.object): outcome for outcome in found}
        self.outcomes = (*(by_holder[id(one.holder)] for one in in_staging_order), *dropped)
        with self._lock:
            stored = [one for one, outcome in zip(ordered, found, strict=True) if outcome.is_stored]
            # By identity: what was staged while the batch was on its way stays for the next commit.
            self._staged = {path: one for path, one in self._staged.items() if not any(one is done for done in stored)}
            self._dropped.clear()
        raise_unless_stored(self.outcomes)
        return self.outcomes

    def _join_changed(self) -> None:
        """Objects of ``get()`` that were changed and not staged join."""
        with self._lock:
            for path, holder in self._loaded.items():
                if path not in self._staged:
                    state, draft = holder.__kinto_describe__()
                    intent = Intent(Verb.SAVE, state, draft)
                    if state.status is Status.LOADED and plan(intent) is not None:
                        self._staged[path] = Staged(holder, intent)

    def _check_size(self, writes: Sequence[Write]) -> Flow[None]:
        limit = batch_limit((yield from self.runner.describe_server()))
        if limit is not None and len(writes) > limit:
            raise BatchTooLargeError(
                f"{len(writes)} operations are staged and the server takes {limit} in one batch: stage fewer, or use "
                "bulk_create(), which writes in several batches."
            )

    def _ordered(self) -> list[Staged[Any]]:
        _refuse_recreated(self._staged)
        return sorted(self._staged.values(), key=_rank)

    # -- the block ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._is_closed:
            raise UnitClosedError("This unit of work was left: open another one with client.unit_of_work().")
        if open_unit(self.runner) is not None:
            raise NestedUnitError("A unit of work of this client is open already: units are not nested.")
        activate(self.runner)
        _open_units.set((*_open_units.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._may_commit(kind):
                self.commit()
        finally:
            self._leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._may_commit(kind):
                await self.acommit()
        finally:
            self._leave()

    def _may_commit(self, kind: type[BaseException] | None) -> bool:
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
        self._is_closed = True
        # Not Token.reset: a generator or a task may leave the block in another context than it was entered in.
        _open_units.set(tuple(unit for unit in _open_units.get() if unit is not self))
        deactivate(self.runner)

    def __repr__(self) -> str:
        return f"<UnitOfWork of {len(self._staged)} staged objects{', left' if self._is_closed else ''}>"


def _combine(before: Intent, after: Intent) -> Intent | None:
    """The one intent that both come to; ``None`` where they cancel each other."""
    if after.verb is Verb.DELETE:
        # What was never stored needs no deletion.
        return None if before.state.status is Status.NEW and before.verb is not Verb.DELETE else after
    if before.verb is Verb.DELETE:
        return _restore(before, after)
    if after.verb is not Verb.PATCH:
        # A save after a replace replaces: what the first call promised still holds.
        verb = Verb.REPLACE if before.verb is Verb.REPLACE else after.verb
        return replace(after, verb=verb, options=before.options)
    return _combine_patch(before, after)


def _restore(before: Intent, after: Intent) -> Intent:
    path = before.state.path
    if path.kind in (Kind.BUCKET, Kind.COLLECTION):
        raise NotStageableError(
            f"{path}: deleting and re-creating a {path.kind.value} in one unit would empty the new one "
            "(Kinto cascades at the end of the batch): commit in between."
        )
    if after.verb is Verb.PATCH:
        raise NotStageableError(f"{path} is deleted in this unit: it cannot be patched.")
    return replace(after, verb=Verb.REPLACE, options=before.options)


def _combine_patch(before: Intent, after: Intent) -> Intent:
    patch = after.patch
    if before.verb is Verb.PATCH and isinstance(before.patch, BasicPatch) and isinstance(patch, BasicPatch):
        merged = BasicPatch(
            {**(before.patch.data or {}), **(patch.data or {})} or None,
            {**(before.patch.permissions or {}), **(patch.permissions or {})} or None,
        )
        return replace(after, patch=merged)
    wanted = patched_data(replace(after, state=replace(after.state, data=_wanted(before))))
    if wanted is None or (patch is not None and getattr(patch, "permissions", None)):
        raise NotStageableError(
            f"{after.state.path}: these two changes cannot become one operation: commit in between."
        )
    return replace(before, draft=Draft(wanted, before.draft.permissions, before.draft.all_permissions))


def _wanted(intent: Intent) -> JSONObject | None:
    return intent.draft.data if intent.verb is not Verb.PATCH else None


_LEVELS = (Kind.BUCKET, Kind.GROUP, Kind.COLLECTION, Kind.RECORD)


def _rank(one: Staged[Any]) -> tuple[bool, int, tuple[str, ...]]:
    """Parents first, deletions last and the other way round, by path inside: one order for all, so no deadlocks."""
    path = one.intent.state.path
    is_deletion = one.intent.verb is Verb.DELETE
    level = _LEVELS.index(path.kind)
    return (is_deletion, -level if is_deletion else level, path.ids)


def _refuse_recreated(staged: dict[ObjectPath, Staged[Any]]) -> None:
    deleted = {
        path.ids
        for path, one in staged.items()
        if one.intent.verb is Verb.DELETE and path.kind in (Kind.BUCKET, Kind.COLLECTION)
    }
    for path, one in staged.items():
        above = {path.ids[:depth] for depth in range(1, len(path.ids))}
        if one.intent.verb is not Verb.DELETE and above & deleted:
            raise NotStageableError(
                f"{path} is written and something above it is deleted in one unit: commit in between."
            )

"""Calls a verb through the proxy, and judges by what the server says afterwards.

Whatever happens to the wire, a write is stored at most once, and the call either succeeds, with the Python object as
the server has it, or raises a typed error, after which the object can be brought up to date.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from fault_proxy import FAULTS, Seen
from verbs import SOMEWHERE, Call, Verb
from world import ANYTHING, Data, Stored, World

from kinto_orm import (
    AmbiguousWriteError,
    CommitError,
    ConflictError,
    ForbiddenError,
    KintoError,
    NotFoundError,
    Outcome,
    ProtocolError,
    ResponseError,
    TransportError,
    UnitOfWork,
)
from kinto_orm.protocol.json_values import is_same

HARMLESS = ("delay",)
NOT_APPLIED = ("503_before",)
"""After this the client knows that nothing was done, and may send again whatever it was."""
AMBIGUOUS = frozenset(FAULTS[name].__name__ for name in FAULTS if name not in (*HARMLESS, *NOT_APPLIED))
TYPED = (TransportError, ResponseError, ProtocolError, CommitError)


@dataclass(frozen=True)
class Trial:
    """One verb, and what goes wrong with it."""

    verb: Verb
    fault: str
    times: int = 1
    retry: int = 3
    is_twin: bool = False
    is_strict: bool = False
    """Whether the client must not take a write for its own that another client may have written."""

    @property
    def id(self) -> str:
        """As in ``Record.save-new, drop_after twice``."""
        often = ("", "", " twice", " thrice")[self.times] if self.times < 4 else f" {self.times} times"
        way = f"{' awaited' if self.is_twin else ''}{' strictly' if self.is_strict else ''}"
        return f"{self.verb.id}{way}, {self.fault}{often}{', no retry' if self.retry == 0 else ''}"

    @property
    def must_succeed(self) -> bool:
        """Whether the client has all that it takes."""
        if self.fault in HARMLESS:
            return True
        is_decidable = self.verb.is_decidable and not self.is_strict
        is_safe = (self.verb.is_guarded and is_decidable) or self.fault in NOT_APPLIED
        return is_safe and self.times <= self.retry

    @property
    def must_fail(self) -> bool:
        """Whether nothing but an error would be honest."""
        if self.fault in HARMLESS or self.verb.looks_first:
            return False
        return self.times > self.retry or (not self.verb.is_guarded and self.fault not in NOT_APPLIED)


def judge(trial: Trial, world: World) -> None:
    """Call the verb while things go wrong; raise ``AssertionError`` for a forbidden result."""
    call = trial.verb.prepare(world)
    before = {} if trial.must_succeed else {path: world.stored(path) for path in call.expected}
    known = history_of(world, call)
    world.proxy.seen.clear()
    world.proxy.plan(*[FAULTS[trial.fault]] * trial.times, only=trial.verb.meets)

    result, error = outcome_of(trial, world, call)

    was_met = world.proxy.unused < trial.times
    world.proxy.plan()
    assert was_met, "no request met the fault"
    check_resends(world.proxy.seen, call, looks_first=trial.verb.looks_first)
    written = [uri for id, uri in history_of(world, call).items() if id not in known and not call.is_lock(uri)]
    expected = found_where(call.expected, written)
    check_history(written, expected)
    if error is None:
        assert not trial.must_fail, "success, although nobody can know"
        check_success(world, call, result, expected)
        assert world.proxy.unused == 0
    else:
        assert isinstance(error, TYPED), repr(error)
        if trial.must_succeed:
            pytest.fail(f"a failure, although sending again would have helped: {error!r}", pytrace=False)
        check_failure(world, expected, before)
        check_convergence(world, call, expected)


def outcome_of(trial: Trial, world: World, call: Call) -> tuple[Any, KintoError | None]:
    """Return the result or the error of the call, when none of its requests is on its way any more."""
    try:
        with world.client:  # leaving it closes the connections: a proxy that hangs is given up
            result = asyncio.run(call.later()) if trial.is_twin else call.now()
            return result, first_error(result)
    except KintoError as error:
        return None, error
    finally:
        world.proxy.wait_until_idle()


def history_of(world: World, call: Call) -> dict[str, str]:
    """Return the writes to the buckets of the call, by the ids of the history's entries."""
    buckets = {path.split("/")[2] for path in call.expected}
    return {id: uri for bucket in buckets for id, uri in world.history(bucket).items()}


def first_error(result: Any) -> KintoError | None:
    """Where outcomes are given and nothing is raised: the first failure."""
    outcomes = [one for one in result if isinstance(one, Outcome)] if isinstance(result, list | tuple) else []
    return next((one.error for one in outcomes if one.error is not None), None)


def check_resends(seen: Sequence[Seen], call: Call, *, looks_first: bool) -> None:
    """Check that a write is sent again byte for byte; after a lost answer only if guarded, or after a read."""
    writes = [one for one in seen if one.is_write or looks_first]
    for one, following in pairwise(writes):
        if one.fault in ("ok", *HARMLESS):
            continue
        if (one.method, one.target) == (following.method, following.target):
            assert one.wire_hash == following.wire_hash, f"sent again, but not the same: {one} {following}"
            is_safe = all(map(call.is_lock, one.unguarded)) or one.fault not in AMBIGUOUS
            assert is_safe, f"sent again without a precondition: {one}"


def found_where(expected: Mapping[str, Data | None], written: Sequence[str]) -> dict[str, Data | None]:
    """Return the expectation by path; the history shows the path of a drawn id."""
    drawn = [uri for uri in written if uri not in expected]
    return {drawn[0] if path == SOMEWHERE and drawn else path: data for path, data in expected.items()}


def check_history(written: Sequence[str], expected: Mapping[str, Data | None]) -> None:
    """Each object was written once at most, and no other one was."""
    assert set(written) <= set(expected), "something else was written"
    assert max(Counter(written).values(), default=0) <= 1, f"written twice: {written}"


def check_success(world: World, call: Call, result: Any, expected: Mapping[str, Data | None]) -> None:
    """Check that the server and the Python objects have the wanted state."""
    stored = {path: world.stored(path) for path in expected}
    for path, data in expected.items():
        assert has_data(stored[path], data), f"{path}: {stored[path]}"
    for holder in (*call.holders, *call.holders_of(result)):
        check_holder(holder, stored[str(holder.__kinto_path__())])
    assert call.is_right(result), f"not what the call gives without a fault: {result}"


def check_failure(world: World, expected: Mapping[str, Data | None], before: Mapping[str, Stored | None]) -> None:
    """Check that the server has the old or the new state, never a third one."""
    for path, data in expected.items():
        stored = world.stored(path)
        assert stored == before.get(path) or has_data(stored, data), f"{path}: {stored}"


def check_convergence(world: World, call: Call, expected: Mapping[str, Data | None]) -> None:
    """After an error, a second commit stores the rest, and a refresh brings each object up to date."""
    if isinstance(call.target, UnitOfWork):
        commit_again(call.target)
        for path, data in expected.items():
            assert has_data(world.stored(path), data), f"{path}: {world.stored(path)}"
    for holder in call.holders:
        stored = world.stored(str(holder.__kinto_path__(draw=True)))
        try:
            holder.refresh(discard=True)
        except (NotFoundError, ForbiddenError):  # the latter for a bucket that does not exist
            assert stored is None
        else:
            check_holder(holder, stored)


def commit_again(unit: UnitOfWork) -> None:
    """Commit again; the stored part of the first commit may conflict now, but only with itself.

    A strict client repeats its first answer about it: another client may have written it.
    """
    try:
        unit.commit()
    except CommitError as error:
        for outcome in error.outcomes:
            if outcome.error is None:
                continue
            assert isinstance(outcome.error, ConflictError | NotFoundError | AmbiguousWriteError), repr(outcome)
            if isinstance(outcome.error, ConflictError):
                assert is_same(outcome.error.theirs, outcome.error.mine), repr(outcome)


def check_holder(holder: Any, stored: Stored | None) -> None:
    """Check that the Python object has the server's state, and knows it."""
    if stored is None:
        assert holder.is_deleted
        return
    assert is_same(dict(holder.data), stored.data), f"{dict(holder.data)} instead of {stored.data}"
    assert holder.last_modified == stored.last_modified
    assert not holder.is_dirty
    if holder.permissions.is_known:
        assert {name: set(given) for name, given in holder.permissions.items() if given} == stored.permissions


def has_data(stored: Stored | None, data: Data | None) -> bool:
    """Return whether the server holds this, or nothing where nothing is expected."""
    return stored is None if data is None else stored is not None and is_alike(stored.data, data)


def is_alike(one: Any, other: Any) -> bool:
    """Equality for which Kinto's way of reading floats makes no difference."""
    if other is ANYTHING:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_alike, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return bool(abs(one - other) <= 1e-12 * max(abs(one), abs(other)))
    return type(one) is type(other) and bool(one == other)

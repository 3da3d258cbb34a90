"""What really happened to the records of a collection, and what a call may have done: the model of the state machine.

The journal is Kinto's own history, in which each session writes under its own name. So it tells who wrote what on top
of what, also where no answer came; and a write that no call can explain, or one that was made twice, is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kinto_orm import ConflictError
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.merge import merge_data

Data: TypeAlias = dict[str, Any]
Way: TypeAlias = Literal["raise", "mine", "theirs", "merge", "by hand"]


def by_hand(conflict: ConflictError) -> Any:
    """Resolve a conflict by a function: the data of both sides, or theirs where there is nothing to merge."""
    if conflict.theirs is None or conflict.mine is None:
        return "theirs"
    return {**conflict.theirs, **conflict.mine}


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """What a record was at one time; ``data`` is ``None`` where there was none."""

    data: Data | None
    timestamp: int | None
    author: str
    call: Call | None = None
    """Whose write it was, where a call of ours was at work."""

    @property
    def key(self) -> int | None:
        """What a precondition compares with."""
        return None if self.data is None else self.timestamp


ABSENT = Version(None, None, "nobody")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a call wants of a record: ``data`` as a whole, or only these ``changes``, or that it is gone."""

    verb: Literal["save", "replace", "patch", "delete"]
    data: Data | None = None
    changes: Data = field(default_factory=dict)

    def on(self, before: Data | None) -> Data | None:
        """Return the record after the call."""
        return {**(before or {}), **self.changes} if self.verb == "patch" else self.data

    def after(self, base: Data | None, theirs: Data | None, way: Way) -> Goal | None:
        """Return the goal after the conflict; ``None`` where the call ends."""
        if way in ("raise", "theirs"):
            return None
        if way == "mine":
            return None if theirs is None and self.verb in ("patch", "delete") else self
        mine = self.on(base)
        if theirs is None or mine is None:
            return None
        if way == "by hand":
            return Goal("save", {**theirs, **mine})
        merged = merge_data(base, mine, theirs)
        if merged.conflicts:
            return None
        if self.verb == "patch":
            return Goal("patch", changes={key: merged.data[key] for key in self.changes})
        return Goal("save", merged.data)


@dataclass(eq=False)
class Call:
    """One call of a session, or its part of a commit, that may write one record."""

    author: str
    id: str
    holder: Any
    """The object that takes the result."""
    goal: Goal
    base: Version
    """What the object knows the record to be."""
    shown: Data
    """What the object shows as its data."""
    way: Way = "raise"
    doubts: Sequence[Call] = ()
    """The earlier calls of this object of which it does not know what they did."""
    any_base: bool = False
    """Whether it reads the record by itself, as often as it takes."""


class Journal:
    """All versions of all records, in the order of writing."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Version]] = {}
        self.last: int = 0
        """The timestamp of the last entry of the history that was read."""

    def of(self, id: str) -> list[Version]:
        """Return the versions of the record, from the beginning."""
        return self.versions.setdefault(id, [ABSENT])

    def now(self, id: str) -> Version:
        """Return the current version of the record."""
        return self.of(id)[-1]

    @property
    def stored(self) -> dict[str, Version]:
        """The records that there are."""
        return {id: versions[-1] for id, versions in self.versions.items() if versions[-1].data is not None}

    def find(self, id: str, timestamp: int) -> Version:
        """Return the version with that timestamp."""
        found = [one for one in self.of(id) if one.timestamp == timestamp]
        assert found, f"{id} never had the timestamp {timestamp}"
        return found[0]

    def before(self, id: str, version: Version) -> Version:
        """Return the version before that one."""
        versions = self.of(id)
        return versions[versions.index(version) - 1]

    def since(self, id: str, version: Version) -> list[Version]:
        """Return the versions from this one on; all of them where it is not one of the record's."""
        versions = self.of(id)
        return versions[versions.index(version) :] if version in versions else versions[:]

    def add(self, entry: Mapping[str, Any], author: str, call: Call | None) -> None:
        """Add an entry of the history, written by that author during the call."""
        stored = entry["target"]["data"]
        data = {key: value for key, value in stored.items() if key not in ("id", "last_modified")}
        is_deleted = entry["action"] == "delete"
        version = Version(None if is_deleted else data, stored["last_modified"], author, call)
        self.of(entry["record_id"]).append(version)
        self.last = max(self.last, entry["last_modified"])

    # -- what a call may do ---------------------------------------------------------------------------------------

    def check_writes(self, call: Call, start: Version) -> list[Version]:
        """Return the versions that the call wrote, since the record was ``start``; check each against its goal."""
        goals = {call.base.key: [(call.base.data, call.goal)]}
        written: list[Version] = []
        before = start
        for version in self.since(call.id, start):
            # Another client may have written the very same: no one can tell the difference.
            doubts = [
                one for one in call.doubts if _is_same(version.data, one.goal.on(one.base.data)) or one is version.call
            ]
            further = [(version.data, goal) for one in doubts for goal in _on_top(call, one, version.data)]
            goals.setdefault(version.key, []).extend(further)
            if version.call is call and version.author == call.author:
                expected = [goal.on(before.data) for _, goal in goals.get(before.key, ())]
                if call.any_base and not (before.call is call and before.author == call.author):
                    expected.append(call.goal.on(before.data))
                assert any(_is_same(version.data, one) for one in expected), (
                    f"{call.id}: {version.data} was written over {before.data} (by {before.author}) by {call}, "
                    f"which may have written {expected}"
                )
                written.append(version)
            else:
                met = [goal.after(base, version.data, call.way) for known in goals.values() for base, goal in known]
                goals.setdefault(version.key, []).extend((version.data, goal) for goal in met if goal is not None)
            before = version
        return written


def _on_top(call: Call, earlier: Call, data: Data | None) -> list[Goal]:
    """Return the rest of the goal after an earlier call has left that; nothing where it did all."""
    wanted = call.goal
    if _is_same(wanted.on(call.base.data), data) or wanted == earlier.goal:
        return []
    if wanted.verb in ("patch", "delete") or wanted.data is None or data is None:
        return [wanted]
    # What the object got since then; what the earlier call itself did to the record stays.
    merged = merge_data(earlier.shown, wanted.data, data).data
    found = [] if _is_same(merged, data) else [Goal("save", merged)]
    return [*found, wanted] if wanted.verb == "replace" else found


def _is_same(one: Data | None, other: Data | None) -> bool:
    return is_same(one, other)

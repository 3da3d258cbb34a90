"""Staging: the calls of a unit of work become one operation for each object, in an order that the server understands.

https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

from kinto_orm.errors import InvalidTypeError, NotStageableError
from kinto_orm.protocol.accounts import shown_entry
from kinto_orm.protocol.json_values import JSONObject, copy_json, say_value
from kinto_orm.protocol.patches import (
    JSON_TYPE,
    BasicPatch,
    JSONPatch,
    MergePatch,
    Patch,
    apply_basic_patch,
    apply_merge_patch,
    changed_keys,
    removed_keys,
)
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.writes import Flow, Write, encode_entry
from kinto_orm.repository.state import Change, FlowRunner, Stateful, Status, Verb, WriteOptions
from kinto_orm.repository.verbs import encode_change

H_co = TypeVar("H_co", bound=Stateful, covariant=True)


class Fetchable(Protocol[H_co]):
    """A source for ``uow.get()``: a model, a manager, a query."""

    def __kinto_locate__(self, runner: FlowRunner, id: str | UUID) -> ObjectPath:
        """Return the path of the object."""
        ...

    def __kinto_fetch__(self, runner: FlowRunner, id: str | UUID) -> Flow[H_co]:
        """Return the flow that loads the object."""
        ...


def check_source(source: object) -> None:
    """Raise ``InvalidTypeError`` for a source that cannot load an object by its id."""
    # An object has the class methods of its model, and would stand for all of that kind.
    is_object = not isinstance(source, type) and hasattr(source, "__kinto_change__")
    if is_object or not hasattr(source, "__kinto_fetch__"):
        raise InvalidTypeError(f"get() takes a model, a manager or a query, and an id, not {say_value(source)}.")


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """One write of a plan, with the exact request: ``method``, ``path``, ``headers`` and ``body`` where it has them.

    ``object`` and ``verb`` are those of a unit of work; ``None`` in the plan of a dry client, which keeps requests.
    ``batch`` is the number of its ``POST /batch`` there; ``None`` for a single request.
    """

    object: Stateful | None
    verb: Verb | None
    request: JSONObject = field(repr=False)
    batch: int | None = None

    def __str__(self) -> str:
        return _say(self.request) if self.batch is None else f"batch {self.batch}: {_say(self.request)}"


def _say(request: JSONObject) -> str:
    given = request.get("headers", {}).items()
    headers = "".join(f" {name}: {value}" for name, value in given if (name, value) != ("Content-Type", JSON_TYPE))
    body = f" {shown_entry(request)['body']}" if "body" in request else ""
    return f"{request['method']} {request['path']}{headers}{body}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests of a commit, or of all the calls of a dry client, in order.

    ``lock`` is the first write of each batch of the commit, where the unit has a lock.
    """

    writes: tuple[PlannedWrite, ...]
    lock: JSONObject | None = None

    def as_json(self) -> list[JSONObject]:
        """Return the requests as ``json.dumps`` takes them, each with the number of its ``batch`` where it has one.

        Passwords and secrets are stars in it.
        """
        lock = [] if self.lock is None or not self.writes else [self.lock]
        numbers: list[JSONObject] = [{} if one.batch is None else {"batch": one.batch} for one in self.writes]
        return [
            *lock,
            *({**shown_entry(one.request), **number} for one, number in zip(self.writes, numbers, strict=True)),
        ]

    def __str__(self) -> str:
        lock = [] if self.lock is None or not self.writes else [f"{_say(self.lock)} (the lock)"]
        return "\n".join([*lock, *map(str, self.writes)]) or "nothing to send"


def plan_of(changes: Iterable[Change[Any]], lock: Write | None = None) -> Plan:
    """Return the plan of these changes, in their order."""
    return Plan(
        tuple(PlannedWrite(one.holder, one.verb, copy_json(one.entry or {})) for one in changes if encode_change(one)),
        None if lock is None else encode_entry(lock),
    )


def freeze(change: Change[Any]) -> Change[Any]:
    """Return the change with a copy of its patch, so that later edits of the caller's values do not change it."""
    if change.patch is None:
        return change
    if isinstance(change.patch, JSONPatch):
        return replace(change, patch=JSONPatch(change.patch.body))
    body = change.patch.body
    return replace(change, patch=type(change.patch)(body.get("data"), body.get("permissions")))


def coalesce(before: Change[Any], after: Change[Any]) -> Change[Any] | None:
    """Return the one change that both become; ``None`` where they cancel each other.

    Raises ``NotStageableError`` where no single operation has the effect of both.
    """
    was, now = before.state, after.state
    if (was.status, was.last_modified) != (now.status, now.last_modified):
        # The object was loaded again in between. A change of its old state could only conflict, or silently undo the
        # server's new one.
        return after
    if after.verb is Verb.DELETE:
        return _combine_delete(before, after)
    if before.verb is Verb.DELETE:
        return _restore(before, after)
    return _combine_patch(before, after) if after.verb is Verb.PATCH else _combine_save(before, after)


def restart(after: Change[Any]) -> Change[Any] | None:
    """Return the staged change of an object that was created and deleted in this unit, and so never sent."""
    if after.state.status is not Status.NEW:
        return after  # it was stored outside of the unit since
    if after.verb is Verb.DELETE:
        return None  # by its id alone it would delete another client's object
    if after.verb is Verb.PATCH:
        raise _deleted_here(after)
    return after


def _deleted_here(change: Change[Any]) -> NotStageableError:
    return NotStageableError(f"{change.state.path} is deleted in this unit: it cannot be patched.")


def _options(before: Change[Any], after: Change[Any]) -> WriteOptions:
    """Return the options of both: a precondition of the second call counts, else that of the first one."""
    latest = after.options
    on_conflict = latest.on_conflict or before.options.on_conflict
    chosen = latest if not latest.safe or latest.if_match is not None or latest.if_not_exists else before.options
    return chosen._replace(if_exists=latest.if_exists, on_conflict=on_conflict)


def _combine_delete(before: Change[Any], after: Change[Any]) -> Change[Any] | None:
    options = _options(before, after)
    if after.state.status is not Status.NEW or before.verb in (Verb.PATCH, Verb.DELETE):
        return replace(after, options=options)
    if before.options.safe and not before.options.if_not_exists:
        return None  # an object that was never stored needs no deletion
    return replace(after, options=options._replace(if_exists=True))  # the upsert may have met an existing object


def _restore(before: Change[Any], after: Change[Any]) -> Change[Any]:
    path = before.state.path
    if path.kind in (Kind.BUCKET, Kind.COLLECTION):
        raise NotStageableError(
            f"{path}: deleting and re-creating a {path.kind.value} in one unit would empty the new one "
            "(Kinto cascades at the end of the batch): commit in between."
        )
    if after.verb is Verb.PATCH:
        raise _deleted_here(after)
    is_new = after.state.status is Status.NEW
    return replace(after, verb=Verb.REPLACE, options=WriteOptions(safe=False) if is_new else _options(before, after))


def _combine_save(before: Change[Any], after: Change[Any]) -> Change[Any]:
    if before.verb is Verb.PATCH and after.state.status is Status.NEW:
        raise _impossible(after, "a patch of what exists and the creation of it")
    if isinstance(before.patch, JSONPatch):
        raise _impossible(after, "a JSON-Patch and another change")
    # A save after a replace replaces: the first call's promise still holds.
    verb = Verb.REPLACE if before.verb is Verb.REPLACE else after.verb
    wanted, seen, now = _wanted(before), before.shown, after
    return replace(
        after,
        verb=verb,
        data=_with_edits(wanted.data, seen.data, now.data),
        permissions=_with_edits(wanted.permissions or {}, seen.permissions or {}, now.permissions or {}) or None,
        all_permissions=None
        if wanted.all_permissions is None or seen.all_permissions is None or now.all_permissions is None
        else _with_edits(wanted.all_permissions, seen.all_permissions, now.all_permissions),
        options=_options(before, after),
        seen=now,
    )


def _combine_patch(before: Change[Any], after: Change[Any]) -> Change[Any]:
    patch = after.patch
    assert patch is not None
    if isinstance(patch, JSONPatch):
        raise _impossible(after, "a JSON-Patch and another change")
    seen = _overtaken(before.shown, after, patch)
    options = _options(before, after)
    if before.verb is not Verb.PATCH:
        patched = _patched(before, patch)
        return replace(
            after,
            verb=before.verb,
            data=patched.data,
            permissions=patched.permissions,
            all_permissions=patched.all_permissions,
            patch=None,
            options=options,
            seen=seen,
        )
    if not (isinstance(before.patch, BasicPatch) and isinstance(patch, BasicPatch)):
        raise _impossible(after, "two patches that are not both plain")
    merged = BasicPatch(
        {**(before.patch.data or {}), **(patch.data or {})} or None,
        {**(before.patch.permissions or {}), **(patch.permissions or {})} or None,
    )
    return replace(after, patch=merged, options=options, seen=seen)


def _impossible(change: Change[Any], what: str) -> NotStageableError:
    return NotStageableError(f"{change.state.path}: {what} cannot become one operation: commit in between.")


def _wanted(change: Change[Any]) -> Change[Any]:
    """Return the object as wanted; after a patch, with the unsaved changes that the caller wants saved now."""
    return change if change.patch is None else _patched(change.shown, change.patch)


def _patched(change: Change[Any], patch: Patch) -> Change[Any]:
    assert not isinstance(patch, JSONPatch)
    body = patch.body
    given = body.get("permissions", {})
    if isinstance(patch, MergePatch) and given:
        raise _impossible(change, "a merge-patch of permissions and another change")
    apply = apply_merge_patch if isinstance(patch, MergePatch) else apply_basic_patch
    return replace(
        change,
        data=apply(change.data, body.get("data", {})),
        permissions={**(change.permissions or {}), **given} or None,
        all_permissions=None if change.all_permissions is None else {**change.all_permissions, **given},
    )


def _with_edits(wanted: Mapping[str, Any], seen: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wanted values, with the edits that the object got since it was seen."""
    removed = removed_keys(seen, now)
    return {**{key: value for key, value in wanted.items() if key not in removed}, **changed_keys(seen, now)}


def _overtaken(seen: Change[Any], now: Change[Any], patch: BasicPatch | MergePatch) -> Change[Any]:
    """Return the object as it was seen, brought up to date where the patch sets something: there it wins over edits."""
    body = patch.body
    names = body.get("permissions", {})
    return replace(
        seen,
        data=_brought(seen.data, now.data, body.get("data", {})),
        permissions=_brought(seen.permissions or {}, now.permissions or {}, names) or None,
        all_permissions=None
        if seen.all_permissions is None or now.all_permissions is None
        else _brought(seen.all_permissions, now.all_permissions, names),
    )


def _brought(seen: Mapping[str, Any], now: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    kept = {key: value for key, value in seen.items() if key not in keys}
    return {**kept, **{key: now[key] for key in keys if key in now}}


def in_order(changes: Iterable[Change[Any]]) -> list[Change[Any]]:
    """Return parents first, deletions last and in reverse, by path inside: one order for all, so no deadlocks.

    Raises ``NotStageableError`` where an object below a deleted one is written.
    """
    ordered = sorted(changes, key=_rank)
    _refuse_recreated(ordered)
    return ordered


def _rank(one: Change[Any]) -> tuple[bool, int, tuple[str, ...]]:
    path = one.state.path
    is_deletion = one.verb is Verb.DELETE
    level = path.kind.level
    return (is_deletion, -level if is_deletion else level, path.ids)


def _refuse_recreated(changes: Collection[Change[Any]]) -> None:
    deleted = {
        one.state.path.ids
        for one in changes
        if one.verb is Verb.DELETE and one.state.path.kind in (Kind.BUCKET, Kind.COLLECTION)
    }
    for one in changes if deleted else ():
        path = one.state.path
        above = {path.ids[:depth] for depth in range(1, len(path.ids))}
        if one.verb is not Verb.DELETE and above & deleted:
            raise NotStageableError(
                f"{path} is written and something above it is deleted in one unit: commit in between."
            )

"""Three-way merge of the changes that two sides made to the same object.

A conflict is a field that both sides changed, and changed differently. Kinto itself knows whole objects only: it
refuses the second writer (412), who has the version last seen (the base), its own changes (mine) and the server's
version (theirs).
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html#concurrency-control
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from kinto_orm.protocol.json_values import JSON, MISSING, JSONObject, copy_json, encode, is_same, say_path, sorted_set

Places: TypeAlias = Any
"""The places of sets (or secrets, or texts) in a value: ``True`` for the value itself, a list with the places in each
of its items, or a mapping of keys to places; ``None`` where there are none."""

PermissionSets: TypeAlias = Mapping[str, frozenset[str]]


class Merged(NamedTuple):
    """The result of a merge: the data of both sides, and the paths that could not be merged."""

    data: JSONObject
    """Shares nothing with the sides. Where there is a conflict it holds mine; with the sides swapped, theirs."""
    conflicts: tuple[str, ...] = ()
    """The paths that both changed differently, sorted: ``address.city``, ``["a.b"].x``."""


def merge_data(
    base: Mapping[str, JSON] | None, mine: Mapping[str, JSON], theirs: Mapping[str, JSON], sets: Places = None
) -> Merged:
    """Both sides' changes to the base, key by key at every level of objects; lists are values, as scalars are.

    Without a base (``None``: unknown, or there was no object) every difference is one that both sides made: a key that
    only one side has is kept, one that both have with different values is a conflict.
    The lists in the places of ``sets`` are merged as sets. Changes none of its arguments.
    """
    conflicts: list[str] = []
    data = _merge_objects(base or {}, mine, theirs, sets, (), conflicts)
    return Merged(data, tuple(sorted(conflicts)))


def _join_sets(base: JSON, mine: list[JSON], theirs: list[JSON]) -> JSON:
    """Return a set with the items that either side added, without those that either removed."""
    known = base if isinstance(base, list) else []
    old, my, their = ({encode(item): item for item in side} for side in (known, mine, theirs))
    kept = (my.keys() & their.keys()) | (my.keys() - old.keys()) | (their.keys() - old.keys())
    return sorted_set([item for key, item in {**their, **my}.items() if key in kept])


def _merge_objects(
    base: Mapping[str, JSON],
    mine: Mapping[str, JSON],
    theirs: Mapping[str, JSON],
    sets: Places,
    path: tuple[str, ...],
    conflicts: list[str],
) -> JSONObject:
    merged: JSONObject = {}
    for key in dict.fromkeys((*mine, *theirs)):
        old, my, their = (side.get(key, MISSING) for side in (base, mine, theirs))
        inside = sets.get(key) if isinstance(sets, Mapping) else sets[0] if isinstance(sets, list) else None
        value = _merge_values(old, my, their, inside, (*path, key), conflicts)
        if value is not MISSING:
            merged[key] = value
    return merged


def _merge_values(
    base: JSON, mine: JSON, theirs: JSON, sets: Places, path: tuple[str, ...], conflicts: list[str]
) -> JSON:
    if is_same(theirs, base) or is_same(mine, theirs):
        return copy_json(mine)
    if is_same(mine, base):
        return copy_json(theirs)
    if isinstance(mine, dict) and isinstance(theirs, dict):
        # Where there was no object, both made one: all of their keys are new.
        return _merge_objects(base if isinstance(base, dict) else {}, mine, theirs, sets, path, conflicts)
    if sets is True and isinstance(mine, list) and isinstance(theirs, list):
        return _join_sets(base, mine, theirs)
    conflicts.append(say_path(path))
    return copy_json(mine)


def at_places(value: JSON, places: Places, change: Callable[[JSON], JSON]) -> JSON:
    """Return the value with the parts at these places changed."""
    if places is None or value is None:
        return value
    if isinstance(places, list) and isinstance(value, list):
        return [at_places(item, places[0], change) for item in value]
    if isinstance(value, dict) and places is not True:
        by_key = places if isinstance(places, dict) else dict.fromkeys(value, places[0])
        return {key: at_places(item, by_key.get(key), change) for key, item in value.items()}
    return change(value) if places is True else value


def merge_permissions(
    base: PermissionSets | None, mine: PermissionSets, theirs: PermissionSets
) -> dict[str, frozenset[str]]:
    """Return the principals of both sides: a principal that one side added or removed is so. Never conflicts.

    A missing name is an empty set; the result has the names of both sides, some perhaps with an empty set, which
    empties a permission in Kinto. Without a base (``None``: unknown) removals are unknown: the permissions that mine
    names are mine, the others theirs.
    """
    if base is None:
        return {**theirs, **mine}
    merged: dict[str, frozenset[str]] = {}
    for name in dict.fromkeys((*mine, *theirs)):
        old, my, their = (side.get(name, frozenset[str]()) for side in (base, mine, theirs))
        merged[name] = (my & their) | (my - old) | (their - old)
    return merged

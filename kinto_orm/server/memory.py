"""Kinto's memory backends, improved: objects that readers cannot change, fast look-ups of permissions, a way back.

Kinto loads the backends by the settings ``storage_backend`` and ``permission_backend``. An embedded server has
snapshots instead of transactions. A snapshot copies a few dicts, whatever the objects hold: it shares the objects and
the sets of principals with the backends, which replace them and never change them in place.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Protocol, TypeGuard

from kinto_orm.server.application import MEMORY_STORAGE, Backend, Registry, import_extra
from kinto_orm.server.jsonb import Filter, look_up, meets, order

Restore = Callable[[], None]
"""A function that brings a state back; call it once, because the state is in use again afterwards."""

STATE = {"_store": 3, "_cemetery": 3, "_timestamps": 2}
"""The dicts of Kinto's storage with their depth: by parent, by kind and, for objects, by id."""
CACHE = ("_store", "_created_at", "_ttl", "_quota")
"""The state of Kinto's cache."""


class Restorable(Protocol):
    """A backend that can go back."""

    def snapshot(self) -> Restore:
        """Return a function that brings the present state back."""
        ...


class MemoryStorage:
    """Kinto's memory storage, which gives copies away and keeps the objects.

    Kinto's own class gives away the nested values that it keeps. A merge patch changes them in place, so that even a
    patch that the server refuses afterwards, by a JSON schema for instance, is stored. It also compares values as
    Python does, for which ``0`` equals ``False``; this class compares them as PostgreSQL does.
    """

    @classmethod
    def load_from_config(cls, config: object) -> Any:
        """Return the backend; Kinto calls this."""
        return type("Storage", (cls, import_extra(MEMORY_STORAGE).Storage), {})()

    def get(self, *arguments: Any, **keywords: Any) -> Any:
        """Return a copy of the object."""
        # Not by JSON, as Kinto copies what it stores: its parser changes some floats.
        return pickle.loads(pickle.dumps(self._own().get(*arguments, **keywords)))

    def extract_object_set(
        self,
        objects: Iterable[Mapping[str, Any]],
        filters: Sequence[Filter] | None,
        sorting: Sequence[Any] | None,
        pagination_rules: Sequence[Sequence[Filter]] | None = None,
        limit: int | None = None,
        **fields: Any,
    ) -> tuple[list[Mapping[str, Any]], int]:
        """Return the objects that meet the filters, sorted and cut to a page, and their number before the cut."""
        page = found = [each for each in objects if meets(each, filters or ())]
        if pagination_rules:
            page = [each for each in found if any(meets(each, rule) for rule in pagination_rules)]
        for sort in reversed(sorting or ()):
            page = sorted(page, key=_sort_key(sort.field), reverse=sort.direction < 0)
        return page[: limit or None], len(found)

    def snapshot(self) -> Restore:
        """Return a function that brings the present state back."""
        state = vars(self)
        return partial(state.update, {name: copied(state[name], levels) for name, levels in STATE.items()})

    def _own(self) -> Any:
        """Return Kinto's class, which is known only where Kinto is installed."""
        return super()


class Principals(dict[str, set[str]]):
    """The sets of principals of Kinto's memory permissions, by key.

    Kinto changes the set that :meth:`get` returns and stores it again: it gets a copy, as a snapshot may hold the set.
    """

    names: set[str]
    """The names of all permissions that were ever stored, a dozen at most."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a copy of the set, or the default."""
        return set(self[key]) if key in self else default

    def __setitem__(self, key: str, principals: set[str]) -> None:
        if key.startswith("permission:"):
            self.names.add(key.split(":", 2)[2])
        super().__setitem__(key, principals)


class MemoryPermission:
    """Kinto's memory permissions, which look names up instead of walking through the permissions of all objects.

    The history plugin reads all permissions of an object after each write, so that loading *n* objects into Kinto's own
    backend takes n² steps. This class remembers the names of permissions and tries each of them.
    """

    _store: Principals

    @classmethod
    def load_from_config(cls, config: object) -> Any:
        """Return the backend; Kinto calls this."""
        return type("Permission", (cls, import_extra("kinto.core.permission.memory").Permission), {})()

    def snapshot(self) -> Restore:
        """Return a function that brings the present state back."""
        kept = Principals(self._store)
        kept.names = self._store.names
        return partial(setattr, self, "_store", kept)

    def flush(self) -> None:
        """Forget everything."""
        self._store = Principals()
        self._store.names = set()

    def remove_principal(self, principal: str) -> None:
        """Take all users out of a group."""
        for key in [key for key, principals in self._store.items() if principal in principals]:
            self._store[key] = set(self._store[key])
        self._own().remove_principal(principal)

    def get_objects_permissions(self, objects_ids: Iterable[str], permissions: list[str] | None = None) -> Any:
        """Return the permissions of each object, by name."""
        if permissions is not None:
            return self._own().get_objects_permissions(objects_ids, permissions)
        found = []
        for id in objects_ids:
            names = [name for name in sorted(self._store.names) if f"permission:{id}:{name}" in self._store]
            found += self._own().get_objects_permissions([id], names)
        return found

    def _own(self) -> Any:
        """Return Kinto's class, which is known only where Kinto is installed."""
        return super()


def restorable(registry: Registry) -> bool:
    """Return whether all writes of a request can be taken back, without those of another request."""
    return getattr(registry, "calls_are_serialised", False) and all(map(_is_restorable, backends_of(registry)))


def take_snapshot(registry: Registry) -> Restore:
    """Return a function that brings back the present state of a :func:`restorable` server."""
    backends = filter(_is_restorable, backends_of(registry))
    restores = [*(backend.snapshot() for backend in backends), snapshot_of_cache(registry.cache)]

    def restore() -> None:
        for each in restores:
            each()

    return restore


def backends_of(registry: Registry) -> list[Backend]:
    """Return the backends of objects and of permissions; Kinto can do without the latter."""
    return [registry.storage, getattr(registry, "permission", registry.storage)]


def snapshot_of_cache(cache: object) -> Restore:
    """Return a function that brings Kinto's memory cache of passwords back; any other cache is left alone."""
    state = vars(cache)
    kept = {name: copied(state[name]) for name in CACHE if name in state}
    return partial(state.update, kept)


def copied(value: Any, levels: int = 1) -> Any:
    """Return a copy of nested dicts down to that level, of the same classes."""
    if not isinstance(value, dict):
        return value
    copy: dict[Any, Any] = value.copy()
    if levels > 1:
        copy.update((key, copied(each, levels - 1)) for key, each in value.items())
    return copy


def _sort_key(field: str) -> Callable[[Mapping[str, Any]], Any]:
    if field in ("id", "last_modified"):  # every object has them, and all are of one type
        return itemgetter(field)
    return lambda data: order(look_up(data, field))


def _is_restorable(backend: object) -> TypeGuard[Restorable]:
    return hasattr(backend, "snapshot")

"""The state of the memory backends, as it was: what an embedded server has instead of transactions.

A snapshot costs a copy of a few dicts, whatever is in the objects: it shares them with the backends, which replace an
object or a set of principals and never change one in place. Ours see to that where Kinto's own do not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeGuard

from kinto_orm.server.application import Backend, Registry

Restore = Callable[[], None]
"""Brings a state back; to be called once, since what it held is then in use again."""

CACHE = ("_store", "_created_at", "_ttl", "_quota")


class Restorable(Protocol):
    """A backend that can go back."""

    def snapshot(self) -> Restore:
        """What brings back the present state."""
        ...


def restorable(registry: Registry) -> bool:
    """Whether nothing else is written meanwhile, and all that is written can be taken back."""
    return getattr(registry, "calls_are_serialised", False) and all(map(_is_restorable, backends_of(registry)))


def take_snapshot(registry: Registry) -> Restore:
    """What brings back the present state of a :func:`restorable` server."""
    backends = filter(_is_restorable, backends_of(registry))
    restores = [*(backend.snapshot() for backend in backends), snapshot_of_cache(registry.cache)]

    def restore() -> None:
        for each in restores:
            each()

    return restore


def backends_of(registry: Registry) -> list[Backend]:
    """Where objects and permissions are kept; Kinto can do without the latter."""
    return [registry.storage, getattr(registry, "permission", registry.storage)]


def snapshot_of_cache(cache: object) -> Restore:
    """The same for Kinto's memory cache, which knows who gave which password; any other is left alone."""
    state = vars(cache)
    kept = {name: copied(state[name]) for name in CACHE if name in state}
    return partial(state.update, kept)


def copied(value: Any, levels: int = 1) -> Any:
    """A copy of nested dicts down to that level, of the same kinds."""
    if not isinstance(value, dict):
        return value
    copy: dict[Any, Any] = value.copy()
    if levels > 1:
        copy.update((key, copied(each, levels - 1)) for key, each in value.items())
    return copy


def _is_restorable(backend: object) -> TypeGuard[Restorable]:
    return hasattr(backend, "snapshot")

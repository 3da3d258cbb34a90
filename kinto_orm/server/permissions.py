"""Kinto's memory permission backend, with look-ups where Kinto's own walks through the permissions of all objects.

The history plugin asks for all permissions of an object after each write, so that loading *n* objects into Kinto's own
backend takes n² steps. Loaded by Kinto, as its setting ``permission_backend``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kinto_orm.server.application import import_extra


def load_from_config(config: object) -> Any:
    """What Kinto calls: the backend."""
    own = import_extra("kinto.core.permission.memory").Permission
    return type("Permission", (KnownNames, own), {})()


class KnownNames:
    """Remembers which permission names there are at all, a dozen at most, and tries these."""

    _store: Mapping[str, set[str]]
    _names: set[str]

    def flush(self) -> None:
        """Forgets everything."""
        self._names = set()
        self._own().flush()

    def add_principal_to_ace(self, object_id: str, permission: str, principal: str) -> None:
        """Gives a permission to a principal."""
        self._names.add(permission)
        self._own().add_principal_to_ace(object_id, permission, principal)

    def replace_object_permissions(self, object_id: str, permissions: dict[str, Any]) -> Any:
        """Sets the permissions that are named."""
        self._names.update(permissions)
        return self._own().replace_object_permissions(object_id, permissions)

    def get_objects_permissions(self, objects_ids: Iterable[str], permissions: list[str] | None = None) -> Any:
        """The permissions of each object, by name."""
        if permissions is not None:
            return self._own().get_objects_permissions(objects_ids, permissions)
        return [self._own().get_objects_permissions([id], self._names_of(id))[0] for id in objects_ids]

    def _names_of(self, object_id: str) -> list[str]:
        return [name for name in sorted(self._names) if f"permission:{object_id}:{name}" in self._store]

    def _own(self) -> Any:
        """Kinto's class, which is only known when Kinto is there."""
        return super()

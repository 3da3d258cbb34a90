"""Kinto's memory permission backend, with look-ups where Kinto's own walks through the permissions of all objects.

The history plugin asks for all permissions of an object after each write, so that loading *n* objects into Kinto's own
backend takes n² steps. It can also go back, to be as cheap at that as the storage: a set of principals is replaced and
never changed. Loaded by Kinto, as its setting ``permission_backend``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from kinto_orm.server.application import import_extra
from kinto_orm.server.snapshots import Restore


def load_from_config(config: object) -> Any:
    """What Kinto calls: the backend."""
    own = import_extra("kinto.core.permission.memory").Permission
    return type("Permission", (KnownNames, own), {})()


class KnownNames:
    """Remembers which permission names there are at all, a dozen at most, and tries these."""

    _store: dict[str, set[str]]
    _names: set[str]

    def snapshot(self) -> Restore:
        """What brings back the present state."""
        return partial(vars(self).update, {"_store": dict(self._store), "_names": set(self._names)})

    def flush(self) -> None:
        """Forgets everything."""
        self._names = set()
        self._own().flush()

    def add_principal_to_ace(self, object_id: str, permission: str, principal: str) -> None:
        """Gives a permission to a principal."""
        self._names.add(permission)
        self._replace(f"permission:{object_id}:{permission}")
        self._own().add_principal_to_ace(object_id, permission, principal)

    def remove_principal_from_ace(self, object_id: str, permission: str, principal: str) -> None:
        """Takes a permission from a principal."""
        self._replace(f"permission:{object_id}:{permission}")
        self._own().remove_principal_from_ace(object_id, permission, principal)

    def add_user_principal(self, user_id: str, principal: str) -> None:
        """Puts a user into a group."""
        self._replace(f"user:{user_id}")
        self._own().add_user_principal(user_id, principal)

    def remove_user_principal(self, user_id: str, principal: str) -> None:
        """Takes a user out of a group."""
        self._replace(f"user:{user_id}")
        self._own().remove_user_principal(user_id, principal)

    def remove_principal(self, principal: str) -> None:
        """Takes all users out of a group."""
        for key in [key for key, principals in self._store.items() if principal in principals]:
            self._replace(key)
        self._own().remove_principal(principal)

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

    def _replace(self, key: str) -> None:
        """Puts a copy in the place of a set that Kinto is about to change: a snapshot may have it."""
        if key in self._store:
            self._store[key] = set(self._store[key])

    def _own(self) -> Any:
        """Kinto's class, which is only known when Kinto is there."""
        return super()

"""Permissions: the principals that may read and write an object.

https://docs.kinto-storage.org/en/stable/api/1.x/permissions.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable

from kinto_orm.errors import InvalidPermissionError, PermissionsUnknownError, PrincipalWarning, warn_user
from kinto_orm.protocol.json_values import JSONObject, say_value
from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.writes import PermissionLists


@runtime_checkable
class PrincipalLike(Protocol):
    """An object that stands for a principal: a group, an account."""

    def __kinto_principal__(self) -> str:
        """Return the principal, as text."""
        ...


# The words before the colon are the names that the server gives to its policies: any may be right.
_KNOWN_FORM = re.compile(r"system\.(Everyone|Authenticated)|[\w.-]+:\S.*|/buckets/[^/]+/groups/[^/]+", re.DOTALL)


def member_texts(values: Any) -> Any:
    """Return a list with the principal of each user among the values; any other value as it is.

    The server takes no group for a member of another.
    """
    if not isinstance(values, (list, tuple, set, frozenset)):
        return values
    texts = [one.__kinto_principal__() if isinstance(one, PrincipalLike) else one for one in values]
    return [
        one if isinstance(text, str) and text.startswith("/") else text for one, text in zip(values, texts, strict=True)
    ]


Principal: TypeAlias = str | PrincipalLike
PermissionsInput: TypeAlias = Mapping[str, Iterable[Principal]]


class Permissions(Mapping[str, frozenset[str]]):
    """The permissions of one object: names to sets of principals.

    Unknown until the server has shown them: lists never show them, and an object shows them only to who may write it.
    Reading or adding then raises ``PermissionsUnknownError``; setting a whole set is allowed.
    The name is the key (``permissions["record:create"]``) or the attribute with ``_`` for ``:``
    (``permissions.record_create``).
    """

    __slots__ = ("_assigned", "_kind", "_known")

    def __init__(self, kind: Kind, known: Mapping[str, frozenset[str]] | None = None) -> None:
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_known", known)
        object.__setattr__(self, "_assigned", {})

    _kind: Kind
    _known: Mapping[str, frozenset[str]] | None
    _assigned: dict[str, frozenset[str]]

    @property
    def is_known(self) -> bool:
        """Whether they can be read: the server has shown them, or all of them were set."""
        return self._known is not None or all(name in self._assigned for name in self._kind.permissions)

    @property
    def __kinto_known__(self) -> Mapping[str, frozenset[str]] | None:
        return self._known

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to save."""
        return bool(self.__kinto_changes__())

    def assign(self, permissions: PermissionsInput) -> None:
        """Set all permissions: those not named become empty."""
        if not isinstance(permissions, Mapping):
            raise InvalidPermissionError(
                f"permissions must be a mapping of names to principals, not {say_value(permissions)}."
            )
        given = {self._name(name): _principals(name, value) for name, value in permissions.items()}
        for name in self._kind.permissions:
            self._assigned[name] = given.get(name, frozenset())

    def add(self, name: str, *principals: Principal) -> None:
        """Give the permission to these principals, too."""
        self[name] = self[name] | _principals(name, principals)

    def remove(self, name: str, *principals: Principal) -> None:
        """Take the permission from these principals."""
        self[name] = self[name] - _principals(name, principals)

    def __kinto_show__(self, known: Mapping[str, frozenset[str]] | None) -> None:
        # In place: their user may hold them, and what is done to them later must not get lost.
        object.__setattr__(self, "_known", known)
        self._assigned.clear()

    def __kinto_changes__(self) -> dict[str, list[str]]:
        """Return the permissions to save, by name, in the form of the wire."""
        if not self._assigned:
            return {}
        known = self._known or {}
        return {
            name: sorted(principals)
            for name, principals in self._assigned.items()
            if self._known is None or known.get(name, frozenset()) != principals
        }

    def __kinto_complete__(self) -> PermissionLists | None:
        """Return all permissions as they shall be; ``None`` where some are unknown."""
        if self._known is None and not self.is_known:
            return None
        current = {**(self._known or {}), **self._assigned}
        return {name: sorted(current[name]) for name in self._kind.permissions if current.get(name)}

    def __getitem__(self, name: str) -> frozenset[str]:
        key = self._name(name)
        if key in self._assigned:
            return self._assigned[key]
        if self._known is None:
            raise PermissionsUnknownError(
                f"The permission {key!r} is unknown: lists do not show permissions, and objects show them to who may "
                "write them. refresh() the object, or set the whole set."
            )
        return self._known.get(key, frozenset())

    def __setitem__(self, name: str, principals: Iterable[Principal]) -> None:
        self._assigned[self._name(name)] = _principals(name, principals)

    def __getattr__(self, name: str) -> frozenset[str]:
        if name.startswith("__") or name.replace("_", ":") not in self._kind.permissions:
            raise AttributeError(f"{self._kind.value}s have the permissions {', '.join(self._kind.permissions)}.")
        return self[name]

    def __setattr__(self, name: str, principals: Iterable[Principal]) -> None:
        self[name] = principals

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._kind.permissions if self[name])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __hash__(self) -> NoReturn:
        raise TypeError("permissions change, so they have no hash")

    def __repr__(self) -> str:
        if not self.is_known:
            return f"<Permissions unknown{f', set: {self._assigned}' if self._assigned else ''}>"
        return f"<Permissions {dict(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self._kind, self._known, dict(self._assigned)))

    def _name(self, name: str) -> str:
        return _name(self._kind, name)


def _name(kind: Kind, name: str) -> str:
    for known in (name, name.replace("_", ":")) if isinstance(name, str) else ():
        if known in kind.permissions:
            return known
    raise InvalidPermissionError(
        f"{say_value(name)} is no permission of a {kind.value}; there are {', '.join(kind.permissions)}."
    )


def _rebuild(
    kind: Kind, known: Mapping[str, frozenset[str]] | None, assigned: dict[str, frozenset[str]]
) -> Permissions:
    permissions = Permissions(kind, known)
    for name, principals in assigned.items():
        permissions[name] = principals
    return permissions


def permission_lists(kind: Kind, permissions: Mapping[str, Iterable[Principal] | None]) -> JSONObject:
    """Return permissions in the form of the wire; ``None``, which removes one in a merge-patch, stays.

    Raises ``InvalidPermissionError``.
    """
    return {
        _name(kind, name): None if principals is None else sorted(_principals(name, principals))
        for name, principals in permissions.items()
    }


def _principals(name: str, principals: Iterable[Principal]) -> frozenset[str]:
    if isinstance(principals, (str, bytes)) or not isinstance(principals, Iterable):
        raise InvalidPermissionError(
            f"{name} takes a list of principals, not {say_value(principals)}: write [{say_value(principals)}]."
        )
    return frozenset(_principal(name, one) for one in principals)


def _principal(name: str, principal: Principal) -> str:
    if isinstance(principal, PrincipalLike):
        principal = principal.__kinto_principal__()
        if principal.startswith("/buckets/default/"):
            # The server compares text, and knows the members by the bucket's real id: no user would match.
            raise InvalidPermissionError(
                f"{name}: a group of the default bucket is known by the bucket's real id only: load the bucket by it "
                "(client.server_info()['user']['bucket'])."
            )
        return principal
    if not isinstance(principal, str) or not principal.strip():
        raise InvalidPermissionError(
            f"{name}: {say_value(principal)} is no principal: give text such as 'account:bob', or a Group."
        )
    if not _KNOWN_FORM.fullmatch(principal):
        warn_user(
            f"{name}: {say_value(principal)} matches nobody: principals are 'system.Everyone', 'system.Authenticated', "
            "'<policy>:<user>' such as 'account:bob', or a Group.",
            PrincipalWarning,
        )
    return principal

"""JSON that can be read and compared, but not changed: its changes would get lost."""

from __future__ import annotations

from typing import Any, NoReturn

from kinto_orm.errors import ReadOnlyError
from kinto_orm.protocol.values import JSON


def _refuse(self: object, *arguments: object, **keywords: object) -> NoReturn:
    raise ReadOnlyError(
        "This is a copy of a field of another type than JSON: change the field itself, or assign to it."
    )


class ReadOnlyList(list[Any]):
    """A list that refuses changes."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return (list, (list(self),))


class ReadOnlyDict(dict[str, Any]):
    """A dictionary that refuses changes."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return (dict, (dict(self),))


def read_only(value: JSON) -> JSON:
    """The value, which refuses changes at every level."""
    if isinstance(value, dict):
        return ReadOnlyDict({key: read_only(item) for key, item in value.items()})
    return ReadOnlyList(map(read_only, value)) if isinstance(value, list) else value

"""The data of an object with fields as its user sees and changes it: a mapping that checks each key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NoReturn

from kinto_orm.errors import ReadOnlyError
from kinto_orm.models.codec import codec_of
from kinto_orm.models.data import current_data, own_extra, remove_key, set_key, undeclared
from kinto_orm.models.envelope import shared_row
from kinto_orm.protocol.accounts import mask
from kinto_orm.protocol.json_values import JSON, JSONObject, copy_json, say_value
from kinto_orm.protocol.paging import ENVELOPE_KEYS


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
    """Return the value, which refuses changes at every level."""
    if isinstance(value, dict):
        return ReadOnlyDict({key: read_only(item) for key, item in value.items()})
    return ReadOnlyList(map(read_only, value)) if isinstance(value, list) else value


def _checked_key(key: str) -> str:
    if key in ENVELOPE_KEYS:
        raise KeyError(key)
    return key


class Data(MutableMapping[str, Any]):
    """The live data of an object: wire names, JSON values, without ``id`` and ``last_modified``.

    Setting a declared key validates it and sets the field; other keys may have any name.
    """

    __slots__ = ("_model",)

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getitem__(self, key: str) -> Any:
        fields = codec_of(type(self._model)).fields
        if key in self._model.__kinto_kind__.secrets:
            raise KeyError(f"{key} is written only, never shown.")
        if key in fields:
            return _live(self._model.__dict__.get(fields[key]), current_data(self._model)[key])
        row = shared_row(self._model)
        value = undeclared(self._model)[key] if row is None else row[_checked_key(key)]
        # A list or object may be changed in place by who gets it: from now on it is our own copy.
        return own_extra(self._model)[key] if isinstance(value, (dict, list)) else value

    def __setitem__(self, key: str, value: Any) -> None:
        set_key(self._model, key, value)

    def __delitem__(self, key: str) -> None:
        remove_key(self._model, key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of the key, set to the default where it was missing."""
        if key not in self:
            self[key] = default
        return self[key]  # not the default itself: what was set is a copy of it

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown())

    def __len__(self) -> int:
        return len(self._shown())

    def __repr__(self) -> str:
        return say_value(mask(self._shown(), codec_of(type(self._model)).secrets), None)

    def __contains__(self, key: object) -> bool:
        return key in self._shown()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Data):
            return self._shown() == other._shown()
        return self._shown() == other if isinstance(other, Mapping) else NotImplemented

    def __or__(self, other: Mapping[str, Any]) -> JSONObject:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> JSONObject:
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any]) -> Data:
        self.update(other)
        return self

    def copy(self) -> JSONObject:
        """Return a separate dictionary with the same data."""
        return copy_json(self._shown())

    __copy__ = copy

    def __deepcopy__(self, memo: object) -> JSONObject:
        return self.copy()

    def _shown(self) -> JSONObject:
        data, secrets = current_data(self._model), self._model.__kinto_kind__.secrets
        return {key: value for key, value in data.items() if key not in secrets} if secrets else data


def _live(field_value: Any, value: JSON) -> Any:
    """Return the field's list or dictionary where it is plain JSON, so that edits are kept; else a read-only copy."""
    if not isinstance(value, (dict, list)):
        return value
    if type(field_value) is type(value) and field_value == value:
        return field_value
    return read_only(value)

"""The data of a model, as it is on the wire: declared fields and undeclared keys in one mapping.

Untouched fields keep the server's own spelling; defaults that the server lacks are not data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined, from_json, to_json

from kinto_orm.errors import InvalidValueError, NotLoadedError, ReadOnlyError
from kinto_orm.models.envelope import Envelope
from kinto_orm.models.metaclass import HIDDEN_FIELDS, wire_name
from kinto_orm.protocol.values import JSON, JSONObject, is_same, to_json_object, to_json_value
from kinto_orm.state import Status

V = TypeVar("V", bound=BaseModel)


def declared_fields(model: type[Any]) -> Mapping[str, str]:
    """The model's fields: wire name to field name."""
    found: Mapping[str, str] | None = model.__dict__.get("__kinto_fields__")
    if found is None:
        names = {wire_name(model, name): name for name in model.__pydantic_fields__ if name not in HIDDEN_FIELDS}
        found = MappingProxyType(names)
        type.__setattr__(model, "__kinto_fields__", found)
    return found


def validate_wire(model: type[V], data: JSONObject) -> V:
    """A model of this data, by wire names. Raises pydantic's ``ValidationError``."""
    # Through JSON text, so that strict models read dates and the like as they do in a page.
    made: V = model.__pydantic_validator__.validate_json(to_json(data), by_alias=True, by_name=False)
    return made


def dump_declared(model: Any) -> JSONObject:
    """The declared fields, by wire names, in JSON types."""
    dumped: JSONObject = model.__pydantic_serializer__.to_python(
        model, mode="json", by_alias=True, round_trip=True, warnings="error"
    )
    return dumped


def current_data(model: Any) -> JSONObject:
    """The data as the object has it now. Parts of it may be shared with the object: do not change them."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.status is Status.REFERENCE:
        raise NotLoadedError(f"{model!r} is a reference, its data was never read: refresh() it first.")
    fields = declared_fields(type(model))
    snapshot = envelope.data or {}
    extra = _extra_of(envelope, fields)
    declared = _declared_data(model, envelope, fields, snapshot) if fields else {}
    order = [key for key in snapshot if key in declared or key in extra]
    order += [key for key in (*declared, *extra) if key not in snapshot]
    return {key: declared[key] if key in declared else extra[key] for key in order}


def _extra_of(envelope: Envelope, fields: Mapping[str, str]) -> JSONObject:
    if envelope.extra is not None:
        return envelope.extra
    snapshot = envelope.data or {}
    return {key: value for key, value in snapshot.items() if key not in fields} if fields else snapshot


def undeclared(model: Any) -> Mapping[str, JSON]:
    """The undeclared keys, to be read."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.status is Status.REFERENCE:
        raise NotLoadedError(f"{model!r} is a reference, its data was never read: refresh() it first.")
    return _extra_of(envelope, declared_fields(type(model)))


def own_extra(model: Any) -> JSONObject:
    """The undeclared keys, to be changed."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.extra is None:
        # Through bytes: the fastest deep copy of JSON there is here.
        envelope.extra = from_json(to_json(_extra_of(envelope, declared_fields(type(model)))))
    assert envelope.extra is not None
    return envelope.extra


def _declared_data(model: Any, envelope: Envelope, fields: Mapping[str, str], snapshot: JSONObject) -> JSONObject:
    now = dump_declared(model)
    if envelope.status is Status.NEW:
        return {key: value for key, value in now.items() if not _is_left_out(model, envelope, fields[key], key, value)}
    then = _declared_before(model, fields, snapshot)
    data: JSONObject = {}
    for key, value in now.items():
        if key in envelope.absent:
            continue
        if not _has_changed(model, fields[key], key, value, then):
            if key in snapshot:
                data[key] = snapshot[key]
        else:
            data[key] = value
    return data


def _is_left_out(model: Any, envelope: Envelope, name: str, key: str, value: JSON) -> bool:
    # A default of None means "not there": Kinto would store a null, and refuses it for some keys.
    return key in envelope.absent or (value is None and name not in model.__pydantic_fields_set__)


def _declared_before(model: Any, fields: Mapping[str, str], snapshot: JSONObject) -> JSONObject:
    before = {key: value for key, value in snapshot.items() if key in fields}
    return dump_declared(validate_wire(type(model), before))


def _has_changed(model: Any, name: str, key: str, value: JSON, then: JSONObject) -> bool:
    if key in then and is_same(value, then[key]):
        return False
    field = type(model).__pydantic_fields__[name]
    if field.default_factory is None or name in model.__pydantic_fields_set__:
        return True
    # A random default differs each time and says nothing; one that is always the same was edited in place.
    again = field.get_default(call_default_factory=True, validated_data={})
    return is_same(to_json_value(again, key), then.get(key))


def frozen_data(model: Any) -> JSONObject:
    """A deep copy of the current data, checked for what the wire cannot carry.

    Raises ``InvalidValueError`` with the path of the field.
    """
    refuse_naive_datetimes(model.__dict__, "")
    try:
        return to_json_object(current_data(model))
    except ValueError as error:
        if isinstance(error, InvalidValueError):
            raise
        raise InvalidValueError(f"{model!r} cannot be written as JSON: {error}") from error


def refuse_naive_datetimes(value: Any, path: str) -> None:
    """Raises ``InvalidValueError`` where a declared field holds a datetime without timezone, however deep."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidValueError(
                f"{path}: {value} has no timezone; use datetime.now(timezone.utc) or .replace(tzinfo=…)."
            )
    elif isinstance(value, (dict, BaseModel)):
        for key, item in (value if isinstance(value, dict) else value.__dict__).items():
            if not isinstance(item, (str, int, float, type(None))):
                refuse_naive_datetimes(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            refuse_naive_datetimes(item, f"{path}[{index}]")


def has_changed(model: Any) -> bool:
    """Whether the data differs from what the server last sent."""
    envelope: Envelope = model.__kinto_envelope__()
    return not is_same(current_data(model), envelope.data or {})


def set_field(model: Any, name: str, value: Any) -> None:
    """Validates the value and sets the field. Raises ``InvalidValueError``."""
    cls = type(model)
    # On a scratch copy: with an alias, pydantic's validate_assignment may take the value from somewhere else.
    scratch = cls.model_construct()
    object.__setattr__(scratch, "__dict__", dict(model.__dict__))
    try:
        cls.__pydantic_validator__.validate_assignment(scratch, name, value)
    except ValidationError as error:
        raise invalid(cls, error) from error
    model.__dict__[name] = scratch.__dict__[name]
    model.__pydantic_fields_set__.add(name)
    envelope: Envelope = model.__kinto_envelope__()
    envelope.absent = envelope.absent - {wire_name(cls, name)}


def invalid(model: type[Any], error: ValidationError, what: str = "") -> InvalidValueError:
    """pydantic's complaint as ours; ``what`` says of what."""
    complaints = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or model.__name__}: {one['msg']}" for one in error.errors(include_url=False)
    )
    return InvalidValueError(f"{what}{model.__name__}: {complaints[:600]}")


def set_key(model: Any, key: str, value: Any) -> None:
    """Sets one key of the data, by its wire name."""
    if key in HIDDEN_FIELDS:
        raise ReadOnlyError(
            f"data[{key!r}] cannot be set: the id is given to the constructor, the server sets the time."
        )
    fields = declared_fields(type(model))
    if key in fields:
        set_field(model, fields[key], value)
    else:
        own_extra(model)[str(key)] = to_json_value(value, str(key))


def remove_key(model: Any, key: str) -> None:
    """Removes one key of the data; a declared field falls back on its default, a required one raises."""
    fields = declared_fields(type(model))
    if key not in current_data(model):
        raise KeyError(key)
    if key not in fields:
        del own_extra(model)[key]
        return
    field = type(model).__pydantic_fields__[fields[key]]
    if field.is_required():
        raise InvalidValueError(f"{type(model).__name__}.{fields[key]} is required: data[{key!r}] cannot be removed.")
    default = field.get_default(call_default_factory=True, validated_data={})
    assert default is not PydanticUndefined
    model.__dict__[fields[key]] = default
    model.__pydantic_fields_set__.discard(fields[key])
    envelope: Envelope = model.__kinto_envelope__()
    envelope.absent = envelope.absent | {key}


class Data(MutableMapping[str, Any]):
    """The live data of an object: wire names, JSON values, without ``id`` and ``last_modified``.

    Setting a declared key validates it and sets the field; other keys may have any name.
    """

    __slots__ = ("_model",)

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getitem__(self, key: str) -> Any:
        fields = declared_fields(type(self._model))
        if key in fields:
            return _live(self._model.__dict__.get(fields[key]), current_data(self._model)[key])
        value = undeclared(self._model)[key]
        # A list or object may be changed in place by who gets it: from now on it is our own copy.
        return own_extra(self._model)[key] if isinstance(value, (dict, list)) else value

    def __setitem__(self, key: str, value: Any) -> None:
        set_key(self._model, key, value)

    def __delitem__(self, key: str) -> None:
        remove_key(self._model, key)

    def __iter__(self) -> Iterator[str]:
        return iter(current_data(self._model))

    def __len__(self) -> int:
        return len(current_data(self._model))

    def __repr__(self) -> str:
        return repr(current_data(self._model))


def _live(field_value: Any, value: JSON) -> Any:
    """The field's own list or dictionary where it looks just like JSON, so that edits are kept; else a read-only copy."""
    if not isinstance(value, (dict, list)):
        return value
    if type(field_value) is type(value) and field_value == value:
        return field_value
    return _read_only(value)


def _read_only(value: JSON) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _read_only(item) for key, item in value.items()})
    return tuple(map(_read_only, value)) if isinstance(value, list) else value

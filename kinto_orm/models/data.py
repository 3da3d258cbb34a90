"""The data of a model, as it is on the wire: declared fields and undeclared keys in one mapping.

Untouched fields keep the server's own spelling; defaults that the server lacks are not data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, SchemaValidator, core_schema, to_json

from kinto_orm.errors import (
    DeletedObjectError,
    InvalidTypeError,
    InvalidValueError,
    NotLoadedError,
    PartialObjectError,
    ReadOnlyError,
)
from kinto_orm.models.envelope import Envelope, put_in_envelope
from kinto_orm.models.metaclass import HIDDEN_FIELDS, wire_name
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.values import JSON, JSONObject, copy_json, is_same, to_json_object, to_json_value
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


def field_validator(model: type[Any]) -> SchemaValidator:
    """A validator of some of the model's fields, by wire names: for objects that were loaded in part.

    Required are none, and validators of the whole model are left out: they would meet what is not there.
    """
    found: SchemaValidator | None = model.__dict__.get("__kinto_partial__")
    if found is None:
        found = _make_field_validator(model.__pydantic_core_schema__)
        type.__setattr__(model, "__kinto_partial__", found)
    return found


def _make_field_validator(schema: Any) -> SchemaValidator:
    definitions: list[Any] = []
    config = None
    while schema["type"] != "model-fields":
        if schema["type"] == "definitions":
            definitions = schema["definitions"]
        config = schema.get("config", config)
        if schema["type"] == "definition-ref":
            schema = next(one for one in definitions if one["ref"] == schema["schema_ref"])
        else:
            schema = schema["schema"]
    fields = {
        name: core_schema.typed_dict_field(
            one["schema"], required=False, validation_alias=one.get("serialization_alias", name)
        )
        for name, one in schema["fields"].items()
    }
    found = core_schema.typed_dict_schema(fields)
    return SchemaValidator(core_schema.definitions_schema(found, definitions) if definitions else found, config)


def dump_declared(model: Any) -> JSONObject:
    """The declared fields, by wire names, in JSON types."""
    try:
        dumped: JSONObject = model.__pydantic_serializer__.to_python(
            model, mode="json", by_alias=True, round_trip=True, warnings="error"
        )
    except PydanticSerializationError as error:
        # A list of the object took a value of another type: nobody validates what is changed in place.
        raise InvalidValueError(f"This {type(model).__name__} cannot be written as JSON: {error}") from error
    return dumped


def current_data(model: Any) -> JSONObject:
    """The data as the object has it now. Parts of it may be shared with the object: do not change them."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    fields = declared_fields(type(model))
    snapshot = envelope.data or {}
    if envelope.is_partial or (envelope.status is Status.DELETED and envelope.data is None):
        return snapshot  # their fields are not all there; and they cannot be changed
    extra = _extra_of(envelope, fields)
    declared = _declared_data(model, envelope, fields, snapshot) if fields else {}
    order = [key for key in snapshot if key in declared or key in extra]
    order += [key for key in (*declared, *extra) if key not in snapshot]
    return {key: declared[key] if key in declared else extra[key] for key in order}


def _check_readable(model: Any, envelope: Envelope) -> None:
    # A reference has data once all of it was assigned.
    if envelope.status is Status.REFERENCE and envelope.extra is None:
        raise NotLoadedError(f"{model!r} is a reference, its data was never read: refresh() it first.")


def has_data(model: Any) -> bool:
    """Whether all its data is there: it was constructed, loaded whole, or assigned."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.status is Status.REFERENCE:
        return envelope.extra is not None
    return envelope.status is not Status.DELETED and not envelope.is_partial


def check_editable(model: Any) -> None:
    """Raises ``UsageError`` where a change could never be saved."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    if envelope.status is Status.DELETED:
        raise DeletedObjectError(f"{model!r} was deleted: nothing of it can be changed.")
    if envelope.is_partial:
        raise PartialObjectError(f"{model!r} holds only some of its fields (only()): refresh() it first.")


def _extra_of(envelope: Envelope, fields: Mapping[str, str]) -> JSONObject:
    if envelope.extra is not None:
        return envelope.extra
    snapshot = envelope.data or {}
    return {key: value for key, value in snapshot.items() if key not in fields} if fields else snapshot


def undeclared(model: Any) -> Mapping[str, JSON]:
    """The undeclared keys, to be read."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    return _extra_of(envelope, declared_fields(type(model)))


def own_extra(model: Any) -> JSONObject:
    """The undeclared keys, to be changed."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.extra is None:
        envelope.extra = copy_json(_extra_of(envelope, declared_fields(type(model))))
    return envelope.extra


def _declared_data(model: Any, envelope: Envelope, fields: Mapping[str, str], snapshot: JSONObject) -> JSONObject:
    now = dump_declared(model)
    if envelope.data is None:
        return {key: value for key, value in now.items() if not _is_left_out(model, envelope, fields[key], key, value)}
    before = _Before(type(model), {key: value for key, value in snapshot.items() if key in fields})
    data: JSONObject = {}
    for key, value in now.items():
        if _is_absent(envelope, key, value):
            continue
        if not _has_changed(model, fields[key], key, value, before):
            if key in snapshot:
                data[key] = snapshot[key]
        elif not _means_absent(model, value):
            data[key] = value
    return data


def _is_left_out(model: Any, envelope: Envelope, name: str, key: str, value: JSON) -> bool:
    # A default of None means "not there".
    untouched = value is None and name not in model.__pydantic_fields_set__
    return untouched or _is_absent(envelope, key, value) or _means_absent(model, value)


def _is_absent(envelope: Envelope, key: str, value: JSON) -> bool:
    # It was removed, unless its default was edited since.
    return key in envelope.absent and is_same(value, envelope.absent[key])


def _means_absent(model: Any, value: JSON) -> bool:
    # Kinto would store a null, and refuses it for some keys of its own kinds; in a record it may mean something.
    return value is None and model.__kinto_kind__ is not Kind.RECORD


class _Before:
    """The fields as the server's data makes them: what untouched ones look like."""

    def __init__(self, model: type[Any], data: JSONObject) -> None:
        self._model = model
        self._data = data
        self.fields = self._dump()

    @cached_property
    def again(self) -> JSONObject:
        """The same once more: a random default differs."""
        return self._dump()

    def _dump(self) -> JSONObject:
        return dump_declared(validate_wire(self._model, self._data))


def _has_changed(model: Any, name: str, key: str, value: JSON, before: _Before) -> bool:
    if key in before.fields and is_same(value, before.fields[key]):
        return False
    field = type(model).__pydantic_fields__[name]
    if field.default_factory is None or name in model.__pydantic_fields_set__:
        return True
    # A random default differs each time and says nothing; one that is always the same was edited in place.
    return is_same(before.again.get(key), before.fields.get(key))


def take_snapshot(model: Any, fresh: Any, data: JSONObject) -> None:
    """Makes the object what the server sent: ``data``, which ``fresh`` was validated from.

    Lists and the like that are the same as before stay the very same objects: their user may hold them, and what is
    done to them later must not get lost.
    """
    envelope: Envelope = model.__kinto_envelope__()
    fields = declared_fields(type(model))
    held = {name: model.__dict__.get(name) for name in fields.values()}
    kept = {name: old for name, old in held.items() if _is_alike(old, fresh.__dict__[name])}
    model.__dict__.update({**fresh.__dict__, **kept})
    object.__setattr__(model, "__pydantic_fields_set__", fresh.model_fields_set)
    extra = envelope.extra
    envelope.data, envelope.extra, envelope.absent = data, None, {}
    if extra:
        now = own_extra(model)
        now.update({key: old for key, old in extra.items() if key in now and _is_alike(old, now[key])})


def _is_alike(old: Any, new: Any) -> bool:
    if type(old) is not type(new) or not isinstance(new, (list, dict, set, BaseModel)):
        return False
    return is_same(old, new)


def frozen_data(model: Any) -> JSONObject:
    """The current data, with what was changed copied and checked for what the wire cannot carry.

    What the server sent and nobody touched goes back as it came, whatever it is.
    Raises ``InvalidValueError`` with the path of the field.
    """
    envelope: Envelope = model.__kinto_envelope__()
    snapshot = envelope.data or {}
    data = current_data(model)
    changed = {key: value for key, value in data.items() if key not in snapshot or not is_same(snapshot[key], value)}
    _refuse_naive_datetimes(model, changed)
    checked = to_json_object(changed)
    return {key: checked[key] if key in checked else snapshot[key] for key in data}


def _refuse_naive_datetimes(model: Any, changed: JSONObject) -> None:
    fields = declared_fields(type(model))
    found = [one for key in changed if key in fields for one in _naive(model.__dict__[fields[key]], f"data.{key}")]
    if not found:
        return
    snapshot = model.__kinto_envelope__().data
    known: set[datetime] = set()
    if snapshot is not None:
        before = validate_wire(type(model), {key: value for key, value in snapshot.items() if key in fields})
        known = {value for _, value in _naive(before, "")}
    for path, value in found:
        if value not in known:  # else the server sent it so
            raise InvalidValueError(
                f"{path}: {value} has no timezone; use datetime.now(timezone.utc) or .replace(tzinfo=…)."
            )


def _naive(value: Any, path: str) -> Iterator[tuple[str, datetime]]:
    """The datetimes without timezone in the value, however deep, with their paths."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            yield path, value
    elif isinstance(value, (dict, BaseModel)):
        for key, item in (value if isinstance(value, dict) else value.__dict__).items():
            yield from _naive(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from _naive(item, f"{path}[{index}]")


def has_changed(model: Any) -> bool:
    """Whether the data differs from what the server last sent."""
    envelope: Envelope = model.__kinto_envelope__()
    return not is_same(current_data(model), envelope.data or {})


class _ScratchEnvelope(Envelope):
    """The envelope of an object that is validated: what its own validators set on it is taken as it is."""

    __slots__ = ()


def set_field(model: Any, name: str, value: Any) -> None:
    """Validates the value and sets the field. Raises ``InvalidValueError``."""
    envelope: Envelope = model.__kinto_envelope__()
    if isinstance(envelope, _ScratchEnvelope):
        restore_fields(model, {name: value})
        return
    check_editable(model)
    cls = type(model)
    # On a scratch copy: with an alias, pydantic's validate_assignment may take the value from somewhere else.
    scratch = cls.model_construct()
    object.__setattr__(scratch, "__dict__", dict(model.__dict__))
    own = _ScratchEnvelope(envelope.status)
    own.data, own.extra = envelope.data, envelope.extra
    put_in_envelope(scratch, own)
    try:
        cls.__pydantic_validator__.validate_assignment(scratch, name, value)
    except ValidationError as error:
        raise invalid(cls, error) from error
    # Not this field alone: a validator of the model may have set others.
    restore_fields(model, {field: scratch.__dict__[field] for field in {name, *scratch.__pydantic_fields_set__}})


def restore_fields(model: Any, values: Mapping[str, Any]) -> None:
    """Sets fields, by their names, to values that are known to be good."""
    model.__dict__.update(values)
    model.__pydantic_fields_set__.update(values)
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.absent:
        present = {wire_name(type(model), name) for name in values}
        envelope.absent = {key: value for key, value in envelope.absent.items() if key not in present}


def invalid(model: type[Any], error: ValidationError, what: str = "") -> InvalidValueError:
    """pydantic's complaint as ours; ``what`` says of what."""
    complaints = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or model.__name__}: {one['msg']}" for one in error.errors(include_url=False)
    )
    return InvalidValueError(f"{what}{model.__name__}: {complaints[:600]}")


def set_key(model: Any, key: str, value: Any) -> None:
    """Sets one key of the data, by its wire name. Raises ``InvalidValueError``."""
    check_editable(model)
    if not isinstance(key, str):
        raise InvalidTypeError(f"The keys of data are strings, not {key!r:.60}.")
    if key in HIDDEN_FIELDS:
        raise ReadOnlyError(
            f"data[{key!r}] cannot be set: the id is given to the constructor, the server sets the time."
        )
    fields = declared_fields(type(model))
    if key not in fields:
        own_extra(model)[key] = to_json_value(value, f"data.{key}")
        return
    try:
        wire = to_json_value(value, key)
    except InvalidValueError:
        set_field(model, fields[key], value)  # a set, a model: what the field takes, though it is no JSON
    else:
        _set_wire(model, fields, key, wire)


def _set_wire(model: Any, fields: Mapping[str, str], key: str, value: JSON) -> None:
    cls = type(model)
    now = {other: item for other, item in current_data(model).items() if other in fields}
    fresh = validated(cls, {**now, key: value})
    values = {fields[key]: fresh.__dict__[fields[key]]}
    if cls.__pydantic_decorators__.model_validators:
        # They may have set other fields.
        again = dump_declared(fresh)
        before = dump_declared(model)
        values |= {fields[other]: fresh.__dict__[fields[other]] for other in again if not is_same(again[other], before[other])}
    restore_fields(model, values)


def validated(model: type[V], data: JSONObject) -> V:
    """Like :func:`validate_wire`; raises ``InvalidValueError``."""
    try:
        return validate_wire(model, data)
    except ValidationError as error:
        raise invalid(model, error) from error


def remove_key(model: Any, key: str) -> None:
    """Removes one key of the data; a declared field falls back on its default, a required one raises."""
    check_editable(model)
    fields = declared_fields(type(model))
    if key not in current_data(model):
        raise KeyError(key)
    if key not in fields:
        del own_extra(model)[key]
        return
    name = fields[key]
    field = type(model).__pydantic_fields__[name]
    if field.is_required():
        raise InvalidValueError(f"{type(model).__name__}.{name} is required: data[{key!r}] cannot be removed.")
    model.__dict__[name] = field.get_default(call_default_factory=True, validated_data=dict(model.__dict__))
    model.__pydantic_fields_set__.discard(name)
    envelope: Envelope = model.__kinto_envelope__()
    envelope.absent = {**envelope.absent, key: dump_declared(model)[key]}


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

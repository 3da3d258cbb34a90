"""The data of a model, as it is on the wire: declared fields and undeclared keys in one mapping.

Untouched fields keep the server's own spelling; defaults that the server lacks are not data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from kinto_orm.errors import (
    DeletedObjectError,
    InvalidTypeError,
    InvalidValueError,
    NotLoadedError,
    PartialObjectError,
    ReadOnlyError,
)
from kinto_orm.models.envelope import Envelope, bare
from kinto_orm.models.fields import (
    FieldsBefore,
    declared_fields,
    dump_declared,
    dump_text,
    invalid,
    refuse_naive_datetimes,
    validated,
)
from kinto_orm.models.metaclass import HIDDEN_FIELDS, wire_name
from kinto_orm.protocol.json_values import (
    JSON,
    JSONObject,
    copy_json,
    is_same,
    is_surely_carried,
    parsed_object,
    to_json_object,
    to_json_value,
)
from kinto_orm.protocol.patches import changed_keys
from kinto_orm.protocol.paths import Kind
from kinto_orm.repository.state import Status


def current_data(model: Any) -> JSONObject:
    """The data as the object has it now. Parts of it may be shared with the object: do not change them."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    fields = declared_fields(type(model))
    snapshot = envelope.data or {}
    if envelope.is_partial or (envelope.status is Status.DELETED and envelope.data is None):
        return snapshot  # their fields are not all there; and they cannot be changed
    if envelope.data is None:
        declared, extra = _new_data(model, envelope, fields), _extra_of(envelope, fields)
        return {**declared, **extra} if extra else declared
    return _loaded_data(model, envelope, fields, snapshot)


def _loaded_data(model: Any, envelope: Envelope, fields: Mapping[str, str], snapshot: JSONObject) -> JSONObject:
    """The data of an object that the server has shown, in the server's order."""
    now, absent, names = _dumped(model, envelope) if fields else {}, envelope.absent, model.__pydantic_fields_set__
    # A write asks twice: when it is made, and when it is answered.
    known = envelope.compared if envelope.extra is None else None
    if known is not None and known[0] is now and known[1] is snapshot and known[2] is absent and known[3] == names:
        return known[4]
    extra = _extra_of(envelope, fields)
    declared = _declared_data(model, envelope, fields, now) if fields else {}
    found = {**declared, **extra} if extra else declared
    data = {key: found[key] for key in snapshot if key in found}
    data.update(found)
    if envelope.extra is None:
        envelope.compared = (now, snapshot, absent, set(names), data)
    return data


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
    extra = envelope.extra
    if extra is None:
        extra = envelope.extra = copy_json(_extra_of(envelope, declared_fields(type(model))))
    return extra


def _new_data(model: Any, envelope: Envelope, fields: Mapping[str, str]) -> JSONObject:
    """The declared fields of what the server has not shown yet."""
    now = _dumped(model, envelope) if fields else {}
    if len(now) == len(fields) and None not in now.values() and not envelope.absent:
        return now
    return {
        key: now[key]
        for key, name in fields.items()
        if key in now
        and not (now[key] is None and _means_nothing(model, name))
        and not (envelope.absent and _is_absent(envelope, key, now[key]))
    }


def _dumped(model: Any, envelope: Envelope) -> JSONObject:
    """The declared fields, by wire names, in JSON types: the same dictionary as long as they are the same."""
    if envelope.dumped is not None and envelope.dumped[0] == dump_text(model, warnings=False):
        return envelope.dumped[1]
    text = dump_text(model)
    found = None if text is None else parsed_object(text)
    if text is None or found is None:  # an infinity, for example
        envelope.dumped = None
        return dump_declared(model)
    envelope.dumped = (text, found)
    return found


def _declared_data(model: Any, envelope: Envelope, fields: Mapping[str, str], now: JSONObject) -> JSONObject:
    """The declared fields, of which ``now`` is the JSON: untouched ones as the server spelled them."""
    snapshot, absent = envelope.data or {}, envelope.absent
    before = _fields_before(model, envelope, snapshot)
    data: JSONObject = {}
    for key, name in fields.items():
        # A field with exclude=True is never written: what the server has stays.
        value = now.get(key, before.fields.get(key))
        if absent and _is_absent(envelope, key, value):
            continue
        if key not in now or not _has_changed(model, name, key, value, before):
            if key in snapshot:
                data[key] = snapshot[key]
        elif not _means_absent(model, value):
            data[key] = value
    return data


def _fields_before(model: Any, envelope: Envelope, snapshot: JSONObject) -> FieldsBefore:
    # Asked again when the answer to a write has come: it is kept with the snapshot that it was made of.
    before: FieldsBefore | None = envelope.before
    if before is None or before.snapshot is not snapshot:
        before = envelope.before = FieldsBefore.read(type(model), snapshot)
    return before


def _means_nothing(model: Any, name: str) -> bool:
    # A default of None means "not there".
    return name not in model.__pydantic_fields_set__ or _means_absent(model, None)


def _is_absent(envelope: Envelope, key: str, value: JSON) -> bool:
    # It was removed, unless its default was edited since.
    return key in envelope.absent and is_same(value, envelope.absent[key])


def _means_absent(model: Any, value: JSON) -> bool:
    # Kinto would store a null, and refuses it for some keys of its own kinds; in a record it may mean something.
    return value is None and model.__kinto_kind__ is not Kind.RECORD


def _has_changed(model: Any, name: str, key: str, value: JSON, before: FieldsBefore) -> bool:
    if key in before.fields and is_same(value, before.fields[key]):
        # A default that the server lacks is a change once the user has set it.
        return name in model.__pydantic_fields_set__ and name not in before.names
    field = type(model).__pydantic_fields__[name]
    if field.default_factory is None or name in model.__pydantic_fields_set__:
        return True
    # A random default differs each time and says nothing; one that is always the same was edited in place.
    return is_same(before.again.get(key), before.fields.get(key))


def apply_snapshot(model: Any, fresh: Any, data: JSONObject) -> None:
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
    changed = changed_keys(snapshot, data) if snapshot else data
    refuse_naive_datetimes(model, changed, envelope.data)
    if _is_just_dumped(changed, envelope.dumped):
        return data
    checked = to_json_object(changed)
    return {key: checked[key] if key in checked else snapshot[key] for key in data} if snapshot else checked


def _is_just_dumped(changed: JSONObject, dumped: tuple[bytes, JSONObject] | None) -> bool:
    """Whether all of it is what the fields were just written as, which is nobody else's, and surely carried."""
    if dumped is None or not is_surely_carried(dumped[0]):
        return False
    return changed is dumped[1] or all(value is dumped[1].get(key, _MISSING) for key, value in changed.items())


_MISSING = object()


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
    own = _ScratchEnvelope(envelope.status)
    own.data, own.extra = envelope.data, envelope.extra
    scratch = bare(cls, dict(model.__dict__), own)
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
    name = fields[key]
    try:
        wire = to_json_value(value, key)
    except InvalidValueError:
        set_field(model, name, value)  # a set, a model: what the field takes, though it is no JSON
    else:
        if type(model).__pydantic_fields__[name].frozen:
            set_field(model, name, value)  # which refuses
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
        values |= {
            fields[other]: fresh.__dict__[fields[other]] for other in again if not is_same(again[other], before[other])
        }
    restore_fields(model, values)


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

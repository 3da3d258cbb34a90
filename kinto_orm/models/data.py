"""The data of a model, as it is on the wire: declared fields and undeclared keys in one mapping.

Untouched fields keep the server's own spelling; defaults that the server lacks are not data; keys that no field
declares are kept, at every depth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Never

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from kinto_orm.errors import (
    DeletedObjectError,
    InvalidTypeError,
    InvalidValueError,
    NotLoadedError,
    PartialObjectError,
    ReadOnlyError,
)
from kinto_orm.models.codec import Codec, codec_of, invalid, refuse_naive
from kinto_orm.models.envelope import Envelope, PageSnapshot, bare, put_in_envelope, shared_page
from kinto_orm.models.field_types import IMMUTABLE
from kinto_orm.models.undeclared import normal, read_text, with_undeclared
from kinto_orm.protocol.json_values import (
    JSON,
    MISSING,
    JSONObject,
    copy_json,
    encode,
    is_same,
    is_surely_carried,
    say_value,
    to_json_object,
    to_json_value,
)
from kinto_orm.protocol.merge import at_places
from kinto_orm.protocol.paging import ENVELOPE_KEYS, without_envelope
from kinto_orm.protocol.patches import changed_keys
from kinto_orm.protocol.paths import Kind, PluralPath
from kinto_orm.repository.state import Status


def current_data(model: Any) -> JSONObject:
    """Return the data as the object has it now. It may share parts with the object: do not change them."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    if envelope.data is None:
        return {} if envelope.status is Status.DELETED else _new_data(model, envelope)
    codec = codec_of(type(model))
    if envelope.is_partial and codec.fields:
        return envelope.data
    return _with_changes(envelope, codec, envelope.data, _changes(model, envelope, codec, envelope.data).keys)


def _with_changes(envelope: Envelope, codec: Codec, snapshot: JSONObject, changes: JSONObject) -> JSONObject:
    extra = envelope.extra
    if not changes and extra is None:
        return snapshot
    data = dict(snapshot)
    if extra is not None:
        data = {key: value for key, value in snapshot.items() if key in codec.fields or key in extra} | extra
    data.update(changes)  # which also say what goes: other names of a field
    return {key: value for key, value in data.items() if value is not MISSING} if MISSING in changes.values() else data


class _Changes(NamedTuple):
    """The fields that were set, or hold values that can be edited in place."""

    keys: JSONObject
    """The changed ones, by wire name, with what is to be stored."""
    now: JSONObject
    """All of them as they are now, by wire name."""
    text: bytes
    """The same as JSON text."""


_NO_CHANGES = _Changes({}, {}, b"")


def _changes(model: Any, envelope: Envelope, codec: Codec, snapshot: JSONObject) -> _Changes:
    """Return the changed fields: those that were set, or hold values that can be edited in place."""
    names = {*envelope.touched, *_edited_in_place(model, codec)} - codec.excluded
    changes: JSONObject = {}
    if envelope.absent:
        changes = dict.fromkeys(envelope.absent, MISSING)
        names.update(codec.fields[key] for key in changes)
    if not names:
        return _NO_CHANGES
    text = codec.write(model, names)
    now, before = codec.dump(model, names, text), _baseline(model, envelope, codec, snapshot)
    for name in names:
        key = codec.wires[name]
        value, old = now.get(key, MISSING), before.get(key, MISSING)
        if key in changes and is_same(value, envelope.absent[key]):
            continue  # it was removed, and its default was not edited since
        # A default that was set is data, also where the server lacks it.
        is_default = name in envelope.touched and snapshot.keys().isdisjoint(codec.read_keys[name])
        if is_same(value, old) and not is_default:
            changes.pop(key, None)
        elif value is None and _means_absent(model, value):
            changes[key] = MISSING
        else:
            stored, keeps_defaults = snapshot.get(key, MISSING), codec.types[name].varies
            changes[key] = _with_undeclared(codec, key, (stored, old, value), keeps_defaults=keeps_defaults)
            for other in codec.read_before[name]:
                if other in snapshot:
                    changes[other] = MISSING
    if MISSING in changes.values():
        changes = {key: value for key, value in changes.items() if value is not MISSING or key in snapshot}
    return _Changes(changes, now, text)


def _with_undeclared(
    codec: Codec, key: str, forms: tuple[JSON, JSON, JSON], *, keeps_defaults: bool, is_new: bool = False
) -> JSON:
    """Return the value of a field, the last of its forms (see ``undeclared.py``), with the undeclared keys inside."""
    stored, before, now = forms
    if (texts := codec.texts.get(key)) is not None:
        stored, before, now = (at_places(one, texts, read_text) for one in forms)
    if not isinstance(stored, (dict, list)) and (stored == before or not isinstance(stored, str)):
        return forms[-1]  # other values hold nothing undeclared
    stored = codec.respell[codec.fields[key]](stored, before)
    if is_new:
        stored = normal(stored, before, keeps_defaults=True)
    whole = with_undeclared(stored, before, now, (key,), keeps_defaults=keeps_defaults)
    return at_places(whole, texts, _write_text)


def _write_text(value: JSON) -> JSON:
    return encode(value).decode() if isinstance(value, (dict, list)) else value


def _edited_in_place(model: Any, codec: Codec) -> list[str]:
    """Return the names of the fields whose values may have been edited in place."""
    own = model.__dict__
    return [name for name in codec.editable if type(own.get(name)) not in IMMUTABLE]


def _baseline(model: Any, envelope: Envelope, codec: Codec, snapshot: JSONObject) -> JSONObject:
    """Return the fields as the server's data makes them: the values of untouched fields."""
    if envelope.before is None:
        envelope.before = codec.dump(codec.load({**snapshot, "id": model.__dict__["id"]}))
    return envelope.before


def remember_defaults(model: Any, envelope: Envelope) -> None:
    """Keep the fields as they are now, where they have defaults that differ each time they are made."""
    codec = codec_of(type(model))
    if codec.varies:
        envelope.before = codec.dump(model)


def _new_data(model: Any, envelope: Envelope) -> JSONObject:
    """Return the data that the server has not shown yet."""
    codec = codec_of(type(model))
    now = codec.dump(model) if codec.fields else {}
    if envelope.given is not None:
        before = codec.dump(codec.load(envelope.given))
        for key in before.keys() & now.keys() & envelope.given.keys():
            forms = envelope.given[key], before[key], now[key]
            now[key] = _with_undeclared(codec, key, forms, keeps_defaults=True, is_new=True)
    # A default of None means "not there".
    given: set[str] = set() if _means_absent(model, None) else model.__pydantic_fields_set__
    unset = [key for key, value in now.items() if value is None and codec.fields[key] not in given]
    if unset or envelope.absent:
        gone = {key for key, value in envelope.absent.items() if is_same(now.get(key, MISSING), value)}
        now = {key: value for key, value in now.items() if key not in gone and key not in unset}
    return {**now, **envelope.extra} if envelope.extra else now


def _means_absent(model: Any, value: JSON) -> bool:
    # Kinto would store a null, and refuses it for some keys of other kinds; in a record it may mean something.
    return value is None and model.__kinto_kind__ is not Kind.RECORD


def _check_readable(model: Any, envelope: Envelope) -> None:
    # A reference has data once all of it was assigned.
    if envelope.status is Status.REFERENCE and envelope.extra is None:
        raise NotLoadedError(f"{model!r} is a reference, its data was never read: refresh() it first.")


def has_data(model: Any) -> bool:
    """Return whether all its data is there: it was constructed, loaded whole, or assigned."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.status is Status.REFERENCE:
        return envelope.extra is not None
    return envelope.status is not Status.DELETED and not envelope.is_partial


def check_editable(model: Any) -> None:
    """Raise ``UsageError`` where a change could never be saved."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    if envelope.status is Status.DELETED:
        raise DeletedObjectError(f"{model!r} was deleted: nothing of it can be changed.")
    check_settable(type(model))
    if envelope.is_partial:
        raise PartialObjectError(f"{model!r} holds only some of its fields (only()): refresh() it first.")


def check_settable(cls: type[Any], keys: Iterable[str] = ()) -> None:
    """Raise ``ReadOnlyError`` for a frozen class, and ``InvalidValueError`` for a frozen field with one of the keys."""
    if cls.model_config.get("frozen"):
        raise ReadOnlyError(f"{cls.__name__} is frozen: model_copy(update=…) makes a changed one.")
    for key in keys:
        name = codec_of(cls).fields.get(key)
        if name is not None and cls.__pydantic_fields__[name].frozen:
            raise InvalidValueError(f"{cls.__name__}: {name}: the field is frozen: it is set when an object is made.")


def undeclared(model: Any) -> Mapping[str, JSON]:
    """Return the undeclared keys, to be read."""
    envelope: Envelope = model.__kinto_envelope__()
    _check_readable(model, envelope)
    if envelope.extra is not None:
        return envelope.extra
    fields, snapshot = codec_of(type(model)).fields, envelope.data or {}
    return {key: value for key, value in snapshot.items() if key not in fields} if fields else snapshot


def own_extra(model: Any) -> JSONObject:
    """Return the undeclared keys, to be changed."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.extra is None:
        envelope.extra = copy_json(dict(undeclared(model)))
    return envelope.extra


def replace_extra(envelope: Envelope, data: JSONObject) -> None:
    """Make these the undeclared keys, in the very dictionary that the user may hold."""
    held = dict(data)
    envelope.extra = {} if envelope.extra is None else envelope.extra
    envelope.extra.clear()
    envelope.extra.update(held)


def apply_snapshot(model: Any, fresh: Any, data: JSONObject) -> None:
    """Give the object the server's ``data``, from which ``fresh`` was made.

    Dictionaries, lists and the like that are unchanged stay the very same objects: the user may hold them, and later
    edits must not get lost.
    """
    envelope: Envelope = model.__kinto_envelope__()
    codec, held = codec_of(type(model)), model.__dict__
    for name in held.keys() - codec.wires.keys() - ENVELOPE_KEYS:
        del held[name]  # a cached property
    for name in codec.wires:
        new = fresh.__dict__[name]
        if type(new) in IMMUTABLE or not _is_alike(held.get(name), new):
            held[name] = new
    object.__setattr__(model, "__pydantic_fields_set__", codec.names_set(fresh, data))
    if codec.model.__private_attributes__ and model.__pydantic_private__ is None:
        object.__setattr__(model, "__pydantic_private__", fresh.__pydantic_private__)
    envelope.data, envelope.absent, envelope.before = data, {}, None
    envelope.touched = frozenset()
    remember_defaults(model, envelope)
    if envelope.extra is not None:
        now = {key: copy_json(value) for key, value in data.items() if key not in codec.fields}
        kept = {key: old for key, old in envelope.extra.items() if key in now and _is_alike(old, now[key])}
        replace_extra(envelope, {**now, **kept})


def _is_alike(old: Any, new: Any) -> bool:
    if type(old) is not type(new) or not isinstance(new, (list, dict, set, BaseModel)):
        return False
    return is_same(old, new)


# -- what is sent -----------------------------------------------------------------------------------------------------


def frozen_data(model: Any) -> JSONObject:
    """Return the data to send, which later edits do not change.

    Changed values are checked: they come back equal, and the wire can carry them. Untouched values are sent back as
    they came. Raises ``InvalidValueError`` with the path of the field.
    """
    return freeze(model, model.__kinto_envelope__(), codec_of(type(model)))[0]


def freeze(model: Any, envelope: Envelope, codec: Codec) -> tuple[JSONObject, Mark]:
    """Return the data to be sent (see :func:`frozen_data`), and a mark of the object as it is now."""
    snapshot = envelope.data
    if codec.is_surely_written and not (envelope.extra or envelope.absent or envelope.is_partial):
        if snapshot is None:
            new = new_data(model, codec)
            if new is not None:
                return new, Mark(envelope.touched, envelope.absent, None, {})
        else:
            changes = _changes(model, envelope, codec, snapshot)
            if is_surely_carried(changes.text):
                data = _with_changes(envelope, codec, snapshot, changes.keys)
                return data, Mark(envelope.touched, envelope.absent, None, changes.now)
    return _frozen_data(model, envelope, codec), mark_of(model, envelope, codec)


def mark_of(model: Any, envelope: Envelope, codec: Codec) -> Mark:
    """Return a mark of the object as it is now."""
    now = codec.dump(model) if codec.varies else {}
    return Mark(envelope.touched, envelope.absent, text_of(envelope.extra), now)


def new_data(model: Any, codec: Codec) -> JSONObject | None:
    """Return the fields of a new object as the data to be sent; ``None`` where that takes a closer look."""
    text = codec.write(model)
    if not is_surely_carried(text):
        return None
    data: JSONObject = from_json(text)
    return None if None in data.values() else data


def json_copy(data: JSONObject) -> JSONObject | None:
    """Return a copy of what is JSON already; ``None`` where that takes a closer look."""
    with suppress(ValueError, TypeError, RecursionError):
        copied: JSONObject = from_json(text := encode(data))
        if copied == data and is_surely_carried(text):
            return copied
    return None


def text_of(extra: JSONObject | None) -> bytes | None:
    """Return undeclared keys as JSON text; ``None`` for none."""
    return encode(extra) if extra else None


def _frozen_data(model: Any, envelope: Envelope, codec: Codec) -> JSONObject:
    snapshot, data = envelope.data or {}, current_data(model)
    if data is snapshot and not envelope.touched:
        return data
    changed = changed_keys(snapshot, data) if snapshot else data
    names = [codec.fields[key] for key in changed if key in codec.fields]
    # Also those that are left out, or set to what is written as before.
    set_names = codec.conditional if envelope.data is None else envelope.touched
    names += [name for name in set_names if name not in names and name not in codec.excluded]
    _refuse_naive_datetimes(model, codec, names, envelope.data)
    for key in () if ENVELOPE_KEYS.isdisjoint(changed) else ENVELOPE_KEYS & changed.keys():
        _refuse_key(key)
    if envelope.status is Status.LOADED and (changed or len(data) < len(snapshot)):
        is_set = len(data) >= len(snapshot) and all(codec.fields.get(key) in envelope.touched for key in changed)
        if not is_set or envelope.is_partial:  # fields of a frozen object are set in a copy of it only
            check_editable(model)
    checked = _carried(changed, envelope.extra)
    sent = {key: checked[key] if key in checked else snapshot[key] for key in data} if snapshot else checked
    _check_comes_back(model, codec, names, sent)
    return sent


def _refuse_key(key: str) -> Never:
    raise ReadOnlyError(f"data[{key!r}] cannot be set: the id is given to the constructor, the server sets the time.")


class Mark(NamedTuple):
    """An object as it was at a call, as far as that can be overlooked later.

    Edits in place are not: fields that can be edited in place are compared with the snapshot whenever that is asked.
    """

    touched: frozenset[str]
    absent: Mapping[str, JSON]
    extra: bytes | None
    now: JSONObject
    """The fields that were written, by wire name, where they surely come back equal; all, where defaults vary."""


def _carried(changed: JSONObject, extra: JSONObject | None) -> JSONObject:
    """Return the values, checked for values that the wire cannot carry.

    Other code can change those of ``extra``; what is no JSON there, such as a datetime, becomes what is sent.
    """
    try:
        text = encode(changed)
        if is_surely_carried(text):
            if extra is None or extra.keys().isdisjoint(changed):
                return changed
            copied: JSONObject = from_json(text, allow_inf_nan=False)
            if copied == changed:  # so it was JSON already
                return copied
    except (ValueError, TypeError, RecursionError):
        pass  # a lone surrogate, or what is no JSON: the other way says where
    carried = to_json_object(changed)
    if extra:
        extra.update((key, copy_json(value)) for key, value in carried.items() if key in extra)
    return carried


def _check_comes_back(model: Any, codec: Codec, names: Collection[str], data: JSONObject) -> None:
    """Raise ``InvalidValueError`` for a field that would be read as another value than the one that is sent."""
    doubtful = [name for name in names if _is_doubtful(codec, name, model, data)]
    if not doubtful:
        return
    fresh = codec.load(data, "What would be stored could not be read again. ")
    for name in doubtful:
        codec.check_equal(name, model.__dict__[name], fresh.__dict__[name])


def _is_doubtful(codec: Codec, name: str, model: Any, data: JSONObject) -> bool:
    promised = codec.types[name]
    is_lossless = promised.is_lossless and len(codec.read_keys[name]) == 1
    if not is_lossless or name in codec.conditional:
        return True
    # Values of immutable types were validated when they were set.
    return not promised.is_checked_by_dump and type(model.__dict__[name]) not in IMMUTABLE


def is_clean(model: Any, path: PluralPath | None = None) -> bool:
    """Return whether it is a row of a page (of that list), surely unchanged; ``False`` where it must be looked at.

    Setting a field, a key or a permission takes an object out of the envelope that the rows of its page share. So the
    others can only have been edited in place.
    """
    page = shared_page(model)
    if page is None or (path is not None and page.path != path):
        return False
    codec, id = codec_of(type(model)), model.__dict__["id"]
    if id in page.taken:
        return is_same(page.taken[id], without_envelope(page.row(id)))
    if not _edited_in_place(model, codec):
        return True
    as_sent = _texts(page, codec).get(id)
    try:
        return as_sent is not None and codec.write(model, codec.watched) == as_sent
    except InvalidValueError:
        return False


def _texts(page: PageSnapshot, codec: Codec) -> Mapping[str, bytes]:
    """Return the page's values of the fields that can be edited in place, as JSON text, by id."""
    if codec.model not in page.texts:
        try:
            remember_texts(codec.load_page(page.body), page, codec)
        except ValidationError:
            page.texts[codec.model] = {}  # some rows do not fit: they were skipped, or are plain
    return page.texts[codec.model]


def remember_texts(objects: Collection[Any], page: PageSnapshot, codec: Codec) -> None:
    """Keep the fields of the rows as they are now."""
    page.texts[codec.model] = {one.__dict__["id"]: codec.write(one, codec.watched) for one in objects}


def _refuse_naive_datetimes(model: Any, codec: Codec, names: Collection[str], snapshot: JSONObject | None) -> None:
    """Raise ``InvalidValueError`` for a changed datetime without timezone, unless the server sent it so."""
    found = codec.naive_datetimes({name: model.__dict__[name] for name in names})
    if found and snapshot is not None:
        known = {value for _, value in codec.naive_datetimes(codec.load(snapshot).__dict__)}
        found = [one for one in found if one[1] not in known]
    refuse_naive(found)


# -- changes ----------------------------------------------------------------------------------------------------------


class _ScratchEnvelope(Envelope):
    """The envelope of an object during validation: attributes that its validators set are taken unchanged."""

    __slots__ = ()


def set_field(model: Any, name: str, value: Any) -> None:
    """Validate the value and set the field. Raises ``InvalidValueError``."""
    envelope: Envelope = model.__kinto_envelope__()
    if isinstance(envelope, _ScratchEnvelope):
        restore_fields(model, {name: value})
        return
    check_editable(model)
    cls, codec = type(model), codec_of(type(model))
    before = model.__dict__
    # On a scratch copy: with an alias, pydantic's validate_assignment may take the value from somewhere else.
    scratch = bare(cls, dict(before), None)
    if not codec.is_bare:
        own = _ScratchEnvelope(envelope.status)
        own.data, own.extra = envelope.data, envelope.extra
        put_in_envelope(scratch, own)
    try:
        cls.__pydantic_validator__.validate_assignment(scratch, name, value)
    except ValidationError as error:
        raise invalid(cls, error) from error
    now = scratch.__dict__
    values = {name: now[name]}
    if not codec.is_bare:  # a validator of the class may have set other fields
        values.update({field: now[field] for field in codec.wires if now[field] is not before.get(field, MISSING)})
    restore_fields(model, values)


def restore_fields(model: Any, values: Mapping[str, Any]) -> None:
    """Set fields, by their names, to values that are known to be good."""
    envelope: Envelope = model.__kinto_envelope__()
    model.__dict__.update(values)
    model.__pydantic_fields_set__.update(values)
    envelope.touched = envelope.touched.union(values)
    if envelope.absent:
        present = {codec_of(type(model)).wires[name] for name in values}
        envelope.absent = {key: value for key, value in envelope.absent.items() if key not in present}


def set_key(model: Any, key: str, value: Any) -> None:
    """Set one key of the data, by its wire name. Raises ``InvalidValueError``."""
    check_editable(model)
    if not isinstance(key, str):
        raise InvalidTypeError(f"The keys of data are strings, not {say_value(key)}.")
    if key in ENVELOPE_KEYS:
        _refuse_key(key)
    codec = codec_of(type(model))
    if key not in codec.fields:
        own_extra(model)[key] = to_json_value(value, f"data.{key}")
        return
    check_settable(codec.model, [key])
    name = codec.fields[key]
    try:
        wire = to_json_value(value, key)
    except InvalidValueError:
        set_field(model, name, value)  # a set, a model: what the field takes, though it is no JSON
    else:
        _set_wire(model, codec, key, wire)


def _set_wire(model: Any, codec: Codec, key: str, value: JSON) -> None:
    others = {
        other: item for other, item in current_data(model).items() if other not in codec.read_keys[codec.fields[key]]
    }
    fresh = codec.load({**others, key: value})
    values = {codec.fields[key]: fresh.__dict__[codec.fields[key]]}
    if codec.model.__pydantic_decorators__.model_validators:
        # They may have set other fields.
        again, before = codec.dump(fresh), codec.dump(model)
        for other, name in codec.fields.items():
            if not is_same(again.get(other, MISSING), before.get(other, MISSING)):
                values[name] = fresh.__dict__[name]
    restore_fields(model, values)


def remove_key(model: Any, key: str) -> None:
    """Remove one key of the data; a declared field falls back on its default, a required one raises."""
    check_editable(model)
    codec = codec_of(type(model))
    if key not in current_data(model):
        raise KeyError(key)
    if key not in codec.fields:
        del own_extra(model)[key]
        return
    check_settable(codec.model, [key])
    name = codec.fields[key]
    field = codec.model.__pydantic_fields__[name]
    if field.is_required():
        raise InvalidValueError(f"{codec.model.__name__}.{name} is required: data[{key!r}] cannot be removed.")
    model.__dict__[name] = field.get_default(call_default_factory=True, validated_data=dict(model.__dict__))
    model.__pydantic_fields_set__.discard(name)
    envelope: Envelope = model.__kinto_envelope__()
    envelope.touched = envelope.touched - {name}
    envelope.absent = {**envelope.absent, key: codec.dump(model, [name]).get(key, MISSING)}

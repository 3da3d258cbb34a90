"""Construction of a new object from the arguments of its class."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from kinto_orm.errors import InvalidIdError, InvalidTypeError, InvalidValueError, UsageError
from kinto_orm.models.codec import Codec, codec_of, invalid, readable_text
from kinto_orm.models.data import check_editable, check_settable, current_data, replace_extra, restore_fields
from kinto_orm.models.envelope import FRESH, Envelope, is_kinto_object, put_in_envelope
from kinto_orm.models.undeclared import normal
from kinto_orm.protocol.json_values import JSONObject, copy_json, say_value, to_json_object
from kinto_orm.protocol.paths import Kind, check_id
from kinto_orm.repository.state import Status


def known_parent_ids(model: Any) -> tuple[str | None, ...]:
    """Return the ids above the object as far as they are known without asking a client."""
    envelope: Envelope = model.__kinto_envelope__()
    if envelope.path is not None:
        return envelope.path.ids[:-1]
    parent = envelope.parent
    if is_kinto_object(parent):
        return (*known_parent_ids(parent), parent.id)
    if model.__kinto_kind__.parent is None:
        return ()
    if model.__kinto_kind__ is not Kind.RECORD:
        return (_id_of(envelope.bucket) or model.__kinto_bucket__,)
    if is_kinto_object(envelope.collection):
        return (*known_parent_ids(envelope.collection), envelope.collection.id)
    return (_id_of(envelope.bucket) or model.__kinto_bucket__, envelope.collection or model.__kinto_collection__)


def _id_of(bucket: Any) -> str | None:
    id: str | None = bucket.id if is_kinto_object(bucket) else bucket
    return id


def address(model: Any) -> tuple[Any, ...]:
    """Return kind, ids above, and id: equal for the same object."""
    return (model.__kinto_kind__, *known_parent_ids(model), model.__dict__["id"])


def comparable_data(model: Any) -> JSONObject | None:
    """Return the data with each field as the model writes it, whatever the server's spelling is: undeclared keys, at
    every depth, as they are.
    """
    envelope = model.__kinto_envelope__()
    if envelope.status in (Status.REFERENCE, Status.DELETED):
        return None
    data = current_data(model)
    if not data or envelope.is_partial:
        return data
    codec = codec_of(type(model))
    now = codec.dump(model) if codec.fields else {}
    fields = {key: codec.types[codec.fields[key]] for key in now}
    return {
        key: normal(value, now[key], keeps_defaults=not fields[key].varies) if key in now else value
        for key, value in data.items()
    }


def copy_as(model: Any, update: Mapping[str, Any]) -> Any:
    """Return a copy with these fields changed; with another id, a new object of the same data and place."""
    values = dict(update)
    id = values.pop("id", model.__dict__["id"])
    if id == model.__dict__["id"]:
        copied = deepcopy(model)
    else:
        envelope = model.__kinto_envelope__()
        copied = type(model)(id=id, data=copy_json(current_data(model)), client=envelope.client)
        own = copied.__kinto_envelope__()
        if envelope.path is not None:
            model.__kinto_bind_parent__()
        own.parent, own.bucket, own.collection = envelope.parent, envelope.bucket, envelope.collection
        own.record_model = envelope.record_model
    if type(model).model_config.get("frozen") and values:
        codec = codec_of(type(model))
        given = codec.encode(codec.by_wire(values, "model_copy()"))
        fresh = codec.load({**current_data(copied), **given})
        restore_fields(copied, {name: fresh.__dict__[name] for wire, name in codec.fields.items() if wire in given})
        return copied
    for name, value in values.items():
        setattr(copied, name, value)
    return copied


ENVELOPE_ARGUMENTS = ("id", "bucket", "collection", "client", "permissions", "data")


def construct(model: Any, /, *positional: Any, **arguments: Any) -> None:
    """Fill a new object from the arguments; send nothing. Raises ``KintoError`` for arguments that do not fit."""
    cls = type(model)
    codec = codec_of(cls)
    if positional or not arguments.keys() <= codec.fields.keys():
        _construct(model, cls, codec, positional, arguments)
        return
    try:
        made = cls.__pydantic_validator__.validate_python(arguments, self_instance=model, by_alias=True, by_name=False)
    except ValidationError as error:
        raise invalid(cls, error) from error
    if made is not model:
        codec.refuse_returned(made)
    own = model.__dict__
    own["id"] = own["last_modified"] = None
    put_in_envelope(model, FRESH)


def _construct(
    model: Any, cls: type[Any], codec: Codec, positional: tuple[Any, ...], arguments: dict[str, Any]
) -> None:
    """Fill an object that is given more than fields by their wire names."""
    if positional:
        parent = cls.__kinto_parent__
        example = "id=…" if parent is None else f"{parent.__kinto_kind__.value}=…, data=…"
        raise InvalidTypeError(
            f"{cls.__name__} takes keyword arguments only, not {say_value(positional[0])}: "
            f"write {cls.__name__}({example})."
        )
    given = {name: arguments.pop(name) for name in ENVELOPE_ARGUMENTS if name in arguments}
    whole = given.get("data")
    record_model = arguments.pop("model", None) if cls.__kinto_kind__ is Kind.COLLECTION else None
    if whole is not None and arguments:
        raise InvalidTypeError(f"{cls.__name__}: give fields or data=, not both ({', '.join(arguments)}).")
    data = _given_data(whole) if whole is not None else _given_fields(cls, codec, arguments)
    id = _given_id(given.get("id"), data, cls.__kinto_kind__)
    try:
        if whole is None:
            made = cls.__pydantic_validator__.validate_python(data, self_instance=model, by_alias=True, by_name=False)
        else:
            # As JSON, so that strict models read dates and the like as they do in a page.
            text = readable_text(data, codec.fields)
            made = cls.__pydantic_validator__.validate_json(text, self_instance=model, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _refusal(cls, id if not data else None, error) from error
    if made is not model:
        codec.refuse_returned(made)
    model.__dict__.update(id=id, last_modified=None)
    envelope = Envelope(Status.NEW, client=given.get("client"))
    others = {} if data.keys() <= codec.fields.keys() else {k: v for k, v in data.items() if k not in codec.fields}
    envelope.extra = to_json_object(others) if whole is None and others else others
    envelope.given = None if whole is None or codec.is_surely_written else data
    if given:
        _take_parents(cls, envelope, given)
    if record_model is not None:
        if not isinstance(record_model, type) or getattr(record_model, "__kinto_kind__", None) is not Kind.RECORD:
            raise InvalidTypeError(f"model= takes a class of records, not {say_value(record_model)}.")
        envelope.record_model = record_model
    put_in_envelope(model, envelope)
    if given.get("permissions") is not None:
        model.permissions.assign(given["permissions"])


def _refusal(cls: type[Any], id: str | None, error: ValidationError) -> InvalidValueError:
    """Return the error for values that do not fit; ``id`` is that of an object that was given nothing else."""
    refusal = invalid(cls, error)
    if id is None or cls.__kinto_kind__ is not Kind.RECORD:
        return refusal
    return InvalidValueError(
        f"{refusal}. To patch or delete the record of that id without its fields: {cls.__name__}.records.ref({id!r})."
    )


def _given_data(whole: Any) -> JSONObject:
    data = to_json_object(whole)
    data.pop("last_modified", None)  # the server's own: dumps and lists carry it along
    return data


def _given_fields(cls: type[Any], codec: Codec, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the fields, by wire names."""
    by_name, by_wire = codec.wires, codec.fields
    unknown: list[str] = []
    if not (arguments.keys() <= by_name.keys() or cls.__kinto_is_open__):
        unknown = [name for name in arguments if name not in by_name and name not in by_wire]
    if unknown:
        raise InvalidTypeError(
            f"{cls.__name__} has no field {', '.join(map(repr, unknown))}; it has {', '.join(by_name) or 'none'}. "
            "Undeclared keys are given by data={…}."
        )
    return {name if name in by_wire else by_name.get(name, name): value for name, value in arguments.items()}


def _given_id(id: Any, data: JSONObject, kind: Kind) -> str | None:
    inside = data.pop("id", None)
    if inside is not None:
        inside = check_id(inside, "data['id']", kind)
    if id is None:
        return None if inside is None else str(inside)
    checked = check_id(id, kind=kind)
    if inside is not None and inside != checked:
        raise InvalidIdError(f"id={checked!r} and data['id']={inside!r} do not agree.")
    return checked


def _take_parents(cls: type[Any], envelope: Envelope, given: dict[str, Any]) -> None:
    if envelope.client is not None and not hasattr(envelope.client, "__kinto_perform__"):
        raise InvalidTypeError(f"client= takes a Client, not {say_value(envelope.client)}.")
    if given.get("bucket") is None and given.get("collection") is None:
        return
    kind: Kind = cls.__kinto_kind__
    for name, allowed in (("bucket", kind.parent is not None), ("collection", kind is Kind.RECORD)):
        value = given.get(name)
        if value is None:
            continue
        if not allowed:
            raise InvalidTypeError(f"{cls.__name__}() takes no {name}=, for it is of none.")
        if not (is_kinto_object(value) and value.__kinto_kind__.value == name):
            value = check_id(value, name)
        setattr(envelope, name, value)


def replace_data(model: Any, data: JSONObject) -> None:
    """Make this the whole data of the object. Raises ``InvalidValueError`` where it does not fit the model."""
    id = _given_id(None, data, model.__kinto_kind__)
    if id is not None and id != model.id:
        raise InvalidIdError(f"data['id'] is {id!r}, the object's id is {model.id!r}.")
    data.pop("last_modified", None)
    codec = codec_of(type(model))
    if model.__kinto_envelope__().status is not Status.REFERENCE:
        check_editable(model)
    fresh = codec.load(data)
    envelope, old, new = model.__kinto_envelope__(), model.__dict__, fresh.__dict__
    frozen = [name for name, field in type(model).__pydantic_fields__.items() if field.frozen and name in old]
    if changed := [codec.wires[name] for name in frozen if old[name] != new[name]]:
        check_settable(type(model), changed)
    model.__dict__.update({name: new[name] for name in codec.wires})
    object.__setattr__(model, "__pydantic_fields_set__", codec.names_set(fresh, data))
    envelope.touched = frozenset(codec.wires)
    replace_extra(envelope, {key: value for key, value in data.items() if key not in codec.fields})
    dumped = codec.dump(model)
    envelope.absent = {key: dumped[key] for key in codec.fields if key not in data and key in dumped}


_KEPT = ("status", "data", "given", "extra", "before", "touched", "absent", "permissions", "is_partial", "record_model")


def pickled(model: Any) -> dict[str, Any]:
    """Return the envelope as a pickle holds it."""
    envelope = model.__kinto_envelope__()
    if envelope.in_doubt is not None:
        raise UsageError(
            f"{model!r}: the answer to its last write got lost, which a pickle would forget: refresh() it first."
        )
    return {**{name: getattr(envelope, name) for name in _KEPT}, "ids": known_parent_ids(model)}


def unpickle(model: Any, kept: Mapping[str, Any]) -> None:
    """Put the object in the envelope of the pickle."""
    envelope = Envelope(kept["status"])
    for name in _KEPT:
        setattr(envelope, name, kept[name])
    envelope.bucket, envelope.collection = (*kept["ids"], None, None)[:2]
    put_in_envelope(model, envelope)

"""Attributes of models: setting them, and the error for a missing one."""

from __future__ import annotations

from inspect import getattr_static
from typing import Any, NoReturn

from kinto_orm.errors import NotLoadedError, PartialObjectError, ReadOnlyError
from kinto_orm.models.codec import codec_of
from kinto_orm.models.construction import replace_data
from kinto_orm.models.data import set_field, set_key, undeclared
from kinto_orm.models.envelope import shared_row
from kinto_orm.protocol.json_values import to_json_object
from kinto_orm.protocol.paging import ENVELOPE_KEYS

_READ_ONLY = ENVELOPE_KEYS | {"client", "bucket", "collection", "model", "records", "is_new", "is_deleted", "is_dirty"}


def set_attribute(model: Any, name: str, value: Any) -> None:
    """Set a field, a private attribute, or all the data or permissions.

    Raises ``ReadOnlyError`` for everything else.
    """
    cls = type(model)
    if name in cls.__pydantic_fields__:
        set_field(model, name, value)
    elif name == "data":
        replace_data(model, to_json_object(value))
    elif name == "permissions":
        model.permissions.assign(value)
    elif name in cls.__private_attributes__:
        object.__setattr__(model, "__pydantic_private__", {**(model.__pydantic_private__ or {}), name: value})
    elif isinstance(own := getattr_static(cls, name, None), property) and own.fset is not None:
        own.fset(model, value)
    elif cls.__kinto_is_open__ and not hasattr(cls, name):
        set_key(model, name, value)
    elif name in _READ_ONLY:
        raise ReadOnlyError(f"{cls.__name__}.{name} cannot be set: give it to the constructor, or load it.")
    else:
        raise ReadOnlyError(f"{cls.__name__} has no field {name!r}; undeclared keys are set by .data[{name!r}] = ….")


def find_attribute(model: Any, name: str) -> Any:
    """Return a private attribute; else raise the error that fits: the field was not loaded, or does not exist."""
    cls = type(model)
    if name in ENVELOPE_KEYS:
        return None  # pydantic made the object
    if name in _PYDANTIC_SLOTS:
        return _pydantic_slot(model, name)
    if name in cls.__private_attributes__:
        return _private_attribute(model, name)
    if name == "records":
        raise AttributeError(f"records belongs to the class: {cls.__name__}.records; or take .collection.records.")
    if name not in cls.__pydantic_fields__:
        if cls.__kinto_is_open__ and not name.startswith("_") and name in undeclared(model):
            return model.data[name]
        raise AttributeError(f"{cls.__name__} has no attribute {name!r}; undeclared keys are in .data[{name!r}].")
    if model.__kinto_envelope__().is_partial:
        raise PartialObjectError(f"{model!r} was loaded without {name!r} (only()): refresh() it first.")
    raise NotLoadedError(f"{model!r} is a reference, {name!r} was never read: refresh() it first.")


_PYDANTIC_SLOTS = frozenset({"__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})


def _pydantic_slot(model: Any, name: str) -> Any:
    """Fill a slot of an object that was made of a row's dictionary."""
    value = None
    if name == "__pydantic_fields_set__":
        row = shared_row(model)
        value = codec_of(type(model)).names_in(row or model.__kinto_envelope__().data or {})
    object.__setattr__(model, name, value)
    return value


def _private_attribute(model: Any, name: str) -> Any:
    if model.__pydantic_private__ is None:
        model.model_post_init(None)  # a reference: pydantic did not make it
    private: dict[str, Any] = model.__pydantic_private__ or {}
    if name not in private:
        raise AttributeError(f"{type(model).__name__}.{name} was never set.")
    return private[name]


def refuse_deletion(model: Any, name: str) -> NoReturn:
    """Raise ``ReadOnlyError``: attributes stay, keys of the data can be deleted."""
    raise ReadOnlyError(f"{type(model).__name__}.{name} cannot be deleted; a key of the data can: del .data[{name!r}].")

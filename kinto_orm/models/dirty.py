"""Whether a row of a page is as it came, told without looking at what the server sent of it.

To set a field, a key or a permission takes the object out of the envelope that the rows of its page share. So the rows
still in it can only have been edited in place: in the lists and the like that their fields hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import SchemaValidator, core_schema

from kinto_orm.models.envelope import PageSnapshot, shared_page
from kinto_orm.models.fields import field_schemas, validate_page, validator_within, wire_names
from kinto_orm.protocol.json_values import collector_paused
from kinto_orm.protocol.paths import PluralPath

# These very classes: those below them may hold anything. What is equal and of one type is the same on the wire, but
# for times (there are time zones) and decimals (1.0 and 1.00).
_TOLD_BY_EQUALITY = frozenset({str, int, float, bool, type(None), bytes, date, timedelta, UUID})
_IMMUTABLE = _TOLD_BY_EQUALITY | {datetime, time, Decimal}


def is_clean(model: Any, path: PluralPath | None = None) -> bool:
    """Whether it is a row of a page (of that list), surely as it came; ``False`` where that takes a closer look."""
    page = shared_page(model)
    if page is None or (path is not None and page.path != path):
        return False
    held = _editable(model)
    if not held:
        return True
    as_sent = _as_sent(page, type(model)).get(model.__dict__["id"])
    return as_sent is not None and all(
        name in as_sent and _is_surely_same(value, as_sent[name]) for name, value in held.items()
    )


def _editable(model: Any) -> dict[str, Any]:
    """The values of the fields that can be edited in place."""
    own = model.__dict__
    return {name: own[name] for name in _editable_fields(type(model)) if type(own.get(name)) not in _IMMUTABLE}


def _as_sent(page: PageSnapshot, model: type[Any]) -> Mapping[str, Mapping[str, Any]]:
    """For each id, the values that can be edited in place: those of the page validated once more."""
    found = page.editable.get(model)
    if found is None:
        try:
            with collector_paused():
                found = _read_editable(model, page.body)
        except ValidationError:
            found = {}  # some rows do not fit: they were skipped, or are plain
        page.editable[model] = found
    return found


def _read_editable(model: type[Any], body: bytes) -> Mapping[str, Mapping[str, Any]]:
    validator = _editable_validator(model)
    if validator is None:
        return {one.id: _editable(one) for one in validate_page(model, body)}
    return {row["id"]: row for row in validator.validate_json(body)["data"]}


def _find_editable_fields(model: type[Any]) -> tuple[str, ...]:
    schemas = field_schemas(model.__pydantic_core_schema__)
    return tuple(name for name, schema in schemas.items() if not _is_immutable(schema["schema"]))


# ``Any`` as in fields.py: a class is hashable.
_once: Any = lru_cache(maxsize=4096)
_editable_fields: Callable[[type[Any]], tuple[str, ...]] = _once(_find_editable_fields)

_OF_IMMUTABLES = frozenset(
    {"str", "int", "float", "bool", "none", "bytes", "date", "time", "datetime", "timedelta", "uuid", "decimal"}
)


def _is_immutable(schema: Any) -> bool:
    """Whether the values of this schema are surely of immutable types."""
    kind = schema["type"]
    if kind == "default":
        has_immutable = "default_factory" not in schema and type(schema["default"]) in _IMMUTABLE
        return has_immutable and _is_immutable(schema["schema"])
    return kind in _OF_IMMUTABLES or (kind == "nullable" and _is_immutable(schema["schema"]))


def _make_editable_validator(model: type[Any]) -> SchemaValidator | None:
    """A validator of these fields alone; ``None`` where a validator of the whole model may set them."""
    decorators = model.__pydantic_decorators__
    if decorators.model_validators or decorators.root_validators or model.__pydantic_post_init__ is not None:
        return None
    schema = model.__pydantic_core_schema__
    schemas = field_schemas(schema)
    fields = {
        name: core_schema.typed_dict_field(
            schemas[name]["schema"], required=False, validation_alias=wire_names(model).get(name, name)
        )
        for name in ("id", *_editable_fields(model))
    }
    rows = core_schema.list_schema(core_schema.typed_dict_schema(fields))
    page = core_schema.typed_dict_schema({"data": core_schema.typed_dict_field(rows)})
    return validator_within(schema, page)


_editable_validator: Callable[[type[Any]], SchemaValidator | None] = _once(_make_editable_validator)


def _is_surely_same(one: Any, other: Any) -> bool:
    # A random default differs each time, a model or a set may hold a True in the place of a 1: a closer look is taken.
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(_is_surely_same(value, other[key]) for key, value in one.items())
    if type(one) is list or type(one) is tuple:
        return len(one) == len(other) and all(map(_is_surely_same, one, other))
    if isinstance(one, Enum):
        return one is other
    return type(one) in _TOLD_BY_EQUALITY and bool(one == other)

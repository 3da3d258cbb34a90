"""The declared fields of a model: read from the wire, written for the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaValidator, core_schema, to_json
from typing_extensions import TypedDict

from kinto_orm.errors import InvalidTypeError, InvalidValueError
from kinto_orm.models.metaclass import HIDDEN_FIELDS, wire_name
from kinto_orm.protocol.json_values import JSONObject

V = TypeVar("V", bound=BaseModel)

WIRE = {"kinto_orm": "wire"}
"""The context in which a model is written for the server; only in this very one a password is."""


def _declared_fields(model: type[Any]) -> Mapping[str, str]:
    names = {_checked_name(model, name): name for name in model.__pydantic_fields__ if name not in HIDDEN_FIELDS}
    return MappingProxyType(names)


def _wire_names(model: type[Any]) -> Mapping[str, str]:
    return MappingProxyType({name: wire for wire, name in declared_fields(model).items()})


# Asked several times for each record; the bound keeps programs that make classes all the time from growing.
# ``Any``, because a class is hashable, and checkers do not know it of one with a metaclass of its own.
_once: Any = lru_cache(maxsize=4096)

declared_fields: Callable[[type[Any]], Mapping[str, str]] = _once(_declared_fields)
"""The model's fields: wire name to field name."""

wire_names: Callable[[type[Any]], Mapping[str, str]] = _once(_wire_names)
"""The model's fields the other way round: field name to wire name."""


def _checked_name(model: type[Any], name: str) -> str:
    """The wire name of the field. Raises ``InvalidTypeError`` where it is read by another one: it would get lost."""
    wire, alias = wire_name(model, name), model.__pydantic_fields__[name].validation_alias
    read = alias.choices if isinstance(alias, AliasChoices) else [name if alias is None else alias]
    if wire not in read:
        raise InvalidTypeError(
            f"{model.__name__}.{name} is written as {wire!r} and read as {', '.join(map(repr, read))}: give the field "
            f"validation_alias={wire!r} and serialization_alias={wire!r}."
        )
    return wire


def validate_wire(model: type[V], data: JSONObject) -> V:
    """A model of this data, by wire names. Raises pydantic's ``ValidationError``."""
    # Through JSON text, so that strict models read dates and the like as they do in a page.
    made: V = model.__pydantic_validator__.validate_json(to_json(data), by_alias=True, by_name=False)
    return made


def validate_page(model: type[V], body: bytes) -> list[V]:
    """The objects of a whole page, in one call. Raises pydantic's ``ValidationError``."""
    made: list[V] = _page_adapter(model).validate_json(body, by_alias=True, by_name=False)["data"]
    return made


def validate_rows(model: type[V], rows: list[JSONObject]) -> list[V]:
    """Like :func:`validate_page`, of decoded rows; for models without fields (others may be strict about dates)."""
    made: list[V] = _page_adapter(model).validate_python({"data": rows}, by_alias=True, by_name=False)["data"]
    return made


def _page_adapter(model: type[Any]) -> TypeAdapter[Any]:
    adapter: TypeAdapter[Any] | None = model.__dict__.get("__kinto_page__")
    if adapter is None:
        # A TypedDict of this very model, made at run time: no annotation can say it.
        adapter = TypeAdapter(_make_page_type(model))
        type.__setattr__(model, "__kinto_page__", adapter)
    return adapter


def _make_page_type(model: type[Any]) -> Any:
    make: Any = TypedDict
    row: Any = model
    return make("Page", {"data": list[row]})


def validated(model: type[V], data: JSONObject, what: str = "") -> V:
    """Like :func:`validate_wire`; raises ``InvalidValueError``, in which ``what`` says what does not fit."""
    try:
        return validate_wire(model, data)
    except ValidationError as error:
        raise invalid(model, error, what) from error


def invalid(model: type[Any], error: ValidationError, what: str = "") -> InvalidValueError:
    """pydantic's complaint as ours; ``what`` says of what."""
    complaints = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or model.__name__}: {one['msg']}" for one in error.errors(include_url=False)
    )
    return InvalidValueError(f"{what}{model.__name__}: {complaints[:600]}")


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
    fields = core_schema.typed_dict_schema(
        {
            name: core_schema.typed_dict_field(
                one["schema"], required=False, validation_alias=one.get("serialization_alias", name)
            )
            for name, one in field_schemas(schema).items()
        }
    )
    return validator_within(schema, fields)


def field_schemas(schema: Any) -> dict[str, Any]:
    """The schema of each field in pydantic's schema of a model, by the field's name."""
    found: dict[str, Any] = _layers(schema)[-1]["fields"]
    return found


def validator_within(schema: Any, part: Any) -> SchemaValidator:
    """A validator of something made of the fields of a model, with the model's settings and definitions."""
    layers = _layers(schema)
    config = next((one["config"] for one in reversed(layers) if "config" in one), None)
    definitions: list[Any] = next((one["definitions"] for one in reversed(layers) if one["type"] == "definitions"), [])
    return SchemaValidator(core_schema.definitions_schema(part, definitions) if definitions else part, config)


def _layers(schema: Any) -> list[Any]:
    """pydantic's schema of a model, and what is in it, down to the one with the fields."""
    definitions: list[Any] = []
    layers = [schema]
    while schema["type"] != "model-fields":
        definitions = schema.get("definitions", definitions)
        if schema["type"] == "definition-ref":
            schema = next(one for one in definitions if one["ref"] == schema["schema_ref"])
        else:
            schema = schema["schema"]
        layers.append(schema)
    return layers


def dump_declared(model: Any) -> JSONObject:
    """The declared fields, by wire names, in JSON types."""
    try:
        dumped: JSONObject = model.__pydantic_serializer__.to_python(
            model, mode="json", by_alias=True, round_trip=True, warnings="error", context=WIRE
        )
    except PydanticSerializationError as error:
        # A list of the object took a value of another type: nobody validates what is changed in place.
        raise InvalidValueError(f"This {type(model).__name__} cannot be written as JSON: {error}") from error
    return dumped


def dump_text(model: Any, warnings: Literal["error", False] = "error") -> bytes | None:
    """The declared fields as JSON text, in half the time; ``None`` where only :func:`dump_declared` says what is
    wrong with them. Without warnings values of wrong types are written, too: it takes a third of the time."""
    try:
        dumped: bytes = model.__pydantic_serializer__.to_json(
            model, by_alias=True, round_trip=True, warnings=warnings, context=WIRE
        )
    except ValueError:  # pydantic's error is one, too
        return None
    return dumped


@dataclass
class FieldsBefore:
    """The fields as the server's data makes them: what untouched ones look like."""

    model: type[Any]
    snapshot: JSONObject
    names: AbstractSet[str]
    """The names of the fields that the server's data set."""
    fields: JSONObject

    @classmethod
    def read(cls, model: type[Any], snapshot: JSONObject) -> FieldsBefore:
        """Those that an object made of this data would have."""
        made = _made_of(model, snapshot)
        return cls(model, snapshot, made.model_fields_set, dump_declared(made))

    @cached_property
    def again(self) -> JSONObject:
        """Those of one more such object: a random default differs."""
        return dump_declared(_made_of(self.model, self.snapshot))


def _made_of(model: type[Any], snapshot: JSONObject) -> Any:
    fields = declared_fields(model)
    return validate_wire(model, {key: value for key, value in snapshot.items() if key in fields})


_TIMELESS = frozenset({str, int, float, bool, type(None)})


def _is_timeless(value: Any) -> bool:
    """Whether it is surely no datetime, nor a list that holds one."""
    kind = type(value)
    return kind in _TIMELESS or (kind is list and _TIMELESS.issuperset(map(type, value)))


def naive_datetimes(value: Any, path: str) -> Iterator[tuple[str, datetime]]:
    """The datetimes without timezone in the value, however deep, with their paths."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            yield path, value
    elif isinstance(value, (dict, BaseModel)):
        for key, item in (value if isinstance(value, dict) else value.__dict__).items():
            if type(item) not in _TIMELESS:
                yield from naive_datetimes(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            if type(item) not in _TIMELESS:
                yield from naive_datetimes(item, f"{path}[{index}]")


def refuse_naive_datetimes(model: Any, changed: JSONObject, snapshot: JSONObject | None) -> None:
    """Raises ``InvalidValueError`` for a datetime without timezone among what changed, unless the server sent it so."""
    fields = declared_fields(type(model))
    own = model.__dict__
    values = {key: own[fields[key]] for key in changed if key in fields and not _is_timeless(own[fields[key]])}
    found = list(naive_datetimes(values, "data")) if values else []
    if not found:
        return
    known: set[datetime] = set()
    if snapshot is not None:
        before = validate_wire(type(model), {key: value for key, value in snapshot.items() if key in fields})
        known = {value for _, value in naive_datetimes(before, "")}
    for path, value in found:
        if value not in known:  # else the server sent it so
            raise InvalidValueError(
                f"{path}: {value} has no timezone; use datetime.now(timezone.utc) or .replace(tzinfo=…)."
            )

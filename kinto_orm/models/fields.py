"""The declared fields of a model: read from the wire, written for the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaValidator, core_schema, to_json
from typing_extensions import TypedDict

from kinto_orm.errors import InvalidTypeError, InvalidValueError
from kinto_orm.models.metaclass import HIDDEN_FIELDS, wire_name
from kinto_orm.protocol.values import JSONObject

V = TypeVar("V", bound=BaseModel)

WIRE = {"kinto_orm": "wire"}
"""The context in which a model is written for the server; only in this very one a password is."""


def declared_fields(model: type[Any]) -> Mapping[str, str]:
    """The model's fields: wire name to field name."""
    found: Mapping[str, str] | None = model.__dict__.get("__kinto_fields__")
    if found is None:
        names = {_checked_name(model, name): name for name in model.__pydantic_fields__ if name not in HIDDEN_FIELDS}
        found = MappingProxyType(names)
        type.__setattr__(model, "__kinto_fields__", found)
    return found


def wire_names(model: type[Any]) -> Mapping[str, str]:
    """The model's fields the other way round: field name to wire name."""
    found: Mapping[str, str] | None = model.__dict__.get("__kinto_wire_names__")
    if found is None:
        found = MappingProxyType({name: wire for wire, name in declared_fields(model).items()})
        type.__setattr__(model, "__kinto_wire_names__", found)
    return found


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
            model, mode="json", by_alias=True, round_trip=True, warnings="error", context=WIRE
        )
    except PydanticSerializationError as error:
        # A list of the object took a value of another type: nobody validates what is changed in place.
        raise InvalidValueError(f"This {type(model).__name__} cannot be written as JSON: {error}") from error
    return dumped


class FieldsBefore:
    """The fields as the server's data makes them: what untouched ones look like."""

    def __init__(self, model: type[Any], snapshot: JSONObject) -> None:
        self.snapshot = snapshot
        self._model = model
        fields = declared_fields(model)
        self._data = {key: value for key, value in snapshot.items() if key in fields}
        made = validate_wire(model, self._data)
        self.names = made.model_fields_set
        """The names of the fields that the server's data set."""
        self.fields = dump_declared(made)

    @cached_property
    def again(self) -> JSONObject:
        """The same once more: a random default differs."""
        return dump_declared(validate_wire(self._model, self._data))


_TIMELESS = frozenset({str, int, float, bool, type(None)})


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

"""Types of fields: how their values are written for the server, and what each type promises about that.

Everything is read from pydantic's core schema of a class, once. A type of which nothing is known promises nothing.
https://docs.pydantic.dev/latest/api/pydantic_core_schema/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Flag
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

from pydantic_core import PydanticSerializationUnexpectedValue, core_schema

from kinto_orm.protocol.json_values import JSON, JSONObject, datetime_text, sorted_set
from kinto_orm.protocol.merge import Places

IMMUTABLE = frozenset({str, int, float, bool, type(None), bytes, date, timedelta, UUID, datetime, time, Decimal})
"""These very classes: those below them may hold anything."""

Order: TypeAlias = Literal["number", "text", "bool", "plain", ""]
"""The order that the server has for the values: that of numbers, a text in the order of the values, that of booleans,
that of each JSON value; empty where it is another one than theirs."""

Config: TypeAlias = Mapping[str, Any]
"""pydantic's settings of a class, as its core schema has them."""

_ORDERED = "kinto_orm_ordered_text"


class OrderedText:
    """A mark in an annotation: the texts that the field is written as are in the order of its values.

    Conditions and ``order_by()`` then take the field; equal values must have equal texts.
    ``Annotated[Decimal, PlainSerializer(fixed_width, return_type=str), OrderedText()]``.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        schema = dict(handler(source))
        return {**schema, "metadata": {**schema.get("metadata", {}), _ORDERED: True}}


class FieldType(NamedTuple):
    """The promises of a type; by default there are none."""

    is_lossless: bool = False
    """Whether each value that is written comes back equal."""
    is_checked_by_dump: bool = False
    """Whether the serializer refuses every value that validation would refuse."""
    is_immutable: bool = False
    order: Order = ""
    has_one_spelling: bool = False
    """Whether equal values are written alike, and different ones are not."""
    holds_times: bool = False
    """Whether a datetime or a time may be in the value: equal ones may have several time zones, or none."""
    varies: bool = False
    """Whether defaults inside may differ each time that they are made."""


_SCALAR = FieldType(is_lossless=True, is_checked_by_dump=True, is_immutable=True, has_one_spelling=True)
_NUMBER = _SCALAR._replace(order="number")
_TEXT = _SCALAR._replace(order="text")
_ANY = FieldType(order="plain", has_one_spelling=True, holds_times=True)

_SIMPLE: Mapping[str, FieldType] = {
    "any": _ANY,
    "none": _SCALAR._replace(order="plain"),
    "bool": _SCALAR._replace(order="bool"),
    "int": _NUMBER,
    "float": _NUMBER,
    "str": _TEXT,
    "uuid": _TEXT,
    "date": _TEXT,
    "time": _TEXT._replace(holds_times=True, is_lossless=False),  # seconds of an offset are not written
    "datetime": _TEXT._replace(holds_times=True),
    "timedelta": _SCALAR,
    "decimal": _SCALAR._replace(has_one_spelling=False),
    "url": FieldType(has_one_spelling=True),
    "multi-host-url": FieldType(has_one_spelling=True),
}

# The keys of a schema that say more of the values than their type does.
_TEXT_LIMITS = ("pattern", "min_length", "max_length", "strip_whitespace", "to_lower", "to_upper", "ascii_only")
_NUMBER_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "max_digits", "decimal_places", "allow_inf_nan")
_LIMITS = (*_TEXT_LIMITS, *_NUMBER_LIMITS, "now_op", "tz_constraint", "version", "fail_fast")

_PLAIN_CONTAINERS = frozenset({"list", "set", "frozenset", "tuple", "dict", "deque"})
_STEADY_FACTORIES = frozenset({list, dict, set, tuple, frozenset, str, int, float, bool, bytes})

# The keys of a schema that hold another schema; `items_schema` of a tuple is a list of them.
_CHILDREN = (
    *("schema", "items_schema", "keys_schema", "values_schema", "extras_schema", "arguments_schema", "return_schema"),
    *("lax_schema", "strict_schema", "json_schema", "python_schema", "steps", "definitions", "choices", "fields"),
)


_OF_FIELDS = frozenset({"model-fields", "typed-dict", "dataclass-args"})

_KINDS: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "none": type(None)}

Kinds: TypeAlias = frozenset[type]


def exact_kinds(schema: Any) -> tuple[Kinds, Kinds] | None:
    """Return the very types of the values that the schema makes, and of the items of lists; ``None``: unknown."""
    kind = schema["type"]
    if "serialization" in schema:
        return None
    if kind in _KINDS:
        return frozenset({_KINDS[kind]}), frozenset()
    if kind == "default":
        return exact_kinds(schema["schema"])
    if kind not in ("nullable", "list"):
        return None
    inner = exact_kinds(schema["schema" if kind == "nullable" else "items_schema"]) if len(schema) > 1 else None
    if inner is None or (kind == "list" and list in inner[0]):
        return None
    return (inner[0] | {type(None)}, inner[1]) if kind == "nullable" else (frozenset({list}), inner[0])


def _map_children(schema: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of the schema with each schema directly inside it changed."""
    return {**schema, **{key: _map(schema[key], change) for key in _CHILDREN if key in schema}}


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_map(one, change) for one in value]
    if isinstance(value, tuple):  # a choice of a union, with its label
        return (change(value[0]), *value[1:])
    if not isinstance(value, dict) or isinstance(value.get("type"), str):
        return change(value) if isinstance(value, dict) else value
    if isinstance(value.get("name"), str):  # an argument of a function
        return _map_children(value, change)
    return {key: change(one) for key, one in value.items()}  # fields by name, choices by tag


def _children(schema: Any) -> list[Any]:
    found: list[Any] = []

    def keep(one: Any) -> Any:
        found.append(one)
        return one

    _map_children(schema, keep)
    return found


def _config_of(schema: Any, config: Config) -> Config:
    # The settings of a class are not those of the classes in its fields.
    found: Config = schema.get("config", {} if schema["type"] in ("model", "dataclass") else config)
    return found


def finite_schema(schema: Any) -> Any:
    """Return the schema with floats that are finite: in JSON, another one is a number too large for a float."""
    finite = _map_children(schema, finite_schema)
    return {**finite, "allow_inf_nan": False} if finite["type"] == "float" else finite


# -- the schema that values are written by ----------------------------------------------------------------------------


def wire_schema(schema: Any, config: Config) -> Any:
    """Return the schema with the serializers of the wire.

    They write aware datetimes in UTC, sets in one order, and secrets as they are.
    """
    config = _config_of(schema, config)
    written = _map_children(schema, lambda one: wire_schema(one, config))
    own = written.get("serialization")
    if _is_secret(schema):
        inner = written["json_schema"]["schema"]
        return {**written, "serialization": _plainly(_write_secret, inner)}
    if own is not None:
        return {**written, "serialization": _own_serializer(own, schema, config)}
    if written["type"] == "datetime" and _writes_text(config):
        return {**written, "serialization": _plainly(_write_datetime, core_schema.str_schema())}
    if written["type"] in ("set", "frozenset"):
        serializer = core_schema.wrap_serializer_function_ser_schema(
            _write_set, schema=written, return_schema=core_schema.any_schema(), when_used="json"
        )
        return {**written, "serialization": serializer}
    return written


def _plainly(write: Callable[[Any], Any], inner: Any) -> Any:
    return core_schema.plain_serializer_function_ser_schema(write, return_schema=inner, when_used="json")


def _own_serializer(own: Any, schema: Any, config: Config) -> Any:
    """Return a serializer of pydantic's or the user's, whose handler writes as the wire does."""
    inner = {
        key: wire_schema(own[key], config) for key in ("schema", "return_schema") if isinstance(own.get(key), dict)
    }
    if own["type"] == "function-wrap" and "schema" not in own:
        bare = {key: value for key, value in schema.items() if key != "serialization"}
        inner["schema"] = wire_schema(bare, config)
    return {**own, **inner}


def _is_secret(schema: Any) -> bool:
    # pydantic's functions write secrets as stars, also those of the subclasses of its secrets.
    function = schema.get("serialization", {}).get("function")
    return getattr(function, "__module__", "") == "pydantic.types" and function.__name__.startswith("_serialize_secret")


def _writes_text(config: Config) -> bool:
    return bool(config.get("ser_json_temporal", "iso8601") == "iso8601")


def _write_secret(value: Any) -> Any:
    try:
        return value.get_secret_value()
    except AttributeError:
        raise PydanticSerializationUnexpectedValue("Expected a secret") from None


def _write_datetime(value: Any) -> str:
    if not isinstance(value, datetime):
        raise PydanticSerializationUnexpectedValue(f"Expected a datetime, not {type(value).__name__}")
    return datetime_text(value)


def _write_set(value: Any, write: Callable[[Any], Any]) -> Any:
    return sorted_set(write(value))


# -- the keys that values are written by ------------------------------------------------------------------------------


def respell(stored: JSON, before: JSON, schema: Any, definitions: Mapping[str, Any]) -> JSON:
    """Return what the server stored by the keys that the type writes, as they are in ``before``.

    Fields may be read by other names, and the keys of dictionaries have other spellings where they are no plain text.
    Undeclared keys stay, and so does what a union or a serializer of the user's writes.
    """
    kind = schema["type"]
    if "serialization" in schema:
        return stored
    if kind == "definition-ref":
        return respell(stored, before, definitions[schema["schema_ref"]], definitions)
    if isinstance(stored, dict) and isinstance(before, dict):
        if kind in _OF_FIELDS:
            return _with_own_names(stored, before, schema["fields"], definitions)
        if kind == "dict" and "values_schema" in schema:
            if len(stored) != len(before):  # a key in two spellings
                return before
            items = zip(before.items(), stored.values(), strict=True)
            return {key: respell(value, old, schema["values_schema"], definitions) for (key, old), value in items}
    if isinstance(stored, list) and isinstance(before, list) and kind in ("list", "tuple"):
        kinds = _children(schema)
        kinds = kinds * len(before) if len(kinds) == 1 else kinds
        if len(stored) == len(before) == len(kinds):
            return [respell(*item, definitions) for item in zip(stored, before, kinds, strict=True)]
    return respell(stored, before, schema["schema"], definitions) if "schema" in schema else stored


def _with_own_names(stored: JSONObject, before: JSONObject, fields: Any, definitions: Mapping[str, Any]) -> JSONObject:
    own = dict(stored)
    named = fields if isinstance(fields, dict) else {one["name"]: one for one in fields}
    wires = {name: one.get("serialization_alias", name) for name, one in named.items()}
    for name, wire in wires.items():
        alias = named[name].get("validation_alias", name)
        choices = [[alias]] if isinstance(alias, str) else alias if isinstance(alias[0], list) else [alias]
        read = next((path[0] for path in choices if len(path) == 1 and path[0] in stored), wire)
        if read in stored and wire in before:
            own[wire] = respell(stored[read], before[wire], named[name]["schema"], definitions)
            if read not in wires.values():
                del own[read]
    return own


# -- promises ---------------------------------------------------------------------------------------------------------


class Promises:
    """The promises of types, read from the core schema of one class."""

    def __init__(self, definitions: Iterable[Any]) -> None:
        self.definitions = {one["ref"]: one for one in definitions}
        self.known: dict[str, FieldType] = {}

    def of(self, schema: Any, config: Config) -> FieldType:
        """Return the promises of a type."""
        config = _config_of(schema, config)
        kind, own = schema["type"], schema.get("serialization")
        if _is_secret(schema):
            inner = self.of(schema["json_schema"]["schema"], config)
            return FieldType(is_immutable=inner.is_immutable, holds_times=inner.holds_times, varies=inner.varies)
        if kind in _SIMPLE:
            found = _of_simple(kind, schema, config)
        elif kind in _READERS:
            found = _READERS[kind](self, schema, config)
        else:
            found = FieldType(holds_times=True)
        if own is not None and own["type"] != "include-exclude-sequence":
            found = _written_by(own, found)
        if schema.get("metadata", {}).get(_ORDERED):
            found = found._replace(order="text", has_one_spelling=True)
        return found


_UNCERTAIN: Mapping[str, Any] = {"is_lossless": False, "is_checked_by_dump": False, "is_immutable": False}


def _bytes(promises: Promises, schema: Any, config: Config) -> FieldType:
    read, written = config.get("val_json_bytes", "utf8"), config.get("ser_json_bytes", "utf8")
    is_text = read == written == "utf8"
    return _TEXT._replace(is_lossless=read == written, is_checked_by_dump=is_text and not _is_limited(schema))


def _enum(promises: Promises, schema: Any, config: Config) -> FieldType:
    kind = schema["cls"]
    order: Order = "number" if issubclass(kind, int) else "text" if issubclass(kind, str) else ""
    has_simple_values = all(type(one.value) in (str, int) for one in schema["members"])
    return _SCALAR._replace(is_lossless=has_simple_values and not issubclass(kind, Flag), order=order)


def _literal(promises: Promises, schema: Any, config: Config) -> FieldType:
    kinds = set(map(type, schema["expected"]))
    order: Order = "text" if kinds == {str} else "number" if kinds == {int} else ""
    return _SCALAR._replace(is_lossless=kinds <= {str, int, bool, type(None)}, order=order)


def _default(promises: Promises, schema: Any, config: Config) -> FieldType:
    inner, factory = promises.of(schema["schema"], config), schema.get("default_factory")
    has_immutable = factory is None and type(schema.get("default")) in IMMUTABLE
    varies = factory is not None and factory not in _STEADY_FACTORIES
    return inner._replace(is_immutable=inner.is_immutable and has_immutable, varies=inner.varies or varies)


def _inner(promises: Promises, schema: Any, config: Config) -> FieldType:
    return promises.of(schema["schema"], config)


def _validated(promises: Promises, schema: Any, config: Config) -> FieldType:
    # A validator may make anything of what it reads.
    return promises.of(schema["schema"], config)._replace(**_UNCERTAIN)


def _read_from_json(promises: Promises, schema: Any, config: Config) -> FieldType:
    # Several ways of reading: the one for JSON counts. Its values may be of a class that JSON text is made into.
    key = next(key for key in ("strict_schema", "json_schema") if key in schema)
    return promises.of(schema[key], config)._replace(**_UNCERTAIN)


def _union(promises: Promises, schema: Any, config: Config) -> FieldType:
    # Of two types one may read what the other has written.
    return _joined([promises.of(one, config) for one in _children(schema)])._replace(is_lossless=False)


def _container(promises: Promises, schema: Any, config: Config) -> FieldType:
    inner = [promises.of(one, config) for one in _children(schema)]
    keys = [promises.of(schema["keys_schema"], config)] if "keys_schema" in schema else []
    # A key that may be null, or a name for such a type, is written as a text: None and "None" would be one key.
    has_text_keys = schema.get("keys_schema", {}).get("type") not in ("nullable", "definition-ref", "definitions")
    joined, is_plain = _joined(inner), schema["type"] in _PLAIN_CONTAINERS
    return joined._replace(
        is_lossless=is_plain and joined.is_lossless and has_text_keys and all(one == _TEXT for one in keys),
        is_checked_by_dump=is_plain and joined.is_checked_by_dump and not _is_limited(schema),
        is_immutable=False,
        order="",
    )


def _json_text(promises: Promises, schema: Any, config: Config) -> FieldType:
    inner = promises.of(schema["schema"], config) if "schema" in schema else _ANY
    # A text has several spellings: the keys of an object have no order, 1 equals 1.0.
    return inner._replace(**_UNCERTAIN, order="", has_one_spelling=False)


def _object(promises: Promises, schema: Any, config: Config) -> FieldType:
    # An object of a subclass would come back as one of the class: each write is checked.
    return promises.of(schema["schema"], config)._replace(**_UNCERTAIN, order="")


def _fields(promises: Promises, schema: Any, config: Config) -> FieldType:
    inner = [promises.of(one["schema"], config) for one in _children(schema)]
    return _joined(inner)._replace(**_UNCERTAIN, order="")


def _reference(promises: Promises, schema: Any, config: Config) -> FieldType:
    ref = schema["schema_ref"]
    if ref not in promises.known:
        promises.known[ref] = FieldType(has_one_spelling=True)  # where a class holds itself
        promises.known[ref] = promises.of(promises.definitions[ref], config)
    return promises.known[ref]


def _with_definitions(promises: Promises, schema: Any, config: Config) -> FieldType:
    promises.definitions.update({one["ref"]: one for one in schema["definitions"]})
    return promises.of(schema["schema"], config)


_READERS: Mapping[str, Callable[[Promises, Any, Config], FieldType]] = {
    "bytes": _bytes,
    "enum": _enum,
    "literal": _literal,
    "default": _default,
    "nullable": _inner,
    "function-after": _validated,
    "function-before": _validated,
    "function-wrap": _validated,
    "custom-error": _validated,
    "lax-or-strict": _read_from_json,
    "json-or-python": _read_from_json,
    "chain": lambda promises, schema, config: promises.of(schema["steps"][-1], config)._replace(**_UNCERTAIN),
    "union": _union,
    "tagged-union": _union,
    "list": _container,
    "tuple": _container,
    "set": _container,
    "frozenset": _container,
    "dict": _container,
    "deque": _container,
    "ordered-dict": _container,
    "json": _json_text,
    "model": _object,
    "dataclass": _object,
    "model-fields": _fields,
    "typed-dict": _fields,
    "dataclass-args": _fields,
    "definition-ref": _reference,
    "definitions": _with_definitions,
}


def _of_simple(kind: str, schema: Any, config: Config) -> FieldType:
    found = _SIMPLE[kind]
    is_number = (kind == "timedelta" and config.get("ser_json_timedelta", "iso8601") != "iso8601") or (
        kind in ("date", "time", "datetime") and not _writes_text(config)
    )
    if is_number:  # which may be rounded
        return FieldType(is_immutable=True, order="number", has_one_spelling=True, holds_times=found.holds_times)
    return found._replace(is_checked_by_dump=found.is_checked_by_dump and not _is_limited(schema))


def _is_limited(schema: Any) -> bool:
    return any(schema.get(one) is not None for one in _LIMITS)


def _joined(types: Iterable[FieldType]) -> FieldType:
    inner = list(types)
    orders = {one.order for one in inner}
    return FieldType(
        is_lossless=all(one.is_lossless for one in inner),
        is_checked_by_dump=all(one.is_checked_by_dump for one in inner),
        is_immutable=all(one.is_immutable for one in inner),
        order=inner[0].order if len(orders) == 1 else "",
        has_one_spelling=all(one.has_one_spelling for one in inner),
        holds_times=any(one.holds_times for one in inner),
        varies=any(one.varies for one in inner),
    )


def _written_by(own: Any, inner: FieldType) -> FieldType:
    """Return the promises of values that a function writes."""
    is_number = own.get("return_schema", {}).get("type") in ("int", "float")
    # Equal texts come of equal values that nothing can tell apart; equal numbers of all equal values.
    has_one_spelling = is_number or (inner.has_one_spelling and not inner.holds_times)
    return inner._replace(
        is_lossless=False,
        is_checked_by_dump=False,
        order="number" if is_number else "",
        has_one_spelling=has_one_spelling,
    )


# -- places -----------------------------------------------------------------------------------------------------------


class Finder:
    """The finder of the places of secrets, or of sets, in the values of fields."""

    def __init__(self, definitions: Iterable[Any], is_there: Callable[[Any], bool], *, in_any_choice: bool) -> None:
        self.definitions = {one["ref"]: one for one in definitions}
        self.is_there = is_there
        self.in_any_choice = in_any_choice
        """Whether a choice of a union that has a place is enough; else all of them must have the same."""
        self.known: dict[str, Places] = {}

    def in_fields(self, fields: Mapping[str, Any]) -> dict[str, Places]:
        """Return the places by wire name."""
        found = {one.get("serialization_alias", name): self.of(one["schema"]) for name, one in fields.items()}
        return {wire: places for wire, places in found.items() if places is not None}

    def of(self, schema: Any) -> Places:
        """Return the places in the values of a type."""
        kind = schema["type"]
        if self.is_there(schema):
            return True
        if kind == "definition-ref":
            return self._of_reference(schema["schema_ref"])
        if kind in _OF_FIELDS:
            given = schema["fields"]
            return self.in_fields(given if isinstance(given, dict) else {one["name"]: one for one in given}) or None
        if kind == "definitions":
            self.definitions.update({one["ref"]: one for one in schema["definitions"]})
            return self.of(schema["schema"])
        joined = self._joined(list(map(self.of, _children(schema))), is_union="union" in kind)
        if joined is None or kind not in _WITH_ITEMS:
            return joined
        return [joined] if kind != "json" else self.in_any_choice or None  # a text is hidden whole

    def _of_reference(self, ref: str) -> Places:
        if ref not in self.known:
            # Where a class holds itself, its places are found by the same mapping again.
            places = self.known[ref] = {}
            found = self.of(self.definitions[ref])
            if isinstance(found, dict):
                places.update(found)
            else:
                self.known[ref] = found
        return self.known[ref]

    def _joined(self, found: list[Places], *, is_union: bool) -> Places:
        places = found if is_union and not self.in_any_choice else [one for one in found if one is not None]
        if all(_is_same_place(one, places[0]) for one in places):
            return places[0] if places else None
        if not self.in_any_choice:
            return None
        if all(isinstance(one, dict) for one in places):
            return {key: value for one in places for key, value in one.items()}
        return True


_WITH_ITEMS = frozenset({"list", "tuple", "set", "frozenset", "dict", "deque", "ordered-dict", "json"})


def find_secrets(definitions: Iterable[Any], fields: Mapping[str, Any]) -> dict[str, Places]:
    """Return the places of secrets in the fields, by wire name."""
    found = Finder(definitions, _is_secret, in_any_choice=True).in_fields(fields)
    return {wire: places for wire, places in found.items() if any(one is True for one in _places_below(places, set()))}


def find_texts(definitions: Iterable[Any], fields: Mapping[str, Any]) -> dict[str, Places]:
    """Return the places of JSON that is written as a text in the fields, by wire name."""
    return Finder(definitions, lambda one: one["type"] == "json", in_any_choice=False).in_fields(fields)


def find_sets(definitions: Iterable[Any], fields: Mapping[str, Any]) -> dict[str, Places]:
    """Return the places of sets in the fields, by wire name; a set with a serializer may be anything there."""
    return Finder(
        definitions,
        lambda one: one["type"] in ("set", "frozenset") and "serialization" not in one,
        in_any_choice=False,
    ).in_fields(fields)


_LISTS = frozenset({"list", "tuple", "set", "frozenset", "call"})  # a named tuple is made by a call
_NO_LISTS = frozenset({"dict", "model", "dataclass", *_OF_FIELDS})


def holds_lists(schema: Any, definitions: Mapping[str, Any]) -> bool | None:
    """Return whether the values of the type are lists in Python; ``None`` where some may be, and others not."""
    kind = schema["type"]
    if kind in ("definition-ref", "definitions") or schema.get("root_model"):
        inner = definitions[schema["schema_ref"]] if kind == "definition-ref" else schema["schema"]
        found = holds_lists(inner, definitions)
        return None if found and kind == "model" else found
    # A PlainValidator of the user's may return anything; those inside pydantic's own types have no serializer.
    if kind == "any" or (kind == "function-plain" and "serialization" in schema):
        return None
    if kind in _LISTS or kind in _NO_LISTS:
        return kind in _LISTS
    choices = {holds_lists(one, definitions) for one in _children(schema)}
    if "union" in kind and len(choices) > 1:
        return None
    return True if True in choices else None if None in choices else False


def _is_same_place(one: Places, other: Places) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return _is_same_place(one[0], other[0])
    if isinstance(one, dict) and isinstance(other, dict):
        return one is other or (one.keys() == other.keys() and all(_is_same_place(one[key], other[key]) for key in one))
    return one is other


def _places_below(places: Places, seen: set[int]) -> Iterator[Places]:
    if id(places) not in seen:
        seen.add(id(places))
        yield places
        for one in places.values() if isinstance(places, dict) else places if isinstance(places, list) else ():
            yield from _places_below(one, seen)

"""The codec of a class: the one way from a row of the server to an object, and the one way back.

It is compiled from pydantic's core schema when the class is used first, and kept by the class. Rows, single objects,
comparisons, conditions, patches and tables all go through it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, time
from difflib import get_close_matches
from functools import cached_property, partial
from itertools import repeat
from typing import Annotated, Any, Never, cast

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    PydanticUndefinedAnnotation,
    Secret,
    ValidationError,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema, from_json, to_json

from kinto_orm.errors import InvalidFilterError, InvalidTypeError, InvalidValueError
from kinto_orm.models.field_types import (
    Config,
    FieldType,
    Promises,
    exact_kinds,
    find_secrets,
    find_sets,
    find_texts,
    finite_schema,
    holds_lists,
    respell,
    wire_schema,
)
from kinto_orm.models.metaclass import inner_model, names_by_wire
from kinto_orm.models.undeclared import difference, parts_of
from kinto_orm.protocol.filters import ORDERING
from kinto_orm.protocol.json_values import JSON, JSONObject, encode, say_path, to_json_object, to_json_value
from kinto_orm.protocol.paging import ENVELOPE_KEYS
from kinto_orm.protocol.paths import Kind

_NO_ORDER = (
    "the server compares the texts that it is written as, which are not in the order of its values: give the field "
    "a serializer to a number (return_type=float), or to a text that is in order, marked OrderedText()."
)

_TIMESTAMPS = frozenset({int, type(None)})
_ORDERED_TOGETHER = {"number": (int, float), "text": (str,), "bool": (bool,)}
"""For an order, the types of the JSON values that have it."""

_set_values = BaseModel.__dict__["__dict__"].__set__


class Codec:
    """The reader and the writer of a class."""

    def __init__(self, model: type[Any]) -> None:
        if not model.__pydantic_complete__:
            _complete(model)
        self.model = model
        own = names_by_wire(model)
        self.fields: Mapping[str, str] = own
        """Wire name to field name."""
        self.wires: Mapping[str, str] = {name: wire for wire, name in own.items()}
        """Field name to wire name."""
        self.read_keys = {name: _read_keys(model, name) for name in self.wires}
        """For a field, the keys of a row that it is read from: the first one that is there counts."""
        schema = _Schema(model.__pydantic_core_schema__, model.__pydantic_fields__)
        promises = Promises(schema.definitions)
        self.respell = {
            name: partial(respell, schema=one["schema"], definitions=promises.definitions)
            for name, one in schema.fields.items()
        }
        """For a field, the function that gives what the server stored the keys that the field is written by."""
        self.is_written_whole = schema.has_serializer
        """Whether a serializer of the whole class writes the fields."""
        self.types = schema.types(promises)
        self.secrets = find_secrets(schema.definitions, schema.fields)
        """The places of secrets, by wire name."""
        self.sets, self.texts = (find(schema.definitions, schema.fields) for find in (find_sets, find_texts))
        """The places of sets, and of JSON that is written as a text, by wire name."""
        self.lists = {name: holds_lists(one["schema"], promises.definitions) for name, one in schema.fields.items()}
        self.excluded = {name for name, field in model.__pydantic_fields__.items() if field.exclude is True}
        """The fields that are read and never written."""
        declared = model.__pydantic_fields__.items()
        self.conditional = {name for name, one in declared if one.exclude_if is not None or self.is_written_whole}
        """The fields that are left out for some of their values."""
        self.varies = any(one.varies for one in self.types.values())
        self.editable = tuple(name for name, one in self.types.items() if not one.is_immutable)
        """The fields whose values can be edited in place."""
        self.watched = None if self.varies else self.editable
        """The fields by whose text a row is known to be as it came; ``None``: all."""
        self.is_surely_written = (
            bool(own)
            and not (self.varies or self.excluded or self.conditional)
            and not model.model_config.get("frozen")
            and all(
                one.is_lossless and one.is_checked_by_dump and not one.holds_times and len(self.read_keys[name]) == 1
                for name, one in self.types.items()
            )
        )
        """Whether the text of the fields alone tells that they can be sent, and come back equal."""
        kinds = {name: exact_kinds(one["schema"]) for name, one in schema.fields.items()}
        self._kinds = [(name, *one) for name, one in kinds.items() if one is not None]
        self._has_kinds = not self.is_written_whole and None not in kinds.values()
        self._names_by_key = {key: name for name, keys in self.read_keys.items() for key in keys}
        self.is_bare = schema.is_bare
        has_floats = any(one is None or float in one[0] | one[1] for one in kinds.values())
        self.is_surely_finite = self.is_bare and not has_floats
        """Whether no value can be a float that is too large, whatever number is in the row."""
        self.is_surely_plain = self.is_bare and not own
        """Whether an object is nothing but its undeclared keys."""
        self._page = schema.page_validator()
        self._part = schema.part_validator()
        self._writer = schema.writer()
        self._to_python = partial(self._writer.to_python, mode="json", by_alias=True, round_trip=True)

    # -- reading --------------------------------------------------------------------------------------------------

    def load_page(self, body: bytes) -> list[Any]:
        """Return the objects of a page (``{"data": [rows]}``), without an envelope.

        Raises pydantic's ``ValidationError``.
        """
        rows: list[Any] = self._page.validate_json(body, by_alias=True, by_name=False)["data"]
        if self.is_bare:
            return self._objects(rows)
        # A validator of the class sees the envelope of a row, and has no say in it.
        envelopes = _ENVELOPES.validate_json(body)["data"]
        for one, envelope in zip(rows, envelopes, strict=True):
            if type(one) is not self.model:
                self.refuse_returned(one)
            one.__dict__.update(envelope)
            one.__pydantic_fields_set__.difference_update(ENVELOPE_KEYS)
        return rows

    def refuse_returned(self, other: object) -> Never:
        """Raise ``InvalidTypeError`` for a validator of the class that returned something else than the object."""
        raise InvalidTypeError(
            f"{self.model.__name__}: a model_validator returned another {type(other).__name__} than it was given: "
            "return self (mode='after'), or what the handler returned (mode='wrap')."
        )

    def _objects(self, values: list[dict[str, Any]]) -> list[Any]:
        objects: list[Any] = list(map(object.__new__, repeat(self.model, len(values))))
        deque(map(_set_values, objects, values), maxlen=0)
        return objects

    def load_plain(self, rows: Sequence[JSONObject]) -> list[Any]:
        """Return the objects of decoded rows, where the class has nothing to read but the envelope."""
        try:
            envelopes = [{"id": row["id"], "last_modified": row["last_modified"]} for row in rows]
            if not _TIMESTAMPS.issuperset([type(one["last_modified"]) for one in envelopes]):
                envelopes = self._page.validate_python({"data": envelopes})["data"]
        except KeyError:
            envelopes = self._page.validate_python({"data": rows})["data"]
        return self._objects(envelopes)

    def load(self, row: Mapping[str, JSON], of: str = "") -> Any:
        """Return the object of one row; raise ``InvalidValueError``, which names ``of``, where the row does not fit."""
        try:
            return self.load_page(b'{"data":[%b]}' % readable_text(row, self.fields))[0]
        except ValidationError as error:
            raise invalid(self.model, error, of) from error
        except ValueError as error:
            raise InvalidValueError(f"{of}{self.model.__name__}: a field holds text that is no Unicode.") from error

    def load_part(self, row: Mapping[str, JSON], *, defaults: bool = False) -> dict[str, Any]:
        """Return the values of the fields that are in the row, by field name, and where asked for those that have
        defaults: validators of the class are not asked.

        Raises pydantic's ``ValidationError``.
        """
        found: dict[str, Any] = self._part.validate_json(encode({key: row[key] for key in self.fields if key in row}))
        return found if defaults else {name: found[name] for wire, name in self.fields.items() if wire in row}

    def names_in(self, row: Mapping[str, JSON]) -> set[str]:
        """Return the names of the fields that the row sets; the others have their defaults."""
        found = set(map(self._names_by_key.get, row))
        found.discard(None)
        return cast(set[str], found)

    @cached_property
    def read_before(self) -> Mapping[str, list[str]]:
        """For a field, its other keys that are read before the one that it is written by: they would hide it."""
        return {
            name: [key for key in keys[: keys.index(self.wires[name])] if key not in self.fields]
            for name, keys in self.read_keys.items()
        }

    def names_set(self, fresh: Any, row: Mapping[str, JSON]) -> set[str]:
        """Return the names of the fields that were set when the object was made of the row."""
        return self.names_in(row) if self.is_bare else set(fresh.__pydantic_fields_set__)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, model: Any, names: Collection[str] | None = None) -> bytes:
        """Return the fields of the object as JSON text. Raises ``InvalidValueError`` where they are none."""
        try:
            return self._writer.to_json(
                model,
                by_alias=True,
                round_trip=True,
                warnings=False if self._is_surely_fit(model.__dict__) else "error",
                include=None if names is None or self.is_written_whole else set(names),
            )
        except (ValueError, OverflowError):  # pydantic's error is a ValueError, too
            values = self._write_slowly(model, names)
        try:
            return encode(values)
        except ValueError:
            return encode(to_json_object(values))  # which says where the text is that is no Unicode

    def _is_surely_fit(self, own: Mapping[str, Any]) -> bool:
        """Return whether all values have the very types of their fields: to look for others takes pydantic longer."""
        for name, kinds, items in self._kinds:
            value = own.get(name)
            if type(value) not in kinds or (type(value) is list and not items.issuperset(map(type, value))):
                return False
        return self._has_kinds

    def dump(self, model: Any, names: Collection[str] | None = None, text: bytes | None = None) -> JSONObject:
        """Return the fields of the object as JSON values, by wire name. Raises ``InvalidValueError``.

        ``text`` is what :meth:`write` returned for them, where the caller has it.
        """
        if text is None:
            text = self.write(model, names)
        try:
            dumped: JSONObject = from_json(text)
        except ValueError:
            dumped = self._write_slowly(model, names)
        # A serializer of the whole class may write more than fields.
        return {key: dumped[key] for key in self.fields if key in dumped} if self.is_written_whole else dumped

    def write_value(self, name: str, value: object) -> JSON:
        """Return the value as the field of that name is written; one of another type as it is."""
        if isinstance(value, datetime) and value.tzinfo is None:
            return value  # who asked refuses it
        scratch: Any = object.__new__(self.model)
        _set_values(scratch, {name: value})
        try:
            dumped = self._to_python(scratch, warnings=False, include={name})
        except (ValueError, AttributeError, OverflowError):
            return value  # who asked says what is wrong with it
        return dumped.get(self.wires[name], value)

    # -- what callers give ----------------------------------------------------------------------------------------

    def by_wire(self, values: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """Return the values by wire name, where the keys may be names of fields.

        Raises ``InvalidValueError`` for an unknown key of a typed record, which would be stored beside the fields.
        """
        if values.keys() <= self.fields.keys():
            return values
        is_closed = self.fields and self.model.__kinto_kind__ is Kind.RECORD and not self.model.__kinto_is_open__
        unknown = values.keys() - self.fields.keys() - self.wires.keys() - ENVELOPE_KEYS
        if is_closed and unknown:
            name = min(unknown, key=str)
            near = get_close_matches(str(name), [*self.wires, *self.fields], 1)
            raise InvalidValueError(
                f"{what}: {self.model.__name__} has no field {name!r}{f'; did you mean {near[0]!r}?' if near else '.'} "
                f"Undeclared keys are set by .data[{name!r}], or by a model with extra='allow'."
            )
        return {key if key in self.fields else self.wires.get(key, key): value for key, value in values.items()}

    def input_data(self, values: Mapping[str, Any], what: str) -> JSONObject:
        """Return values that callers give as data: by wire name, those of fields as the fields are written."""
        named = self.by_wire(values, what)
        return {key: self._as_json(key, value) if key in self.fields else value for key, value in named.items()}

    def encode(self, values: Mapping[str, Any]) -> JSONObject:
        """Return values by wire name, as JSON or as the fields take them, as the fields are written.

        Raises ``InvalidValueError`` for one that does not fit its field.
        """
        given = {
            key: to_json_value(value if key not in self.fields else self._as_json(key, value), f"data.{key}")
            for key, value in values.items()
        }
        declared = {key: value for key, value in given.items() if key in self.fields}
        if not declared:
            return given
        scratch: Any = object.__new__(self.model)
        try:
            _set_values(scratch, self.load_part(declared))
        except ValidationError as error:
            raise invalid(self.model, error) from error
        refuse_naive(self.naive_datetimes(scratch.__dict__))
        dumped = self.dump(scratch, [self.fields[key] for key in declared])
        return {key: dumped.get(key, value) for key, value in given.items()}

    def _as_json(self, key: str, value: object) -> Any:
        name = self.fields[key]
        if _is_json(value):
            return value
        written = self.write_value(name, value)
        if not self.types[name].is_lossless:
            try:
                again = self.load_part({key: written})[name]
            except (ValueError, TypeError, RecursionError):
                return written  # who asked says what is wrong with it
            with suppress(ValidationError):  # which an encoded value is not, such as Base64
                value = self._part.validate_python({key: value})[name]
            self.check_equal(name, value, again)
        return written

    @cached_property
    def _timed(self) -> Mapping[str, str]:
        """The fields in whose values a datetime may be: field name to wire name."""
        return {name: wire for name, wire in self.wires.items() if self.types[name].holds_times}

    def naive_datetimes(self, values: Mapping[str, Any]) -> list[tuple[str, datetime]]:
        """Return the datetimes without timezone in the values of fields, at every depth, with their paths."""
        timed = [(wire, values[name]) for name, wire in self._timed.items() if name in values]
        return [one for wire, value in timed for one in _naive_datetimes(value, (wire,))]

    def check_equal(self, name: str, value: object, again: object) -> None:
        """Raise ``InvalidValueError`` where the value of a field was read again as another one."""
        path = difference(value, again, (self.wires[name],))
        if path is not None:
            raise InvalidValueError(
                f"{path}: this {type(value).__name__} would not come back equal from the server: give "
                f"{self.model.__name__}.{name} a type, or a serializer and a validator, that read what they write."
            )

    def condition_value(self, name: str, operator: str, value: Any) -> Any:
        """Return the value that a condition compares the field with, as the field is written.

        Raises ``InvalidFilterError`` where the server would give other records than Python's own comparison.
        """
        field, promised = f"{self.model.__name__}.{name}", self.types[name]
        if self.wires[name] in self.secrets:
            raise InvalidFilterError(f"{field} holds a secret, which would be in the URL of the query, and in its log.")
        if operator in ("has", "like"):
            return value
        if operator in ("in", "exclude"):
            return [self.condition_value(name, "", one) for one in value]
        if operator in ("contains", "contains_any"):
            self._check_comparable(field, promised, "", value)
            return [self._write_item(name, one) for one in value]
        wire = self.write_value(name, value)
        if value is not None or wire is not None:  # a field of the type Json has a text for None
            self._check_comparable(field, promised, operator, value)
        if _is_apart(promised.order, operator, wire):
            raise InvalidFilterError(
                f"{field}: the server orders a {type(wire).__name__} by its type, apart from the values of the field: "
                "give a value of the type of the field."
            )
        return wire

    def check_order(self, name: str) -> None:
        """Raise ``InvalidFilterError`` for a field that the server would sort in another order than Python."""
        if self.types[name].order == "":
            raise InvalidFilterError(f"{self.model.__name__}.{name}: {_NO_ORDER}")

    def _check_comparable(self, field: str, promised: FieldType, operator: str, value: Any) -> None:
        if isinstance(value, time) and value.tzinfo is not None:
            raise InvalidFilterError(f"{field}: a time with a time zone has several texts: compare one without.")
        if promised.order == "plain" and not _is_json(value):
            raise InvalidFilterError(
                f"{field} may hold anything, and a {type(value).__name__} may be written in several ways: give the "
                "field its type, or compare it with a JSON value."
            )
        if operator in ORDERING and promised.order == "":
            raise InvalidFilterError(f"{field}: {_NO_ORDER}")
        if operator in ("", "not") and not promised.has_one_spelling:
            raise InvalidFilterError(
                f"{field}: equal values may be written as different texts, and the server compares texts: give the "
                "field a serializer to a number (return_type=float), or to one text for each value (OrderedText())."
            )

    def _write_item(self, name: str, value: Any) -> JSON:
        """Return one item of a list or a set, as the field writes it."""
        for kind in (list, set, tuple):
            scratch: Any = object.__new__(self.model)
            try:
                _set_values(scratch, {name: kind([value])})
                return self._to_python(scratch, warnings="error", include={name})[self.wires[name]][0]
            except (ValueError, TypeError, LookupError):
                continue
        return value  # the condition says what is wrong with it

    def _write_slowly(self, model: Any, names: Collection[str] | None) -> JSONObject:
        """Return the fields of an object that cannot be written as text: too deep, or with a lone surrogate."""
        include = None if names is None or self.is_written_whole else set(names)
        try:
            dumped: JSONObject = self._to_python(model, warnings="error", include=include)
        except (ValueError, OverflowError, RecursionError) as error:
            if names is None or len(names) > 1:
                for name in names or self.wires:  # the one that fails says its name
                    self._write_slowly(model, [name])
            # Not chained: the error shows the value that does not fit, which may be a secret.
            where = ", ".join(f"data.{self.wires[name]}" for name in names or ())
            shown = _VALUE.sub("input_type=", str(error))
            raise InvalidValueError(
                f"{where or 'data'}: this {self.model.__name__} cannot be written as JSON: {shown}"
            ) from None
        return dumped


def declared_at(model: type[Any], path: str) -> tuple[Codec, str] | None:
    """Return the field at that path of wire names, of the class or of a class in its fields; ``None`` for no field.

    Raises ``InvalidFilterError`` for a field with a dot in its wire name.
    """
    codec = codec_of(model)
    if path in codec.fields and "." not in path:
        return codec, codec.fields[path]
    for dotted in [one for one in codec.fields if "." in one and f"{path}.".startswith(f"{one}.")]:
        raise InvalidFilterError(
            f"{model.__name__}.{codec.fields[dotted]} is {dotted!r} on the wire: Kinto takes a dot for a path into an "
            "object, and would find nothing there. Look at this field in Python, or give it a name without a dot."
        )
    wire, _, rest = path.partition(".")
    inner = inner_model(model, codec.fields[wire]) if rest and wire in codec.fields else None
    return None if inner is None else declared_at(inner, rest)


def codec_of(model: type[Any]) -> Codec:
    """Return the codec of the class, which keeps it; also of a class in a field of another."""
    found: Codec | None = model.__dict__.get("__kinto_codec__")
    if found is None:
        found = Codec(model)
        type.__setattr__(model, "__kinto_codec__", found)
    return found


def invalid(model: type[Any], error: ValidationError, of: str = "") -> InvalidValueError:
    """Return pydantic's error as ours, without the values; ``of`` names the value that does not fit."""
    complaints = "; ".join(
        f"{'.'.join(map(str, _place(one['loc']))) or model.__name__}: {one['msg']}"
        + ("" if one["type"] == "missing" else f" (it is of type {type(one['input']).__name__})")
        for one in error.errors(include_url=False, include_context=False)
    )
    return InvalidValueError(f"{of}{model.__name__}: {complaints[:600]}")


def _place(loc: Sequence[str | int]) -> Sequence[str | int]:
    # That of a row begins with its place in the page.
    return loc[2:] if loc[:1] == ("data",) and len(loc) > 1 and isinstance(loc[1], int) else loc


def _complete(model: type[Any]) -> None:
    try:
        model.model_rebuild(_parent_namespace_depth=0)
    except PydanticUndefinedAnnotation as error:
        raise InvalidTypeError(
            f"{model.__name__} has a field of the type {error.name}, which is not defined: define it, and call "
            f"{model.__name__}.model_rebuild()."
        ) from error


def _read_keys(model: type[Any], name: str) -> tuple[str, ...]:
    alias = model.__pydantic_fields__[name].validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [name if alias is None else alias]
    return tuple(str(one.path[0]) if isinstance(one, AliasPath) else one for one in choices)


def readable_text(row: Mapping[str, JSON], fields: Mapping[str, str]) -> bytes:
    """Return the row as JSON text, without undeclared keys that pydantic cannot read: too deep, or no Unicode."""
    undeclared = row.keys() - fields.keys() - ENVELOPE_KEYS
    if undeclared and not _is_readable({key: row[key] for key in undeclared}):
        row = {key: value for key, value in row.items() if key in fields or _is_readable(value)}
    return to_json(row)


def _is_readable(value: JSON) -> bool:
    try:
        from_json(to_json(value))
    except ValueError:
        return False
    return True


def refuse_naive(found: Iterable[tuple[str, datetime]]) -> None:
    """Raise ``InvalidValueError`` for the first datetime without timezone."""
    for path, _ in found:  # no value, which may be a secret
        raise InvalidValueError(
            f"{path}: this datetime has no timezone; use datetime.now(timezone.utc) or .replace(tzinfo=…)."
        )


def _naive_datetimes(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, datetime]]:
    if type(value) in _JSON_SCALARS:
        return
    if isinstance(value, Secret):
        yield from _naive_datetimes(value.get_secret_value(), path)
    if isinstance(value, datetime) and value.tzinfo is None:
        yield f"data.{say_path(path)}", value
    parts = dict(enumerate(value)) if isinstance(value, (set, frozenset)) else parts_of(value) or {}
    for key, item in parts.items():
        yield from _naive_datetimes(key, path)
        yield from _naive_datetimes(item, (*path, key if isinstance(key, int) else str(key)))


_VALUE = re.compile(r"input_value=.*?, input_type=", re.DOTALL)


def _is_apart(order: str, operator: str, wire: object) -> bool:
    """Return whether the server answers by the type of the value alone, where Python compares it or fails."""
    if operator in ORDERING:
        return type(wire) in _JSON_SCALARS and type(wire) not in _ORDERED_TOGETHER.get(order, _JSON_SCALARS)
    return order == "bool" and type(wire) in (int, float)  # 1 == True


def _is_json(value: object) -> bool:
    try:
        return _is_plain(value)
    except RecursionError:
        return False  # a cycle


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and {str}.issuperset(map(type, value)) and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if type(value) is list else type(value) in _JSON_SCALARS


_JSON_SCALARS = frozenset({str, int, float, bool, type(None)})


class _Schema:
    """pydantic's core schema of a class, taken apart."""

    def __init__(self, schema: Any, names: Collection[str]) -> None:
        layers = list(_layers(schema))
        self.fields = {name: one for name, one in layers[-1]["fields"].items() if name in names}
        self.config: Config = next((one["config"] for one in reversed(layers) if "config" in one), {})
        self.definitions: list[Any] = next((one["definitions"] for one in layers if one["type"] == "definitions"), [])
        self.has_serializer = any("serialization" in one for one in layers)
        outer = {one["type"] for one in layers[:-1]} - {"definitions", "definition-ref"}
        self.is_bare = outer == {"model"} and not any("post_init" in one for one in layers)
        """Whether the fields are all that there is to read: no validator of the class, nothing that is called after."""
        self._whole = layers[0]

    def types(self, promises: Promises) -> dict[str, FieldType]:
        """Return what the types of the fields promise: less where a serializer of the whole class writes them."""
        unsure: dict[str, Any] = {"is_lossless": False, "order": "", "has_one_spelling": False}
        less = unsure if self.has_serializer else {}
        return {name: promises.of(one["schema"], self.config)._replace(**less) for name, one in self.fields.items()}

    def page_validator(self) -> SchemaValidator:
        """Return the validator of a page: its rows as dictionaries where that is all, else as objects."""
        # The definitions go around the page: pydantic takes each of them once.
        row = self._whole["schema"] if self._whole["type"] == "definitions" else self._whole
        return self._validator(_page_of(self._dictionary() if self.is_bare else row))

    def part_validator(self) -> SchemaValidator:
        """Return the validator of some of the fields, of which none is required."""
        fields = {
            name: core_schema.typed_dict_field(
                one["schema"], required=False, validation_alias=one.get("serialization_alias", name)
            )
            for name, one in self.fields.items()
        }
        return self._validator(self._with_config(fields))

    def writer(self) -> SchemaSerializer:
        """Return the serializer of objects."""
        return SchemaSerializer(wire_schema(self._whole, self.config), None, _use_prebuilt=False)

    def _dictionary(self) -> Any:
        fields = {
            name: core_schema.typed_dict_field(
                one["schema"],
                required=one["schema"]["type"] != "default",
                validation_alias=one.get("validation_alias", name),
            )
            for name, one in self.fields.items()
        }
        return self._with_config({**fields, **_ENVELOPE_FIELDS})

    def _with_config(self, fields: dict[str, Any]) -> Any:
        # A dictionary does not inherit the settings of what it is in.
        return core_schema.typed_dict_schema(fields, config=self.config)  # type: ignore[arg-type]  # pydantic's own

    def _validator(self, schema: Any) -> SchemaValidator:
        whole = core_schema.definitions_schema(schema, self.definitions) if self.definitions else schema
        return SchemaValidator(finite_schema(whole), self.config, _use_prebuilt=False)  # type: ignore[arg-type]  # pydantic's


def _layers(schema: Any) -> Iterator[Any]:
    """Yield the schema of a class, and each one inside it, down to the one with the fields."""
    definitions: list[Any] = []
    while True:
        yield schema
        if schema["type"] == "model-fields":
            return
        definitions = schema.get("definitions", definitions)
        if schema["type"] == "definition-ref":
            schema = next(one for one in definitions if one["ref"] == schema["schema_ref"])
        else:
            schema = schema["schema"]


# All is said here, so that no setting of the class has a say: not on case, length, aliases or defaults.
_ENVELOPE: Mapping[str, Any] = {
    "id": core_schema.nullable_schema(
        core_schema.str_schema(
            strict=True, strip_whitespace=False, to_lower=False, to_upper=False, min_length=0, max_length=2**31
        ),
    ),
    "last_modified": core_schema.nullable_schema(core_schema.int_schema(strict=False)),
}


_ENVELOPE_FIELDS = {
    name: core_schema.typed_dict_field(core_schema.with_default_schema(one, default=None), required=False)
    for name, one in _ENVELOPE.items()
}


def _page_of(row: Any) -> Any:
    return core_schema.typed_dict_schema({"data": core_schema.typed_dict_field(core_schema.list_schema(row))})


_ENVELOPES = SchemaValidator(_page_of(core_schema.typed_dict_schema(_ENVELOPE_FIELDS)))

_skip: Any = SkipJsonSchema  # an annotation at run time, and a type for checkers


def _given(schema: Any, *_: Any) -> Any:
    return schema


def add_envelope(schema: Any, handler: GetCoreSchemaHandler) -> None:
    """Add the keys of the envelope to the schema of a class: pydantic then reads and never writes them."""
    fields = list(_layers(schema))[-1]["fields"]
    for name, one in _ENVELOPE.items():
        # In no JSON schema, for which only an annotation can ask.
        hidden = handler.generate_schema(Annotated[Any, GetPydanticSchema(partial(_given, one)), _skip()])
        default = core_schema.with_default_schema(hidden, default=None)
        fields[name] = core_schema.model_field(default, serialization_exclude=True)

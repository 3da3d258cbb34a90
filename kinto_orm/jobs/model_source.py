"""Write a model: the Python source of a class for the records of a collection, made of its JSON schema.

Nothing of the schema becomes code: names are made identifiers, texts are quoted.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kinto_orm.errors import UsageError
from kinto_orm.protocol.json_values import JSON, MISSING, JSONObject, decode
from kinto_orm.protocol.paging import ENVELOPE_KEYS, RawPages, encode_query, rows_of
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import get

PAGE_SIZE = 5000

_IMPORTED = ("Any", "BaseModel", "ConfigDict", "Field", "Literal", "Record")
_BUILT_IN = ("bool", "dict", "float", "int", "list", "str")
_SCALARS = {"null": "None", "boolean": "bool", "integer": "int", "number": "float", "string": "str"}
_SERVER_OWNED = {*ENVELOPE_KEYS, "schema", "attachment", "deleted"}


def model_source(path: ObjectPath, reserved: Collection[str]) -> Flow[str]:
    """Return the source of a module with a model that takes each record of the collection.

    A field that some record does not fit, because it is older than the schema, takes any value. ``reserved`` holds the
    names that no field may have. Raises ``UsageError`` where the collection has no schema.
    """
    schema = ((yield from get(path)).data or {}).get("schema")
    if not isinstance(schema, dict) or not schema:
        raise UsageError(
            f"{path} has no schema, of which a model could be made. Write a model of its records, and store its schema "
            "by collection.schema_diff(Model).push(), or: kinto-orm schema push PATH FILE.py:CLASS."
        )
    bucket, collection = path.ids
    module = _Module(schema, reserved)
    whole = module.record(collection)
    records = PluralPath(Kind.RECORD, path.ids)
    pages = RawPages(records, encode_query([("_sort", "id"), ("_limit", str(PAGE_SIZE))]))
    while (flow := pages.next()) is not None:
        page = yield from flow
        for row in rows_of(decode(page.body, str(records)), records):
            whole.widen(row)
    return module.text(whole, bucket, collection)


# -- types ------------------------------------------------------------------------------------------------------------


class _AnyValue:
    """A value of any kind."""

    text = "Any"

    def fits(self, value: JSON) -> bool:
        return True


@dataclass(frozen=True)
class _Scalar:
    """Null, a boolean, a number or text, by its name in Python."""

    text: str

    def fits(self, value: JSON) -> bool:
        if self.text == "None":
            return value is None
        if self.text == "bool":
            return isinstance(value, bool)
        if self.text == "str":
            return isinstance(value, str)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.text == "float" or value == int(value)


@dataclass(frozen=True)
class _Choice:
    """One of some values."""

    values: tuple[JSON, ...]

    @property
    def text(self) -> str:
        return f"Literal[{', '.join(map(_quoted, self.values))}]"

    def fits(self, value: JSON) -> bool:
        return any(type(value) is type(one) and value == one for one in self.values)


@dataclass(frozen=True)
class _Items:
    """A list, or an object with any keys, of values of one type."""

    of: _Type
    is_list: bool

    @property
    def text(self) -> str:
        return f"list[{self.of.text}]" if self.is_list else f"dict[str, {self.of.text}]"

    def fits(self, value: JSON) -> bool:
        if self.is_list:
            return isinstance(value, list) and all(map(self.of.fits, value))
        return isinstance(value, dict) and all(map(self.of.fits, value.values()))


@dataclass(frozen=True)
class _Union:
    """A value of any of some types."""

    types: tuple[_Type, ...]

    @property
    def text(self) -> str:
        return " | ".join(dict.fromkeys(one.text for one in self.types))

    def fits(self, value: JSON) -> bool:
        return any(one.fits(value) for one in self.types)


@dataclass
class _Field:
    """One field of a class."""

    name: str
    wire: str
    type: _Type
    is_required: bool
    default: JSON = MISSING
    comment: str = ""

    @property
    def annotation(self) -> str:
        """The type of the field, as its line has it."""
        is_enough = self.is_required or self.type.fits(self.value)
        return self.type.text if is_enough else f"{self.type.text} | None"

    @property
    def value(self) -> JSON:
        """The value of the field where a record lacks it."""
        is_plain = isinstance(self.default, (str, int, float)) or self.default == []
        return self.default if is_plain and self.type.fits(self.default) else None

    def takes(self, row: Mapping[str, JSON]) -> bool:
        """Return whether the field takes what the record has there."""
        if self.wire not in row:
            return not self.is_required
        found = row[self.wire]
        return self.type.fits(found) or (found is None and self.annotation.endswith("| None"))

    def line(self) -> str:
        """Return the line of the field."""
        if self.name == self.wire:
            return f"{self.name}: {self.annotation}" + ("" if self.is_required else f" = {_quoted(self.value)}")
        given = [] if self.is_required else [f"default={_quoted(self.value)}"]
        given += [f"{name}={_quoted(self.wire)}" for name in ("validation_alias", "serialization_alias")]
        return f"{self.name}: {self.annotation} = Field({', '.join(given)})"


@dataclass
class _Class:
    """A class with fields, which keeps other keys, too."""

    text: str
    fields: dict[str, _Field] = field(default_factory=dict)
    """The fields, by wire name."""

    def fits(self, value: JSON) -> bool:
        return isinstance(value, dict) and all(one.takes(value) for one in self.fields.values())

    def widen(self, row: Mapping[str, JSON]) -> None:
        """Make the fields take this record, too."""
        for wire, one in self.fields.items():
            if one.takes(row):
                continue
            if wire not in row:
                one.is_required, one.comment = False, f"required, and the record {row['id']} lacks it"
            else:
                one.type, one.comment = _AnyValue(), f"{one.type.text} by the schema; the record {row['id']} differs"

    def lines(self, base: str) -> Iterator[str]:
        """Yield the lines of the class."""
        yield f"class {self.text}({base}):"
        if base == "BaseModel":
            yield '    model_config = ConfigDict(extra="allow")'
            yield ""
        for one in self.fields.values():
            if one.comment:
                # On one line, whatever the server said: what follows a line break would be code.
                yield f"    # {''.join(letter for letter in one.comment if letter.isprintable())[:100]}"
            yield f"    {one.line()}"
        if not self.fields and base != "BaseModel":
            yield "    pass"


_Type: TypeAlias = _AnyValue | _Scalar | _Choice | _Items | _Union | _Class


# -- from schema to types ---------------------------------------------------------------------------------------------


class _Module:
    """The module that is written: its classes, in the order of their names' first use."""

    def __init__(self, schema: JSONObject, reserved: Collection[str]) -> None:
        self._schema = schema
        self._reserved = reserved
        self._classes: dict[str, _Class] = {}
        """The classes, by name."""
        self._by_reference: dict[str, _Type] = {}

    def record(self, collection: str) -> _Class:
        """Return the class of the records."""
        made = self._class(collection)
        root = self._resolved(self._schema)
        made.fields = {
            wire: one
            for wire, one in self._fields(root, collection, self._reserved).items()
            if wire not in _SERVER_OWNED
        }
        return made

    def text(self, record: _Class, bucket: str, collection: str) -> str:
        """Return the source of the module."""
        classes = [one for one in self._classes.values() if one is not record]
        body: list[str] = []
        for one in reversed(classes):
            body += ["", "", *one.lines("BaseModel")]
        body += ["", "", *record.lines(f"Record, bucket={_quoted(bucket)}, collection={_quoted(collection)}")]
        used = {name for name in _IMPORTED if re.search(rf"\b{name}\b", _CODE.sub("", "\n".join(body)))}
        imports = [
            f"from {module} import {', '.join(names)}"
            for module, offered in (
                ("typing", ("Any", "Literal")),
                ("pydantic", ("BaseModel", "ConfigDict", "Field")),
                ("kinto_orm", ("Record",)),
            )
            if (names := [name for name in offered if name in used])
        ]
        head = [
            f'"""The model of the records of {bucket}/{collection}, as its JSON schema describes them.',
            "",
            f"Written by kinto-orm models pull {bucket}/{collection}: pull it again rather than change it.",
            '"""',
            "",
            "from __future__ import annotations",
        ]
        return "\n".join([*head, *(line for one in imports for line in ("", one)), *body, ""])

    def _class(self, wanted: str) -> _Class:
        words = re.findall(r"[A-Za-z0-9]+", wanted)
        name = "".join(word[0].upper() + word[1:] for word in words) or "Nested"
        name = name if name[0].isalpha() else f"Model{name}"
        while name in self._classes or name in _IMPORTED or keyword.iskeyword(name):
            name += "_"
        made = self._classes[name] = _Class(name)
        return made

    def _resolved(self, schema: JSON) -> JSONObject:
        """Return the schema that a chain of references leads to; an empty one where it leads nowhere."""
        for _ in range(20):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                break
            found: JSON = self._schema
            for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
                found = found.get(step) if isinstance(found, dict) and step else found
            schema = found
        return schema if isinstance(schema, dict) and "$ref" not in schema else {}

    def _fields(self, schema: JSONObject, of: str, reserved: Collection[str]) -> dict[str, _Field]:
        properties = schema.get("properties")
        required = schema.get("required")
        taken: set[str] = {*_IMPORTED, *_BUILT_IN, *self._classes}
        found: dict[str, _Field] = {}
        required = required if isinstance(required, list) else []
        given: JSONObject = properties if isinstance(properties, dict) else {}
        # A key that is a name in Python keeps it.
        names: dict[str, str] = {}
        for wire in sorted(given, key=lambda wire: (not wire.isidentifier(), wire)):
            names[wire] = _identifier(wire, taken, reserved)
            taken.add(names[wire])
        # The order of the keys says nothing: PostgreSQL has another one.
        for wire in sorted(given, key=lambda wire: (wire not in required, wire)):
            if not wire:
                continue  # pydantic knows no such name; the models keep the key, undeclared
            one, name = given[wire], names[wire]
            is_required = wire in required
            details = self._resolved(one)
            default = one.get("default", MISSING) if isinstance(one, dict) else MISSING
            comment = " ".join(str(details.get("description") or "").split())
            found[wire] = _Field(name, wire, self._type(one, f"{of} {wire}"), is_required, default, comment)
        return found

    def _type(self, schema: JSON, name: str) -> _Type:
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            return self._of_reference(schema["$ref"], name)
        if not isinstance(schema, dict):
            return _AnyValue()
        if "enum" in schema or "const" in schema:
            return _choice(schema.get("enum", [schema.get("const")]))
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                return _union([self._type(one, name) for one in schema[key]])
        if isinstance(schema.get("allOf"), list):
            return self._type(schema["allOf"][0], name) if len(schema["allOf"]) == 1 else _AnyValue()
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return _union([self._of_kind(kind, schema, name) for kind in kinds])
        return self._of_kind(kinds, schema, name)

    def _of_reference(self, reference: str, name: str) -> _Type:
        if reference not in self._by_reference:
            target = self._resolved({"$ref": reference})
            last = reference.rpartition("/")[2] or name
            if target.get("type") == "object" and isinstance(target.get("properties"), dict):
                self._by_reference[reference] = made = self._class(last)
                made.fields = self._fields(target, last, _RESERVED_IN_NESTED)
            else:
                self._by_reference[reference] = _AnyValue()  # for a schema that refers to itself
                self._by_reference[reference] = self._type(target, last)
        return self._by_reference[reference]

    def _of_kind(self, kind: JSON, schema: JSONObject, name: str) -> _Type:
        if isinstance(kind, str) and kind in _SCALARS:
            return _Scalar(_SCALARS[kind])
        if kind == "array":
            items = schema.get("items")
            is_of_one_type = isinstance(items, dict) and "prefixItems" not in schema
            return _Items(self._type(items, f"{name} item") if is_of_one_type else _AnyValue(), is_list=True)
        if kind == "object":
            if isinstance(schema.get("properties"), dict) and schema["properties"]:
                made = self._class(name)
                made.fields = self._fields(schema, name, _RESERVED_IN_NESTED)
                return made
            values = schema.get("additionalProperties")
            return _Items(
                self._type(values, f"{name} value") if isinstance(values, dict) else _AnyValue(), is_list=False
            )
        return _AnyValue()


_RESERVED_IN_NESTED = ("copy", "dict", "json", "schema", "construct", "validate", "parse_obj", "parse_raw", "from_orm")
"""Old names of pydantic's methods; all others begin with ``model_``."""

_CODE = re.compile(r"'[^'\\]*(?:\\.[^'\\]*)*'|\"[^\"\\]*(?:\\.[^\"\\]*)*\"|#[^\n]*")
"""Texts and comments, in which the name of an import is none."""


def _identifier(wire: str, taken: Iterable[str], reserved: Collection[str]) -> str:
    """Return a name for a field: its wire name, where Python and the models take that."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", wire).lstrip("_")
    if not name or not name[0].isalpha() or name.startswith("model_"):
        name = f"field_{name}"
    while keyword.iskeyword(name) or name in reserved or name in taken:
        name += "_"
    return name


def _quoted(value: JSON) -> str:
    """Return a value as source; text in double quotes, where it holds none."""
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and not {"'", '"'} & set(value) else text


def _choice(values: JSON) -> _Type:
    if not isinstance(values, list) or not values:
        return _AnyValue()
    if all(one is None or isinstance(one, (str, bool, int)) for one in values):
        return _Choice(tuple(values))
    return _AnyValue()


def _union(types: Sequence[_Type]) -> _Type:
    if any(isinstance(one, _AnyValue) for one in types):
        return _AnyValue()
    by_text = {one.text: one for one in types}
    return next(iter(by_text.values())) if len(by_text) == 1 else _Union(tuple(by_text.values()))

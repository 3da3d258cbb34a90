"""The JSON schema of a collection, made of a model: compared, checked against the records, stored.

Kinto checks a schema with the meta-schema of draft 7, and records with the newest draft that ``jsonschema`` knows.
https://docs.kinto-storage.org/en/stable/api/1.x/collections.html#collection-json-schema
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

from kinto_orm.errors import (
    HistoryIncompleteError,
    InvalidValueError,
    SchemaDiffersError,
    SchemaViolationsError,
    UsageError,
)
from kinto_orm.protocol.filters import condition, encode_conditions
from kinto_orm.protocol.json_values import JSON, MISSING, JSONObject, decode, encode, is_same, say_path
from kinto_orm.protocol.paging import RawPages, encode_query, entries_of, read_count, rows_of
from kinto_orm.protocol.patches import BasicPatch
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Place, Reading
from kinto_orm.query.frames import import_extra
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.history import conditions_about, history_path, require_history
from kinto_orm.repository.reads import get, require_capability
from kinto_orm.repository.state import FlowRunner, ObjectState, Progress, Stateful, Verb, WriteOptions
from kinto_orm.unit_of_work.engine import carry_out
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=Stateful)

CAPABILITY = "schema"


_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose keys are names, each with a schema."""

_VALUES = ("default", "const", "enum", "examples")
"""Keywords that hold values, not schemas."""

_CRASHING = ("minProperties", "maxProperties", "propertyNames", "not", "dependentRequired", "const")
"""Keywords that Kinto answers with 500 where they refuse the record as a whole."""

_PATTERNS = {
    "date-time": r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:?\d{2})$",
    "date": r"^\d{4}-\d{2}-\d{2}$",
    "time": r"^\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:?\d{2})?$",
    "duration": r"^-?P(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$",
    "uuid": r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "email": r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    "uri": r"^[a-zA-Z][a-zA-Z0-9+.-]*:[^\s]+$",
    "ipv4": r"^\d{1,3}(\.\d{1,3}){3}$",
    "ipv6": r"^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$",
}
"""What Kinto can enforce in the place of a format."""

PAGE_SIZE = 5000


# -- the schema of a model --------------------------------------------------------------------------------------------


def prepare_schema(schema: JSONObject, *, enforce_formats: bool = False) -> JSONObject:
    """Return the schema as it is stored: without titles; with a pattern for each known format, if asked for.

    Raises ``InvalidValueError`` for keywords by which Kinto answers 500 to a record, which a client would send again.
    """
    prepared: JSONObject = _prepared(schema, enforce_formats=enforce_formats)
    for path in _crashing(prepared, prepared, ()):
        raise InvalidValueError(
            f"The schema has {say_path(path)}, by which Kinto answers 500 to each record that it refuses as a whole, "
            "so that clients send it again and again: say it of a field, or leave it to the model."
        )
    return prepared


def _prepared(schema: JSON, *, enforce_formats: bool) -> JSON:
    if isinstance(schema, list):
        return [_prepared(one, enforce_formats=enforce_formats) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: JSONObject = {}
    for key, value in schema.items():
        if key in _NAMES and isinstance(value, dict):
            found[key] = {name: _prepared(one, enforce_formats=enforce_formats) for name, one in value.items()}
        elif key in _VALUES:
            found[key] = value
        elif key != "title" or not isinstance(value, str):
            found[key] = _prepared(value, enforce_formats=enforce_formats)
    if enforce_formats and found.get("format") in _PATTERNS and "pattern" not in found:
        found["pattern"] = _PATTERNS[found["format"]]
    return found


def _crashing(schema: JSON, root: JSONObject, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of the keywords that make Kinto crash: those of the record itself."""
    if not isinstance(schema, dict) or len(path) > 20:  # a schema may refer to itself
        return
    yield from ((*path, key) for key in _CRASHING if key in schema)
    for key in ("then", "else"):
        yield from _crashing(schema.get(key), root, (*path, key))
    for index, one in enumerate(schema.get("allOf", ())):
        yield from _crashing(one, root, (*path, "allOf", index))
    for name, one in schema.get("dependentSchemas", {}).items():
        yield from _crashing(one, root, (*path, "dependentSchemas", name))
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#/$defs/"):
        name = reference.removeprefix("#/$defs/")
        yield from _crashing(root.get("$defs", {}).get(name), root, (*path, "$ref"))


def _formats(schema: JSON, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Yield the paths of the formats, which Kinto enforces nowhere; those beside a pattern are left out."""
    if isinstance(schema, list):
        for index, one in enumerate(schema):
            yield from _formats(one, (*path, index))
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("format"), str) and "pattern" not in schema:
        yield f"{say_path(path)}: {schema['format']}"
    for key, value in schema.items():
        if key in _NAMES and isinstance(value, dict):
            for name, one in value.items():
                yield from _formats(one, (*path, key, name))
        elif key not in _VALUES:
            yield from _formats(value, (*path, key))


# -- what differs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Violation:
    """A record that a schema refuses, and why."""

    id: str
    loc: tuple[str | int, ...]
    """The path of the field in the data; empty for the record as a whole."""
    msg: str

    def __str__(self) -> str:
        return f"{self.id}: {say_path(self.loc) or 'the record'}: {self.msg}"


class NamedSchema(NamedTuple):
    """A schema, and the name of its model in messages."""

    name: str
    schema: JSONObject


class SchemaSource(NamedTuple, Generic[M]):
    """What a schema is compared for: a collection, its records, and what messages call the schema."""

    collection: Stateful
    records: Reading[M]
    place: Place
    name: str

    @property
    def runner(self) -> FlowRunner:
        """The client."""
        return self.place.runner

    @property
    def path(self) -> ObjectPath:
        """The path of the collection."""
        return self.collection.__kinto_path__()


class SchemaDiff(Generic[M]):
    """The schema that a collection has beside that of a model: made by ``collection.schema_diff(Todo)``.

    ``print(diff)`` shows each difference, old -> new.
    """

    def __init__(self, source: SchemaSource[M], state: ObjectState, wanted: JSONObject) -> None:
        self._source = source
        self._state = state
        self.wanted = wanted
        """The schema of the model, as it is stored by :meth:`push`."""

    @property
    def stored(self) -> JSONObject | None:
        """The schema that the collection has; ``None`` where it has none."""
        found = (self._state.data or {}).get("schema")
        return found if isinstance(found, dict) else None

    @property
    def is_empty(self) -> bool:
        """Whether the collection has that schema already."""
        return is_same(self.stored, self.wanted)

    @property
    def unenforced(self) -> tuple[str, ...]:
        """The formats in the schema, which Kinto stores and never checks: ``schema_diff(enforce_formats=True)``."""
        return tuple(_formats(self.wanted))

    def violations(self, *, progress: Progress | None = None) -> list[Violation]:
        """Return each record that the schema of the model would refuse, with the path of each field.

        Existing records stay as they are when a schema is stored, but every later write of them is refused, also of
        other fields. Reads all records; needs the extra ``schemas``.
        """
        return self._source.runner.run(self._violations(progress))

    async def aviolations(self, *, progress: Progress | None = None) -> list[Violation]:
        """Like :meth:`violations`."""
        return await self._source.runner.arun(self._violations(progress))

    def push(self, *, force: bool = False) -> None:
        """Store the schema; send nothing where the collection has it already.

        Raises ``SchemaViolationsError`` where records violate it, unless ``force``; ``ConflictError`` where the
        collection was changed since it was compared.
        """
        return self._source.runner.run(self._push(force=force))

    async def apush(self, *, force: bool = False) -> None:
        """Like :meth:`push`."""
        return await self._source.runner.arun(self._push(force=force))

    def pending(self) -> list[M]:
        """Return the records that were not written since the schema of the collection was changed.

        The server never checked them against it. One that does not fit the model is a plain ``Record``. The history
        tells when the schema was changed; without one, every edit of the collection counts, a step of its review, too.
        """
        return self._source.runner.run(self._pending())

    async def apending(self) -> list[M]:
        """Like :meth:`pending`."""
        return await self._source.runner.arun(self._pending())

    def _violations(self, progress: Progress | None) -> Flow[list[Violation]]:
        check_callbacks(progress=progress)
        check = violation_checker(self.wanted)
        path = self._source.place.path
        pages = RawPages(path, encode_query([("_sort", "id"), ("_limit", str(PAGE_SIZE))]))
        found: list[Violation] = []
        done = 0
        while (flow := pages.next()) is not None:
            page = yield from flow
            rows = rows_of(decode(page.body, str(path)), path)
            for row in rows:
                found += check(row)
            done += len(rows)
            if progress is not None:
                progress(done, None, "check records")
        return found

    def _push(self, *, force: bool) -> Flow[None]:
        source = self._source
        refuse_staging(source.runner, "push() of a schema")
        if self.is_empty:
            return
        yield from require_enforcement(source.path, source.runner, "push()")
        violations = [] if force else (yield from self._violations(None))
        if violations:
            count = len({one.id for one in violations})
            raise SchemaViolationsError(
                f"{source.path}: {count} records violate {source.name}, and "
                f"could not be written any more. The first one: {violations[0]}. See .violations, mend them, or "
                "push(force=True). Nothing was sent.",
                violations,
            )
        change = replace(
            source.collection.__kinto_change__(Verb.PATCH),
            options=WriteOptions(if_match=self._state.last_modified),
            patch=BasicPatch(data={"schema": self.wanted}),
        )
        yield from carry_out(change, source.runner)
        self._state = yield from get(source.path)

    def _pending(self) -> Flow[list[M]]:
        source = self._source
        state = yield from get(source.path)
        if not isinstance((state.data or {}).get("schema"), dict):
            raise UsageError(f"{source.path} has no schema, so no record waits for being checked: push() it first.")
        moment = yield from _moment_of_schema(state, source.runner)
        records = Reading(source.records.source, source.records.selection, "keep")
        found: list[M] = []
        for one in (condition("schema", "lt", moment), condition("schema", "has", value=False)):
            found += yield from records.select(conditions=(one,)).all(source.place)
        return found

    def differences(self) -> Iterator[tuple[str, JSON, JSON]]:
        """Yield the path, the old and the new value of each keyword that differs.

        ``MISSING`` stands for a keyword, or a schema, that is not there.
        """
        if self.stored is None:
            yield "schema", MISSING, self.wanted
        else:
            yield from _differences(self.stored, self.wanted, ())

    def __str__(self) -> str:
        if self.is_empty:
            return f"{self._source.path} has {self._source.name}."
        lines = [_line(*one) for one in self.differences()]
        return "\n".join([f"{self._source.path} and {self._source.name}:", *lines])

    def __repr__(self) -> str:
        return f"<SchemaDiff of {self._source.path} and {self._source.name}{'' if self.is_empty else ', not empty'}>"


def _differences(old: JSON, new: JSON, path: tuple[str | int, ...]) -> Iterator[tuple[str, JSON, JSON]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key, MISSING), new.get(key, MISSING), (*path, key))
    elif old is MISSING or new is MISSING or not is_same(old, new):
        yield say_path(path) or "schema", old, new


def _line(path: str, old: JSON, new: JSON) -> str:
    absent = "no schema" if path == "schema" else "nothing"
    before, after = (absent if one is MISSING else _shown(one) for one in (old, new))
    return f"{path}: {before} -> {after}"


def _shown(value: JSON) -> str:
    text = encode(value).decode()
    return text if len(text) <= 200 else f"{text[:199]}…"


# -- flows ------------------------------------------------------------------------------------------------------------


def compare_schema(source: SchemaSource[M], wanted: JSONObject) -> Flow[SchemaDiff[M]]:
    """Return the difference between the collection's schema and this one."""
    return SchemaDiff(source, (yield from get(source.path)), wanted)


def lacks_schema(stored: Mapping[str, JSON] | None, wanted: NamedSchema, path: ObjectPath) -> bool:
    """Return whether the collection with this data, or without any, has no schema yet.

    Raises ``SchemaDiffersError`` where it has another schema.
    """
    found = (stored or {}).get("schema")
    if found is None or is_same(found, wanted.schema):
        return found is None
    lines = [_line(*one) for one in _differences(found, wanted.schema, ())]
    raise SchemaDiffersError(
        f"{path} has another schema than {wanted.name} ({'; '.join(lines)[:400]}). Nothing was sent. "
        f"collection.schema_diff({wanted.name}) shows the difference and the records that violate the new schema, and "
        "its push() stores it."
    )


def refuse_locking(path: ObjectPath, wanted: NamedSchema) -> Flow[None]:
    """Raise ``SchemaDiffersError`` where a collection without a schema has records, which a first one could lock."""
    count = yield from read_count(PluralPath(Kind.RECORD, path.ids), "")
    if count:
        raise SchemaDiffersError(
            f"{path} has no schema, and {count:,} record{'s' if count > 1 else ''}, which that of {wanted.name} could "
            f"lock. Nothing was sent. collection.schema_diff({wanted.name}) shows those that violate it, and its "
            "push() stores it."
        )


def require_enforcement(path: ObjectPath, runner: FlowRunner, what: str) -> Flow[None]:
    """Raise ``CapabilityMissingError`` or ``UsageError`` where the server would not check records by a schema."""
    yield from require_capability(CAPABILITY, what, runner)
    if path.ids[0] == "default":
        raise UsageError(
            f"{path}: Kinto does not check records by a schema where they are written through /buckets/default. Use "
            "the bucket's own id: client.clone(bucket=client.personal_bucket().id)."
        )


def _moment_of_schema(state: ObjectState, runner: FlowRunner) -> Flow[int]:
    """Return when the collection got the schema that it has, as far as its history tells; else its own timestamp."""
    path, moment = state.path, state.last_modified or 0
    schema = (state.data or {}).get("schema")
    info = yield from runner.__kinto_describe_server__()
    try:
        if "history" in info.get("capabilities", {}):
            yield from require_history("pending()", path, runner)
        else:
            return moment
    except HistoryIncompleteError:
        return moment
    history = history_path(path.ids[0])
    fields = ("_fields", "action,target.data.schema,target.data.last_modified")
    query = encode_query([*encode_conditions(conditions_about(path)), ("_sort", "-last_modified"), fields])
    pages = RawPages(history, query)
    while (flow := pages.next()) is not None:
        page = yield from flow
        for entry in entries_of(decode(page.body, str(history)), history):
            data = entry.get("target", {}).get("data", {})
            if entry.get("action") == "delete" or not is_same(data.get("schema"), schema):
                return moment
            moment = data.get("last_modified", moment)
    return moment


def violation_checker(schema: JSONObject) -> Callable[[JSONObject], Sequence[Violation]]:
    """Return the function that finds the violations of a row, as the server looks for them."""
    validators = import_extra("jsonschema.validators", "violations()", "schemas")
    cls = validators.validator_for(schema)
    is_id_checked = "id" in schema.get("properties", {})
    ignored = {"last_modified", "schema", "__permissions__"} | (set() if is_id_checked else {"id"})
    required = [name for name in schema.get("required", ()) if name not in ignored]
    validator = cls({**{key: value for key, value in schema.items() if key != "required"}, "required": required})

    def check(row: JSONObject) -> Sequence[Violation]:
        data = {key: value for key, value in row.items() if key not in ignored}
        errors = sorted(validator.iter_errors(data), key=lambda error: list(map(str, error.absolute_path)))
        return [Violation(row["id"], tuple(error.absolute_path), error.message) for error in errors]

    return check

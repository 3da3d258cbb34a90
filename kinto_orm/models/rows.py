"""The rows of a job as a model has them: checked and written by it, and made objects of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

from kinto_orm.errors import InvalidTypeError, KintoError, NotLoadedError, UsageError
from kinto_orm.jobs.comparing import GivenRow, changed_fields
from kinto_orm.models.codec import codec_of
from kinto_orm.models.data import current_data, frozen_data, has_data, mark_of, undeclared
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.source import ModelSource, row_schema
from kinto_orm.protocol.json_values import JSON, JSONObject, say_value, to_json_object
from kinto_orm.protocol.paging import without_envelope
from kinto_orm.protocol.writes import PermissionLists
from kinto_orm.query.execution import Place
from kinto_orm.repository.state import Change, ObjectState, Stateful, Status, Verb


class ModelRows(NamedTuple):
    """The codec of a job's rows for one model."""

    source: ModelSource

    def encode(self, given: Any, mode: Literal["exact", "given"] | None) -> GivenRow:
        """Return the row in JSON types and by wire names, checked by the model."""
        model = self.source.model
        if isinstance(given, model):
            data = _data_of(given)
            return GivenRow(data, None if mode == "exact" else _mentioned(given, data))
        if isinstance(given, KintoObject):
            given, mode = _data_of(given), mode or "given"
        whole = to_json_object(given)
        data = without_envelope(whole)
        mentioned = frozenset(data) if mode == "given" else None
        if codec_of(model).fields:
            data = frozen_data(model(data=data))
        return GivenRow(data, mentioned)

    def values_of(self, given: Any) -> Mapping[str, JSON]:
        """Return the values of a row by wire names, with its id."""
        if isinstance(given, KintoObject):
            return {**current_data(given), "id": given.id} if has_data(given) else {"id": given.id}
        if not isinstance(given, Mapping):
            raise InvalidTypeError(f"a row is a mapping or a model, not {type(given).__name__}: {say_value(given)}")
        return cast("Mapping[str, JSON]", given)

    def key_values(self, values: Mapping[str, JSON], names: Sequence[str]) -> Mapping[str, JSON]:
        """Return these values of a row, by wire names, as the model writes them; as they are where they do not fit."""
        codec = codec_of(self.source.model)
        part = {name: values[name] for name in names if name in values}
        if codec.fields.keys().isdisjoint(part):
            return part
        try:
            loaded = codec.load_part(to_json_object(part))
        except (KintoError, ValueError):  # the latter from pydantic
            return part
        return {**part, **{codec.wires[name]: codec.write_value(name, value) for name, value in loaded.items()}}

    def parse_cells(self, cells: Mapping[str, str]) -> JSONObject:
        """Return the values of the cells of a table: text, and JSON where the field of the model takes no text."""
        takes_text = _text_fields(self.source.model)
        return {name: cell if takes_text.get(name, True) else _parse_cell(cell) for name, cell in cells.items()}

    def canonical(self, data: JSONObject) -> Mapping[str, JSON]:
        """Return the declared fields of this data as the model writes them; nothing where the data does not fit."""
        codec = codec_of(self.source.model)
        try:
            return codec.dump(codec.load(data)) if codec.fields else {}
        except KintoError:
            return {}

    def make(self, state: ObjectState, place: Place) -> Stateful:
        """Return an object in that state."""
        return cast(Stateful, _fitting(self.source, state, None, place))

    def change(self, verb: Verb, state: ObjectState, data: JSONObject | None, place: Place) -> Change[Stateful]:
        """Return the verb on an object in that state, which has ``data`` as an unsaved change."""
        holder = _fitting(self.source, state, data, place)
        wanted = state.data if data is None else data
        all_permissions: PermissionLists | None = {} if state.status is Status.NEW else None
        change = Change(holder, verb, state, wanted or {}, all_permissions=all_permissions)
        change.mark = mark_of(holder, holder.__kinto_envelope__(), codec_of(type(holder)))
        return change


def unsaved_fields(record: KintoObject) -> dict[str, tuple[JSON, JSON]]:
    """Return the old and the new value of each key of the data that differs from what the server last sent."""
    stored = record.__kinto_envelope__().data
    return changed_fields({} if stored is None else stored, current_data(record))


def _data_of(given: KintoObject) -> JSONObject:
    if not has_data(given):
        raise NotLoadedError(f"{given!r} has no data: refresh() it, or leave it out")
    return frozen_data(given)


def _mentioned(given: KintoObject, data: JSONObject) -> frozenset[str]:
    """Return the keys that the object mentions; for a new one without its defaults."""
    if not given.is_new:
        return frozenset(data)
    wires = codec_of(type(given)).wires
    return frozenset({wires[name] for name in given.model_fields_set if name in wires} | undeclared(given).keys())


def _fitting(source: ModelSource, state: ObjectState, data: JSONObject | None, place: Place) -> Any:
    """Return an object of the model; a plain one where the server's data does not fit the model."""
    try:
        return _made(source, state, data, place)
    except KintoError:
        return _made(source._replace(model=source.model.__kinto_plain__), state, data, place)


def _made(source: ModelSource, state: ObjectState, data: JSONObject | None, place: Place) -> Any:
    if state.status is Status.NEW:
        new = source.model(id=state.path.id, data=data or {}, client=place.runner, collection=place.parent)
        new.__kinto_envelope__().path = state.path
        return new
    one = source.load_one(state, place)
    if data is not None:
        one.data = data
    return one


def _parse_cell(cell: str) -> JSON:
    try:
        return json.loads(cell)
    except ValueError:
        return cell  # the model may take it as it is, as it does "yes" for a bool


def _find_text_fields(model: type[Any]) -> Mapping[str, bool]:
    """Return whether each field takes text, by wire name."""
    try:
        schema = row_schema(model)
    except UsageError:  # a field without a JSON schema
        return {}
    definitions = schema.get("$defs", {})
    return {name: _takes_text(one, definitions) for name, one in schema.get("properties", {}).items()}


# ``Any``, because checkers do not know that a class with a custom metaclass is hashable.
_once: Any = lru_cache(maxsize=4096)
_text_fields: Callable[[type[Any]], Mapping[str, bool]] = _once(_find_text_fields)


def _takes_text(schema: JSONObject, definitions: JSONObject) -> bool:
    if "$ref" in schema:
        return _takes_text(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return any(_takes_text(one, definitions) for one in choices)
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        return any(isinstance(value, str) for value in values)
    return bool(schema.get("type", "string") == "string")

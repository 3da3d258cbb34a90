"""The source of a query: which model its rows become, below which parent, and what a table has of that model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import AliasChoices, BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from kinto_orm.errors import InvalidFilterError, UsageError
from kinto_orm.models.codec import codec_of, declared_at
from kinto_orm.models.data import current_data
from kinto_orm.models.envelope import bare, shared_row
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.loading import load_one, load_page, parent_ids, reference_at
from kinto_orm.protocol.json_values import JSON, JSONObject
from kinto_orm.protocol.paging import ENVELOPE_KEYS, TOMBSTONE_KEYS
from kinto_orm.protocol.paths import Kind, PluralPath
from kinto_orm.query.execution import LoadedRows, Place, Row
from kinto_orm.repository.state import FlowRunner, ObjectState, Status, active_runner

M = TypeVar("M", bound=KintoObject)


class ModelSource(NamedTuple):
    """Objects of a model, below a parent: given, or found by the defaults of class and client when a query ends."""

    model: type[Any]
    parent: KintoObject | None = None
    client: FlowRunner | None = None
    path: PluralPath | None = None
    """The list, where the source is fixed there."""
    origin: FlowRunner | None = None
    """The client that it had before it was pickled."""

    @property
    def kind(self) -> Kind:
        """The kind of the objects."""
        kind: Kind = self.model.__kinto_kind__
        return kind

    def runner(self) -> FlowRunner:
        """Return the client; raise ``NotBoundError`` where there is none."""
        if self.client is not None:
            return self.client
        if self.parent is not None:
            return self.parent.__kinto_runner__()
        return self.model.__kinto_client__ or active_runner(f"{self.model.__name__}'s query", self.origin)

    def locate(self) -> Place:
        """Return the client and the list; raise ``NotBoundError`` where there is none."""
        runner = self.runner()
        if self.parent is not None:
            return Place(runner, PluralPath(self.kind, self.parent.__kinto_path__().ids), self.parent)
        return Place(runner, self.path or PluralPath(self.kind, parent_ids(self.model, runner)))

    def parent_at(self, place: Place) -> Any:
        """Return the parent of the objects there, which they share."""
        return place.parent or reference_at(self.model.__kinto_parent__, place.path.parent_ids, place.runner)

    def fixed(self, runner: FlowRunner, path: PluralPath) -> ModelSource:
        """Return the same source at that place, independent of defaults; it can be pickled."""
        return ModelSource(self.model, client=runner, path=path)

    def __reduce__(self) -> tuple[Any, ...]:
        # The pickle of a client has no credentials: where it is read, another one may have them.
        is_fixed, of_class = self.path is not None, self.model.__kinto_client__
        own = None if self.client is of_class else self.client  # the class finds its own there
        client, origin = (None, self.client or self.origin) if is_fixed else (own, None)
        return (ModelSource, (self.model, self.parent, client, self.path, origin))

    def load(self, rows: LoadedRows, place: Place) -> list[Any]:
        """Return the objects of a page."""
        return load_page(self.model, rows, place.runner, self.parent_at(place))

    def load_one(self, state: ObjectState, place: Place) -> Any:
        """Return the object of that state."""
        return load_one(self.model, state, place.runner, place.parent)

    def resolve_field(self, name: str) -> str:
        """Return the wire name; a model with fields has only those, ``id``, ``last_modified`` and ``deleted``."""
        codec = codec_of(self.model)
        fields, first = codec.fields, name.partition(".")[0]
        if not fields or self.kind is not Kind.RECORD or first in fields or first in TOMBSTONE_KEYS:
            return name
        if first in codec.wires:
            return codec.wires[first] + name[len(first) :]
        raise InvalidFilterError(
            f"{self.model.__name__} has no field {name!r}; it has {', '.join(fields)}. "
            f"For an undeclared key use F({name!r})."
        )

    def declared_fields(self) -> Iterable[str]:
        """Return the wire names of the declared fields."""
        return codec_of(self.model).fields

    def check_path(self, path: str) -> None:
        """Raise ``InvalidFilterError`` for a declared field that the server would not find by that path."""
        declared_at(self.model, path)

    def condition_value(self, field: str, operator: str, value: Any) -> Any:
        """Return the value as the field of that wire name is written; raise ``InvalidFilterError``."""
        declared = declared_at(self.model, field)
        is_list = not isinstance(value, (str, bytes)) and isinstance(value, Iterable)
        if declared is None or (operator in ("in", "exclude", "contains", "contains_any") and not is_list):
            return value
        codec, name = declared
        return codec.condition_value(name, operator, value)

    def holds_lists(self, field: str) -> bool | None:
        """Return whether the field of that wire name is declared to hold lists; ``None``: it may hold others, too."""
        declared = declared_at(self.model, field)
        return False if declared is None else declared[0].lists[declared[1]]

    def check_order(self, field: str) -> None:
        """Raise ``InvalidFilterError`` for a field that the server sorts in another order than Python."""
        if (declared := declared_at(self.model, field)) is not None:
            codec, name = declared
            codec.check_order(name)

    def row_schema(self) -> JSONObject:
        """Return the JSON schema of the declared fields; empty where there are none."""
        return row_schema(self.model)

    def fields_stand_alone(self) -> bool:
        """Return whether each field is read the same without the others."""
        model = self.model
        decorators, has_own_code = model.__pydantic_decorators__, model.model_post_init is not BaseModel.model_post_init
        validators = (decorators.validators, decorators.field_validators, decorators.root_validators)
        if has_own_code or any(validators) or decorators.model_validators or decorators.model_serializers:
            return False
        return not any(
            one.default_factory_takes_validated_data or isinstance(one.validation_alias, AliasChoices)
            for one in model.__pydantic_fields__.values()
        )

    def row_of(self, one: Any) -> Row:
        """Return an object, as the query has just read it, as a row of a table."""
        envelope = {"id": one.__dict__["id"], "last_modified": one.__dict__["last_modified"]}
        stored = shared_row(one)
        if stored is None and one.__kinto_envelope__().status is Status.DELETED:
            return Row({**envelope, "deleted": True}, {})
        model, codec = self.model, codec_of(self.model)
        # What does not fit the model was kept as a plain object.
        fields = codec.fields if isinstance(one, model) else {}
        row: Mapping[str, JSON] = stored or current_data(one)
        others = {key: value for key, value in row.items() if key not in fields and key not in ENVELOPE_KEYS}
        if not codec.fields:
            return Row({**others, **envelope}, others)
        declared = {key: row[key] for key in fields if key in row}
        if stored is None and one.__kinto_envelope__().is_partial:
            # What is not there has its default, as it has where the row was loaded whole.
            one = bare(model, {**codec.load_part(declared, defaults=True), **envelope}, one.__kinto_envelope__())
        return Row({**declared, **(codec.dump(one) if fields else {}), **envelope}, others)


class _WireSchema(GenerateJsonSchema):
    """The JSON schema of what is on the wire, where a field of the type ``Json`` is a text."""

    def json_schema(self, schema: core_schema.JsonSchema) -> JSONObject:
        return {"type": "string"}


def row_schema(model: type[Any]) -> JSONObject:
    """Return the JSON schema of the declared fields; empty where there are none."""
    fields = codec_of(model).fields
    if not fields:
        return {}
    try:
        found: JSONObject = model.model_json_schema(mode="serialization", by_alias=True, schema_generator=_WireSchema)
    except PydanticInvalidForJsonSchema as error:
        raise UsageError(f"{model.__name__} has a field without a JSON schema, so no columns: {error}") from error
    # Computed fields are not stored; one with exclude=True is stored, and in no schema.
    return {**found, "properties": {name: found["properties"].get(name, {}) for name in fields}}


def record_schema(model: type[Any]) -> JSONObject:
    """Return the JSON schema of the model's records, by wire names, as pydantic writes it.

    Raises ``UsageError`` for a field that has none.
    """
    try:
        found: JSONObject = model.model_json_schema(mode="validation", by_alias=True)
    except PydanticInvalidForJsonSchema as error:
        raise UsageError(f"{model.__name__} has a field without a JSON schema: {error}") from error
    # Of several names by which a field is read, pydantic takes the first; Kinto has the one by which it is written.
    codec, properties = codec_of(model), found.get("properties", {})
    for name, wire in codec.wires.items():
        for read in codec.read_keys[name]:
            if read in properties and read not in codec.fields:
                properties[wire] = properties.pop(read)
                found["required"] = [wire if one == read else one for one in found.get("required", ())]
    return found

"""What a table has of a model: a schema of its columns, and of each object a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from kinto_orm.errors import UsageError
from kinto_orm.models.data import current_data
from kinto_orm.models.envelope import shared_row
from kinto_orm.models.fields import declared_fields, dump_declared
from kinto_orm.models.metaclass import HIDDEN_FIELDS
from kinto_orm.protocol.values import JSON, JSONObject
from kinto_orm.query import Row
from kinto_orm.state import Status


def row_schema(model: type[Any]) -> JSONObject:
    """The JSON schema of the declared fields; empty where there are none."""
    fields = declared_fields(model)
    if not fields:
        return {}
    try:
        found: JSONObject = model.model_json_schema(mode="serialization", by_alias=True)
    except PydanticInvalidForJsonSchema as error:
        raise UsageError(f"{model.__name__} has a field without a JSON schema, so no columns: {error}") from error
    # Computed fields are not stored; one with exclude=True is stored, and in no schema.
    return {**found, "properties": {name: found["properties"].get(name, {}) for name in fields}}


def row_of(model: type[Any], one: Any) -> Row:
    """The row of an object, as the query of that model has just read it."""
    envelope = {"id": one.__dict__["id"], "last_modified": one.__dict__["last_modified"]}
    if shared_row(one) is None and one.__kinto_envelope__().status is Status.DELETED:
        return Row({**envelope, "deleted": True}, {})
    # What does not fit the model was kept as a plain object.
    fields = declared_fields(model) if isinstance(one, model) else {}
    row: Mapping[str, JSON] = shared_row(one) or current_data(one)
    others = {key: value for key, value in row.items() if key not in fields and key not in HIDDEN_FIELDS}
    if not declared_fields(model):
        return Row({**others, **envelope}, others)
    stored = {key: row[key] for key in fields if key in row}
    return Row({**stored, **(dump_declared(one) if fields else {}), **envelope}, others)

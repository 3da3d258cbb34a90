"""What a table has of a model: a schema of its columns, and of each object a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from kinto_orm.errors import UsageError
from kinto_orm.models.data import current_data
from kinto_orm.models.envelope import bare, shared_row
from kinto_orm.models.fields import declared_fields, dump_declared, field_validator
from kinto_orm.models.metaclass import HIDDEN_FIELDS
from kinto_orm.protocol.values import JSON, JSONObject, encode
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


def fields_stand_alone(model: type[Any]) -> bool:
    """Whether the fields are read alike, each, where the others are not there.

    A validator may look at the other fields; one in an annotation is not noticed.
    """
    decorators = model.__pydantic_decorators__
    has_own_code = model.model_post_init is not BaseModel.model_post_init
    validators = (decorators.validators, decorators.field_validators, decorators.root_validators)
    if has_own_code or any(validators) or decorators.model_validators or decorators.model_serializers:
        return False
    fields = model.__pydantic_fields__.values()
    return not any(
        one.default_factory_takes_validated_data or isinstance(one.validation_alias, AliasChoices) for one in fields
    )


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
    if shared_row(one) is None:
        # Loaded in part: what is not there has its default, as it has where it was loaded whole.
        values = field_validator(model).validate_json(encode(stored))
        one = bare(model, {**values, "id": None, "last_modified": None}, one.__kinto_envelope__())
    return Row({**stored, **(dump_declared(one) if fields else {}), **envelope}, others)

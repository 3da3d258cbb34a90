"""What we use of pydantic, urllib3 and Kinto without a promise of theirs: each name, by what we need it to do."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from typing import Any

from pydantic import BaseModel, TypeAdapter, field_validator, model_validator
from pydantic._internal._model_construction import ModelMetaclass
from pydantic_core import SchemaSerializer, SchemaValidator
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

from kinto_orm.server.application import import_extra


class Plain(BaseModel):
    n: int = 1


class Validated(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def is_small(cls, value: int) -> int:
        return value

    @model_validator(mode="after")
    def is_right(self) -> Validated:
        return self


def test_models_have_the_metaclass_that_ours_extends() -> None:
    assert type(BaseModel) is ModelMetaclass


def test_a_marked_init_is_not_called_for_what_is_validated() -> None:
    calls: list[dict[str, Any]] = []

    class Counted(BaseModel):
        n: int

        def __init__(self, **arguments: Any) -> None:
            calls.append(arguments)

        __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark

    rows = TypeAdapter(list[Counted]).validate_json(b'[{"n": 1}, {"n": 2}]')

    assert [row.n for row in rows] == [1, 2]
    assert calls == []


def test_a_model_has_its_validator_and_serializer() -> None:
    assert isinstance(Plain.__pydantic_validator__, SchemaValidator)
    assert isinstance(Plain.__pydantic_serializer__, SchemaSerializer)
    assert set(Plain.__pydantic_fields__) == {"n"}


def test_an_object_is_made_whole_by_setting_its_slots() -> None:
    made = object.__new__(Plain)
    for name, value in {
        "__dict__": {"n": 5},
        "__pydantic_fields_set__": {"n"},
        "__pydantic_extra__": None,
        "__pydantic_private__": None,
    }.items():
        object.__setattr__(made, name, value)

    assert made == Plain(n=5)
    assert made.model_dump() == {"n": 5}


def test_the_decorators_of_a_model_are_listed() -> None:
    assert set(Validated.__pydantic_decorators__.model_validators) == {"is_right"}
    assert set(Validated.__pydantic_decorators__.field_validators) == {"is_small"}


def test_the_schema_of_a_model_names_the_schemas_of_its_fields() -> None:
    schema: Any = Plain.__pydantic_core_schema__

    assert (schema["type"], schema["schema"]["type"]) == ("model", "model-fields")
    assert set(schema["schema"]["fields"]) == {"n"}


def test_kintos_memory_permissions_are_kept_by_object_and_name() -> None:
    backend = import_extra("kinto.core.permission.memory").Permission()

    backend.add_principal_to_ace("/buckets/b", "read", "bob")

    assert dict(backend._store) == {"permission:/buckets/b:read": {"bob"}}


def test_pools_make_connections_that_can_have_another_class_of_answer() -> None:
    for pool in (HTTPConnectionPool("kinto.test"), HTTPSConnectionPool("kinto.test")):
        connection = pool._new_conn()

        assert connection.response_class is http.client.HTTPResponse  # type: ignore[attr-defined]  # http.client's


def test_an_answer_reads_from_its_own_file() -> None:
    near, far = socket.socketpair()
    with near, far, contextlib.closing(http.client.HTTPResponse(near)) as answer:
        assert isinstance(answer.fp, io.BufferedReader)

"""What we use of pydantic, urllib3 and Kinto without a promise of theirs: each name, by what we need it to do."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter, field_validator, model_validator
from pydantic._internal._model_construction import ModelMetaclass, build_lenient_weakvaluedict
from pydantic._internal._typing_extra import parent_frame_namespace
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import build_application, import_extra
from kinto_orm.server.atomic_batch import OVER, TWEEN, UNDER
from kinto_orm.server.embedded import SECRET
from kinto_orm.server.memory import CACHE, STATE


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


def test_a_class_finds_its_types_in_the_namespace_that_its_metaclass_gives() -> None:
    def namespace() -> Any:
        kind = int
        assert kind
        return build_lenient_weakvaluedict(parent_frame_namespace(parent_depth=1))

    found: Any = ModelMetaclass(
        "Found",
        (BaseModel,),
        {
            "__module__": __name__,
            "__annotations__": {"n": "kind"},
            "__pydantic_parent_namespace__": namespace(),
        },
        __pydantic_reset_parent_namespace__=False,
    )

    assert found(n="1").n == 1


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


def test_a_serializer_can_be_built_without_those_of_the_classes_inside() -> None:
    def twice(value: int) -> int:
        return value * 2

    number = core_schema.int_schema(serialization=core_schema.plain_serializer_function_ser_schema(twice))
    inner = core_schema.model_schema(Plain, core_schema.model_fields_schema({"n": core_schema.model_field(number)}))

    serializer = SchemaSerializer(core_schema.list_schema(inner), None, _use_prebuilt=False)

    assert serializer.to_python([Plain(n=2)]) == [{"n": 4}]


def test_secrets_are_known_by_their_serializers() -> None:
    class Account(BaseModel):
        text: SecretStr
        data: SecretBytes
        other: Secret[int]

    fields = Account.__pydantic_core_schema__["schema"]["fields"]

    for field in fields.values():
        schema = field["schema"]
        while "serialization" not in schema:
            schema = schema["strict_schema"]
        function = schema["serialization"]["function"]
        assert function.__module__ == "pydantic.types" and function.__name__.startswith("_serialize_secret")
        assert schema["json_schema"]["schema"]["type"] in ("str", "bytes", "int")


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
    assert state_names(backend) == {"_store"}


def test_kintos_memory_permissions_are_changed_in_place() -> None:
    """Why our backend replaces the sets."""
    backend = import_extra("kinto.core.permission.memory").Permission()
    backend.add_principal_to_ace("/buckets/b", "read", "bob")
    principals = backend._store["permission:/buckets/b:read"]

    backend.add_principal_to_ace("/buckets/b", "read", "carol")

    assert principals == {"bob", "carol"}


def test_kintos_memory_storage_has_three_nested_dicts() -> None:
    backend = import_extra("kinto.core.storage.memory").Storage()

    backend.create("record", "/b", {"id": "one"})
    backend.create("record", "/b", {"id": "two"})
    timestamp = backend.delete("record", "/b", "two")["last_modified"]

    assert set(backend._store["/b"]["record"]) == {"one"}
    assert set(backend._cemetery["/b"]["record"]) == {"two"}
    assert backend._timestamps == {"/b": {"record": timestamp}}
    assert state_names(backend) == {"readonly", *STATE}


def test_kintos_memory_storage_replaces_objects() -> None:
    """So that a snapshot of the dicts that hold them is enough."""
    backend = import_extra("kinto.core.storage.memory").Storage()
    given = {"id": "one", "deep": {"er": 1}}
    backend.create("record", "/b", given)
    stored = backend._store["/b"]["record"]["one"]
    before = {**stored, "deep": {**stored["deep"]}}

    backend.update("record", "/b", "one", {"deep": {"er": 2}})
    given["deep"] = {"er": 3}
    backend.delete("record", "/b", "one")

    assert stored == before


def test_kintos_memory_storage_gives_its_own_nested_values_away() -> None:
    """Why our backend copies them."""
    backend = import_extra("kinto.core.storage.memory").Storage()
    backend.create("record", "/b", {"id": "one", "deep": {"er": 1}})

    backend.get("record", "/b", "one")["deep"]["er"] = 2

    assert backend._store["/b"]["record"]["one"]["deep"] == {"er": 2}


def test_kintos_memory_cache_has_three_dicts_and_a_size() -> None:
    backend = import_extra("kinto.core.cache.memory").Cache(cache_prefix="", cache_max_size_bytes=1000)

    backend.set("key", "value", ttl=10)

    state = {name: vars(backend)[name] for name in CACHE}
    assert [set(each) for each in state.values() if isinstance(each, dict)] == [{"key"}] * 3
    assert state["_quota"] > 0
    assert state_names(backend) - set(CACHE) == {"prefix", "max_size_bytes", "metrics_backend"}


def test_our_tween_is_inside_of_the_transaction_and_outside_of_errors_and_listeners(
    kinto_server: EmbeddedServer,
) -> None:
    app: Any = build_application({**kinto_server.settings, SECRET: "x"})

    tweens = app.registry.getUtility(import_extra("pyramid.interfaces").ITweens).implicit()

    names = [name for name, _ in tweens]
    ours = [UNDER, TWEEN, OVER, "kinto.core.events.notify_resource_events_before"]
    assert [name for name in names if name in ours] == ours
    assert app.registry.route_prefix == "v1"


def state_names(backend: object) -> set[str]:
    """Return the attributes that hold a backend's data, beside the lock that Kinto adds to each."""
    return set(vars(backend)) - {"__lock__"}


def test_pools_make_connections_that_can_have_another_class_of_answer() -> None:
    for pool in (HTTPConnectionPool("kinto.test"), HTTPSConnectionPool("kinto.test")):
        connection = pool._new_conn()

        assert connection.response_class is http.client.HTTPResponse  # type: ignore[attr-defined]  # http.client's


def test_an_answer_reads_from_its_own_file() -> None:
    near, far = socket.socketpair()
    with near, far, contextlib.closing(http.client.HTTPResponse(near)) as answer:
        assert isinstance(answer.fp, io.BufferedReader)

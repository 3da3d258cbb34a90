"""The JSON schema of a model beside that of its collection: compared, checked against the records, stored."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import AliasChoices, ConfigDict, Field
from wiretap import Wiretap

from kinto_orm import (
    Bucket,
    CapabilityMissingError,
    Client,
    Collection,
    ConflictError,
    InvalidTypeError,
    InvalidValueError,
    NotStageableError,
    Record,
    SchemaDiffersError,
    SchemaValidationError,
    SchemaViolationsError,
    ServerError,
    UsageError,
)
from kinto_orm.jobs import schemas
from kinto_orm.jobs.schemas import prepare_schema
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import DEFAULT_SETTINGS


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    priority: int = Field(default=1, ge=0)
    tags: list[str] = Field(default=[])


def writes(wire: Wiretap) -> list[str]:
    return [f"{request.method} {request.path}" for request in wire.requests if request.is_write]


def fill(todos: Collection[Any], count: int, *wrong: dict[str, Any]) -> None:
    rows = [{"id": f"r{number:04}", "title": f"todo {number}"} for number in range(count)]
    todos.records.bulk_create([*rows, *({"id": f"w{number}", **one} for number, one in enumerate(wrong))])


# -- the schema of a model --------------------------------------------------------------------------------------------


def test_the_schema_of_a_model_has_its_wire_names_and_no_titles(todos: Collection[Record]) -> None:
    class Named(Record):
        """Something with a name."""

        title: str
        due: date | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")
        state: Literal["a", "b"] = Field(validation_alias=AliasChoices("old", "state"))

    assert todos.schema_diff(Named).wanted == {
        "type": "object",
        "description": "Something with a name.",
        "properties": {
            "title": {"type": "string"},
            "dueDate": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
            "state": {"type": "string", "enum": ["a", "b"]},
        },
        "required": ["title", "state"],
    }


def test_formats_are_told_and_can_be_enforced(todos: Collection[Record]) -> None:
    class Visit(Record):
        at: datetime
        who: UUID | None = None

    diff = todos.schema_diff(Visit)

    assert diff.unenforced == ("properties.at: date-time", "properties.who.anyOf[0]: uuid")
    assert todos.schema_diff(Visit, enforce_formats=True).unenforced == ()
    todos.schema_diff(Visit, enforce_formats=True).push()
    todos.records.create(data={"at": "2026-11-29T12:00:00.5+01:00", "who": "6d2bd1cd-ae71-4f5c-8f20-8b8e0f0a7c11"})
    for wrong in ({"at": "tomorrow"}, {"at": "2026-11-29T12:00:00Z", "who": "me"}):
        with pytest.raises(SchemaValidationError):
            todos.records.create(data=wrong)


CRASHING: dict[str, Any] = {
    "minProperties": {"minProperties": 3},
    "maxProperties": {"maxProperties": 1},
    "propertyNames": {"propertyNames": {"minLength": 3}},
    "not": {"not": {"required": ["n"]}},
    "dependentRequired": {"dependentRequired": {"n": ["x"]}},
    "const": {"const": {"n": 2}},
    "then.minProperties": {"if": {"required": ["n"]}, "then": {"minProperties": 3}},
    "allOf[0].minProperties": {"allOf": [{"minProperties": 3}]},
    "dependentSchemas.n.minProperties": {"dependentSchemas": {"n": {"minProperties": 3}}},
    "$ref.minProperties": {"$ref": "#/$defs/Few", "$defs": {"Few": {"minProperties": 3}}},
}


@pytest.mark.parametrize("path", CRASHING)
def test_what_makes_kinto_fail_is_refused(todos: Collection[Record], path: str) -> None:
    schema = {"type": "object", **CRASHING[path]}
    with pytest.raises(InvalidValueError) as caught:
        todos.schema_diff(schema)
    assert f"The schema has {path}, by which Kinto answers 500" in str(caught.value)

    todos.patch({"schema": schema})  # as a client that bypasses the check
    client = todos.client.clone(retry=0)  # type: ignore[union-attr]  # it has one
    with pytest.raises(ServerError):
        client.bucket("payments").collection("todos").records.create(data={"n": 1, "m": 1})


def test_a_schema_that_refers_to_itself_is_taken() -> None:
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": {"allOf": [{"$ref": "#/$defs/Node"}]}}}

    assert prepare_schema(schema) == schema


def test_what_has_no_schema_is_refused(todos: Collection[Record]) -> None:
    class Odd(Record):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        f: Callable[[], int]

    with pytest.raises(UsageError, match="Record declares no fields"):
        todos.schema_diff()
    with pytest.raises(UsageError, match="Odd has a field without a JSON schema"):
        todos.schema_diff(Odd)
    no_models: list[Any] = [Bucket, int, 5, "Todo", Todo(id="x", title="")]
    for given in no_models:
        with pytest.raises(InvalidTypeError, match="made of a model"):
            todos.schema_diff(given)


def test_an_empty_schema_is_not_that_of_the_model(todos: Collection[Record]) -> None:
    diff = todos.bucket.collection(Todo).schema_diff({})

    assert diff.wanted == {}


# -- compared, checked, stored ----------------------------------------------------------------------------------------


def test_a_difference_is_shown_field_by_field(todos: Collection[Record]) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "integer"}, "old": {}}, "required": ["title"]}
    todos.patch({"schema": schema})

    diff = todos.schema_diff(Todo)

    assert str(diff).splitlines() == [
        "/buckets/payments/collections/todos and the schema of Todo:",
        'properties.done: nothing -> {"default":false,"type":"boolean"}',
        "properties.old: {} -> nothing",
        'properties.priority: nothing -> {"default":1,"minimum":0,"type":"integer"}',
        'properties.tags: nothing -> {"default":[],"items":{"type":"string"},"type":"array"}',
        'properties.title.type: "integer" -> "string"',
    ]
    assert repr(diff) == "<SchemaDiff of /buckets/payments/collections/todos and the schema of Todo, not empty>"


def test_violations_name_each_record_and_field(todos: Collection[Record]) -> None:
    fill(todos, 100, {"title": 1, "tags": ["a", 2]}, {"priority": -1}, {"title": "t", "done": "no", "x": 1})

    diff = todos.schema_diff(Todo)
    found = [(one.id, one.loc) for one in diff.violations()]

    assert found == [("w0", ("tags", 1)), ("w0", ("title",)), ("w1", ()), ("w1", ("priority",)), ("w2", ("done",))]
    assert str(diff.violations()[0]) == "w0: tags[1]: 2 is not of type 'string'"
    assert "w1: the record: 'title' is a required property" in map(str, diff.violations())


def test_progress_is_told_page_by_page(todos: Collection[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "PAGE_SIZE", 4)
    fill(todos, 10)
    told: list[tuple[int, int | None]] = []

    todos.schema_diff(Todo).violations(progress=lambda done, total, what: told.append((done, total)))

    assert told == [(4, None), (8, None), (10, None)]


def test_a_schema_that_records_violate_is_not_stored_unless_forced(todos: Collection[Record], wire: Wiretap) -> None:
    fill(todos, 3, {"title": 1})
    diff = todos.schema_diff(Todo)
    wire.requests.clear()

    with pytest.raises(SchemaViolationsError, match="1 records violate the schema of Todo") as caught:
        diff.push()
    assert [one.id for one in caught.value.violations] == ["w0"]
    assert pickle.loads(pickle.dumps(caught.value)).violations == caught.value.violations
    assert writes(wire) == []

    diff.push(force=True)
    assert diff.is_empty and todos.refresh().schema_ == diff.wanted
    with pytest.raises(SchemaValidationError):
        todos.records.get("w0").patch(done=True)


def test_a_schema_that_is_there_is_not_stored_again(todos: Collection[Record], wire: Wiretap) -> None:
    todos.schema_diff(Todo).push()
    wire.requests.clear()

    diff = todos.schema_diff(Todo)
    diff.push()

    assert diff.is_empty and str(diff) == "/buckets/payments/collections/todos has the schema of Todo."
    assert writes(wire) == []


def test_a_collection_that_was_changed_since_is_a_conflict(todos: Collection[Record]) -> None:
    diff = todos.schema_diff(Todo)
    todos.patch(sort="title")

    with pytest.raises(ConflictError):
        diff.push()
    assert todos.refresh().schema_ is None


def test_the_rest_of_the_collection_stays(todos: Collection[Record]) -> None:
    todos.patch(sort="title", other=1)

    todos.schema_diff(Todo).push()

    assert (todos.refresh().sort, todos.data["other"]) == ("title", 1)


ROWS: list[dict[str, Any]] = [
    {"title": "a"},
    {},
    {"title": None},
    {"title": "a", "priority": -1},
    {"title": "a", "priority": 1.0},
    {"title": "a", "priority": True},
    {"title": "a", "tags": "b"},
    {"title": "a", "unknown": {}},
    {"title": "a", "schema": 1, "done": 0},
]


def test_violations_are_what_the_server_refuses(todos: Collection[Record]) -> None:
    todos.records.bulk_create({"id": f"r{number}", **row} for number, row in enumerate(ROWS))
    diff = todos.schema_diff(Todo)
    said = {one.id for one in diff.violations()}
    diff.push(force=True)

    refused = set()
    for one in todos.records:
        try:
            one.replace()
        except SchemaValidationError:
            refused.add(one.id)

    assert said == refused != set()


def test_an_id_is_checked_only_where_the_schema_has_one(todos: Collection[Record]) -> None:
    fill(todos, 1)
    anything = {"type": "object", "additionalProperties": False, "properties": {"title": {}}, "required": ["id"]}
    numbered = {"type": "object", "properties": {"id": {"pattern": "^[0-9]+$"}}, "required": ["id"]}

    assert todos.schema_diff(anything).violations() == []
    assert [one.loc for one in todos.schema_diff(numbered).violations()] == [("id",)]


# -- what waits for being checked -------------------------------------------------------------------------------------


def test_after_a_push_the_records_that_were_not_written_since_are_pending(todos: Collection[Record]) -> None:
    fill(todos, 3)
    todos.schema_diff({"type": "object"}).push()
    fill_ids = [one.id for one in todos.records]
    todos.records.get(fill_ids[0]).patch(n=1)
    assert pending(todos) == fill_ids[1:]

    todos.schema_diff(Todo).push()
    assert pending(todos) == fill_ids
    todos.records.get(fill_ids[1]).patch(n=1)
    todos.records.create(id="new", data={"title": "t"})
    todos.refresh().patch(sort="title")  # no change of the schema

    assert pending(todos) == [fill_ids[0], fill_ids[2]]
    assert isinstance(todos.schema_diff(Todo).pending()[0], Todo)


def pending(todos: Collection[Record]) -> list[str]:
    return sorted(one.id for one in todos.schema_diff(Todo).pending())


def test_records_that_the_model_cannot_load_are_pending_too(todos: Collection[Record]) -> None:
    fill(todos, 1, {"title": 1}, {})
    todos.schema_diff(Todo).push(force=True)

    found = todos.schema_diff(Todo).pending()

    assert sorted((one.id, type(one)) for one in found) == [("r0000", Todo), ("w0", Record), ("w1", Record)]


def test_without_a_history_every_edit_of_the_collection_counts() -> None:
    includes = str(DEFAULT_SETTINGS["includes"]).replace("kinto.plugins.history", "")
    with EmbeddedServer.memory(includes=includes) as server, Client.embedded(server=server) as client:
        client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))
        todos = client.bucket("payments").collection("todos")
        todos.schema_diff(Todo).push()
        todos.records.create(id="a", data={"title": "t"})
        assert pending(todos) == []
        todos.refresh().patch(sort="title")

        assert pending(todos) == ["a"]


def test_a_collection_without_a_schema_has_nothing_pending(todos: Collection[Record]) -> None:
    with pytest.raises(UsageError, match="has no schema"):
        todos.schema_diff(Todo).pending()


# -- ensure -----------------------------------------------------------------------------------------------------------


def test_ensure_makes_bucket_collection_and_schema_of_a_model(kinto_client: Client, wire: Wiretap) -> None:
    kinto_client.bind(Todo)
    try:
        outcomes = kinto_client.ensure(Todo, schema=True)
        wire.requests.clear()
        again = kinto_client.ensure(Todo, schema=True)

        assert [(one.object.id, one.status) for one in outcomes] == [("payments", "created"), ("todos", "created")]
        assert [one.status for one in again] == ["unchanged", "unchanged"]
        assert writes(wire) == []
        with pytest.raises(SchemaValidationError):
            Record(bucket="payments", collection="todos", data={"title": 1}, client=kinto_client).save()
        assert Todo(title="t").save().priority == 1
    finally:
        Todo.__kinto_client__ = None


def test_ensure_without_schema_makes_none(kinto_client: Client) -> None:
    kinto_client.ensure(Todo)

    assert kinto_client.bucket("payments").collections.get("todos").schema_ is None


def test_ensure_adds_a_schema_where_there_is_none(kinto_client: Client, todos: Collection[Record]) -> None:
    todos.patch(sort="title")

    assert [one.status for one in kinto_client.ensure(Todo, schema=True)] == ["unchanged", "updated"]

    assert todos.schema_diff(Todo).is_empty and todos.refresh().sort == "title"


def test_ensure_stores_no_first_schema_over_records_that_it_could_lock(
    kinto_client: Client, todos: Collection[Record], wire: Wiretap
) -> None:
    todos.records.create(data={"title": 1})
    wire.requests.clear()

    with pytest.raises(SchemaDiffersError, match=r"has no schema, and 1 record.*schema_diff\(Todo\)"):
        kinto_client.ensure(Bucket(id="more"), Todo, schema=True)

    assert writes(wire) == []
    assert kinto_client.ensure(Todo)[1].status == "unchanged"


def test_ensure_leaves_another_schema_alone(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    todos.schema_diff({"type": "object", "properties": {"title": {"type": "integer"}}}).push()
    wire.requests.clear()

    with pytest.raises(
        SchemaDiffersError, match=r"properties.title.type: \"integer\" -> \"string\".*schema_diff\(Todo\)"
    ):
        kinto_client.ensure(Bucket(id="more"), Todo, schema=True)

    assert writes(wire) == []


def test_objects_beside_a_model_count_for_it(kinto_client: Client) -> None:
    bucket = Bucket(id="payments", data={"title": "Payments"})
    typed = Collection(bucket="payments", id="todos", model=Todo, sort="title")

    outcomes = kinto_client.ensure(typed, bucket, Todo, schema=True)

    assert [one.object for one in outcomes] == [typed, bucket]
    assert typed.schema_ is not None and typed.sort == "title"


def test_the_default_bucket_is_refused_because_nothing_is_checked_there(kinto_client: Client) -> None:
    class Local(Record, collection="todos"):
        title: str

    kinto_client.ensure(Local)

    with pytest.raises(UsageError, match="own id"):
        kinto_client.ensure(Local, schema=True)
    with pytest.raises(UsageError, match="own id"):
        kinto_client.bucket("default").collection("todos").schema_diff(Local).push()
    mine = kinto_client.clone(bucket=kinto_client.personal_bucket().id)
    assert mine.ensure(Local, schema=True)[1].status == "updated"


def test_what_is_no_model_of_records_is_refused(kinto_client: Client) -> None:
    for wrong in (Bucket, int):
        with pytest.raises(InvalidTypeError, match="models"):
            kinto_client.ensure(wrong)  # type: ignore[arg-type]


def test_a_server_that_checks_nothing_is_told_apart() -> None:
    with (
        EmbeddedServer.memory(experimental_collection_schema_validation="false") as server,
        Client.embedded(server=server) as client,
        pytest.raises(CapabilityMissingError, match="experimental_collection_schema_validation"),
    ):
        client.ensure(Todo, schema=True)


def test_a_push_is_no_part_of_a_unit(kinto_client: Client, todos: Collection[Record]) -> None:
    diff = todos.schema_diff(Todo)

    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match="push"):
        diff.push()


def test_a_dry_client_plans_the_push(todos: Collection[Record]) -> None:
    dry = todos.client.clone(dry_mode=True)  # type: ignore[union-attr]  # it has one

    dry.bucket("payments").collection("todos").schema_diff(Todo).push()

    assert [one["method"] for one in dry.plan().as_json()] == ["PATCH"]


def test_the_twins_do_the_same(kinto_client: Client, todos: Collection[Record]) -> None:
    async def work() -> tuple[int, list[str]]:
        fill(todos, 2)
        diff = await todos.aschema_diff(Todo)
        violations = await diff.aviolations()
        await diff.apush()
        await kinto_client.aensure(Todo, schema=True)
        return len(violations), [one.id for one in await diff.apending()]

    assert asyncio.run(work()) == (0, ["r0000", "r0001"])

"""``records.sync()`` on a real Kinto: equal afterwards, no write where all is equal, nothing of another client lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from wiretap import Wiretap, tap

from kinto_orm import (
    Bucket,
    BulkReport,
    Client,
    Collection,
    CommitError,
    ConflictError,
    DuplicateKeyError,
    EmptySourceError,
    GuardError,
    InvalidIdError,
    InvalidTypeError,
    InvalidValueError,
    NotLoadedError,
    NotStageableError,
    Record,
    SchemaValidationError,
    TooManyDeletesError,
)

from .test_changes import send

REAL_DUMPS = sorted((Path(__file__).parents[3] / "shared" / "data").glob("*.json"))


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    tags: list[str] = []  # noqa: RUF012  pydantic copies it
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


in_memory = pytest.mark.parametrize("server", ["memory"], indirect=True)
"""For what is decided before anything is sent, or without a look at the backend."""


def writes(wire: Wiretap) -> list[Any]:
    """Return the entries of all batches that were sent, and forget them."""
    found = [
        entry
        for request, body in zip(wire.requests, wire.bodies, strict=True)
        if request.is_write
        for entry in body["requests"]
    ]
    wire.requests.clear()
    return found


def stored(todos: Collection[Any]) -> dict[str, Any]:
    client: Any = todos.client
    return {record.id: dict(record.data) for record in client.bucket("payments").collection("todos").records}


def rows(count: int, **values: Any) -> list[dict[str, Any]]:
    return [{"id": f"r{number:04}", "n": number, **values} for number in range(count)]


# -- equal, and no write ----------------------------------------------------------------------------------------------


def test_a_second_sync_writes_nothing_and_reads_once(todos: Collection[Record], wire: Wiretap) -> None:
    first = todos.records.sync(rows(60))
    assert (first.created, first.unchanged) == (60, 0)
    wire.requests.clear()

    second = todos.records.sync(rows(60), delete=True)

    assert (second.created, second.updated, second.deleted, second.unchanged) == (0, 0, 0, 60)
    assert wire.said == ["GET"]
    assert isinstance(second, BulkReport)


@pytest.mark.skipif(not REAL_DUMPS, reason="the dumps of real collections are not here")
@pytest.mark.parametrize("dump", REAL_DUMPS, ids=lambda path: path.stem)
def test_a_real_collection_is_synced_once(todos: Collection[Record], wire: Wiretap, dump: Path) -> None:
    count = len(json.loads(dump.read_bytes())["data"])
    assert todos.records.sync(dump).created == count
    writes(wire)

    assert todos.records.sync(dump, delete=True, max_deletes=0).unchanged == count
    assert writes(wire) == []


def test_only_differences_are_written_each_with_its_precondition(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.sync([{"id": "a", "n": 1, "gone": 1}, {"id": "b", "n": 1}, {"id": "c", "n": 1}])
    tags = {record.id: record.last_modified for record in todos.records}
    wire.requests.clear()

    report = todos.records.sync([{"id": "new", "n": 1}, {"n": 2, "id": "a"}, {"id": "c", "n": 1}], delete=True)

    assert (report.created, report.updated, report.deleted, report.unchanged) == (1, 1, 1, 1)
    sent = [(entry["method"], entry["path"].rpartition("/")[2], entry["headers"]) for entry in writes(wire)]
    assert sent == [
        ("PUT", "a", {"If-Match": f'"{tags["a"]}"'}),
        ("PUT", "new", {"If-None-Match": "*"}),
        ("DELETE", "b", {"If-Match": f'"{tags["b"]}"'}),
    ]
    assert stored(todos) == {"a": {"n": 2}, "c": {"n": 1}, "new": {"n": 1}}


def test_records_that_the_source_lacks_stay_unless_they_shall_be_deleted(todos: Collection[Record]) -> None:
    todos.records.sync(rows(3))

    assert todos.records.sync(rows(1)).deleted == 0
    assert todos.records.count() == 3


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # A NUL makes Kinto on PostgreSQL answer 503, a lone surrogate cannot be sent.
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.dictionaries(st.sampled_from("xyz"), json_values), max_size=3)
)
def test_any_json_is_equal_after_one_sync(todos: Collection[Record], wanted: dict[str, Any]) -> None:
    source = [{"id": id, **data} for id, data in wanted.items()]
    wire = tap(todos.client)  # type: ignore[arg-type]

    todos.records.sync(source, delete=True, max_deletes=1.0)
    writes(wire)

    assert todos.records.sync(source, delete=True, max_deletes=1.0).unchanged == len(source)
    assert writes(wire) == []
    assert todos.records.count() == len(source)


@in_memory
@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (1, 1.0, False),
        (1, True, True),
        (0, False, True),
        ({"x": 1, "y": [2]}, {"y": [2.0], "x": 1}, False),
        ([1], [True], True),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", True),  # text of untyped rows is text
        (None, 0, True),
    ],
)
def test_values_of_plain_records_are_compared_as_json(
    todos: Collection[Record], one: Any, other: Any, differs: bool
) -> None:
    todos.records.sync([{"id": "a", "value": one}])

    assert todos.records.sync([{"id": "a", "value": other}]).updated == differs


def test_models_with_defaults_that_the_server_lacks_are_equal(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.sync([{"id": "a", "title": "Milk", "dueDate": "2026-01-01T00:00:00+00:00", "theirs": 1}])
    wire.requests.clear()
    due = datetime(2026, 1, 1, tzinfo=UTC)

    report = todos.client.bind(Todo).records.sync(  # type: ignore[union-attr]
        [Todo(id="a", title="Milk", due=due, done=False, tags=[])]
    )

    assert (report.unchanged, writes(wire)) == (1, [])


def test_a_mapping_of_a_typed_collection_is_compared_as_its_model_reads_it(
    todos: Collection[Record], wire: Wiretap
) -> None:
    todos.records.sync([{"id": "a", "title": "Milk", "done": False, "dueDate": "2026-01-01T00:00:00+00:00"}])
    wire.requests.clear()

    records = todos.client.bind(Todo).records  # type: ignore[union-attr]
    assert records.sync([{"id": "a", "title": "Milk", "dueDate": "2026-01-01T00:00:00Z"}]).unchanged == 1
    assert writes(wire) == []


def test_untouched_keys_keep_the_spelling_of_the_server(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "title": "Milk", "dueDate": "2026-01-01T00:00:00+00:00"}])

    todos.client.bind(Todo).records.sync(  # type: ignore[union-attr]
        [{"id": "a", "title": "Bread", "dueDate": "2026-01-01T00:00:00Z"}]
    )

    assert stored(todos)["a"] == {"title": "Bread", "dueDate": "2026-01-01T00:00:00+00:00"}


# -- which keys -------------------------------------------------------------------------------------------------------


def test_a_dictionary_says_all_of_its_record(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "x": 1, "y": 1}])

    todos.records.sync([{"id": "a", "x": 2}])

    assert stored(todos) == {"a": {"x": 2}}


def test_given_fields_leave_the_others_alone(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "x": 1, "y": 1}])

    todos.records.sync([{"id": "a", "x": 2}], fields="given")

    assert stored(todos) == {"a": {"x": 2, "y": 1}}


def test_a_model_says_only_what_it_mentions(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "title": "Milk", "done": True, "theirs": 1}])

    records = todos.client.bind(Todo).records  # type: ignore[union-attr]
    assert records.sync([Todo(id="a", title="Bread")]).updated == 1
    assert stored(todos) == {"a": {"title": "Bread", "done": True, "theirs": 1}}
    assert records.sync([Todo(id="a", title="Bread")], fields="exact").updated == 1
    assert stored(todos)["a"] == {"title": "Bread", "done": False}


def test_a_model_that_is_new_is_stored_with_its_defaults(todos: Collection[Record]) -> None:
    todos.client.bind(Todo).records.sync([Todo(id="a", title="Milk")])  # type: ignore[union-attr]

    assert stored(todos) == {"a": {"title": "Milk", "done": False, "tags": []}}


def test_named_fields_are_the_only_ones(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "x": 1, "y": 1, "z": 1}])

    todos.records.sync([{"id": "a", "x": 2, "y": 2}], fields=["x", "z"])

    assert stored(todos) == {"a": {"x": 2, "y": 1}}


@in_memory
def test_what_the_server_owns_is_compared_only_where_it_is_asked_for(todos: Collection[Record], wire: Wiretap) -> None:
    todos.schema_ = {"type": "object"}
    todos.save()
    todos.records.sync([{"id": "a", "x": 1}])
    todos.records.get("a").patch(attachment={"hash": "1"})
    wire.requests.clear()
    stamp = todos.records.get("a").data["schema"]
    row = {"id": "a", "x": 1, "schema": stamp - 5, "last_modified": 5, "attachment": {"hash": "2"}}

    assert todos.records.sync([row]).unchanged == 1
    assert todos.records.sync([{"id": "a", "x": 1}]).unchanged == 1
    assert writes(wire) == []
    assert todos.records.sync([row], fields=["attachment"]).updated == 1
    assert stored(todos)["a"]["attachment"] == {"hash": "2"}


def test_a_key_schema_of_ones_own_is_data(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "schema": "v1"}])

    assert todos.records.sync([{"id": "a", "schema": "v2"}]).updated == 1
    assert stored(todos) == {"a": {"schema": "v2"}}


# -- keys -------------------------------------------------------------------------------------------------------------


def test_rows_of_a_natural_key_keep_the_ids_of_their_records(todos: Collection[Record]) -> None:
    todos.records.bulk_create([{"id": "one", "logID": "a", "n": 1}, {"id": "two", "logID": "b"}, {"id": "other"}])

    report = todos.records.sync([{"id": "elsewhere", "logID": "a", "n": 2}, {"logID": "c"}], key="logID", delete=True)

    assert (report.created, report.updated, report.deleted, report.without_key) == (1, 1, 1, 1)
    now = stored(todos)
    assert now.pop("one") == {"logID": "a", "n": 2}
    assert now.pop("other") == {}
    assert list(now.values()) == [{"logID": "c"}]


def test_ids_of_new_natural_keys_are_the_same_each_time(kinto_client: Client, todos: Collection[Record]) -> None:
    todos.records.sync([{"k": "a"}, {"k": 1}], key="k")
    first = set(stored(todos))
    todos.records.delete(everything=True)

    todos.records.sync([{"k": 1.0}, {"k": "a"}], key="k")

    assert set(stored(todos)) == first
    assert len(first) == 2


def test_the_default_bucket_gives_the_same_ids_by_both_of_its_names(kinto_client: Client) -> None:
    default = kinto_client.bucket("default")
    Collection(bucket=default, id="c", client=kinto_client).save()
    default.collection("c").records.sync([{"k": "a"}], key="k")
    (id,) = [record.id for record in default.collection("c").records]
    default.collection("c").records.delete(everything=True)

    kinto_client.bucket(kinto_client.personal_bucket().id).collection("c").records.sync([{"k": "a"}], key="k")

    assert [record.id for record in default.collection("c").records] == [id]


def test_a_key_of_two_fields(todos: Collection[Record], wire: Wiretap) -> None:
    source = [{"lang": "de", "code": 1, "x": 1}, {"lang": "de", "code": True, "x": 2}, {"lang": "de", "code": "1"}]
    assert todos.records.sync(source, key=("lang", "code")).created == 3
    writes(wire)

    assert todos.records.sync(reversed(source), key=("lang", "code")).unchanged == 3
    assert writes(wire) == []


def test_a_key_is_matched_as_its_model_spells_it(kinto_client: Client, tmp_path: Path) -> None:
    class Reading(Record, bucket="payments", collection="todos"):
        at: datetime
        celsius: float

    kinto_client.ensure(Reading)
    plain = kinto_client.bucket("payments").collection("todos").records
    plain.create(id="other", data={"at": "2025-01-01T01:00:00+01:00", "celsius": 0})
    plain.create(id="unfit", data={"at": "never"})
    records = kinto_client.bucket("payments").collection(Reading).records
    file = tmp_path / "readings.csv"
    file.write_text("at,celsius\n2026-01-01T00:00:00Z,1.5\n2025-01-01T00:00:00Z,2\n")

    assert records.sync(file, key="at").updated == 1
    assert records.sync(file, key="at").unchanged == 2
    assert records.sync([{"at": datetime(2026, 1, 1, tzinfo=UTC), "celsius": 1.5}], key="at").unchanged == 1
    file.write_text("at,celsius\n2026-01-01T00:00:00Z,1\n2026-01-01T01:00:00+01:00,2\n")
    with pytest.raises(DuplicateKeyError, match=r"line 2 .* line 3"):
        records.sync(file, key="at")


@in_memory
@pytest.mark.parametrize("key", ["id", "k"])
def test_a_key_that_comes_twice_is_refused_with_both_positions(
    todos: Collection[Record], wire: Wiretap, key: str
) -> None:
    source = [{key: "a"}, {key: "b"}, {key: "c"}, {key: "b"}]

    with pytest.raises(DuplicateKeyError, match="row 2 of the source and row 4 of the source"):
        todos.records.sync(source, key=key)
    assert wire.requests == []


@in_memory
@pytest.mark.parametrize("value", [[1], {"a": 1}, float("nan"), "\ud800"], ids=repr)
def test_a_row_whose_key_can_be_matched_with_nothing_is_refused(
    todos: Collection[Record], wire: Wiretap, value: Any
) -> None:
    with pytest.raises(InvalidValueError, match="row 2 of the source: it has no k that is text, a number or a boolean"):
        todos.records.sync([{"k": 1}, {"k": value}], key="k")
    assert wire.requests == []


def test_the_id_of_a_key_that_another_client_changed_is_a_conflict(todos: Collection[Record]) -> None:
    todos.records.sync([{"k": "a", "n": 1}], key="k")
    (record,) = todos.records
    record.data["k"] = "b"
    record.save()

    with pytest.raises(CommitError) as caught:
        todos.records.sync([{"k": "a", "n": 2}, {"k": "b", "n": 3}], key="k")

    (failed,) = caught.value.report.failed
    assert (failed.status, failed.object.id) == ("conflict", record.id)
    assert stored(todos) == {record.id: {"k": "b", "n": 3}}


def test_two_records_of_one_key_are_refused_with_both_ids(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create([{"id": "one", "k": 1}, {"id": "two", "k": 1.0}, {"id": "three", "k": True}])
    wire.requests.clear()

    with pytest.raises(DuplicateKeyError, match="one and two"):
        todos.records.sync([{"k": 2}], key="k")
    assert writes(wire) == []


@in_memory
@pytest.mark.parametrize(
    ("row", "error", "says"),
    [
        ({"n": 1}, InvalidValueError, "row 2 of the source: it has no id"),
        ({"id": None}, InvalidValueError, "row 2 of the source: it has no id"),
        ({"id": "a/b"}, InvalidIdError, "row 2 of the source: .*a/b"),
        ({"id": 5}, InvalidTypeError, "row 2 of the source: "),
        ({"id": ""}, InvalidIdError, "row 2 of the source: "),
        ({"id": "x", "n": {"deep": float("nan")}}, InvalidValueError, r"row 2 of the source: data\.n\.deep: nan"),
        ({"id": "x", "n": datetime(2026, 1, 1)}, InvalidValueError, "row 2 of the source: .*n: .*no timezone"),  # noqa: DTZ001
        ({"id": "x", 1: 2}, InvalidValueError, "row 2 of the source: .*string keys"),
        (["x"], InvalidTypeError, "row 2 of the source: a row is a mapping or a model"),
    ],
)
def test_a_row_that_cannot_be_written_is_refused_with_its_position(
    todos: Collection[Record], wire: Wiretap, row: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        todos.records.sync([{"id": "a"}, row])
    assert writes(wire) == []


@in_memory
def test_a_tombstone_is_no_row(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create(rows(2))
    before = todos.records.timestamp() or 0
    todos.records.get("r0000").delete()
    gone = todos.records.since(before).all()
    wire.requests.clear()

    with pytest.raises(NotLoadedError, match=r"row 2 of the source: .*has no data"):
        todos.records.sync([{"id": "a"}, *gone])
    assert writes(wire) == []


@in_memory
@pytest.mark.parametrize("verb", ["sync", "plan", "diff"])
def test_a_query_is_no_target(todos: Collection[Record], verb: str) -> None:
    with pytest.raises(AttributeError, match=f"{verb}\\(\\) is for a whole collection"):
        getattr(todos.records.filter(n=1), verb)


@in_memory
def test_a_row_that_does_not_fit_the_model_is_refused_with_its_position(
    todos: Collection[Record], wire: Wiretap
) -> None:
    with pytest.raises(InvalidValueError, match="row 2 of the source: Todo: tags: "):
        todos.client.bind(Todo).records.sync(  # type: ignore[union-attr]
            [{"id": "b", "title": "x"}, {"id": "a", "title": "x", "tags": 5}]
        )
    assert writes(wire) == []


def test_records_that_do_not_fit_the_model_are_mended(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "title": ["no", "text"]}])

    report = todos.client.bind(Todo).records.sync([{"id": "a", "title": "Milk"}])  # type: ignore[union-attr]

    assert (report.updated, stored(todos)["a"]["title"]) == (1, "Milk")


# -- guards -----------------------------------------------------------------------------------------------------------


def test_an_empty_source_deletes_nothing(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.sync(rows(3))
    writes(wire)

    with pytest.raises(EmptySourceError, match=r"has 3 records.*max_deletes=1\.0"):
        todos.records.sync([], delete=True, max_deletes=100)
    assert writes(wire) == []
    assert todos.records.sync([]).unchanged == 0


def test_an_empty_source_empties_the_collection_where_that_is_said(todos: Collection[Record]) -> None:
    assert todos.records.sync([], delete=True).deleted == 0
    todos.records.sync(rows(3))

    assert todos.records.sync([], delete=True, max_deletes=1.0).deleted == 3


@in_memory
@pytest.mark.parametrize(
    ("limit", "left", "is_refused"),
    [
        (0.5, 4, True),
        (0.5, 5, False),
        (5, 5, False),
        (5, 4, True),
        (0, 9, True),
        (0.0, 9, True),
        (1, 9, False),
        (1.0, 1, False),
    ],
)
def test_no_more_than_max_deletes_are_deleted(
    todos: Collection[Record], wire: Wiretap, limit: float, left: int, is_refused: bool
) -> None:
    todos.records.sync(rows(10))
    writes(wire)

    if is_refused:
        with pytest.raises(TooManyDeletesError, match=f"{10 - left} of the 10 records"):
            todos.records.sync(rows(left), delete=True, max_deletes=limit)
        assert writes(wire) == []
    else:
        assert todos.records.sync(rows(left), delete=True, max_deletes=limit).deleted == 10 - left


@in_memory
def test_a_share_allows_exactly_its_part(todos: Collection[Record]) -> None:
    todos.records.sync(rows(100))  # 0.29 * 100 is less than 29 in floats

    with pytest.raises(TooManyDeletesError, match="30 of the 100 records"):
        todos.records.sync(rows(70), delete=True, max_deletes=0.29)
    assert todos.records.sync(rows(71), delete=True, max_deletes=0.29).deleted == 29
    assert todos.records.filter(min_n=69).delete(max_deletes=2) == 2
    todos.records.sync(rows(100))
    assert todos.records.filter(max_n=28).delete(max_deletes=0.29) == 29


def test_guards_are_one_kind_of_error() -> None:
    assert issubclass(EmptySourceError, GuardError)
    assert issubclass(TooManyDeletesError, GuardError)


@in_memory
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_deletes": True}, InvalidTypeError),
        ({"max_deletes": "5"}, InvalidTypeError),
        ({"max_deletes": -1}, InvalidValueError),
        ({"max_deletes": 1.5}, InvalidValueError),
        ({"max_deletes": float("nan")}, InvalidValueError),
        ({"key": ""}, InvalidTypeError),
        ({"key": []}, InvalidTypeError),
        ({"key": ["a", 1]}, InvalidTypeError),
        ({"key": ["id", "a"]}, InvalidValueError),
        ({"key": "last_modified"}, InvalidValueError),
        ({"fields": "all"}, InvalidValueError),
        ({"fields": []}, InvalidTypeError),
        ({"fields": ["id"]}, InvalidValueError),
    ],
)
def test_options_without_sense_are_refused(
    todos: Collection[Record], wire: Wiretap, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        todos.records.sync([{"id": "a"}], **options)
    assert wire.requests == []


@in_memory
@pytest.mark.parametrize("source", [{"id": "a"}, 5, b"abc", Record(id="a", data={})], ids=repr)
def test_a_single_thing_is_no_source(todos: Collection[Record], source: Any) -> None:
    with pytest.raises(InvalidTypeError, match="takes many rows"):
        todos.records.sync(source)


@in_memory
def test_a_sync_is_no_part_of_a_unit_of_work(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError):
        todos.records.sync([{"id": "a"}])


# -- others write, too ------------------------------------------------------------------------------------------------


def when_writing(wire: Wiretap, act: Any) -> None:
    """Has the act done just before the first batch of the client."""
    send = wire.transport.send

    def first(request: Any) -> Any:
        if request.is_write and pending:
            pending.pop()()
        return send(request)

    pending = [act]
    wire.transport.send = first  # type: ignore[method-assign]


def test_what_a_rival_wrote_in_between_is_a_conflict(
    todos: Collection[Record], wire: Wiretap, rival: Collection[Record]
) -> None:
    todos.records.sync([{"id": id, "n": 1} for id in "abcd"])
    when_writing(
        wire,
        lambda: [
            rival.records.get("a").patch(n=9),
            rival.records.get("b").delete(),
            rival.records.get("d").patch(n=9),
            rival.records.create(id="new", data={"n": 9}),
        ],
    )

    with pytest.raises(CommitError) as caught:
        todos.records.sync([{"id": "a", "n": 2}, {"id": "b", "n": 2}, {"id": "c", "n": 2}, {"id": "new"}], delete=True)

    report = caught.value.report
    assert {one.object.id: one.status for one in report.failed} == dict.fromkeys("ad", "conflict") | {
        "b": "gone",
        "new": "conflict",
    }
    assert report.updated == 1
    assert stored(todos) == {"a": {"n": 9}, "c": {"n": 2}, "d": {"n": 9}, "new": {"n": 9}}
    conflict = next(one.error for one in report.failed if one.object.id == "a")
    assert isinstance(conflict, ConflictError)
    assert (conflict.base, conflict.mine, conflict.theirs) == ({"n": 1}, {"n": 2}, {"n": 9})


def test_another_field_of_a_rival_is_kept_where_both_are_merged(
    todos: Collection[Record], wire: Wiretap, rival: Collection[Record]
) -> None:
    todos.records.sync([{"id": "a", "n": 1, "theirs": 1}])
    when_writing(wire, lambda: rival.records.get("a").patch(theirs=9))

    report = todos.records.sync([{"id": "a", "n": 2, "theirs": 1}], on_conflict="merge")

    assert report.updated == 1
    assert stored(todos) == {"a": {"n": 2, "theirs": 9}}


def test_a_record_that_the_schema_refuses_is_reported_and_the_others_are_stored(todos: Collection[Record]) -> None:
    todos.schema_ = {"type": "object", "properties": {"n": {"type": "integer"}}}
    todos.save()
    source = rows(1000)
    source[30]["n"] = "many"

    with pytest.raises(CommitError) as caught:
        todos.records.sync(source)

    report = caught.value.report
    assert report.created == 999
    (failed,) = report.failed
    assert (failed.object.id, failed.status) == ("r0030", "rejected")
    assert isinstance(failed.error, SchemaValidationError)
    assert failed.error.errors[0].loc == ("n",)


def test_outcomes_have_the_records(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "b", "n": 1}, {"id": "c", "n": 1}])
    outcomes: list[Any] = []

    todos.records.sync([{"id": "a", "n": 1}, {"id": "b", "n": 2}], delete=True, on_outcome=outcomes.append)

    assert [(one.object.id, one.status) for one in outcomes] == [("a", "created"), ("b", "updated"), ("c", "deleted")]
    new, changed, gone = (one.object for one in outcomes)
    assert not new.is_dirty and not changed.is_dirty and gone.is_deleted
    changed.data["n"] = 3
    changed.save()
    assert stored(todos)["b"] == {"n": 3}


@in_memory
def test_outcomes_of_a_typed_collection_have_its_models(todos: Collection[Record]) -> None:
    outcomes: list[Any] = []

    records = todos.client.bind(Todo).records  # type: ignore[union-attr]
    records.sync([{"id": "a", "title": "Milk"}], on_outcome=outcomes.append)
    records.sync([{"id": "a", "title": "Bread"}], on_outcome=outcomes.append)

    assert [(type(one.object), one.object.title) for one in outcomes] == [(Todo, "Milk"), (Todo, "Bread")]


@in_memory
def test_a_dry_client_plans_the_writes(kinto_client: Client, todos: Collection[Record]) -> None:
    dry = kinto_client.clone(dry_mode=True)

    report = dry.bucket("payments").collection("todos").records.sync(rows(2))

    assert (report.planned, report.created) == (2, 0)
    assert todos.records.count() == 0


# -- progress, awaiting, memory ---------------------------------------------------------------------------------------


@in_memory
def test_progress_is_told(todos: Collection[Record]) -> None:
    told: list[tuple[int, int | None, str]] = []

    todos.records.sync(rows(60), progress=lambda done, total, what: told.append((done, total, what)))

    assert told == [
        (60, None, "read source"),
        (0, None, "read records"),
        (25, 60, "write records"),
        (50, 60, "write records"),
        (60, 60, "write records"),
    ]


@in_memory
def test_it_can_be_awaited(todos: Collection[Record], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a"}\n')

    async def main() -> list[int]:
        return [(await todos.records.async_(file)).created, (await todos.records.async_([{"id": "a"}])).unchanged]

    assert asyncio.run(main()) == [1, 1]


@pytest.mark.parametrize("key", ["id", "n"])
def test_more_rows_than_fit_in_memory_are_compared_alike(
    todos: Collection[Record], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("kinto_orm.jobs.spool.MOST_IN_MEMORY", 10)
    monkeypatch.setattr("kinto_orm.jobs.planning.PAGE_SIZE", 12)
    source: Sequence[dict[str, Any]] = list(reversed(rows(40)))
    assert todos.records.sync(iter(source), key=key).created == 40

    changed = [{**row, "x": 1} if row["n"] % 2 else row for row in source[:30]]
    report = todos.records.sync(iter(changed), key=key, delete=True)

    assert (report.updated, report.deleted, report.unchanged) == (15, 10, 15)
    assert todos.records.sync(iter(changed), key=key, delete=True).unchanged == 30


@in_memory
def test_a_key_that_comes_twice_is_found_where_rows_do_not_fit_in_memory(
    todos: Collection[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinto_orm.jobs.spool.MOST_IN_MEMORY", 10)

    with pytest.raises(DuplicateKeyError, match="row 1 of the source and row 101 of the source"):
        todos.records.sync([*rows(100), {"id": "r0000"}])


# -- sources ----------------------------------------------------------------------------------------------------------


@in_memory
def test_a_query_of_another_server_is_a_source(kinto_client: Client, todos: Collection[Record]) -> None:
    with Client.embedded() as other:
        theirs = Collection(bucket=Bucket(id="b", client=other).save(), id="c").save()
        theirs.records.bulk_create([{"id": "a", "n": 1}, {"id": "b", "n": 2}])

        report = todos.records.sync(theirs.records.filter(gt_n=1))
        assert asyncio.run(todos.records.async_(theirs.records)).unchanged == 1

    assert report.created == 1
    assert stored(todos) == {"a": {"n": 1}, "b": {"n": 2}}


def test_records_of_a_query_with_some_fields_are_what_they_give(todos: Collection[Record]) -> None:
    todos.records.bulk_create([{"id": "a", "n": 1, "x": 1}])
    copy = Collection(bucket=todos.bucket, id="copy").save()
    copy.records.sync([{"id": "a", "n": 5, "y": 5}])

    copy.records.sync(todos.records.only("n"))

    assert dict(copy.records.get("a").data) == {"n": 1, "y": 5}


def test_a_record_with_a_key_deleted_is_a_row_and_a_tombstone_is_none(todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(2))
    before = todos.records.timestamp() or 0
    send(todos.client, f"{todos.__kinto_path__()}/records/own", {"data": {"deleted": True, "n": 1}})
    todos.records.get("r0001").delete()
    copy = Collection(bucket=todos.bucket, id="copy").save()

    plan = copy.records.plan(todos.records.since(before))

    assert [(change.id, change.new) for change in plan] == [("own", {"deleted": True, "n": 1})]


@in_memory
def test_loaded_records_are_a_source(todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(2))
    copy = Collection(bucket=todos.bucket, id="copy").save()

    assert copy.records.sync(todos.records.all()).created == 2
    assert copy.records.sync(todos.records).unchanged == 2


@in_memory
def test_a_generator_is_read_once_and_completely_before_a_write(todos: Collection[Record], wire: Wiretap) -> None:
    def source() -> Iterator[Any]:
        for row in rows(40):
            assert wire.requests == []
            yield row

    assert todos.records.sync(source()).created == 40


@in_memory
def test_an_error_of_the_source_stops_the_sync_before_any_write(todos: Collection[Record], wire: Wiretap) -> None:
    def source() -> Iterator[Any]:
        yield from rows(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        todos.records.sync(source())
    assert wire.requests == []

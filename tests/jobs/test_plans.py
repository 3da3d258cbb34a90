"""Plans of a sync: shown, kept in a file, applied as they were shown or not at all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wiretap import Wiretap

from kinto_orm import (
    MISSING,
    Bucket,
    Client,
    Collection,
    CommitError,
    InvalidValueError,
    NotStageableError,
    PlannedChange,
    Record,
    StalePlanError,
    SyncPlan,
    TooManyDeletesError,
    UsageError,
)

memory = pytest.mark.parametrize("server", ["memory"], indirect=True)


BEFORE = [
    {"id": "a", "n": 1, "deep": {"x": 1, "y": [1]}},
    {"id": "b", "n": 1},
    {"id": "c", "n": 1},
    {"id": "d", "n": 1},
]
AFTER = [
    {"id": "a", "n": 2, "deep": {"x": 1, "y": [1, 2]}},
    {"id": "c", "n": 1},
    {"id": "d", "n": 3},
    {"id": "new", "n": 1},
]


@pytest.fixture
def plan(todos: Collection[Record], wire: Wiretap) -> SyncPlan:
    todos.records.sync(BEFORE)
    wire.requests.clear()
    return todos.records.plan(AFTER, delete=True)


def without_atomic_batches(client: Any) -> None:
    client._connection.server_info = {**client.server_info(), "capabilities": {}}


def stored(todos: Collection[Record]) -> dict[str, Any]:
    return {record.id or "": dict(record.data) for record in todos.records}


def wanted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["id"]: {key: value for key, value in row.items() if key != "id"} for row in rows}


# -- shown --------------------------------------------------------------------------------------------------------


def test_a_plan_sends_reads_only(plan: SyncPlan, wire: Wiretap) -> None:
    assert wire.said == ["GET"]
    assert (plan.is_empty, plan.counts.create, plan.counts.update, plan.counts.delete) == (False, 1, 2, 1)
    assert (plan.counts.unchanged, plan.counts.changes) == (1, 4)


@memory
def test_a_plan_is_shown_by_field(plan: SyncPlan) -> None:
    assert str(plan).splitlines() == [
        "/buckets/payments/collections/todos/records: 1 to create, 2 to update, 1 to delete, 1 unchanged",
        "~ a",
        "    n: 1 -> 2",
        "    deep.y: [1] -> [1, 2]",
        "~ d",
        "    n: 1 -> 3",
        "+ new",
        "    n: 1",
        "- b",
    ]
    assert repr(plan) == "<SyncPlan of /buckets/payments/collections/todos/records: +1 ~2 -1>"


@memory
def test_a_plan_is_iterated_by_change(todos: Collection[Record]) -> None:
    todos.records.sync([{"id": "a", "x": None, "gone": 1}])

    (change,) = todos.records.plan([{"id": "a", "x": 0, "new": [1]}])

    assert isinstance(change, PlannedChange)
    assert (change.kind, change.id, change.last_modified) == ("update", "a", todos.records.get("a").last_modified)
    assert change.fields == {"x": (None, 0), "gone": (1, MISSING), "new": (MISSING, [1])}
    assert repr(MISSING) == "MISSING"


@memory
def test_a_natural_key_is_shown(todos: Collection[Record]) -> None:
    plan = todos.records.plan([{"k": "a b", "n": 1}], key="k")

    assert str(plan).splitlines()[1].endswith(' ("a b")')


@memory
def test_a_diff_is_all_that_would_make_it_equal(todos: Collection[Record]) -> None:
    todos.records.sync(BEFORE)
    other = Collection(bucket=todos.bucket, id="other").save()
    other.records.sync(AFTER)

    diff = todos.records.diff(other.records)

    assert (diff.counts.create, diff.counts.update, diff.counts.delete) == (1, 2, 1)
    diff.apply()
    assert todos.records.diff(other.records).is_empty
    assert other.records.diff([]).counts.delete == 4


@memory
def test_the_guard_of_a_plan_is_that_of_a_sync(todos: Collection[Record]) -> None:
    todos.records.sync(BEFORE)

    with pytest.raises(TooManyDeletesError):
        todos.records.plan([{"id": "a"}], delete=True)


@memory
def test_a_plan_has_no_truth_value(plan: SyncPlan) -> None:
    with pytest.raises(UsageError, match="is_empty"):
        bool(plan)


# -- applied ------------------------------------------------------------------------------------------------------


def test_a_plan_is_applied(plan: SyncPlan, todos: Collection[Record]) -> None:
    told: list[Any] = []

    report = plan.apply(progress=lambda *args: told.append(args))

    assert (report.created, report.updated, report.deleted, report.unchanged) == (1, 2, 1, 1)
    assert stored(todos) == wanted(AFTER)
    assert told == [(4, 4, "write records")]


def test_an_empty_plan_sends_nothing(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.sync(BEFORE)
    plan = todos.records.plan(BEFORE)
    wire.requests.clear()

    assert plan.is_empty
    assert plan.apply().unchanged == 4
    assert wire.requests == []


def test_a_plan_that_was_applied_can_be_applied_again(plan: SyncPlan, todos: Collection[Record], wire: Wiretap) -> None:
    plan.apply()
    wire.requests.clear()

    report = plan.apply()

    assert (report.unchanged, report.stored) == (5, 5)
    assert stored(todos) == wanted(AFTER)


@pytest.mark.parametrize("is_atomic", [True, False], ids=["atomic", "plain"])
@pytest.mark.parametrize(
    "change",
    [
        lambda records: records.get("a").patch(n=9),
        lambda records: records.get("d").delete(),
        lambda records: records.get("c").patch(n=9),
        lambda records: records.create(id="another", data={}),
        lambda records: records.create(id="new", data={"n": 9}),
    ],
    ids=["planned", "deleted", "unplanned", "another", "created"],
)
def test_a_plan_is_stale_once_another_client_wrote(
    plan: SyncPlan, todos: Collection[Record], wire: Wiretap, rival: Collection[Record], change: Any, is_atomic: bool
) -> None:
    if not is_atomic:
        without_atomic_batches(todos.client)
    change(rival.records)
    before = stored(todos)
    wire.requests.clear()

    with pytest.raises(StalePlanError, match=r"Another client changed .*make a new plan"):
        plan.apply()
    # The server itself refuses what is atomic; else it is asked first.
    assert is_atomic == any(request.is_write for request in wire.requests)
    assert stored(todos) == before


@pytest.mark.parametrize("is_atomic", [True, False], ids=["atomic", "plain"])
def test_a_report_says_whether_all_was_stored_at_once(
    plan: SyncPlan, todos: Collection[Record], wire: Wiretap, is_atomic: bool
) -> None:
    timestamp = plan.timestamp
    if not is_atomic:
        without_atomic_batches(todos.client)
    wire.requests.clear()

    assert plan.apply().is_atomic == is_atomic

    guard = {
        "method": "HEAD",
        "path": "/buckets/payments/collections/todos/records",
        "headers": {"If-Match": f'"{timestamp}"'},
    }
    assert wire.said == (["POST"] if is_atomic else [f'HEAD If-Match: "{timestamp}"', "POST"])
    assert (guard in wire.bodies[-1]["requests"]) == is_atomic


def test_a_refused_change_of_a_plan_keeps_all_from_being_stored(todos: Collection[Record], wire: Wiretap) -> None:
    todos.schema_ = {"type": "object", "properties": {"n": {"type": "integer"}}}
    todos.save()
    plan = todos.records.plan([{"id": "a", "n": 1}, {"id": "b", "n": "many"}])

    with pytest.raises(CommitError) as caught:
        plan.apply()

    assert {one.object.id: one.status for one in caught.value.report.failed} == {"a": "rolled_back", "b": "rejected"}
    assert todos.records.count() == 0


def test_the_plan_of_a_collection_that_was_made_again_is_stale(
    plan: SyncPlan, todos: Collection[Record], rival: Collection[Record]
) -> None:
    rival.refresh().delete()
    Collection(bucket=todos.bucket, id="todos").save()

    with pytest.raises(StalePlanError):
        plan.apply()
    assert todos.records.count() == 0


@memory
@pytest.mark.parametrize("theirs", [BEFORE, []], ids=["the same records", "none"])
def test_the_plan_of_another_server_is_stale(plan: SyncPlan, tmp_path: Path, theirs: list[dict[str, Any]]) -> None:
    plan.save(tmp_path / "plan.json")
    with Client.embedded() as other:
        records = Collection(bucket=Bucket(id="payments", client=other).save(), id="todos").save().records
        records.sync(theirs)

        with pytest.raises(StalePlanError):
            other.load_plan(tmp_path / "plan.json").apply()
        assert records.diff(theirs).is_empty


def test_an_interrupted_plan_is_finished(plan: SyncPlan, todos: Collection[Record], wire: Wiretap) -> None:
    # Two of its changes were stored when its process was killed.
    todos.records.get("a").patch({"n": 2, "deep": {"x": 1, "y": [1, 2]}})
    todos.records.get("b").delete()
    wire.requests.clear()

    report = plan.apply()

    assert (report.created, report.updated, report.deleted, report.unchanged) == (1, 1, 0, 3)
    assert stored(todos) == wanted(AFTER)


def test_what_a_rival_writes_while_it_is_applied_is_a_conflict(
    plan: SyncPlan, todos: Collection[Record], wire: Wiretap, rival: Collection[Record]
) -> None:
    without_atomic_batches(todos.client)
    send = wire.transport.send

    def meddle(request: Any) -> Any:
        if request.is_write and rival.records.get("a").data["n"] == 1:
            rival.records.get("a").patch(n=9)
        return send(request)

    wire.transport.send = meddle  # type: ignore[method-assign]
    with pytest.raises(CommitError) as caught:
        plan.apply()

    report = caught.value.report
    assert [(one.object.id, one.status) for one in report.failed] == [("a", "conflict")]
    assert (report.created, report.updated, report.deleted, report.is_atomic) == (1, 1, 1, False)
    assert stored(todos)["a"]["n"] == 9


@memory
def test_a_plan_is_applied_outside_of_units_of_work(kinto_client: Client, plan: SyncPlan) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError):
        plan.apply()


# -- kept ---------------------------------------------------------------------------------------------------------

APPLY = """
import json, sys
sys.path.insert(0, sys.argv[3])
from wiretap import scripted_client, answer
from kinto_orm.protocol.messages import Response
from kinto_orm.protocol.json_values import decode

client = scripted_client()
sent = []

def send(request):
    sent.append([request.method, request.path, request.query, dict(request.headers), (request.body or b"").decode()])
    if request.path == "/":
        return answer(json.loads(sys.argv[2]))
    if request.method == "HEAD":
        return Response(200)
    raise SystemExit(json.dumps(sent))

client._connection.transport.send = send
try:
    client.load_plan(sys.argv[1]).apply()
except SystemExit as end:
    print(end)
"""


def test_a_saved_plan_sends_the_same_bytes_from_another_process(
    plan: SyncPlan, wire: Wiretap, kinto_client: Client, tmp_path: Path
) -> None:
    plan.save(tmp_path / "plan.json")
    info = json.dumps(kinto_client.server_info())
    kinto_client.server_info(refresh=True)
    wire.requests.clear()
    plan.apply()
    here = [[one.method, one.path, one.query, dict(one.headers), (one.body or b"").decode()] for one in wire.requests]

    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", APPLY, str(tmp_path / "plan.json"), info, tests],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    there = [request for request in json.loads(done.stdout) if request[1] != "/"]
    assert there == here


@memory
def test_a_plan_comes_back_from_its_file(plan: SyncPlan, kinto_client: Client, tmp_path: Path) -> None:
    asyncio.run(plan.asave(tmp_path / "plan.json"))
    again = asyncio.run(kinto_client.aload_plan(tmp_path / "plan.json"))

    assert (str(again), list(again), again.counts) == (str(plan), list(plan), plan.counts)
    assert json.loads((tmp_path / "plan.json").read_text()) == plan.as_json() == again.as_json()
    assert asyncio.run(again.aapply()).updated == 2


@memory
def test_a_plan_of_many_changes_is_kept_too(
    todos: Collection[Record], kinto_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinto_orm.jobs.spool.MOST_IN_MEMORY", 5)
    todos.records.sync([{"id": f"r{number:03}", "n": 1} for number in range(60)])
    after = [{"id": f"r{number:03}", "n": 2} for number in range(31, 90)]
    plan = todos.records.plan(after, delete=True, max_deletes=40)

    plan.save(tmp_path / "plan.json")
    report = kinto_client.load_plan(tmp_path / "plan.json").apply()

    assert (report.created, report.updated, report.deleted) == (30, 29, 31)
    assert todos.records.plan(after, delete=True).is_empty
    assert plan.apply().unchanged == 90


@memory
@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.pop("format"),
        lambda plan: plan.update(format="terraform"),
        lambda plan: plan.update(bucket="a/b"),
        lambda plan: plan.pop("changes"),
        lambda plan: plan["counts"].update(more=1),
        lambda plan: plan["changes"][0].update(kind="drop"),
        lambda plan: plan["changes"][0].update(id="a/b"),
        lambda plan: plan["changes"][0].pop("new"),
        lambda plan: plan["changes"][0].pop("old"),
        lambda plan: plan["changes"][0].update(last_modified="soon"),
        lambda plan: plan["changes"].append(5),
    ],
)
def test_a_file_that_is_no_plan_is_refused(plan: SyncPlan, kinto_client: Client, tmp_path: Path, change: Any) -> None:
    document = plan.as_json()
    change(document)
    (tmp_path / "plan.json").write_text(json.dumps(document))

    with pytest.raises(InvalidValueError, match=r"plan\.json holds no plan that can be applied"):
        kinto_client.load_plan(tmp_path / "plan.json")


# -- unsaved ------------------------------------------------------------------------------------------------------


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False


@memory
def test_unsaved_changes_of_a_record_are_shown(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.sync([{"id": "a", "title": "old", "theirs": 1}])
    records = kinto_client.bind(Todo).records
    todo = records.get("a")
    wire.requests.clear()
    assert records.unsaved(todo) == {}

    todo.title = "new"
    todo.done = True
    del todo.data["theirs"]

    assert records.unsaved(todo) == {"title": ("old", "new"), "done": (MISSING, True), "theirs": (1, MISSING)}
    assert records.unsaved(Todo(title="x")) == {"title": (MISSING, "x"), "done": (MISSING, False)}
    assert wire.requests == []
    todo.save()
    assert records.unsaved(todo) == {}

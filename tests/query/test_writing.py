"""Updates and deletions of all that a query selects: guarded, resumed, with progress."""

from __future__ import annotations

import asyncio
import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from wiretap import Wiretap, tap

from kinto_orm import (
    AmbiguousWriteError,
    Client,
    Collection,
    CommitError,
    ConflictError,
    InvalidFilterError,
    InvalidTypeError,
    InvalidValueError,
    Record,
    TooManyDeletesError,
    UsageError,
)
from kinto_orm.query import writing
from kinto_orm.repository.disk import Entry, open_lists


@pytest.fixture
def wire(kinto_client: Client, todos: Collection[Record]) -> Wiretap:
    kinto_client.server_info()
    todos.records.bulk_create({"id": f"r{number:02}", "n": number, "kind": number % 2} for number in range(60))
    return tap(kinto_client)


def meddle(wire: Wiretap, method: str, *acts: Any) -> None:
    """Has another client act before each of the first requests of that method."""
    send, left = wire.transport.send, list(acts)

    def meddling(request: Any) -> Any:
        if request.method == method and left:
            left.pop(0)()
        return send(request)

    wire.transport.send = meddling  # type: ignore[method-assign]


# -- delete -------------------------------------------------------------------------------------------------------


def test_a_guarded_deletion_counts_first_and_deletes_what_it_counted(todos: Collection[Record], wire: Wiretap) -> None:
    timestamp = todos.records.timestamp()
    wire.requests.clear()

    assert todos.records.filter(kind=1).delete(max_deletes=30) == 30
    assert wire.said == ["HEAD", f'DELETE If-Match: "{timestamp}"']
    assert todos.records.count() == 30


@pytest.mark.parametrize(("limit", "is_refused"), [(29, True), (30, False), (0.49, True), (0.5, False), (0, True)])
def test_no_more_than_max_deletes_are_deleted(
    todos: Collection[Record], wire: Wiretap, limit: float, is_refused: bool
) -> None:
    query = todos.records.filter(kind=1)

    if is_refused:
        with pytest.raises(TooManyDeletesError, match=r"30 records of .* match"):
            query.delete(max_deletes=limit)
        assert not any(request.is_write for request in wire.requests)
    else:
        assert query.delete(max_deletes=limit) == 30


def test_nothing_is_sent_where_nothing_matches(todos: Collection[Record], wire: Wiretap) -> None:
    assert todos.records.filter(kind=9).delete(max_deletes=0) == 0
    assert todos.records.filter(in_id=[]).delete(max_deletes=0) == 0
    assert wire.said == ["HEAD"]


def test_what_others_add_meanwhile_is_counted_again(
    todos: Collection[Record], wire: Wiretap, rival: Collection[Record]
) -> None:
    meddle(wire, "DELETE", lambda: rival.records.create(data={"kind": 1}))

    with pytest.raises(TooManyDeletesError, match="31 records"):
        todos.records.filter(kind=1).delete(max_deletes=30)
    assert todos.records.count() == 61

    meddle(wire, "DELETE", lambda: rival.records.create(data={"kind": 2}))
    assert todos.records.filter(kind=1).delete(max_deletes=31) == 31


def test_a_deletion_gives_up_where_others_never_stop(
    todos: Collection[Record], wire: Wiretap, rival: Collection[Record]
) -> None:
    meddle(wire, "DELETE", *[lambda: rival.records.create(data={"kind": 2})] * writing.MOST_LOOKS)

    with pytest.raises(ConflictError):
        todos.records.filter(kind=1).delete(max_deletes=30)


def test_progress_of_a_deletion_is_told(todos: Collection[Record], wire: Wiretap) -> None:
    told: list[Any] = []

    todos.records.filter(kind=1).delete(progress=lambda *args: told.append(args))
    todos.records.delete(everything=True, max_deletes=1.0, progress=lambda *args: told.append(args))

    assert told == [(30, None, "delete records"), (30, 30, "delete records")]


@pytest.mark.parametrize(
    ("limit", "error"), [(True, InvalidTypeError), (-1, InvalidValueError), (2.5, InvalidValueError)]
)
def test_a_limit_without_sense_is_refused(todos: Collection[Record], limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_deletes is a number of records"):
        todos.records.filter(kind=1).delete(max_deletes=limit)


def test_a_guard_does_not_make_up_for_a_filter(todos: Collection[Record]) -> None:
    with pytest.raises(UsageError, match="everything=True"):
        todos.records.delete(max_deletes=100)
    with pytest.raises(InvalidFilterError):
        todos.records.filter(_typo=1).delete(max_deletes=100)


def test_a_dry_client_counts_what_it_would_delete(
    kinto_client: Client, todos: Collection[Record], wire: Wiretap
) -> None:
    dry = kinto_client.clone(dry_mode=True).bucket("payments").collection("todos")

    assert dry.records.filter(kind=1).delete(max_deletes=50) == 30
    assert todos.records.count() == 60


# -- update -------------------------------------------------------------------------------------------------------


def test_only_what_changes_is_written_each_with_if_match(todos: Collection[Record], wire: Wiretap) -> None:
    def double(record: Record) -> None:
        if record.data["n"] < 3:
            record.data["n"] *= 2

    report = todos.records.update(double)

    (batch,) = [body for body in wire.bodies if body]
    assert [entry["path"].rpartition("/")[2] for entry in batch["requests"]] == ["r01", "r02"]
    assert all("If-Match" in entry["headers"] for entry in batch["requests"])
    assert (report.updated, report.unchanged) == (2, 58)


def test_the_field_of_a_rival_is_kept_where_both_are_merged(
    todos: Collection[Record], wire: Wiretap, rival: Collection[Record]
) -> None:
    meddle(wire, "POST", lambda: rival.records.get("r00").patch(theirs=1))

    report = todos.records.filter(n=0).update({"mine": 1}, on_conflict="merge")

    assert report.updated == 1
    assert dict(todos.records.get("r00").data) == {"n": 0, "kind": 0, "mine": 1, "theirs": 1}


def test_a_rival_is_a_conflict_otherwise(todos: Collection[Record], wire: Wiretap, rival: Collection[Record]) -> None:
    meddle(wire, "POST", lambda: rival.records.get("r00").patch(theirs=1))

    with pytest.raises(CommitError) as caught:
        todos.records.filter(max_n=1).update({"mine": 1})
    assert [one.status for one in caught.value.report.failed] == ["conflict"]
    assert caught.value.report.updated == 1


def test_progress_of_an_update_is_told(todos: Collection[Record], wire: Wiretap) -> None:
    told: list[Any] = []

    asyncio.run(todos.records.aupdate({"x": 1}, progress=lambda *args: told.append(args)))

    assert told == [(25, 60, "update records"), (50, 60, "update records"), (60, 60, "update records")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"state": "done"}, "needs a function, or names and values"),
        ({"state": "done", "n": 1}, r"to set a key of that name, write update\(\{"),
        ({"progress": 50}, r"to set a key of that name, write update\(\{"),
        ({"on_conflict": "other", "n": 1}, "on_conflict is"),
    ],
)
def test_names_of_options_are_no_keys(todos: Collection[Record], arguments: Any, says: str) -> None:
    with pytest.raises((UsageError, InvalidTypeError), match=says):
        todos.records.update(**arguments)


def test_a_callback_that_is_no_function_is_refused_before_anything_is_written(
    todos: Collection[Record], wire: Wiretap, tmp_path: Path
) -> None:
    bucket: Any = todos.bucket.refresh()
    rows = [{"id": "new"}]
    bucket.dump(tmp_path / "dump", horizon=0)
    plan = todos.records.plan(rows, key="id")
    verbs: list[Any] = [
        todos.records.update,
        partial(todos.records.delete, everything=True),
        partial(todos.records.delete, everything=True, max_deletes=1.0),
        partial(todos.records.sync, rows, key="id"),
        partial(todos.records.plan, rows, key="id"),
        partial(todos.records.diff, rows, key="id"),
        plan.apply,
        *(partial(getattr(todos.records, verb), rows) for verb in ("bulk_create", "bulk_update", "bulk_delete")),
        partial(bucket.dump, tmp_path / "other"),
        partial(bucket.copy_to, todos.__kinto_runner__(), bucket="other"),
        partial(todos.__kinto_runner__().load, tmp_path / "dump", bucket="other"),  # type: ignore[attr-defined]
        todos.schema_diff({"type": "object"}).violations,
        todos.records.to_arrow,
    ]
    wire.requests.clear()
    for verb in verbs:
        for name in {"progress", "on_outcome"} & set(inspect.signature(verb).parameters):
            with pytest.raises(InvalidTypeError, match=f"{name} is a function"):
                verb(**{name: 5})

    assert wire.requests == [] and not (tmp_path / "other").exists()


def test_a_mapping_takes_any_key(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.filter(n=1).update({"state": "open", "progress": 50})

    assert dict(todos.records.get("r01").data) == {"n": 1, "kind": 1, "state": "open", "progress": 50}


# -- update with a state file ---------------------------------------------------------------------------------------


def count_up(record: Record) -> None:
    record.data["n"] += 1


def numbers(todos: Collection[Record]) -> list[int]:
    return [record.data["n"] for record in todos.records]


ONCE = [number + 1 for number in range(60)]


def test_an_update_with_a_state_file_is_done_once(todos: Collection[Record], wire: Wiretap, tmp_path: Path) -> None:
    told: list[Any] = []
    todos.records.update(count_up, state=tmp_path / "job.sqlite")

    report = todos.records.update(count_up, state=tmp_path / "job.sqlite", progress=lambda *args: told.append(args))

    assert (report.updated, report.unchanged) == (0, 60)
    assert numbers(todos) == ONCE
    assert told == [(60, 60, "update records")]


def test_an_update_goes_on_where_its_function_raised(todos: Collection[Record], wire: Wiretap, tmp_path: Path) -> None:
    def fragile(record: Record) -> None:
        count_up(record)
        if record.id == "r40":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        todos.records.update(fragile, state=tmp_path / "job.sqlite")
    assert "40 objects were stored" in caught.value.__notes__[0]

    todos.records.update(count_up, state=tmp_path / "job.sqlite")
    assert numbers(todos) == ONCE


def test_what_was_announced_and_not_sent_is_updated_yet(
    todos: Collection[Record], tmp_path: Path, wire: Wiretap
) -> None:
    # As a run leaves it that is killed between the note and the request.
    announce(todos, tmp_path, "r05", {"n": 6, "kind": 1}, todos.records.get("r05").last_modified)

    todos.records.update(count_up, state=tmp_path / "job.sqlite")

    assert numbers(todos) == ONCE


def test_what_was_announced_and_stored_is_not_updated_again(
    todos: Collection[Record], tmp_path: Path, wire: Wiretap
) -> None:
    before = todos.records.get("r05")
    announce(todos, tmp_path, "r05", {"kind": 1, "n": 6.0}, before.last_modified)
    todos.records.get("r05").patch(n=6)

    todos.records.update(count_up, state=tmp_path / "job.sqlite")

    assert numbers(todos) == ONCE


def test_what_was_announced_and_changed_since_is_left_alone_and_reported(
    todos: Collection[Record], tmp_path: Path, wire: Wiretap
) -> None:
    before = todos.records.get("r05")
    announce(todos, tmp_path, "r05", {"n": 6, "kind": 1}, before.last_modified)
    announce(todos, tmp_path, "r06", {"n": 7, "kind": 0}, todos.records.get("r06").last_modified)
    todos.records.get("r05").patch(n=50)
    todos.records.get("r06").delete()

    for _ in range(2):
        with pytest.raises(CommitError) as caught:
            todos.records.update(count_up, state=tmp_path / "job.sqlite")
        (failed,) = caught.value.report.failed
        assert (failed.object.id, failed.status) == ("r05", "unknown")
        assert isinstance(failed.error, AmbiguousWriteError)
    assert numbers(todos) == [50 if number == 6 else number for number in ONCE if number != 7]


def announce(todos: Collection[Record], folder: Path, id: str, wanted: dict[str, Any], timestamp: int | None) -> None:
    lists = open_lists(folder / "job.sqlite")
    lists.add("announced", [Entry(id, 0, json.dumps([timestamp, wanted]).encode())])
    lists.close()


def test_a_conflict_is_updated_by_the_next_run(
    todos: Collection[Record], tmp_path: Path, wire: Wiretap, rival: Collection[Record]
) -> None:
    meddle(wire, "POST", lambda: rival.records.get("r00").patch(theirs=1))
    with pytest.raises(CommitError):
        todos.records.update(count_up, state=tmp_path / "job.sqlite")

    assert asyncio.run(todos.records.aupdate(count_up, state=tmp_path / "job.sqlite")).updated == 1

    assert numbers(todos) == ONCE
    assert todos.records.get("r00").data["theirs"] == 1


def test_the_state_of_another_job_is_refused(todos: Collection[Record], tmp_path: Path, wire: Wiretap) -> None:
    todos.records.filter(kind=1).update(count_up, state=tmp_path / "job.sqlite")
    wire.requests.clear()

    with pytest.raises(UsageError, match=r"is the state of another job \(update .*kind=1"):
        todos.records.filter(kind=0).update(count_up, state=tmp_path / "job.sqlite")
    assert wire.requests == []


def test_a_dry_update_leaves_no_trace_in_its_state(
    kinto_client: Client, todos: Collection[Record], tmp_path: Path, wire: Wiretap
) -> None:
    dry = kinto_client.clone(dry_mode=True).bucket("payments").collection("todos")
    assert dry.records.update(count_up, state=tmp_path / "job.sqlite").planned == 60

    todos.records.update(count_up, state=tmp_path / "job.sqlite")
    assert numbers(todos) == ONCE

"""What can go wrong in a sync: refusals, lost answers, killed processes, other users."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from kinto_orm import (
    BackoffError,
    Client,
    ClientClosedError,
    Collection,
    InvalidIdError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    MirrorFileError,
    OfflineError,
    Record,
    UsageError,
)
from kinto_orm.mirror import Conflict, Mirror

from .conftest import Device, remote

PATH = "/buckets/payments/collections/todos"


def put(todos: Collection[Record], id: str, **data: Any) -> None:
    todos.records.update_or_create(id, data)


def lost() -> requests.ConnectionError:
    gone = http.client.RemoteDisconnected("closed")
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", gone))


def lose_answers(device: Device, count: int) -> None:
    """Lose the answers to so many batches, which the server applies."""

    def lose(request: requests.PreparedRequest, answer: requests.Response) -> None:
        nonlocal count
        if request.method == "POST" and count:
            count -= 1
            raise lost()

    device.wire.after = lose


@pytest.mark.parametrize("times", [1, 2, 3, 4, 5])
def test_a_lost_answer_makes_no_duplicate_and_no_conflict(
    device: Device, todos: Collection[Record], times: int
) -> None:
    put(todos, "a", x=1)
    device.sync()
    device.save("a", x=2)
    device.save("b", x=1)
    lose_answers(device, times)

    first = device.sync()
    device.save("a", x=3)
    second = device.sync()

    assert first.ok is (times <= 3)  # the client sends again three times
    assert second.ok and second.merged == []
    assert remote(todos) == device.data == {"a": {"x": 3}, "b": {"x": 1}}


def test_a_wrong_record_does_not_stop_the_others(device: Device, todos: Collection[Record]) -> None:
    todos.refresh()
    todos.schema_ = {"type": "object", "properties": {"x": {"type": "integer"}}}
    todos.save()
    device.save("a", x=1)
    device.save("b", x="text")
    device.save("c", x=3)

    result = device.sync()
    device.wire.sent.clear()
    again = device.sync()

    assert sorted(remote(todos)) == ["a", "c"] and not result.ok
    (pending,) = device.mirror.pending
    assert (pending.id, result.refused) == ("b", [f"{PATH}/records/b"])
    assert pending.error is not None and "integer" in pending.error
    assert again.refused == result.refused
    assert not any(method == "POST" for method, _, _ in device.wire.sent)
    device.save("b", x=2)
    assert device.sync().ok and remote(todos)["b"]["x"] == 2


@pytest.mark.parametrize("status", [408, 423, 425, 429])
def test_a_server_that_has_no_time_refuses_no_record(device: Device, todos: Collection[Record], status: int) -> None:
    for id in ("a", "b", "c"):
        device.save(id, x=1)

    def put_off(request: requests.PreparedRequest) -> requests.Response | None:
        return None if request.method in ("GET", "HEAD") else answer_to(request, status)

    device.wire.before = put_off
    result = device.sync()

    assert (len(result.errors), result.refused) == (1, [])
    assert {path for method, path, _ in device.wire.sent if method not in ("GET", "HEAD")} == {"/batch"}
    device.wire.before = None
    assert device.sync().ok and remote(todos) == device.data


def answer_to(request: requests.PreparedRequest, status: int) -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer.request, answer._content = status, request, b"<html>Not now</html>"
    return answer


def test_a_record_that_was_deleted_in_doubt_and_made_anew_is_no_conflict(
    device: Device, todos: Collection[Record]
) -> None:
    put(todos, "a", x=1)
    device.sync()
    device.delete("a")
    lose_answers(device, 4)

    first = device.sync()
    device.save("a", x=2)

    assert not first.ok and device.sync().ok
    assert remote(todos) == device.data == {"a": {"x": 2}}


def test_a_batch_that_is_too_large_is_sent_record_by_record(device: Device, todos: Collection[Record]) -> None:
    for id in ("a", "b", "c"):
        device.save(id, x=id * 10)

    def limit(request: requests.PreparedRequest) -> requests.Response | None:
        if request.method in ("GET", "HEAD") or b"bbb" not in (request.body or b""):  # type: ignore[operator]
            return None
        return answer_to(request, 413)

    device.wire.before = limit
    result = device.sync()

    assert sorted(remote(todos)) == ["a", "c"] and result.refused == [f"{PATH}/records/b"]


def test_a_user_who_may_not_write_is_told(device: Device, todos: Collection[Record], tmp_path: Path) -> None:
    todos.refresh()
    todos.permissions.read = {"system.Everyone"}
    todos.save()
    put(todos, "a", x=1)
    with Client(device.online.server_url, session=device.online._options.session, auth=("bob", "x")) as bob:
        mirror = Mirror(tmp_path / "bob.sqlite", bob)
        records = mirror.collection("todos", bucket="payments").records
        records.create(id="b", data={"x": 1})

        result = mirror.sync()

        assert not result.ok and "403" in str(result.errors[0].error)
        assert sorted(one.id for one in records) == ["a", "b"]
        mirror.close()


def test_ids_that_no_batch_takes_are_pushed_alone(device: Device, todos: Collection[Record]) -> None:
    device.save("batch-1", x=1)

    assert device.sync().ok and remote(todos) == {"batch-1": {"x": 1}}


def test_a_server_that_cannot_be_reached_is_in_the_result(device: Device, todos: Collection[Record]) -> None:
    device.save("a", x=1)

    def fail(request: Any) -> None:
        raise lost()

    device.wire.before = fail
    result = device.sync()

    assert not result.ok and len(device.mirror.pending) == 1
    device.wire.before = None
    assert device.sync().ok


def test_nothing_is_sent_while_the_server_asks_for_a_pause(device: Device, todos: Collection[Record]) -> None:
    device.online.server_info()

    def ask(request: Any, answer: requests.Response) -> None:
        if request.method == "GET":  # the last one: the first sync itself need not wait
            answer.headers["Backoff"] = "30"
            device.wire.after = None

    device.wire.after = ask
    device.sync(push=False)
    device.wire.sent.clear()

    result = device.sync()

    assert not result.ok and isinstance(result.errors[0].error, BackoffError) and device.wire.sent == []


def test_a_pause_that_was_waited_out_is_over(device: Device, todos: Collection[Record]) -> None:
    device.online.server_info()

    def ask(request: Any, answer: requests.Response) -> None:
        answer.headers["Backoff"] = "1"
        device.wire.after = None

    device.wire.after = ask
    began = time.time()

    assert device.sync().ok and time.time() - began >= 1
    assert device.sync().ok


def test_a_file_of_another_user_is_refused(device: Device, todos: Collection[Record]) -> None:
    device.sync()
    device.save("a", x=1)
    bob = Client(device.online.server_url, session=device.online._options.session, auth=("bob", "x"))
    mirror = Mirror(device.mirror.path, bob)

    with pytest.raises(MirrorFileError, match="give each user a file"):
        mirror.sync()
    assert remote(todos) == {}
    mirror.close()
    bob.close()


def test_a_collection_that_is_gone_is_in_the_result(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.sync()
    todos.refresh().delete()

    result = device.sync()

    assert not result.ok and "404" in str(result.errors[0].error) and device.data == {"a": {"x": 1}}


def test_a_full_disk_stops_a_sync_and_room_ends_it(device: Device, todos: Collection[Record]) -> None:
    todos.records.bulk_create({"id": f"r{number}", "text": "x" * 20_000} for number in range(10))
    device.save("mine", x=1)
    with device.mirror._store.transaction(writes=False) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    with pytest.raises(MirrorFileError, match="room on the disk"):
        device.sync()
    assert list(device.data) == ["mine"]
    connection.execute("PRAGMA max_page_count = 1000000")

    assert device.sync().ok and remote(todos) == device.data and len(device.data) == 11


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no size of a file is limited here")
def test_a_file_that_may_not_grow_stores_all_of_a_call_or_nothing(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from kinto_orm import Client, MirrorFileError
from kinto_orm.mirror import Conflict, Mirror
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
mirror = Mirror(sys.argv[1], Client("http://localhost:9/v1", retry=0))
records = mirror.collection("todos", bucket="payments").records
records.create(id="first", data={})
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(200_000)
saved = 1
try:
    while True:
        records.create(data={"text": "x" * 5000})
        saved += 1
except MirrorFileError as error:
    assert "room on the disk" in str(error), error
limit(0)
try:
    mirror.sync()
except MirrorFileError as error:
    assert "room on the disk" in str(error), error
limit(resource.RLIM_INFINITY)
assert len(records.all()) == len(mirror.pending) == saved
records.create(id="last", data={})
assert len(mirror.pending) == saved + 1
"""

    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path / "mirror.sqlite")], check=True)


def test_a_file_that_may_not_be_written_is_read_and_not_synced(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.sync()
    put(todos, "a", x=2)
    with device.mirror._store.transaction(writes=False) as connection:
        connection.execute("PRAGMA query_only = 1")  # as a file system that is mounted for reading

    assert device.data == {"a": {"x": 1}} and device.mirror.pending == []
    with pytest.raises(MirrorFileError, match="may not be written"):
        device.save("b", x=1)
    with pytest.raises(MirrorFileError, match="may not be written"):
        device.sync()

    device.mirror.close()
    assert device.sync().ok and device.data == {"a": {"x": 2}}


@pytest.mark.parametrize("column", ["mine", "theirs", "base", "sent"])
@pytest.mark.parametrize("text", ['{"x', "null", "[5]"])
def test_a_record_that_was_tampered_with_is_not_sent(
    device: Device, todos: Collection[Record], column: str, text: str
) -> None:
    for id in ("a", "b"):
        put(todos, id, x=1)
    device.sync()
    device.save("b", x=2)
    with device.mirror._store.transaction() as connection:
        connection.execute(f"UPDATE records SET {column} = ? WHERE id = 'a'", (text,))

    for use in (device.sync, lambda: device.data, lambda: device.mirror.conflicts, lambda: device.save("a", x=3)):
        with suppress(KintoError):
            use()

    assert todos.records.get("a").data == {"x": 1}
    assert device.mirror.verify().ok is (column != "theirs")


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE collections SET path = 'elsewhere'",
        "UPDATE collections SET cursor = 'soon'",
        "UPDATE records SET mine = x'ff'",
        "UPDATE records SET is_parked = 'yes'",
    ],
)
def test_the_file_takes_no_values_of_other_types(device: Device, tampering: str) -> None:
    device.save("a", x=1)

    with pytest.raises(MirrorFileError), device.mirror._store.transaction() as connection:
        connection.execute(tampering)


def test_verify_reports_what_was_tampered_with(device: Device, todos: Collection[Record]) -> None:
    for id in ("a", "b", "c"):
        put(todos, id, x=1)
    device.sync()
    assert device.mirror.verify().ok
    with device.mirror._store.transaction() as connection:
        connection.execute("UPDATE records SET theirs = '{\"x\":2}', mine = '{\"x\":2}' WHERE id = 'a'")
        connection.execute("DELETE FROM records WHERE id = 'b'")
    put(todos, "d", x=1)
    todos.records.get("c").delete()

    report = device.mirror.verify()

    assert not report.ok
    assert [[path[-1] for path in paths] for paths in (report.different, report.missing, report.extra)] == [
        ["a"],
        ["b", "d"],
        ["c"],
    ]


def test_a_dump_saves_the_first_pull(device: Device, todos: Collection[Record], tmp_path: Path) -> None:
    for id in ("a", "b", "c"):
        put(todos, id, x=1)
    rows = [{**one.data, "id": one.id, "last_modified": one.last_modified} for one in todos.records]
    (tmp_path / "dump.json").write_text(json.dumps({"data": rows}))
    (tmp_path / "dump.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "bad.json").write_text('[{"id": "a"}]')
    device.save("c", x=5)
    put(todos, "b", x=2)

    assert device.mirror.load_dump(device.todos, tmp_path / "dump.json") == 2
    assert device.data == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 5}}
    assert device.mirror.load_dump(device.todos, tmp_path / "dump.jsonl") == 0
    with pytest.raises(InvalidValueError, match="row 1"):
        device.mirror.load_dump(device.todos, tmp_path / "bad.json")
    assert device.sync(on_conflict="mine").ok
    assert remote(todos) == device.data == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 5}}


def test_a_dump_holds_records_alone(device: Device, todos: Collection[Record], tmp_path: Path) -> None:
    rows = [
        {"id": "a", "last_modified": 5, "x": 2},
        {"id": "a", "last_modified": 4, "x": 1},
        {"id": "gone", "last_modified": 6, "deleted": True},
    ]
    (tmp_path / "dump.json").write_text(json.dumps(rows))
    (tmp_path / "bad.json").write_text(json.dumps([*rows, {"id": "a b", "last_modified": 7}]))

    assert device.mirror.load_dump(device.todos, tmp_path / "dump.json") == 1
    assert device.data == {"a": {"x": 2}}  # the newest of an id; what was deleted is not there
    with pytest.raises(InvalidIdError, match="a b"):
        device.mirror.load_dump(device.todos, tmp_path / "bad.json")


def test_options_are_checked_before_anything_is_sent(device: Device) -> None:
    with pytest.raises(InvalidTypeError):
        device.sync(on_conflict="ours")
    with pytest.raises(InvalidTypeError):
        device.sync(on_reset="yes")
    with pytest.raises(OfflineError):
        device.mirror.sync(device.mirror.client.bucket("payments").collection("never"))
    with pytest.raises(InvalidValueError):
        device.mirror.start(every=0)
    assert device.wire.sent == []


def test_a_function_of_conflicts_does_not_sync(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.sync()
    put(todos, "a", x=2)
    device.save("a", x=3)

    def sync(conflict: Conflict) -> Any:
        return device.sync()

    with pytest.raises(UsageError, match="on_conflict"):
        device.sync(on_conflict=sync)

    assert device.sync(on_conflict="mine").ok and remote(todos) == {"a": {"x": 3}}


def test_a_sync_can_be_awaited(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.save("b", x=1)

    result = asyncio.run(device.mirror.async_())

    assert result.ok and remote(todos) == device.data
    assert asyncio.run(device.mirror.averify()).ok
    for verb, twin in (("sync", "async_"), ("verify", "averify")):
        assert inspect.signature(getattr(Mirror, verb)) == inspect.signature(getattr(Mirror, twin))


def test_syncs_of_two_threads_come_one_after_the_other(device: Device, todos: Collection[Record]) -> None:
    for number in range(60):
        device.save(f"r{number}", x=number)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(device.sync())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [one.ok for one in results] == [True] * 3
    assert 60 == sum(len(one.pushed) for one in results) == len(remote(todos))


def test_the_background_ends_with_its_client(device: Device) -> None:
    results: list[Any] = []
    device.online.close()

    device.mirror.start(every=0.01, on_result=results.append)

    assert device.mirror._repetition is not None
    thread = device.mirror._repetition._thread
    assert thread is not None
    thread.join(60)
    assert not thread.is_alive() and [type(one) for one in results] == [ClientClosedError]


def test_the_background_syncs_until_it_is_stopped(device: Device, todos: Collection[Record]) -> None:
    synced = threading.Event()
    device.save("a", x=1)

    device.mirror.start(every=0.01, on_result=lambda result: synced.set())

    assert synced.wait(30)
    device.mirror.stop()
    assert remote(todos) == {"a": {"x": 1}}
    assert not any(thread.name == "kinto-orm mirror" for thread in threading.enumerate())

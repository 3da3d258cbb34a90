"""Models, queries and units of work on the file of a mirror."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

import kinto_orm
from kinto_orm import (
    Client,
    CommitError,
    ConfigurationError,
    ConflictError,
    InvalidFilterError,
    InvalidTypeError,
    MirrorFileError,
    OfflineError,
    ProtocolError,
    Record,
    RequestEvent,
)
from kinto_orm.mirror import Mirror

URL = "http://localhost:9/v1"
"""Where no server is."""
PACKAGE = str(Path(kinto_orm.__file__).parent)
MOST_CALLS_OF_GET = 75
MOST_CALLS_OF_FILTER = 185


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False


class Other(Record, bucket="payments", collection="others"):
    title: str


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with Mirror(tmp_path / "todos.sqlite", Client(URL)) as mirror:
        mirror.collection(Todo, indexes=[Todo.done])
        yield mirror


def test_reading_takes_few_calls(mirror: Mirror) -> None:
    # The time is at most five times that of SQLite and json.loads alone; unlike it, calls do not depend on the machine.
    ids = [Todo(title="Buy milk", done=True).save().id for _ in range(10)]

    assert calls_of(lambda: Todo.records.get(ids[0])) <= MOST_CALLS_OF_GET
    assert calls_of(lambda: Todo.records.filter(done=True).all()) <= MOST_CALLS_OF_FILTER


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions of kinto_orm the work calls or goes on with, when it is done for the second time."""
    work()
    calls = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_records_are_written_and_read_without_a_server(mirror: Mirror) -> None:
    todo = Todo(title="Buy milk").save()
    todo.done = True
    todo.save()
    Todo(title="Buy soap").save()

    assert [todo] == Todo.records.filter(done=True).all()
    assert (Todo.records.count(), Todo.records.filter(Todo.title == "Buy soap").one().title) == (2, "Buy soap")
    todo.delete()
    assert [one.is_deleted for one in Todo.records.since(0) if one.id == todo.id] == [True]


def test_verbs_can_be_awaited(mirror: Mirror) -> None:
    async def scenario() -> int:
        todo = await Todo(title="Buy milk").asave()
        await todo.apatch(done=True)
        return await Todo.records.filter(done=True).acount()

    assert asyncio.run(scenario()) == 1


def test_a_stale_object_is_refused(mirror: Mirror) -> None:
    todo = Todo(title="Buy milk").save()
    stale = Todo.records.get(todo.id)
    todo.patch(done=True)

    with pytest.raises(ConflictError) as caught:
        stale.patch(title="Drink milk")

    assert caught.value.theirs is not None and caught.value.theirs["done"] is True


def test_a_unit_of_work_is_one_transaction_of_the_file(mirror: Mirror) -> None:
    taken = Todo(title="taken").save()

    def write() -> None:
        with mirror.client.unit_of_work(atomic=True):
            Todo(title="new").save()
            Todo(id=taken.id, title="again").save()

    with pytest.raises(CommitError):
        write()

    assert [taken] == Todo.records.all()


def test_long_lists_come_in_pages(mirror: Mirror) -> None:
    Todo.records.bulk_create({"title": f"{number:04}"} for number in range(1200))

    assert len({one.id for one in Todo.records}) == 1200
    assert [f"{number:04}" for number in range(1200)] == [
        one.title for one in Todo.records.order_by("title").page_size(100)
    ]


def test_a_model_that_is_not_in_the_mirror_is_an_error(mirror: Mirror) -> None:
    with pytest.raises(OfflineError, match="others"):
        Other(title="x").save()


def test_the_file_is_there_for_another_process(mirror: Mirror) -> None:
    Todo(title="Buy milk").save()
    program = f"""
from kinto_orm import Client
from kinto_orm.mirror import Mirror
with Mirror({mirror.path!r}, Client({URL!r})) as mirror:
    record = mirror.collection("todos", bucket="payments").records.one()
    record.data["done"] = True
    record.save()
"""

    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)

    assert Todo.records.one().done is True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_go_on(mirror: Mirror) -> None:
    Todo(title="Buy milk").save()

    child = os.fork()
    if child == 0:
        try:
            Todo(title="of the child").save()
            os._exit(0)
        finally:
            os._exit(1)

    assert os.waitpid(child, 0)[1] == 0
    assert Todo.records.count() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_background_goes_on_in_a_forked_child(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "forked.sqlite", Client(URL, retry=0))
    synced = threading.Event()
    mirror.start(every=3600, on_result=lambda result: synced.set())  # no server is there: the result has the error
    assert synced.wait(60)
    synced.clear()

    child = os.fork()
    if child == 0:
        os._exit(0 if synced.wait(60) else 1)

    assert os.waitpid(child, 0)[1] == 0
    mirror.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_in_a_sync_waits_for_it_and_syncs(tmp_path: Path) -> None:
    asking, may_go_on = threading.Event(), threading.Event()

    def hold(event: RequestEvent) -> None:
        asking.set()
        may_go_on.wait(60)

    mirror = Mirror(tmp_path / "forked.sqlite", Client(URL, retry=0, on_request=hold))
    mirror.start(every=3600)
    assert asking.wait(60)

    child = os.fork()
    if child == 0:
        may_go_on.set()
        synced = threading.Thread(target=mirror.sync, daemon=True)
        synced.start()
        synced.join(30)
        os._exit(1 if synced.is_alive() else 0)
    may_go_on.set()

    assert os.waitpid(child, 0)[1] == 0
    mirror.close()


def test_threads_share_a_mirror(mirror: Mirror) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: Todo(title=str(number), client=mirror.client).save(), range(40)))

    assert Todo.records.count() == 40


def test_a_change_of_two_threads_is_not_lost(mirror: Mirror) -> None:
    counter = mirror.collection("counters", bucket="payments").records.create(id="one", data={"n": 0})

    def add(_: int) -> None:
        for attempt in mirror.client.bucket("payments").collection("counters").records.edit(counter.id, attempts=100):
            with attempt as one:
                one.data["n"] += 1

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(add, range(9)))

    assert counter.refresh().data["n"] == 9


def test_clones_use_the_file_too(mirror: Mirror) -> None:
    Todo(title="Buy milk").save()

    clone = mirror.client.clone(bucket="payments", timeout=1)

    assert clone.bucket().collection("todos").records.count() == 1
    with pytest.raises(ConfigurationError, match="one server"):
        mirror.client.clone(server_url="http://localhost:1/v1")
    with pytest.raises(ConfigurationError, match="pickled"):
        pickle.dumps(mirror.client)


def test_an_index_is_of_a_field(mirror: Mirror) -> None:
    with pytest.raises(InvalidFilterError):
        mirror.collection(Todo, indexes=["never"])
    with pytest.raises(InvalidFilterError):
        mirror.collection("others", bucket="payments", indexes=["a'); --"])


def test_an_indexed_filter_uses_the_index(mirror: Mirror) -> None:
    statements: list[str] = []
    with mirror._store.transaction(writes=False) as connection:
        connection.set_trace_callback(statements.append)
        Todo.records.filter(done=True).all()
        (query,) = [one for one in statements if one.startswith("SELECT id, version, mine")]
        plan = str(connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall())

    assert "records_by_field_done" in plan


# -- files that are none -------------------------------------------------------------------------------------------


def test_the_file_is_its_owner_s(mirror: Mirror) -> None:
    Todo(title="Buy milk").save()

    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in Path(mirror.path).parent.glob("todos.sqlite*")}


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no database. " * 100)
    with sqlite3.connect(tmp_path / "database") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    for name, reason in {
        "text": "no SQLite file",
        "database": "another program",
        "no/folder": "cannot be made",
    }.items():
        with pytest.raises(MirrorFileError, match=reason):
            Mirror(tmp_path / name, Client(URL))


def test_a_file_of_another_server_is_refused(mirror: Mirror) -> None:
    Mirror(mirror.path, Client(f"{URL}/")).close()  # the same one

    with pytest.raises(MirrorFileError, match="localhost:9"):
        Mirror(mirror.path, Client("http://localhost:10/v1"))


def test_a_file_of_a_newer_version_is_refused(mirror: Mirror) -> None:
    mirror.close()
    with sqlite3.connect(mirror.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(MirrorFileError, match="version 99"):
        Todo.records.count()


def test_a_full_disk_stores_nothing_of_the_call(mirror: Mirror) -> None:
    Todo(title="Buy milk").save()
    with mirror._store.transaction() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    with mirror._store.transaction(writes=False) as connection:
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    with pytest.raises(MirrorFileError, match="room on the disk"):
        Todo(title="x" * 100_000).save()

    assert Todo.records.count() == 1


def test_a_damaged_record_is_an_error(mirror: Mirror) -> None:
    todo = Todo(title="Buy milk").save()
    with mirror._store.transaction() as connection:
        connection.execute("DROP INDEX records_by_field_done")
        connection.execute("UPDATE records SET mine = '{\"title' WHERE id = ?", (todo.id,))

    with pytest.raises(ProtocolError, match="title"):
        Todo.records.get(todo.id)
    with pytest.raises(MirrorFileError, match="malformed"):
        Todo.records.filter(done=True).all()


def test_the_client_is_one_of_a_server(tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError):
        Mirror(tmp_path / "x", "http://localhost")  # type: ignore[arg-type]

"""Cached queries: a list that did not change costs one small request, or none; a change is never missed."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from kinto_orm import (
    Client,
    Collection,
    ConflictError,
    ForbiddenError,
    InvalidTypeError,
    InvalidValueError,
    MultipleObjectsError,
    NotFoundError,
    Record,
    TransportError,
)
from kinto_orm.protocol.messages import Pause, Request, Response
from kinto_orm.protocol.paging import seconds_to_last
from kinto_orm.query.cached import MOST_ATTEMPTS, _read_state
from kinto_orm.server import EmbeddedServer


class Wire(BaseAdapter):
    """Passes requests on, and keeps them with the status of their answers."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__()
        self.inner = server.adapter()
        self.seen: list[tuple[str, str, int]] = []
        self.is_down = False
        self.after: Callable[[], object] | None = None
        """Called after each request."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        if self.is_down:
            raise requests.ConnectionError("no server answers")
        answer = self.inner.send(request, *args, **options)
        if self.after is not None:
            self.after()
        self.seen.append((request.method or "", request.path_url.partition("records")[2], answer.status_code))
        return answer

    def close(self) -> None: ...


@pytest.fixture
def wire(kinto_server: EmbeddedServer) -> Wire:
    return Wire(kinto_server)


@pytest.fixture
def reader(kinto_server: EmbeddedServer, wire: Wire) -> Iterator[Client]:
    """Another client of the same user."""
    session = requests.Session()
    session.mount(kinto_server.url, wire)
    with Client(kinto_server.url, session=session, auth=("user", "embedded"), retry=0) as client:
        yield client


@pytest.fixture
def records(reader: Client, todos: Collection[Record]) -> Any:
    todos.records.bulk_create({"n": number, "title": f"t{number}"} for number in range(3))
    return reader.bucket("payments").collection("todos").records


def test_a_young_cache_asks_nothing(records: Any, wire: Wire, todos: Collection[Record]) -> None:
    live = records.cached(max_age=60)
    assert (live.is_fresh, live.fetched_at) == (False, None)
    first = live.all()
    todos.records.create(data={"n": 9})
    asked = len(wire.seen)

    assert live.all() == first and live.count() == 3 and live.exists() and live.first() in first
    assert asked == len(wire.seen) and live.is_fresh and live.fetched_at is not None
    assert len(live.all(refresh=True)) == 4


def test_a_young_cache_that_is_awaited_asks_nothing(records: Any, wire: Wire) -> None:
    live = records.cached(max_age=60)
    first = live.all()
    asked = len(wire.seen)

    assert (asyncio.run(live.aall()), asyncio.run(live.acount())) == (first, 3)
    assert asked == len(wire.seen)


def test_an_anonymous_cache_lasts_as_long_as_the_server_says(
    kinto_server: EmbeddedServer, wire: Wire, todos: Collection[Record]
) -> None:
    todos.data["cache_expires"] = 60
    todos.permissions["read"] |= {"system.Everyone"}
    todos.save()
    session = requests.Session()
    session.mount(kinto_server.url, wire)
    with Client(kinto_server.url, session=session) as anybody:
        live = anybody.bucket("payments").collection("todos").records.cached(max_age=0, horizon=0)
        asked = []
        for _ in range(2):
            live.all()
            asked.append(len(wire.seen))

        assert (asked, live.is_fresh) == ([1, 1], True)
        assert live.all(refresh=True) == [] and len(wire.seen) == 2


@pytest.mark.parametrize("control", ["no-cache, no-store", "max-age=x", "no-cache, max-age=60", "", "max-age=0"])
def test_an_answer_that_may_not_be_used_again_does_not_last(control: str) -> None:
    assert seconds_to_last(control) == 0


def test_a_settled_list_that_did_not_change_is_one_answer_without_body(records: Any, wire: Wire) -> None:
    live = records.cached(max_age=0, horizon=0)
    first = live.all()
    wire.seen.clear()

    assert live.all() == first
    assert [(method, status) for method, _, status in wire.seen] == [("GET", 304)]


def test_a_young_list_is_read_since_the_horizon(records: Any, wire: Wire) -> None:
    live = records.cached(max_age=0, horizon=3600)
    first = live.all()
    wire.seen.clear()

    assert live.all() == first
    assert [status for _, _, status in wire.seen] == [200, 200] and "_since" in wire.seen[0][1]


@pytest.mark.parametrize("horizon", [0, 3600])
def test_changes_of_others_are_merged(records: Any, wire: Wire, todos: Collection[Record], horizon: float) -> None:
    live = records.cached(max_age=0, horizon=horizon)
    gone, changed, _ = live.all()
    todos.records.get(gone.id).delete()
    todos.records.get(changed.id).patch(n=7)
    new = todos.records.create(data={"n": 8})
    wire.seen.clear()

    found = live.all()

    assert [dict(one.data) for one in found] == [dict(one.data) for one in todos.records]
    assert {new.id, changed.id} <= {one.id for one in found} and gone.id not in {one.id for one in found}
    assert "_since" in wire.seen[0][1]


@pytest.mark.parametrize(
    "refine",
    [
        lambda records: records.filter(done=True),
        lambda records: records.order_by("-n"),
        lambda records: records.limit(2),
        lambda records: records.order_by("n").only("n"),
    ],
)
def test_a_refined_query_is_read_anew_where_the_list_changed(
    records: Any, wire: Wire, todos: Collection[Record], refine: Any
) -> None:
    query = refine(records)
    live = query.cached(max_age=0, horizon=0)
    live.all()
    todos.records.create(data={"n": 9, "done": True})
    todos.records.first().patch(done=True)  # type: ignore[union-attr]  # there are some

    assert [one.id for one in query] == [one.id for one in live]
    wire.seen.clear()
    live.all()
    assert [status for _, _, status in wire.seen] == [304]


def test_a_write_of_the_same_client_is_seen_at_once(records: Any) -> None:
    live = records.cached(max_age=3600)
    first = live.all()[0]

    records.get(first.id).patch(n=99)

    assert live.get(first.id).data["n"] == 99
    records.create(data={})
    assert live.count() == 4


def test_a_collection_that_was_made_anew_is_read_anew(records: Any, todos: Collection[Record]) -> None:
    live = records.cached(max_age=0, horizon=0)
    live.all()
    todos.refresh().delete()
    Collection(bucket=todos.bucket, id="todos").save()
    new = todos.records.create(data={"n": 1})

    assert [new.id] == [one.id for one in live]


def test_lost_tombstones_leave_nothing_behind(
    records: Any, todos: Collection[Record], kinto_server: EmbeddedServer
) -> None:
    live = records.cached(max_age=0, horizon=0)
    live.all()[0]
    todos.records.get(live.all()[0].id).delete()
    storage: Any = kinto_server._app.registry.storage  # type: ignore[union-attr]  # Kinto's, as it runs
    storage.purge_deleted("record", "/buckets/payments/collections/todos")

    assert [one.id for one in live] == [one.id for one in todos.records]


def test_what_moves_no_timestamp_is_seen_after_a_while(records: Any, wire: Wire) -> None:
    live = records.cached(max_age=0, horizon=0, revalidate=0)
    live.all()
    wire.seen.clear()

    live.all()

    assert [status for _, _, status in wire.seen] == [200]


def test_who_may_read_no_more_gets_nothing_from_the_cache(
    kinto_server: EmbeddedServer, records: Any, todos: Collection[Record]
) -> None:
    todos.refresh()
    todos.permissions.read = {"system.Everyone"}
    todos.save()
    with Client.embedded(server=kinto_server, auth=("bob", "x")) as bob:
        live = bob.bucket("payments").collection("todos").records.cached(max_age=0)
        assert live.count() == 3
        todos.permissions.read = set()
        todos.save()

        for _ in range(2):
            with pytest.raises(ForbiddenError):
                live.all()


def test_another_client_reads_anew(
    kinto_server: EmbeddedServer, kinto_client: Client, todos: Collection[Record]
) -> None:
    class Todo(Record, bucket="payments", collection="todos"):
        n: int

    todos.records.create(data={"n": 1})
    live = Todo.records.cached(max_age=3600)
    assert live.count() == 1

    with Client.embedded(server=kinto_server, auth=("bob", "x")), pytest.raises(ForbiddenError):
        live.all()
    assert live.count() == 1


def test_a_unit_of_work_always_asks(records: Any, reader: Client, wire: Wire) -> None:
    live = records.cached(max_age=3600)
    live.all()
    wire.seen.clear()

    with reader.unit_of_work():
        records.create(data={"n": 5})
        assert live.count() == 3
        assert wire.seen != []

    assert live.count() == 4


def test_the_endings_of_a_query(records: Any) -> None:
    live = records.filter(n=1).cached()

    assert live.one().data["n"] == 1 and live.get(live.one().id) == live.one()
    with pytest.raises(NotFoundError):
        live.get("missing")
    with pytest.raises(MultipleObjectsError):
        records.cached().one()
    assert records.filter(n=77).cached().first() is None


def test_the_endings_can_be_awaited(records: Any) -> None:
    async def scenario() -> tuple[Any, ...]:
        live = records.cached()
        listed = [one async for one in live]
        first = await live.afirst()
        return len(await live.aall()), await live.acount(), await live.aexists(), first == listed[0]

    async def one() -> Any:
        live = records.filter(n=1).cached()
        return await live.aget((await live.aone()).id)

    assert asyncio.run(scenario()) == (3, 3, True, True)
    assert asyncio.run(one()).data["n"] == 1


def test_a_pickle_keeps_no_objects(todos: Collection[Record]) -> None:
    class Todo(Record, bucket="payments", collection="todos"):
        n: int

    live = Record.records.filter(n=1).cached(max_age=5)

    assert "nothing kept" in repr(pickle.loads(pickle.dumps(live)))
    assert "nothing kept" in repr(Todo.records.cached())


def test_wrong_options_are_refused(records: Any) -> None:
    with pytest.raises(InvalidTypeError):
        records.cached(max_age="60")
    with pytest.raises(InvalidValueError):
        records.cached(max_age=-1)
    with pytest.raises(InvalidValueError):
        records.cached(horizon=-1)


# -- while the server is down ---------------------------------------------------------------------------------------


def test_stale_objects_are_given_while_the_server_is_down(records: Any, wire: Wire, todos: Collection[Record]) -> None:
    live = records.cached(max_age=0, horizon=0, stale_ok=True)
    first, fetched_at = live.all(), live.fetched_at
    wire.is_down = True

    assert live.all() == first
    assert isinstance(live.error, TransportError) and live.fetched_at == fetched_at
    wire.is_down = False
    todos.records.create(data={"n": 9})
    assert len(live.all()) == 4 and live.error is None


def test_a_server_that_is_down_is_asked_no_more_often(records: Any, wire: Wire) -> None:
    live = records.cached(max_age=3600, stale_ok=True)
    live.all()
    records.create(data={"n": 9})  # so that it asks
    wire.is_down = True

    assert len(live.all()) == 3 and live.error is not None
    assert live.is_fresh is False  # the write of this client is not in it


def test_without_stale_ok_a_server_that_is_down_is_an_error(records: Any, wire: Wire) -> None:
    live, fresh = records.cached(max_age=0), records.cached(stale_ok=True)
    live.all()
    wire.is_down = True

    for one in (live, fresh):  # the second one has nothing to give
        with pytest.raises(TransportError):
            one.all()
    with pytest.raises(TransportError):
        asyncio.run(live.aall())


def test_a_stale_query_does_not_hide_what_the_server_refuses(
    records: Any, wire: Wire, todos: Collection[Record]
) -> None:
    live = records.cached(max_age=0, stale_ok=True)
    live.all()
    todos.refresh().delete()
    todos.bucket.refresh().delete()

    for _ in range(2):
        with pytest.raises(ForbiddenError):
            live.all()
    with pytest.raises(ForbiddenError):
        live.all(refresh=True)


# -- pages of one state -----------------------------------------------------------------------------------------------


def test_one_page_is_one_state_by_itself(records: Any, wire: Wire) -> None:
    assert len(records.filter(gt_n=0).consistent()) == 2
    assert [method for method, _, _ in wire.seen] == ["GET"]
    assert records.limit(0).consistent() == []


def test_pages_between_which_somebody_wrote_are_read_again(records: Any, wire: Wire, todos: Collection[Record]) -> None:
    def write() -> None:
        if len(wire.seen) == 2:  # behind the first page, after its precondition was chosen
            todos.records.delete(everything=True)
            todos.records.bulk_create({"n": 7} for _ in range(3))

    wire.after = write
    found = records.page_size(2).consistent(horizon=0)

    assert [one.data["n"] for one in found] == [7, 7, 7]
    assert 412 in [status for _, _, status in wire.seen]


def test_where_others_go_on_writing_there_is_no_state(records: Any, wire: Wire, todos: Collection[Record]) -> None:
    wire.after = lambda: todos.records.create(data={"n": 7})

    with pytest.raises(ConflictError):
        records.page_size(2).consistent(horizon=0)
    with pytest.raises(ConflictError):
        asyncio.run(records.page_size(2).aconsistent(horizon=0))
    assert [status for _, _, status in wire.seen].count(412) == 2 * MOST_ATTEMPTS


def test_pages_are_read_when_the_list_has_been_quiet_for_a_horizon(records: Any) -> None:
    reading = records.page_size(1).__kinto_reading__()
    place = reading.source.locate()
    date = {"date": "Sun, 29 Nov 2026 20:00:00 GMT"}
    now = 1_795_982_400_000
    flow = _read_state(reading, 10, place)
    next(flow)
    more = {"content-type": "application/json", "next-page": f"http://x/v1{place.path}?_token=x", "etag": f'"{now}"'}

    head = flow.send(Response(200, more, b'{"data":[{"id":"a","last_modified":1}]}'))
    wait = flow.send(Response(200, {**date, "etag": f'"{now - 4000}"', "total-objects": "1"}))
    again = flow.send(Response(200, content=now))

    assert isinstance(head, Request) and head.method == "HEAD"
    assert isinstance(wait, Pause) and wait.seconds == 6
    assert isinstance(again, Request) and again.headers["If-Match"] == f'"{now - 4000}"'
    flow.close()

"""The change feed of a collection: nothing missed, nothing twice, and told where that cannot be promised."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
import transaction
from wiretap import Wiretap

from kinto_orm import (
    Bucket,
    ChangeFeed,
    Client,
    Collection,
    F,
    FeedLostError,
    InvalidTypeError,
    InvalidValueError,
    NotFoundError,
    Record,
)
from kinto_orm.jobs import changes
from kinto_orm.protocol.json_values import encode
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.responses import raise_for_status
from kinto_orm.protocol.writes import Flow
from kinto_orm.server.application import backends

HORIZON = 0.05
"""In seconds. The embedded server sends no header Date, so that the feed doubles it."""


def poll(todos: Collection[Any], token: str | None = None) -> tuple[list[tuple[str, str]], str]:
    """Return the changes of a feed, sorted, and its token."""
    feed = todos.records.changes(since=token, horizon=HORIZON)
    return sorted((change.kind, change.record.id) for change in feed), feed.token


def settle() -> None:
    """Wait until what is stored is older than the horizon."""
    time.sleep(3 * HORIZON)


def known(todos: Collection[Any]) -> dict[str, int]:
    return {one.id: one.last_modified for one in todos.records}


def create(todos: Collection[Any], *ids: str) -> None:
    todos.records.bulk_create({"id": id, "n": 1} for id in ids)


def test_a_feed_gives_everything_once_and_then_what_changed(todos: Collection[Record]) -> None:
    create(todos, "a", "b", "c")
    first, token = poll(todos)
    todos.records.get("a").patch(n=2)
    todos.records.get("b").delete()
    create(todos, "d")

    second, token = poll(todos, token)
    third, token = poll(todos, token)
    settle()
    fourth, token = poll(todos, token)

    assert first == [("changed", "a"), ("changed", "b"), ("changed", "c")]
    assert second == [("changed", "a"), ("changed", "d"), ("deleted", "b")]
    assert third == fourth == []


def test_a_change_has_the_record_as_it_is_or_its_tombstone(todos: Collection[Record]) -> None:
    feed = todos.records.changes(horizon=HORIZON)
    assert list(feed) == []

    create(todos, "a", "b")
    todos.records.get("b").delete()
    changed, deleted = sorted(feed, key=lambda change: change.record.id)

    assert (changed.record.data["n"], changed.record.is_deleted) == (1, False)
    assert (deleted.kind, deleted.record.is_deleted) == ("deleted", True)
    changed.record.patch(n=2)
    assert [change.record.data["n"] for change in feed] == [2]


def test_a_quiet_list_costs_one_request(todos: Collection[Record], wire: Wiretap) -> None:
    create(todos, "a", "b")
    settle()
    _, token = poll(todos)
    wire.requests.clear()

    assert poll(todos, token) == ([], token)

    assert [request.method for request in wire.requests] == ["HEAD"]


def test_a_record_that_is_written_again_comes_again(todos: Collection[Record]) -> None:
    create(todos, "a")
    seen, token = [], None
    for again in range(6):
        todos.records.get("a").patch(n=again)
        found, token = poll(todos, token)
        seen += found
        if again % 2:
            settle()

    assert seen == [("changed", "a")] * 6


def test_a_record_that_comes_back_after_its_deletion_is_a_change(todos: Collection[Record]) -> None:
    create(todos, "a", "b")
    _, token = poll(todos)
    todos.records.get("a").delete()
    found, token = poll(todos, token)
    create(todos, "a")
    again, token = poll(todos, token)
    settle()

    assert (found, again) == ([("deleted", "a")], [("changed", "a")])
    assert poll(todos, token)[0] == []


def test_a_key_called_deleted_makes_no_tombstone(todos: Collection[Record]) -> None:
    create(todos, "a")
    _, token = poll(todos)
    send(todos.client, f"{todos.__kinto_path__()}/records/b", {"data": {"deleted": True, "n": 1}})

    assert poll(todos, token)[0] == [("changed", "b")]


def test_a_token_covers_what_was_given_so_far(todos: Collection[Record]) -> None:
    create(todos, *map(str, range(10)))
    settle()
    feed = todos.records.changes(horizon=HORIZON)
    first = []
    for change in feed:
        first.append((change.kind, change.record.id))
        if len(first) == 4:
            break
    todos.records.get(first[0][1]).patch(n=2)

    rest, token = poll(todos, feed.token)

    assert sorted([*first, *rest]) == sorted([*first[:1], *((("changed", str(number))) for number in range(10))])
    assert poll(todos, token)[0] == []


def test_a_feed_of_many_pages_is_complete(todos: Collection[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PAGE_SIZE", 3)
    create(todos, *map(str, range(10)))
    first, token = poll(todos)
    todos.records.filter(max_id="4").update(n=2)
    second, token = poll(todos, token)

    assert (len(first), second) == (10, [("changed", str(number)) for number in range(5)])
    assert poll(todos, token)[0] == []


def test_what_a_token_cannot_hold_waits_for_the_horizon(
    todos: Collection[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_GIVEN", 4)
    monkeypatch.setattr(changes, "SLACK", 0)
    monkeypatch.setattr(changes, "PAGE_SIZE", 3)
    create(todos, *map(str, range(10)))

    found, token = poll(todos)

    assert found == [("changed", str(number)) for number in range(10)]
    assert poll(todos, token)[0] == []


def test_models_are_loaded_and_misfits_are_told_apart(kinto_client: Client, todos: Collection[Record]) -> None:
    class Todo(Record, bucket="payments", collection="todos"):
        n: int

    create(todos, "a")
    todos.records.create(id="b", data={"n": "many"})
    Todo.__kinto_client__ = kinto_client

    with pytest.raises(InvalidValueError, match="does not fit"):
        list(Todo.records.changes(horizon=HORIZON))
    kept = list(Todo.records.changes(horizon=HORIZON, on_invalid="keep"))
    skipped = [change.record for change in Todo.records.changes(horizon=HORIZON, on_invalid="skip")]

    assert [type(change.record) for change in kept] == [Todo, Record]
    assert [one.n for one in skipped] == [1]


def test_the_feed_can_be_awaited(todos: Collection[Record]) -> None:
    create(todos, "a", "b")

    async def read() -> tuple[list[str], list[str]]:
        feed = todos.records.changes(horizon=HORIZON)
        first = [change.record.id async for change in feed]
        todos.records.get("a").patch(n=2)
        return sorted(first), [change.record.id async for change in feed]

    assert asyncio.run(read()) == (["a", "b"], ["a"])


# -- where the feed is lost -------------------------------------------------------------------------------------------


def flush(client: Client, todos: Collection[Record]) -> None:
    client.flush(everything=True)
    client.ensure(Bucket(id=todos.bucket.id), Collection(bucket=todos.bucket.id, id=todos.id))


def make_anew(client: Client, todos: Collection[Record]) -> None:
    todos.refresh().delete()
    Collection(bucket=todos.bucket.id, id=todos.id, client=client).save()


def purge(client: Client, todos: Collection[Record]) -> None:
    """Delete tombstones as ``kinto purge-deleted`` does."""
    todos.records.get("b").delete()
    storage: Any = backends(client._connection.server._app)[0]  # type: ignore[union-attr,arg-type]  # an embedded one
    with transaction.manager:
        storage.purge_deleted(resource_name="record", parent_id=str(todos.__kinto_path__()))


def import_from_the_past(client: Client, todos: Collection[Record]) -> None:
    path = f"{todos.__kinto_path__()}/records/past"
    send(client, path, {"data": {"last_modified": 1_500_000_000_000}})


def send(client: Any, path: str, body: Any) -> None:
    """Store what the library itself never sends."""

    def flow() -> Flow[None]:
        headers = {"Content-Type": "application/json"}
        raise_for_status((yield Request("PUT", path, headers=headers, body=encode(body))), "PUT", path)

    client.run(flow())


LOSSES = [flush, make_anew, purge, import_from_the_past]


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("is_young", [False, True], ids=["settled", "young"])
def test_a_lost_feed_says_so(
    kinto_client: Client, todos: Collection[Record], lose: Callable[..., None], is_young: bool
) -> None:
    create(todos, "a", "b", "c")
    if not is_young:
        settle()
    _, token = poll(todos)
    if lose is import_from_the_past and is_young:
        settle()
        _, token = poll(todos, token)

    lose(kinto_client, todos)

    with pytest.raises(FeedLostError, match="lost its place"):
        poll(todos, token)


@pytest.mark.parametrize("lose", [flush, make_anew])
def test_a_list_that_was_filled_again_is_another_one(
    kinto_client: Client, todos: Collection[Record], lose: Callable[..., None]
) -> None:
    create(todos, "a", "b", "c")
    settle()
    _, token = poll(todos)
    lose(kinto_client, todos)
    create(todos, "d", "e", "f", "g")

    with pytest.raises(FeedLostError):
        poll(todos, token)


def test_a_reconciliation_gives_the_true_difference(kinto_client: Client, todos: Collection[Record]) -> None:
    create(todos, "a", "b", "c")
    settle()
    _, token = poll(todos)
    before = known(todos)
    make_anew(kinto_client, todos)
    create(todos, "b", "d")
    feed = todos.records.changes(since=token, horizon=HORIZON)
    with pytest.raises(FeedLostError) as caught:
        list(feed)

    feed = caught.value.reconcile(before)
    found = sorted((change.kind, change.record.id) for change in feed)

    assert found == [("changed", "b"), ("changed", "d"), ("deleted", "a"), ("deleted", "c")]
    assert list(feed) == [] and poll(todos, feed.token)[0] == []


def test_a_reconciliation_with_what_is_there_gives_nothing(kinto_client: Client, todos: Collection[Record]) -> None:
    create(todos, "a", "b")
    settle()
    _, token = poll(todos)
    purge(kinto_client, todos)
    now = known(todos)

    feed = lost(todos, token).reconcile(now)

    assert list(feed) == []


def test_a_reconciliation_that_was_left_is_begun_again(kinto_client: Client, todos: Collection[Record]) -> None:
    create(todos, "a", "b", "c")
    settle()
    _, token = poll(todos)
    purge(kinto_client, todos)
    feed = lost(todos, token).reconcile({"z": 1})

    next(iter(feed))

    assert feed.token == token
    assert len(list(feed)) == 3


def lost(todos: Collection[Record], token: str) -> FeedLostError:
    with pytest.raises(FeedLostError) as caught:
        poll(todos, token)
    return caught.value


def test_known_is_a_mapping_of_ids_to_timestamps(kinto_client: Client, todos: Collection[Record]) -> None:
    create(todos, "a", "b")
    settle()
    _, token = poll(todos)
    purge(kinto_client, todos)
    error = lost(todos, token)

    for known in (["a"], {"a": "1"}, {1: 1}):
        with pytest.raises(InvalidTypeError, match="mapping of ids to timestamps"):
            error.reconcile(known)  # type: ignore[arg-type]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_deleting_what_a_feed_remembers_does_not_lose_it(todos: Collection[Record]) -> None:
    create(todos, "a", "b", "c")
    settle()
    _, token = poll(todos)
    for id in ("c", "b", "a"):
        todos.records.get(id).delete()
        settle()
        found, token = poll(todos, token)
        assert found == [("deleted", id)]

    create(todos, "d")
    assert poll(todos, token)[0] == [("changed", "d")]


def test_a_collection_that_is_gone_is_not_found(kinto_client: Client, todos: Collection[Record]) -> None:
    create(todos, "a")
    _, token = poll(todos)
    todos.refresh().delete()

    with pytest.raises(NotFoundError):
        poll(todos, token)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_token_is_of_one_list(todos: Collection[Record]) -> None:
    token = todos.records.changes().token
    other = Collection(bucket=todos.bucket, id="other")

    with pytest.raises(InvalidValueError, match="is of /buckets/payments/collections/todos/records, not of"):
        other.records.changes(since=token)


@pytest.mark.parametrize("token", ["", "1234", '"1795414778027"', "eJwrLkksSQUABXwB6w", "ä"])
def test_what_is_no_token_is_refused(todos: Collection[Record], token: str) -> None:
    with pytest.raises(InvalidValueError, match=r"feed\.token"):
        todos.records.changes(since=token)


def test_wrong_types_are_refused(todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match=r"feed\.token"):
        todos.records.changes(since=1795414778027)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="seconds"):
        todos.records.changes(horizon="10")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="seconds"):
        todos.records.changes(horizon=-1)


def test_a_filtered_query_has_no_feed(todos: Collection[Record]) -> None:
    with pytest.raises(AttributeError, match="whole collection"):
        todos.records.filter(F("n") == 1).changes()  # type: ignore[attr-defined]


def test_a_feed_shows_where_it_is(todos: Collection[Record]) -> None:
    feed: ChangeFeed[Record] = todos.records.changes(horizon=HORIZON)

    assert repr(feed) == "<ChangeFeed of /buckets/payments/collections/todos/records at 0>"

"""Partitions: ranges of ids that are disjoint and complete, about even, and can be read elsewhere."""

from __future__ import annotations

import asyncio
import pickle
import random
import string
import uuid
from collections.abc import Iterator, Sequence
from contextvars import Context
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wiretap import answer, scripted_client, tap

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    ConfigurationError,
    CredentialsMissingError,
    InvalidFilterError,
    Partition,
    ProtocolError,
    Query,
    Record,
    UsageError,
)
from kinto_orm.query import partitions
from kinto_orm.query.partitions import spread
from kinto_orm.server import EmbeddedServer, ServerThread

DRAW = random.Random(26)
IDS = {
    "UUIDs": [str(uuid.UUID(int=DRAW.getrandbits(128))) for _ in range(100)],
    "numbers": [f"{number:06}" for number in range(100, 200)],
    "numbers without zeros": [str(number) for number in range(1, 101)],
    "words with one beginning": [f"collection-of-things-{number:03}" for number in range(100)],
    "one crowd among few": [f"monday-{number:05}" for number in range(90)] + [f"{n:x}{n}" for n in range(10)],
    "letters of all sorts": [f"a{''.join(DRAW.choices(string.ascii_letters + '_-', k=3))}{n}" for n in range(100)],
}


class Todo(Record, bucket="payments", collection="todos"):
    title: str = ""
    n: int = 0


@pytest.fixture
def few_are_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small collections large ones."""
    monkeypatch.setattr(partitions, "FEW", 3)


@pytest.fixture
def url(kinto_server: EmbeddedServer) -> Iterator[str]:
    """The URL of the server, on a socket."""
    with ServerThread(kinto_server) as thread:
        yield thread.url


def fill(todos: Collection[Record], ids: Sequence[str]) -> None:
    todos.records.bulk_create({"id": id, "n": number} for number, id in enumerate(ids))


def ids_of(partitions: Sequence[Partition[Any]]) -> list[str]:
    return [one.id for partition in partitions for one in partition.read()]


@pytest.mark.usefixtures("few_are_three")
@pytest.mark.parametrize("ids", [pytest.param(ids, id=name) for name, ids in IDS.items()])
@pytest.mark.parametrize("count", [2, 5])
def test_every_record_is_in_one_partition_and_all_hold_about_as_many(
    todos: Collection[Record], ids: list[str], count: int
) -> None:
    fill(todos, ids)

    partitions = todos.records.partitions(count)

    assert ids_of(partitions) == sorted(ids)
    assert [one.size for one in partitions] == [len(one.all()) for one in partitions]
    assert len(partitions) == count
    assert max(one.size for one in partitions) <= 1.5 * len(ids) / count


@pytest.mark.parametrize("count", [1, 3, 7, 100, 1000])
def test_few_ids_are_cut_exactly(todos: Collection[Record], count: int) -> None:
    fill(todos, IDS["one crowd among few"])

    sizes = [one.size for one in todos.records.partitions(count)]

    assert len(sizes) == min(count, 100)
    assert max(sizes) - min(sizes) <= 1


def test_cutting_takes_few_requests(few_are_three: None, kinto_client: Client, todos: Collection[Record]) -> None:
    fill(todos, IDS["UUIDs"])
    wire = tap(kinto_client)

    todos.records.partitions(8)

    assert len(wire.requests) <= 10


def test_what_others_write_meanwhile_is_in_one_partition_at_most(todos: Collection[Record]) -> None:
    ids = IDS["numbers"]
    fill(todos, ids)
    partitions = todos.records.page_size(7).partitions(4)
    readers = [one.read() for one in partitions]
    seen = [next(reader).id for reader in readers]

    fill(todos, ["0", "000199a", "zzz", *(f"{id}x" for id in ids[::30])])
    todos.records.filter(in_id=ids[::10]).update(n=-1)
    todos.records.filter(in_id=ids[5::50]).delete()
    seen += [one.id for reader in readers for one in reader]

    assert len(seen) == len(set(seen))
    assert set(seen) >= set(ids) - set(ids[5::50])


def test_the_filters_and_fields_of_the_query_are_kept(todos: Collection[Record]) -> None:
    fill(todos, IDS["numbers"])
    query = todos.records.filter(gt_n=9, in_id=IDS["numbers"][:40]).filter(min_id="000105").only("n").page_size(5)

    partitions = query.partitions(3)

    assert [[one.data for one in part] for part in partitions] == [[{"n": n} for n in range(*ends)] for ends in
                                                                  ((10, 20), (20, 30), (30, 40))]  # fmt: skip
    assert partitions[1].filter(n=25).count() == 1


def test_an_empty_collection_has_one_partition_for_what_may_come(todos: Collection[Record]) -> None:
    (partition,) = todos.records.partitions(4)
    fill(todos, ["late"])

    assert (partition.start, partition.stop, partition.size) == (None, None, 0)
    assert ids_of([partition]) == ["late"]


def test_a_query_that_can_match_nothing_is_not_asked(kinto_client: Client, todos: Collection[Record]) -> None:
    wire = tap(kinto_client)

    partitions = todos.records.filter(in_id=[]).partitions(4)

    assert ids_of(partitions) == []
    assert wire.requests == []


@pytest.mark.parametrize(
    "query",
    [
        lambda query: query.order_by("-id"),
        lambda query: query.order_by("n"),
        lambda query: query.limit(3),
        lambda query: query[2:],
        lambda query: query.filter(_limit=3),
    ],
)
def test_a_query_with_an_order_or_a_limit_has_no_partitions(
    kinto_client: Client, todos: Collection[Record], query: Any
) -> None:
    wire = tap(kinto_client)

    with pytest.raises(UsageError, match="Ranges of ids"):
        query(todos.records).partitions(2)

    assert wire.requests == []


def test_an_order_by_id_is_their_own(todos: Collection[Record]) -> None:
    fill(todos, ["a", "b"])

    assert ids_of(todos.records.order_by("id").partitions(2)) == ["a", "b"]


def test_there_is_at_least_one(todos: Collection[Record]) -> None:
    with pytest.raises(InvalidFilterError, match="partitions must be at least 1, not 0"):
        todos.records.partitions(0)


def test_a_count_that_fails_is_raised() -> None:
    answers = [answer({"settings": {"batch_max_requests": 25}}), answer({"responses": [{"status": 200, "body": {}}]})]
    first = answer({}, headers={"total-objects": "5"})

    with scripted_client(first, *answers), pytest.raises(ProtocolError):
        Record.records.partitions(2)


def test_those_of_buckets_are_cut_too(kinto_client: Client, todos: Collection[Record]) -> None:
    assert [part.all() for part in kinto_client.buckets.partitions(2)] == [[todos.bucket]]


class TestElsewhere:
    """A partition in another process has no sockets and no secrets."""

    @pytest.fixture
    def parts(self, url: str, todos: Collection[Record]) -> list[Partition[Todo]]:
        fill(todos, ["a", "b", "c"])
        with Client(url, auth=("user", "embedded"), bucket="payments") as client:
            parts = Todo.records.partitions(2)
            client.close()
        return list(pickle.loads(pickle.dumps(parts)))

    def test_it_holds_no_secret(self, url: str, todos: Collection[Record]) -> None:
        with Client(url, auth=("user", "embedded"), headers={"X-Key": "hidden"}) as client:
            pickled = pickle.dumps(todos.bucket.collection(Todo).records.partitions(2)[0].on(client))
            client.close()

        assert url.encode() in pickled
        assert not any(secret in pickled for secret in (b"embedded", b"hidden", b"dXNlcjplbWJlZGRlZA"))

    def test_without_credentials_it_says_so(self, parts: list[Partition[Todo]]) -> None:
        with pytest.raises(CredentialsMissingError, match=r"clone\(auth=…\)"):
            Context().run(parts[0].all)  # where no client is active

    def test_it_is_read_by_the_active_client(self, url: str, parts: list[Partition[Todo]]) -> None:
        with Client(url, auth=("user", "embedded")) as client:
            found = [one for part in parts for one in part.read()]
            client.close()

        assert [(type(one), one.id, one.client) for one in found] == [(Todo, id, client) for id in "abc"]
        assert str(found[0].collection.__kinto_path__()) == "/buckets/payments/collections/todos"

    @pytest.mark.parametrize("is_function", [False, True])
    def test_it_is_read_by_the_client_that_is_given(
        self, url: str, parts: list[Partition[Todo]], *, is_function: bool
    ) -> None:
        client = Client(url, auth=("user", "embedded"))

        found = list(parts[0].read((lambda: client) if is_function else client))
        report = parts[0].on(client).update(title="done")
        client.close()

        assert [one.id for one in found] == ["a", "b"][: parts[0].size]
        assert report.updated == parts[0].size

    def test_it_can_travel_on(self, url: str, parts: list[Partition[Todo]]) -> None:
        again = pickle.loads(pickle.dumps(parts[1]))

        with Client(url, auth=("user", "embedded")) as client:
            assert ids_of([again])[-1] == "c"
            client.close()

    def test_a_query_that_was_pickled_has_its_parent_still(self, url: str, todos: Collection[Record]) -> None:
        query: Query[Record] = pickle.loads(pickle.dumps(Collection(bucket="payments", id="todos").records.filter(n=1)))

        assert repr(query) == "<Query of all records: n=1>"
        with Client(url, auth=("user", "embedded")) as client:
            assert query.count() == 0
            client.close()

    def test_entries_that_were_pickled_are_read_by_the_client_there(self, url: str, todos: Collection[Record]) -> None:
        todos.records.create(id="a")
        collection = Collection(bucket="payments", id="todos")
        queries = [Bucket(id="payments").history.filter(record_id="a"), collection.records.history("a")]
        permissions = Client(url, auth=("user", "hidden")).permissions
        pickled = pickle.dumps([*queries, permissions])

        *found, again = pickle.loads(pickled)

        assert b"hidden" not in pickled
        assert repr(again) == repr(permissions)
        with Client(url, auth=("user", "embedded")) as client:
            assert [[one.record_id for one in query] for query in found] == [["a"], ["a"]]
            client.close()

    def test_one_of_an_embedded_server_stays_in_its_process(self, todos: Collection[Record]) -> None:
        with pytest.raises(ConfigurationError, match="lives in its own process"):
            pickle.dumps(todos.records.partitions(1))


def test_partitions_are_awaited(kinto_client: Client, todos: Collection[Record]) -> None:
    fill(todos, ["a", "b", "c"])

    async def read() -> list[list[str]]:
        parts = await todos.records.apartitions(2)
        return [[one.id async for one in part.aread()] for part in (*parts, parts[0].on(kinto_client))]

    assert sorted(asyncio.run(read())) in ([["a"], ["a"], ["b", "c"]], [["a", "b"], ["a", "b"], ["c"]])


@given(
    st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12),
    st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12),
    st.integers(1, 50),
    st.sets(st.sampled_from(string.ascii_letters + string.digits + "-_")),
)
@example(one="0", other="0", pieces=2, letters=set())
def test_cuts_leave_something_on_both_sides(one: str, other: str, pieces: int, letters: set[str]) -> None:
    low, high = sorted((one, other))

    cuts = spread(low, high, pieces, letters)

    assert cuts == sorted(set(cuts))
    assert all(low < cut <= high for cut in cuts)
    assert len(cuts) < pieces

"""The history of a bucket and the list of permissions: lists whose entries have no URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from wiretap import answer, scripted_client, tap

from kinto_orm import (
    Bucket,
    CapabilityMissingError,
    Client,
    Collection,
    ConflictError,
    EntryQuery,
    F,
    Group,
    HistoryIncompleteError,
    InvalidFilterError,
    InvalidTypeError,
    NotBoundError,
    NotStageableError,
    ProtocolError,
    Record,
    UsageError,
)
from kinto_orm.server import EmbeddedServer


@pytest.fixture
def history(todos: Collection[Record]) -> list[tuple[str, str]]:
    """What happens to three objects, from the first to the last."""
    one = todos.records.create(id="one", data={"n": 1})
    one.data["n"] = 2
    one.save()
    todos.records.create(id="two", data={"n": 1})
    one.delete()
    todos.bucket.groups.create(id="staff", data={"members": []})
    return [
        ("create", "/buckets/payments"),
        ("create", "/buckets/payments/collections/todos"),
        ("create", "/buckets/payments/collections/todos/records/one"),
        ("update", "/buckets/payments/collections/todos/records/one"),
        ("create", "/buckets/payments/collections/todos/records/two"),
        ("delete", "/buckets/payments/collections/todos/records/one"),
        ("create", "/buckets/payments/groups/staff"),
    ]


def said(entries: Any) -> list[tuple[str, str]]:
    """Return action and URI of each entry."""
    return [(entry.action, entry.uri) for entry in entries]


# -- entries ------------------------------------------------------------------------------------------------------


def test_an_entry_says_who_did_what_when(payments: Bucket, history: Any, kinto_client: Client) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)

    entry = payments.history.filter(record_id="one", action="update").all()[0]

    assert (entry.action, entry.resource_name) == ("update", "record")
    assert entry.user_id == kinto_client.server_info()["user"]["id"]
    assert (entry.bucket_id, entry.collection_id, entry.record_id, entry.group_id) == ("payments", "todos", "one", None)
    assert start < entry.date < datetime.now(UTC) + timedelta(minutes=1)
    assert entry.target.data == {"n": 2}
    assert entry.target.permissions == {"write": {entry.user_id}}
    assert entry.target.last_modified is not None
    assert entry.target.last_modified <= entry.last_modified


def test_the_entry_of_a_deletion_has_no_data(payments: Bucket, history: Any) -> None:
    entry = payments.history.filter(action="delete").all()[0]

    assert (entry.target.is_deleted, entry.target.data, entry.target.permissions) == (True, {}, None)


def test_entries_are_values(payments: Bucket, history: Any) -> None:
    first, again = payments.history.first(), payments.history.first()

    assert first is not None
    assert first == again
    assert {first, again} == {first}
    with pytest.raises(FrozenInstanceError):
        first.action = "none"  # type: ignore[misc]


def test_somebody_without_credentials_has_no_id() -> None:
    with Client.embedded(auth=None, settings={"bucket_create_principals": "system.Everyone"}) as client:
        bucket = Bucket(id="open", permissions={"write": ["system.Everyone"]}, client=client).save()

        assert [entry.user_id for entry in bucket.history] == [None]


ENTRY = {
    "id": "1",
    "last_modified": 5,
    "date": "2026-01-01T00:00:00+00:00",
    "action": "create",
    "user_id": "account:bob",
    "resource_name": "bucket",
    "uri": "/buckets/payments",
    "target": {"data": {"id": "payments", "last_modified": 4}, "permissions": {}},
}
HELLO = answer({"capabilities": {"history": {}, "permissions_endpoint": {}}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"date": "yesterday"},
        {"date": "2026-01-01T00:00:00"},
        {"date": 5},
        {"id": None},
        {"last_modified": "5"},
        {"target": None},
        {"target": {"data": None}},
        {"target": {"data": {}, "permissions": {"read": "bob"}}},
        {"action": 1},
        {"uri": None},
        {"record_id": 5},
    ],
)
def test_what_is_no_entry_is_an_error(wrong: Any) -> None:
    client = scripted_client(HELLO, answer({"data": [{**ENTRY, **wrong}]}))

    with pytest.raises(ProtocolError):
        client.bucket("payments").history.all()


def test_an_entry_of_another_resource_names_no_bucket() -> None:
    client = scripted_client(HELLO, answer({"data": [{**ENTRY, "uri": "/"}]}))

    assert [entry.bucket_id for entry in client.bucket("payments").history] == [""]


# -- history ------------------------------------------------------------------------------------------------------


def test_the_history_of_a_bucket_begins_with_the_newest(payments: Bucket, history: Any) -> None:
    assert said(payments.history) == said(payments.history.all()) == history[::-1]
    assert payments.history.count() == 7
    assert said([payments.history.first()]) == history[-1:]
    assert payments.history.exists()


def test_nothing_is_asked_before_a_query_ends(payments: Bucket, history: Any, kinto_client: Client) -> None:
    wire = tap(kinto_client)

    query = payments.history.filter(action="create").limit(3)[1:]

    assert repr(query) == "<History of 2 history entries: action=%22create%22>"
    assert repr(payments.history) == "<History of all history entries: no filter>"
    assert wire.requests == []
    assert said(query) == said(query)
    with pytest.raises(UsageError, match="exists"):
        bool(query)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"resource_name": "record", "action": "create"}, [4, 2]),
        ({"in_action": ["update", "delete"]}, [5, 3]),
        ({"uri": "/buckets/payments/groups/staff"}, [6]),
        ({"group_id": "staff"}, [6]),
        ({"bucket_id": "payments"}, [0]),
        ({"target.data.n": 2}, [3]),
        ({"collection_id": "todos", "_limit": 2}, [5, 4]),
        ({"_sort": "last_modified", "_limit": 2}, [0, 1]),
        ({"_sort": "-date", "_limit": 1}, [6]),
        ({"user_id": "account:nobody"}, []),
    ],
)
def test_kinto_s_own_keywords_select_entries(
    payments: Bucket, history: Any, keywords: dict[str, Any], expected: list[int]
) -> None:
    assert said(payments.history.filter(**keywords)) == [history[number] for number in expected]
    assert payments.history.filter(**keywords).count() == len(expected)


def test_expressions_select_entries(payments: Bucket, history: Any) -> None:
    assert said(payments.history.filter(F("action") == "delete", F("record_id") == "one")) == [history[5]]


def test_conditions_on_the_date_of_entries_are_sent_as_kinto_stores_it(payments: Bucket, history: Any) -> None:
    entries = payments.history.all()
    one, zone = entries[2], timezone(timedelta(hours=3))

    assert payments.history.filter(date=one.date).all() == [one]
    assert payments.history.filter(in_date=[one.date.astimezone(zone)]).all() == [one]
    assert payments.history.filter(min_date=one.date).all() == entries[:3]
    assert payments.history.filter(F("date") > one.date, F("date") <= entries[0].date.isoformat()).all() == entries[:2]
    assert payments.history.filter(min_date="2020", like_date="20*").all() == entries
    assert "date=%222030-01-01T00%3A00%3A00%2B00%3A00%22" in repr(
        payments.history.filter(date=datetime(2030, 1, 1, tzinfo=UTC))
    )


def test_parts_and_times_of_the_history(payments: Bucket, history: Any) -> None:
    entries = payments.history.all()

    assert payments.history[2:4].all() == entries[2:4]
    assert payments.history.since(entries[2].last_modified).all() == entries[:2]
    assert payments.history.before(entries[2].last_modified).all() == entries[3:]
    assert payments.history.filter(_since=entries[2].last_modified).all() == entries[:2]
    assert payments.history.filter(gt_last_modified=entries[2].last_modified).all() == entries[:2]
    assert payments.history.timestamp() == entries[0].last_modified


@pytest.mark.parametrize(
    "keywords",
    [
        {"colection_id": "todos"},
        {"_collection_id": "todos"},
        {"deleted": True},
        {"_sort": "record_id"},
        {"_sort": "target.data.n"},
        {"_fields": "uri"},
        {"title__exact": "x"},
    ],
)
def test_what_kinto_would_ignore_or_lose_is_refused(payments: Bucket, keywords: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilterError):
        payments.history.filter(**keywords)


@pytest.mark.parametrize("condition", [F("titel") == 1, True])
def test_expressions_that_are_none_of_a_history_are_refused(payments: Bucket, condition: Any) -> None:
    with pytest.raises(InvalidFilterError):
        payments.history.filter(condition)


def test_pages_are_complete_and_give_each_entry_once_while_others_write(payments: Bucket, history: Any) -> None:
    found = []
    for number, entry in enumerate(payments.history.page_size(2)):
        found.append(entry)
        payments.groups.create(id=f"new{number}", data={"members": []})

    assert said(found) == history[::-1]


def test_the_pages_of_a_server_that_gives_small_ones_are_all_read() -> None:
    with Client.embedded(settings={"paginate_by": 2}) as client:
        todos = Collection(bucket=Bucket(id="payments").save(), id="todos").save()
        todos.records.bulk_create({"id": f"r{n}"} for n in range(5))

        assert [entry.record_id for entry in client.bucket("payments").history] == [
            "r4",
            "r3",
            "r2",
            "r1",
            "r0",
            None,
            None,
        ]
        assert client.bucket("payments").history.count() == 7
        assert client.bucket("payments").history.filter(resource_name="record").purge() == 5
        assert client.bucket("payments").history.count() == 2


def test_the_history_of_one_object(todos: Collection[Record], history: Any) -> None:
    two = todos.records.get("two")

    assert said(todos.records.history(two)) == [history[4]]
    assert said(todos.records.history("one")) == [history[5], history[3], history[2]]
    assert said(todos.bucket.collections.history(todos)) == [history[1]]
    assert said(todos.bucket.groups.history("staff")) == [history[6]]
    assert said(todos.bucket.groups.history("todos")) == []
    assert said(todos.records.history("one").filter(action="create")) == [history[2]]


def test_the_history_of_buckets(kinto_client: Client, history: Any) -> None:
    assert said(kinto_client.buckets.history("payments")) == [history[0]]


def test_the_default_bucket_has_a_history(kinto_client: Client) -> None:
    notes = kinto_client.bucket("default").collection("notes")
    notes.records.create(id="x", data={})

    assert [entry.record_id for entry in notes.records.history("x")] == ["x"]
    assert {entry.bucket_id for entry in kinto_client.bucket("default").history} == {
        kinto_client.server_info()["user"]["bucket"]
    }


def test_an_object_of_another_list_has_another_history(todos: Collection[Record]) -> None:
    other = Record(collection=Collection(bucket=todos.bucket, id="other"), id="x")

    with pytest.raises(InvalidTypeError, match="is not in"):
        todos.records.history(other)


def test_a_bucket_without_an_id_has_no_history(kinto_client: Client) -> None:
    with pytest.raises(NotBoundError):
        Bucket(client=kinto_client).history.all()


def test_a_history_is_awaited(payments: Bucket, history: Any) -> None:
    async def awaited() -> None:
        query = payments.history.filter(resource_name="record")

        assert [entry async for entry in query] == query.all() == await query.aall()
        assert await query.afirst() == query.first()
        assert await query.acount() == 4
        assert await query.aexists()
        assert await query.atimestamp() == query.timestamp()
        assert await query.apurge() == 4
        assert not await query.aexists()

    asyncio.run(awaited())


# -- purge --------------------------------------------------------------------------------------------------------


def test_what_matches_is_purged(payments: Bucket, history: Any, kinto_client: Client) -> None:
    wire = tap(kinto_client)

    assert payments.history.filter(record_id="one").purge() == 3

    assert wire.said[-1] == "DELETE"
    assert said(payments.history) == [one for one in history[::-1] if not one[1].endswith("/one")]


def test_purged_entries_leave_no_trace_in_what_is_read(payments: Bucket, history: Any) -> None:
    payments.history.filter(record_id="one").purge()

    assert payments.history.since(0).count() == len(payments.history.since(0).all()) == 4
    assert [entry.action for entry in payments.history.since(0).limit(2)] == ["create", "create"]


def test_a_dry_client_counts_what_would_be_purged(payments: Bucket, history: Any, kinto_client: Client) -> None:
    dry = kinto_client.clone(dry_mode=True)

    assert dry.bucket("payments").history.filter(record_id="one").purge() == 3

    [planned] = dry.plan().writes
    assert planned.request["method"] == "DELETE"
    assert payments.history.count() == 7


def test_everything_is_purged_on_demand_only(payments: Bucket, history: Any) -> None:
    with pytest.raises(UsageError, match=r"purge\(everything=True\)"):
        payments.history.purge()
    with pytest.raises(UsageError, match="limit"):
        payments.history.filter(record_id="one").limit(1).purge()

    assert payments.history.count() == 7
    assert payments.history.purge(everything=True) == 7
    assert payments.history.count() == 0


def test_what_is_old_is_purged(payments: Bucket, history: Any) -> None:
    entries = payments.history.all()

    assert payments.history.before(entries[2].last_modified).purge() == 4
    assert payments.history.all() == entries[:3]


def test_a_purge_can_expect_that_nothing_happened_since(payments: Bucket, history: Any) -> None:
    seen = payments.history.timestamp()
    payments.groups.create(id="new", data={"members": []})

    with pytest.raises(ConflictError):
        payments.history.purge(everything=True, if_match=seen)

    assert payments.history.count() == 8
    assert payments.history.purge(everything=True, if_match=payments.history.timestamp()) == 8


def test_nothing_is_purged_where_nothing_can_match(payments: Bucket, history: Any, kinto_client: Client) -> None:
    wire = tap(kinto_client)

    assert payments.history.filter(in_record_id=[]).purge() == 0
    assert payments.history.filter(in_record_id=[]).all() == []
    assert "DELETE" not in wire.said


def test_a_unit_of_work_purges_nothing(payments: Bucket, kinto_client: Client) -> None:
    wire = tap(kinto_client)

    with pytest.raises(NotStageableError), kinto_client.unit_of_work():
        payments.history.purge(everything=True)

    assert wire.requests == []


# -- permissions --------------------------------------------------------------------------------------------------


def test_what_the_user_may_do(kinto_client: Client, todos: Collection[Record]) -> None:
    Group(bucket=todos.bucket, id="staff", members=[]).save()

    found = {entry.uri: entry for entry in kinto_client.permissions}

    assert {uri: entry.resource_name for uri, entry in found.items()} == {
        "/": "root",
        "/buckets/payments": "bucket",
        "/buckets/payments/collections/todos": "collection",
        "/buckets/payments/groups/staff": "group",
    }
    assert found["/"].permissions >= {"bucket:create"}
    assert found["/"].id is None
    assert found["/buckets/payments/collections/todos"].permissions >= {"read", "write", "record:create"}
    staff = found["/buckets/payments/groups/staff"]
    assert (staff.id, staff.bucket_id, staff.group_id, staff.collection_id) == ("staff", "payments", "staff", None)


def test_the_user_of_a_clone_has_other_permissions(kinto_client: Client, todos: Collection[Record]) -> None:
    bob = kinto_client.clone(auth=("bob", "secret"))
    todos.records.create(id="his", permissions={"read": [bob.server_info()["user"]["id"]]})

    found = bob.permissions.filter(resource_name="record").all()

    assert [(entry.record_id, entry.permissions) for entry in found] == [("his", {"read"})]


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"resource_name": "bucket"}, 1),
        ({"bucket_id": "payments"}, 2),
        ({"in_resource_name": ["root", "collection"]}, 2),
        ({"has_id": False}, 1),
        ({"_sort": "-uri", "_limit": 2}, 2),
        ({"collection_id": "none"}, 0),
    ],
)
def test_kinto_s_own_keywords_select_permissions(
    kinto_client: Client, todos: Collection[Record], keywords: dict[str, Any], expected: int
) -> None:
    query = kinto_client.permissions.filter(**keywords)

    assert len(query.all()) == query.count() == expected
    assert query.exists() is (expected > 0)


@pytest.mark.parametrize(
    "keywords",
    [
        {"permissions": "read"},
        {"last_modified": 5},
        {"gt_last_modified": 5},
        {"_since": 0},
        {"_before": 5},
        {"_sort": "id"},
        {"_fields": "uri"},
        {"user_id": "bob"},
        {"target.data": 1},
    ],
)
def test_what_the_list_of_permissions_would_ignore_is_refused(kinto_client: Client, keywords: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilterError):
        kinto_client.permissions.filter(**keywords)


def test_permissions_are_awaited(kinto_client: Client, todos: Collection[Record]) -> None:
    async def awaited() -> None:
        query = kinto_client.permissions.page_size(1)

        assert [entry async for entry in query] == await query.aall() == query.all()
        assert await query.acount() == 3
        assert await query.afirst() == query.first()

    asyncio.run(awaited())


@pytest.mark.parametrize("wrong", [{"permissions": None}, {"permissions": [1]}, {"uri": None}, {"bucket_id": 1}])
def test_what_is_no_entry_of_permissions_is_an_error(wrong: Any) -> None:
    entry = {"uri": "/", "resource_name": "root", "permissions": []}
    client = scripted_client(HELLO, answer({"data": [{**entry, **wrong}]}))

    with pytest.raises(ProtocolError):
        client.permissions.all()


# -- what the server must be able to do ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_client() -> Iterator[Client]:
    """A client of a server without plugins."""
    with Client.embedded(settings={"includes": "", "experimental_permissions_endpoint": False}) as client:
        client.bucket("b").replace(safe=False)
        yield client


ENDINGS: dict[str, tuple[str, Callable[[Client], Any]]] = {
    "iterate": ("history", lambda client: list(client.bucket("b").history)),
    "all": ("history", lambda client: client.bucket("b").history.all()),
    "count": ("history", lambda client: client.bucket("b").history.count()),
    "timestamp": ("history", lambda client: client.bucket("b").history.timestamp()),
    "purge": ("history", lambda client: client.bucket("b").history.purge(everything=True)),
    "of one": ("history", lambda client: client.bucket("b").collections.history("c").first()),
    "as_of": ("history", lambda client: client.bucket("b").collection("c").records.as_of(1).all()),
    "as_of count": ("history", lambda client: client.bucket("b").collection("c").records.as_of(1).count()),
    "as_of get": ("history", lambda client: client.bucket("b").collection("c").records.as_of(1).get("x")),
    "revert": ("history", lambda client: client.bucket("b").collection("c").records.revert("x", to=1)),
    "permissions": ("permissions_endpoint", lambda client: client.permissions.all()),
    "iterate permissions": ("permissions_endpoint", lambda client: list(client.permissions)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_server_without_the_plugin_is_asked_nothing(bare_client: Client, ending: str) -> None:
    capability, end = ENDINGS[ending]
    wire = tap(bare_client)

    with pytest.raises(CapabilityMissingError, match=capability):
        end(bare_client)

    assert {(one.method, one.path) for one in wire.requests} == {("GET", "/")}


def test_a_server_that_keeps_no_history_of_something_is_no_witness() -> None:
    excluded = "/buckets/payments/collections/secret /buckets/payments/groups/staff"
    with Client.embedded(settings={"history.exclude_resources": excluded}):
        payments = Bucket(id="payments").save()
        secret = Collection(bucket=payments, id="secret").save()
        secret.records.create(id="x")
        Collection(bucket=payments, id="secrets").save().records.create(id="y")

        for ask in (
            lambda: secret.records.history("x").all(),
            lambda: payments.collections.history(secret).first(),
            lambda: payments.groups.history("staff").first(),
            lambda: secret.records.as_of(1).all(),
            lambda: secret.records.as_of(1).get("x"),
            lambda: secret.records.revert("x", to=1),
        ):
            with pytest.raises(HistoryIncompleteError, match=r"history\.exclude_resources"):
                ask()
        assert [entry.uri for entry in payments.collection("secrets").records.history("y")] == [
            "/buckets/payments/collections/secrets/records/y"
        ]
        assert payments.history.count() == 3


def test_the_embedded_server_has_both(kinto_server: EmbeddedServer, kinto_client: Client) -> None:
    assert {"history", "permissions_endpoint"} <= kinto_client.server_info(refresh=True)["capabilities"].keys()
    assert isinstance(kinto_client.permissions, EntryQuery)

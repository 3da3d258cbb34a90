"""``client.ensure()`` on a real Kinto: what shall be there is there, and nothing else is touched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wiretap import Wiretap, tap

from kinto_orm import (
    Account,
    BatchTooLargeError,
    Bucket,
    Client,
    Collection,
    CommitError,
    DuplicateObjectError,
    ForbiddenError,
    Group,
    InvalidTypeError,
    KintoError,
    NotFoundError,
    PermissionsUnknownError,
    Record,
    UnauthorizedError,
)
from kinto_orm.transport.reporting import ResponseEvent


@pytest.fixture
def wire(kinto_client: Client) -> Wiretap:
    kinto_client.server_info()
    return tap(kinto_client)


def writes(wire: Wiretap) -> list[str]:
    return [request.path for request in wire.requests if request.is_write]


def wanted() -> tuple[Any, ...]:
    return (
        Record(bucket="app", collection="settings", id="one", data={"n": 1}),
        Collection(bucket="app", id="settings", sort="name", permissions={"record:create": ["account:bob"]}),
        Group(bucket="app", id="staff", members=["account:bob"]),
        Bucket(id="app", data={"title": "App"}),
    )


def test_what_is_missing_is_created_in_one_batch(kinto_client: Client, wire: Wiretap) -> None:
    outcomes = kinto_client.ensure(*wanted())

    assert writes(wire) == ["/batch"]
    assert [(one.object.id, one.status) for one in outcomes] == [
        ("one", "created"),
        ("settings", "created"),
        ("staff", "created"),
        ("app", "created"),
    ]


def test_a_second_call_sends_no_write(kinto_client: Client, wire: Wiretap) -> None:
    kinto_client.ensure(*wanted())
    wire.requests.clear()

    outcomes = kinto_client.ensure(*wanted())

    assert writes(wire) == []
    assert {one.status for one in outcomes} == {"unchanged"}


def test_what_is_below_something_missing_is_not_asked_for(kinto_client: Client, wire: Wiretap) -> None:
    kinto_client.ensure(*wanted())

    assert [request.path for request in wire.requests] == ["/buckets/app", "/batch"]


def test_each_object_ends_up_loaded(kinto_client: Client) -> None:
    kinto_client.ensure(Bucket(id="app", data={"title": "App", "more": 1}))
    bucket = Bucket(id="app", data={"title": "App"})

    kinto_client.ensure(bucket)

    assert (bucket.is_new, bucket.is_dirty) == (False, False)
    assert bucket.data == {"title": "App", "more": 1}


def test_missing_keys_are_added_and_different_ones_are_set(kinto_client: Client) -> None:
    Bucket(id="app", data={"theirs": 1, "title": "Old"}, client=kinto_client).save()

    (outcome,) = kinto_client.ensure(Bucket(id="app", data={"title": "App", "mine": 2}))

    assert outcome.status == "updated"
    assert kinto_client.buckets.get("app").data == {"theirs": 1, "title": "App", "mine": 2}


def test_missing_principals_are_added_and_others_are_left(kinto_client: Client) -> None:
    Bucket(id="app", permissions={"read": ["account:eve"]}, client=kinto_client).save()

    kinto_client.ensure(Bucket(id="app", permissions={"read": ["account:bob"]}))

    assert kinto_client.buckets.get("app").permissions.read == {"account:bob", "account:eve"}


def test_a_group_and_a_collection_may_have_the_same_id(kinto_client: Client) -> None:
    kinto_client.ensure(Bucket(id="app"), Collection(bucket="app", id="x"), record(n=1))

    outcomes = kinto_client.ensure(
        Bucket(id="app"), Group(bucket="app", id="x"), Collection(bucket="app", id="x"), record(n=1)
    )

    assert [one.status for one in outcomes] == ["unchanged", "created", "unchanged", "unchanged"]


def record(**data: Any) -> Record:
    return Record(bucket="app", collection="x", id="one", data=data)


def test_what_somebody_else_creates_at_the_same_time_is_reported(kinto_client: Client) -> None:
    def race(event: ResponseEvent) -> None:
        if event.status == 403:
            Bucket(id="app", data={"theirs": 1}, client=kinto_client).save()

    client = kinto_client.clone(on_response=race)

    with pytest.raises(CommitError) as caught:
        client.ensure(Bucket(id="app", data={"mine": 1}))

    assert [one.status for one in caught.value.outcomes] == ["conflict"]
    assert caught.value.outcomes[0].error.theirs == {"theirs": 1}


def test_what_somebody_else_changes_at_the_same_time_is_reported(kinto_client: Client) -> None:
    theirs = Bucket(id="app", client=kinto_client).save()

    def race(event: ResponseEvent) -> None:
        if event.target == "/buckets/app" and event.method == "GET":
            theirs.patch(n=1)

    with pytest.raises(CommitError) as caught:
        kinto_client.clone(on_response=race).ensure(Bucket(id="app", data={"mine": 1}))

    assert [one.status for one in caught.value.outcomes] == ["conflict"]
    assert kinto_client.buckets.get("app").data == {"n": 1}


def test_l03_a_bucket_of_another_user_is_forbidden(kinto_client: Client) -> None:
    Bucket(id="app", client=kinto_client).save()
    stranger = kinto_client.clone(auth=("stranger", "x"))

    # Kinto compares before it asks who it is, so the creation is a conflict.
    with pytest.raises(ForbiddenError, match="/buckets/app exists already, and may not be seen"):
        stranger.ensure(Bucket(id="app"))
    with pytest.raises(ForbiddenError):
        stranger.ensure(Collection(bucket="app", id="x"))
    with pytest.raises(CommitError) as caught:
        stranger.ensure(Bucket(id="app"), Bucket(id="own"))

    assert [(one.status, type(one.error)) for one in caught.value.outcomes] == [
        ("rejected", ForbiddenError),
        ("created", type(None)),
    ]


def test_l01_an_account_is_created_where_it_is_missing() -> None:
    def account(id: str = "rita") -> Account:
        return Account(id=id, password="s3cret-p4ss")

    # A server with basicauth takes unknown accounts for other users.
    with Client.embedded(settings={"multiauth.policies": "account"}) as client:
        rita, nobody = (client.clone(auth=auth) for auth in (("rita", "s3cret-p4ss"), None))

        created, again = rita.ensure(account(), Bucket(id="hers")), rita.ensure(account())
        with pytest.raises(UnauthorizedError, match="/accounts/rita exists already, and may not be seen"):
            nobody.ensure(account())
        (other,) = nobody.ensure(account("bob"))

    assert [one.status for one in (*created, *again, other)] == ["created", "created", "unchanged", "created"]


def test_l02_a_model_or_a_reference_stands_for_what_it_needs(kinto_client: Client, wire: Wiretap) -> None:
    class Todo(Record, bucket="app", collection="todos"):
        title: str = ""

    class Note(Record, bucket="app", collection="notes"):
        pass

    with kinto_client, pytest.raises(NotFoundError, match=r"client\.ensure\(Model\)"):
        Todo().save()
    assert [one.status for one in kinto_client.ensure(Todo, Note)] == ["created"] * 3
    with kinto_client:
        assert Todo(title="x").save().id is not None

    other = kinto_client.bucket("other").collection(Todo)
    outcomes = kinto_client.ensure(other, kinto_client.bucket("third").group("staff"))
    assert {str(one.object.__kinto_path__()) for one in outcomes} == {
        *("/buckets/other", "/buckets/other/collections/todos"),
        *("/buckets/third", "/buckets/third/groups/staff"),
    }
    assert (other.data, other.is_dirty, other.model) == ({}, False, Todo)
    wire.requests.clear()
    kinto_client.ensure(kinto_client.buckets.get("other").collection("todos"))
    assert "/buckets/other" not in [request.path for request in wire.requests[1:]]


def test_l04_members_that_others_added_stay(kinto_client: Client, wire: Wiretap) -> None:
    kinto_client.ensure(Bucket(id="app"), Group(bucket="app", id="staff", members=["account:eve"]))

    group = Group(bucket="app", id="staff", members=["account:bob"])
    (outcome,) = kinto_client.ensure(group)
    wire.requests.clear()
    kinto_client.ensure(Group(bucket="app", id="staff", members=["account:eve"]))

    assert (outcome.status, group.members) == ("updated", ["account:eve", "account:bob"])
    assert writes(wire) == []


def test_permissions_that_cannot_be_seen_are_not_completed(kinto_client: Client) -> None:
    Bucket(id="app", permissions={"read": ["system.Everyone"]}, client=kinto_client).save()
    stranger = kinto_client.clone(auth=("stranger", "x"))

    with pytest.raises(PermissionsUnknownError, match="cannot be seen"):
        stranger.ensure(Bucket(id="app", permissions={"write": ["account:bob"]}))


def test_more_than_one_batch_is_refused_before_anything_is_sent(kinto_client: Client, wire: Wiretap) -> None:
    with pytest.raises(BatchTooLargeError):
        kinto_client.ensure(Bucket(id="app"), *(Collection(bucket="app", id=f"c{n}") for n in range(25)))

    assert writes(wire) == []


@pytest.mark.parametrize(
    ("objects", "error"),
    [
        pytest.param(lambda client: [client.account("bob")], InvalidTypeError, id="reference"),
        pytest.param(lambda client: [Bucket(id="app"), Bucket(id="app")], DuplicateObjectError, id="twice"),
        pytest.param(lambda client: ["app"], InvalidTypeError, id="text"),
        pytest.param(lambda client: [Bucket], InvalidTypeError, id="class"),
    ],
)
def test_what_is_no_new_object_is_refused(
    objects: Any, error: type[KintoError], kinto_client: Client, wire: Wiretap
) -> None:
    with pytest.raises(error):
        kinto_client.ensure(*objects(kinto_client))

    assert wire.requests == []


def test_the_awaited_twin_does_the_same(kinto_client: Client) -> None:
    (outcome,) = asyncio.run(kinto_client.aensure(Bucket(id="app")))

    assert outcome.status == "created"


def test_nothing_is_nothing(kinto_client: Client, wire: Wiretap) -> None:
    assert kinto_client.ensure() == ()
    assert wire.requests == []

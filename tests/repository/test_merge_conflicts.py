"""What happens to a conflict that is decided beforehand, and to one whose two sides are brought together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wiretap import Wiretap, tap

from kinto_orm import (
    BasicPatch,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    ForbiddenError,
    Group,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    MergeConflict,
    MergePatch,
    NotFoundError,
    Record,
)
from kinto_orm.server import EmbeddedServer

BASE = {"title": "base", "n": 1, "deep": {"a": 1, "b": 1}}
THEIRS = {"title": "theirs", "n": 1, "deep": {"a": 1, "b": 2}}


@pytest.fixture
def stale(todos: Collection[Record]) -> Record:
    """A record that we changed in one field, and another client in others."""
    record = todos.records.create(id="x", data=BASE)
    todos.records.get("x").patch(title="theirs", deep={"a": 1, "b": 2})
    record.data["n"] = 2
    record.data["deep"]["a"] = 2
    return record


MERGED = {"title": "theirs", "n": 2, "deep": {"a": 2, "b": 2}}
MINE = {"title": "base", "n": 2, "deep": {"a": 2, "b": 1}}


@pytest.fixture
def wire(kinto_client: Client, stale: Record) -> Wiretap:
    kinto_client.server_info()
    return tap(kinto_client)


def stored(todos: Collection[Record], id: str = "x") -> dict[str, Any]:
    return dict(todos.records.get(id).data)


# -- decided by a word, or by a function ----------------------------------------------------------------------------

WORDS: dict[str, dict[str, Any]] = {"mine": MINE, "theirs": THEIRS, "merge": MERGED}


@pytest.fixture(params=["word", "function"])
def policy(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Makes of an answer the word itself, or a function that gives it."""
    return (lambda answer: answer) if request.param == "word" else (lambda answer: lambda conflict: answer)


@pytest.mark.parametrize("word", WORDS)
def test_a_save_goes_on_as_it_was_told(
    word: str, policy: Callable[[Any], Any], stale: Record, todos: Collection[Record]
) -> None:
    assert stale.save(on_conflict=policy(word)) is stale

    assert dict(stale.data) == stored(todos) == WORDS[word]
    assert not stale.is_dirty


def test_a_save_that_merges_asks_for_nothing_more(stale: Record, wire: Wiretap) -> None:
    stale.save(on_conflict="merge")

    first, second = wire.said
    assert [first.split()[0], second.split()[0]] == ["PATCH", "PATCH"]
    assert wire.bodies[1] == {"data": {"n": 2, "deep": {"a": 2}}}


def test_a_save_is_awaited_with_the_same_policies(stale: Record, todos: Collection[Record]) -> None:
    asyncio.run(stale.asave(on_conflict="merge"))

    assert stored(todos) == MERGED


@pytest.mark.parametrize("raising", ["raise", lambda conflict: "raise"])
def test_a_save_that_raises_leaves_all_as_it_was(raising: Any, stale: Record, todos: Collection[Record]) -> None:
    with pytest.raises(ConflictError) as caught:
        stale.save(on_conflict=raising)

    assert caught.value.mine == dict(stale.data) == MINE
    assert stored(todos) == THEIRS
    assert stale.is_dirty


def test_a_function_sees_all_sides_and_gives_the_data(stale: Record, todos: Collection[Record]) -> None:
    def longer(conflict: ConflictError) -> dict[str, Any]:
        assert (conflict.base, conflict.mine, conflict.theirs) == (BASE, MINE, THEIRS)
        return {"title": "both", "n": conflict.mine["n"] + conflict.theirs["n"]}

    stale.save(on_conflict=longer)

    assert dict(stale.data) == stored(todos) == {"title": "both", "n": 3}


@pytest.mark.parametrize("wrong", [None, 5, "ours", ["n"], True])
def test_a_function_that_gives_anything_else_is_refused(
    wrong: Any, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    with pytest.raises(InvalidTypeError, match="on_conflict gave"):
        stale.save(on_conflict=lambda conflict: wrong)

    assert len(wire.requests) == 1
    assert dict(stale.data) == MINE
    assert stored(todos) == THEIRS


class Counter(Record):
    title: str
    n: int = 0


@pytest.mark.parametrize("wrong", [{"title": "x", "n": "many"}, {"n": 1}])
def test_data_of_a_function_that_does_not_fit_the_model_is_not_sent(
    wrong: Any, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    counter = Counter(collection=todos, id="x", title="mine")

    with pytest.raises(InvalidValueError, match="Counter: "):
        counter.save(on_conflict=lambda conflict: wrong)

    assert len(wire.requests) == 1
    assert counter.is_new
    assert stored(todos) == THEIRS


@pytest.mark.parametrize("wrong", [None, 5, "ours", ["n"]])
def test_what_is_no_policy_is_refused_before_anything_is_sent(
    wrong: Any, kinto_client: Client, stale: Record, wire: Wiretap
) -> None:
    if wrong is not None:
        with pytest.raises(InvalidTypeError):
            stale.save(on_conflict=wrong)
    with pytest.raises(InvalidTypeError):
        kinto_client.unit_of_work(on_conflict=wrong)

    assert wire.requests == []


def test_what_a_function_raises_comes_out(stale: Record) -> None:
    with pytest.raises(ZeroDivisionError):
        stale.save(on_conflict=lambda conflict: 1 / 0)  # type: ignore[arg-type,return-value]  # raises

    assert stale.is_dirty


def test_whoever_is_faster_again_and_again_wins(stale: Record, todos: Collection[Record], wire: Wiretap) -> None:
    def too_late(conflict: ConflictError) -> str:
        Record(collection=todos, id="x").patch(n=conflict.theirs["n"] + 10)
        return "mine"

    with pytest.raises(ConflictError):
        stale.save(on_conflict=too_late)  # type: ignore[arg-type]  # a word, as a str

    assert [said for said in wire.said if "If-Match" in said] == [said for said in wire.said if said != "PATCH"]
    assert len([said for said in wire.said if "If-Match" in said]) == 4
    assert stored(todos)["n"] == 41
    assert dict(stale.data) == MINE


@pytest.mark.parametrize("word", WORDS)
def test_edits_that_are_made_meanwhile_stay(word: str, stale: Record, todos: Collection[Record]) -> None:
    def edit(conflict: ConflictError) -> str:
        stale.data["later"] = True
        return word

    stale.save(on_conflict=edit)  # type: ignore[arg-type]  # a word, as a str

    assert stored(todos) == WORDS[word]
    if word != "theirs":  # which drops what is local
        assert dict(stale.data) == {**WORDS[word], "later": True}
        assert stale.is_dirty


# -- brought together -----------------------------------------------------------------------------------------------


def test_a_conflict_is_merged_afterwards(stale: Record, todos: Collection[Record]) -> None:
    with pytest.raises(ConflictError) as caught:
        stale.save()

    assert caught.value.merge() is stale
    assert dict(stale.data) == stored(todos) == MERGED


def test_a_conflict_is_merged_afterwards_and_awaited(stale: Record, todos: Collection[Record]) -> None:
    with pytest.raises(ConflictError) as caught:
        stale.save()

    assert asyncio.run(caught.value.amerge()) is stale
    assert stored(todos) == MERGED


def test_what_both_changed_is_named(stale: Record, todos: Collection[Record], wire: Wiretap) -> None:
    stale.data["title"] = "mine"
    stale.data["deep"]["b"] = 3

    with pytest.raises(MergeConflict, match=r"deep\.b, title") as caught:
        stale.save(on_conflict="merge")

    assert caught.value.paths == ("deep.b", "title")
    assert (caught.value.theirs, caught.value.status) == (THEIRS, 412)
    assert len(wire.requests) == 1
    assert dict(stale.data) == {"title": "mine", "n": 2, "deep": {"a": 2, "b": 3}}
    assert stored(todos) == THEIRS


@pytest.mark.parametrize("way", ["reload", "overwrite", "merge"])
def test_what_cannot_be_merged_has_the_other_ways_out(way: str, stale: Record, todos: Collection[Record]) -> None:
    stale.data["title"] = "mine"
    mine = dict(stale.data)
    with pytest.raises(ConflictError) as first:
        stale.save()
    with pytest.raises(MergeConflict) as caught:
        first.value.merge()

    if way == "merge":
        with pytest.raises(MergeConflict):
            caught.value.merge()
        return
    getattr(caught.value, way)()

    assert dict(stale.data) == stored(todos) == (mine if way == "overwrite" else THEIRS)


def test_both_created_it(todos: Collection[Record]) -> None:
    todos.records.create(id="new", data={"title": "the same", "by": "them"})
    mine = Record(collection=todos, id="new", data={"title": "the same", "mine": 1})

    mine.save(on_conflict="merge")

    assert dict(mine.data) == stored(todos, "new") == {"title": "the same", "by": "them", "mine": 1}


def test_both_created_it_differently(todos: Collection[Record]) -> None:
    todos.records.create(id="new", data={"title": "theirs"})

    with pytest.raises(MergeConflict) as caught:
        Record(collection=todos, id="new", data={"title": "mine"}).save(on_conflict="merge")

    assert caught.value.paths == ("title",)
    assert caught.value.base is None


GONE = {
    "raise": NotFoundError,
    "merge": MergeConflict,
}


@pytest.mark.parametrize("word", GONE)
def test_what_somebody_deleted_is_an_error(word: Any, stale: Record, todos: Collection[Record]) -> None:
    todos.records.get("x").delete()

    with pytest.raises(GONE[word]) as caught:
        stale.save(on_conflict=word)

    assert getattr(caught.value, "paths", ()) == ()
    assert dict(stale.data) == MINE
    assert stale.is_dirty


def test_what_somebody_deleted_is_created_again_with_mine(stale: Record, todos: Collection[Record]) -> None:
    todos.records.get("x").delete()

    stale.save(on_conflict="mine")

    assert dict(stale.data) == stored(todos) == MINE


def test_what_somebody_deleted_is_deleted_with_theirs(stale: Record, todos: Collection[Record]) -> None:
    todos.records.get("x").delete()

    stale.save(on_conflict="theirs")

    assert stale.is_deleted


def test_a_function_decides_on_what_somebody_deleted(stale: Record, todos: Collection[Record]) -> None:
    todos.records.get("x").delete()

    def revive(conflict: ConflictError) -> dict[str, Any]:
        assert (conflict.theirs, conflict.mine, conflict.status) == (None, MINE, 404)
        return {"title": "revived"}

    stale.save(on_conflict=revive)

    assert dict(stale.data) == stored(todos) == {"title": "revived"}


def test_a_bucket_that_somebody_deleted_is_forbidden_not_merged(kinto_client: Client) -> None:
    bucket = Bucket(id="gone", client=kinto_client).save()
    kinto_client.buckets.get("gone").delete()
    bucket.data["n"] = 1

    with pytest.raises(ForbiddenError):
        bucket.save(on_conflict="merge")


def test_both_wrote_the_same(stale: Record, todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.get("x").patch(MINE)
    wire.requests.clear()

    stale.save(on_conflict="merge")

    assert [said.split()[0] for said in wire.said] == ["PATCH"]
    assert dict(stale.data) == stored(todos) == MINE
    assert not stale.is_dirty


@pytest.mark.parametrize("word", ["mine", "merge"])
def test_both_wrote_the_same_in_a_unit(
    word: Any, kinto_client: Client, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    todos.records.get("x").patch(MINE)
    wire.requests.clear()

    with kinto_client.unit_of_work(on_conflict=word) as uow:
        stale.save()

    assert [one.status for one in uow.outcomes] == ["unchanged"]
    assert len(wire.requests) == 1
    assert not stale.is_dirty


# -- permissions ----------------------------------------------------------------------------------------------------


def test_permissions_are_merged_as_sets_with_one_request_more(
    kinto_client: Client, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    theirs = todos.records.get("x")
    theirs.permissions.add("read", "account:theirs")
    theirs.permissions.add("write", "account:theirs")
    theirs.save()
    stale.permissions.add("read", "account:mine")
    wire.requests.clear()

    stale.save(on_conflict="merge")

    assert [request.method for request in wire.requests] == ["PATCH", "GET", "PATCH"]
    found = todos.records.get("x")
    assert found.permissions["read"] == {"account:mine", "account:theirs"}
    assert "account:theirs" in found.permissions["write"]
    assert dict(found.data) == MERGED
    assert stale.permissions["read"] == found.permissions["read"]


def test_a_principal_that_one_side_removed_is_out(stale: Record, todos: Collection[Record]) -> None:
    record = todos.records.get("x")
    record.permissions["read"] = ["account:a", "account:b"]
    record.save()
    mine, theirs = todos.records.get("x"), todos.records.get("x")
    theirs.permissions.remove("read", "account:a")
    theirs.save()
    mine.permissions.add("read", "account:c")

    mine.save(on_conflict="merge")

    assert todos.records.get("x").permissions["read"] == {"account:b", "account:c"}


# -- patches and deletions, in units --------------------------------------------------------------------------------

PATCHES: dict[str, Any] = {
    "basic": BasicPatch({"n": 2, "deep": {"a": 2, "b": 1}}),
    "merge-patch": MergePatch({"n": 2, "deep": {"a": 2}}),
    "json-patch": JSONPatch(
        [{"op": "replace", "path": "/data/n", "value": 2}, {"op": "replace", "path": "/data/deep/a", "value": 2}]
    ),
}


@pytest.fixture
def seen(todos: Collection[Record]) -> Record:
    """A record that was loaded, and then changed by another client."""
    record = todos.records.create(id="x", data=BASE)
    todos.records.get("x").patch(title="theirs", deep={"a": 1, "b": 2})
    return record


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_is_merged(patch: str, seen: Record, todos: Collection[Record]) -> None:
    with pytest.raises(ConflictError) as caught:
        seen.patch(PATCHES[patch])

    caught.value.merge()

    assert dict(seen.data) == stored(todos) == MERGED


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_is_merged_in_a_unit(patch: str, kinto_client: Client, seen: Record, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work(on_conflict="merge") as uow:
        seen.patch(PATCHES[patch])

    assert [one.status for one in uow.outcomes] == ["updated"]
    assert dict(seen.data) == stored(todos) == MERGED


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_of_what_both_changed_is_not_merged(
    patch: str, kinto_client: Client, seen: Record, todos: Collection[Record]
) -> None:
    todos.records.get("x").patch(n=3)

    with pytest.raises(CommitError) as caught, kinto_client.unit_of_work(on_conflict="merge"):
        seen.patch(PATCHES[patch])

    (outcome,) = caught.value.outcomes
    assert outcome.status == "conflict"
    assert isinstance(outcome.error, MergeConflict)
    assert outcome.error.paths == ("n",)


@pytest.mark.parametrize(("word", "is_there", "status"), [("mine", False, "deleted"), ("theirs", True, "unchanged")])
def test_a_deletion_of_what_was_changed_goes_on_as_the_unit_was_told(
    word: Any, is_there: bool, status: str, kinto_client: Client, seen: Record, todos: Collection[Record]
) -> None:
    with kinto_client.unit_of_work(on_conflict=word) as uow:
        seen.delete()

    assert [one.status for one in uow.outcomes] == [status]
    assert (todos.records.get_or_none("x") is not None) is is_there
    assert seen.is_deleted is not is_there


def test_a_deletion_of_what_was_changed_is_not_merged(
    kinto_client: Client, seen: Record, todos: Collection[Record]
) -> None:
    with pytest.raises(CommitError) as caught, kinto_client.unit_of_work(on_conflict="merge"):
        seen.delete()

    assert isinstance(caught.value.outcomes[0].error, MergeConflict)
    assert stored(todos) == THEIRS


@pytest.mark.parametrize("word", ["mine", "theirs"])
def test_a_deletion_of_what_is_gone_is_done(word: Any, kinto_client: Client, seen: Record, todos: Any) -> None:
    todos.records.get("x").delete()

    with kinto_client.unit_of_work(on_conflict=word) as uow:
        seen.delete()

    assert [one.is_stored for one in uow.outcomes] == [True]
    assert seen.is_deleted


# -- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
def test_a_unit_goes_on_as_it_was_told(
    word: str, policy: Callable[[Any], Any], kinto_client: Client, stale: Record, todos: Collection[Record]
) -> None:
    with kinto_client.unit_of_work(on_conflict=policy(word)) as uow:
        Record(collection=todos, id="other").save()
        stale.save()

    assert [one.status for one in uow.outcomes] == ["created", "unchanged" if word == "theirs" else "updated"]
    assert dict(stale.data) == stored(todos) == WORDS[word]


def test_only_what_met_a_conflict_is_sent_again(
    kinto_client: Client, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    with kinto_client.unit_of_work(on_conflict="merge"):
        Record(collection=todos, id="other").save()
        stale.save()

    assert [[entry["path"][-5:] for entry in body["requests"]] for body in wire.bodies] == [
        ["other", "rds/x"],
        ["rds/x"],
    ]


def test_in_an_atomic_unit_all_is_sent_again(
    kinto_client: Client, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    with kinto_client.unit_of_work(on_conflict="merge", atomic=True) as uow:
        Record(collection=todos, id="other").save()
        stale.save()

    assert [len(body["requests"]) for body in wire.bodies] == [2, 2]
    assert [one.status for one in uow.outcomes] == ["created", "updated"]
    assert stored(todos) == MERGED


def test_what_a_save_says_counts_more_than_what_its_unit_says(
    kinto_client: Client, stale: Record, todos: Collection[Record]
) -> None:
    with kinto_client.unit_of_work(on_conflict="theirs"):
        stale.save(on_conflict="merge")

    assert stored(todos) == MERGED


def test_whoever_is_faster_again_and_again_wins_against_a_unit_too(
    kinto_client: Client, kinto_server: EmbeddedServer, stale: Record, todos: Collection[Record], wire: Wiretap
) -> None:
    other = Client.embedded(server=kinto_server)

    def too_late(conflict: ConflictError) -> str:
        other.bucket("payments").collection("todos").records.get("x").patch(n=conflict.theirs["n"] + 10)
        return "mine"

    with (
        pytest.raises(CommitError) as caught,
        kinto_client.unit_of_work(on_conflict=too_late),  # type: ignore[arg-type]  # a word, as a str
    ):
        stale.save()

    assert [one.status for one in caught.value.outcomes] == ["conflict"]
    assert len(wire.requests) == 4
    assert stored(todos)["n"] == 41


def commit_both(client: Client, other: Record, stale: Record, on_conflict: Any) -> None:
    with client.unit_of_work(on_conflict=on_conflict):
        other.save()
        stale.save()


def test_a_function_that_gives_anything_else_fails_alone(
    kinto_client: Client, stale: Record, todos: Collection[Record]
) -> None:
    other = Record(collection=todos, id="other")

    with pytest.raises(CommitError) as caught:
        commit_both(kinto_client, other, stale, lambda conflict: 5)

    assert [one.status for one in caught.value.outcomes] == ["created", "rejected"]
    assert isinstance(caught.value.outcomes[1].error, InvalidTypeError)
    assert not other.is_new


def test_what_a_function_raises_hides_nothing_that_was_stored(
    kinto_client: Client, stale: Record, todos: Collection[Record]
) -> None:
    other = Record(collection=todos, id="other")

    with pytest.raises(CommitError, match="ZeroDivisionError") as caught:
        commit_both(kinto_client, other, stale, lambda conflict: 1 / 0)

    assert [one.status for one in caught.value.outcomes] == ["created", "rejected"]
    assert isinstance(caught.value.outcomes[1].error.__cause__, ZeroDivisionError)
    assert not other.is_new
    assert stale.is_dirty


def test_a_conflict_of_a_unit_is_merged_afterwards(
    kinto_client: Client, stale: Record, todos: Collection[Record]
) -> None:
    with pytest.raises(CommitError) as caught, kinto_client.unit_of_work():
        stale.save()

    error = caught.value.outcomes[0].error
    assert isinstance(error, ConflictError)
    error.merge()

    assert dict(stale.data) == stored(todos) == MERGED


# -- from the history -----------------------------------------------------------------------------------------------


@pytest.fixture
def staff(payments: Bucket) -> Group:
    """A group, as it was before another client changed it."""
    group = Group(bucket=payments, id="staff", data={"members": ["account:bob"], "n": 1, "m": 1}).save()
    payments.groups.get("staff").patch(m=2)
    return group


UNREAD: dict[str, Callable[[Bucket], Any]] = {
    "bucket": lambda payments: payments.client.bucket("payments"),
    "group": lambda payments: payments.group("g"),
    "collection": lambda payments: payments.collection("c"),
    "record": lambda payments: Record(collection=payments.collection("todos"), id="r"),
}


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("patch", [BasicPatch({"n": 2}), MergePatch({"n": 2})])
def test_what_a_patch_of_an_unread_object_started_from_is_in_the_history(
    patch: Any, kind: str, payments: Bucket, todos: Collection[Record]
) -> None:
    Group(bucket=payments, id="g").save()
    Collection(bucket=payments, id="c").save()
    todos.records.create(id="r")
    seen = UNREAD[kind](payments).patch(n=1, m=1)
    UNREAD[kind](payments).patch(m=2)
    with pytest.raises(ConflictError) as caught:
        UNREAD[kind](payments).patch(patch, if_match=seen.last_modified)

    caught.value.merge()

    data = seen.refresh().data
    assert (data["n"], data["m"]) == (2, 2)


def test_what_both_changed_is_known_by_the_history(payments: Bucket, staff: Group) -> None:
    with pytest.raises(ConflictError) as caught:
        payments.group("staff").patch(m=3, if_match=staff.last_modified)

    with pytest.raises(MergeConflict) as merging:
        caught.value.merge()

    assert merging.value.paths == ("m",)


@pytest.fixture
def forgetful() -> Iterator[Client]:
    """A client of a server without a history."""
    client = Client.embedded(settings={"includes": "kinto.plugins.default_bucket"})
    yield client
    client.close()


def test_without_a_history_nothing_is_merged_that_is_not_known(forgetful: Client) -> None:
    bucket = Bucket(id="payments", client=forgetful).save()
    group = Group(bucket=bucket, id="staff", data={"n": 1}).save()
    bucket.groups.get("staff").patch(m=2)
    with pytest.raises(ConflictError) as caught:
        bucket.group("staff").patch(MergePatch({"n": 2}), if_match=group.last_modified)

    with pytest.raises(MergeConflict, match="known neither here"):
        caught.value.merge()

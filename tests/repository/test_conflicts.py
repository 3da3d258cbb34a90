"""Conflicts: the content of the error, and the two ways out."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wiretap import answer, scripted_client

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    JSONPatch,
    MergePatch,
    Record,
    ResponseEvent,
    UsageError,
)
from kinto_orm.server import EmbeddedServer

BASE = {"title": "base", "n": 1}
MINE = {"title": "mine", "n": 1}
THEIRS = {"title": "theirs", "n": 1, "new": True}

VERBS: dict[str, Callable[[Record], Any]] = {
    "save": lambda record: record.save(),
    "replace": lambda record: record.replace(),
    "patch": lambda record: record.patch(title="mine"),
    "merge-patch": lambda record: record.patch(MergePatch({"title": "mine"})),
    "delete": lambda record: record.delete(),
}


@pytest.fixture
def client(kinto_server: EmbeddedServer, sent: list[ResponseEvent]) -> Iterator[Client]:
    """Counts its requests."""
    with Client.embedded(server=kinto_server, on_response=sent.append) as client:
        yield client


@pytest.fixture
def records(client: Client) -> Any:
    """The records of a collection on the server."""
    bucket = Bucket(id="payments", client=client).save()
    return Collection(bucket=bucket, id="todos").save().records


@pytest.fixture
def stale(records: Any) -> Record:
    """A record that we changed, and another client changed since we read it."""
    record: Record = records.create(id="x", data=BASE)
    records.get("x").patch(title="theirs", new=True)
    record.data["title"] = "mine"
    return record


def conflict(call: Callable[[], Any]) -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        call()
    return caught.value


# -- what it tells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_conflict_shows_all_sides_and_asks_for_none(stale: Record, sent: list[ResponseEvent], verb: str) -> None:
    before = len(sent)

    error = conflict(lambda: VERBS[verb](stale))

    assert (error.base, error.mine, error.theirs) == (BASE, None if verb == "delete" else MINE, THEIRS)
    assert [one.status for one in sent[before:]] == [412]


def test_a_conflict_knows_the_timestamp_of_theirs(stale: Record, records: Any) -> None:
    error = conflict(stale.save)

    assert error.theirs_last_modified == records.get("x").last_modified


def test_a_conflict_shows_what_a_json_patch_would_have_made(stale: Record) -> None:
    error = conflict(lambda: stale.patch(JSONPatch([{"op": "add", "path": "/data/new", "value": 1}])))

    assert (error.base, error.mine, error.theirs) == (BASE, {**BASE, "new": 1}, THEIRS)


def test_what_a_json_patch_that_does_not_fit_would_have_made_is_not_known(stale: Record) -> None:
    error = conflict(lambda: stale.patch(JSONPatch([{"op": "remove", "path": "/data/missing"}])))

    assert (error.base, error.mine, error.theirs) == (BASE, None, THEIRS)


def test_a_conflict_of_two_creations_has_no_base(records: Any) -> None:
    records.create(id="x", data={"title": "theirs"})

    error = conflict(lambda: records.create(id="x", data={"title": "mine"}))

    assert (error.base, error.mine, error.theirs) == (None, {"title": "mine"}, {"title": "theirs"})


def test_a_replace_of_what_is_gone_has_no_theirs(stale: Record, records: Any) -> None:
    records.get("x").delete()

    error = conflict(stale.replace)

    assert (error.base, error.mine, error.theirs, error.theirs_last_modified) == (BASE, MINE, None, None)


def test_a_conflict_changes_nothing_in_the_object(stale: Record) -> None:
    before = stale.last_modified

    conflict(stale.save)

    assert dict(stale.data) == MINE and stale.last_modified == before and stale.is_dirty


# -- reload ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_reload_takes_theirs_without_asking(stale: Record, sent: list[ResponseEvent], verb: str) -> None:
    error = conflict(lambda: VERBS[verb](stale))
    before = len(sent)

    assert error.reload() is stale

    assert dict(stale.data) == THEIRS and not stale.is_dirty and len(sent) == before
    assert not stale.permissions.is_known


def test_after_a_reload_the_object_can_be_saved(stale: Record, records: Any) -> None:
    conflict(stale.save).reload()
    stale.data["n"] = 2

    stale.save()

    assert records.get("x").data == {**THEIRS, "n": 2}


def test_reload_of_what_is_gone_gives_a_tombstone(stale: Record, records: Any) -> None:
    records.get("x").delete()

    conflict(stale.replace).reload()

    assert stale.is_deleted


def test_reload_after_two_creations_gives_the_first(records: Any) -> None:
    records.create(id="x", data={"title": "theirs"})
    mine = Record(collection=records.create(id="y").collection, id="x", data={"title": "mine"})

    conflict(mine.save).reload()

    assert mine == records.get("x") and not mine.is_new


# -- overwrite ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "stored"),
    [
        pytest.param("save", MINE, id="save"),
        pytest.param("replace", MINE, id="replace"),
        pytest.param("patch", {**THEIRS, "title": "mine"}, id="patch"),
        pytest.param("merge-patch", {**THEIRS, "title": "mine"}, id="merge-patch"),
    ],
)
def test_overwrite_stores_mine_over_theirs(
    stale: Record, records: Any, sent: list[ResponseEvent], verb: str, stored: Any
) -> None:
    error = conflict(lambda: VERBS[verb](stale))
    before = len(sent)

    assert error.overwrite() is stale

    assert len(sent) == before + 1
    assert records.get("x").data == stored == stale.data and not stale.is_dirty


def test_overwrite_deletes_after_all(stale: Record, records: Any) -> None:
    conflict(stale.delete).overwrite()

    assert stale.is_deleted and records.get_or_none("x") is None


def test_overwrite_awaits_too(stale: Record, records: Any) -> None:
    async def overwrite() -> None:
        with pytest.raises(ConflictError) as caught:
            await stale.asave()
        await caught.value.aoverwrite()

    asyncio.run(overwrite())

    assert records.get("x").data == MINE


def test_overwrite_of_what_is_gone_creates_it_again(stale: Record, records: Any) -> None:
    records.get("x").delete()

    conflict(stale.replace).overwrite()

    assert records.get("x").data == MINE == stale.data


def test_overwrite_after_two_creations_replaces_the_first(records: Any) -> None:
    records.create(id="x", data={"title": "theirs", "other": 1})

    conflict(lambda: records.create(id="x", data={"title": "mine"})).overwrite()

    assert records.get("x").data == {"title": "mine"}


def test_a_delete_of_what_is_gone_is_not_overwritten() -> None:
    with scripted_client(answer({"errno": 114}, 412)):
        error = conflict(Record(id="x").delete)

        with pytest.raises(UsageError, match="gone already"):
            error.overwrite()


def test_overwrite_meets_a_third_change(stale: Record, records: Any) -> None:
    first = conflict(stale.save)
    records.get("x").patch(third=True)

    second = conflict(first.overwrite)

    assert second.base == THEIRS and second.theirs == {**THEIRS, "third": True}
    assert second.overwrite().data == MINE


def test_overwrite_of_a_version_that_was_named(stale: Record, records: Any) -> None:
    conflict(lambda: stale.save(if_match=1)).overwrite()

    assert records.get("x").data == MINE


def test_overwrite_by_a_reference(client: Client, records: Any) -> None:
    reference = client.bucket("payments").collection("todos")

    conflict(lambda: reference.patch({"sort": "title"}, if_match=1)).overwrite()

    assert dict(reference.data) == {"sort": "title"} and not reference.is_dirty


def test_overwrite_with_a_patch_leaves_other_changes_unsaved(stale: Record, records: Any) -> None:
    conflict(lambda: stale.patch(n=5)).overwrite()

    assert dict(stale.data) == {**THEIRS, "title": "mine", "n": 5}
    assert records.get("x").data == {**THEIRS, "n": 5} and stale.is_dirty


def test_overwrite_sends_the_permissions_too(stale: Record, records: Any) -> None:
    stale.permissions["read"] = ["account:bob"]

    conflict(stale.save).overwrite()

    assert records.get("x").permissions.read == {"account:bob"}


# -- elsewhere ------------------------------------------------------------------------------------------------------


def test_a_conflict_in_a_unit_of_work_has_both_ways_out(client: Client, stale: Record, records: Any) -> None:
    with pytest.raises(CommitError) as caught, client.unit_of_work():
        stale.save()
    (outcome,) = caught.value.outcomes
    assert outcome.status == "conflict" and outcome.error.theirs == THEIRS

    outcome.error.overwrite()

    assert records.get("x").data == MINE


def test_a_conflict_from_another_process_can_only_be_read(stale: Record) -> None:
    error = pickle.loads(pickle.dumps(conflict(stale.save)))

    assert error.theirs == THEIRS
    with pytest.raises(UsageError, match="load the object again"):
        error.overwrite()


def test_what_others_had_written_already_is_not_reported_as_an_update(client: Client, records: Any) -> None:
    record = records.create(id="x", data=BASE)
    records.get("x").patch(title="mine", new=True)

    record.data["title"] = "mine"
    with client.unit_of_work(on_conflict="merge") as uow:
        record.save()

    assert [one.status for one in uow.outcomes] == ["unchanged"]
    assert dict(record.data) == {"title": "mine", "n": 1, "new": True}


@pytest.mark.parametrize("way_out", [ConflictError.overwrite, ConflictError.merge])
def test_where_nothing_is_left_to_be_written_the_object_is_what_the_server_has(
    records: Any, stale: Record, way_out: Callable[[ConflictError], Any]
) -> None:
    stale.data["title"], stale.data["new"] = "theirs", True
    error = conflict(stale.save)

    way_out(error)

    assert not stale.is_dirty
    assert stale.last_modified == records.get("x").last_modified

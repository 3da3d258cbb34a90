"""The review of a collection's changes, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from lossy import LossyAdapter, Raced, lossy

from kinto_orm import (
    AmbiguousWriteError,
    BadRequestError,
    Bucket,
    CapabilityMissingError,
    Client,
    Collection,
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    Group,
    InvalidTypeError,
    NotLoadedError,
    NotStageableError,
    Record,
    ReviewError,
    ReviewStatus,
    ServerError,
    UnsavedChangesError,
)
from kinto_orm.server import EmbeddedServer

EDITOR, REVIEWER = ("editor", "secret"), ("reviewer", "secret")


@pytest.fixture
def network(signing_server: EmbeddedServer) -> Iterator[tuple[Client, LossyAdapter]]:
    """The editor's client, of a server where a collection is under review, and what loses its answers."""
    client, adapter = lossy(signing_server, auth=EDITOR, bucket="workspace")
    with client:
        reviewer = client.clone(auth=REVIEWER)
        users = [one.server_info(refresh=True)["user"]["id"] for one in (client, reviewer)]
        everybody = {"write": users}
        Bucket(id="main", permissions=everybody).save()
        Collection(bucket="main", id="c").save()
        Bucket(id="workspace", permissions=everybody).save()
        Collection(id="c").save()
        Group(id="c-editors", members=users[:1]).replace(safe=False)
        Group(id="c-reviewers", members=users).replace(safe=False)
        adapter.sent.clear()
        yield client, adapter
    client.close()
    reviewer.close()
    signing_server.flush()


@pytest.fixture
def collection(client: Client) -> Collection[Record]:
    """As the editor sees it."""
    return client.bucket("workspace").collections.get("c")


@pytest.fixture
def theirs(client: Client, signing_server: EmbeddedServer) -> Iterator[Collection[Record]]:
    """As the reviewer sees it."""
    with Client.embedded(server=signing_server, auth=REVIEWER) as reviewer:
        yield reviewer.bucket("workspace").collection("c")


@pytest.fixture
def published(client: Client) -> Any:
    """The records that everybody sees."""
    return client.bucket("main").collection("c").records


@pytest.fixture
def waiting(collection: Collection[Record], adapter: LossyAdapter) -> Collection[Record]:
    """A collection with a change that waits for its review."""
    collection.records.create(id="r", data={"n": 1})
    collection.request_review("please")
    adapter.sent.clear()
    return collection


def steps(adapter: LossyAdapter) -> list[str]:
    return [method for method, path, _ in adapter.sent if path == "/buckets/workspace/collections/c"]


# -- the way through --------------------------------------------------------------------------------------------------


def test_changes_are_published_once_somebody_else_approved_them(
    collection: Collection[Record], theirs: Collection[Record], published: Any
) -> None:
    assert collection.status is ReviewStatus.SIGNED
    collection.records.create(id="r", data={"n": 1})
    assert collection.refresh().status is ReviewStatus.WORK_IN_PROGRESS

    assert collection.request_review("please").status is ReviewStatus.TO_REVIEW
    assert collection.data["last_editor_comment"] == "please"
    assert published.all() == []
    seen = theirs.refresh().records.timestamp()
    assert theirs.approve(seen=seen).status is ReviewStatus.SIGNED

    assert published.get("r").data["n"] == 1
    assert not theirs.is_dirty and theirs.last_modified == collection.refresh().last_modified


def test_changes_are_sent_back(waiting: Collection[Record], theirs: Collection[Record], published: Any) -> None:
    assert theirs.refresh().decline("no").status is ReviewStatus.WORK_IN_PROGRESS

    assert waiting.refresh().data["last_reviewer_comment"] == "no"
    assert published.all() == []
    assert waiting.request_review("again").status is ReviewStatus.TO_REVIEW


def test_changes_are_dropped(waiting: Collection[Record], published: Any) -> None:
    assert waiting.rollback("a mistake").status is ReviewStatus.SIGNED

    assert waiting.records.all() == []
    assert published.all() == []


def test_a_signature_is_refreshed_and_the_status_stays(waiting: Collection[Record]) -> None:
    before = waiting.last_modified

    assert waiting.refresh_signature().status is ReviewStatus.TO_REVIEW
    assert waiting.last_modified != before


def test_the_twins_do_the_same(collection: Collection[Record], theirs: Collection[Record]) -> None:
    async def there_and_back() -> list[ReviewStatus | None]:
        found = []
        for again in range(2):
            await collection.records.acreate(data={"n": again})
            found.append((await collection.arequest_review("please")).status)
            await theirs.arefresh()
            found.append((await theirs.adecline("no")).status if again else (await theirs.aapprove()).status)
        await collection.arefresh()
        return [*found, (await collection.arollback("no")).status, (await collection.arefresh_signature()).status]

    assert [one and one.value for one in asyncio.run(there_and_back())] == [
        "to-review",
        "signed",
        "to-review",
        "work-in-progress",
        "signed",
        "signed",
    ]


# -- only where it changes something ----------------------------------------------------------------------------------


def test_a_review_is_asked_for_once(waiting: Collection[Record], adapter: LossyAdapter) -> None:
    before = waiting.last_modified

    assert waiting.request_review("please, please").status is ReviewStatus.TO_REVIEW
    assert waiting.bucket.collection("c").request_review("hello?").status is ReviewStatus.TO_REVIEW
    assert (steps(adapter), waiting.refresh().last_modified) == ([], before)


def test_where_nothing_was_changed_nothing_is_asked(collection: Collection[Record], adapter: LossyAdapter) -> None:
    assert collection.request_review("please").status is ReviewStatus.SIGNED
    assert collection.rollback("never mind").status is ReviewStatus.SIGNED
    assert steps(adapter) == []


def test_a_step_that_is_not_possible_is_not_sent(
    collection: Collection[Record], adapter: LossyAdapter, theirs: Collection[Record]
) -> None:
    with pytest.raises(ReviewError, match="is signed, and approve needs a collection that is to-review"):
        collection.approve()
    collection.records.create(id="r")
    collection.refresh()
    adapter.sent.clear()
    for step in (collection.approve, lambda: collection.decline("no"), lambda: theirs.approve(seen=1)):
        with pytest.raises(ReviewError, match="is work-in-progress"):
            step()

    assert steps(adapter) == []


def test_a_step_needs_what_it_is_about(
    client: Client, waiting: Collection[Record], theirs: Collection[Record], adapter: LossyAdapter
) -> None:
    for step in (theirs.approve, lambda: theirs.decline("no"), lambda: theirs.rollback("no")):
        with pytest.raises(NotLoadedError, match="was never read"):
            step()
    waiting.data["title"] = "mine"
    with pytest.raises(UnsavedChangesError, match="save"):
        waiting.rollback("no")
    with pytest.raises(UnsavedChangesError, match="save"):
        Collection(bucket=waiting.bucket, id="c", data={"title": "mine"}).request_review("please")
    with client.unit_of_work(), pytest.raises(NotStageableError, match="review"):
        client.bucket("workspace").collection("c").request_review("please")
    with pytest.raises(InvalidTypeError, match="message"):
        waiting.rollback(None)  # type: ignore[arg-type]
    with pytest.raises(ReviewError, match="under no review"):
        client.bucket("main").collection("c").request_review("please")

    assert steps(adapter) == []


def test_a_server_without_reviews_is_sent_nothing(kinto_client: Client) -> None:
    collection = Collection(bucket=Bucket(id="b", client=kinto_client).save(), id="c").save()

    for step in (collection.refresh_signature, collection.approve, lambda: collection.request_review("please")):
        with pytest.raises(CapabilityMissingError, match="signer"):
            step()
    assert collection.status is None


# -- what was seen ----------------------------------------------------------------------------------------------------


def test_changes_that_came_after_the_look_are_not_approved(
    waiting: Collection[Record], theirs: Collection[Record], published: Any
) -> None:
    theirs.refresh()
    waiting.records.create(id="late")
    waiting.request_review("one more")

    with pytest.raises(ConflictError) as caught:
        theirs.approve()
    with pytest.raises(ConflictError):
        theirs.decline("no")

    assert published.all() == []
    assert caught.value.theirs is not None and caught.value.theirs["last_editor_comment"] == "one more"
    assert caught.value.reload() is theirs
    assert theirs.approve().status is ReviewStatus.SIGNED


def test_records_that_were_changed_since_they_were_seen_are_not_approved(
    waiting: Collection[Record], theirs: Collection[Record]
) -> None:
    seen = theirs.records.timestamp()
    waiting.records.create(id="late")
    waiting.request_review("one more")

    with pytest.raises(ReviewError, match="changed since you read them"):
        theirs.refresh().approve(seen=seen)
    with pytest.raises(ReviewError, match="changed since you read them"):
        theirs.bucket.collection("c").approve(seen=seen)

    assert theirs.approve(seen=theirs.records.timestamp()).status is ReviewStatus.SIGNED


def test_changes_of_others_are_not_dropped_unseen(waiting: Collection[Record], theirs: Collection[Record]) -> None:
    theirs.records.create(id="theirs")

    with pytest.raises(ConflictError):
        waiting.rollback("mine only")

    assert waiting.records.count() == 2


def test_a_record_that_is_written_in_the_same_moment_is_a_conflict(
    waiting: Collection[Record], theirs: Collection[Record], adapter: LossyAdapter
) -> None:
    waiting.records.create(id="more")
    adapter.plan.append(Raced(lambda: theirs.records.create(id="late")))

    with pytest.raises(ConflictError):
        waiting.request_review("please")

    assert waiting.request_review("please").status is ReviewStatus.TO_REVIEW


def test_who_may_not_is_told_so(waiting: Collection[Record], theirs: Collection[Record]) -> None:
    with pytest.raises(ForbiddenError, match="Last editor"):
        waiting.approve()
    theirs.records.create(id="more")
    with pytest.raises(ForbiddenError, match="c-editors"):
        theirs.request_review("please")


def test_what_the_server_alone_knows_is_its_refusal(waiting: Collection[Record]) -> None:
    waiting.data["last_review_by"] = "me"

    with pytest.raises(BadRequestError, match="Cannot change"):
        waiting.save()


# -- answers that get lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost before", "lost after", "502 after", "cut short"])
def test_a_step_survives_a_lost_answer(collection: Collection[Record], adapter: LossyAdapter, fault: Any) -> None:
    collection.records.create(id="r")
    for step, status in (
        (lambda: collection.request_review("please"), ReviewStatus.TO_REVIEW),
        (collection.refresh_signature, ReviewStatus.TO_REVIEW),
        (lambda: collection.decline("no"), ReviewStatus.WORK_IN_PROGRESS),
        (lambda: collection.rollback("no"), ReviewStatus.SIGNED),
    ):
        adapter.plan.append(fault)
        assert step().status is status
        assert not collection.is_dirty


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
def test_an_approval_survives_a_lost_answer(
    signing_server: EmbeddedServer, waiting: Collection[Record], fault: Any
) -> None:
    reviewer, adapter = lossy(signing_server, auth=REVIEWER)
    with reviewer:
        theirs = reviewer.bucket("workspace").collections.get("c")
        adapter.plan.append(fault)

        assert theirs.approve().status is ReviewStatus.SIGNED
    reviewer.close()


def test_without_another_attempt_the_collection_tells(
    client: Client, waiting: Collection[Record], adapter: LossyAdapter
) -> None:
    once = client.clone(retry=0).bucket("workspace").collections.get("c")
    adapter.plan.append("lost before")
    with pytest.raises(ConnectionLostError):
        once.decline("no")
    adapter.plan.append("lost after")
    assert once.decline("no").status is ReviewStatus.WORK_IN_PROGRESS


def test_what_the_server_surely_did_not_do_is_its_error(waiting: Collection[Record], adapter: LossyAdapter) -> None:
    adapter.plan.extend(["503"] * 4)

    with pytest.raises(ServerError, match="503"):
        waiting.decline("no")

    assert waiting.refresh().status is ReviewStatus.TO_REVIEW


def test_with_strict_retry_a_step_is_recognised_by_who_did_it(
    client: Client, collection: Collection[Record], adapter: LossyAdapter
) -> None:
    collection.records.create(id="r")
    strict = client.clone(strict_retry=True).bucket("workspace").collections.get("c")
    adapter.plan.append("lost after")
    assert strict.request_review("please").status is ReviewStatus.TO_REVIEW

    adapter.plan.append("lost after")
    with pytest.raises(AmbiguousWriteError):
        strict.decline("no")


def test_a_step_that_somebody_else_was_in_the_way_of_tells_nothing(
    waiting: Collection[Record], theirs: Collection[Record], adapter: LossyAdapter
) -> None:
    waiting.records.create(id="more")
    adapter.plan.append(lambda: theirs.records.create(id="late"))

    with pytest.raises(AmbiguousWriteError, match="changed since"):
        waiting.request_review("please")


def test_a_signature_that_got_lost_is_not_taken_for_refreshed_where_a_record_was_written(
    collection: Collection[Record], theirs: Collection[Record], adapter: LossyAdapter
) -> None:
    collection.records.create(id="r")
    signed = collection.refresh().data["last_signature_date"]
    adapter.plan.extend(["lost before", Raced(lambda: theirs.records.create(id="late"))])

    with pytest.raises(AmbiguousWriteError, match="changed since"):
        collection.refresh_signature()

    assert collection.refresh().data["last_signature_date"] == signed


def test_a_signature_whose_answer_got_lost_is_refreshed_once(
    client: Client, collection: Collection[Record], adapter: LossyAdapter
) -> None:
    strict = client.clone(retry=0, strict_retry=True).bucket("workspace").collections.get("c")
    signed = strict.data["last_signature_date"]
    adapter.sent.clear()
    adapter.plan.append("lost after")

    assert strict.refresh_signature().data["last_signature_date"] > signed

    assert len(steps(adapter)) == 1

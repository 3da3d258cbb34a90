"""A block whose changes are put to review: once, where there is something to review, and only what the block wrote."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from file_host import FileHost
from killed import kill_at
from lossy import LossyAdapter, lossy

from kinto_orm import (
    Bucket,
    CapabilityMissingError,
    Client,
    Collection,
    Group,
    InvalidTypeError,
    NotStageableError,
    Record,
    ReviewError,
    ReviewStatus,
    UsageError,
)
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.application import DEFAULT_SETTINGS

from .conftest import SIGNERS, signer_settings

EDITOR, RIVAL = ("editor", "secret"), ("rival", "secret")
COLLECTION = "/buckets/workspace/collections/c"


@pytest.fixture(scope="module", params=SIGNERS)
def signing_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A server with the signer, or what stands in for it, in memory or on PostgreSQL."""
    settings = signer_settings(request.param, tmp_path_factory.mktemp("keys"))
    if request.config.getoption("--kinto-postgres"):
        server = EmbeddedServer.postgres(tmp_path_factory.mktemp("data"), **settings)
    else:
        server = EmbeddedServer.memory(**settings)
    with server:
        yield server


@pytest.fixture
def network(signing_server: EmbeddedServer) -> Iterator[tuple[Client, LossyAdapter]]:
    """The editor's client, of a server where a collection is under review, and what loses its answers."""
    client, adapter = lossy(signing_server, auth=EDITOR, bucket="workspace")
    with client:
        rival = client.clone(auth=RIVAL)
        users = [one.server_info(refresh=True)["user"]["id"] for one in (client, rival)]
        everybody = {"write": users}
        Bucket(id="main", permissions=everybody).save()
        Collection(bucket="main", id="c").save()
        Bucket(id="workspace", permissions=everybody).save()
        Collection(id="c").save()
        for group in ("c-editors", "c-reviewers"):
            Group(id=group, members=users).replace(safe=False)
        adapter.sent.clear()
        yield client, adapter
    client.close()
    rival.close()
    signing_server.flush()


@pytest.fixture
def collection(network: tuple[Client, LossyAdapter]) -> Collection[Record]:
    return network[0].bucket("workspace").collection("c")


@pytest.fixture
def theirs(signing_server: EmbeddedServer) -> Iterator[Any]:
    """The records, as another user writes them."""
    with Client.embedded(server=signing_server, auth=RIVAL) as rival:
        yield rival.bucket("workspace").collection("c").records


def asked(adapter: LossyAdapter) -> int:
    """How often a review was asked for."""
    return sum(path == COLLECTION for _, path, _ in adapter.sent)


def elsewhere(work: Callable[[], object]) -> None:
    """Do the work in a thread, which is not part of the block."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def create_one(collection: Collection[Record]) -> Record:
    return collection.records.create(data={"n": 1})


def test_a_block_that_changes_something_is_put_to_review(collection: Collection[Record], adapter: LossyAdapter) -> None:
    with collection.publication("please") as publication:
        create_one(collection)

    assert publication.is_requested
    assert (collection.status, collection.data["last_editor_comment"]) == (ReviewStatus.TO_REVIEW, "please")
    assert asked(adapter) == 1


def write_all(collection: Collection[Record]) -> None:
    """Write records in every way there is."""
    records = collection.records
    records.bulk_create({"id": f"r{number}", "n": 1} for number in range(30))
    records.get("r1").patch(n=2)
    records.get("r2").replace()
    records.get("r3").delete()
    records.filter(id="r4").delete()
    records.filter(in_id=["r5", "r6"]).update(n=3)
    records.get_or_create("r1", {"n": 9})
    records.update_or_create("r7", {"n": 4})
    with collection.client.unit_of_work():  # type: ignore[union-attr]  # it has one
        create_one(collection)
    collection.client.bulk_create({collection: [{"n": 1}]})  # type: ignore[union-attr]  # it has one
    Record(collection=collection, id="r8", client=collection.client).delete()


def test_all_ways_to_write_are_the_blocks_own(collection: Collection[Record], adapter: LossyAdapter) -> None:
    with collection.publication("please"):
        write_all(collection)

    assert asked(adapter) == 1


def test_a_block_that_changes_nothing_asks_for_nothing(collection: Collection[Record], adapter: LossyAdapter) -> None:
    with collection.publication("please") as publication:
        assert collection.records.all() == []

    assert (publication.is_requested, adapter.sent) == (False, [])


def test_a_block_that_is_left_by_an_error_asks_for_nothing(
    collection: Collection[Record], adapter: LossyAdapter
) -> None:
    def publish() -> None:
        with collection.publication("please"):
            create_one(collection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish()
    assert asked(adapter) == 0


def test_what_an_ended_run_left_over_is_asked_for_once(collection: Collection[Record], adapter: LossyAdapter) -> None:
    create_one(collection)  # and then the process was killed

    for expected in (True, False):
        with collection.publication("please") as publication:
            pass
        assert publication.is_requested is expected

    assert asked(adapter) == 1


def test_a_block_that_is_killed_is_finished_by_the_next_run_and_asked_for_once(
    signing_server: EmbeddedServer, network: tuple[Client, LossyAdapter]
) -> None:
    """Killed (SIGKILL) after each of its requests."""
    client, _ = network
    workspace = client.bucket("workspace")
    users = workspace.groups.get("c-editors").members

    def publish(client: Client, id: str) -> None:
        collection = client.bucket("workspace").collection(id)
        with collection.publication("please"):
            collection.records.sync({"id": f"r{number:02}"} for number in range(60))

    with listening(signing_server) as url:
        for point in itertools.count():
            id = f"killed-{point}"
            Collection(bucket=workspace, id=id).save()
            for role in ("editors", "reviewers"):
                Group(bucket=workspace, id=f"{id}-{role}", members=users).replace(safe=False)
            is_killed = kill_at(point, url, partial(publish, id=id), auth=EDITOR)
            publish(client, id)

            history = workspace.history.filter(collection_id=id)
            asked = [one for one in history.filter(resource_name="collection") if is_asked(one.target.data)]
            written = Counter(one.record_id for one in history.filter(resource_name="record"))
            assert (len(asked), len(written), set(written.values())) == (1, 60, {1}), point
            if not is_killed:
                break

    assert point >= 10


def is_asked(data: Any) -> bool:
    return (data.get("status"), data.get("last_editor_comment")) == ("to-review", "please")


def test_what_somebody_else_left_over_is_not_asked_for(
    collection: Collection[Record], theirs: Any, adapter: LossyAdapter
) -> None:
    theirs.create(data={"n": 1})

    with collection.publication("please") as publication:
        pass

    assert (publication.is_requested, asked(adapter)) == (False, 0)


def test_changes_that_wait_already_are_asked_for_again_only_where_there_are_more(
    collection: Collection[Record], adapter: LossyAdapter
) -> None:
    for is_changed, expected in ((True, 1), (False, 1), (True, 2), (False, 2)):
        with collection.publication("please"):
            if is_changed:
                create_one(collection)
        assert asked(adapter) == expected


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda theirs, id: theirs.create(data={"n": 2}), id="created"),
        pytest.param(lambda theirs, id: theirs.get(id).patch(n=2), id="changed"),
        pytest.param(lambda theirs, id: theirs.get(id).delete(), id="deleted"),
    ],
)
def test_a_change_of_somebody_else_is_not_put_to_review(
    collection: Collection[Record], theirs: Any, adapter: LossyAdapter, change: Callable[[Any, str], object]
) -> None:
    def publish() -> None:
        with collection.publication("please"):
            record = create_one(collection)
            elsewhere(lambda: change(theirs, record.id))

    with pytest.raises(ReviewError, match="1 records were changed during the block, but not by it"):
        publish()

    assert asked(adapter) == 0


def test_a_change_between_the_look_and_the_request_is_not_put_to_review(
    collection: Collection[Record], theirs: Any, adapter: LossyAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = collection.publication("please")
    look = publication._check_are_own

    def look_too_early(changes: Any) -> None:
        look(changes)
        elsewhere(lambda: theirs.create(data={"n": 2}))

    monkeypatch.setattr(publication, "_check_are_own", look_too_early)

    with pytest.raises(ReviewError, match="were changed since you read them"), publication:
        create_one(collection)
    assert asked(adapter) == 0


def test_what_was_written_just_before_the_block_is_not_a_change_of_it(
    collection: Collection[Record], theirs: Any, adapter: LossyAdapter
) -> None:
    theirs.create(data={"n": 1})

    with collection.publication("please") as publication:
        create_one(collection)

    assert (publication.is_requested, asked(adapter)) == (True, 1)


@pytest.mark.parametrize("verb", ["create", "patch", "delete", "bulk"])
def test_a_write_whose_answer_got_lost_is_the_blocks_own(
    collection: Collection[Record], adapter: LossyAdapter, verb: str
) -> None:
    record = create_one(collection)
    writes: dict[str, Callable[[], object]] = {
        "create": lambda: create_one(collection),
        "patch": lambda: record.patch(n=2),
        "delete": record.delete,
        "bulk": lambda: collection.records.bulk_create([{"n": 1}, {"n": 2}]),
    }

    with collection.publication("please") as publication:
        adapter.plan.append("lost after")
        writes[verb]()

    assert publication.is_requested


def test_a_thread_of_the_users_own_is_somebody_else(collection: Collection[Record], adapter: LossyAdapter) -> None:
    with pytest.raises(ReviewError, match="not by it"), collection.publication("please"):
        elsewhere(lambda: create_one(collection))

    assert asked(adapter) == 0


def test_the_block_can_be_awaited(collection: Collection[Record], adapter: LossyAdapter) -> None:
    async def publish() -> bool:
        async with collection.publication("please") as publication:
            await asyncio.gather(*(collection.records.acreate(data={"n": number}) for number in range(3)))
        return publication.is_requested

    assert asyncio.run(publish())
    assert asked(adapter) == 1


def test_a_dry_client_plans_the_request(collection: Collection[Record], adapter: LossyAdapter) -> None:
    dry = collection.client.clone(dry_mode=True)  # type: ignore[union-attr]  # it has one
    theirs = dry.bucket("workspace").collection("c")

    with theirs.publication("please"):
        theirs.records.bulk_create([{"n": 1}])

    assert [request["method"] for request in dry.plan().as_json()] == ["PUT", "PATCH"]
    with theirs.publication("please"):
        pass
    assert (len(dry.plan().as_json()), adapter.sent) == (2, [])


def test_a_publication_is_refused_before_the_block_runs(
    network: tuple[Client, LossyAdapter], collection: Collection[Record], kinto_client: Client
) -> None:
    client, adapter = network
    adapter.sent.clear()
    elsewhere = kinto_client.bucket("workspace").collection("c")

    with pytest.raises(CapabilityMissingError, match="signer"), elsewhere.publication("please"):
        raise AssertionError
    with pytest.raises(ReviewError, match="under no review"), client.bucket("main").collection("c").publication("x"):
        raise AssertionError
    with client.unit_of_work(), pytest.raises(NotStageableError, match="publication"), collection.publication("x"):
        raise AssertionError
    with pytest.raises(InvalidTypeError, match="message"):
        collection.publication(None)  # type: ignore[arg-type]
    with collection.publication("x") as publication, pytest.raises(UsageError, match="open already"), publication:
        raise AssertionError
    assert adapter.sent == []


def test_a_publication_can_be_used_again(collection: Collection[Record], adapter: LossyAdapter) -> None:
    publication = collection.publication("please")

    for expected in (True, False):
        with publication:
            if expected:
                create_one(collection)
        assert publication.is_requested is expected

    assert asked(adapter) == 1


def test_a_file_that_the_block_attaches_is_its_own(file_host: FileHost) -> None:
    includes = f"{DEFAULT_SETTINGS['includes']} attachment_stub signer_stub"
    settings = {"attachment.base_path": str(file_host.folder), "attachment.base_url": file_host.url}
    with (
        EmbeddedServer.memory(includes=includes, **settings) as server,
        Client.embedded(server=server, bucket="workspace") as client,
    ):
        client.ensure(Bucket(id="workspace"), Collection(id="c"))
        collection = client.bucket("workspace").collection("c")

        with collection.publication("please") as publication:
            record = create_one(collection)
            collection.records.attach(record, b"1", filename="one.txt")
            collection.records.attach(Record(collection=collection, data={"n": 1}), b"2", filename="two.txt")
            collection.records.detach(record)

    assert publication.is_requested

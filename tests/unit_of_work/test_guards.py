"""Guards that no other test would miss: each stays where a mutation of the code would take it away."""

from __future__ import annotations

import copy
import json

import pytest
from lossy import lossy
from wiretap import scripted_client

from kinto_orm import Bucket, Client, Collection, ConnectionLostError, DuplicateObjectError, ProtocolError, Record
from kinto_orm.protocol.messages import Response
from kinto_orm.server import EmbeddedServer


def test_n_a_deletion_that_is_staged_twice_may_find_nothing(kinto_client: Client, todos: Collection[Record]) -> None:
    record = todos.records.create(id="r")
    todos.records.get("r").delete()

    with kinto_client.unit_of_work() as uow:
        record.delete()
        record.delete(if_exists=True)

    assert [one.status for one in uow.outcomes] == ["deleted"]
    assert record.is_deleted


def test_n_the_lock_of_a_dry_client_is_made_by_the_next_real_unit(
    kinto_client: Client, todos: Collection[Record]
) -> None:
    dry = kinto_client.clone(dry_mode=True)
    with dry.unit_of_work(lock="billing"):
        Record(bucket="payments", collection="todos", id="planned", client=dry).save()

    with kinto_client.unit_of_work(lock="billing") as uow:
        Record(collection=todos, id="stored").save()

    assert [one.status for one in uow.outcomes] == ["created"]
    assert [one.id for one in todos.records] == ["stored"]


def test_n_a_copy_knows_of_the_write_that_is_in_doubt() -> None:
    with EmbeddedServer.memory() as server:
        client, adapter = lossy(server, retry=0)
        _prepare(client)
        record = client.bucket("b").collection("c").records.get("r")
        adapter.plan.append("lost after")
        record.data["n"] = 2
        with pytest.raises(ConnectionLostError):
            record.save()

        twin = copy.copy(record)
        twin.save()

    assert not twin.is_dirty


def _prepare(client: Client) -> None:
    Bucket(id="b", client=client).save()
    Collection(bucket="b", id="c", client=client).save()
    Record(bucket="b", collection="c", id="r", data={"n": 1}, client=client).save()


@pytest.mark.parametrize("path", ["/v1/buckets/b/collections/other/records", "/v1/buckets/b/collections"])
def test_n_a_next_page_of_another_list_is_refused(path: str) -> None:
    page = json.dumps({"data": [{"id": "a", "last_modified": 1}]}).encode()
    client = scripted_client(Response(200, {"next-page": f"http://localhost:8888{path}?_token=x"}, page))

    with pytest.raises(ProtocolError, match="leads away"):
        client.bucket("b").collection("c").records.all()


def test_l13_an_object_that_was_loaded_untyped_is_not_given_as_a_model(
    kinto_client: Client, todos: Collection[Record]
) -> None:
    class Todo(Record, bucket="payments", collection="todos"):
        title: str = ""

    todos.records.create(id="r")
    kinto_client.bind(Todo)

    with kinto_client.unit_of_work() as uow:
        plain = uow.get(todos.records, "r")
        with pytest.raises(DuplicateObjectError, match="in this unit as Record already"):
            uow.get(Todo, "r")
        assert uow.get(todos.records, "r") is plain

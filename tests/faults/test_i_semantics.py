"""Rows I: what verbs mean."""

from __future__ import annotations

import pytest
from lossy import LossyAdapter
from scripted_server import Talk, said

from kinto_orm import Client, Collection, ConflictError, ForbiddenError, NotFoundError, Record, ResponseError


def test_i02_of_two_who_read_and_write_the_second_is_told(client: Client, todos: Collection[Record]) -> None:
    todos.records.create(id="x", data={"n": 0})
    mine, theirs = (one.bucket("payments").collection("todos").records.get("x") for one in (client, client.clone()))

    theirs.patch(n=theirs.data["n"] + 1)
    with pytest.raises(ConflictError):
        mine.patch(n=mine.data["n"] + 1)

    mine.refresh(discard=True).patch(n=mine.data["n"] + 1)
    assert todos.records.get("x").data["n"] == 2


def test_i03_a_stale_delete_is_refused(todos: Collection[Record]) -> None:
    mine = todos.records.create(id="x")
    todos.records.get("x").patch(n=1)

    with pytest.raises(ConflictError):
        mine.delete()

    assert todos.records.get("x").data["n"] == 1


def test_i08_who_gets_or_creates_is_told_which(todos: Collection[Record]) -> None:
    _, was_created = todos.records.get_or_create("x", {"n": 1})
    found, was_created_again = todos.records.get_or_create("x", {"n": 2})

    assert (was_created, was_created_again, found.data["n"]) == (True, False, 1)


def test_i09_what_may_not_be_deleted_is_no_success(talk: Talk) -> None:
    client, _ = talk(said({"errno": 121}, "403 Forbidden"), said({"errno": 110}, "404 Not Found"))

    with pytest.raises(ForbiddenError):
        client.bucket("b").delete(if_exists=True)
    client.bucket("b").delete(if_exists=True)


def test_i11_a_conflict_has_all_sides_without_another_request(
    client: Client, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    mine = Record(id="x", data={"n": 1}, client=client).save()
    todos.records.get("x").patch(n=2)
    mine.data["n"] = 3

    with pytest.raises(ConflictError) as caught:
        mine.save()

    assert (caught.value.base, caught.value.mine, caught.value.theirs) == ({"n": 1}, {"n": 3}, {"n": 2})


def test_i13_an_error_says_all_that_kinto_says(todos: Collection[Record]) -> None:
    with pytest.raises(ResponseError) as caught:
        todos.records.get("missing")

    error = caught.value
    assert (type(error), error.status, error.errno, error.method) == (NotFoundError, 404, 110, "GET")
    assert error.path == "/buckets/payments/collections/todos/records/missing"
    assert error.details == {"id": "missing", "resource_name": "record"}

"""Work and waits between two requests of a flow."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from kinto_orm import Account, Bucket, Client, Collection, CommitError, ForbiddenError, InvalidValueError
from kinto_orm.protocol.writes import Flow, call_blocking, pause


def test_work_runs_in_the_callers_thread_and_awaited_in_another_one(kinto_client: Client) -> None:
    here = threading.get_ident()

    assert kinto_client.run(call_blocking("a thread", threading.get_ident)) == here
    assert asyncio.run(kinto_client.arun(call_blocking("a thread", threading.get_ident))) != here


def test_a_flow_can_catch_a_kinto_error_of_its_work(kinto_client: Client) -> None:
    def refuse() -> None:
        raise InvalidValueError("no")

    def flow() -> Flow[str]:
        try:
            yield from call_blocking("a refusal", refuse)
        except InvalidValueError as error:
            return str(error)
        return ""

    assert kinto_client.run(flow()) == "no"


def test_an_error_that_is_not_ours_leaves_the_flow(kinto_client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        kinto_client.run(call_blocking("a mistake", lambda: 1 // 0))


def test_a_pause_waits_and_tells_the_time(kinto_client: Client) -> None:
    before = time.time_ns() // 1_000_000

    told = [kinto_client.run(pause(0.03)), asyncio.run(kinto_client.arun(pause(0.03)))]

    assert before + 30 <= told[0] <= told[1] - 30


def test_l06_a_refusal_says_who_may_not_do_what(kinto_client: Client) -> None:
    bucket = Bucket(id="theirs", client=kinto_client).save()
    todos = Collection(bucket=bucket, id="todos").save()
    Account(id="rita", password="s3cret-p4ss", client=kinto_client.clone(auth=None)).save()
    rita = kinto_client.clone(auth=("rita", "s3cret-p4ss"))

    with pytest.raises(ForbiddenError, match=r"The user of the client .* may not PATCH it, or the bucket"):
        rita.bucket("theirs").patch(n=1)
    rita.server_info()
    with pytest.raises(ForbiddenError, match=r"PATCH /buckets/theirs: .* account:rita may not PATCH it, or the bucket"):
        rita.bucket("theirs").patch(n=1)
    with pytest.raises(ForbiddenError, match="account:rita may not GET it"):
        asyncio.run(rita.bucket("theirs").arefresh())
    with pytest.raises(CommitError, match="account:rita may not PUT it"):
        rita.bucket("theirs").collection(todos.id or "").records.bulk_create([{"n": 1}])

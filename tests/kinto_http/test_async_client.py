"""The client whose verbs are awaited: the same flows, so here is only what differs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from small_server import AUTH, PAGE
from wiretap import Script, answer

from kinto_orm import kinto_http
from kinto_orm.kinto_http import AsyncClient, Client, KintoBatchException, KintoException, objects

NOT_AWAITED = {"batch", "clone", "close"}


def run(work: Callable[[AsyncClient], Awaitable[Any]], url: str) -> Any:
    """Return the result of the work, with a client of an existing bucket and collection."""

    async def main() -> Any:
        async with AsyncClient(server_url=url, auth=AUTH, bucket="b", collection="c") as client:
            await client.create_bucket()
            await client.create_collection()
            return await work(client)

    return asyncio.run(main())


def verbs(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


def test_both_clients_have_the_same_verbs_with_the_same_arguments() -> None:
    assert verbs(Client) == verbs(AsyncClient)
    for name in verbs(Client):
        mine, other = (inspect.signature(getattr(cls, name)) for cls in (Client, AsyncClient))
        assert mine.parameters.keys() == other.parameters.keys()


def test_every_verb_but_three_is_awaited() -> None:
    awaited = {name for name in verbs(AsyncClient) if inspect.iscoroutinefunction(getattr(AsyncClient, name))}

    assert verbs(AsyncClient) - NOT_AWAITED == awaited


def test_verbs_say_what_they_take_and_give() -> None:
    signature = inspect.signature(Client.create_record)

    assert list(signature.parameters)[:4] == ["self", "id", "collection", "bucket"]
    assert inspect.Parameter.KEYWORD_ONLY is signature.parameters["id"].kind
    assert signature.return_annotation == "Document"
    assert "random id" in (Client.create_record.__doc__ or "")
    assert AsyncClient.create_record.__name__ == "create_record"


def test_records_are_written_and_read(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        created = await client.create_record(id="r", data={"n": 1})
        await client.patch_record(original=created["data"], changes=kinto_http.patch_type.BasicPatch({"n": 2}))
        return await client.get_record(id="r"), await client.get_records(), await client.get_endpoint("record", id="r")

    found, records, path = run(work, url)

    assert found["data"]["n"] == 2
    assert [found["data"]] == records
    assert path == "/buckets/b/collections/c/records/r"


def test_many_calls_run_at_the_same_time(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        await asyncio.gather(*(client.create_record(id=f"r{n}") for n in range(10)))
        return await client.get_records()

    assert len(run(work, url)) == 10


def test_errors_are_the_same(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        with pytest.raises(kinto_http.BucketNotFound):
            await client.get_bucket(id="missing")
        with pytest.raises(KeyError):
            await client.update_group(data={})

    run(work, url)


def test_a_batch_does_not_block_the_loop(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        async with client.batch() as batch:
            await batch.create_record(id="r", data={"n": 1})
            assert await batch.get_records() == []
        return batch.results(), await client.get_records()

    results, records = run(work, url)

    assert [record["id"] for record in records] == [result["data"]["id"] for result in results]


def test_a_batch_of_the_reference_client_works_as_it_is_written(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        with await client.batch() as batch:
            await batch.create_record(id="r", data={"n": 1})
        return batch.results()

    assert run(work, url)[0]["data"]["id"] == "r"


def test_a_batch_that_fails_says_so(url: str) -> None:
    async def delete(client: AsyncClient) -> None:
        async with client.batch() as batch:
            await batch.delete_record(id="missing")

    async def leave(client: AsyncClient) -> None:
        async with client.batch() as batch:
            await batch.create_record(id="never")
            _ = 1 / 0

    async def work(client: AsyncClient) -> Any:
        with pytest.raises(KintoBatchException):
            await delete(client)
        with pytest.raises(ZeroDivisionError):
            await leave(client)
        async with client.batch():
            pass
        return await client.get_records()

    assert run(work, url) == []


def test_pages_are_awaited(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        async with client.batch() as batch:
            for n in range(PAGE + 2):
                await batch.create_record(id=f"r{n}")
        timestamp = await client.get_records_timestamp()
        return (
            [page async for page in await client.get_paginated_records()],
            list(await client.get_paginated_records()),
            [page async for page in await client.get_paginated_records(if_none_match=timestamp)],
            list(await client.get_paginated_records(if_none_match=timestamp)),
            await client.get_records(if_none_match=timestamp),
        )

    awaited, blocking, unchanged, still_unchanged, records = run(work, url)

    assert [len(page["data"]) for page in awaited] == [PAGE, 2]
    assert awaited == blocking
    assert [] == unchanged == still_unchanged
    assert isinstance(records, objects.Unchanged)


def test_a_dry_client_writes_nothing(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        dry = client.clone(dry_mode=True)
        given = await dry.create_record(id="r")
        async with dry.batch() as batch:
            await batch.create_record(id="s")
        return given, batch.results(), await client.get_records()

    assert run(work, url) == ({}, [{}], [])


def test_calls_go_through_the_request_that_a_user_put_in_place(url: str) -> None:
    async def work(client: AsyncClient) -> Any:
        asked: list[str] = []
        client.session.request = lambda method, endpoint, **options: (
            asked.append(f"{method} {endpoint}") or {"data": {"id": "b"}},
            {"ETag": '"1"'},
        )
        return await client.get_bucket(), asked

    assert run(work, url) == ({"data": {"id": "b"}}, ["get /buckets/b"])


def test_calls_go_through_a_session_that_is_a_users_own() -> None:
    class Mine:
        server_url = "http://mine/v1"
        dry_mode = False

        def request(self, method: str, endpoint: str, **options: Any) -> Any:
            if method == "delete":
                raise KintoException("no answer")
            if endpoint == "/":
                return {"settings": {}}, {}
            if endpoint == "/batch":
                return {"responses": [{"status": 200, "body": {"data": {"id": "r"}}}]}, {}
            error = KintoException("403")
            error.response = kinto_http.exceptions.given_response(answer({"errno": 121}, 403))
            raise error

    async def work() -> Any:
        client = AsyncClient(session=Mine())
        with pytest.raises(kinto_http.BucketNotFound):
            await client.get_bucket()
        with pytest.raises(KintoException, match="no answer"):
            await client.delete_group(id="g", if_exists=True)
        return await client.server_info()

    assert asyncio.run(work()) == {"settings": {}}
    blocking = Client(session=Mine(), bucket="b", collection="c")
    with pytest.raises(kinto_http.BucketNotFound):
        blocking.get_bucket()
    with blocking.batch() as batch:
        batch.update_record(id="r", data={})
    assert batch.results() == [{"data": {"id": "r"}}]


def test_a_session_of_a_users_own_class_sees_every_request(client: Client) -> None:
    asked: list[str] = []

    class Telling(kinto_http.Session):
        def request(self, method: str, endpoint: str, *args: Any, **options: Any) -> Any:
            asked.append(f"{method} {endpoint}")
            return super().request(method, endpoint, *args, **options)

    telling = Client(session=Telling(client.session.server_url, AUTH), bucket="b", collection="c")

    telling.create_record(id="r", data={"n": 1})
    telling.delete_record(id="r")

    assert len(telling.get_buckets()) == 1
    assert asked[:2] == ["put /buckets/b/collections/c/records/r", "delete /buckets/b/collections/c/records/r"]
    assert asked[2] == "get /buckets"
    with pytest.raises(kinto_http.CollectionNotFound):
        telling.get_collection(id="missing")


def test_one_verb_of_a_subclass_may_be_its_own(client: Client) -> None:
    class Mine(Client):
        def create_record(self, **arguments: Any) -> Any:  # type: ignore[override]  # it takes the same
            return super().create_record(**{**arguments, "id": "mine"})

    mine = Mine(session=client.session, bucket="b", collection="c")

    assert mine.clone().create_record(data={})["data"]["id"] == "mine"


def test_a_page_that_fails_raises_where_it_is_read() -> None:
    client = Client(server_url="http://localhost:8888/v1", auth=AUTH, bucket="b", collection="c")
    client.session.client._connection.transport = Script([answer({}, 404)])

    with pytest.raises(KintoException, match="404"):
        next(client.get_paginated_records())

"""Credentials that run out: refused by the server and renewed once, for every request and every caller."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from awaited import WAYS
from requests import PreparedRequest
from requests.auth import AuthBase
from scripted_server import RECORDS, Connect, Serve, said

from kinto_orm import BearerTokenAuth, ConnectionFailedError, ConnectionLostError, LoginFailedError
from kinto_orm.protocol.messages import Request
from kinto_orm.transport import token_refresh
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.token_refresh import TokenStore

REFUSED = said({"code": 401, "errno": 104, "error": "Unauthorized"}, "401 Unauthorized")
DONE = said({"data": {}})
GET = Request("GET", "/")
FORCED = Request("PUT", f"{RECORDS}/x", body=b"{}")


class Numbered(AuthBase):
    """Tokens 1, 2, 3: a new one after each that was refused."""

    def __init__(self, *, can_renew: bool = True) -> None:
        self.number = 1
        self.refused: list[str | None] = []
        self.can_renew = can_renew

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        r.headers["Authorization"] = f"Bearer {self.number}"
        return r

    def renew(self, refused: PreparedRequest) -> bool:
        self.refused.append(refused.headers["Authorization"])
        self.number += 1
        return self.can_renew


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Credentials are renewed whatever sends; a session that the user brought is one of ``requests``."""
    if "connect" in metafunc.fixturenames and "session" not in metafunc.function.__name__:
        metafunc.parametrize("way", WAYS)


def batch(*statuses: int) -> bytes:
    return said({"responses": [{"status": status, "headers": {}, "body": {}} for status in statuses]})


def batch_request(*, reads_only: bool = False) -> Request:
    return Request("POST", "/batch", body=json.dumps({"requests": []}).encode(), reads_only=reads_only)


def test_a_write_without_a_precondition_is_sent_again_once(serve: Serve, connect: Connect, waits: list[float]) -> None:
    server, auth = serve(REFUSED, DONE), Numbered()
    told: list[Any] = []

    answer = connect(server, auth=auth, retry=0, on_retry=told.append).send(FORCED)

    assert answer.status == 200
    assert server.header("Authorization") == "Bearer 2"
    assert auth.refused == ["Bearer 1"]
    assert [(event.reason, event.wait) for event in told] == [("401", 0.0)]
    assert waits == []


def test_a_second_401_is_the_answer(serve: Serve, connect: Connect) -> None:
    server, auth = serve(REFUSED), Numbered()

    answer = connect(server, auth=auth).send(FORCED)

    assert answer.status == 401
    assert len(server.requests) == 2
    assert auth.refused == ["Bearer 1"]


def test_what_cannot_be_renewed_is_not_sent_again(serve: Serve, connect: Connect) -> None:
    server = serve(REFUSED)

    assert connect(server, auth=Numbered(can_renew=False)).send(GET).status == 401
    assert connect(server, auth=("user", "pass")).send(GET).status == 401
    assert len(server.requests) == 2


def test_renewing_takes_none_of_the_retries(serve: Serve, connect: Connect, waits: list[float]) -> None:
    busy = said({"errno": 201}, "503 Busy")
    server = serve(REFUSED, busy, busy, busy, DONE)

    assert connect(server, auth=Numbered()).send(GET).status == 200
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("request_", "statuses", "expected"),
    [
        pytest.param(batch_request(), (401, 401), 2, id="all-refused"),
        pytest.param(batch_request(), (401, 201), 1, id="a-part-applied"),
        pytest.param(batch_request(reads_only=True), (401, 200), 2, id="reads"),
        pytest.param(batch_request(), (201, 404), 1, id="none-refused"),
        pytest.param(batch_request(), (), 1, id="empty"),
    ],
)
def test_a_batch_is_sent_again_only_where_none_of_it_was_applied(
    serve: Serve, connect: Connect, request_: Request, statuses: tuple[int, ...], expected: int
) -> None:
    server, auth = serve(batch(*statuses)), Numbered()

    assert connect(server, auth=auth).send(request_).status == 200

    assert len(server.requests) == expected
    assert auth.number == (2 if 401 in statuses else 1)


def test_an_answer_is_not_searched_for_a_401_where_credentials_cannot_be_renewed(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(body: bytes) -> None:
        raise AssertionError("The answer of a batch was decoded by the transport.")

    monkeypatch.setattr(token_refresh, "from_json", fail)

    assert connect(serve(batch(201, 401)), auth=("user", "pass")).send(batch_request()).status == 200


@pytest.mark.parametrize("body", [b"401", b'{"responses": 401}', b'[{"status": 401}]', b'{"responses": [401]}'])
def test_a_batch_that_is_none_is_left_alone(serve: Serve, connect: Connect, body: bytes) -> None:
    server = serve(said(body))

    assert connect(server, auth=Numbered()).send(batch_request()).body == body
    assert len(server.requests) == 1


def test_an_auth_object_that_cannot_say_whether_it_renews_loses_no_answer(serve: Serve, connect: Connect) -> None:
    class Broken(Numbered):
        def renew(self, refused: PreparedRequest) -> bool:
            raise RuntimeError("s3cr3t")

    server = serve(batch(201, 401))

    response = connect(server.url, auth=Broken()).send(batch_request())

    assert (response.status, len(server.requests)) == (200, 1)


def test_an_auth_object_renews_outside_of_the_loop(serve: Serve) -> None:
    threads: list[threading.Thread] = []

    class Slow(Numbered):
        def renew(self, refused: PreparedRequest) -> bool:
            threads.append(threading.current_thread())
            return super().renew(refused)

    async def ask() -> int:
        transport = HttpTransport(WireOptions(serve(REFUSED, DONE).url, auth=Slow()))
        status = (await transport.asend(GET)).status
        transport.close()
        return status

    assert asyncio.run(ask()) == 200
    assert threading.current_thread() not in threads
    assert len(threads) == 1


def test_the_auth_of_a_session_that_the_user_brought_is_renewed(serve: Serve, connect: Connect) -> None:
    import requests

    server = serve(REFUSED, DONE)
    with requests.Session() as session:
        session.auth = Numbered()
        assert connect(server, session=session).send(GET).status == 200
        session.auth = ("user", "pass")
        assert connect(server, session=session).send(GET).status == 200

    assert server.header("Authorization") == "Basic dXNlcjpwYXNz"


def test_a_renewal_that_fails_has_sent_nothing(serve: Serve, connect: Connect, waits: list[float]) -> None:
    class Broken(Numbered):
        def __call__(self, r: PreparedRequest) -> PreparedRequest:
            if self.number > 1:
                raise LoginFailedError("There is no token.")
            return super().__call__(r)

    server = serve(REFUSED)
    with pytest.raises(ConnectionFailedError, match="There is no token"):
        connect(server, auth=Broken()).send(FORCED)

    assert waits == []


def test_a_renewal_that_fails_after_an_answer_was_lost_leaves_the_doubt(serve: Serve, connect: Connect) -> None:
    class Broken(Numbered):
        def __call__(self, r: PreparedRequest) -> PreparedRequest:
            if self.number > 1:
                raise LoginFailedError("There is no token.")
            return super().__call__(r)

    server = serve(said({}, "502 Bad"), REFUSED)
    guarded = Request("PUT", f"{RECORDS}/x", headers={"If-None-Match": "*"}, body=b"{}", is_guarded=True)

    with pytest.raises(ConnectionLostError, match="may have been applied"):
        connect(server, auth=Broken()).send(guarded)


class TestTokenStore:
    def test_a_token_that_another_thread_got_meanwhile_is_taken(self) -> None:
        store = TokenStore()
        old, new = BearerTokenAuth("old"), BearerTokenAuth("new")
        refused = old(request())
        store.get("key", lambda: old)

        store.refuse("key", refused)
        store.get("key", lambda: new)
        store.refuse("key", refused)  # of a slower thread

        assert store.get("key", lambda: old) is new

    def test_nothing_is_refused_where_nothing_was_fetched(self) -> None:
        store = TokenStore()

        store.refuse("key", request())

        assert store.get("key", lambda: BearerTokenAuth("a")) == BearerTokenAuth("a")

    def test_who_comes_after_the_landing_takes_what_landed(self) -> None:
        token = BearerTokenAuth("a")

        class Late(TokenStore):
            """Lands for another thread after the first look."""

            looks = 0

            def _good(self, key: Any) -> BearerTokenAuth | None:
                self.looks += 1
                return token if self.looks == 2 else None

        assert Late().get("key", lambda: BearerTokenAuth("b")) is token

    def test_a_fetch_of_the_parent_process_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = TokenStore()
        store._flights[os.getpid(), "key"] = Future()
        monkeypatch.setattr(os, "getpid", lambda: -1)

        assert store.get("key", lambda: BearerTokenAuth("a")) == BearerTokenAuth("a")

    def test_an_interrupted_fetch_leaves_nobody_waiting(self) -> None:
        store = TokenStore()

        def interrupted() -> BearerTokenAuth:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.get("key", interrupted)

        assert store.get("key", lambda: BearerTokenAuth("a")) == BearerTokenAuth("a")

    def test_who_waits_for_a_login_that_is_interrupted_is_told(self) -> None:
        store, caught = TokenStore(), list[BaseException]()
        is_asked, may_fail = threading.Event(), threading.Event()

        def interrupted() -> BearerTokenAuth:
            is_asked.set()
            may_fail.wait(60)
            raise KeyboardInterrupt

        def ask() -> None:
            try:
                store.get("key", interrupted)
            except (KeyboardInterrupt, LoginFailedError) as error:
                caught.append(error)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        is_asked.wait(60)
        threads[1].start()
        threading.Timer(0.05, may_fail.set).start()
        for thread in threads:
            thread.join()

        assert {type(error) for error in caught} == {KeyboardInterrupt, LoginFailedError}

    def test_each_waiting_thread_gets_an_error_of_its_own(self) -> None:
        store, errors = TokenStore(), list[LoginFailedError]()
        is_asked, may_fail = threading.Event(), threading.Event()

        def fail() -> BearerTokenAuth:
            is_asked.set()
            may_fail.wait(60)
            raise LoginFailedError("No.") from ValueError("why")

        def ask() -> None:
            try:
                store.get("key", fail)
            except LoginFailedError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads[0].start()
        is_asked.wait(60)
        for thread in threads[1:]:
            thread.start()
        threading.Timer(0.05, may_fail.set).start()
        for thread in threads:
            thread.join()

        assert [str(error) for error in errors] == ["No."] * 3
        assert len({id(error) for error in errors}) == 3
        assert {str(error.__cause__) for error in errors} == {"why"}


def request() -> PreparedRequest:
    import requests

    return requests.Request("GET", "http://localhost/v1/").prepare()

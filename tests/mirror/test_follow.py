"""One record that is always there, refreshed in the background, the last known good one in a file."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from kinto_orm import (
    Client,
    ClientClosedError,
    Collection,
    ForbiddenError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    MirrorFileError,
    NotFoundError,
    Record,
    TransportError,
)
from kinto_orm.mirror import Followed, afollow, follow
from kinto_orm.server import EmbeddedServer

from .conftest import Wire


class Settings(Record, bucket="payments", collection="todos"):
    feature: bool
    limit: int = 10


@pytest.fixture
def wire(kinto_server: EmbeddedServer) -> Wire:
    return Wire(kinto_server)


@pytest.fixture
def online(kinto_server: EmbeddedServer, todos: Collection[Record], wire: Wire) -> Iterator[Client]:
    todos.records.create(id="prod", data={"feature": True})
    session = requests.Session()
    session.mount(kinto_server.url, wire)
    with Client(kinto_server.url, session=session, auth=("user", "embedded"), retry=0) as client:
        yield client


@pytest.fixture
def start(online: Client, tmp_path: Path) -> Iterator[Callable[..., Followed[Settings]]]:
    """Return a function that follows the record, without the thread unless it is said; all are ended at last."""
    started: list[Followed[Settings]] = []

    def begin(every: float = 3600, **options: Any) -> Followed[Settings]:
        started.append(follow(online, Settings, id="prod", every=every, path=tmp_path / "follow.sqlite", **options))
        if every == 3600:
            started[-1]._repetition.stop()
        return started[-1]

    yield begin
    for one in started:
        one.close()


def go_down(wire: Wire) -> None:
    def fail(request: Any) -> None:
        raise requests.ConnectionError("no server answers")

    wire.before = fail


def again(followed: Followed[Any]) -> None:
    """Refresh now, whenever the server was asked."""
    followed._every = 0
    followed._client.run(followed.__kinto_refresh__())


def test_a_record_is_refreshed_in_the_background(start: Any, todos: Collection[Record]) -> None:
    config = start(every=0.02)
    changed, seen = threading.Event(), list[Settings]()

    def note(value: Settings) -> None:
        seen.append(value)
        changed.set()

    assert (config.value.feature, config.value.limit) == (True, 10)
    assert 0 <= config.age < 600 and config.error is None
    config.on_change(note)
    todos.records.get("prod").patch(limit=20)

    assert changed.wait(60)
    assert seen[0].limit == config.value.limit == 20


def test_a_function_that_fails_stops_neither_the_value_nor_the_others(
    start: Any, todos: Collection[Record], caplog: pytest.LogCaptureFixture
) -> None:
    config, seen = start(), list[int]()

    def fail(value: Settings) -> None:
        raise ZeroDivisionError

    config.on_change(fail)
    config.on_change(lambda value: seen.append(value.limit))
    for limit in (20, 30):
        todos.records.get("prod").patch(limit=limit)
        again(config)

    assert seen == [20, 30] and config.value.limit == 30 and config.error is None
    assert caplog.text.count("ZeroDivisionError") >= 2


def test_a_value_that_cannot_be_kept_stays(start: Any, todos: Collection[Record]) -> None:
    config, seen = start(), list[int]()
    config.on_change(lambda value: seen.append(value.limit))
    todos.records.get("prod").patch({"limit": 20, "text": "x" * 100_000})
    with config._store.transaction(writes=False) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    for _ in range(3):
        with pytest.raises(MirrorFileError, match="room on the disk"):
            again(config)
        assert config.value.limit == 20

    assert seen == [20]


def test_a_record_that_did_not_change_has_no_body(start: Any, wire: Wire) -> None:
    answers: list[int] = []
    wire.after = lambda request, answer: answers.append(answer.status_code)
    config = start()
    before = config.value

    again(config)

    assert answers == [200, 200, 304] and config.value is before  # who the user is, the record, nothing new


def test_the_first_start_may_be_offline(start: Any, wire: Wire) -> None:
    go_down(wire)
    config = start(default=Settings(feature=False))

    assert config.value.feature is False and config.age == math.inf
    assert isinstance(config.error, TransportError)
    wire.before = None
    again(config)

    assert config.value.feature is True and config.error is None


def test_without_a_value_the_error_is_raised(start: Any, wire: Wire) -> None:
    go_down(wire)

    with pytest.raises(TransportError):
        start()


def test_the_last_known_good_one_is_in_the_file(start: Any, wire: Wire) -> None:
    start().close()
    go_down(wire)

    config = start()

    assert config.value.feature is True and 0 <= config.age < 600
    again(config)
    assert config.value.feature is True and isinstance(config.error, TransportError)


def break_right(todos: Collection[Record], wire: Wire) -> None:
    def forbid(request: requests.PreparedRequest) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer.request = 403, request
        answer._content = b'{"code": 403, "errno": 121}'
        return answer

    wire.before = forbid


@pytest.mark.parametrize(
    ("happen", "expected"),
    [
        (lambda todos, wire: todos.records.get("prod").delete(), NotFoundError),
        (lambda todos, wire: todos.records.get("prod").patch(feature="perhaps"), InvalidValueError),
        (lambda todos, wire: todos.refresh().delete(), KintoError),  # flushed
        (break_right, ForbiddenError),
    ],
)
def test_what_is_no_good_value_leaves_the_last_one(
    start: Any, todos: Collection[Record], wire: Wire, happen: Any, expected: Any
) -> None:
    config = start()
    before = config.value
    happen(todos, wire)

    again(config)

    assert config.value is before and isinstance(config.error, expected)
    assert start().value.feature is True  # so it is in the file


def test_one_process_asks_for_all(start: Any, wire: Wire, todos: Collection[Record]) -> None:
    one, other = start(), start()
    todos.records.get("prod").patch(limit=30)
    again(one)
    wire.sent.clear()

    other._client.run(other.__kinto_refresh__())

    assert wire.sent == [] and other.value.limit == one.value.limit == 30


def test_a_clock_that_was_put_back_does_not_stop_it(start: Any, wire: Wire) -> None:
    config = start()
    config._kept[:2] = [4e9, 4e9]
    config._store.set_note(str(config._path), '[4e9,4e9,0,{"feature":false}]')
    wire.sent.clear()

    config._client.run(config.__kinto_refresh__())

    assert [method for method, _, _ in wire.sent] == ["GET"] and config.value.feature is True and config.age < 600


@pytest.mark.parametrize("text", ["no JSON", "[]", '["a",1,2,{}]', '[1,1,5,{"feature":"perhaps"}]', "[9e9,9e9,5,null]"])
def test_a_file_that_was_tampered_with_is_asked_for_anew(start: Any, text: str) -> None:
    first = start()
    first.close()
    first._store.set_note(str(first._path), text)

    assert start().value.feature is True


def test_a_file_of_another_server_or_user_is_refused(
    start: Any, tmp_path: Path, kinto_server: EmbeddedServer, wire: Wire
) -> None:
    start()
    path, default = tmp_path / "follow.sqlite", Settings(feature=False)

    with pytest.raises(MirrorFileError, match="each server"):
        follow(Client("http://localhost:9/v1"), Settings, id="prod", path=path, default=default)
    session = requests.Session()
    session.mount(kinto_server.url, wire)
    with (
        Client(kinto_server.url, session=session, auth=("bob", "x")) as bob,
        pytest.raises(MirrorFileError, match="each user"),
    ):
        follow(bob, Settings, id="prod", path=path, default=default)


def test_it_ends_with_its_client(start: Any, online: Client) -> None:
    config = start(every=0.02)
    thread = config._repetition._thread

    online.close()

    thread.join(60)
    assert not thread.is_alive() and config.value.feature is True and isinstance(config.error, ClientClosedError)


def test_it_can_be_awaited(online: Client, tmp_path: Path) -> None:
    async def scenario() -> Followed[Record]:
        return await afollow(online, Record, "todos", id="prod", path=tmp_path / "a.sqlite", every=3600)

    with online.clone(bucket="payments") as client:
        online = client
        config = asyncio.run(scenario())

    assert config.value.data["feature"] is True and "todos/records/prod" in repr(config)
    config.close()


def test_wrong_options_are_refused_before_anything_is_sent(online: Client, tmp_path: Path, wire: Wire) -> None:
    for every in (0, float("inf")):
        with pytest.raises(InvalidValueError):
            follow(online, Settings, id="prod", path=tmp_path / "x", every=every)
    with pytest.raises(InvalidTypeError):
        follow(online, Settings, id="prod", path=tmp_path / "x", default=Record(id="x"))  # type: ignore[type-var]
    assert wire.sent == []

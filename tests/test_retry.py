"""When a request is sent again, and how long that takes, with clocks that take no time."""

import dataclasses
import http.client
import math
import ssl
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3

from kinto_orm.errors import (
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    KintoError,
    ProtocolError,
    TransportError,
)
from kinto_orm.transport import RetryPolicy
from kinto_orm.transport.retry import FinalConnectionError, parse_timeout, send_with_retry, translate


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Sender:
    """Fails with each of the errors in turn, then succeeds."""

    def __init__(self, *errors: KintoError) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[int, float]] = []

    def __call__(self, attempt: int, deadline: float) -> str:
        self.calls.append((attempt, deadline))
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def policy(clock: Clock, **options: Any) -> RetryPolicy:
    return RetryPolicy(**{"clock": clock, "sleep": clock.sleep, "random": lambda: 1.0, **options})


def ignore(*_: object) -> None:
    pass


def refusals(count: int) -> list[ConnectionFailedError]:
    return [ConnectionFailedError("refused") for _ in range(count)]


def test_an_answer_needs_one_attempt() -> None:
    clock, sender = Clock(), Sender()

    assert send_with_retry(sender, policy(clock), ignore) == "answer"
    assert sender.calls == [(1, 1120.0)]
    assert clock.waits == []


def test_what_was_not_sent_is_sent_again_until_it_arrives() -> None:
    clock, sender = Clock(), Sender(*refusals(3))

    assert send_with_retry(sender, policy(clock), ignore) == "answer"
    assert sender.calls == [(1, 1120.0), (2, 1120.0), (3, 1120.0), (4, 1120.0)]
    assert clock.waits == [0.25, 0.5, 1.0]


def test_retries_end() -> None:
    clock, sender = Clock(), Sender(*refusals(9))

    with pytest.raises(ConnectionFailedError, match="refused"):
        send_with_retry(sender, policy(clock, retries=2), ignore)

    assert len(sender.calls) == 3


def test_retries_can_be_switched_off() -> None:
    clock, sender = Clock(), Sender(*refusals(1))

    with pytest.raises(ConnectionFailedError):
        send_with_retry(sender, policy(clock, retries=0), ignore)

    assert clock.waits == []


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(FinalConnectionError("certificate"), id="final"),
        pytest.param(ConnectionLostError("reset"), id="lost"),
        pytest.param(DeadlineError("slow"), id="slow"),
        pytest.param(ProtocolError("garbage"), id="garbage"),
        pytest.param(TransportError("unknown"), id="unknown"),
    ],
)
def test_nothing_else_is_sent_again(error: KintoError) -> None:
    sender = Sender(error)

    with pytest.raises(type(error)):
        send_with_retry(sender, policy(Clock()), ignore)

    assert len(sender.calls) == 1


def test_a_fixed_wait_takes_the_place_of_the_random_one() -> None:
    clock = Clock()

    send_with_retry(Sender(*refusals(3)), policy(clock, retry_after=7), ignore)

    assert clock.waits == [7, 7, 7]


def test_no_wait_ends_after_the_deadline() -> None:
    clock, sender = Clock(), Sender(*refusals(9))

    with pytest.raises(ConnectionFailedError):
        send_with_retry(sender, policy(clock, retry_after=4, deadline=10, retries=9), ignore)

    assert clock.waits == [4, 4]


def test_every_retry_is_told() -> None:
    first, second = refusals(2)
    told: list[tuple[int, float, ConnectionFailedError]] = []

    send_with_retry(Sender(first, second), policy(Clock()), lambda *retry: told.append(retry))

    assert told == [(1, 0.25, first), (2, 0.5, second)]


def test_waits_grow_up_to_the_cap() -> None:
    waits = [policy(Clock()).wait(attempt) for attempt in (1, 2, 7, 8, 5000)]

    assert waits == [0.25, 0.5, 16.0, 20.0, 20.0]


def test_waits_are_spread_over_the_whole_range() -> None:
    assert policy(Clock(), random=lambda: 0.0).wait(5) == 0.0


def test_waits_are_random_and_clocks_real_unless_replaced() -> None:
    standard = RetryPolicy()

    assert 0 <= standard.wait(1) <= 0.25
    assert standard.clock() <= standard.clock()
    assert "function" not in repr(standard)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"retries": -1}, id="negative-retries"),
        pytest.param({"retries": 1.5}, id="half-a-retry"),
        pytest.param({"retries": True}, id="boolean-retries"),
        pytest.param({"retry_after": -1}, id="negative-wait"),
        pytest.param({"retry_after": "1"}, id="text"),
        pytest.param({"base": None}, id="no-base"),
        pytest.param({"cap": math.nan}, id="nan"),
        pytest.param({"deadline": 0}, id="no-time"),
        pytest.param({"deadline": math.inf}, id="for-ever"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RetryPolicy(**options)


def test_a_policy_is_a_value() -> None:
    assert RetryPolicy(retries=1) == dataclasses.replace(RetryPolicy(), retries=1)


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        pytest.param((5, 30), (5, 30), id="pair"),
        pytest.param(2.5, (2.5, 2.5), id="one-for-both"),
        pytest.param((5, None), (5, math.inf), id="no-limit-for-reading"),
        pytest.param(None, (math.inf, math.inf), id="no-limit"),
    ],
)
def test_timeouts_are_one_number_or_two(timeout: Any, expected: tuple[float, float]) -> None:
    assert parse_timeout(timeout) == expected


@pytest.mark.parametrize("timeout", [0, -1, True, "5", (5,), (5, 30, 60), (5, "30"), math.nan])
def test_a_timeout_that_cannot_work_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout is"):
        parse_timeout(timeout)


def aborted(cause: Exception) -> requests.ConnectionError:
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(aborted(ConnectionResetError(104, "reset")), ConnectionLostError, id="reset"),
        pytest.param(aborted(http.client.RemoteDisconnected("closed")), ConnectionLostError, id="closed"),
        pytest.param(aborted(http.client.BadStatusLine("hello")), ProtocolError, id="garbage"),
        pytest.param(aborted(TimeoutError("timed out")), DeadlineError, id="timeout-while-sending"),
        pytest.param(requests.ReadTimeout("slow"), DeadlineError, id="timeout-while-reading"),
        pytest.param(urllib3.exceptions.ProtocolError("broken"), ConnectionLostError, id="broken"),
        pytest.param(requests.exceptions.SSLError(ssl.SSLEOFError()), ConnectionLostError, id="tls-after-handshake"),
        pytest.param(urllib3.exceptions.InvalidHeader("two lengths"), ProtocolError, id="contradicting-lengths"),
        pytest.param(urllib3.exceptions.ClosedPoolError(None, "closed"), ConnectionFailedError, id="pool-closed"),  # type: ignore[arg-type]  # what urllib3 itself gives after unpickling
        pytest.param(zlib.error("corrupt"), ConnectionLostError, id="damaged"),
        pytest.param(requests.exceptions.ContentDecodingError(), ProtocolError, id="unknown-coding"),
        pytest.param(aborted(OSError("Tunnel connection failed: 407")), FinalConnectionError, id="tunnel-refused"),
        pytest.param(requests.exceptions.InvalidHeader("ours"), TransportError, id="header-of-ours"),
        pytest.param(ValueError("odd"), TransportError, id="unknown"),
    ],
)
def test_every_failure_has_one_class(error: Exception, expected: type[KintoError]) -> None:
    ours = translate(error, "GET /buckets/b on kinto.test")

    assert type(ours) is expected
    assert str(ours).startswith("GET /buckets/b on kinto.test: ")


def test_what_the_caller_was_handling_does_not_count() -> None:
    """A context of "refused" would make a lost write look as if it had never been sent."""

    def handle(action: Callable[[], None]) -> None:
        try:
            raise urllib3.exceptions.ConnectTimeoutError
        except urllib3.exceptions.ConnectTimeoutError:
            action()

    def lose() -> None:
        raise requests.ReadTimeout

    with pytest.raises(requests.ReadTimeout) as caught:
        handle(lose)

    assert type(translate(caught.value, "PUT /")) is DeadlineError


def test_the_message_says_what_the_system_said() -> None:
    error = translate(aborted(ConnectionResetError(104, "Connection reset by peer")), "GET /")

    assert str(error).endswith("(Connection reset by peer)")


def test_the_credentials_do_not_travel_with_the_cause() -> None:
    request = requests.Request("GET", "http://kinto.test", auth=("user", "pass")).prepare()
    error = requests.ReadTimeout(request=request)

    translate(error, "GET /")

    assert error.request is None

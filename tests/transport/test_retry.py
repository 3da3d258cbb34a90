"""When a request is sent again, and how long that takes, with clocks that take no time."""

import asyncio
import dataclasses
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_orm.errors import (
    BackoffError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    KintoError,
    ProtocolError,
    TransportError,
)
from kinto_orm.protocol.messages import Request, Response, retry_after, run_blocking
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions, parse_timeout
from kinto_orm.transport.reporting import Result
from kinto_orm.transport.requests_errors import FinalConnectionError
from kinto_orm.transport.retry import (
    BUDGET,
    CLOCK,
    COST_OF_RETRY,
    COST_OF_RETRY_NOT_APPLIED,
    Attempt,
    Clock,
    Failure,
    RetryBudget,
    RetryLoop,
    backoff,
    failure_of,
)

READ = Request("GET", "/buckets/b")
SAFE = Request("PUT", "/buckets/b", is_guarded=True)
FORCED = Request("PUT", "/buckets/b")
OK = Response(200, body=b'{"data": {}}')
KINTO_503 = Response(503, body=b'{"code": 503, "errno": 201}')
HTML_503 = Response(503, body=b"<html>")
REFUSED = ConnectionFailedError("refused")
LOST = ConnectionLostError("lost")


def asking(seconds: int) -> Response:
    """Return the answer of a Kinto that asks for a pause."""
    return KINTO_503._replace(headers={"retry-after": str(seconds)})


class Time:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Loop:
    """A retry loop whose attempts end as a script says."""

    options: dict[str, Any] = field(default_factory=dict)
    clock: Time = field(default_factory=Time)
    budget: RetryBudget = field(default_factory=RetryBudget)
    waits: list[float] = field(default_factory=list)
    told: list[tuple[int, float, Result]] = field(default_factory=list)
    empty: list[Request] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        options, clock = WireOptions("http://kinto.test", **self.options), Clock(self.clock, random=lambda: 1.0)
        self._loop = RetryLoop(options, clock, self._tell, self.empty.append, self.budget)
        self.note = self._loop.note

    def _tell(self, request: Request, attempt: int, wait: float, result: Result) -> None:
        self.told.append((attempt, wait, result))

    def send(self, request: Request, *results: Result | Callable[[], Result], rest: Result = OK) -> Response:
        """Return the result of the loop whose attempts end like that, in turn, and all later ones like ``rest``."""
        script = iter(results)

        async def attempt(request: Request, _: Attempt) -> Result:
            self.attempts += 1
            result = next(script, rest)
            return result() if callable(result) else result

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.clock.now += seconds

        return run_blocking(self._loop.run(request, attempt, sleep))


def test_an_answer_needs_one_attempt() -> None:
    loop = Loop()

    assert loop.send(SAFE) is OK
    assert (loop.attempts, loop.waits) == (1, [])


@pytest.mark.parametrize("request_", [READ, SAFE, FORCED], ids=["read", "safe", "forced"])
@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(REFUSED, id="refused"),
        pytest.param(KINTO_503, id="503-of-kinto"),
        pytest.param(Response(429), id="429"),
        pytest.param(Response(425), id="425"),
    ],
)
def test_what_was_not_applied_is_sent_again(request_: Request, failure: Result) -> None:
    loop = Loop()

    assert loop.send(request_, failure, failure, failure) is OK
    assert loop.waits == [0.25, 0.5, 1.0]


AMBIGUOUS = [
    pytest.param(LOST, id="lost"),
    pytest.param(DeadlineError("slow"), id="slow"),
    pytest.param(Response(408), id="408"),
    pytest.param(Response(500, body=b'{"errno": 999}'), id="500"),
    pytest.param(Response(502, body=b"<html>"), id="502"),
    pytest.param(HTML_503, id="503-of-a-proxy"),
    pytest.param(Response(504), id="504"),
    pytest.param(Response(200, body=b'{"data": {"id'), id="cut-short"),
    pytest.param(Response(201, body=b'{"permissions": {}'), id="cut-short-behind-a-brace"),
    pytest.param(Response(412, body=b'{"details": {"existing": {'), id="refusal-cut-short"),
]


@given(st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), lambda some: st.lists(some)), st.data())
def test_every_beginning_of_an_answer_is_cut_short(value: Any, data: st.DataObject) -> None:
    body = json.dumps({"data": value}).encode()
    cut = body[: data.draw(st.integers(1, len(body) - 1))]

    assert failure_of(Response(200, body=cut)) is Failure.AMBIGUOUS
    assert failure_of(Response(200, body=body)) is Failure.NONE


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Response(200, {"content-length": "2"}, b'{"'), id="of-the-length-that-was-announced"),
        pytest.param(Response(200, {"transfer-encoding": "chunked"}, b'{"'), id="in-chunks-that-had-an-end"),
        pytest.param(Response(200, body=b"{'data': 1"), id="no-json-from-its-beginning"),
        pytest.param(Response(200, body=b"<html>"), id="html"),
        pytest.param(Response(204), id="empty"),
    ],
)
def test_an_answer_that_is_whole_is_final_whatever_it_is(answer: Response) -> None:
    assert failure_of(answer) is Failure.NONE


@pytest.mark.parametrize("failure", AMBIGUOUS)
def test_a_read_is_sent_again_whatever_went_wrong(failure: Result) -> None:
    assert Loop().send(READ, failure) is OK


@pytest.mark.parametrize("failure", AMBIGUOUS)
def test_a_write_that_may_have_been_applied_is_sent_again_with_its_precondition(failure: Result) -> None:
    answer = Loop().send(SAFE, failure, rest=Response(412))

    assert (answer.status, answer.is_repeated) == (412, True)


@pytest.mark.parametrize("failure", AMBIGUOUS)
def test_a_forced_write_that_may_have_been_applied_is_never_sent_again(failure: Result) -> None:
    loop = Loop()

    if isinstance(failure, Response):
        assert loop.send(FORCED, failure) is failure
    else:
        with pytest.raises(type(failure)):
            loop.send(FORCED, failure)

    assert loop.attempts == 1


@pytest.mark.parametrize(
    "failure",
    [
        *[
            pytest.param(Response(status), id=str(status))
            for status in (304, 307, 400, 401, 403, 404, 405, 412, 501, 505)
        ],
        pytest.param(Response(200, body=b"<html>hotel wifi"), id="html"),
        pytest.param(Response(204), id="204"),
    ],
)
def test_what_the_server_means_is_final(failure: Response) -> None:
    loop = Loop()

    assert loop.send(SAFE, failure) is failure
    assert loop.attempts == 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(FinalConnectionError("certificate"), id="tls"),
        pytest.param(ProtocolError("garbage"), id="garbage"),
        pytest.param(TransportError("unknown"), id="unknown"),
    ],
)
def test_no_other_error_is_worth_another_attempt(error: KintoError) -> None:
    loop = Loop()

    with pytest.raises(type(error)):
        loop.send(READ, error)

    assert loop.attempts == 1


@pytest.mark.parametrize("status", [409, 500])
def test_a_race_and_a_failure_of_the_server_are_tried_once_more(status: int) -> None:
    loop = Loop()

    assert loop.send(SAFE, rest=Response(status)).status == status
    assert loop.attempts == 2


def test_retries_end() -> None:
    loop = Loop({"retry": 2})

    with pytest.raises(ConnectionFailedError, match="refused"):
        loop.send(SAFE, rest=REFUSED)

    assert loop.attempts == 3


def test_retries_can_be_switched_off() -> None:
    loop = Loop({"retry": 0})

    with pytest.raises(ConnectionFailedError):
        loop.send(READ, rest=REFUSED)

    assert loop.waits == []


def test_an_answer_after_nothing_was_sent_is_no_repetition() -> None:
    assert Loop().send(SAFE, REFUSED, KINTO_503, rest=Response(412)).is_repeated is False


def test_a_write_in_doubt_stays_in_doubt_where_the_next_attempt_does_not_arrive() -> None:
    """By itself the last failure would say that nothing was sent."""
    with pytest.raises(ConnectionLostError, match=r"refused. An earlier attempt .* may have been applied") as failed:
        Loop().send(SAFE, LOST, rest=REFUSED)

    assert failed.value.__cause__ is REFUSED


def test_a_read_is_never_in_doubt() -> None:
    with pytest.raises(ConnectionFailedError):
        Loop().send(READ, LOST, rest=REFUSED)


def test_a_fixed_wait_takes_the_place_of_every_other() -> None:
    loop = Loop({"retry_after": 7})

    loop.send(SAFE, REFUSED, asking(30), asking(10**9))

    assert loop.waits == [7, 7, 7]


@pytest.mark.parametrize(("asked", "expected"), [(3, 3.25), (60, 60.25), (90, 60.25), (0, 0.25)])
def test_the_server_says_how_long_to_wait(asked: int, expected: float) -> None:
    loop = Loop()

    loop.send(SAFE, asking(asked))

    assert loop.waits == [expected]


def test_a_wait_that_is_longer_than_the_call_may_take_is_the_callers_to_decide() -> None:
    loop = Loop()

    answer = loop.send(SAFE, asking(10**9))

    assert (answer.status, answer.retry_after) == (503, 1e9)
    assert loop.waits == []


def test_no_wait_ends_after_the_deadline() -> None:
    loop = Loop({"retry_after": 4, "deadline": 10, "retry": 9})

    with pytest.raises(ConnectionFailedError):
        loop.send(READ, rest=REFUSED)

    assert loop.waits == [4, 4]


def test_every_retry_is_told() -> None:
    loop = Loop()

    loop.send(SAFE, REFUSED, KINTO_503)

    assert loop.told == [(1, 0.25, REFUSED), (2, 0.5, KINTO_503)]


def test_a_second_request_for_one_purpose_waits_first() -> None:
    loop = Loop()

    loop.send(dataclasses.replace(SAFE, attempt=3))

    assert loop.waits == [0.5]


def test_all_requests_of_a_client_share_one_budget() -> None:
    loop = Loop({"retry": 10_000, "deadline": 1e9})

    with pytest.raises(ConnectionFailedError):
        loop.send(READ, rest=REFUSED)
    with pytest.raises(ConnectionFailedError):
        loop.send(SAFE, rest=REFUSED)

    assert loop.attempts == BUDGET // COST_OF_RETRY + 2
    assert loop.empty == [READ, SAFE]


def test_being_told_to_come_later_costs_less_than_a_failure() -> None:
    loop = Loop()

    loop.send(READ, KINTO_503, rest=Response(400))

    assert COST_OF_RETRY_NOT_APPLIED < COST_OF_RETRY
    assert loop.budget.tokens == BUDGET


def test_success_fills_the_budget_up_again() -> None:
    loop = Loop(budget=RetryBudget(20))

    loop.send(READ, REFUSED)
    loop.send(READ)

    assert loop.budget.tokens == 21


def test_while_the_server_wants_a_pause_requests_wait() -> None:
    loop = Loop()
    loop.note({"backoff": "10"})
    loop.clock.now += 4

    loop.send(READ)

    assert loop.waits == [6]


def test_the_next_answer_without_it_ends_the_pause() -> None:
    loop = Loop()
    loop.note({"backoff": "10"})
    loop.note({})

    loop.send(READ)

    assert loop.waits == []


@pytest.mark.parametrize(("options", "asked"), [({}, 10**9), ({"on_backoff": "raise"}, 5)], ids=["too-long", "raise"])
def test_a_pause_that_the_call_cannot_take_is_an_error(options: dict[str, Any], asked: float) -> None:
    loop = Loop(options)
    loop.note({"backoff": str(asked)})

    with pytest.raises(BackoffError, match=r"GET /buckets/b was not sent: .* pause") as failed:
        loop.send(READ)

    assert failed.value.retry_after == min(asked, 300)
    assert loop.attempts == 0


@pytest.mark.parametrize("options", [{}, {"on_backoff": "raise"}], ids=["too-long", "raise"])
def test_a_pause_after_an_attempt_that_may_have_been_applied_does_not_say_that_nothing_was_sent(
    options: dict[str, Any],
) -> None:
    loop = Loop(options)

    def lost() -> Result:
        loop.note({"backoff": "200"})
        return LOST

    with pytest.raises(ConnectionLostError, match=r"a pause of .* may have been applied") as failed:
        loop.send(SAFE, lost)

    assert isinstance(failed.value.__cause__, BackoffError)
    assert loop.attempts == 1


def test_a_pause_after_a_read_whose_answer_was_lost_is_a_pause() -> None:
    loop = Loop({"on_backoff": "raise"})

    def lost() -> Result:
        loop.note({"backoff": "5"})
        return LOST

    with pytest.raises(BackoffError):
        loop.send(READ, lost)


def test_a_pause_can_be_ignored() -> None:
    loop = Loop({"on_backoff": "ignore"})
    loop.note({"backoff": "10"})

    loop.send(READ)

    assert loop.waits == []


def loop_of(clock: Clock) -> RetryLoop:
    return RetryLoop(WireOptions("http://kinto.test"), clock)


def test_waits_grow_up_to_the_cap() -> None:
    loop = loop_of(Clock(random=lambda: 1.0))

    assert [loop.wait(attempt) for attempt in (1, 2, 7, 8, 5000)] == [0.25, 0.5, 16.0, 20.0, 20.0]


def test_waits_are_spread_over_the_whole_range() -> None:
    assert loop_of(Clock(random=lambda: 0.0)).wait(5) == 0.0


def test_waits_are_random_and_clocks_real_unless_replaced() -> None:
    standard = loop_of(CLOCK)

    assert 0 <= standard.wait(1) <= 0.25
    assert standard.clock.now() <= standard.clock.now()


NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("120", 120, id="seconds"),
        pytest.param(" 3 ", 3, id="blanks"),
        pytest.param("Wed, 25 Nov 2026 12:00:30 GMT", 30, id="date"),
        pytest.param("Wed, 25 Nov 2026 12:00:30 -0000", 30, id="date-without-zone"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 GMT", 0, id="past"),
        pytest.param("Wed, 21 Oct 99999 07:28:00 GMT", None, id="no-such-year"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", None, id="fraction"),
        pytest.param("1" + "0" * 400, None, id="huge"),
        pytest.param("²", None, id="no-digit"),
        pytest.param("soon", None, id="garbage"),
        pytest.param("", None, id="empty"),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, expected: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == expected


def test_no_header_asks_for_nothing() -> None:
    assert (retry_after({}), backoff({})) == (None, None)


@pytest.mark.parametrize(("value", "expected"), [("10", 10), ("1" + "0" * 400, None), ("soon", None)])
def test_backoff_is_seconds(value: str, expected: float | None) -> None:
    assert backoff({"backoff": value}) == expected


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"retry": -1}, id="negative-retries"),
        pytest.param({"retry": 1.5}, id="half-a-retry"),
        pytest.param({"retry": True}, id="boolean-retries"),
        pytest.param({"retry_after": -1}, id="negative-wait"),
        pytest.param({"retry_after": "1"}, id="text"),
        pytest.param({"deadline": None}, id="no-deadline"),
        pytest.param({"deadline": math.nan}, id="nan"),
        pytest.param({"deadline": 0}, id="no-time"),
        pytest.param({"deadline": math.inf}, id="for-ever"),
        pytest.param({"on_backoff": "run"}, id="unknown-policy"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        WireOptions("http://kinto.test", **options).checked()


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


class Answering(HttpTransport):
    """A transport whose exchanges end as a script says."""

    def __init__(self, results: Sequence[Result], clock: Clock = CLOCK, **options: Any) -> None:
        super().__init__(WireOptions("http://kinto.test", **options), clock=clock)
        self.script = list(results)

    def _ask(self, request: Request, attempt: Attempt) -> Response:
        result = self.script.pop(0)
        if isinstance(result, KintoError):
            raise result
        return result


def test_waiting_does_not_block_the_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []

    async def asleep(seconds: float) -> None:
        waits.append(seconds)

    transport = Answering([REFUSED, KINTO_503, OK], Clock(asleep=asleep, random=lambda: 1.0))

    with caplog.at_level(logging.WARNING, "kinto_orm"):
        assert asyncio.run(transport.asend(SAFE)) is OK

    assert waits == [0.25, 0.5]
    assert [record.getMessage() for record in caplog.records] == [
        "PUT /buckets/b on kinto.test: ConnectionFailedError in attempt 1, again in 0.25 s",
        "PUT /buckets/b on kinto.test: 503 in attempt 2, again in 0.50 s",
    ]


def test_a_cancelled_call_sends_nothing_more() -> None:
    async def cancelled() -> list[Result]:
        transport = Answering([REFUSED, OK], retry_after=60)
        task = asyncio.create_task(transport.asend(SAFE))
        while len(transport.script) == 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return transport.script

    assert asyncio.run(cancelled()) == [OK]


def test_an_empty_budget_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    transport = Answering([REFUSED])
    transport._loop.budget.tokens = 0

    with caplog.at_level(logging.WARNING, "kinto_orm"), pytest.raises(ConnectionFailedError):
        transport.send(READ)

    assert "GET /buckets/b on kinto.test: not sent again, because the retry budget" in caplog.text

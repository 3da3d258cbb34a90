"""What went wrong with an exchange, as one of our errors."""

import http.client
import ssl
import zlib
from collections.abc import Callable

import pytest
import requests
import urllib3

from kinto_orm.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    KintoError,
    ProtocolError,
    TransportError,
)
from kinto_orm.transport.requests_errors import FinalConnectionError, translate


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
    ours = translate(error, "GET /buckets/b on kinto.test", is_read=True)

    assert type(ours) is expected
    assert str(ours).startswith("GET /buckets/b on kinto.test: ")


def test_what_the_caller_was_handling_does_not_count() -> None:
    """With a context of "refused", a lost write would look as if it had never been sent."""

    def handle(action: Callable[[], None]) -> None:
        try:
            raise urllib3.exceptions.ConnectTimeoutError
        except urllib3.exceptions.ConnectTimeoutError:
            action()

    def lose() -> None:
        raise requests.ReadTimeout

    with pytest.raises(requests.ReadTimeout) as caught:
        handle(lose)

    assert type(translate(caught.value, "PUT /", is_read=False)) is DeadlineError


def test_the_message_says_what_the_system_said() -> None:
    error = translate(aborted(ConnectionResetError(104, "Connection reset by peer")), "GET /", is_read=True)

    assert str(error).endswith("(Connection reset by peer)")


def test_the_credentials_do_not_travel_with_the_cause() -> None:
    request = requests.Request("GET", "http://kinto.test", auth=("user", "pass")).prepare()
    error = requests.ReadTimeout(request=request)

    translate(error, "GET /", is_read=True)

    assert error.request is None

"""No answer came, or none that a Kinto gives."""

from __future__ import annotations

from typing import Any

from kinto_orm.errors.usage import KintoError, rebuild

PROTOCOL_MESSAGE = 600


class TransportError(KintoError):
    """No answer came."""


class ConnectionFailedError(TransportError):
    """No connection: nothing was sent, so sending again is always safe."""


class LoginFailedError(ConnectionFailedError):
    """Nothing was sent: an auth object got no credentials from the server that it asked for them."""


class BackoffError(TransportError):
    """Nothing was sent: the server asks for a pause, of ``retry_after`` more seconds, which the call may not take."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {"retry_after": self.retry_after}))


class ConnectionLostError(TransportError):
    """The answer got lost: the server may or may not have applied the request."""


class DeadlineError(ConnectionLostError, TimeoutError):
    """The answer did not come in time: the server may or may not have applied the request."""


class AmbiguousWriteError(ConnectionLostError):
    """A write whose answer got lost was sent again, and its answer does not tell whether the first one was applied.

    What came instead is the cause of this error.
    """


class ProtocolError(KintoError):
    """The answer is none that a Kinto server gives. The message has less than 600 characters."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) < PROTOCOL_MESSAGE else f"{message[: PROTOCOL_MESSAGE - 2]}…")


class ResponseTooLargeError(ProtocolError):
    """The answer is larger than ``max_response_bytes``."""

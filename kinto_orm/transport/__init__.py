"""What sends requests: authentication, retries, and HTTP by ``requests``. Knows messages only."""

from kinto_orm.transport.auth import AuthInput, BasicAuth, BearerTokenAuth, parse_auth
from kinto_orm.transport.events import RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.transport.http import HttpTransport, parse_server_url
from kinto_orm.transport.retry import OnBackoff, RetryPolicy

__all__ = [
    "AuthInput",
    "BasicAuth",
    "BearerTokenAuth",
    "HttpTransport",
    "OnBackoff",
    "RequestEvent",
    "ResponseEvent",
    "RetryEvent",
    "RetryPolicy",
    "parse_auth",
    "parse_server_url",
]

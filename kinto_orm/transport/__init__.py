"""What sends requests: authentication, retries, and HTTP by ``requests``. Knows messages only."""

from kinto_orm.transport.auth import AuthInput, BasicAuth, BearerTokenAuth, parse_auth
from kinto_orm.transport.http import HttpTransport, RequestSent, parse_server_url
from kinto_orm.transport.retry import RetryPolicy

__all__ = [
    "AuthInput",
    "BasicAuth",
    "BearerTokenAuth",
    "HttpTransport",
    "RequestSent",
    "RetryPolicy",
    "parse_auth",
    "parse_server_url",
]

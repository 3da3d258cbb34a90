"""The senders of requests: authentication, retries, and HTTP by ``requests``. They know messages only."""

from kinto_orm.transport.auth import AuthInput, BasicAuth, BearerTokenAuth, parse_auth
from kinto_orm.transport.http import MAX_RESPONSE_BYTES, HttpTransport, merge_credentials, parse_server_url
from kinto_orm.transport.reporting import Alerts, RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.transport.retry import OnBackoff, RetryPolicy

__all__ = [
    "MAX_RESPONSE_BYTES",
    "Alerts",
    "AuthInput",
    "BasicAuth",
    "BearerTokenAuth",
    "HttpTransport",
    "OnBackoff",
    "RequestEvent",
    "ResponseEvent",
    "RetryEvent",
    "RetryPolicy",
    "merge_credentials",
    "parse_auth",
    "parse_server_url",
]

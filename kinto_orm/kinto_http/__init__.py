"""The drop-in for ``kinto-http``: change the import, and nothing else.

::

    from kinto_orm import kinto_http

    client = kinto_http.Client(server_url="http://localhost:8888/v1", auth=("alexis", "p4ssw0rd"))
    client.create_bucket(id="payments", if_not_exists=True)

Names, arguments, results and exceptions are the same; ``docs/migrating.md`` lists the differences.
"""

from __future__ import annotations

import logging

from kinto_orm.kinto_http import replication
from kinto_orm.kinto_http.client import AsyncClient, Client
from kinto_orm.kinto_http.endpoints import Endpoints
from kinto_orm.kinto_http.exceptions import (
    BackoffException,
    BucketNotFound,
    CollectionNotFound,
    ConnectionException,
    KintoBatchException,
    KintoException,
    TimeoutException,
)
from kinto_orm.kinto_http.login import BearerTokenAuth, BrowserOAuth, TokenAuth
from kinto_orm.kinto_http.session import Session, create_session

logger = logging.getLogger("kinto_http")

__all__ = [
    "AsyncClient",
    "BackoffException",
    "BearerTokenAuth",
    "BrowserOAuth",
    "BucketNotFound",
    "Client",
    "CollectionNotFound",
    "ConnectionException",
    "Endpoints",
    "KintoBatchException",
    "KintoException",
    "Session",
    "TimeoutException",
    "TokenAuth",
    "create_session",
    "logger",
    "replication",
]

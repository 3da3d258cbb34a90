"""Sockets whose answers end by the deadline of the call: also a status line or a header that comes byte by byte.

A timeout of a socket bounds each wait; a server that sends one byte now and then would never meet it.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager

# Of time.monotonic(). The pools of urllib3 hand nothing on to what reads an answer; one exchange is in one thread.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def answered_within(seconds: float) -> Generator[None]:
    """The answers to requests that are sent inside the block have to be read within so many seconds.

    Reading one that is late raises ``TimeoutError``.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


class DeadlineAdapter(HTTPAdapter):
    """The network, heeding :func:`answered_within`. Not for SOCKS proxies, which bring connections of their own."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Makes the pools."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """The pools of a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _Pool(HTTPConnectionPool):
    def _new_conn(self) -> Any:
        return _heeding(super()._new_conn())


class _TLSPool(HTTPSConnectionPool):
    def _new_conn(self) -> Any:
        return _heeding(super()._new_conn())


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TLSPool}


def _heeding(connection: Any) -> Any:
    # Not a class of connection of our own: vcrpy puts its own in the place of urllib3's.
    connection.response_class = Answer
    return connection


class Answer(http.client.HTTPResponse):
    """What http.client reads from a socket, from the status line on."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        deadline = _deadline.get()
        if deadline is not None:
            self.fp = io.BufferedReader(_Bounded(sock, self.fp.detach(), deadline))


class _Bounded(io.RawIOBase):
    """The reading end of a socket: no read of it ends after the deadline."""

    def __init__(self, sock: Any, inner: io.RawIOBase, deadline: float) -> None:
        self._socket = sock
        self._inner = inner
        self._deadline = deadline
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the call has passed")
        if self._timeout is None or left < self._timeout:
            self._socket.settimeout(left)
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()

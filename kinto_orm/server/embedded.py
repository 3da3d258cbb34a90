"""A Kinto in this process."""

from __future__ import annotations

import os
import secrets
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from kinto_orm.errors import InvalidTypeError, UsageError
from kinto_orm.server import forking
from kinto_orm.server.adapter import WSGIAdapter, read_whole
from kinto_orm.server.application import (
    Setting,
    backends,
    build_application,
    drop_connections,
    forget,
    merge_settings,
    migrate,
    own_services,
)
from kinto_orm.server.cluster import Cluster

SECRET = "userid_hmac_secret"


class EmbeddedServer:
    """A real Kinto in this process: ``EmbeddedServer.memory()`` or ``EmbeddedServer.postgres("data/")``.

    Keyword arguments are Kinto's settings, such as ``paginate_by=5``; environment variables like ``KINTO_PAGINATE_BY``
    count for nothing here. Calls are serialised by one lock, because Kinto's memory backend does not isolate threads
    from each other. A forked child gets a copy of a memory server, and shares a PostgreSQL one with its parent.
    https://docs.kinto-storage.org/en/stable/configuration/settings.html
    """

    url: str
    """The root URL, of a host that exists only where :meth:`adapter` is mounted."""
    settings: Mapping[str, Setting]
    """What Kinto was started with, without its secret."""

    def __init__(self, settings: Mapping[str, Setting], cluster: Cluster | None = None) -> None:
        self.lock = threading.RLock()
        self.url = f"http://kinto-{secrets.token_hex(4)}.embedded/v1"
        self.settings = MappingProxyType({name: value for name, value in settings.items() if name != SECRET})
        self._app: WSGIApplication | None = build_application(settings)
        self._cluster = cluster
        # Also runs when the server is garbage collected, and at the latest when Python ends.
        self._stop = weakref.finalize(self, _stop, own_services(self._app), cluster)
        forking.watch(self)

    @classmethod
    def memory(cls, *, flush: bool = False, **settings: Setting) -> Self:
        """A server whose data ends with it.

        ``flush=True`` adds the endpoint ``POST /__flush__``, by which *anybody* can remove everything.
        """
        return cls(merge_settings(settings, flush=flush, defaults={SECRET: secrets.token_hex(32)}))

    @classmethod
    def postgres(cls, data_dir: str | os.PathLike[str], *, flush: bool = False, **settings: Setting) -> Self:
        """A server that keeps its data in ``data_dir``, on a PostgreSQL of its own: durable, transactional, isolated.

        Raises ``UsageError`` while another server uses the directory.
        """
        cluster = Cluster(data_folder(data_dir))
        try:
            server = cls(merge_settings(settings, flush=flush, defaults=postgres_settings(cluster)), cluster)
            migrate(server._running())
        except BaseException:
            cluster.stop()
            raise
        return server

    def adapter(self) -> WSGIAdapter:
        """A ``requests`` adapter that calls this server; to be mounted on its :attr:`url`."""
        return WSGIAdapter(self.wsgi)

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]:
        """The server as a WSGI application: one call at a time, each complete before the next begins."""
        with self.lock:
            return [read_whole(self._running()(environ, start_response))]

    def flush(self) -> None:
        """Removes every object, permission and account, without a request."""
        with self.lock:
            for backend in backends(self._running()):
                backend.flush()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._app is None

    def close(self) -> None:
        """Ends the server, and its PostgreSQL; a second call does nothing."""
        with self.lock:
            if self._app is not None:
                drop_connections(self._app)
                self._app = None
                self._stop()

    def after_fork_in_child(self) -> None:
        """Forgets the connections of the parent process, which goes on using them."""
        if self._app is not None:
            drop_connections(self._app, close=False)

    def _running(self) -> WSGIApplication:
        if self._app is None:
            raise UsageError("This embedded server was closed: make another one.")
        return self._app

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        stop = getattr(self, "_stop", None)
        if stop is not None and stop.alive and self._cluster is not None:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        kind = "memory" if self._cluster is None else str(self._cluster.folder)
        return f"<{type(self).__name__} {self.url} ({kind}{', closed' if self.is_closed else ''})>"


def data_folder(data_dir: str | os.PathLike[str]) -> Path:
    """The folder to keep data in; raises ``UsageError`` for what cannot be one."""
    if not isinstance(cast(object, data_dir), (str, os.PathLike)):
        raise InvalidTypeError(f"data_dir is a path, not {data_dir!r:.60}.")
    if not os.fspath(data_dir):
        # As from a variable that is not set: the current folder would fill up unseen.
        raise UsageError("data_dir is empty: name a folder to keep the data in ('.' is the current one).")
    folder = Path(data_dir)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"data_dir is a folder to keep the data in, and {folder} is not a directory.")
    return folder


def postgres_settings(cluster: Cluster) -> dict[str, Setting]:
    """What makes Kinto use that PostgreSQL. The cache stays in memory: it is looked at in every request."""
    return {
        "storage_backend": "kinto.core.storage.postgresql",
        "storage_url": cluster.url(),
        "permission_backend": "kinto.core.permission.postgresql",
        "permission_url": cluster.url(),
        # Without it, If-Match is not exact between two processes. The permissions share the storage's connections.
        "storage_isolation_level": "REPEATABLE READ",
        "storage_pool_size": 2,
        SECRET: cluster.secret(),
    }


def _stop(services: Iterable[object], cluster: Cluster | None) -> None:
    forget(services)
    if cluster is not None:
        cluster.stop()

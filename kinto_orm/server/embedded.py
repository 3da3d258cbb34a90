"""A Kinto in this process."""

from __future__ import annotations

import os
import secrets
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Self
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from kinto_orm.errors import ConnectionFailedError, UsageError
from kinto_orm.server.adapter import WSGIAdapter, read_whole
from kinto_orm.server.application import (
    PREFIX,
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
    have no effect. Calls are serialised by one lock, because Kinto's memory backend does not isolate threads from each
    other. A forked child gets a copy of a memory server, and shares a PostgreSQL one with its parent.
    https://docs.kinto-storage.org/en/stable/configuration/settings.html
    """

    url: str
    """The root URL, of a host that exists only where :meth:`adapter` is mounted."""
    settings: Mapping[str, Setting]
    """The settings that Kinto was started with, without its secret."""

    def __init__(self, settings: Mapping[str, Setting], cluster: Cluster | None = None) -> None:
        self.lock = threading.RLock()
        self.url = f"http://kinto-{secrets.token_hex(4)}.embedded/v1"
        self.settings = MappingProxyType({name: value for name, value in settings.items() if name != SECRET})
        self._app: WSGIApplication | None = build_application(settings)
        self._cluster = cluster
        self._failure: str | None = None
        # Also runs when the server is garbage collected, and at the latest when Python ends.
        self._stop = weakref.finalize(self, _stop, own_services(self._app), cluster)
        _fork_safe.add(self)

    @classmethod
    def memory(cls, *, flush: bool = False, **settings: Setting) -> Self:
        """Start a server whose data ends with it.

        ``flush=True`` adds the endpoint ``POST /__flush__``, by which *anybody* can remove everything.
        """
        return cls(merge_settings(settings, flush=flush, defaults={SECRET: secrets.token_hex(32)}))

    @classmethod
    def postgres(cls, data_dir: str | os.PathLike[str], *, flush: bool = False, **settings: Setting) -> Self:
        """Start a server that keeps its data in ``data_dir``, on an embedded PostgreSQL: durable and transactional.

        Raises ``UsageError`` while another server uses the directory, and where its content is damaged.
        """
        cluster = Cluster(data_dir)
        try:
            defaults = postgres_settings(cluster)
            if not {SECRET, f"{PREFIX}{SECRET}"} & settings.keys():
                defaults[SECRET] = cluster.secret()
            server = cls(merge_settings(settings, flush=flush, defaults=defaults), cluster)
            migrate(server._running())
        except BaseException:
            cluster.stop()
            raise
        return server

    def adapter(self) -> WSGIAdapter:
        """Return a ``requests`` adapter that calls this server; mount it on the server's :attr:`url`."""
        return WSGIAdapter(self.wsgi)

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]:
        """Answer one call as a WSGI application does, before the next one begins.

        Raises ``ConnectionFailedError`` where the PostgreSQL of this server died and could not be started again.
        """
        with self.lock:
            app = self._running()
            self._revive(app)
            return [read_whole(app(environ, start_response))]

    def flush(self) -> None:
        """Remove every object, permission and account, without a request."""
        with self.lock:
            app = self._running()
            self._revive(app)
            for backend in backends(app):
                backend.flush()

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._app is None

    @property
    def failure(self) -> str | None:
        """The reason why the PostgreSQL of this server was given up; ``None`` as long as the server works."""
        return self._failure

    def close(self) -> None:
        """End the server, and its PostgreSQL; a second call does nothing."""
        with self.lock:
            if self._app is not None:
                drop_connections(self._app)
                self._app = None
                self._stop()

    def after_fork_in_child(self) -> None:
        """Forget the connections of the parent process, which goes on using them."""
        if self._app is not None:
            drop_connections(self._app, close=False)

    def _running(self) -> WSGIApplication:
        if self._app is None:
            raise UsageError("This embedded server was closed: make another one.")
        return self._app

    def _revive(self, app: WSGIApplication) -> None:
        """Start PostgreSQL again where it has died since the last call."""
        if self._cluster is None:
            return
        if self._failure is None:
            try:
                if self._cluster.revive():
                    drop_connections(app)
            except UsageError as error:
                self._failure = str(error)
        if self._failure is not None:
            raise ConnectionFailedError(self._failure)

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


def postgres_settings(cluster: Cluster) -> dict[str, Setting]:
    """Return the settings by which Kinto uses that PostgreSQL; the cache, which every request reads, is in memory."""
    return {
        "storage_backend": "kinto.core.storage.postgresql",
        "storage_url": cluster.url(),
        "permission_backend": "kinto.core.permission.postgresql",
        "permission_url": cluster.url(),
        # Without it, If-Match is not exact between two processes. The permissions share the storage's connections.
        "storage_isolation_level": "REPEATABLE READ",
        "storage_pool_size": 2,
        # PostgreSQL replaces its processes where one of them crashes.
        "storage_pool_pre_ping": True,
    }


def _stop(services: Iterable[object], cluster: Cluster | None) -> None:
    forget(services)
    if cluster is not None:
        cluster.stop()


# A fork copies the thread that forks and no other: the request of another thread would stay half done in the child,
# with the lock taken and a database connection that both processes use. So a fork waits until no request runs, as it
# does for the handlers of logging, and the child then forgets the connections it inherited.

_fork_safe: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()
_forking = threading.local()


def before_fork() -> None:
    """Wait until no server runs a request, and keep it so."""
    _forking.stack = ExitStack()
    _forking.servers = sorted(_fork_safe, key=id)  # always in one order: two threads may fork at once
    for server in _forking.servers:
        _forking.stack.enter_context(server.lock)


def after_fork_in_parent() -> None:
    """Let the requests go on."""
    _forking.stack.close()
    del _forking.servers


def after_fork_in_child() -> None:
    """Forget what belongs to the parent, and let requests go on."""
    for server in _forking.servers:
        server.after_fork_in_child()
    after_fork_in_parent()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, where nothing forks
    os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)

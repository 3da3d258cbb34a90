"""A Kinto in this process, and a real socket in front of it."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import os
import secrets
import socket
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from kinto_orm.errors import ConnectionFailedError, KintoError, UsageError
from kinto_orm.forks import fork_lock
from kinto_orm.server.adapter import WSGIAdapter, read_whole
from kinto_orm.server.application import (
    PREFIX,
    Setting,
    backends,
    build_application,
    drop_connections,
    forget,
    import_extra,
    merge_settings,
    migrate,
    registry_of,
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
        self.lock = fork_lock(self.after_fork_in_child)
        self.url = f"http://kinto-{secrets.token_hex(4)}.embedded/v1"
        self.settings = MappingProxyType({name: value for name, value in settings.items() if name != SECRET})
        self._app: WSGIApplication | None = build_application(settings)
        self._cluster = cluster
        self._failure: str | None = None
        # Also runs when the server is garbage collected, and at the latest when Python ends.
        self._stop = weakref.finalize(self, _stop, registry_of(self._app).own_services, cluster)

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

    def __exit__(self, *error: object) -> None:
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


# The server serialises the calls; the other threads are there because a slow reader of a large answer occupies one.
THREADS = 4
ENDED = {"code": 503, "errno": 201, "error": "Service Unavailable", "message": "This server has ended."}
OPTIONS = {"threads": THREADS, "ident": None, "clear_untrusted_proxy_headers": True}


class ServerThread:
    """An embedded server that listens in another thread; :attr:`url` is its real root URL.

    ``port=0`` lets the system choose a free one. By another ``host`` than the default, other machines reach the server:
    it is open to them as its settings say.
    """

    def __init__(self, server: EmbeddedServer, host: str = "127.0.0.1", port: int = 0) -> None:
        # As every library should: without a handler, remarks about the queue's length go to stderr.
        logging.getLogger("waitress").addHandler(logging.NullHandler())
        create_server = import_extra("waitress.server").create_server
        self._loop: Callable[..., None] = import_extra("waitress.wasyncore").loop
        self._server = server
        self._sockets: dict[int, object] = {}
        self._pulling = threading.Lock()
        self._is_closing = False
        self._has_ended = threading.Event()
        bound = bind(host, port)
        self.url = root_url(host, bound.getsockname()[1])
        app = behind_waitress(server.wsgi)
        self._waitress: Any = create_server(app, map=self._sockets, sockets=[bound], **OPTIONS)
        self._thread = threading.Thread(target=self._run, name=f"kinto-orm {self.url}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until another thread stops it; a signal's exception ends the waiting, not the server.

        Raises ``ConnectionFailedError`` where the server's PostgreSQL died and could not be started again.
        """
        # Not join(): interrupted, it takes the thread for ended. Not for ever: Windows would not be interruptible.
        while not self._has_ended.wait(timeout=1):
            if self._server.failure is not None:
                raise ConnectionFailedError(self._server.failure)

    def stop(self) -> None:
        """Close the socket and every connection, and let running calls finish; the server itself stays.

        A second call does nothing.
        """
        if not self._thread.is_alive():
            return
        with self._pulling:
            if not self._is_closing:
                self._is_closing = True
                self._waitress.trigger.pull_trigger(self._close)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop(map=self._sockets, use_poll=True)
        finally:
            try:
                self._close()
            finally:
                self._has_ended.set()

    def _close(self) -> None:
        # Something else may have woken the loop up: the trigger stays open until stop() has pulled it.
        with self._pulling:
            self._is_closing = True
        # In this order: a worker may wait for its client, and uses the trigger. Without sockets the loop ends.
        for channel in list(self._waitress.active_channels.values()):
            channel.handle_close()
        self._waitress.task_dispatcher.shutdown()
        self._waitress.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


@contextmanager
def listening(server: EmbeddedServer, *, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Let the server listen as long as the block lasts; yield its root URL."""
    with ServerThread(server, host, port) as thread:
        yield thread.url


def serve(
    server: EmbeddedServer, host: str = "127.0.0.1", port: int = 8888, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve until an exception such as ``KeyboardInterrupt`` ends it in this thread, which is raised again.

    ``on_ready`` is called with the root URL once the socket is open. Raises ``UsageError`` where it cannot be opened,
    and ``ConnectionFailedError`` where the server's PostgreSQL died and could not be started again.
    """
    # In another thread: an exception out of a signal handler, in the middle of closing a connection, would
    # leave that connection's socket open.
    with ServerThread(server, host, port) as thread:
        if on_ready is not None:
            on_ready(thread.url)
        thread.wait()


def behind_waitress(app: WSGIApplication) -> WSGIApplication:
    """Return an application that answers 503 where the server raises: the reason is for its process alone."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]:
        # waitress has read the body: webob need not copy it, a large one to a file that it leaves open.
        environ["webob.is_body_seekable"] = True
        try:
            return app(environ, start_response)
        except KintoError:
            start_response("503 Service Unavailable", [("Content-Type", "application/json")])
            return [json.dumps(ENDED).encode()]

    return answer


def is_local(host: str) -> bool:
    """Return whether no other machine reaches a server that listens on that address or name."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host or "0.0.0.0", None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises ``UsageError`` where the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"Cannot listen on port {port}: it must be 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        hint = ": stop what listens there, or take another one (0 takes any free one)"
        reason = f"is already in use{hint}" if error.errno == errno.EADDRINUSE else f": {error}"
        raise UsageError(f"Cannot listen on {host}: port {port} {reason}.") from error


def root_url(host: str, port: int) -> str:
    """Return the root URL of a Kinto that listens there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

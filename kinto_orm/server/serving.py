"""An embedded server behind a real socket."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from kinto_orm.errors import ConnectionFailedError, KintoError, UsageError
from kinto_orm.server.application import import_extra
from kinto_orm.server.embedded import EmbeddedServer

# The server serialises the calls; the other threads are there because a slow reader of a large answer occupies one.
THREADS = 4
ENDED = {"code": 503, "errno": 201, "error": "Service Unavailable", "message": "This server has ended."}
OPTIONS = {"threads": THREADS, "ident": None, "clear_untrusted_proxy_headers": True}


class Listener:
    """A socket in front of a server: bound at once, answering while :meth:`run` runs."""

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        # As every library should: without a handler, remarks about the queue's length go to stderr.
        logging.getLogger("waitress").addHandler(logging.NullHandler())
        create_server = import_extra("waitress.server").create_server
        self._loop: Callable[..., None] = import_extra("waitress.wasyncore").loop
        self._sockets: dict[int, object] = {}
        self._pulling = threading.Lock()
        self._is_closing = False
        bound = bind(host, port)
        self.url = root_url(host, bound.getsockname()[1])
        self._waitress: Any = create_server(app, map=self._sockets, sockets=[bound], **OPTIONS)

    def run(self) -> None:
        """Answer until another thread calls :meth:`stop`."""
        try:
            self._loop(map=self._sockets, use_poll=True)
        finally:
            self._close()

    def stop(self) -> None:
        """Close all connections, let running calls finish, and make :meth:`run` return."""
        with self._pulling:
            if not self._is_closing:
                self._is_closing = True
                self._waitress.trigger.pull_trigger(self._close)

    def _close(self) -> None:
        # Something else may have woken the loop up: the trigger stays open until stop() has pulled it.
        with self._pulling:
            self._is_closing = True
        # In this order: a worker may wait for its client, and uses the trigger. Without sockets the loop ends.
        for channel in list(self._waitress.active_channels.values()):
            channel.handle_close()
        self._waitress.task_dispatcher.shutdown()
        self._waitress.close()


class ServerThread:
    """An embedded server that listens in another thread; :attr:`url` is its real root URL.

    ``port=0`` lets the system choose a free one. By another ``host`` than the default, other machines reach the server:
    it is open to them as its settings say.
    """

    def __init__(self, server: EmbeddedServer, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = server
        self._listener = Listener(hide_errors(server.wsgi), host, port)
        self.url = self._listener.url
        self._has_ended = threading.Event()
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

    def _run(self) -> None:
        try:
            self._listener.run()
        finally:
            self._has_ended.set()

    def stop(self) -> None:
        """Close the socket and every connection; the server itself stays. A second call does nothing."""
        if self._thread.is_alive():
            self._listener.stop()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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


def hide_errors(app: WSGIApplication) -> WSGIApplication:
    """Return an application that answers 503 where the server raises: the reason is for its process alone."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]:
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

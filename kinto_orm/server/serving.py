"""An embedded server behind a real socket."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self
from wsgiref.types import WSGIApplication

from kinto_orm.errors import UsageError
from kinto_orm.server.application import import_extra
from kinto_orm.server.embedded import EmbeddedServer

# The server serialises the calls; the other threads are there because a slow reader of a large answer occupies one.
THREADS = 4
OPTIONS = {"threads": THREADS, "ident": None, "clear_untrusted_proxy_headers": True}


class Trigger(Protocol):
    """Waitress' way to call a function in the thread of its loop."""

    def pull_trigger(self, thunk: Callable[[], None]) -> None:
        """Wakes the loop and has it call ``thunk``."""
        ...


class Workers(Protocol):
    """Waitress' threads."""

    def shutdown(self) -> bool:
        """Lets them finish what they do, a few seconds at most."""
        ...


class Channel(Protocol):
    """A connection of a client."""

    def handle_close(self) -> None:
        """Closes it, and its buffers, which are files where an answer is large."""
        ...


class WaitressServer(Protocol):
    """A waitress server, as far as it is used here."""

    trigger: Trigger
    task_dispatcher: Workers
    active_channels: dict[int, Channel]

    def close(self) -> None:
        """Closes the listening socket and the trigger."""
        ...


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
        self._waitress: WaitressServer = create_server(app, map=self._sockets, sockets=[bound], **OPTIONS)

    def run(self) -> None:
        """Answers until another thread calls :meth:`stop`."""
        try:
            self._loop(map=self._sockets, use_poll=True)
        finally:
            self._close()

    def stop(self) -> None:
        """Closes all connections, lets running calls come to their end, and makes :meth:`run` return."""
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
    """An embedded server listening in a thread of its own; :attr:`url` is its real root URL.

    ``port=0`` lets the system choose a free one.
    """

    def __init__(self, server: EmbeddedServer, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = Listener(server.wsgi, host, port)
        self.url = self._listener.url
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kinto-orm {self.url}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits for another thread to stop it; a signal's exception ends the waiting, not the server."""
        # Not join(): interrupted, it takes the thread for ended. Not for ever: Windows would not be interruptible.
        while not self._has_ended.wait(timeout=1):
            pass

    def _run(self) -> None:
        try:
            self._listener.run()
        finally:
            self._has_ended.set()

    def stop(self) -> None:
        """Closes the socket and every connection; the server itself stays. A second call does nothing."""
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
    """The root URL by which the server is reached as long as the block lasts."""
    with ServerThread(server, host, port) as thread:
        yield thread.url


def serve(
    server: EmbeddedServer, host: str = "127.0.0.1", port: int = 8888, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serves until an exception such as ``KeyboardInterrupt`` ends it in this thread, which is raised again.

    ``on_ready`` is called with the root URL once the socket is open. Raises ``UsageError`` where it cannot be opened.
    """
    # In a thread of its own: an exception out of a signal handler, in the middle of closing a connection, would
    # leave that connection's socket open.
    with ServerThread(server, host, port) as thread:
        if on_ready is not None:
            on_ready(thread.url)
        thread.wait()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket."""
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
    """The root URL of a Kinto that listens there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

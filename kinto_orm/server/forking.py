"""Embedded servers across ``os.fork``.

A fork copies the thread that forks and no other: the request of another thread would stay half done in the child, with
the lock taken and a database connection that both processes use. So a fork waits until no request runs, as it does for
the handlers of ``logging``, and the child then forgets the connections it inherited.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack
from typing import Protocol


class Forkable(Protocol):
    """A server that may find itself in a forked child."""

    lock: threading.RLock

    def after_fork_in_child(self) -> None:
        """Forgets what belongs to the parent."""
        ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_held = threading.local()


def watch(server: Forkable) -> None:
    """From now on, no fork happens during a request of this server."""
    _watched.add(server)


def _before() -> None:
    _held.stack = ExitStack()
    _held.servers = sorted(_watched, key=id)  # always in one order: two threads may fork at once
    for server in _held.servers:
        _held.stack.enter_context(server.lock)


def _after_in_parent() -> None:
    _held.stack.close()
    del _held.servers


def _after_in_child() -> None:
    for server in _held.servers:
        server.after_fork_in_child()
    _after_in_parent()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, where nothing forks
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

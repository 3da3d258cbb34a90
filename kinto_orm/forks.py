"""Locks that a forked child finds free.

A fork copies the thread that forks and no other. What another thread was doing stays half done in the child: with its
lock taken, which no thread gives back, and with connections that now belong to two processes. So a fork waits for each
of these locks, as it does for those of the handlers of logging, and the child forgets what belongs to its parent.
https://docs.python.org/3/library/os.html#os.register_at_fork
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from weakref import WeakMethod, ref

_numbers = count()
_known: dict[int, tuple[ref[threading.RLock], WeakMethod[Callable[[], object]] | None]] = {}
"""The locks in the order in which they were made, and what to call in a child; their owners may go at any time."""

_forking = threading.local()


def fork_lock(in_child: Callable[[], object] | None = None) -> threading.RLock:
    """Return a lock that a fork waits for.

    ``in_child``, a method of the lock's owner, is called in the child, which holds all the locks then. A thread that
    holds one of these locks may ask for an older one, not for a younger one.
    """
    lock, number = threading.RLock(), next(_numbers)
    method = None if in_child is None else WeakMethod(in_child)
    _known[number] = ref(lock, lambda _: _known.pop(number, None)), method
    return lock


def before_fork() -> None:
    """Wait until no other thread holds one of the locks, and keep it so."""
    known = list(_known.values())[::-1]  # at once, because other threads make locks
    _forking.methods = [method for _, method in known if method is not None]
    _forking.locks = [lock for one, _ in known if (lock := one()) is not None]
    for lock in _forking.locks:
        lock.acquire()


def after_fork_in_parent() -> None:
    """Let the other threads go on."""
    for lock in _forking.__dict__.pop("locks"):
        lock.release()


def after_fork_in_child() -> None:
    """Forget what belongs to the parent, and free the locks."""
    for method in _forking.methods:
        if (in_child := method()) is not None:
            in_child()
    after_fork_in_parent()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, where nothing forks
    os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)

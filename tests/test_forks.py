"""Locks that a forked child finds free."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest

from kinto_orm import forks
from kinto_orm.forks import fork_lock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here"),
    # Python 3.12 warns of a fork beside threads.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Owner:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = fork_lock(self.enter_process)

    def enter_process(self) -> None:
        self.process = os.getpid()


def is_free(lock: threading.RLock) -> bool:
    """Return whether another thread can have the lock."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return found[0]


def test_a_fork_waits_for_the_locks_and_frees_them() -> None:
    owner, younger, taken = Owner(), fork_lock(), threading.Event()

    def work() -> None:
        with younger, owner.lock:
            taken.set()
            time.sleep(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(60)

    child = os.fork()
    if child == 0:
        is_ready = owner.process == os.getpid() and is_free(owner.lock) and is_free(younger)
        os._exit(0 if is_ready else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert owner.process == os.getpid() and is_free(owner.lock) and is_free(younger)
    thread.join()


def test_what_is_gone_is_forgotten() -> None:
    gc.collect()
    known = len(forks._known)
    owner = Owner()
    assert len(forks._known) == known + 1

    del owner

    assert len(forks._known) == known

"""Work that is done again and again, in a thread of this process and of each forked child."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable

from kinto_orm.errors import ClientClosedError, InvalidValueError, KintoError
from kinto_orm.protocol.paging import check_finite, random_wait

logger = logging.getLogger("kinto_orm")


class Repetition:
    """Calls ``work`` about every so many seconds, the first time at once.

    The waits differ, so that many processes do not ask at the same moment.
    Errors of kinto_orm are given to ``on_error``, and the next call comes at its time, unless the client was closed.
    """

    def __init__(self, work: Callable[[], object], every: float, on_error: Callable[[KintoError], object]) -> None:
        if not check_finite("every", every):
            raise InvalidValueError("every is a number of seconds above 0, not 0.")
        self._work, self._every, self._on_error = work, every, on_error
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; in a forked process, again: a fork copies no threads."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stopped,), name="kinto-orm mirror", daemon=True)
        _running.add(self)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the call that it is at; a second call does nothing."""
        _running.discard(self)
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                self._work()
            except KintoError as error:
                self._on_error(error)
                if isinstance(error, ClientClosedError):
                    return
            except Exception:
                # The caller's own code, or a fault of ours: the thread goes on, and the log has it.
                logger.exception("The work in the background failed")
            stopped.wait(random_wait(self._every))


_running: weakref.WeakSet[Repetition] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, where nothing forks
    os.register_at_fork(after_in_child=lambda: list(map(Repetition.start, list(_running))))

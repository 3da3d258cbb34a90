"""A terminal for programs, and all that they show in it."""

from __future__ import annotations

import contextlib
import os
import pty
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def show_in_terminal(run: Callable[[int], T]) -> tuple[T, str]:
    """Call the function with the descriptor of a terminal; return its result, and the text of the terminal."""
    terminal, end = pty.openpty()
    with ThreadPoolExecutor() as reader:
        text = reader.submit(_read_all, terminal)
        try:
            result = run(end)
        finally:
            os.close(end)
        shown = text.result()
    os.close(terminal)
    return result, shown


def _read_all(terminal: int) -> str:
    """Return the text of a terminal until its other end is closed: one read returns no more than 4 kB."""
    pieces = []
    with contextlib.suppress(OSError):  # Linux ends it so
        while piece := os.read(terminal, 1 << 16):
            pieces.append(piece)
    return b"".join(pieces).decode()

"""What is no error: warnings, which the standard library shows once or turns into errors, as it is told."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

_HERE = str(Path(__file__).parents[1])


def warn_user(message: str, category: type[Warning]) -> None:
    """Warns, naming the first line up the stack that is not ours."""
    frame = inspect.currentframe()
    level = 0
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


class AlertWarning(DeprecationWarning):
    """The server says by its header ``Alert`` that it, or what was used of it, will end.

    https://docs.kinto-storage.org/en/stable/api/1.x/deprecation.html
    """


class PrincipalWarning(UserWarning):
    """The principal is of a form that matches nobody: Kinto takes it, and nobody gets the permission."""

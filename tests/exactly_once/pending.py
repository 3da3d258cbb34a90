"""What the client cannot do yet: each of these is expected to fail, and the test fails when it does not."""

from __future__ import annotations

PENDING: frozenset[tuple[str, str]] = frozenset()
"""The ids of verbs and faults, as in ``("Record.save-new", "drop_after")``."""

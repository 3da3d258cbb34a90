"""What the client cannot do yet: each of these is expected to fail, and the test fails when it does not."""

from __future__ import annotations

from fault_proxy import FAULTS
from oracle import HARMLESS, NOT_APPLIED

PENDING: frozenset[tuple[str, str]] = frozenset(
    # A batch with a lock counts as forced, because of the lock's own write, which may well be sent twice.
    ("UnitOfWork.commit-locked", fault)
    for fault in FAULTS
    if fault not in (*HARMLESS, *NOT_APPLIED)
)
"""The ids of verbs and faults, as in ``("Record.save-new", "drop_after")``."""

"""What the client cannot do yet: each of these is expected to fail, and the test fails when it does not."""

from __future__ import annotations

from oracle import HARMLESS
from trials import trials

PENDING: frozenset[tuple[str, str]] = frozenset(
    (trial.verb.id, trial.fault) for trial in trials() if trial.must_succeed and trial.fault not in HARMLESS
)
"""The ids of verbs and faults after which the client has to send again, which it does not do yet."""

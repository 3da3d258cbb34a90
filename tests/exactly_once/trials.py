"""Which verb meets which fault, and how often in a row.

Each verb meets each fault once, and more where that takes no long time; the full product takes minutes, and is run
with ``HYPOTHESIS_PROFILE=nightly``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from fault_proxy import FAULTS
from oracle import Trial
from verbs import READ_VERBS, VERBS, Verb

IS_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

OFTEN = {"Record.save-new", "Record.patch-values", "Record.delete-loaded", "UnitOfWork.commit"}
"""The verbs that stand for the others in what takes long: one for each kind of request."""
LARGE = {"UnitOfWork.commit-chunks"}
"""These may take the server longer than a client waits that expects it to hang."""
WITHOUT_BODY = {"Query.count", "Query.timestamp"}
"""These ask by HEAD: there is no body to cut short."""


def times(fault: str, verb: Verb) -> tuple[int, ...]:
    """How often in a row."""
    is_full = IS_NIGHTLY or verb.id in OFTEN
    if fault == "delay":
        return (1,)
    if fault == "hang_after":
        return () if verb.id in LARGE else (1, 3) if is_full else (1,)
    if is_full:
        return 1, 2, 3
    return (1, 3) if fault in ("drop_after", "503_before") else (1,)


def retry(fault: str) -> int:
    """How often the client may send again."""
    # With the short timeout of these trials, a busy machine may make other requests fail as well.
    return 6 if fault == "hang_after" else 3


def trials() -> Iterator[Trial]:
    """All of them."""
    for verb in VERBS:
        for fault in FAULTS:
            yield from (Trial(verb, fault, number, retry(fault)) for number in times(fault, verb))
        yield Trial(verb, "drop_after", 4)
        yield from (Trial(verb, fault, retry=0) for fault in ("drop_before", "drop_after"))
        yield Trial(verb, "drop_after", is_twin=True)
        yield Trial(verb, "drop_after", is_strict=True)
    for verb in READ_VERBS:
        faults = (fault for fault in FAULTS if not (verb.id in WITHOUT_BODY and fault.startswith("truncate")))
        yield from (Trial(verb, fault, 2, retry(fault)) for fault in faults if fault != "delay")

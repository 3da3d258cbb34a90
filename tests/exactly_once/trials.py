"""Which verb meets which fault, and how often in a row."""

from __future__ import annotations

from collections.abc import Iterator

from fault_proxy import FAULTS
from oracle import Trial
from verbs import READ_VERBS, VERBS, Verb

OFTEN = {"Record.save-new", "Record.patch-values", "Record.delete-loaded", "UnitOfWork.commit"}
"""The verbs that stand for the others in what takes long: one for each kind of request."""
WITHOUT_BODY = {"Query.count", "Query.timestamp"}
"""These ask by HEAD: there is no body to cut short."""


def times(fault: str, verb: Verb) -> tuple[int, ...]:
    """How often in a row."""
    if fault == "delay":
        return (1,)
    if fault == "hang_after":
        return (1, 3) if verb.id in OFTEN else (1,)
    return (1, 2, 3) if verb.method.startswith("Record.") or verb.id in OFTEN else (1, 3)


def retry(fault: str) -> int:
    """How often the client may send again."""
    # With the short timeout of these trials, a busy machine may make other requests fail as well.
    return 6 if fault == "hang_after" else 3


def trials() -> Iterator[Trial]:
    for verb in VERBS:
        for fault in FAULTS:
            yield from (Trial(verb, fault, number, retry(fault)) for number in times(fault, verb))
        yield Trial(verb, "drop_after", 4)
        yield from (Trial(verb, fault, retry=0) for fault in ("drop_before", "drop_after", "truncate_no_length"))
        yield from (Trial(verb, fault, is_twin=True) for fault in ("drop_after", "503_before"))
    for verb in READ_VERBS:
        faults = (fault for fault in FAULTS if not (verb.id in WITHOUT_BODY and fault.startswith("truncate")))
        yield from (Trial(verb, fault, 2, retry(fault)) for fault in faults if fault != "delay")

"""Many intents in batches, and one honest outcome for each: what an outcome is (``outcome``), how a batch is sent and
read (``commit``), streams of any length (``bulk``), locks (``locking``)."""

from kinto_orm.unit_of_work.bulk import (
    Bulk,
    BulkReport,
    commit_all,
    full_batch,
    raise_for_report,
    report_of,
    stage_changed,
)
from kinto_orm.unit_of_work.engine import CommitOptions, commit
from kinto_orm.unit_of_work.lock import create_lock, lock_of, lock_write
from kinto_orm.unit_of_work.outcome import Outcome, OutcomeStatus, Staged, prepare, raise_unless_stored

__all__ = [
    "Bulk",
    "BulkReport",
    "CommitOptions",
    "Outcome",
    "OutcomeStatus",
    "Staged",
    "commit",
    "commit_all",
    "create_lock",
    "full_batch",
    "lock_of",
    "lock_write",
    "prepare",
    "raise_for_report",
    "raise_unless_stored",
    "report_of",
    "stage_changed",
]

"""Many intents in batches, and one honest outcome for each: what an outcome is (``outcome``), how a batch is sent and
read (``commit``), streams of any length (``bulk``), and how what was stored is undone (``compensation``)."""

from kinto_orm.outcomes.bulk import Bulk, BulkReport, commit_all, raise_for_report, stage_changed
from kinto_orm.outcomes.commit import CommitOptions, commit
from kinto_orm.outcomes.locking import create_lock, lock_path, lock_write
from kinto_orm.outcomes.outcome import Outcome, Staged, raise_unless_stored

__all__ = [
    "Bulk",
    "BulkReport",
    "CommitOptions",
    "Outcome",
    "Staged",
    "commit",
    "commit_all",
    "create_lock",
    "lock_path",
    "lock_write",
    "raise_for_report",
    "raise_unless_stored",
    "stage_changed",
]

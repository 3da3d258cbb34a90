"""Many writes in batches, and one honest outcome for each: the engine (``batches``: entries to answers; ``engine``:
changes to outcomes), units and their locks (``unit_of_work``, ``staging``), streams of any length (``bulk``)."""

from kinto_orm.repository.state import Outcome, OutcomeStatus
from kinto_orm.unit_of_work.batches import full_batch
from kinto_orm.unit_of_work.bulk import (
    Answered,
    Bulk,
    BulkReport,
    add_note,
    change_of,
    changes_of,
    outcome_of,
    raise_for_report,
    report_of,
)
from kinto_orm.unit_of_work.engine import CommitOptions, carry_out, commit, raise_unless_stored
from kinto_orm.unit_of_work.unit_of_work import lock_of, open_unit, refuse_staging, stage

__all__ = [
    "Answered",
    "Bulk",
    "BulkReport",
    "CommitOptions",
    "Outcome",
    "OutcomeStatus",
    "add_note",
    "carry_out",
    "change_of",
    "changes_of",
    "commit",
    "full_batch",
    "lock_of",
    "open_unit",
    "outcome_of",
    "raise_for_report",
    "raise_unless_stored",
    "refuse_staging",
    "report_of",
    "stage",
]

"""Each verb on one object, as a flow: what is sent (``verbs``), what the answer means (``settling``), the reads and
creations around it (``lookups``), what it was like before (``history``), what the server must be able to do
(``capabilities``), what its operator asks of it (``upkeep``), and what changed in a collection (``changesets``)."""

from kinto_orm.repository.capabilities import require_capability, require_kind
from kinto_orm.repository.changesets import MONITOR, Changeset, bust, changeset_query, read_changeset
from kinto_orm.repository.history import (
    conditions_about,
    deletion_of,
    history_path,
    incomplete_history,
    read_version,
    require_history,
    version_at,
    version_in,
)
from kinto_orm.repository.lookups import (
    get,
    get_or_create,
    get_or_none,
    ids_in_chunks,
    read_server_info,
    update_or_create,
)
from kinto_orm.repository.settling import Settled, doubted, rebase, rebase_onto, settle, settle_at_once, wanted_data
from kinto_orm.repository.upkeep import Heartbeat, flush, read_deployment, read_heartbeat, read_personal_bucket
from kinto_orm.repository.verbs import SERVER_OWNED, check_data, is_schema_timestamp, plan

__all__ = [
    "MONITOR",
    "SERVER_OWNED",
    "Changeset",
    "Heartbeat",
    "Settled",
    "bust",
    "changeset_query",
    "check_data",
    "conditions_about",
    "deletion_of",
    "doubted",
    "flush",
    "get",
    "get_or_create",
    "get_or_none",
    "history_path",
    "ids_in_chunks",
    "incomplete_history",
    "is_schema_timestamp",
    "plan",
    "read_changeset",
    "read_deployment",
    "read_heartbeat",
    "read_personal_bucket",
    "read_server_info",
    "read_version",
    "rebase",
    "rebase_onto",
    "require_capability",
    "require_history",
    "require_kind",
    "settle",
    "settle_at_once",
    "update_or_create",
    "version_at",
    "version_in",
    "wanted_data",
]

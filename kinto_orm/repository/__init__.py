"""Each verb on one object, as a flow: what is sent (``verbs``), what the answer means (``settling``), the reads and
creations around it (``lookups``), and what the server must be able to do (``capabilities``)."""

from kinto_orm.repository.capabilities import require_capability, require_kind
from kinto_orm.repository.lookups import (
    get,
    get_or_create,
    get_or_none,
    ids_in_chunks,
    read_server_info,
    read_version,
    update_or_create,
)
from kinto_orm.repository.settling import Settled, doubted, rebase, rebase_onto, settle, wanted_data
from kinto_orm.repository.verbs import SERVER_OWNED, check_data, is_schema_timestamp, plan

__all__ = [
    "SERVER_OWNED",
    "Settled",
    "check_data",
    "doubted",
    "get",
    "get_or_create",
    "get_or_none",
    "ids_in_chunks",
    "is_schema_timestamp",
    "plan",
    "read_server_info",
    "read_version",
    "rebase",
    "rebase_onto",
    "require_capability",
    "require_kind",
    "settle",
    "update_or_create",
    "wanted_data",
]

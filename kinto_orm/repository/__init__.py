"""Verbs on one object: the write (``verbs``), the meaning of its answer (``reconciling``), the ways out of a conflict
(``conflicts``), reads and creations (``reads``), earlier versions (``history``), and their values (``state``).
"""

from kinto_orm.repository.history import (
    conditions_about,
    deletion_of,
    history_path,
    incomplete_history,
    read_permissions,
    read_version,
    require_history,
    version_at,
    version_in,
)
from kinto_orm.repository.reads import (
    get,
    get_or_create,
    get_or_none,
    ids_in_chunks,
    or_none,
    read_server_info,
    require_capability,
    require_kind,
)
from kinto_orm.repository.reconciling import (
    Verdict,
    doubted,
    rebase,
    rebase_onto,
    reconcile,
    reconcile_at_once,
    wanted_data,
)
from kinto_orm.repository.verbs import (
    SERVER_OWNED,
    Creations,
    check_data,
    encode_change,
    is_schema_timestamp,
    plan,
    without_schema_timestamp,
)

__all__ = [
    "SERVER_OWNED",
    "Creations",
    "Verdict",
    "check_data",
    "conditions_about",
    "deletion_of",
    "doubted",
    "encode_change",
    "get",
    "get_or_create",
    "get_or_none",
    "history_path",
    "ids_in_chunks",
    "incomplete_history",
    "is_schema_timestamp",
    "or_none",
    "plan",
    "read_permissions",
    "read_server_info",
    "read_version",
    "rebase",
    "rebase_onto",
    "reconcile",
    "reconcile_at_once",
    "require_capability",
    "require_history",
    "require_kind",
    "version_at",
    "version_in",
    "wanted_data",
    "without_schema_timestamp",
]

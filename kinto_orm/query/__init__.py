"""Lazy selections of a list: what is asked (``selection``), how it is read (``reading``), and what is public of it:
``Query``; of entries without a URL (``entries``); of what a collection was like (``snapshot``)."""

from kinto_orm.query.building import check_count, moment
from kinto_orm.query.entry_query import EntryQuery, History, history_of, permissions_of
from kinto_orm.query.execution import LoadedRows, Page, Place, Reading, Row, Source
from kinto_orm.query.frames import empty_table, import_extra, read_columns, to_pandas
from kinto_orm.query.query import MOST_THREADS, ParallelQuery, Partition, Query

__all__ = [
    "MOST_THREADS",
    "EntryQuery",
    "History",
    "LoadedRows",
    "Page",
    "ParallelQuery",
    "Partition",
    "Place",
    "Query",
    "Reading",
    "Row",
    "Source",
    "check_count",
    "empty_table",
    "history_of",
    "import_extra",
    "moment",
    "permissions_of",
    "read_columns",
    "to_pandas",
]

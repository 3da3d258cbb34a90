"""Lazy selections of a list: ``building`` makes them, ``execution`` reads them, ``query`` is their public face.

``entry_query`` is for entries without a URL, ``gather`` for queries that share a request, ``partitions`` for ranges of
ids, ``frames`` for tables.
"""

from kinto_orm.query.building import check_count, moment
from kinto_orm.query.cached import CachedQuery
from kinto_orm.query.entry_query import EntryQuery, History, history_of, permissions_of
from kinto_orm.query.execution import LoadedRows, Page, PageWalk, Place, RawRows, Reading, Row, Selection, Source
from kinto_orm.query.frames import empty_table, import_extra, read_columns, to_pandas
from kinto_orm.query.query import MOST_THREADS, ParallelQuery, Partition, Query

__all__ = [
    "MOST_THREADS",
    "CachedQuery",
    "EntryQuery",
    "History",
    "LoadedRows",
    "Page",
    "PageWalk",
    "ParallelQuery",
    "Partition",
    "Place",
    "Query",
    "RawRows",
    "Reading",
    "Row",
    "Selection",
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

"""Lazy selections of a list: what is asked (``selection``), how it is read (``reading``), and what is public of it:
``Query``; of entries without a URL (``entries``); of what a collection was like (``snapshot``)."""

from kinto_orm.query.entries import EntryQuery, History, history_of, permissions_of
from kinto_orm.query.query import Query
from kinto_orm.query.reading import LoadedRows, Page, Place, Reading, Source
from kinto_orm.query.refining import check_count, moment
from kinto_orm.query.snapshot import Snapshot

__all__ = [
    "EntryQuery",
    "History",
    "LoadedRows",
    "Page",
    "Place",
    "Query",
    "Reading",
    "Snapshot",
    "Source",
    "check_count",
    "history_of",
    "moment",
    "permissions_of",
]

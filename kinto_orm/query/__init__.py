"""Lazy selections of a list: what is asked (``selection``), how it is read (``reading``), and the public ``Query``."""

from kinto_orm.query.query import Query
from kinto_orm.query.reading import LoadedRows, Page, Place, Reading, Source

__all__ = ["LoadedRows", "Page", "Place", "Query", "Reading", "Source"]

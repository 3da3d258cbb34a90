"""Lazy selections of a list: what is asked (``selection``), how it is read (``reading``), and the public ``Query``."""

from kinto_orm.query.columns import Row, import_extra
from kinto_orm.query.frames import empty_table, read_columns, to_pandas
from kinto_orm.query.parallel import MOST_THREADS, ParallelQuery
from kinto_orm.query.query import Partition, Query
from kinto_orm.query.reading import LoadedRows, Page, Place, Reading, Source
from kinto_orm.query.refining import check_count
from kinto_orm.query.together import gathered

__all__ = [
    "MOST_THREADS",
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
    "gathered",
    "import_extra",
    "read_columns",
    "to_pandas",
]

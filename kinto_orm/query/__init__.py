"""Lazy selections of a list: ``building`` makes them, ``execution`` reads them, ``query`` is their public face.

``entry_query`` is for entries without a URL, ``gather`` for queries that share a request, ``partitions`` for ranges of
ids, ``frames`` for tables.
"""

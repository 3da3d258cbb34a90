"""The verbs of records."""

from __future__ import annotations

from typing import Any

from kinto_orm.kinto_http import lists, objects
from kinto_orm.kinto_http.verbs import Data, Document, Face, Grants, Id, Timestamp, id_of, seen, verb
from kinto_orm.protocol.endpoints import Kind, draw_id
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.paging import read_timestamp


class Records(Face):
    """The verbs of records."""

    @verb
    def create_record(
        self,
        *,
        id: Id | None = None,
        collection: Id | None = None,
        bucket: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_not_exists: bool = False,
    ) -> Flow[Document]:
        """Creates the record, with a random id where none is given.

        With ``if_not_exists`` gives the one that is there; ``safe=False`` replaces that.
        """
        chosen = id_of(id, data)
        path = self._ids(Kind.RECORD, draw_id(Kind.RECORD) if chosen is None else chosen, bucket, collection)
        return objects.create(path, data, permissions, safe=safe, if_not_exists=if_not_exists)

    @verb
    def update_record(
        self,
        *,
        id: Id | None = None,
        collection: Id | None = None,
        bucket: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Replaces the record, or creates it."""
        path = self._ids(Kind.RECORD, id_of(id, data, "Unable to update a record, need an id."), bucket, collection)
        return objects.update(path, data, permissions, safe=safe, if_match=if_match)

    @verb
    def patch_record(
        self,
        *,
        id: Id | None = None,
        collection: Id | None = None,
        bucket: Id | None = None,
        changes: Any = None,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Changes the record by a patch, or by ``data`` and ``permissions``; ``original`` is the record as it was."""
        id, if_match = seen(original or data, id, if_match)
        if id is None:
            raise KeyError("Unable to patch record, need an id.")
        path = self._ids(Kind.RECORD, id, bucket, collection)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_record(
        self, /, *, id: Id, collection: Id | None = None, bucket: Id | None = None, **params: Any
    ) -> Flow[Document]:
        """The record."""
        return objects.read(self._ids(Kind.RECORD, id, bucket, collection), params)

    @verb
    def get_records(
        self,
        /,
        *,
        collection: Id | None = None,
        bucket: Id | None = None,
        if_none_match: Timestamp | None = None,
        pages: float | None = None,
        **params: Any,
    ) -> Flow[list[Document]]:
        """The records of the collection, selected by Kinto's own keywords."""
        return lists.read_list(
            self._list(Kind.RECORD, bucket, collection), params, pages=pages, if_none_match=if_none_match
        )

    @verb
    def delete_record(
        self,
        *,
        id: Id,
        collection: Id | None = None,
        bucket: Id | None = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
        if_exists: bool = False,
    ) -> Flow[Any]:
        """Deletes the record; its tombstone. With ``if_exists``, ``None`` for a missing one."""
        path = self._ids(Kind.RECORD, id, bucket, collection)
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_records(
        self,
        /,
        *,
        collection: Id | None = None,
        bucket: Id | None = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
        **params: Any,
    ) -> Flow[list[Document]]:
        """Deletes all records of the collection, or those that match; their tombstones."""
        return lists.delete_list(self._list(Kind.RECORD, bucket, collection), params, safe=safe, if_match=if_match)

    @verb
    def get_records_timestamp(self, *, collection: Id | None = None, bucket: Id | None = None) -> Flow[str]:
        """The timestamp of the list of records, as the server has it now: digits, without quotes."""
        timestamp = yield from read_timestamp(self._list(Kind.RECORD, bucket, collection))
        return "" if timestamp is None else str(timestamp)

"""The verbs of collections."""

from __future__ import annotations

from typing import Any

from kinto_orm.errors import NotFoundError
from kinto_orm.kinto_http import lists, objects
from kinto_orm.kinto_http.exceptions import CollectionNotFound
from kinto_orm.kinto_http.verbs import GIVEN_NOTHING, Data, Document, Face, Grants, Id, Timestamp, id_of, seen, verb
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.flows import Flow


class Collections(Face):
    """The verbs of collections."""

    @verb
    def create_collection(
        self,
        *,
        id: Id | None = None,
        bucket: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_not_exists: bool = False,
    ) -> Flow[Document]:
        """Creates the collection. With ``if_not_exists`` gives the one that is there; ``safe=False`` replaces that."""
        path = self._ids(Kind.COLLECTION, id_of(id, data), bucket)
        return objects.create(path, data, permissions, safe=safe, if_not_exists=if_not_exists)

    @verb
    def update_collection(
        self,
        *,
        id: Id | None = None,
        bucket: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Replaces the collection, or creates it."""
        path = self._ids(Kind.COLLECTION, id_of(id, data), bucket)
        return objects.update(path, data, permissions, safe=safe, if_match=if_match)

    @verb
    def patch_collection(
        self,
        *,
        id: Id | None = None,
        bucket: Id | None = None,
        changes: Any = None,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Changes the collection by a patch, or by ``data`` and ``permissions``; ``original`` is how it was."""
        id, if_match = seen(original or data, id, if_match)
        path = self._ids(Kind.COLLECTION, id, bucket)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_collection(self, /, *, id: Id | None = None, bucket: Id | None = None, **params: Any) -> Flow[Document]:
        """The collection. Raises ``CollectionNotFound``."""
        path = self._ids(Kind.COLLECTION, id, bucket)
        try:
            return (yield from objects.read(path, params))
        except NotFoundError as error:
            raise CollectionNotFound(path.id) from error

    @verb
    def get_collections(
        self,
        /,
        *,
        bucket: Id | None = None,
        if_none_match: Timestamp | None = None,
        pages: float | None = None,
        **params: Any,
    ) -> Flow[list[Document]]:
        """The collections of the bucket, selected by Kinto's own keywords."""
        return lists.read_list(self._list(Kind.COLLECTION, bucket), params, pages=pages, if_none_match=if_none_match)

    @verb
    def delete_collection(
        self,
        *,
        id: Id = GIVEN_NOTHING,
        bucket: Id | None = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
        if_exists: bool = False,
    ) -> Flow[Any]:
        """Deletes the collection with its records; its tombstone. With ``if_exists``, ``None`` for a missing one."""
        path = self._ids(Kind.COLLECTION, self._deleted(id, self.collection_name), bucket)
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_collections(
        self, /, *, bucket: Id | None = None, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Deletes all collections of the bucket, or those that match; their tombstones."""
        return lists.delete_list(self._list(Kind.COLLECTION, bucket), params, safe=safe, if_match=if_match)

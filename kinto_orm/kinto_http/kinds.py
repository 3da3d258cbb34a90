"""The verbs of buckets, groups, collections and records."""

from __future__ import annotations

from functools import partial
from typing import Any

from kinto_orm.errors import ForbiddenError, NotFoundError, UnauthorizedError
from kinto_orm.kinto_http import objects
from kinto_orm.kinto_http.exceptions import BucketNotFound, CollectionNotFound, KintoException
from kinto_orm.kinto_http.verbs import (
    GIVEN_NOTHING,
    Data,
    Document,
    Face,
    Grants,
    Id,
    Timestamp,
    fill_from_original,
    id_of,
    verb,
)
from kinto_orm.protocol.paging import read_timestamp
from kinto_orm.protocol.paths import Kind, draw_id
from kinto_orm.protocol.writes import Flow


class Buckets(Face):
    """The verbs of buckets."""

    @verb
    def create_bucket(
        self,
        *,
        id: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_not_exists: bool = False,
    ) -> Flow[Document]:
        """Create the bucket. With ``if_not_exists``, return an existing one; ``safe=False`` replaces it."""
        path = self._ids(Kind.BUCKET, id_of(id, data))
        return objects.create(path, data, permissions, safe=safe, if_not_exists=if_not_exists)

    @verb
    def update_bucket(
        self,
        *,
        id: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Replace the bucket, or create it."""
        path = self._ids(Kind.BUCKET, id_of(id, data))
        return objects.update(path, data, permissions, safe=safe, if_match=if_match)

    @verb
    def patch_bucket(
        self,
        *,
        id: Id | None = None,
        changes: Any = None,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Change the bucket by a patch, or by ``data`` and ``permissions``; ``original`` is its earlier state."""
        id, if_match = fill_from_original(original or data, id, if_match)
        path = self._ids(Kind.BUCKET, id)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_bucket(self, /, *, id: Id | None = None, **params: Any) -> Flow[Document]:
        """Return the bucket. Raises ``BucketNotFound``, also where the caller may not read it."""
        path = self._ids(Kind.BUCKET, id)
        try:
            return (yield from objects.read(path, params))
        except UnauthorizedError as error:
            raise KintoException(
                "Unauthorized. Please authenticate or make sure the bucket can be read anonymously."
            ) from error
        except (ForbiddenError, NotFoundError) as error:
            raise BucketNotFound(path.id) from error

    @verb
    def get_buckets(
        self, /, *, if_none_match: Timestamp | None = None, pages: float | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Return the buckets, selected by Kinto's keywords."""
        return objects.read_list(self._list(Kind.BUCKET), params, pages=pages, if_none_match=if_none_match)

    @verb
    def delete_bucket(
        self, *, id: Id = GIVEN_NOTHING, safe: bool = True, if_match: Timestamp | None = None, if_exists: bool = False
    ) -> Flow[Any]:
        """Delete the bucket with all its objects and return its tombstone; with ``if_exists``, ``None`` for a missing
        one.
        """
        path = self._ids(Kind.BUCKET, self._id_to_delete(id, self.bucket_name))
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_buckets(
        self, /, *, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Delete all buckets that the caller may delete, or those that match, and return their tombstones."""
        return objects.delete_list(self._list(Kind.BUCKET), params, safe=safe, if_match=if_match)


class Groups(Face):
    """The verbs of groups."""

    @verb
    def create_group(
        self,
        *,
        id: Id | None = None,
        bucket: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_not_exists: bool = False,
    ) -> Flow[Document]:
        """Create the group. With ``if_not_exists``, return an existing one; ``safe=False`` replaces it."""
        path = self._ids(Kind.GROUP, id_of(id, data, "Please provide a group id"), bucket)
        return objects.create(path, data, permissions, safe=safe, if_not_exists=if_not_exists)

    @verb
    def update_group(
        self,
        *,
        id: Id | None = None,
        bucket: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Replace the group, or create it."""
        path = self._ids(Kind.GROUP, id_of(id, data, "Please provide a group id"), bucket)
        return objects.update(path, data, permissions, safe=safe, if_match=if_match)

    @verb
    def patch_group(
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
        """Change the group by a patch, or by ``data`` and ``permissions``; ``original`` is its earlier state."""
        id, if_match = fill_from_original(original or data, id, if_match)
        path = self._ids(Kind.GROUP, id, bucket)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_group(self, /, *, id: Id, bucket: Id | None = None, **params: Any) -> Flow[Document]:
        """Return the group."""
        return objects.read(self._ids(Kind.GROUP, id, bucket), params)

    @verb
    def get_groups(
        self,
        /,
        *,
        bucket: Id | None = None,
        if_none_match: Timestamp | None = None,
        pages: float | None = None,
        **params: Any,
    ) -> Flow[list[Document]]:
        """Return the groups of the bucket, selected by Kinto's keywords."""
        return objects.read_list(self._list(Kind.GROUP, bucket), params, pages=pages, if_none_match=if_none_match)

    @verb
    def delete_group(
        self,
        *,
        id: Id,
        bucket: Id | None = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
        if_exists: bool = False,
    ) -> Flow[Any]:
        """Delete the group and return its tombstone; with ``if_exists``, ``None`` for a missing one."""
        path = self._ids(Kind.GROUP, id, bucket)
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_groups(
        self, /, *, bucket: Id | None = None, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Delete all groups of the bucket, or those that match, and return their tombstones."""
        return objects.delete_list(self._list(Kind.GROUP, bucket), params, safe=safe, if_match=if_match)


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
        """Create the collection. With ``if_not_exists``, return an existing one; ``safe=False`` replaces it."""
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
        """Replace the collection, or create it."""
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
        """Change the collection by a patch, or by ``data`` and ``permissions``; ``original`` is its earlier state."""
        id, if_match = fill_from_original(original or data, id, if_match)
        path = self._ids(Kind.COLLECTION, id, bucket)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_collection(self, /, *, id: Id | None = None, bucket: Id | None = None, **params: Any) -> Flow[Document]:
        """Return the collection. Raises ``CollectionNotFound``."""
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
        """Return the collections of the bucket, selected by Kinto's keywords."""
        return objects.read_list(self._list(Kind.COLLECTION, bucket), params, pages=pages, if_none_match=if_none_match)

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
        """Delete the collection with its records and return its tombstone; with ``if_exists``, ``None`` for a missing
        one.
        """
        path = self._ids(Kind.COLLECTION, self._id_to_delete(id, self.collection_name), bucket)
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_collections(
        self, /, *, bucket: Id | None = None, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Delete all collections of the bucket, or those that match, and return their tombstones."""
        return objects.delete_list(self._list(Kind.COLLECTION, bucket), params, safe=safe, if_match=if_match)


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
        """Create the record, with a random id where none is given.

        With ``if_not_exists``, return an existing record; ``safe=False`` replaces it.
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
        """Replace the record, or create it."""
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
        """Change the record by a patch, or by ``data`` and ``permissions``; ``original`` is its earlier state."""
        id, if_match = fill_from_original(original or data, id, if_match)
        if id is None:
            raise KeyError("Unable to patch record, need an id.")
        path = self._ids(Kind.RECORD, id, bucket, collection)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_record(
        self, /, *, id: Id, collection: Id | None = None, bucket: Id | None = None, **params: Any
    ) -> Flow[Document]:
        """Return the record."""
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
        """Return the records of the collection, selected by Kinto's keywords."""
        path = self._list(Kind.RECORD, bucket, collection)
        keep = partial(self.read_timestamps.__setitem__, path)
        return objects.read_list(path, params, pages=pages, if_none_match=if_none_match, on_timestamp=keep)

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
        """Delete the record and return its tombstone; with ``if_exists``, ``None`` for a missing one."""
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
        """Delete all records of the collection, or those that match, and return their tombstones."""
        return objects.delete_list(self._list(Kind.RECORD, bucket, collection), params, safe=safe, if_match=if_match)

    @verb
    def get_records_timestamp(self, *, collection: Id | None = None, bucket: Id | None = None) -> Flow[str]:
        """Return the timestamp of the list of records: digits, without quotes.

        Straight after ``get_records()`` it is the timestamp of what was read; else the server is asked.
        """
        path = self._list(Kind.RECORD, bucket, collection)
        timestamp = self.read_timestamps.pop(path, None)
        if timestamp is None:
            timestamp = yield from read_timestamp(path)
        return "" if timestamp is None else str(timestamp)

"""The verbs of buckets."""

from __future__ import annotations

from typing import Any

from kinto_orm.errors import ForbiddenError, NotFoundError, UnauthorizedError
from kinto_orm.kinto_http import lists, objects
from kinto_orm.kinto_http.exceptions import BucketNotFound, KintoException
from kinto_orm.kinto_http.verbs import GIVEN_NOTHING, Data, Document, Face, Grants, Id, Timestamp, id_of, seen, verb
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.flows import Flow


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
        """Creates the bucket. With ``if_not_exists`` gives the one that is there; ``safe=False`` replaces that."""
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
        """Replaces the bucket, or creates it."""
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
        """Changes the bucket by a patch, or by ``data`` and ``permissions``; ``original`` is the bucket as it was."""
        id, if_match = seen(original or data, id, if_match)
        path = self._ids(Kind.BUCKET, id)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_bucket(self, /, *, id: Id | None = None, **params: Any) -> Flow[Document]:
        """The bucket. Raises ``BucketNotFound``, also where it may not be read."""
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
        """The buckets, selected by Kinto's own keywords."""
        return lists.read_list(self._list(Kind.BUCKET), params, pages=pages, if_none_match=if_none_match)

    @verb
    def delete_bucket(
        self, *, id: Id = GIVEN_NOTHING, safe: bool = True, if_match: Timestamp | None = None, if_exists: bool = False
    ) -> Flow[Any]:
        """Deletes the bucket with all that is in it; its tombstone. With ``if_exists``, ``None`` for a missing one."""
        path = self._ids(Kind.BUCKET, self._deleted(id, self.bucket_name))
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_buckets(
        self, /, *, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Deletes all buckets that may be deleted, or those that match; their tombstones."""
        return lists.delete_list(self._list(Kind.BUCKET), params, safe=safe, if_match=if_match)

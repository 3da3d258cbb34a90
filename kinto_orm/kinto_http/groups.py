"""The verbs of groups."""

from __future__ import annotations

from typing import Any

from kinto_orm.kinto_http import lists, objects
from kinto_orm.kinto_http.verbs import Data, Document, Face, Grants, Id, Timestamp, id_of, seen, verb
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.flows import Flow


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
        """Creates the group. With ``if_not_exists`` gives the one that is there; ``safe=False`` replaces that."""
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
        """Replaces the group, or creates it."""
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
        """Changes the group by a patch, or by ``data`` and ``permissions``; ``original`` is the group as it was."""
        id, if_match = seen(original or data, id, if_match)
        path = self._ids(Kind.GROUP, id, bucket)
        return objects.patch(path, changes, data, permissions, safe=safe, if_match=if_match)

    @verb
    def get_group(self, /, *, id: Id, bucket: Id | None = None, **params: Any) -> Flow[Document]:
        """The group."""
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
        """The groups of the bucket, selected by Kinto's own keywords."""
        return lists.read_list(self._list(Kind.GROUP, bucket), params, pages=pages, if_none_match=if_none_match)

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
        """Deletes the group; its tombstone. With ``if_exists``, ``None`` for a missing one."""
        path = self._ids(Kind.GROUP, id, bucket)
        return objects.delete(path, safe=safe, if_match=if_match, if_exists=if_exists)

    @verb
    def delete_groups(
        self, /, *, bucket: Id | None = None, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Deletes all groups of the bucket, or those that match; their tombstones."""
        return lists.delete_list(self._list(Kind.GROUP, bucket), params, safe=safe, if_match=if_match)

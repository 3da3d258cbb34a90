"""The public face of a mirror."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from kinto_orm.client import Client
from kinto_orm.errors import InvalidFilterError, InvalidTypeError
from kinto_orm.mirror.offline import OfflineClient, url_of
from kinto_orm.mirror.store import Store
from kinto_orm.models import Collection, Record
from kinto_orm.protocol.filters import check_field_name
from kinto_orm.protocol.paths import check_id

M = TypeVar("M", bound=Record)


class Mirror:
    """Collections of a server in one file: ``with Mirror("todos.sqlite", client) as mirror:``.

    In the block, models, queries and units of work use the file. Creating a mirror sends nothing, and makes the file
    where there is none, for its owner alone. It may be used by several threads and processes, also after a fork.
    Raises ``MirrorFileError`` for a file that cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], client: Client) -> None:
        if not isinstance(client, Client):
            raise InvalidTypeError(f"client is the Client of the server, not {client!r:.60}.")
        self._online = client
        self._store = Store(path, url_of(client))
        self.client: Client = OfflineClient(self._store, client)
        """A client whose server is the file."""

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._store.path

    @overload
    def collection(
        self, which: str, *, bucket: str | None = None, indexes: Sequence[object] = ()
    ) -> Collection[Record]: ...
    @overload
    def collection(
        self, which: type[M], *, bucket: str | None = None, indexes: Sequence[object] = ()
    ) -> Collection[M]: ...
    def collection(self, which: Any, *, bucket: str | None = None, indexes: Sequence[object] = ()) -> Any:
        """Return the collection in the mirror, of a model or an id; from now on the file has its records.

        ``bucket`` is by default that of the model, else of the client. ``indexes`` are fields (``Todo.done``) by which
        a filter for equality is fast.
        """
        if bucket is None:
            bucket = getattr(which, "__kinto_bucket__", None) or self.client.default_bucket
        collection: Collection[Any] = self.client.bucket(check_id(bucket, "bucket")).collection(which)
        names = [_field_name(one, collection) for one in indexes]
        self._store.add_collection(str(collection.__kinto_path__()), names)
        return collection

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._store.release()

    def __enter__(self) -> Self:
        self.client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Mirror {self.path}>"


def _field_name(one: Any, collection: Collection[Any]) -> str:
    name = getattr(one, "__kinto_field__", one)
    if not isinstance(name, str):
        raise InvalidFilterError(f"An index is of a field, by its text or by the class (Todo.done), not {one!r:.60}.")
    source = collection.records.reading.source
    return check_field_name(name) if name is not one else source.resolve_field(check_field_name(name))

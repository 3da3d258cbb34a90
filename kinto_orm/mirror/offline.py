"""The client whose server is the file: models, queries and units of work do not see the difference."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from kinto_orm.client import Client
from kinto_orm.client.connection import Connection, Options
from kinto_orm.errors import ConfigurationError
from kinto_orm.mirror.answering import Answering
from kinto_orm.mirror.store import Store
from kinto_orm.protocol.messages import Request, Response


class FileTransport:
    """Answers requests from the file; see :class:`~kinto_orm.protocol.messages.Transport`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._answering = Answering(store)

    def send(self, request: Request) -> Response:
        """Return the answer; raise ``OfflineError`` for what the mirror does not have."""
        return self._answering.answer(request)

    async def asend(self, request: Request) -> Response:
        """Like :meth:`send`, in a thread: another process may be writing the file."""
        return await asyncio.to_thread(self.send, request)

    def release(self) -> None:
        """Close the file until the next request."""
        self._store.release()

    async def arelease(self) -> None:
        """Like :meth:`release`."""
        self.release()

    def close(self) -> None:
        """Like :meth:`release`: the file belongs to the mirror."""
        self.release()

    async def aclose(self) -> None:
        """Like :meth:`release`."""
        self.release()


class _FileConnection(Connection):
    """The connection of all clones: the options of the wire mean nothing to a file."""

    def fitting(self, mine: Options, others: Options) -> Connection:
        """Return this connection."""
        if others.server_url != mine.server_url:
            raise ConfigurationError("A mirror has one server: make another Mirror, with a client of the other server.")
        return self


class OfflineClient(Client):
    """A client of the file, with the bucket, the collection and the policies of the client of the server."""

    def __init__(self, store: Store, online: Client) -> None:
        options = Options(
            online.server_url,
            bucket=online.default_bucket,
            collection=online.default_collection,
            on_invalid=online.on_invalid,
            strict_retry=online.strict_retry,
        )
        self._set_up(options, _FileConnection(FileTransport(store)), owns_server=False)

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError("The client of a mirror cannot be pickled: make a Mirror of the same file there.")


def url_of(client: Any) -> str:
    """Return the URL by which a file knows its server: that of an embedded one changes with each start."""
    url: str = client.server_url
    return "embedded" if url.endswith(".embedded/v1") else url

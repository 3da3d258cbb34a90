"""What ``todos.records`` gives: the manager of records, which may have files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, TypeVar, overload

from kinto_orm.attaching import attach, attachment, detach, download
from kinto_orm.messages import Content
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.managers import Manager, ModelSource
from kinto_orm.outcomes import Outcome
from kinto_orm.protocol.attachments import Attachment
from kinto_orm.query import Place, Reading
from kinto_orm.state import Runner

M = TypeVar("M", bound=KintoObject)


class RecordManager(Manager[M]):
    """The records of one collection: a :class:`Manager`, and the verbs of their files.

    https://github.com/Kinto/kinto-attachment
    """

    __slots__ = ()

    def attachment(self, record: M) -> Attachment | None:
        """What the record says of its file; ``None`` where it has none. Asks nothing.

        Raises ``NotLoadedError`` for a record that was never read.
        """
        self._check_class(record)
        return attachment(record)

    def attach(
        self,
        record: M,
        file: Content,
        *,
        filename: str | None = None,
        mimetype: str | None = None,
        safe: bool = True,
    ) -> Outcome[M]:
        """Attaches the file to the record, and brings the record up to date; what became of it.

        ``file`` is a path, bytes or a file opened in binary mode; the content of the latter two needs a ``filename``.
        A new record is created with its file, in one request. Nothing is sent where the record has a file of the same
        SHA-256: the outcome is ``unchanged``. ``safe=False``: whatever the record has become meanwhile.
        Raises ``ConflictError`` where somebody else changed the record, ``UnsavedChangesError`` where it has changes,
        ``AmbiguousWriteError`` where it cannot be told what became of the file, and ``CapabilityMissingError``.
        """
        return self._run(
            lambda place: attach(self._own(record, place), file, filename, mimetype, place.runner, safe=safe)
        )

    async def aattach(
        self,
        record: M,
        file: Content,
        *,
        filename: str | None = None,
        mimetype: str | None = None,
        safe: bool = True,
    ) -> Outcome[M]:
        """Like :meth:`attach`."""
        return await self._arun(
            lambda place: attach(self._own(record, place), file, filename, mimetype, place.runner, safe=safe)
        )

    def detach(self, record: M, *, safe: bool = True) -> Outcome[M]:
        """Removes the file from the record and from the server, and brings the record up to date; what became of it.

        Raises as :meth:`attach` does.
        """
        return self._run(lambda place: detach(self._own(record, place), place.runner, safe=safe))

    async def adetach(self, record: M, *, safe: bool = True) -> Outcome[M]:
        """Like :meth:`detach`."""
        return await self._arun(lambda place: detach(self._own(record, place), place.runner, safe=safe))

    @overload
    def download(self, record: M, to: str | os.PathLike[str], *, overwrite: bool = False) -> Path: ...
    @overload
    def download(self, record: M, to: IO[bytes], *, overwrite: bool = False) -> None: ...
    def download(self, record: M, to: Any, *, overwrite: bool = False) -> Any:
        """Fetches the record's file into a file, a folder or an open file; the path, where it is one.

        A path that is a folder, or ends in a slash, gets a file of the attachment's own name. The file is checked (size
        and SHA-256) and takes its place only when it is whole; one that is there already is not fetched again, unless
        ``overwrite``. It is asked for without credentials. Raises ``ProtocolError`` where it is not the right one or
        its name leads out of the folder, ``ResponseError`` where it is not there, ``UsageError`` for a record without
        a file, ``OSError`` where it cannot be written.
        """
        return self._run(lambda place: download(self._own(record, place), to, place.runner, overwrite=overwrite))

    @overload
    async def adownload(self, record: M, to: str | os.PathLike[str], *, overwrite: bool = False) -> Path: ...
    @overload
    async def adownload(self, record: M, to: IO[bytes], *, overwrite: bool = False) -> None: ...
    async def adownload(self, record: M, to: Any, *, overwrite: bool = False) -> Any:
        """Like :meth:`download`; files are read and fetched in a thread."""
        return await self._arun(lambda place: download(self._own(record, place), to, place.runner, overwrite=overwrite))

    def _own(self, record: M, place: Place) -> M:
        self._check_class(record)
        self._describe(record, place)
        return record


def record_manager_of(
    model: type[M], *, plain: type[Any], parent: KintoObject | None = None, client: Runner | None = None
) -> RecordManager[M]:
    """The manager of a model's records below the collection."""
    return RecordManager(Reading(ModelSource(model, plain, parent, client)))

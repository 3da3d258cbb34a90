"""Managers (``todos.records``, ``payments.collections``, ``client.buckets``): a query of the whole list that also
creates.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, TypeVar, cast, overload
from uuid import UUID

from kinto_orm.errors import InvalidTypeError, KintoError, NotStageableError
from kinto_orm.jobs.applying import OnOutcome, SyncReport
from kinto_orm.jobs.changes import ChangeFeed, Watch
from kinto_orm.jobs.planning import Fields, SyncOptions
from kinto_orm.jobs.plans import SyncPlan, make_plan, sync
from kinto_orm.jobs.sources import Rows
from kinto_orm.models.changes import change_of, creation_of
from kinto_orm.models.codec import codec_of
from kinto_orm.models.data import is_clean
from kinto_orm.models.editing import Editing, find_or_create
from kinto_orm.models.envelope import Envelope, NewObjects, shared_page
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.loading import reference
from kinto_orm.models.permissions import PermissionsInput
from kinto_orm.models.rows import ModelRows, unsaved_fields
from kinto_orm.models.source import ModelSource
from kinto_orm.plugins.attachments import attach, attachment, detach, download
from kinto_orm.plugins.history import HistoryMixin
from kinto_orm.protocol.accounts import SECRETS
from kinto_orm.protocol.attachments import Attachment
from kinto_orm.protocol.json_values import JSON, say_value
from kinto_orm.protocol.messages import Content, DownloadOptions
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id, draw_id
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.building import check_count
from kinto_orm.query.execution import Place, Reading
from kinto_orm.repository.state import FlowRunner, OnConflict, OnInvalid, Outcome, Progress, Status, Verb
from kinto_orm.repository.verbs import Creations
from kinto_orm.unit_of_work.bulk import Answered, Bulk, BulkReport, changes_of, outcome_of, raise_for_report, report_of
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=KintoObject)
T = TypeVar("T")


class Manager(HistoryMixin[M]):
    """The whole list of one parent: a query without a filter, and the verbs that create."""

    __slots__ = ()

    @classmethod
    def __kinto_make__(
        cls, model: type[M], *, parent: KintoObject | None = None, client: FlowRunner | None = None
    ) -> Self:
        """Return the manager of a model's objects below the parent."""
        return cls(Reading(ModelSource(model, parent, client)))

    @property
    def _source(self) -> ModelSource:
        return cast(ModelSource, self._reading.source)

    def ref(self, id: str | UUID) -> M:
        """Return a reference to the object of that id: ``patch``, ``delete`` and ``refresh`` work without loading it.

        Makes no request.
        """
        place = self._source.locate()
        return cast(M, reference(self._source.model, check_id(id, kind=place.path.kind), place.runner, place.parent))

    def create(
        self,
        *,
        id: str | UUID | None = None,
        data: Mapping[str, Any] | None = None,
        permissions: PermissionsInput | None = None,
        **fields: Any,
    ) -> M:
        """Create a new object and return it; raise ``ConflictError`` where the id is taken."""
        return self._new(id=id, data=data, permissions=permissions, **fields).save()

    async def acreate(
        self,
        *,
        id: str | UUID | None = None,
        data: Mapping[str, Any] | None = None,
        permissions: PermissionsInput | None = None,
        **fields: Any,
    ) -> M:
        """Like :meth:`create`."""
        return await self._new(id=id, data=data, permissions=permissions, **fields).asave()

    def get_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """Return the object of that id, and whether it was created now with these defaults; always one request.

        The permissions of an object that existed are unknown, unless the defaults alone make no object of the model:
        it is read then, and ``InvalidValueError`` is raised where there is none.
        """
        return self._run(self._creation("get_or_create", id, defaults))

    async def aget_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """Like :meth:`get_or_create`."""
        return await self._arun(self._creation("get_or_create", id, defaults))

    def update_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """Set these keys of the object of that id, and return it with whether it was created now; other keys stay.

        Where other clients write at the same time, the keys are set on top of their changes. Raises ``ConflictError``
        where another client deletes the object between the requests, or is always faster, and ``InvalidValueError``
        where there is no object and these keys alone make none of the model.
        """
        return self._run(self._creation("update_or_create", id, defaults))

    async def aupdate_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """Like :meth:`update_or_create`."""
        return await self._arun(self._creation("update_or_create", id, defaults))

    def bulk_create(
        self,
        objects: Iterable[M | Mapping[str, Any]],
        *,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Create all of them in full batches, and return the counts; at most one batch is in memory.

        Takes objects or their data, also of an endless generator. ``on_outcome`` is called with each outcome (for a
        progress bar). Raises ``CommitError`` with the outcomes of the objects that were not stored; the others were.
        https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
        """
        return self._run(partial(self._write_all, Verb.SAVE, "bulk_create", objects, on_outcome, progress))

    async def abulk_create(
        self,
        objects: Iterable[M | Mapping[str, Any]],
        *,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Like :meth:`bulk_create`."""
        return await self._arun(partial(self._write_all, Verb.SAVE, "bulk_create", objects, on_outcome, progress))

    def bulk_update(
        self,
        objects: Iterable[M],
        *,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Save these loaded objects in full batches, each with ``If-Match``; clean ones are not sent.

        Raises ``CommitError`` with the outcomes of the objects that were not stored; the others were.
        """
        return self._run(partial(self._write_all, Verb.SAVE, "bulk_update", objects, on_outcome, progress))

    async def abulk_update(
        self,
        objects: Iterable[M],
        *,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Like :meth:`bulk_update`."""
        return await self._arun(partial(self._write_all, Verb.SAVE, "bulk_update", objects, on_outcome, progress))

    def bulk_delete(
        self,
        objects: Iterable[M],
        *,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Delete these objects in full batches, each with ``If-Match``.

        Raises ``CommitError`` with the outcomes of the objects that were not deleted; the others were.
        """
        return self._run(partial(self._write_all, Verb.DELETE, "bulk_delete", objects, on_outcome, progress))

    async def abulk_delete(
        self,
        objects: Iterable[M],
        *,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Like :meth:`bulk_delete`."""
        return await self._arun(partial(self._write_all, Verb.DELETE, "bulk_delete", objects, on_outcome, progress))

    def stream_create(self, objects: Iterable[M | Mapping[str, Any]]) -> Iterator[Outcome[M]]:
        """Create them in full batches, and yield one outcome for each, in their order, as they come.

        A stream sends a batch only when you ask for its outcomes: an iteration that ends early leaves the rest of the
        input alone. At most one batch is in memory, so input and output may be endless. Where the server cannot be
        reached the stream ends after the outcomes of that batch (``unknown`` or ``not_sent``). Give the rest of the
        input again, with those objects: stored ones are recognised.
        """
        yield from self._stream(Verb.SAVE, "stream_create", objects)

    async def astream_create(self, objects: Iterable[M | Mapping[str, Any]]) -> AsyncIterator[Outcome[M]]:
        """Like :meth:`stream_create`."""
        async for outcome in self._astream(Verb.SAVE, "stream_create", objects):
            yield outcome

    def stream_update(self, objects: Iterable[M]) -> Iterator[Outcome[M]]:
        """Save these loaded objects in full batches, each with ``If-Match``; otherwise like :meth:`stream_create`."""
        yield from self._stream(Verb.SAVE, "stream_update", objects)

    async def astream_update(self, objects: Iterable[M]) -> AsyncIterator[Outcome[M]]:
        """Like :meth:`stream_update`."""
        async for outcome in self._astream(Verb.SAVE, "stream_update", objects):
            yield outcome

    def stream_delete(self, objects: Iterable[M]) -> Iterator[Outcome[M]]:
        """Delete these objects in full batches, each with ``If-Match``; otherwise like :meth:`stream_create`."""
        yield from self._stream(Verb.DELETE, "stream_delete", objects)

    async def astream_delete(self, objects: Iterable[M]) -> AsyncIterator[Outcome[M]]:
        """Like :meth:`stream_delete`."""
        async for outcome in self._astream(Verb.DELETE, "stream_delete", objects):
            yield outcome

    def edit(self, id: str | UUID, *, attempts: int = 5) -> Editing[M]:
        """Yield attempts to change the object: ``for attempt in todos.records.edit(id): with attempt as todo: …``.

        Each attempt gets the current object, and saves it at the end of the block; where another client was faster, the
        next attempt runs the block again. The last one raises ``ConflictError``. ``async for`` and ``async with`` work
        too.
        """
        checked = check_id(id, kind=self._source.kind)
        return Editing(self._source, checked, check_count(attempts, "attempts", least=1))

    def __repr__(self) -> str:
        source = self._source
        below = f" of {source.parent!r}" if source.parent is not None else ""
        return f"<Manager of {source.model.__name__} {source.kind.plural}{below}>"

    def _new(self, **arguments: Any) -> M:
        place = self._source.locate()
        parent = self._source.parent_at(place)
        if parent is not None:
            arguments[parent.__kinto_kind__.value] = parent
        return cast(M, self._source.model(client=place.runner, **arguments))

    def _creation(
        self, name: str, id: str | UUID, defaults: Mapping[str, Any] | None
    ) -> Callable[[Place], Flow[tuple[M, bool]]]:
        source, checked = self._source, check_id(id, kind=self._source.kind)
        if defaults is not None and not isinstance(cast(object, defaults), Mapping):
            raise InvalidTypeError(f"defaults is a mapping of names to values, not {say_value(defaults)}.")
        given = codec_of(source.model).input_data(defaults or {}, "defaults")
        codec_of(source.model).encode(given)  # a value that fits no object is refused before anything is sent
        make = partial(self._new, id=checked, data=given)
        return lambda place: find_or_create(make, source, place, checked, given if name == "update_or_create" else {})

    def _stream(self, verb: Verb, name: str, objects: Iterable[Any]) -> Iterator[Outcome[M]]:
        place = self._source.locate()
        bulk = self.__kinto_bulk__(verb, name, objects, place)
        while (flow := bulk.next_batch()) is not None:
            for one in place.runner.run(flow):
                yield outcome_of(one)

    async def _astream(self, verb: Verb, name: str, objects: Iterable[Any]) -> AsyncIterator[Outcome[M]]:
        place = self._source.locate()
        bulk = self.__kinto_bulk__(verb, name, objects, place)
        while (flow := bulk.next_batch()) is not None:
            for one in await place.runner.arun(flow):
                yield outcome_of(one)

    def __kinto_bulk__(self, verb: Verb, name: str, objects: Iterable[Any], place: Place | None = None) -> Bulk[M]:
        if isinstance(objects, (Mapping, KintoObject)) or not isinstance(cast(object, objects), Iterable):
            raise InvalidTypeError(f"{name}() takes many objects, not one: a {type(objects).__name__}.")
        place = self._source.locate() if place is None else place
        refuse_staging(place.runner, f"{name}()")
        place = place._replace(parent=self._source.parent_at(place))
        new: NewObjects | None = None
        if name.endswith("_create") and place.path.kind is Kind.RECORD:
            with suppress(NotStageableError):  # which each object gets
                new = NewObjects(Creations(place.path), client=place.runner, parent=place.parent)
        return Bulk(changes_of(objects, partial(self._change, verb, name, place, new), verb), place.runner)

    def _write_all(
        self,
        verb: Verb,
        name: str,
        objects: Iterable[M | Mapping[str, Any]],
        on_outcome: Callable[[Outcome[M]], object] | None,
        progress: Progress | None,
        place: Place,
    ) -> Flow[BulkReport]:
        bulk = self.__kinto_bulk__(verb, name, objects, place)
        total = len(objects) if isinstance(objects, Sized) else None
        return raise_for_report((yield from report_of(bulk, on_outcome, progress, total)), name)

    def _change(
        self, verb: Verb, name: str, place: Place, new: NewObjects | None, given: M | Mapping[str, Any]
    ) -> Answered[M]:
        source: ModelSource = self._reading.source  # type: ignore[assignment]  # as in _source: once for each object
        if new is not None and (creation := creation_of(given, source.model, new)) is not None:
            return creation
        one: Any = given
        if not isinstance(one, source.model.__kinto_plain__):
            if not isinstance(given, Mapping):
                self._check_class(given)
            one = source.model(data=codec_of(source.model).input_data(cast(Mapping[str, Any], given), f"{name}()"))
        if verb is Verb.SAVE and shared_page(one) is not None and is_clean(one, place.path):
            return Outcome(one, verb, "unchanged")
        envelope: Envelope = one.__kinto_envelope__()
        if envelope.status is Status.NEW and not name.endswith("_create"):
            raise InvalidTypeError(f"{name}() takes loaded objects, not {say_value(one)}: read them first.")
        self._bind(one, envelope, place)
        change: Answered[M] = change_of(one, verb)
        return change

    def _check_class(self, one: object) -> None:
        if not isinstance(one, self._source.model.__kinto_plain__):
            advice = " Make an object of an id: ref(id)." if isinstance(one, (str, UUID)) else ""
            raise InvalidTypeError(f"{say_value(one)} is no {self._source.model.__name__}.{advice}")

    def _bind(self, one: M, envelope: Envelope, place: Place) -> None:
        """Give a new object without parent the one of this list; refuse an object of another list."""
        kind = place.path.kind
        given = envelope.parent or (envelope.collection if kind is Kind.RECORD else envelope.bucket)
        if envelope.status is Status.NEW and given is None:
            envelope.parent, envelope.client = place.parent, envelope.client or place.runner
            if one.__dict__["id"] is None:
                id = vars(one)["id"] = draw_id(kind)
                envelope.path, envelope.has_drawn_id = ObjectPath(kind, (*place.path.parent_ids, id)), True
            return
        path = one.__kinto_path__(draw=True)
        if not path.is_in(place.path):
            raise InvalidTypeError(f"{path} is not of {place.path}: to copy it, give its data (a mapping).")


class RecordManager(Manager[M]):
    """The records of one collection: a :class:`Manager`, and the verbs of their files.

    https://github.com/Kinto/kinto-attachment
    """

    __slots__ = ()

    def changes(
        self, since: str | None = None, *, horizon: float = 10, on_invalid: OnInvalid | None = None
    ) -> ChangeFeed[M]:
        """Return a feed of what changed in the collection; it asks nothing before it is iterated.

        ``since`` is the :attr:`~kinto_orm.ChangeFeed.token` of an earlier feed; without one, every record comes once.
        None is missed and none comes twice, provided that no transaction of the server takes longer than ``horizon``,
        in seconds. ``on_invalid`` says what happens to rows that do not fit the model.
        The feed raises ``FeedLostError`` where the token does not fit the list any more.
        https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
        """
        return ChangeFeed(self._source, since, horizon=horizon, on_invalid=on_invalid)

    def watch(
        self,
        since: str | None = None,
        *,
        every: float = 5,
        max_every: float = 60,
        horizon: float = 10,
        on_error: Callable[[KintoError], object] | None = None,
    ) -> Watch[M]:
        """Return an endless iterable of what changes in the collection, asked for every so many seconds.

        The changes are those of :meth:`changes`, with its promises. While nothing changes, each wait is twice as long
        as the one before, up to ``max_every``. ``on_error`` is called where the server cannot be reached, and it is
        asked again later; without it, the error is raised.
        """
        return Watch(self._source, since, horizon=horizon, every=every, max_every=max_every, on_error=on_error)

    def sync(
        self,
        rows: Rows,
        *,
        key: str | Sequence[str] = "id",
        delete: bool = False,
        max_deletes: int | float = 0.5,
        fields: Fields = None,
        on_conflict: OnConflict = "raise",
        progress: Progress | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> SyncReport:
        """Make the collection equal to the rows: create and update records, and with ``delete`` delete the others.

        ``rows`` are dictionaries, models, a path (``.jsonl``, ``.json``, ``.csv``), a query or any other iterable. They
        are matched with the records by ``key``: the id, or one or more fields; new records get an id derived from such
        a key. Both sides are compared before anything is written; nothing is written where they are equal.
        ``max_deletes`` is a number of records, or a share of them as a float. ``fields`` is ``"exact"`` (a record loses
        the keys that its row lacks; the default for dictionaries), ``"given"`` (only keys that the row mentions are
        compared; the default for models), or the keys to compare. ``attachment`` and the server's ``schema`` are
        compared only where they are among those.
        Each write has a precondition: a record that another client changed since is an outcome ``conflict``, or what
        ``on_conflict`` makes of it, as in ``save()``. ``progress`` is called with the number done, the total or
        ``None``, and of what; ``on_outcome`` with each outcome.
        Interrupted, it is finished by another call: what is stored is compared again, and not written twice.

        Raises ``InvalidInputError`` for a row that cannot be written, ``DuplicateKeyError``, ``EmptySourceError`` and
        ``TooManyDeletesError`` before anything is written, and ``CommitError`` (with ``.report``) at the end where
        records were not stored.
        """
        return self._run(
            partial(
                sync,
                *self._both_sides(rows, key, fields, delete=delete, max_deletes=max_deletes),
                on_conflict,
                progress,
                on_outcome,
            )
        )

    async def async_(
        self,
        rows: Rows,
        *,
        key: str | Sequence[str] = "id",
        delete: bool = False,
        max_deletes: int | float = 0.5,
        fields: Fields = None,
        on_conflict: OnConflict = "raise",
        progress: Progress | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> SyncReport:
        """Like :meth:`sync`; files and temporary tables are used in a thread."""
        return await self._arun(
            partial(
                sync,
                *self._both_sides(rows, key, fields, delete=delete, max_deletes=max_deletes),
                on_conflict,
                progress,
                on_outcome,
            )
        )

    def plan(
        self,
        rows: Rows,
        *,
        key: str | Sequence[str] = "id",
        delete: bool = False,
        max_deletes: int | float = 0.5,
        fields: Fields = None,
        progress: Progress | None = None,
    ) -> SyncPlan:
        """Return what :meth:`sync` would do, as a plan that can be printed, saved and applied; only reads are sent."""
        return self._run(
            partial(make_plan, *self._both_sides(rows, key, fields, delete=delete, max_deletes=max_deletes), progress)
        )

    async def aplan(
        self,
        rows: Rows,
        *,
        key: str | Sequence[str] = "id",
        delete: bool = False,
        max_deletes: int | float = 0.5,
        fields: Fields = None,
        progress: Progress | None = None,
    ) -> SyncPlan:
        """Like :meth:`plan`."""
        return await self._arun(
            partial(make_plan, *self._both_sides(rows, key, fields, delete=delete, max_deletes=max_deletes), progress)
        )

    def diff(
        self, rows: Rows, *, key: str | Sequence[str] = "id", fields: Fields = None, progress: Progress | None = None
    ) -> SyncPlan:
        """Return all differences from the rows: the plan that would make the collection equal to them, with deletions.

        ``a.records.diff(b.records)`` compares two collections, of one server or of two.
        """
        return self._run(partial(make_plan, rows, SyncOptions.of_diff(key, fields), self._rows(), progress))

    async def adiff(
        self, rows: Rows, *, key: str | Sequence[str] = "id", fields: Fields = None, progress: Progress | None = None
    ) -> SyncPlan:
        """Like :meth:`diff`."""
        return await self._arun(partial(make_plan, rows, SyncOptions.of_diff(key, fields), self._rows(), progress))

    def unsaved(self, record: M) -> dict[str, tuple[JSON, JSON]]:
        """Return the keys of the record's data that ``save()`` would send: the old and the new value of each.

        ``MISSING`` stands for a key that is not there. Nothing is asked.
        """
        self._check_class(record)
        return unsaved_fields(record)

    def __kinto_rows__(self) -> tuple[Place, ModelRows]:
        return self._source.locate(), self._rows()

    def _rows(self) -> ModelRows:
        if secrets := codec_of(self._source.model).secrets:
            SECRETS[str(self._source.locate().path)].update(secrets)
        return ModelRows(self._source)

    def _both_sides(
        self, rows: Rows, key: str | Sequence[str], fields: Fields, *, delete: bool, max_deletes: int | float
    ) -> tuple[Rows, SyncOptions, ModelRows]:
        """Return the rows, how they are compared with the records, and the codec of both."""
        return rows, SyncOptions.check(key, fields, delete=delete, max_deletes=max_deletes), self._rows()

    def attachment(self, record: M) -> Attachment | None:
        """Return the record's attachment, as it was last read; ``None`` where it has none. Sends nothing.

        Raises ``NotLoadedError`` for a record that was never read.
        """
        self._check_class(record)
        return attachment(record)

    def attach(
        self, record: M, file: Content, *, filename: str | None = None, mimetype: str | None = None, safe: bool = True
    ) -> Outcome[M]:
        """Attach the file to the record, update the record, and return the outcome.

        ``file`` is a path, bytes or a file opened in binary mode; the last two need a ``filename``. A new record is
        created with its file, in one request. Nothing is sent where the record has a file of the same SHA-256: the
        outcome is ``unchanged``. ``safe=False`` overwrites any newer version of the record. Raises ``ConflictError``
        where another client changed the record, ``UnsavedChangesError`` where it has changes, ``AmbiguousWriteError``
        where the record does not show whether the file was stored, and ``CapabilityMissingError``.
        """
        return self._run(
            lambda place: attach(self._own(record, place), file, filename, mimetype, place.runner, safe=safe)
        )

    async def aattach(
        self, record: M, file: Content, *, filename: str | None = None, mimetype: str | None = None, safe: bool = True
    ) -> Outcome[M]:
        """Like :meth:`attach`."""
        return await self._arun(
            lambda place: attach(self._own(record, place), file, filename, mimetype, place.runner, safe=safe)
        )

    def detach(self, record: M, *, safe: bool = True) -> Outcome[M]:
        """Remove the file from the record and from the server, update the record, and return the outcome.

        Raises the errors of :meth:`attach`.
        """
        return self._run(lambda place: detach(self._own(record, place), place.runner, safe=safe))

    async def adetach(self, record: M, *, safe: bool = True) -> Outcome[M]:
        """Like :meth:`detach`."""
        return await self._arun(lambda place: detach(self._own(record, place), place.runner, safe=safe))

    @overload
    def download(
        self,
        record: M,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        max_bytes: int | None = None,
        allow_hosts: Collection[str] = (),
    ) -> Path: ...
    @overload
    def download(
        self,
        record: M,
        to: IO[bytes],
        *,
        overwrite: bool = False,
        max_bytes: int | None = None,
        allow_hosts: Collection[str] = (),
    ) -> None: ...
    def download(
        self,
        record: M,
        to: Any,
        *,
        overwrite: bool = False,
        max_bytes: int | None = None,
        allow_hosts: Collection[str] = (),
    ) -> Any:
        """Download the record's file into a file, a folder or an open file; return the path, where it is one.

        A path that is a folder, or ends in a slash, gets a file of the attachment's own name. The file is checked (size
        and SHA-256) and takes its place only when it is whole. The same file that is there already is not fetched
        again; another one is kept, and is a ``UsageError``, unless ``overwrite``. The file is asked for without
        credentials, within the client's ``deadline``. It has at most ``max_bytes``, else the size that its record says,
        else 256 MiB. A redirect leads to the same host only, or to one of ``allow_hosts`` (``host`` or ``host:port``).
        Raises ``ProtocolError`` where it is not the right one, is too large or would come from elsewhere, or where its
        name leads out of the folder; ``ResponseError`` where it is not there, ``UsageError`` for a record without a
        file, ``OSError`` where it cannot be written.
        """
        return self._run(
            lambda place: download(
                self._own(record, place), to, place.runner, DownloadOptions(overwrite, max_bytes, allow_hosts)
            )
        )

    @overload
    async def adownload(
        self,
        record: M,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        max_bytes: int | None = None,
        allow_hosts: Collection[str] = (),
    ) -> Path: ...
    @overload
    async def adownload(
        self,
        record: M,
        to: IO[bytes],
        *,
        overwrite: bool = False,
        max_bytes: int | None = None,
        allow_hosts: Collection[str] = (),
    ) -> None: ...
    async def adownload(
        self,
        record: M,
        to: Any,
        *,
        overwrite: bool = False,
        max_bytes: int | None = None,
        allow_hosts: Collection[str] = (),
    ) -> Any:
        """Like :meth:`download`; files are read and fetched in a thread."""
        return await self._arun(
            lambda place: download(
                self._own(record, place), to, place.runner, DownloadOptions(overwrite, max_bytes, allow_hosts)
            )
        )

    def _own(self, record: M, place: Place) -> M:
        self._check_class(record)
        self._bind(record, record.__kinto_envelope__(), place)
        return record

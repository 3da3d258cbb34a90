"""The public face of a mirror."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, Self, TypeAlias, TypeVar, cast, get_args, overload

from kinto_orm.client import Client
from kinto_orm.client.connection import Connection, Options
from kinto_orm.errors import ConfigurationError, InvalidTypeError, KintoError, OfflineError
from kinto_orm.jobs.sources import read_dump
from kinto_orm.mirror.answering import FileTransport
from kinto_orm.mirror.background import Repetition, logger
from kinto_orm.mirror.reports import Choice, Conflict, MirrorResult, OnConflict, OnReset, Pending, VerifyReport
from kinto_orm.mirror.store import PARKED, UNPUSHED, Row, Store
from kinto_orm.mirror.syncing import CollectionSync, SyncOptions, sync_collections
from kinto_orm.models.kinds import Collection, Record
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.paging import check_finite
from kinto_orm.protocol.paths import check_id
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.building import field_names
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=Record)

Fields: TypeAlias = Sequence[object]
"""Fields of a model, by the class (``Todo.done``) or by their texts."""


class _FileConnection(Connection):
    """The connection of all clones: the options of the wire mean nothing to a file."""

    def fitting(self, mine: Options, others: Options) -> Connection:
        """Return this connection."""
        if others.server_url != mine.server_url:
            raise ConfigurationError("A mirror has one server: make another Mirror, with a client of the other server.")
        return self


class _OfflineClient(Client):
    """A client of the file, with the bucket, the collection and the policies of the client of the server."""

    def __init__(self, store: Store, online: Client) -> None:
        options = replace(online._options.without_secrets(), lacks=frozenset())
        self._set_up(options, _FileConnection(FileTransport(store)), owns_server=False)

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError("The client of a mirror cannot be pickled: make a Mirror of the same file there.")


class Mirror:
    """Collections of a server in one file: ``with Mirror("todos.sqlite", client) as mirror:``.

    In the block, models, queries and units of work use the file. Creating a mirror sends nothing, and makes the file
    where there is none, for its owner alone. It may be used by several threads and processes, also after a fork.
    ``horizon`` is the time in seconds that no transaction of the server exceeds: what was committed late is then missed
    by no sync. Raises ``MirrorFileError`` for a file that cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], client: Client, *, horizon: float = 10) -> None:
        if not isinstance(client, Client):
            raise InvalidTypeError(f"client is the Client of the server, not {say_value(client)}.")
        self._online = client
        self._horizon = check_finite("horizon", horizon)
        self._repetition: Repetition | None = None
        self._store = Store(path, client.server_url)
        self._models: dict[str, type[Record]] = {}
        self.path = self._store.path
        """The path of the file."""
        self.client: Client = _OfflineClient(self._store, client)
        """A client whose server is the file."""

    @overload
    def collection(self, which: str, *, bucket: str | None = None, indexes: Fields = ()) -> Collection[Record]: ...
    @overload
    def collection(self, which: type[M], *, bucket: str | None = None, indexes: Fields = ()) -> Collection[M]: ...
    def collection(self, which: Any, *, bucket: str | None = None, indexes: Fields = ()) -> Any:
        """Return the collection in the mirror, of a model or an id; from now on the file has its records.

        ``bucket`` is by default that of the model, else of the client. ``indexes`` are fields (``Todo.done``) by which
        a filter for equality is fast.
        """
        if bucket is None:
            bucket = getattr(which, "__kinto_bucket__", None) or self.client.default_bucket
        collection: Collection[Any] = self.client.bucket(check_id(bucket, "bucket")).collection(which)
        names = field_names(collection.records.__kinto_reading__(), indexes, "indexes") if indexes else ()
        path = str(collection.__kinto_path__())
        self._store.add_collection(path, names)
        self._models |= {path: which} if isinstance(which, type) else {}
        return collection

    @property
    def pending(self) -> list[Pending]:
        """What the server lacks: the records that were created, updated or deleted here."""
        return [
            Pending(path, row.id, "deleted" if row.mine is None else "updated" if row.theirs else "created", row.error)
            for path, _, row in self._rows(UNPUSHED)
        ]

    @property
    def conflicts(self) -> list[Conflict]:
        """The records that were changed here and on the server, so that the two could not be merged.

        They are kept in the file until they are resolved.
        """
        known, rows = self._models, self._rows(PARKED)
        return [Conflict(self._store, number, path, row, known.get(path, Record)) for path, number, row in rows]

    def _rows(self, where: str) -> list[tuple[str, int, Row]]:
        known = self._store.collections().items()
        return [(path, number, row) for path, number in known for row in self._store.rows(number, where)]

    def sync(
        self,
        *collections: Collection[Any],
        on_conflict: OnConflict = "park",
        on_reset: OnReset = "ask",
        push: bool = True,
    ) -> MirrorResult:
        """Take what changed on the server, push what changed here, and return the effects; of all collections.

        Records that both sides changed are merged field by field. Where both changed the same field, or one deleted the
        record, the conflict is parked: it stays in ``mirror.conflicts``, and the others go on. ``on_conflict="mine"``
        or ``"theirs"`` prefers a side where they clash; a function of the ``Conflict`` returns one of these, the data
        that the record shall have, or ``None`` to delete it. ``push=False`` only takes.

        Edits that are made during a sync are kept, and pushed by it or the next one. Errors of the server and the
        network are in ``result.errors``. Raises ``ServerResetError`` where the server lost the records of a collection,
        unless ``on_reset`` is ``"pull"`` (take what is there, keep what was changed here) or ``"push"`` (create all
        again); ``MirrorFileError`` for a file of another user.
        """
        return self._online.run(self._sync(collections, on_conflict, on_reset, push=push))

    async def async_(
        self,
        *collections: Collection[Any],
        on_conflict: OnConflict = "park",
        on_reset: OnReset = "ask",
        push: bool = True,
    ) -> MirrorResult:
        """Like :meth:`sync`; the file is used in a thread."""
        return await self._online.arun(self._sync(collections, on_conflict, on_reset, push=push))

    def _sync(
        self, given: Sequence[Collection[Any]], on_conflict: object, on_reset: object, *, push: bool
    ) -> Flow[MirrorResult]:
        refuse_staging(self._online, "mirror.sync()")
        options = self._options(on_conflict, on_reset, push=push)
        return sync_collections(self._store, self._online, self._chosen(given), options)

    def verify(self, *collections: Collection[Any]) -> VerifyReport:
        """Compare all records of the file with the server's, and return the differences; nothing is changed.

        What was changed on the server since the last sync is a difference, too; changes of here are none.
        """
        return self._online.run(self._verify(collections))

    async def averify(self, *collections: Collection[Any]) -> VerifyReport:
        """Like :meth:`verify`."""
        return await self._online.arun(self._verify(collections))

    def _verify(self, collections: Sequence[Collection[Any]]) -> Flow[VerifyReport]:
        report = VerifyReport()
        for number, collection in self._chosen(collections):
            yield from self._sync_of(number, collection).verify(report)
        return report

    def load_dump(self, collection: Collection[Any], path: str | os.PathLike[str]) -> int:
        """Take the records of a dump (``.json`` or ``.jsonl``) as the server's, and return how many were new.

        The next sync asks only for what changed since. Each record has ``id`` and ``last_modified``. Records that were
        changed here, and those that are newer here, are kept. Raises ``InvalidValueError`` for a file that is no dump,
        and ``OSError`` where it cannot be read.
        """
        ((number, online),) = self._chosen([collection])
        return self._sync_of(number, online).load_dump(read_dump(path))

    def _sync_of(self, number: int, online: Collection[Record]) -> CollectionSync:
        return CollectionSync(self._store, number, online, SyncOptions(horizon=self._horizon), MirrorResult())

    def _options(self, on_conflict: object, on_reset: object, *, push: bool) -> SyncOptions:
        if on_conflict not in get_args(Choice) and not callable(on_conflict):
            raise InvalidTypeError(
                f"on_conflict is 'park', 'mine', 'theirs' or a function of the conflict, not {say_value(on_conflict)}."
            )
        if on_reset not in get_args(OnReset):
            raise InvalidTypeError(f"on_reset is 'ask', 'pull' or 'push', not {say_value(on_reset)}.")
        return SyncOptions(cast(OnConflict, on_conflict), cast(OnReset, on_reset), push, self._horizon, self._models)

    def _chosen(self, given: Sequence[Collection[Any]]) -> list[tuple[int, Collection[Record]]]:
        """Return number and online collection of these, or of all collections of the file."""
        known = self._store.collections()
        paths = [str(one.__kinto_path__() if isinstance(one, Collection) else one) for one in given] or list(known)
        if unknown := [path for path in paths if path not in known]:
            raise OfflineError(f"{unknown[0]}: the mirror {self.path} does not have it: mirror.collection() adds it.")
        return [(known[path], self._online.bucket(path.split("/")[2]).collection(path.split("/")[4])) for path in paths]

    def start(
        self,
        every: float = 30,
        *,
        on_conflict: OnConflict = "park",
        on_result: Callable[[MirrorResult | KintoError], object] | None = None,
    ) -> None:
        """Sync every so many seconds, in a thread, until :meth:`stop` or the client is closed; also in a forked child.

        ``on_result`` is called in that thread with each result, or with the error of :meth:`sync`; without it, what is
        not ok is a warning in the log. Each wait is longer or shorter at random by at most a fifth.
        """
        self._options(on_conflict, "ask", push=True)
        tell = on_result or _log
        self.stop()
        self._repetition = Repetition(lambda: tell(self.sync(on_conflict=on_conflict)), every, tell)
        self._repetition.start()

    def stop(self) -> None:
        """End what :meth:`start` began, after the sync that runs."""
        if self._repetition is not None:
            self._repetition.stop()
            self._repetition = None

    def close(self) -> None:
        """Close the file, and end what :meth:`start` began. The next use opens the file again."""
        self.stop()
        self._store.release()

    def __enter__(self) -> Self:
        self.client.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.client.__exit__(*error)

    def __repr__(self) -> str:
        return f"<Mirror {self.path}>"


def _log(result: MirrorResult | KintoError) -> None:
    if isinstance(result, KintoError) or not result.ok:
        said = result if isinstance(result, KintoError) else (*result.errors, *result.conflicts)
        logger.warning("A sync of the mirror left something: %s", said)

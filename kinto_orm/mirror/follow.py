"""One record that is always there: the last known good one, refreshed in the background, and kept in a file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from functools import partial
from typing import Any, Generic, TypeVar, cast

from kinto_orm.client import Client
from kinto_orm.errors import InvalidTypeError, KintoError, MirrorFileError, ProtocolError
from kinto_orm.mirror.background import Repetition, logger
from kinto_orm.mirror.store import Store
from kinto_orm.mirror.syncing import find_obstacle
from kinto_orm.models.kinds import Record
from kinto_orm.models.source import ModelSource
from kinto_orm.protocol.json_values import JSONObject, decode, encode, say_value
from kinto_orm.protocol.paging import with_condition
from kinto_orm.protocol.paths import check_id
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.repository.reads import get
from kinto_orm.repository.state import ObjectState, Status

M = TypeVar("M", bound=Record)


class Followed(Generic[M]):
    """A record that is refreshed in the background: made by :func:`follow`.

    Where the server does not answer, refuses, or has no such record, and where that does not fit the model, the value
    stays as it is, and ``error`` has the reason.
    """

    def __init__(
        self,
        client: Client,
        model: type[M],
        collection: str | None,
        id: str,
        path: str | os.PathLike[str],
        default: M | None,
        every: float,
    ) -> None:
        if not isinstance(cast(object, client), Client):
            raise InvalidTypeError(f"client is the Client of the server, not {say_value(client)}.")
        if not isinstance(cast(object, model), type) or not issubclass(model, Record):
            raise InvalidTypeError(f"model is a class of records, not {say_value(model)}.")
        if default is not None and not isinstance(cast(object, default), model):
            raise InvalidTypeError(f"default is a {model.__name__}, not {say_value(default)}.")
        self.error: KintoError | None = None
        """The reason for which the value could not be refreshed the last time."""
        bucket = client.bucket(model.__kinto_bucket__ or client.default_bucket)
        parent = bucket.collection(collection or model.__kinto_collection__ or client.default_collection or "")
        self._client, self._source = client, ModelSource(model, parent, client)
        self._place = self._source.locate()
        self._path = self._place.path.object(check_id(id))
        self._every, self._value = every, default
        self._repetition = Repetition(lambda: client.run(self.__kinto_refresh__()), every, self._note)
        self._kept: list[Any] = [0, 0, 0, None]
        """When the server was asked and when it answered, in seconds; the timestamp and the data of the value."""
        self._seen: str | None = None
        """The text that the file had last."""
        self._functions: list[Callable[[M], object]] = []
        self._store = Store(path, client.server_url)

    @property
    def value(self) -> M:
        """The record, which all who ask share; it is another object after each change."""
        assert self._value is not None
        return self._value

    @property
    def age(self) -> float:
        """The seconds since the server said that the record is so; infinite where it never did."""
        return max(0.0, time.time() - self._kept[1]) if self._kept[1] else math.inf

    def on_change(self, function: Callable[[M], object]) -> None:
        """Call the function with each new value, in the thread that refreshes it."""
        self._functions.append(function)

    def close(self) -> None:
        """End the refreshing; the value stays."""
        self._repetition.stop()
        self._store.release()

    def __kinto_begin__(self) -> Flow[Followed[M]]:
        """Refresh for the first time, and begin to refresh in the background."""
        yield from self.__kinto_refresh__()
        self._repetition.start()
        return self

    def __kinto_refresh__(self) -> Flow[None]:
        """Take what another process has read, else ask the server; raise its errors where there is no value."""
        before = self._value
        try:
            yield from self._refresh()
        finally:
            for function in self._functions if self._value is not before else ():
                try:
                    function(self.value)
                except Exception:  # noqa: BLE001  the caller's own code
                    logger.exception("A function of on_change() failed")

    def _refresh(self) -> Flow[None]:
        obstacle = yield from find_obstacle(self._store, self._client)  # first: nothing is read of another user's file
        yield from call_blocking(self._store.path, self._load)
        now = time.time()
        is_fresh = self._value is not None and 0 <= now - self._kept[0] < self._every / 2
        lease = None if is_fresh else self._store.lease()
        if lease is None and self._value is not None:
            return  # another process asks
        with nullcontext() if lease is None else closing(lease):
            try:
                if obstacle is not None:
                    raise obstacle
                yield from self._ask(now)
            except KintoError as error:
                if self._value is None or isinstance(error, MirrorFileError):
                    raise
                self._note(error)
            self._kept[0] = now
            yield from call_blocking(self._store.path, self._keep)

    def _ask(self, now: float) -> Flow[None]:
        state = yield from with_condition(get(self._path), "If-None-Match", self._kept[2])
        if state is not None:
            yield from call_blocking(self._store.path, partial(self._take, state.last_modified, state.data))
        self._kept[1], self.error = now, None

    def _keep(self) -> None:
        kept = encode(self._kept).decode()
        self._store.set_note(str(self._path), kept)
        self._seen = kept

    def _load(self) -> None:
        kept = self._store.note(str(self._path))
        if kept == self._seen:
            return  # no other process has asked
        self._seen = kept
        # What is no such note, or does not fit the model any more, is asked for.
        with suppress(ProtocolError, ValueError, TypeError):
            asked, answered, modified, data = decode((kept or "").encode(), "a record of the mirror's file")
            if modified != self._kept[2]:
                self._take(modified, dict(data))
            self._kept[:2] = float(asked), float(answered)

    def _take(self, modified: int | None, data: JSONObject | None) -> None:
        self._value = self._source.load_one(ObjectState(self._path, Status.LOADED, data, modified), self._place)
        self._kept[2:] = modified, data

    def _note(self, error: KintoError) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"<Followed {self._path}>"


def follow(
    client: Client,
    model: type[M],
    collection: str | None = None,
    *,
    id: str,
    path: str | os.PathLike[str],
    default: M | None = None,
    every: float = 30,
) -> Followed[M]:
    """Return a record that is always there, refreshed every so many seconds in the background.

    The last known good one is kept in the file at ``path``, also for other processes of this machine: one of them asks
    the server. ``collection`` is by default that of the model. With a ``default``, the first start may be offline;
    without one, it raises the errors of the server. Raises ``MirrorFileError`` for a file of another server or user.
    """
    followed = Followed(client, model, collection, id, path, default, every)
    return client.run(followed.__kinto_begin__())


async def afollow(
    client: Client,
    model: type[M],
    collection: str | None = None,
    *,
    id: str,
    path: str | os.PathLike[str],
    default: M | None = None,
    every: float = 30,
) -> Followed[M]:
    """Like :func:`follow`."""
    followed = Followed(client, model, collection, id, path, default, every)
    return await client.arun(followed.__kinto_begin__())

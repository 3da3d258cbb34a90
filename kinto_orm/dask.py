"""Queries as collections of Dask, whose workers read and write the parts of a query with their own clients.

Tasks hold no credentials: a function gives each worker its client. Needs the extra ``dask``.
https://docs.dask.org/en/stable/
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import uuid4

from kinto_orm.errors import CommitError, InvalidTypeError, InvalidValueError, UsageError
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.managers import Manager
from kinto_orm.protocol.json_values import say_value
from kinto_orm.query.frames import empty_table, import_extra, read_columns, to_pandas
from kinto_orm.query.query import Partition, Query
from kinto_orm.repository.state import FlowRunner
from kinto_orm.unit_of_work.bulk import BulkReport
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=KintoObject)

Connect: TypeAlias = Callable[[], FlowRunner]
"""A function that returns a client where it is called, with the credentials of that machine.

It is called for each part, so use ``functools.cache``. The workers must be able to import it and the model.
"""

BulkVerb: TypeAlias = Literal["bulk_create", "bulk_update", "bulk_delete"]


# -- read ---------------------------------------------------------------------------------------------------------


def bag(query: Query[M], partitions: int, *, client: Connect | None = None) -> Any:
    """Return the objects as a ``dask.bag.Bag``, with the parts of ``query.partitions()``; computing it reads them.

    ``client`` returns the worker's client; without it, ``Partition.read()`` finds one. Raises ``UsageError`` where the
    query has an order other than by id, or a limit.
    """
    dask_bag = import_extra("dask.bag", "bag()", "dask")
    delayed = import_extra("dask", "bag()", "dask").delayed
    connect = _checked_connect(client)
    # Dask takes tasks with equal names for the same task; new names make it read the query anew each time.
    parts = [
        delayed(partial(_objects, part, connect), name=_new_name("kinto-records"), traverse=False)()
        for part in query.partitions(partitions)
    ]
    return dask_bag.from_delayed(parts)


def dataframe(query: Query[M], partitions: int, *, client: Connect | None = None) -> Any:
    """Return the objects as a ``dask.dataframe.DataFrame``, with the columns of ``query.to_pandas()``.

    Otherwise like :func:`bag`. The server is asked only for the columns that are used, where the others do not matter.
    Raises ``UsageError`` where the model declares no fields.
    """
    from_map = import_extra("dask.dataframe", "dataframe()", "dask").from_map
    read = _ReadFrame(_checked_connect(client))
    empty = to_pandas(empty_table(query.__kinto_reading__()))
    return from_map(read, list(query.partitions(partitions)), meta=empty, label="kinto-records")


def _objects(part: Partition[M], connect: Connect | None) -> list[M]:
    return list(part.read(connect))


@dataclass(frozen=True)
class _ReadFrame:
    """Reader of a part as a frame; Dask passes the columns that are used."""

    connect: Connect | None
    name: str = field(default_factory=lambda: _new_name("read"))
    """A name that makes the reader of each frame unequal to the others."""

    def __call__(self, part: Partition[Any], columns: Sequence[str] | None = None) -> Any:
        here = part if self.connect is None else part.on(self.connect)
        reading = here.__kinto_reading__()
        names = empty_table(reading).column_names if columns is None else list(columns)
        place = reading.source.locate()
        return to_pandas(place.runner.run(place.asked(read_columns(reading, names, place))))


# -- write --------------------------------------------------------------------------------------------------------


def bulk_create(objects: Any, records: Manager[Any], *, client: Connect | None = None) -> BulkReport:
    """Create the objects of the bag (objects or their data, each with its id), in full batches, by the workers.

    Runs at once, and needs a ``distributed.Client``, which keeps the report of each part. Returns the sum of the
    reports. A worker that dies is replaced, and its part is written again: hence the ids. Raises ``CommitError`` after
    all parts were tried, with the failed outcomes and the parts that stopped.
    """
    return _write_back("bulk_create", objects, records, client)


def bulk_update(objects: Any, records: Manager[Any], *, client: Connect | None = None) -> BulkReport:
    """Save the loaded objects of the bag, each with ``If-Match``; otherwise like :func:`bulk_create`.

    A part that is written again is first read and changed again: make changes that can be made twice.
    """
    return _write_back("bulk_update", objects, records, client)


def bulk_delete(objects: Any, records: Manager[Any], *, client: Connect | None = None) -> BulkReport:
    """Delete the objects of the bag, each with ``If-Match``; otherwise like :func:`bulk_create`."""
    return _write_back("bulk_delete", objects, records, client)


@dataclass(frozen=True, slots=True)
class _Written:
    """The result of one part."""

    report: BulkReport
    stopped: str = ""
    """The reason why the rest of the part was not tried; empty where all of it was."""


def _write_back(verb: BulkVerb, objects: Any, records: Manager[Any], client: Connect | None) -> BulkReport:
    import_extra("dask.bag", f"{verb}()", "dask")
    import_extra("distributed", f"{verb}()", "dask")
    if not hasattr(objects, "to_delayed") or not isinstance(records, Manager):
        raise InvalidTypeError(f"{verb}() takes a bag and where it belongs (Todo.records), not {say_value(objects)}.")
    reading = records.__kinto_reading__()
    place = reading.source.locate()
    refuse_staging(place.runner, f"{verb}() of a bag")
    fixed = Manager(replace(reading, source=reading.source.fixed(place.runner, place.path)))
    part = _Part(_new_name(f"kinto-{verb}"), 0, fixed, verb, _checked_connect(client))
    return _sum_up(verb, _run([replace(part, number=n) for n in range(objects.npartitions)], objects, _scheduler(verb)))


@dataclass(frozen=True, slots=True)
class _Part:
    """Task that writes a part once; the scheduler keeps its result, because the results of a worker die with it.

    Dask then also runs parts again that had ended well.
    """

    call: str
    """The name of the whole call."""
    number: int
    records: Manager[Any]
    verb: BulkVerb
    connect: Connect | None

    @property
    def kept(self) -> Any:
        """The scheduler's queue for the result."""
        return import_extra("distributed", f"{self.verb}()", "dask").Queue(f"{self.call}-{self.number}")

    def __call__(self, given: Sequence[Any]) -> None:
        kept = self.kept
        if kept.qsize() == 0:
            kept.put(pickle.dumps(_write_all(self.records, self.verb, self.connect, list(given))))

    def written(self) -> _Written | None:
        """Return the result of the part, where it has ended; to be called once."""
        kept = self.kept
        found: _Written | None = pickle.loads(kept.get()) if kept.qsize() else None
        return found


def _write_all(records: Manager[Any], verb: BulkVerb, connect: Connect | None, objects: Sequence[Any]) -> _Written:
    report = BulkReport()
    try:
        if connect is not None:
            reading = records.__kinto_reading__()
            source = reading.source.fixed(connect(), reading.source.locate().path)
            records = Manager(replace(reading, source=source))
        if verb == "bulk_create":
            _check_ids(objects)
        write: Callable[..., BulkReport] = getattr(records, verb)
        report.is_complete = write(objects, on_outcome=report.add).is_complete
    except CommitError:
        # The error has the content of the report; the number of outcomes shows whether all objects were tried.
        report.is_complete = report.stored + report.planned + len(report.failed) == len(objects)
        return _Written(report, "" if report.is_complete else "the server took no more writes")
    except Exception as error:  # noqa: BLE001  the reports of the other parts must not be lost with this part
        report.is_complete = False
        return _Written(report, f"{type(error).__name__}: {error}")
    return _Written(report)


def _check_ids(objects: Sequence[Any]) -> None:
    for one in objects:
        if (one.get("id") if isinstance(one, Mapping) else one.id) is None:
            raise InvalidValueError(
                f"{say_value(one)} has no id: a part may be written twice, so give each object one."
            )


def _scheduler(verb: str) -> Any:
    try:
        return import_extra("distributed", f"{verb}()", "dask").get_client()
    except ValueError as error:
        raise UsageError(
            f"{verb}() of a bag needs a distributed.Client: other schedulers forget the other parts when one fails."
        ) from error


def _run(parts: Sequence[_Part], objects: Any, scheduler: Any) -> list[_Written]:
    delayed, wait = import_extra("dask", "a bag", "dask").delayed, import_extra("distributed", "a bag", "dask").wait
    tasks = [
        delayed(one, name=f"{one.call}-{one.number}", traverse=False)(given, dask_key_name=f"{one.call}-{one.number}")
        for one, given in zip(parts, objects.to_delayed(), strict=True)
    ]
    futures = scheduler.compute(tasks)
    try:
        wait(futures)
        return [one.written() or _not_written(future) for one, future in zip(parts, futures, strict=True)]
    except BaseException as error:
        scheduler.cancel(futures)
        done = [written for one in parts if (written := one.written())]
        stored = sum(one.report.stored for one in done)
        error.add_note(
            f"{len(done)} of {len(parts)} parts were written before this, {stored} objects stored; others were begun."
        )
        raise
    finally:
        for one in parts:
            one.kept.close()


def _not_written(future: Any) -> _Written:
    error = future.exception() if future.status == "error" else None
    why = future.status if error is None else f"{type(error).__name__}: {error}"
    return _Written(BulkReport(is_complete=False), f"{why} (what was stored of it before is not known)")


def _sum_up(verb: str, parts: Sequence[_Written]) -> BulkReport:
    whole = BulkReport()
    for one in parts:
        for count in ("created", "updated", "deleted", "unchanged", "planned"):
            setattr(whole, count, getattr(whole, count) + getattr(one.report, count))
        whole.failed += one.report.failed
        whole.is_complete = whole.is_complete and one.report.is_complete
    stopped = [f"part {number}: {one.stopped}" for number, one in enumerate(parts) if one.stopped]
    if whole.failed or stopped:
        failed = f"{verb}: failed for {len(whole.failed)}, stored for {whole.stored} objects, in {len(parts)} parts. "
        early = f"{len(stopped)} stopped early: {'; '.join(stopped)[:600]}. " if stopped else ""
        raise CommitError(f"{failed}{early}See .outcomes for the failed ones.", whole.failed)
    return whole


# -- both ---------------------------------------------------------------------------------------------------------


def _checked_connect(client: Connect | None) -> Connect | None:
    if client is not None and not callable(client):
        raise InvalidTypeError(
            f"client= is a function that gives a client on the worker, not {say_value(client)}: credentials do not "
            "travel."
        )
    return client


def _new_name(what: str) -> str:
    return f"{what}-{uuid4().hex}"

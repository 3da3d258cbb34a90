"""Changes of an object that may not exist, or that other clients change at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from kinto_orm.errors import (
    ConcurrentWriteError,
    ConflictError,
    ForbiddenError,
    InvalidValueError,
    NotFoundError,
    UsageError,
)
from kinto_orm.models.changes import change_of
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.source import ModelSource
from kinto_orm.protocol.json_values import JSON
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Place
from kinto_orm.repository.reads import get, or_none, require_kind
from kinto_orm.repository.state import FlowRunner, Verb
from kinto_orm.unit_of_work.engine import carry_out
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=KintoObject)


MOST_ATTEMPTS = 16
"""The number of times that ``update_or_create`` sets its keys on top of another client's change."""


def find_or_create(
    make: Callable[[], M], source: ModelSource, place: Place, id: str, changes: Mapping[str, JSON]
) -> Flow[tuple[M, bool]]:
    """Return the object of that id and whether it was created now, as ``make`` makes it; set ``changes`` of another.

    One request creates or finds it: the answer to a creation that is refused has the data. Where ``make`` raises
    ``InvalidValueError``, the object is read, and the error raised where there is none.
    """
    runner = place.runner
    refuse_staging(runner, "get_or_create() or update_or_create()")
    yield from require_kind(place.path.kind, runner)
    try:
        one = make()
    except InvalidValueError as error:
        one, created = (yield from _read(source, place, id, error)), False
    else:
        created = yield from _create_or_load(one, runner)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        if created or not changes:
            break
        try:
            one.__kinto_edit__(changes, {})
            yield from carry_out(one.__kinto_change__(Verb.SAVE), runner)
            break
        except ConflictError as conflict:
            if conflict.theirs is None or attempt == MOST_ATTEMPTS:
                raise
            conflict.reload()
    return one, created


def _read(source: ModelSource, place: Place, id: str, error: InvalidValueError) -> Flow[Any]:
    path = place.path.object(id)
    state = yield from or_none(get(path))
    if state is None:
        raise InvalidValueError(
            f"{path} does not exist, and cannot be created with these keys alone: {error}"
        ) from error
    return source.load_one(state, place)


def _create_or_load(new: KintoObject, runner: FlowRunner) -> Flow[bool]:
    change = change_of(new, Verb.SAVE, if_not_exists=True)
    yield from carry_out(change, runner)
    if change.status == "planned":
        try:
            new.__kinto_apply_state__((yield from get(change.state.path)), None)  # as the 412 would have said
        except (NotFoundError, ForbiddenError):  # the latter where the bucket is planned as well
            return True
    return change.status == "created"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Editing(Generic[M]):
    """The attempts to change one object: ``for attempt in …: with attempt as one: …``, or with ``async``."""

    source: ModelSource
    id: str
    attempts: int

    def __iter__(self) -> Iterator[Attempt[M]]:
        for attempt in self._attempts():
            yield attempt
            if attempt.is_done:
                return

    async def __aiter__(self) -> AsyncIterator[Attempt[M]]:
        for attempt in self._attempts():
            yield attempt
            if attempt.is_done:
                return

    def _attempts(self) -> Iterator[Attempt[M]]:
        place = self.source.locate()
        refuse_staging(place.runner, "edit()")
        for number in range(1, self.attempts + 1):
            yield Attempt(self, place, number)


class Attempt(Generic[M]):
    """One attempt: a block that gets the object as it is now, and saves it at its end.

    Where another client changed it in between, the next attempt begins; the last one raises ``ConflictError``.
    """

    def __init__(self, editing: Editing[M], place: Place, number: int) -> None:
        self._editing = editing
        self._place = place
        self._object: M | None = None
        self.number = number
        """Counts from 1."""
        self._is_over = False

    @property
    def is_done(self) -> bool:
        """Whether the object is saved; raises ``UsageError`` where the block was never entered."""
        if self._object is None:
            raise UsageError("edit() gives attempts to be entered: for attempt in …edit(id): with attempt as one: …")
        return self._is_over

    def _begin(self) -> Flow[M]:
        path = self._place.path.object(self._editing.id)
        yield from require_kind(path.kind, self._place.runner)
        state = yield from get(path, attempt=self.number)
        self._object = found = cast(M, self._editing.source.load_one(state, self._place))
        return found

    @contextmanager
    def _saving(self) -> Generator[None]:
        """Leave a conflict to the next attempt, where there is one."""
        try:
            yield
            self._is_over = True
        except (ConflictError, ConcurrentWriteError):
            if self.number == self._editing.attempts:
                raise

    def __enter__(self) -> M:
        return self._place.runner.run(self._begin())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            one: Any = self._object
            with self._saving():
                if not one.is_deleted:  # which the block may have done by itself
                    one.save()

    async def __aenter__(self) -> M:
        return await self._place.runner.arun(self._begin())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            one: Any = self._object
            with self._saving():
                if not one.is_deleted:
                    await one.asave()

"""A plan that is shown, kept in a file, and applied: exactly what was shown, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn, get_args

from kinto_orm.errors import InvalidInputError, InvalidValueError, ProtocolError, UsageError
from kinto_orm.jobs.applying import Applying, OnOutcome, SyncReport
from kinto_orm.jobs.comparing import ChangeKind, PlanCounts, PlannedChange
from kinto_orm.jobs.planning import Planned, PlannedChanges, Planning, SyncOptions, say_key
from kinto_orm.jobs.sources import RowCodec, Rows
from kinto_orm.protocol.accounts import DUMPED, SECRETS
from kinto_orm.protocol.json_values import JSON, MISSING, JSONObject, decode, encode, say_value
from kinto_orm.protocol.merge import at_places
from kinto_orm.protocol.paths import check_id
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.query.execution import Place
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.disk import FilePath, read_lines, write_text
from kinto_orm.repository.state import FlowRunner, OnConflict, Progress
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

FORMAT = "kinto_orm plan, version 1"
"""The first value of each file with a plan."""

_MARKS: dict[ChangeKind, str] = {"create": "+", "update": "~", "delete": "-"}


class SyncPlan:
    """The changes that make a collection equal to a source; only reads were sent for it.

    It is an iterable of ``PlannedChange``, and its text is a diff by field. Apply it with :meth:`apply`, here or, after
    :meth:`save` and ``client.load_plan()``, in another process.
    """

    def __init__(self, planned: Planned) -> None:
        self._planned = planned

    @property
    def counts(self) -> PlanCounts:
        """The number of records that are created, updated, deleted, left unchanged, and that have no key."""
        return self._planned.counts

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return not self.counts.changes

    @property
    def timestamp(self) -> int | None:
        """The timestamp of the list when the plan was begun, in milliseconds; the plan applies to that state."""
        return self._planned.timestamp

    def __iter__(self) -> Iterator[PlannedChange]:
        return iter(self._planned.changes)

    def as_json(self) -> JSONObject:
        """Return the plan as JSON values, as :meth:`save` writes it."""
        return {**self._header(), "changes": [change.as_json() for change in self]}

    def save(self, path: FilePath) -> None:
        """Write the plan to a JSON file, to be read by ``client.load_plan()``. Raises ``OSError``."""
        self._planned.place.runner.run(self._save(path))

    async def asave(self, path: FilePath) -> None:
        """Like :meth:`save`."""
        await self._planned.place.runner.arun(self._save(path))

    def apply(self, *, progress: Progress | None = None, on_outcome: OnOutcome | None = None) -> SyncReport:
        """Write the changes, unless another client changed the collection since the plan was made.

        Where the server has the capability ``atomic_batch`` and the plan fits in one batch, all is stored or nothing.
        Elsewhere each change has its own precondition. A plan whose application was interrupted can be applied again:
        the changes that are stored already are not sent.
        Raises ``StalePlanError`` where another client changed the collection, ``CommitError`` (with ``.report``) where
        records were not stored.
        """
        return self._planned.place.runner.run(self._apply(progress, on_outcome))

    async def aapply(self, *, progress: Progress | None = None, on_outcome: OnOutcome | None = None) -> SyncReport:
        """Like :meth:`apply`."""
        return await self._planned.place.runner.arun(self._apply(progress, on_outcome))

    def __str__(self) -> str:
        counts, secrets = self.counts, SECRETS.get(str(self._planned.place.path), {})
        lines = [
            f"{self._planned.place.path}: {counts.create} to create, {counts.update} to update, {counts.delete} to "
            f"delete, {counts.unchanged} unchanged"
        ]
        for change in self:
            lines += _lines_of(change, self._planned.key, secrets)
        return "\n".join(lines)

    def __repr__(self) -> str:
        counts = self.counts
        return f"<SyncPlan of {self._planned.place.path}: +{counts.create} ~{counts.update} -{counts.delete}>"

    def __bool__(self) -> NoReturn:
        raise UsageError("A plan has no truth value: ask plan.is_empty.")

    def _apply(self, progress: Progress | None, on_outcome: OnOutcome | None) -> Flow[SyncReport]:
        check_callbacks(progress=progress, on_outcome=on_outcome)
        refuse_staging(self._planned.place.runner, "apply() of a plan")
        return Applying(self._planned, progress=progress, on_outcome=on_outcome).apply()

    def _save(self, path: FilePath) -> Flow[None]:
        return call_blocking("a plan", lambda: write_text(path, self._pieces()))

    def _header(self) -> JSONObject:
        bucket, collection = self._planned.place.path.parent_ids
        return {
            "format": FORMAT,
            "bucket": bucket,
            "collection": collection,
            "timestamp": self.timestamp,
            "key": self._planned.key,
            "counts": asdict(self.counts),
        }

    def _pieces(self) -> Iterator[str]:
        # One change a line, so that a plan can be read, and compared by git.
        yield f'{encode(self._header()).decode()[:-1]},"changes":['
        separator = "\n"
        for change in self:
            yield f"{separator}{encode(change.as_json()).decode()}"
            separator = ",\n"
        yield "\n]}\n"


def make_plan(
    rows: Rows, options: SyncOptions, codec: RowCodec, progress: Progress | None, place: Place
) -> Flow[SyncPlan]:
    """Plan the changes that make the collection equal to the rows; only reads are sent."""
    check_callbacks(progress=progress)
    return SyncPlan((yield from Planning(place, codec, options, progress).plan(rows)))


def sync(
    rows: Rows,
    options: SyncOptions,
    codec: RowCodec,
    on_conflict: OnConflict,
    progress: Progress | None,
    on_outcome: OnOutcome | None,
    place: Place,
) -> Flow[SyncReport]:
    """Make the collection equal to the rows: compare both sides, then write the differences."""
    check_callbacks(progress=progress, on_outcome=on_outcome)
    refuse_staging(place.runner, "sync()")
    planned = yield from Planning(place, codec, options, progress).plan(rows)
    try:
        return (yield from Applying(planned, on_conflict, progress, on_outcome).write("sync"))
    finally:
        planned.changes.close()


def load_plan(
    path: FilePath, runner: FlowRunner, records_of: Callable[[str, str], tuple[Place, RowCodec]]
) -> Flow[SyncPlan]:
    """Read a plan from a file; nothing is sent.

    ``records_of`` returns the list of a collection's records and their codec.
    Raises ``InvalidValueError`` for a file that holds no plan, ``OSError`` where it cannot be read.
    """
    return call_blocking("a plan", lambda: _read_plan(path, runner, records_of))


def _read_plan(
    path: FilePath, runner: FlowRunner, records_of: Callable[[str, str], tuple[Place, RowCodec]]
) -> SyncPlan:
    text = "".join(read_lines(path))
    try:
        document = decode(text.encode(), "a plan")
        if document["format"] != FORMAT:
            raise InvalidValueError(f"its format is {say_value(document['format'])}, and not {FORMAT!r}")
        place, codec = records_of(check_id(document["bucket"]), check_id(document["collection"]))
        planned = Planned(place, codec, PlannedChanges(), document["timestamp"], document["key"])
        planned.changes.add(map(_change_of, document["changes"]))
        planned.changes.counts = PlanCounts(**document["counts"])
    except (InvalidInputError, ProtocolError, KeyError, TypeError, AttributeError) as error:
        raise InvalidValueError(f"{path} holds no plan that can be applied: {error!r:.200}.") from error
    return SyncPlan(planned)


def _change_of(found: JSONObject) -> PlannedChange:
    change = PlannedChange(
        found["kind"],
        check_id(found["id"]),
        found.get("key", ""),
        found.get("last_modified"),
        found.get("old"),
        found.get("new"),
    )
    is_whole = (change.new is None) == (change.kind == "delete") and (change.old is None) == (change.kind == "create")
    if change.kind not in get_args(ChangeKind) or not is_whole:
        raise InvalidValueError(f"the change of {change.id} is of no known kind, or lacks its data")
    if change.kind != "create" and type(change.last_modified) is not int:
        raise InvalidValueError(f"the change of {change.id} lacks the timestamp of its record")
    return change


@dataclass(frozen=True)
class _Covered:
    """A secret in a text of a plan, told apart from other ones without being shown."""

    value: JSON


def _lines_of(change: PlannedChange, key: str, secrets: Mapping[str, Any]) -> Iterator[str]:
    yield f"{_MARKS[change.kind]} {change.id}" + (f" ({say_key(change.key, key, secrets)})" if change.key else "")
    before, after = (at_places(side, secrets, _Covered) for side in (change.old, change.new))  # still told apart
    for path, old, new in replace(change, old=before, new=after).differences():
        yield f"    {path}: " + (_value(new) if change.kind == "create" else f"{_value(old)} -> {_value(new)}")


def _value(value: JSON) -> str:
    return "(none)" if value is MISSING else json.dumps(value, ensure_ascii=False, default=lambda _: DUMPED)

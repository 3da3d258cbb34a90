"""Values and protocols shared by models, repository, the engine and the client.

A model holds an ``ObjectState``; a verb makes a ``Change`` of it; the answer comes back as a new ``ObjectState``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar

from kinto_orm.errors import ConflictError, KintoError, NotBoundError
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.merge import Merged
from kinto_orm.protocol.messages import Download, Request, Response
from kinto_orm.protocol.patches import Patch
from kinto_orm.protocol.paths import ObjectPath
from kinto_orm.protocol.responses import ShownPermissions, StoredObject, stored_object
from kinto_orm.protocol.writes import Action, Flow, NextFlow, PermissionLists, Write

T = TypeVar("T")
H = TypeVar("H")
H_co = TypeVar("H_co", covariant=True)
S = TypeVar("S", bound="Stateful")

OnInvalid: TypeAlias = Literal["raise", "skip", "keep"]
"""The treatment of rows that do not fit their model; ``keep`` returns them as plain records."""

ConflictPolicy: TypeAlias = Literal["raise", "mine", "theirs", "merge"]
"""The ways out of a conflict: none; write over theirs; take theirs; merge both sides, field by field."""

OnConflict: TypeAlias = ConflictPolicy | Callable[[ConflictError], ConflictPolicy | Mapping[str, Any]]
"""The reaction to a change by another client: a way out, or a function that looks at the conflict and returns a way
out, or the data that the object shall have."""

OutcomeStatus: TypeAlias = Literal[
    "created",
    "updated",
    "deleted",
    "unchanged",
    "conflict",
    "gone",
    "rejected",
    "rolled_back",
    "unknown",
    "not_sent",
    "planned",
]
"""``unchanged``: the object is as the server has it, and nothing had to be stored. ``conflict``, ``gone``: another
client changed or deleted it. ``rejected``: the server refused it. ``rolled_back``: the server undid it, because of
another write of the same batch. ``unknown``: the answer got lost. ``not_sent``: nothing was sent. ``planned``: nothing
was sent, because the client is dry; the object keeps its changes."""

STORED = frozenset({"created", "updated", "deleted", "unchanged"})
"""The outcomes after which the object is as the server has it."""


Progress: TypeAlias = Callable[[int, int | None, str], object]
"""A function that a running job calls with the number done, the total where it is known, and the name of the step."""


@dataclass(slots=True, eq=False, repr=False)
class Tally:
    """The number done of one step of a job, told to the caller's function where there is one."""

    progress: Progress | None
    step: str
    total: int | None = None
    done: int = 0

    def add(self, count: int) -> None:
        """Count so many more as done."""
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, self.step)


class Status(Enum):
    """The relation of an object to its server."""

    NEW = "new"
    REFERENCE = "reference"
    LOADED = "loaded"
    DELETED = "deleted"


class Verb(Enum):
    """The verb that the user called on an object."""

    SAVE = "save"
    REPLACE = "replace"
    PATCH = "patch"
    DELETE = "delete"
    ATTACH = "attach"
    DETACH = "detach"

    __hash__ = object.__hash__  # as in Kind: they are looked up for each write


class ObjectState(NamedTuple):
    """The server's last word about one object."""

    path: ObjectPath
    status: Status
    data: JSONObject | None = None
    """As the server last sent it, without ``id`` and ``last_modified``; ``None`` where it never did."""
    last_modified: int | None = None
    permissions: ShownPermissions = None
    is_partial: bool = False
    has_drawn_id: bool = False
    """Whether this client drew the id at random, so that no other client can have written there."""
    in_doubt: Change[Any] | None = None
    """The last change whose answer got lost: the server may have applied it."""

    def after(self, stored: StoredObject) -> ObjectState:
        """Return the state in which the server's answer puts the object."""
        if stored.is_deleted:
            return ObjectState(self.path, Status.DELETED, last_modified=stored.last_modified)
        return ObjectState(self.path, Status.LOADED, stored.data, stored.last_modified, stored.permissions)


class WriteOptions(NamedTuple):
    """The options of every write."""

    safe: bool = True
    if_match: int | None = None
    if_not_exists: bool = False
    if_exists: bool = False
    on_conflict: OnConflict | None = None
    """``None``: the policy of the unit of work, else ``raise``."""


NO_OPTIONS = WriteOptions()


@dataclass(slots=True, eq=False, repr=False)
class Change(Generic[H]):
    """One verb on one object, from the call to its outcome.

    The wish is frozen when the change is made. Encoding fills in ``write`` and ``entry``; the answer fills in the rest.
    A change that must be sent in another form is derived with ``dataclasses.replace``; the outcome stays with the
    ``origin``.
    """

    holder: H
    verb: Verb
    state: ObjectState
    """The state that it started from."""
    data: JSONObject
    """The whole data that the object shall have; of a patch, the data that the object had at the call."""
    permissions: PermissionLists | None = None
    """The permissions to set; ``None``: leave them."""
    all_permissions: PermissionLists | None = None
    """The complete set, where it is known."""
    options: WriteOptions = NO_OPTIONS
    patch: Patch | None = None
    seen: Change[Any] | None = None
    """The object as its user had made it at the call, where ``data`` is more than that: several calls became one."""

    mark: Any = field(default=None, init=False)
    """The holder's own note of its state at the call, which tells later whether it was edited."""
    write: Write | None = field(default=None, init=False)
    entry: JSONObject | None = field(default=None, init=False)
    """The write as an entry of a batch."""
    origin: Change[H] | None = field(default=None, init=False)
    """The change that was asked for, where the engine sends this one in its place."""
    was_lost: bool = field(default=False, init=False)
    """Whether the answer to an earlier attempt got lost, which may be why the next one was refused."""

    status: OutcomeStatus | None = field(default=None, init=False)
    error: KintoError | None = field(default=None, init=False)
    is_reconciled: bool = field(default=False, init=False)
    again: Change[H] | None = field(default=None, init=False)
    """The form to send next time: an earlier change whose answer got lost was found, and the object took its state."""
    other_form: Change[H] | None = field(default=None, init=False)
    """The form in which it was stored, where that is another one: a change that refers to itself is freed late."""
    answer: ObjectState | JSONObject | None = field(default=None, init=False)
    """The server's answer to it: a state, or the body of which :attr:`after` makes one."""

    @property
    def doubts(self) -> list[Change[Any]]:
        """The earlier changes of the object that may have been applied, the last one first: one of them at most was."""
        found: list[Change[Any]] = []
        earlier = self.state.in_doubt
        while earlier is not None:
            found.append(earlier)
            earlier = earlier.state.in_doubt
        return found

    @property
    def sent(self) -> Change[H] | None:
        """The form in which it was stored; ``None`` where nothing was stored."""
        return None if self.answer is None else self.other_form or self

    @property
    def only_asks(self) -> bool:
        """Whether its write changes nothing, ever: a PATCH or DELETE that expects no object asks for the one there."""
        write = self.write
        return write is not None and write.precondition.absent and write.action is not Action.PUT

    @property
    def shown(self) -> Change[Any]:
        """The object as its user had made it at the call."""
        return self.seen or self

    @property
    def is_stored(self) -> bool:
        """Whether the server has the object as it was wanted."""
        return self.status in STORED

    @property
    def after(self) -> ObjectState | None:
        """The state after the write, where something was stored."""
        if isinstance(self.answer, dict):
            self.answer = self.state.after(stored_object(self.answer["data"], self.answer.get("permissions")))
        return self.answer

    @property
    def outcome(self) -> Outcome[H]:
        """The outcome, as the user sees it."""
        assert self.status is not None
        return Outcome(self.holder, self.verb, self.status, self.error, self.is_reconciled, self)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[H_co]):
    """The result of one staged write."""

    object: H_co
    """The object; in a bulk verb, an item that no object could be made of, as it was given."""
    verb: Verb
    status: OutcomeStatus
    error: KintoError | None = None
    reconciled: bool = False
    """Whether the answer to a first attempt got lost, and a second one showed that it had been applied."""
    change: Change[Any] | None = field(default=None, compare=False)
    """The write itself: ``compensate()`` needs it."""

    def __repr__(self) -> str:  # without an item as it was given, which may have secrets
        shown = type(self.object).__name__ if isinstance(self.object, Mapping) else repr(self.object)
        return f"Outcome({shown}, {self.verb!r}, {self.status!r}, error={self.error!r})"

    @property
    def is_stored(self) -> bool:
        """Whether the server has the object as it was wanted."""
        return self.status in STORED


StoredRows: TypeAlias = Sequence[JSONObject | None]
"""The rows of one answer, in the order of the changes; ``None`` for a change that was not stored as it was sent."""


class Stateful(Protocol):
    """An object whose state is written: a model, seen from below."""

    @property
    def is_dirty(self) -> bool:
        """Whether the object has changes that the server does not have."""
        ...

    def __kinto_apply_state__(self, state: ObjectState, change: Change[Any] | None) -> None:
        """Take the new state; edits that ``change`` did not send stay as unsaved changes."""
        ...

    def __kinto_accept__(self, change: Change[Any], row: JSONObject, shown: ShownPermissions, rows: StoredRows) -> bool:
        """Take the state after a change that was stored as it was sent, unless the object was edited since the call.

        ``row`` is the data of the answer, ``rows`` those of its whole batch. Returns whether the state was taken.
        """
        ...

    def __kinto_mark_uncertain__(self, change: Change[Any]) -> None:
        """Remember that the server may have applied the change, whose answer got lost."""
        ...

    def __kinto_path__(self) -> ObjectPath:
        """Return the path of the object; raise ``NotBoundError`` where it is not known."""
        ...

    def __kinto_state__(self) -> ObjectState:
        """Return the server's last word about the object; raise ``NotBoundError`` where its path is not known."""
        ...

    def __kinto_change__(self, verb: Verb) -> Change[Self]:
        """Return the verb on the object as it is now: later edits leave it as it is."""
        ...

    def __kinto_is_clean__(self) -> bool:
        """Return whether the object surely is as the server last sent it; ``False`` where that takes a closer look."""
        ...

    def __kinto_runner__(self) -> FlowRunner:
        """Return the client of the object; raise ``NotBoundError`` where it has none."""
        ...

    def __kinto_merge__(self, base: JSONObject | None, mine: JSONObject, theirs: JSONObject) -> Merged:
        """Return the data of both sides, merged by the types of the fields."""
        ...

    def __kinto_check__(self, data: JSONObject) -> None:
        """Raise ``InvalidValueError`` for data that could not be read back."""
        ...

    def __kinto_edit__(self, data: Mapping[str, Any], permissions: Mapping[str, Iterable[str]]) -> None:
        """Set these keys of the data (by wire names) and these permissions, as unsaved changes."""
        ...


class FlowRunner(Protocol):
    """A client, seen from below: it moves flows."""

    @property
    def default_bucket(self) -> str:
        """The default bucket."""
        ...

    @property
    def default_collection(self) -> str | None:
        """The default collection."""
        ...

    @property
    def on_invalid(self) -> OnInvalid:
        """The treatment of rows that do not fit their model."""
        ...

    @property
    def retry(self) -> int:
        """The number of times that a write is sent again that was not stored."""
        ...

    @property
    def strict_retry(self) -> bool:
        """Whether a write whose answer got lost is recognised only where no other client can have written the same."""
        ...

    @property
    def __kinto_writes__(self) -> int:
        """The number of writes that were sent so far."""
        ...

    def run(self, flow: Flow[T]) -> T:
        """Return the result of the flow."""
        ...

    async def arun(self, flow: Flow[T]) -> T:
        """Return the result of the flow; wait without blocking the event loop."""
        ...

    def __kinto_run_all__(self, sequences: Sequence[NextFlow[T]], *, workers: int, ordered: bool) -> Generator[T]:
        """Yield the results of several sequences of flows, moved by so many threads.

        ``ordered``: one sequence after the other. An error of a flow is raised here, and the other flows stop.
        """
        ...

    def __kinto_arun_all__(self, sequences: Sequence[NextFlow[T]], *, workers: int, ordered: bool) -> AsyncGenerator[T]:
        """Like :meth:`__kinto_run_all__`, by tasks of the event loop."""
        ...

    def __kinto_perform__(self, change: Change[S]) -> S:
        """Carry out the change, or stage it in the open unit of work; return its holder."""
        ...

    async def __kinto_aperform__(self, change: Change[S]) -> S:
        """Like :meth:`__kinto_perform__`."""
        ...

    @property
    def __kinto_locks__(self) -> set[ObjectPath]:
        """The locks whose objects are known to exist."""
        ...

    def __kinto_describe_server__(self, *, refresh: bool = False) -> Flow[JSONObject]:
        """Return the server's description of itself, to be read; ask once."""
        ...

    def __kinto_fetch_file__(self, wanted: Download) -> Flow[None]:
        """Put a file of any host there, once it is known to be the right one."""
        ...


_active: ContextVar[tuple[FlowRunner, ...]] = ContextVar("kinto_orm_active_clients", default=())


def activate(runner: FlowRunner) -> None:
    """Make the runner the active one, in this context."""
    _active.set((*_active.get(), runner))


def deactivate(runner: FlowRunner) -> bool:
    """Undo the last :func:`activate` of the runner; return whether it was the outermost one."""
    runners = list(_active.get())
    # Not Token.reset, and not just the last one: a generator may leave its block in another context or order.
    for index in reversed(range(len(runners))):
        if runners[index] is runner:
            del runners[index]
            break
    _active.set(tuple(runners))
    return not any(one is runner for one in runners)


def active_runner(what: str, otherwise: FlowRunner | None = None) -> FlowRunner:
    """Return the active client, else the other one.

    Raises ``NotBoundError`` naming the four ways to give ``what`` a client.
    """
    runners = _active.get()
    if not runners and otherwise is not None:
        return otherwise
    if not runners:
        raise NotBoundError(
            f"{what} has no client. Give it one of four ways: client=…; a parent that has one; client.bind(Model); "
            "or a block `with client:`."
        )
    return runners[-1]


Observer: TypeAlias = Callable[[Request, Response | None], object]
"""A function that takes each request of the context and its response; ``None`` for a write of a dry client."""

_observers: ContextVar[tuple[Observer, ...]] = ContextVar("kinto_orm_observers", default=())


def add_observer(observer: Observer) -> None:
    """Call the observer with each response from now on: in this context, and in the threads and tasks it starts."""
    _observers.set((*_observers.get(), observer))


def remove_observer(observer: Observer) -> None:
    """Undo :func:`add_observer`."""
    _observers.set(tuple(one for one in _observers.get() if one != observer))


def observe(request: Request, response: Response | None) -> None:
    """Call the observers of this context."""
    for observer in _observers.get():
        observer(request, response)

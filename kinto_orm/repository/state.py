"""What passes between the models, the repository and whoever runs a flow.

Everything but the two protocols is a frozen value: a model describes itself as an ``ObjectState``, a verb becomes an
``Intent``, the result comes back as a new ``ObjectState``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from kinto_orm.errors import ConflictError, NotBoundError
from kinto_orm.protocol.frozen import quickly_made
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Content, Request, Response, Target
from kinto_orm.protocol.patches import Patch
from kinto_orm.protocol.paths import ObjectPath
from kinto_orm.protocol.responses import StoredObject
from kinto_orm.protocol.writes import Flow, NextFlow, PermissionLists, Write
from kinto_orm.repository.disk import Disk

T = TypeVar("T")
H = TypeVar("H", bound="Stateful")

OnInvalid: TypeAlias = Literal["raise", "skip", "keep"]
"""What happens to rows that do not fit their model; ``keep`` gives them as plain records."""

ConflictPolicy: TypeAlias = Literal["raise", "mine", "theirs", "merge"]
"""The ways out of a conflict: none; write over theirs; take theirs; bring both together, field by field."""

OnConflict: TypeAlias = ConflictPolicy | Callable[[ConflictError], ConflictPolicy | Mapping[str, Any]]
"""What happens where somebody else changed the object: a way out, or a function that looks at the conflict and gives
one, or the data that the object shall have."""


Progress: TypeAlias = Callable[[int, int | None, str], object]
"""A function that is called while a job runs: the number that is done, the total where it is known, and of what."""


class Status(Enum):
    """What the object knows of itself."""

    NEW = "new"
    REFERENCE = "reference"
    LOADED = "loaded"
    DELETED = "deleted"


class Verb(Enum):
    """What the user asked of an object."""

    SAVE = "save"
    REPLACE = "replace"
    PATCH = "patch"
    DELETE = "delete"
    ATTACH = "attach"
    DETACH = "detach"

    __hash__ = object.__hash__  # as in Kind: they are looked up for each write


@quickly_made
@dataclass(frozen=True, slots=True)
class ObjectState:
    """What is known of one object: what the server last said of it."""

    path: ObjectPath
    status: Status
    data: JSONObject | None = None
    """As the server last sent it, without ``id`` and ``last_modified``; ``None`` where it never did."""
    last_modified: int | None = None
    permissions: Mapping[str, frozenset[str]] | None = None
    """``None``: unknown."""
    is_partial: bool = False
    has_drawn_id: bool = False
    """Whether the id was drawn at random by us, so that nobody else can have written there."""
    in_doubt: Intent | None = None
    """The last write, where its answer got lost: the server may have applied it."""

    def after(self, stored: StoredObject) -> ObjectState:
        """The state that the server's answer puts the object in."""
        if stored.is_deleted:
            return ObjectState(self.path, Status.DELETED, last_modified=stored.last_modified)
        return ObjectState(self.path, Status.LOADED, stored.data, stored.last_modified, stored.permissions)


@quickly_made
@dataclass(frozen=True, slots=True)
class Draft:
    """What the user made of the object: frozen at the call, changed by nothing that happens later."""

    data: JSONObject
    permissions: PermissionLists | None = None
    """The permissions to set; ``None``: leave them."""
    all_permissions: PermissionLists | None = None
    """The complete set, where it is known."""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The options that every write has."""

    safe: bool = True
    if_match: int | None = None
    if_not_exists: bool = False
    if_exists: bool = False
    on_conflict: OnConflict | None = None
    """``None``: what the unit of work says, else ``raise``."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Intent:
    """One verb on one object, with all that it needs to be sent now or later."""

    verb: Verb
    state: ObjectState
    draft: Draft
    options: WriteOptions = WriteOptions()
    patch: Patch | None = None
    seen: Draft | None = None
    """What the user had made of the object when the verb was called, where ``draft`` is more than that: in a unit of
    work, where several calls became one."""


class Stateful(Protocol):
    """An object whose state is written: a model, seen from below."""

    def __kinto_apply_state__(self, state: ObjectState, intent: Intent | None) -> None:
        """Takes the new state; edits that ``intent`` did not send stay as unsaved changes."""
        ...

    def __kinto_mark_uncertain__(self, intent: Intent) -> None:
        """Remembers that the server may have applied the intent, whose answer got lost."""
        ...

    def __kinto_path__(self) -> ObjectPath:
        """Where the object is; raises ``NotBoundError`` where that is not known."""
        ...

    def __kinto_describe__(self) -> tuple[ObjectState, Draft]:
        """What the server last said of the object, and what the user made of it."""
        ...

    def __kinto_is_clean__(self) -> bool:
        """Whether it surely is as the server last sent it; ``False`` where that takes a closer look."""
        ...

    def __kinto_runner__(self) -> FlowRunner:
        """The client of the object; raises ``NotBoundError`` where it has none."""
        ...

    def __kinto_edit__(self, data: Mapping[str, Any], permissions: Mapping[str, Iterable[str]]) -> None:
        """Sets these keys of the data (by wire names) and these permissions, as unsaved changes."""
        ...


class FlowRunner(Protocol):
    """What moves flows: the client, seen from below."""

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
        """What happens to rows that do not fit their model."""
        ...

    @property
    def retry(self) -> int:
        """How often what was not stored is sent again."""
        ...

    @property
    def strict_retry(self) -> bool:
        """Whether a write whose answer got lost is recognised only where nobody else can have written the same."""
        ...

    @property
    def disk(self) -> Disk:
        """The disk of this machine."""
        ...

    def run(self, flow: Flow[T]) -> T:
        """The result of the flow."""
        ...

    async def arun(self, flow: Flow[T]) -> T:
        """The result of the flow; waits without blocking the event loop."""
        ...

    def run_concurrently(self, sequences: Sequence[NextFlow[T]], *, workers: int, ordered: bool) -> Generator[T]:
        """The results of several sequences of flows, moved by so many threads."""
        ...

    def arun_concurrently(self, sequences: Sequence[NextFlow[T]], *, workers: int, ordered: bool) -> AsyncGenerator[T]:
        """Like :meth:`run_concurrently`."""
        ...

    def perform(self, holder: H, intent: Intent) -> H:
        """Carries out the intent, or stages it in the open unit of work; the holder."""
        ...

    async def aperform(self, holder: H, intent: Intent) -> H:
        """Like :meth:`perform`."""
        ...

    def refuse_staging(self, what: str) -> None:
        """Raises ``NotStageableError`` inside a unit of work, which ``what`` cannot be part of."""
        ...

    def prepare_lock(self, path: ObjectPath) -> Flow[Write]:
        """The write that takes this lock, whose object is there; makes sure of that only once."""
        ...

    def forget_lock(self, path: ObjectPath) -> None:
        """Makes sure again, the next time, that the object of this lock is there: it could not be taken."""
        ...

    def describe_server(self, *, refresh: bool = False) -> Flow[JSONObject]:
        """What the server says of itself, to be read; asks only once."""
        ...

    def read_file(self, file: Content) -> Flow[bytes]:
        """The whole content of the file."""
        ...

    def fetch_file(
        self, url: str, target: Target, *, size: int | None, sha256: str | None, overwrite: bool
    ) -> Flow[None]:
        """Puts a file of any host there, once it is known to be the right one."""
        ...


_active: ContextVar[tuple[FlowRunner, ...]] = ContextVar("kinto_orm_active_clients", default=())


def activate(runner: FlowRunner) -> None:
    """Makes the runner the active one, in this context."""
    _active.set((*_active.get(), runner))


def deactivate(runner: FlowRunner) -> bool:
    """Undoes the last :func:`activate` of the runner; whether it was the outermost one."""
    runners = list(_active.get())
    # Not Token.reset, and not just the last one: a generator may leave its block in another context or order.
    for index in reversed(range(len(runners))):
        if runners[index] is runner:
            del runners[index]
            break
    _active.set(tuple(runners))
    return not any(one is runner for one in runners)


def active_runner(what: str, otherwise: FlowRunner | None = None) -> FlowRunner:
    """The active client; where there is none, the other one.

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

"""What ``todos.records``, ``payments.collections`` and ``client.buckets`` give: a query of the whole list that also
creates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import DryRunError, InvalidFilterError, InvalidTypeError
from kinto_orm.models.editing import Editing
from kinto_orm.models.fields import declared_fields
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.loading import find_parent, load, reference, reference_at
from kinto_orm.models.metaclass import HIDDEN_FIELDS
from kinto_orm.models.pages import load_page
from kinto_orm.models.past import Past
from kinto_orm.models.permissions import PermissionsInput
from kinto_orm.models.planning import plan_creation
from kinto_orm.models.rows import fields_stand_alone, row_of, row_schema
from kinto_orm.models.untouched import is_untouched
from kinto_orm.outcomes import Bulk, BulkReport, Outcome, Staged, raise_for_report, report_of
from kinto_orm.protocol.endpoints import Kind, PluralPath, check_id
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject
from kinto_orm.query import LoadedRows, Place, Reading, Row, check_count
from kinto_orm.repository import get, get_or_create, require_kind, update_or_create
from kinto_orm.state import Draft, Intent, ObjectState, Runner, Status, Verb, active_runner

M = TypeVar("M", bound=KintoObject)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Objects of a model, below a parent: given, or found by the defaults of class and client when a query ends."""

    model: type[Any]
    plain: type[Any]
    parent: KintoObject | None = None
    client: Runner | None = None
    path: PluralPath | None = None
    """The list, where the source is fixed there."""
    origin: Runner | None = None
    """The client that it had before it was pickled."""

    @property
    def kind(self) -> Kind:
        """The kind of the objects."""
        return cast(Kind, self.model.__kinto_kind__)

    def runner(self) -> Runner:
        """The client; raises ``NotBoundError`` where there is none."""
        if self.client is not None:
            return self.client
        if self.parent is not None:
            return self.parent.__kinto_runner__()
        return self.model.__kinto_client__ or active_runner(f"{self.model.__name__}'s query", self.origin)

    def find_parent(self) -> KintoObject | None:
        """The parent; raises ``NotBoundError`` where there is none."""
        if self.parent is not None or self.model.__kinto_parent__ is None:
            return self.parent
        return cast(KintoObject, find_parent(self.model, None, None, self.runner))

    def locate(self) -> Place:
        """The client and the list."""
        if self.path is not None:
            runner = self.runner()
            return Place(runner, self.path, reference_at(self.model.__kinto_parent__, self.path.parent_ids, runner))
        parent = self.find_parent()
        return Place(self.runner(), PluralPath(self.kind, parent.__kinto_path__().ids if parent else ()), parent)

    def fixed(self, runner: Runner, path: PluralPath) -> ModelSource:
        """The same at that place, whatever the defaults are; it can be pickled."""
        return ModelSource(self.model, self.plain, client=runner, path=path)

    def __reduce__(self) -> tuple[Any, ...]:
        # The pickle of a client has no credentials: where it is read, another one may have them.
        is_fixed = self.path is not None
        client, origin = (None, self.client or self.origin) if is_fixed else (self.client, None)
        return (ModelSource, (self.model, self.plain, self.parent, client, self.path, origin))

    def load(self, rows: LoadedRows, place: Place) -> list[Any]:
        """The objects of a page."""
        return load_page(self.model, self.plain, rows, place.runner, place.parent)

    def load_one(self, state: ObjectState, place: Place) -> Any:
        """The object of that state."""
        one = reference(self.model, state.path.id, place.runner, place.parent)
        load(one, state)
        return one

    def resolve_field(self, name: str) -> str:
        """The wire name; where the model declares fields, only those, ``id``, ``last_modified`` and ``deleted``."""
        fields = declared_fields(self.model)
        first = name.partition(".")[0]
        if not fields or self.kind is not Kind.RECORD or first in fields or first in _ALWAYS_THERE:
            return name
        by_name = {field: wire for wire, field in fields.items()}
        hint = f"on the wire it is {by_name[first]!r}" if first in by_name else f"it has {', '.join(fields)}"
        raise InvalidFilterError(
            f"{self.model.__name__} has no field {name!r}; {hint}. For an undeclared key use F({name!r})."
        )

    def declared_fields(self) -> Iterable[str]:
        """The wire names of the declared fields."""
        return declared_fields(self.model)

    def row_schema(self) -> JSONObject:
        """The JSON schema of the fields that the model declares; empty where there are none."""
        return row_schema(self.model)

    def fields_stand_alone(self) -> bool:
        """Whether the fields are read alike, each, where the others are not there."""
        return fields_stand_alone(self.model)

    def row_of(self, one: Any) -> Row:
        """The object, as it is put in columns."""
        return row_of(self.model, one)


_ALWAYS_THERE = HIDDEN_FIELDS | {"deleted"}


class Manager(Past[M]):
    """The whole list of one parent: a query without a filter, and the verbs that create."""

    __slots__ = ()

    @property
    def _source(self) -> ModelSource:
        return cast(ModelSource, self.reading.source)

    def create(
        self,
        *,
        id: str | UUID | None = None,
        data: Mapping[str, Any] | None = None,
        permissions: PermissionsInput | None = None,
        **fields: Any,
    ) -> M:
        """A new object, stored; raises ``ConflictError`` where the id is taken."""
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
        """The object of that id, and whether it was created now with these defaults; always one request.

        The permissions of an object that existed are unknown.
        """
        return self._run(self._creator(get_or_create, id, defaults))

    async def aget_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """Like :meth:`get_or_create`."""
        return await self._arun(self._creator(get_or_create, id, defaults))

    def update_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """The object of that id with these keys set, and whether it was created now; other keys stay.

        Raises ``ConflictError`` where somebody changed it between the two requests that an existing one takes.
        """
        return self._run(self._creator(_updater(defaults), id, defaults, given=_checked(defaults)))

    async def aupdate_or_create(self, id: str | UUID, defaults: Mapping[str, Any] | None = None) -> tuple[M, bool]:
        """Like :meth:`update_or_create`."""
        return await self._arun(self._creator(_updater(defaults), id, defaults, given=_checked(defaults)))

    def bulk_create(
        self, objects: Iterable[M | Mapping[str, Any]], *, on_outcome: Callable[[Outcome[M]], object] | None = None
    ) -> BulkReport:
        """Creates them all in full batches, and counts; holds one batch in memory, so a generator may be endless.

        Takes objects or their data. ``on_outcome`` is called with the outcome of each (for a progress bar).
        Raises ``CommitError`` with the outcomes of those that were not stored; the others were.
        https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
        """
        return self._run(lambda place: self._write_all(Verb.SAVE, "bulk_create", objects, on_outcome, place))

    async def abulk_create(
        self, objects: Iterable[M | Mapping[str, Any]], *, on_outcome: Callable[[Outcome[M]], object] | None = None
    ) -> BulkReport:
        """Like :meth:`bulk_create`."""
        return await self._arun(lambda place: self._write_all(Verb.SAVE, "bulk_create", objects, on_outcome, place))

    def bulk_update(
        self, objects: Iterable[M], *, on_outcome: Callable[[Outcome[M]], object] | None = None
    ) -> BulkReport:
        """Saves these loaded objects in full batches, each with ``If-Match``; clean ones are not sent.

        Raises ``CommitError`` with the outcomes of those that were not stored; the others were.
        """
        return self._run(lambda place: self._write_all(Verb.SAVE, "bulk_update", objects, on_outcome, place))

    async def abulk_update(
        self, objects: Iterable[M], *, on_outcome: Callable[[Outcome[M]], object] | None = None
    ) -> BulkReport:
        """Like :meth:`bulk_update`."""
        return await self._arun(lambda place: self._write_all(Verb.SAVE, "bulk_update", objects, on_outcome, place))

    def bulk_delete(
        self, objects: Iterable[M], *, on_outcome: Callable[[Outcome[M]], object] | None = None
    ) -> BulkReport:
        """Deletes these objects in full batches, each with ``If-Match``.

        Raises ``CommitError`` with the outcomes of those that were not deleted; the others were.
        """
        return self._run(lambda place: self._write_all(Verb.DELETE, "bulk_delete", objects, on_outcome, place))

    async def abulk_delete(
        self, objects: Iterable[M], *, on_outcome: Callable[[Outcome[M]], object] | None = None
    ) -> BulkReport:
        """Like :meth:`bulk_delete`."""
        return await self._arun(lambda place: self._write_all(Verb.DELETE, "bulk_delete", objects, on_outcome, place))

    def stream_create(self, objects: Iterable[M | Mapping[str, Any]]) -> Iterator[Outcome[M]]:
        """Creates them in full batches, and gives one outcome for each, in their order, as they come.

        Sends nothing that is not asked for: an iteration that ends early leaves the rest of the input alone. Holds one
        batch in memory, so input and output may be endless. Where the server cannot be reached it ends after the
        outcomes of that batch (``unknown`` or ``not_sent``), and what is left of the input can be given again, with
        those objects: what was stored is recognised.
        """
        yield from self._stream(Verb.SAVE, "stream_create", objects)

    async def astream_create(self, objects: Iterable[M | Mapping[str, Any]]) -> AsyncIterator[Outcome[M]]:
        """Like :meth:`stream_create`."""
        async for outcome in self._astream(Verb.SAVE, "stream_create", objects):
            yield outcome

    def stream_update(self, objects: Iterable[M]) -> Iterator[Outcome[M]]:
        """Saves these loaded objects in full batches, each with ``If-Match``; else like :meth:`stream_create`."""
        yield from self._stream(Verb.SAVE, "stream_update", objects)

    async def astream_update(self, objects: Iterable[M]) -> AsyncIterator[Outcome[M]]:
        """Like :meth:`stream_update`."""
        async for outcome in self._astream(Verb.SAVE, "stream_update", objects):
            yield outcome

    def stream_delete(self, objects: Iterable[M]) -> Iterator[Outcome[M]]:
        """Deletes these objects in full batches, each with ``If-Match``; else like :meth:`stream_create`."""
        yield from self._stream(Verb.DELETE, "stream_delete", objects)

    async def astream_delete(self, objects: Iterable[M]) -> AsyncIterator[Outcome[M]]:
        """Like :meth:`stream_delete`."""
        async for outcome in self._astream(Verb.DELETE, "stream_delete", objects):
            yield outcome

    def edit(self, id: str | UUID, *, attempts: int = 5) -> Editing[M]:
        """Attempts to change the object: ``for attempt in todos.records.edit(id): with attempt as todo: …``.

        Each gets the object as it is then, and saves it when the block is left; where somebody else was faster, the
        next one runs the block again. The last one raises ``ConflictError``. ``async for`` and ``async with`` work too.
        """
        checked = check_id(id, kind=self._source.kind)
        count = check_count(attempts, "attempts", least=1)

        def load(number: int, place: Place) -> Flow[M]:
            yield from require_kind(place.path.kind, place.runner)
            state = yield from get(place.path.object(checked), attempt=number)
            return cast(M, self._source.load_one(state, place))

        return Editing(self._source.locate, load, count)

    def __repr__(self) -> str:
        source = self._source
        below = f" of {source.parent!r}" if source.parent is not None else ""
        return f"<Manager of {source.model.__name__} {source.kind.plural}{below}>"

    def _new(self, **arguments: Any) -> M:
        source = self._source
        parent = source.find_parent()
        if parent is not None:
            arguments[parent.__kinto_kind__.value] = parent
        return cast(M, source.model(client=source.runner(), **arguments))

    def _creator(
        self,
        create: Callable[..., Flow[tuple[ObjectState, bool]]],
        id: str | UUID,
        defaults: Mapping[str, Any] | None,
        *,
        given: Container[str] = (),
    ) -> Callable[[Place], Flow[tuple[M, bool]]]:
        checked = check_id(id, kind=self._source.kind)
        new = self._new(id=checked, data=dict(_checked(defaults)))

        def flow(place: Place) -> Flow[tuple[M, bool]]:
            place.runner.refuse_staging("get_or_create() or update_or_create()")
            yield from require_kind(place.path.kind, place.runner)
            state, draft = new.__kinto_describe__()
            try:
                stored, created = yield from create(state.path, draft, strict=place.runner.strict_retry)
            except DryRunError:
                return new, (yield from plan_creation(new, given, place.runner))
            new.__kinto_adopt__(stored, None)
            return new, created

        return flow

    def _stream(self, verb: Verb, name: str, objects: Iterable[Any]) -> Iterator[Outcome[M]]:
        place = self._source.locate()
        bulk = self._bulk(verb, name, objects, place)
        while (flow := bulk.next_batch()) is not None:
            yield from place.runner.run(flow)

    async def _astream(self, verb: Verb, name: str, objects: Iterable[Any]) -> AsyncIterator[Outcome[M]]:
        place = self._source.locate()
        bulk = self._bulk(verb, name, objects, place)
        while (flow := bulk.next_batch()) is not None:
            for outcome in await place.runner.arun(flow):
                yield outcome

    def _bulk(self, verb: Verb, name: str, objects: Iterable[Any], place: Place) -> Bulk[M]:
        if isinstance(objects, (Mapping, KintoObject)) or not isinstance(cast(object, objects), Iterable):
            raise InvalidTypeError(f"{name}() takes many objects, not one: {objects!r:.60}.")
        place.runner.refuse_staging(f"{name}()")
        return Bulk((self._staged(verb, name, one, place) for one in objects), place.runner)

    def __kinto_bulk__(self, verb: Verb, name: str, objects: Iterable[Any]) -> Bulk[M]:
        return self._bulk(verb, name, objects, self._source.locate())

    def _write_all(
        self,
        verb: Verb,
        name: str,
        objects: Iterable[M | Mapping[str, Any]],
        on_outcome: Callable[[Outcome[M]], object] | None,
        place: Place,
    ) -> Flow[BulkReport]:
        bulk = self._bulk(verb, name, objects, place)
        return raise_for_report((yield from report_of(bulk, on_outcome)), name)

    def _staged(self, verb: Verb, name: str, given: M | Mapping[str, Any], place: Place) -> Staged[M] | Outcome[M]:
        source: ModelSource = self.reading.source  # type: ignore[assignment]  # as in _source: once for each object
        one: Any = given
        if not isinstance(one, source.plain) and not isinstance(one, source.model):
            if not isinstance(given, Mapping):
                self._check_class(given)
            one = source.model(data=given)
        if verb is Verb.SAVE and is_untouched(one, place.path):
            return Outcome(one, verb, "unchanged")
        if one.__kinto_envelope__().status is Status.NEW and not name.endswith("_create"):
            raise InvalidTypeError(f"{name}() takes loaded objects, not {given!r:.80}: read them first.")
        return Staged(one, Intent(verb, *self._describe(one, place)))

    def _check_class(self, one: object) -> None:
        if not isinstance(one, self._source.plain) and not isinstance(one, self._source.model):
            raise InvalidTypeError(f"{one!r:.80} is no {self._source.model.__name__}.")

    def _describe(self, one: M, place: Place) -> tuple[ObjectState, Draft]:
        """What is known of an object of this list, which gives its parent to a new one without."""
        envelope = one.__kinto_envelope__()
        if envelope.status is Status.NEW and one.__kinto_given_parent__() is None:
            envelope.parent, envelope.client = place.parent, envelope.client or place.runner
        state, draft = one.__kinto_describe__()
        if not state.path.is_in(place.path):
            raise InvalidTypeError(f"{state.path} is not of {place.path}: to copy it, give its data (a mapping).")
        return state, draft


def _updater(defaults: Mapping[str, Any] | None) -> Callable[..., Flow[tuple[ObjectState, bool]]]:
    return partial(update_or_create, given=frozenset(_checked(defaults)))


def _checked(defaults: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if defaults is not None and not isinstance(cast(object, defaults), Mapping):
        raise InvalidTypeError(f"defaults is a mapping of names to values, not {defaults!r:.60}.")
    return defaults or {}


def manager_of(
    model: type[M], *, plain: type[Any], parent: KintoObject | None = None, client: Runner | None = None
) -> Manager[M]:
    """The manager of a model's objects below the parent."""
    return Manager(Reading(ModelSource(model, plain, parent, client)))

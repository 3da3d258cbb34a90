"""The base of all kinds: their envelope, their data, and the verbs.

A verb makes a change of the object as it is, and the object's client carries the change out (or stages it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from kinto_orm.errors import NotBoundError, NotLoadedError, PartialObjectError, ReadOnlyError
from kinto_orm.models.changes import (
    NO_EDITS,
    PatchInput,
    accept,
    accept_stored,
    change_of,
    patch_of,
    redo,
    unsent_edits,
)
from kinto_orm.models.codec import add_envelope, codec_of, declared_at
from kinto_orm.models.construction import address, comparable_data, construct, copy_as, pickled, replace_data, unpickle
from kinto_orm.models.data import current_data, has_data, is_clean, own_extra, set_field, set_key, undeclared
from kinto_orm.models.data_view import Data
from kinto_orm.models.envelope import Envelope, SharedEnvelope, is_kinto_object, put_in_envelope, shared_row
from kinto_orm.models.loading import fetched, find_parent, load, mark_deleted, parent_ids, reference_at, refreshed
from kinto_orm.models.metaclass import Given, KintoMetaclass, Settable, argument
from kinto_orm.models.permissions import Permissions, PermissionsInput
from kinto_orm.protocol.json_values import JSONObject, TimestampInput, copy_json, is_same, to_json_object, too_deep
from kinto_orm.protocol.merge import Merged, merge_data
from kinto_orm.protocol.paging import ENVELOPE_KEYS
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, check_id, draw_id
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, OnConflict, Status, Verb, active_runner


class KintoObject(BaseModel, metaclass=KintoMetaclass):
    """A bucket, group, collection, record or account; use those."""

    # One slot and no private attributes: those cost as much as the whole validation of a row.
    __slots__ = ("_envelope",)

    model_config = ConfigDict(
        extra="ignore",
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_inf_nan="constants",
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    __kinto_kind__: ClassVar[Kind]
    __kinto_parent__: ClassVar[Any] = None
    """The class of the parent; ``Any``, because the kinds are defined one after the other."""
    __kinto_plain__: ClassVar[Any]
    """The class of its kind without fields of a user's: rows that do not fit the model may become objects of it."""
    __kinto_client__: ClassVar[FlowRunner | None] = None
    """The client that ``client.bind()`` gave to the class."""
    __kinto_is_open__: ClassVar[bool] = False
    """Whether the class takes undeclared keys as fields (``extra="allow"``)."""
    __kinto_bucket__: ClassVar[str | None] = None
    __kinto_collection__: ClassVar[str | None] = None

    # Checkers make the constructors of subclasses out of fields: for them the envelope is declared as fields are.
    if TYPE_CHECKING:
        id: Given[str, str | UUID | None] = argument(default=None)
        last_modified: Given[int | None, Never] = argument(default=None, init=False)
        data: Settable[MutableMapping[str, Any], Mapping[str, Any] | None] = argument(default=None)
        permissions: Settable[Permissions, PermissionsInput | None] = argument(default=None)
        client: Given[FlowRunner | None, FlowRunner | None] = argument(default=None)
    else:
        __init__ = construct
        # Else pydantic calls __init__ for every row that it validates.
        __init__.__pydantic_base_init__ = True

        @classmethod
        def model_construct(cls, _fields_set=None, *, id=None, **values):
            """Return an object of these values, which are not validated."""
            made = super().model_construct(_fields_set, **values)
            made.__dict__.update(id=id, last_modified=None)
            return made

        def model_copy(self, *, update=None, deep=False):
            """Return an independent copy with these fields changed; with another ``id`` it is a new object."""
            return copy_as(self, update or {})

        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            schema = handler(source)
            add_envelope(handler.resolve_ref_schema(schema), handler)
            return schema

        @property
        def data(self):
            """The live data, by wire names, in JSON values; assign a mapping to replace it all.

            Where the class declares no fields it is a dictionary, else a mapping that checks each key.
            """
            if type(self).__pydantic_fields__:
                return Data(self)
            try:
                page = _get_envelope(self).page
            except AttributeError:
                page = None  # pydantic made the object
            return own_extra(self) if page is None else page.take(self.__dict__["id"])

        @property
        def permissions(self):
            """Who may do what; assign a mapping of names to principals to set them all."""
            return self.__kinto_envelope__().permissions_of(self.__kinto_kind__)

        @property
        def client(self):
            """The client the object is bound to, if it is bound yet."""
            return self.__kinto_envelope__().client

        def __setattr__(self, name, value):
            set_attribute(self, name, value)

        def __getattr__(self, name):
            return find_attribute(self, name)

        def __delattr__(self, name):
            kept = f"{type(self).__name__}.{name} cannot be deleted"
            raise ReadOnlyError(f"{kept}; a key of the data can: del .data[{name!r}].")

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether it was constructed and never saved."""
        return self.__kinto_envelope__().status is Status.NEW

    @property
    def is_deleted(self) -> bool:
        """Whether it is a tombstone."""
        return self.__kinto_envelope__().status is Status.DELETED

    @property
    def is_dirty(self) -> bool:
        """Whether it has changes, of data or permissions, that the server does not have."""
        if is_clean(self):
            return False
        envelope = self.__kinto_envelope__()
        status = envelope.status
        if status is Status.LOADED:
            return self.permissions.is_dirty or not is_same(current_data(self), envelope.data or {})
        return status is Status.NEW or (status is Status.REFERENCE and (self.permissions.is_dirty or has_data(self)))

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the data with ``id`` and ``last_modified``, for ``json.dumps`` and the like."""
        envelope = {key: vars(self)[key] for key in ("id", "last_modified") if vars(self)[key] is not None}
        secrets = self.__kinto_kind__.secrets
        return envelope | copy_json({key: value for key, value in current_data(self).items() if key not in secrets})

    # -- verbs ----------------------------------------------------------------------------------------------------

    def save(
        self,
        *,
        safe: bool = True,
        if_match: TimestampInput | None = None,
        if_not_exists: bool = False,
        on_conflict: OnConflict | None = None,
    ) -> Self:
        """Store the object and return it: create a new one, patch a changed one, send nothing for a clean one.

        ``safe=False`` drops the precondition; ``if_match`` is another timestamp to expect than the one last seen; with
        ``if_not_exists`` a new object that exists already takes the server's data. ``on_conflict`` is the reaction to
        another client's change: ``"raise"`` (``ConflictError``, the default), ``"mine"`` (write over it), ``"theirs"``
        (take it, drop the local changes), ``"merge"`` (three-way, field by field; ``MergeConflict`` where both changed
        one), or a function that gets the ``ConflictError`` and returns one of these, or the data that the object shall
        have. Where others are faster again and again, it raises ``ConflictError``.
        https://docs.kinto-storage.org/en/stable/api/1.x/records.html
        """
        return self.__kinto_runner__().__kinto_perform__(
            change_of(
                self, Verb.SAVE, safe=safe, if_match=if_match, if_not_exists=if_not_exists, on_conflict=on_conflict
            )
        )

    async def asave(
        self,
        *,
        safe: bool = True,
        if_match: TimestampInput | None = None,
        if_not_exists: bool = False,
        on_conflict: OnConflict | None = None,
    ) -> Self:
        """Like :meth:`save`."""
        return await self.__kinto_runner__().__kinto_aperform__(
            change_of(
                self, Verb.SAVE, safe=safe, if_match=if_match, if_not_exists=if_not_exists, on_conflict=on_conflict
            )
        )

    def replace(self, *, safe: bool = True, if_match: TimestampInput | None = None) -> Self:
        """Store the whole object (PUT) and return it; ``safe=False`` creates or overwrites it.

        Raises ``ConflictError`` where another client was faster.
        """
        return self.__kinto_runner__().__kinto_perform__(change_of(self, Verb.REPLACE, safe=safe, if_match=if_match))

    async def areplace(self, *, safe: bool = True, if_match: TimestampInput | None = None) -> Self:
        """Like :meth:`replace`."""
        return await self.__kinto_runner__().__kinto_aperform__(
            change_of(self, Verb.REPLACE, safe=safe, if_match=if_match)
        )

    def patch(
        self,
        changes: PatchInput | None = None,
        /,
        *,
        safe: bool = True,
        if_match: TimestampInput | None = None,
        **values: Any,
    ) -> Self:
        """Store exactly these changes and return the object; other local changes stay unsaved.

        Takes wire names and values (a mapping for names such as ``safe``), or a ``BasicPatch``, ``MergePatch`` or
        ``JSONPatch``. Raises ``ConflictError`` where another client was faster, ``NotFoundError`` where it is gone.
        """
        return self.__kinto_runner__().__kinto_perform__(
            change_of(self, Verb.PATCH, patch_of(self, changes, values), safe=safe, if_match=if_match)
        )

    async def apatch(
        self,
        changes: PatchInput | None = None,
        /,
        *,
        safe: bool = True,
        if_match: TimestampInput | None = None,
        **values: Any,
    ) -> Self:
        """Like :meth:`patch`."""
        return await self.__kinto_runner__().__kinto_aperform__(
            change_of(self, Verb.PATCH, patch_of(self, changes, values), safe=safe, if_match=if_match)
        )

    def delete(self, *, safe: bool = True, if_match: TimestampInput | None = None, if_exists: bool = False) -> Self:
        """Delete the object and return it as a tombstone; with ``if_exists`` also where it was gone already.

        Deletes the objects below it, too. Raises ``ConflictError`` where it was changed since it was last read, and
        ``NotFoundError`` where it is gone.
        """
        return self.__kinto_runner__().__kinto_perform__(
            change_of(self, Verb.DELETE, safe=safe, if_match=if_match, if_exists=if_exists)
        )

    async def adelete(
        self, *, safe: bool = True, if_match: TimestampInput | None = None, if_exists: bool = False
    ) -> Self:
        """Like :meth:`delete`."""
        return await self.__kinto_runner__().__kinto_aperform__(
            change_of(self, Verb.DELETE, safe=safe, if_match=if_match, if_exists=if_exists)
        )

    def refresh(self, *, discard: bool = False) -> Self:
        """Load the object's current state, with permissions where the caller may see them, and return the object.

        Raises ``UnsavedChangesError`` where local changes would be lost, unless ``discard=True``.
        """
        return self.__kinto_runner__().run(refreshed(self, discard=discard))

    async def arefresh(self, *, discard: bool = False) -> Self:
        """Like :meth:`refresh`."""
        return await self.__kinto_runner__().arun(refreshed(self, discard=discard))

    # -- what the layers below see --------------------------------------------------------------------------------

    def __kinto_envelope__(self) -> Envelope:
        try:
            envelope: Envelope = _get_envelope(self)
        except AttributeError:
            # pydantic made the object (model_validate, a field of another model): it has no parent yet.
            envelope = Envelope(Status.NEW)
            put_in_envelope(self, envelope)
        while isinstance(envelope, SharedEnvelope):
            envelope = envelope.put_instead(self, envelope.own(self))
        return envelope

    def __kinto_runner__(self) -> FlowRunner:
        envelope = self.__kinto_envelope__()
        if envelope.client is None:
            parent = self.__kinto_given_parent__()
            envelope.client = (
                (parent.__kinto_runner__() if is_kinto_object(parent) else None)
                or type(self).__kinto_client__
                or active_runner(f"This {self.__kinto_kind__.value}")
            )
        runner: FlowRunner = envelope.client
        return runner

    def __kinto_given_parent__(self) -> Any:
        """Return the parent object, or its id, as far as it was given."""
        envelope = self.__kinto_envelope__()
        if envelope.parent is not None:
            return envelope.parent
        return envelope.collection if self.__kinto_kind__ is Kind.RECORD else envelope.bucket

    def __kinto_path__(self, *, draw: bool = False) -> ObjectPath:
        """Return the path of the object; ``draw`` gives it an id where it has none."""
        envelope = self.__kinto_envelope__()
        id = self.__dict__["id"]
        if envelope.path is not None and envelope.path.ids[-1] == id:
            return envelope.path
        if id is not None:
            if envelope.status is Status.NEW:
                check_id(id, kind=self.__kinto_kind__)
        elif draw:
            id = vars(self)["id"] = draw_id(self.__kinto_kind__)
            envelope.has_drawn_id = True
        else:
            raise NotBoundError(
                f"This {self.__kinto_kind__.value} has no id yet: save() it, or construct it with id=…."
            )
        parent = envelope.parent or self.__kinto_bind_parent__()
        above = parent.__kinto_path__().ids if parent is not None else ()
        envelope.path = path = ObjectPath(self.__kinto_kind__, (*above, id))
        return path

    def __kinto_bind_parent__(self) -> KintoObject | None:
        """Return the parent; find it by the defaults of class and client where it was not given, and keep it."""
        envelope = self.__kinto_envelope__()
        if envelope.parent is None and self.__kinto_parent__ is not None:
            if envelope.path is not None:
                ids = envelope.path.ids[:-1]
                envelope.parent = reference_at(self.__kinto_parent__, ids, self.__kinto_runner__())
            else:
                envelope.parent = find_parent(type(self), envelope.bucket, envelope.collection, self.__kinto_runner__)
        parent: KintoObject | None = envelope.parent
        return parent

    def __kinto_state__(self, *, draw: bool = False) -> ObjectState:
        path = self.__kinto_path__(draw=draw)
        envelope = self.__kinto_envelope__()
        known = envelope.permissions.__kinto_known__ if envelope.permissions is not None else None
        return ObjectState(
            path,
            envelope.status,
            envelope.data,
            self.__dict__["last_modified"],
            known,
            envelope.is_partial,
            envelope.has_drawn_id,
            envelope.in_doubt,
        )

    __kinto_change__ = change_of
    __kinto_is_clean__ = is_clean
    __kinto_accept__ = accept

    def __kinto_apply_state__(self, state: ObjectState, change: Change[Any] | None) -> None:
        if state.status is Status.DELETED:
            mark_deleted(self, state)
            return
        stored, edits = state.data, NO_EDITS
        if change is not None and stored is not None:
            is_as_sent = change.patch is None and is_same(stored, change.data)
            if is_as_sent and accept_stored(self, change, stored, state.last_modified, state.permissions):
                vars(self)["id"] = state.path.id
                return
            edits = unsent_edits(self, change)
        load(self, state)
        redo(self, edits)

    def __kinto_mark_uncertain__(self, change: Change[Any]) -> None:
        self.__kinto_envelope__().in_doubt = change

    def __kinto_merge__(self, base: JSONObject | None, mine: JSONObject, theirs: JSONObject) -> Merged:
        return merge_data(base, mine, theirs, codec_of(type(self)).sets)

    def __kinto_check__(self, data: JSONObject) -> None:
        codec_of(type(self)).load({**data, "id": self.id, "last_modified": None})

    def __kinto_edit__(self, data: Mapping[str, Any], permissions: Mapping[str, Iterable[str]]) -> None:
        codec = codec_of(type(self))
        self.data.update(codec.encode(codec.by_wire(data, "update()")))
        for name, principals in permissions.items():
            self.permissions[name] = principals

    @classmethod
    def __kinto_condition_value__(cls, path: str, operator: str, value: object) -> object:
        declared = declared_at(cls, path)
        assert declared is not None, "an expression names declared fields"
        codec, name = declared
        return codec.condition_value(name, operator, value)

    @classmethod
    def __kinto_locate__(cls, runner: FlowRunner, id: str | UUID) -> ObjectPath:
        kind = cls.__kinto_kind__
        return PluralPath(kind, parent_ids(cls, runner)).object(check_id(id, kind=kind))

    @classmethod
    def __kinto_fetch__(cls, runner: FlowRunner, id: str | UUID) -> Flow[Self]:
        """Return the flow that loads the object of that id, with the defaults of class and client."""
        return fetched(cls, runner, cls.__kinto_locate__(runner, id))

    # -- Python's own ---------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KintoObject):
            return NotImplemented
        return address(self) == address(other) and is_same(comparable_data(self), comparable_data(other))

    def __hash__(self) -> int:
        if self.__dict__["id"] is None:
            raise TypeError(f"This {self.__kinto_kind__.value} has no id yet, so no hash: save it first.")
        # Equal objects have equal ids; the rest of the path may be found later, and a hash must not change.
        return hash((self.__kinto_kind__, self.__dict__["id"]))

    def __repr__(self) -> str:
        envelope = self.__kinto_envelope__()
        where = "/".join(str(part) for part in address(self)[1:] if part is not None) or "no id yet"
        return f"<{type(self).__name__} {where} ({envelope.status.value})>"

    def __str__(self) -> str:
        return repr(self)

    def __copy__(self) -> Self:
        return self.__deepcopy__()  # a change of one is never a change of the other

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        try:
            copied = super().__deepcopy__(memo)
        except RecursionError:
            raise too_deep(f"{self!r} cannot be copied") from None
        put_in_envelope(copied, self.__kinto_envelope__().copy())
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "kinto": pickled(self)}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        kept = state.pop("kinto")
        super().__setstate__(state)
        unpickle(self, kept)


_get_envelope = KintoObject.__dict__["_envelope"].__get__


# The attributes of models: setting them, and the error for a missing one.

_READ_ONLY = ENVELOPE_KEYS | {"client", "bucket", "collection", "model", "records", "is_new", "is_deleted", "is_dirty"}


def set_attribute(model: Any, name: str, value: Any) -> None:
    """Set a field, a private attribute, or all the data or permissions.

    Raises ``ReadOnlyError`` for everything else.
    """
    cls = type(model)
    if name in cls.__pydantic_fields__:
        set_field(model, name, value)
    elif name == "data":
        replace_data(model, to_json_object(value))
    elif name == "permissions":
        model.permissions.assign(value)
    elif name in cls.__private_attributes__:
        object.__setattr__(model, "__pydantic_private__", {**(model.__pydantic_private__ or {}), name: value})
    elif isinstance(own := getattr_static(cls, name, None), property) and own.fset is not None:
        own.fset(model, value)
    elif cls.__kinto_is_open__ and not hasattr(cls, name):
        set_key(model, name, value)
    elif name in _READ_ONLY:
        raise ReadOnlyError(f"{cls.__name__}.{name} cannot be set: give it to the constructor, or load it.")
    else:
        raise ReadOnlyError(f"{cls.__name__} has no field {name!r}; undeclared keys are set by .data[{name!r}] = ….")


def find_attribute(model: Any, name: str) -> Any:
    """Return a private attribute; else raise the error that fits: the field was not loaded, or does not exist."""
    cls = type(model)
    if name in ENVELOPE_KEYS:
        return None  # pydantic made the object
    if name in _PYDANTIC_SLOTS:
        return _pydantic_slot(model, name)
    if name in cls.__private_attributes__:
        return _private_attribute(model, name)
    if name == "records":
        raise AttributeError(f"records belongs to the class: {cls.__name__}.records; or take .collection.records.")
    if name not in cls.__pydantic_fields__:
        if cls.__kinto_is_open__ and not name.startswith("_") and name in undeclared(model):
            return model.data[name]
        raise AttributeError(f"{cls.__name__} has no attribute {name!r}; undeclared keys are in .data[{name!r}].")
    if model.__kinto_envelope__().is_partial:
        raise PartialObjectError(f"{model!r} was loaded without {name!r} (only()): refresh() it first.")
    raise NotLoadedError(f"{model!r} is a reference, {name!r} was never read: refresh() it first.")


_PYDANTIC_SLOTS = frozenset({"__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"})


def _pydantic_slot(model: Any, name: str) -> Any:
    """Fill a slot of an object that was made of a row's dictionary."""
    value = None
    if name == "__pydantic_fields_set__":
        row = shared_row(model)
        value = codec_of(type(model)).names_in(row or model.__kinto_envelope__().data or {})
    object.__setattr__(model, name, value)
    return value


def _private_attribute(model: Any, name: str) -> Any:
    if model.__pydantic_private__ is None:
        model.model_post_init(None)  # a reference: pydantic did not make it
    private: dict[str, Any] = model.__pydantic_private__ or {}
    if name not in private:
        raise AttributeError(f"{type(model).__name__}.{name} was never set.")
    return private[name]

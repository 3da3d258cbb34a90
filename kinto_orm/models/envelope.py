"""The state of a model beside its data: one slot on each object, shared by the rows of a page until one is written.

No state is stored for each row of a page: the page's bytes are the snapshot of all its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from kinto_orm.forks import fork_lock
from kinto_orm.models.permissions import Permissions
from kinto_orm.protocol.json_values import JSON, JSONObject, copy_json, decode, encode, pause_collector
from kinto_orm.protocol.paging import rows_of, without_envelope
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.responses import ShownPermissions
from kinto_orm.repository.state import Change, FlowRunner, Status, StoredRows
from kinto_orm.repository.verbs import Creations


class PageSnapshot:
    """The rows of a page as they arrived, decoded at the first use."""

    __slots__ = ("_rows", "_untaken", "body", "has_varying_defaults", "path", "shown", "taken", "texts")

    def __init__(self, body: bytes, path: PluralPath, shown: ShownPermissions = None) -> None:
        self.body = body
        self.path = path
        self.shown = shown
        """The permissions of each row, where the answer shows them."""
        self.texts: dict[type[Any], Mapping[str, bytes]] = {}
        """For a class, the fields that tell whether a row was edited in place, as JSON text, by id."""
        self.has_varying_defaults = False
        """Whether the rows hold defaults that nothing makes again: then the texts are of all fields."""
        self.taken: dict[str, JSONObject] = {}
        """The data of plain rows that somebody asked for, by id: it may be changed in place."""
        self._rows: dict[str, JSONObject] | None = None
        self._untaken: dict[str, JSONObject] | None = None

    def keep(self, rows: Sequence[JSONObject]) -> None:
        """Store the decoded rows, where a caller has them already."""
        self._untaken = {row["id"]: row for row in rows}

    def row(self, id: str) -> JSONObject:
        """Return the row of that id, as it arrived."""
        if self._untaken is not None and id in self._untaken:
            return self._untaken[id]
        if self._rows is None:
            with pause_collector():
                self._rows = {row["id"]: row for row in rows_of(decode(self.body, str(self.path)), self.path)}
        return self._rows[id]

    def take(self, id: str) -> JSONObject:
        """Return the data of a row for its user, without a copy: what it was is read from the bytes again."""
        row = self.taken.get(id)
        if row is None:
            if self._untaken is None:
                self.keep(rows_of(decode(self.body, str(self.path)), self.path))
            assert self._untaken is not None
            row = self.taken[id] = self._untaken.pop(id)
            del row["id"]
            row.pop("last_modified", None)
        return row


class Envelope:
    """The state of one object."""

    __slots__ = (
        "absent",
        "before",
        "bucket",
        "client",
        "collection",
        "data",
        "extra",
        "given",
        "has_drawn_id",
        "in_doubt",
        "is_partial",
        "page",
        "parent",
        "path",
        "permissions",
        "record_model",
        "status",
        "touched",
    )

    def __init__(self, status: Status, *, client: FlowRunner | None = None, parent: Any = None) -> None:
        self.status = status
        self.client = client
        self.parent = parent
        """The parent object, once it is known; ``Any`` because the kinds stand above this module."""
        self.path: ObjectPath | None = None
        """Where the object is, once it was asked: every record asks its parents."""
        self.bucket: Any = None
        self.collection: Any = None
        """As given to the constructor: ids or objects."""
        self.page: PageSnapshot | None = None
        self.data: JSONObject | None = None
        """The snapshot: what the server last sent; replaced, never changed."""
        self.given: JSONObject | None = None
        """The data that a new object was made of, where undeclared keys may be inside of its fields."""
        self.before: JSONObject | None = None
        """The fields as the snapshot makes them, as JSON values, once it was asked."""
        self.touched: frozenset[str] = frozenset()
        """The fields that were set since the server was seen."""
        self.extra: JSONObject | None = None
        """The undeclared keys, once somebody may have changed them; a reference has them once data was assigned."""
        self.absent: Mapping[str, JSON] = {}
        """Declared keys that were removed, and what their fields looked like then; replaced, never changed."""
        self.permissions: Permissions | None = None
        self.is_partial = False
        self.has_drawn_id = False
        self.in_doubt: Change[Any] | None = None
        """The last change whose answer got lost."""
        self.record_model: Any = None

    def copy(self) -> Envelope:
        """Return a second envelope in the same state, for a copy of the object."""
        other = Envelope(self.status, client=self.client, parent=self.parent)
        kept = ("path", "data", "given", "before", "touched", "absent", "is_partial", "in_doubt")
        for name in (*kept, "bucket", "collection", "record_model"):
            setattr(other, name, getattr(self, name))
        other.extra = copy_json(self.extra)
        other.permissions = copy(self.permissions)
        return other

    def permissions_of(self, kind: Kind) -> Permissions:
        """Return the permissions, made on first use: known to be none for a new object, else unknown."""
        if self.permissions is None:
            self.permissions = Permissions(kind, {} if self.status is Status.NEW else None)
        return self.permissions


_putting = fork_lock()


class SharedEnvelope(Envelope):
    """The state of several objects, until one of them is looked at: the rows of a page, or new ones. Never changed."""

    __slots__ = ()

    def put_instead(self, model: Any, envelope: Envelope) -> Envelope:
        """Give the object that envelope, unless another thread has given it one; return the one that it has."""
        slot = type(model)._envelope
        with _putting:
            now: Envelope = slot.__get__(model)
            if now is self:
                slot.__set__(model, envelope)
                return envelope
        return now

    def own(self, model: Any) -> Envelope:
        """Return an envelope for the one object alone."""
        own = Envelope(self.status, client=self.client, parent=self.parent)
        if self.page is not None:
            id = model.__dict__["id"]
            own.data = without_envelope(self.page.row(id))
            own.extra = self.page.taken.get(id)
            if self.page.has_varying_defaults:
                own.before = decode(self.page.texts[type(model)][id], id)
            if self.page.shown is not None:
                own.permissions = Permissions(type(model).__kinto_kind__, self.page.shown)
        return own


class NewObjects(SharedEnvelope):
    """The state of the new records of one bulk verb on their way: their ids were drawn for them."""

    __slots__ = ("_answer", "_rows", "creations", "undeclared")

    def __init__(self, creations: Creations, *, client: FlowRunner, parent: Any) -> None:
        super().__init__(Status.NEW, client=client, parent=parent)
        self.creations = creations
        self.undeclared: dict[str, JSONObject] = {}
        """The data of records whose class declares no fields, by id."""
        self._answer = SharedEnvelope(Status.LOADED)
        """The state of those that were stored with the last answer."""
        self._rows: StoredRows = ()

    def own(self, model: Any) -> Envelope:
        """Return an envelope for the one object alone."""
        own = super().own(model)
        own.has_drawn_id, own.extra = True, copy_json(self.undeclared.get(model.__dict__["id"]))
        return own

    def accept(self, model: Any, row: JSONObject, shown: ShownPermissions, rows: StoredRows) -> bool:
        """Make the object a row of a page of these, unless its user has looked at it; return whether it was done."""
        answer = self._answer
        if self._rows is not rows or answer.page is None or answer.page.shown is not shown:
            answer = self._answer = SharedEnvelope(Status.LOADED, client=self.client, parent=self.parent)
            page = encode({"data": [one for one in rows if one is not None]})
            answer.page, self._rows = PageSnapshot(page, self.creations.path, shown), rows
        if self.put_instead(model, answer) is not answer:
            return False
        model.__dict__["last_modified"] = row["last_modified"]
        self.undeclared.pop(row["id"], None)
        return True


FRESH = SharedEnvelope(Status.NEW)
"""That of new objects which were given nothing but fields."""


def put_in_envelope(model: Any, envelope: Envelope) -> None:
    """Give the object its envelope."""
    type(model)._envelope.__set__(model, envelope)


def shared_page(model: Any) -> PageSnapshot | None:
    """Return the page that the object is a row of; ``None`` where it has a separate envelope."""
    envelope = envelope_in(model)
    return None if envelope is None else envelope.page


def envelope_in(model: Any) -> Envelope | None:
    """Return the envelope as it is, which may be shared; ``None`` for an object that pydantic made."""
    try:
        envelope: Envelope = type(model)._envelope.__get__(model)
    except AttributeError:
        return None
    return envelope


def shared_row(model: Any) -> JSONObject | None:
    """Return the row of the object, not to be changed; ``None`` where it has a separate envelope."""
    page = shared_page(model)
    return None if page is None else page.row(model.__dict__["id"])


def bare(cls: type[Any], values: dict[str, Any], envelope: Envelope | None) -> Any:
    """Return an object with these values unchanged, in that envelope if any: without validation and defaults."""
    model: Any = object.__new__(cls)
    object.__setattr__(model, "__dict__", values)
    # Empty at once, because validating an assignment looks at them.
    object.__setattr__(model, "__pydantic_fields_set__", set())
    object.__setattr__(model, "__pydantic_extra__", None)
    object.__setattr__(model, "__pydantic_private__", None)
    if envelope is not None:
        put_in_envelope(model, envelope)
    return model


def is_kinto_object(value: Any) -> bool:
    """Return whether it is an object of one of our models."""
    return hasattr(type(value), "__kinto_kind__")

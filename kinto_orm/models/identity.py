"""Which object it is, as far as that is known without asking a client."""

from __future__ import annotations

from typing import Any

from kinto_orm.models.data import current_data
from kinto_orm.models.envelope import is_kinto_object
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.values import JSONObject
from kinto_orm.state import Status


def known_parent_ids(model: Any) -> tuple[str | None, ...]:
    """The ids above the object as far as they are known without asking a client."""
    envelope = model.__kinto_envelope__()
    parent = envelope.parent
    if is_kinto_object(parent):
        return (*known_parent_ids(parent), parent.id)
    if model.__kinto_kind__.parent is None:
        return ()
    if model.__kinto_kind__ is not Kind.RECORD:
        return (_id_of(envelope.bucket) or model.__kinto_bucket__,)
    if is_kinto_object(envelope.collection):
        return (*known_parent_ids(envelope.collection), envelope.collection.id)
    return (_id_of(envelope.bucket) or model.__kinto_bucket__, envelope.collection or model.__kinto_collection__)


def _id_of(bucket: Any) -> str | None:
    id: str | None = bucket.id if is_kinto_object(bucket) else bucket
    return id


def address(model: Any) -> tuple[Any, ...]:
    """Kind, ids above, and id: equal for the same object."""
    return (model.__kinto_kind__, *known_parent_ids(model), model.__dict__["id"])


def data_or_none(model: Any) -> JSONObject | None:
    """The data, where the object has any."""
    envelope = model.__kinto_envelope__()
    return None if envelope.status in (Status.REFERENCE, Status.DELETED) else current_data(model)

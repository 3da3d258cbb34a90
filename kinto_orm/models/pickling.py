"""What a pickle keeps of an object: all that it knows, but no client and no secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinto_orm.models.envelope import Envelope, put_in_envelope
from kinto_orm.models.identity import known_parent_ids

_KEPT = ("status", "data", "extra", "absent", "permissions", "is_partial", "record_model")


def pickled(model: Any) -> dict[str, Any]:
    """The envelope, as a pickle holds it."""
    envelope = model.__kinto_envelope__()
    return {**{name: getattr(envelope, name) for name in _KEPT}, "ids": known_parent_ids(model)}


def unpickle(model: Any, kept: Mapping[str, Any]) -> None:
    """Puts the object in the envelope that the pickle holds."""
    envelope = Envelope(kept["status"])
    for name in _KEPT:
        setattr(envelope, name, kept[name])
    envelope.bucket, envelope.collection = (*kept["ids"], None, None)[:2]
    put_in_envelope(model, envelope)

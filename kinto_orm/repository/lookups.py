"""What is read, and what is created unless it is there."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from kinto_orm.errors import NotFoundError
from kinto_orm.messages import Request
from kinto_orm.protocol.answers import read_document, read_object
from kinto_orm.protocol.endpoints import ObjectPath
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject
from kinto_orm.repository.settling import settle
from kinto_orm.repository.verbs import plan
from kinto_orm.state import Draft, Intent, ObjectState, Status, Verb, WriteOptions


def get(path: ObjectPath, *, attempt: int = 1) -> Flow[ObjectState]:
    """The object as the server has it; ``attempt`` above 1 waits a little, after earlier ones that were in vain.

    Raises ``NotFoundError``, and ``ForbiddenError`` where the bucket does not exist or may not be read.
    """
    response = yield Request("GET", str(path), attempt=attempt)
    stored = read_object(response, path, "GET")
    return ObjectState(path, Status.LOADED).after(stored)


def read_server_info() -> Flow[JSONObject]:
    """What the server says of itself."""
    request = Request("GET", "/")
    response = yield request
    return read_document(response, request)


def get_or_create(path: ObjectPath, draft: Draft, *, strict: bool = False) -> Flow[tuple[ObjectState, bool]]:
    """The object and whether it was created now, in one request: a 412 carries the data of the one that exists."""
    intent = Intent(Verb.SAVE, ObjectState(path, Status.NEW), draft, WriteOptions(if_not_exists=True))
    planned = plan(intent)
    assert planned is not None
    response = yield planned
    settled = yield from settle(intent, planned, response, strict=strict)
    return settled.state, not settled.is_untouched


def update_or_create(
    path: ObjectPath, draft: Draft, *, given: Container[str], strict: bool = False
) -> Flow[tuple[ObjectState, bool]]:
    """The object with the ``given`` keys set, and whether it was created now (with all of the draft).

    One request where it is new, two where it exists (the second one changes just what the first one showed).
    """
    state, created = yield from get_or_create(path, draft, strict=strict)
    if created:
        return state, True
    assert state.data is not None
    # The rest of the draft are the defaults of its model: they are for a new object only.
    changes = {key: value for key, value in draft.data.items() if key in given}
    intent = Intent(Verb.SAVE, state, replace(draft, data={**state.data, **changes}))
    planned = plan(intent)
    if planned is None:
        return state, False
    response = yield planned
    return (yield from settle(intent, planned, response, strict=strict)).state, False


def get_or_none(path: ObjectPath) -> Flow[ObjectState | None]:
    """The object; ``None`` for a 404 (and only for that)."""
    try:
        return (yield from get(path))
    except NotFoundError:
        return None


def ids_in_chunks(ids: Sequence[str], length: int = 4000) -> list[list[str]]:
    """The ids in groups, each short enough to be named in one URL."""
    chunks: list[list[str]] = []
    room = 0
    for id in ids:
        room -= len(id) + 12  # quotes and comma, percent-encoded
        if room < 0 or not chunks:
            chunks.append([])
            room = length - len(id) - 12
        chunks[-1].append(id)
    return chunks

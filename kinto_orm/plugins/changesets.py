"""Changesets of Remote Settings: the changes of a collection in one answer that caches can keep.

https://remote-settings.readthedocs.io/en/latest/client-specifications.html
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kinto_orm.errors import InvalidValueError, RedirectError
from kinto_orm.protocol.json_values import JSONObject, TimestampInput, etag, parse_timestamp
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paging import check_progress, encode_query, next_query
from kinto_orm.protocol.paths import EntriesPath
from kinto_orm.protocol.responses import protocol_error, read_document
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import require_capability
from kinto_orm.repository.state import FlowRunner

MONITOR = ("monitor", "changes")
"""The ids of the bucket and the collection in which the server lists the last change of every collection."""

_BUSTING = range(9_999_000_000_000, 10_000_000_000_000)
"""Values of ``_expected`` that no cache has seen, later than any timestamp."""


@dataclass(frozen=True, slots=True)
class Changeset:
    """The records of a collection, or its changes since a timestamp."""

    metadata: JSONObject
    """The data of the collection, with its signatures where it is signed."""
    timestamp: int
    """The timestamp of the records, in milliseconds: the next ``since``."""
    changes: tuple[JSONObject, ...]
    """The records as the server sends them, the last changed first; with ``since``, tombstones too."""
    since: int | None = None
    """The timestamp after which these changes were made; ``None`` where they are the whole collection."""

    @property
    def updated(self) -> tuple[JSONObject, ...]:
        """The records that exist: created, changed, or all of them."""
        return tuple(one for one in self.changes if one.get("deleted") is not True)

    @property
    def deleted(self) -> tuple[str, ...]:
        """The ids of the deleted records."""
        return tuple(one["id"] for one in self.changes if one.get("deleted") is True)


class ChangesetQuery(NamedTuple):
    """The parameters of a request to a changeset endpoint."""

    since: int | None
    expected: int
    filters: Sequence[tuple[str, str]] = ()

    @property
    def params(self) -> list[tuple[str, str]]:
        """The parameters of the request."""
        since = [] if self.since is None else [("_since", etag(self.since))]
        return [("_expected", str(self.expected)), *since, *self.filters]


def changeset_query(
    since: TimestampInput | None,
    expected: TimestampInput | None,
    *,
    bust_cache: bool,
    filters: Mapping[str, str | None] | None = None,
) -> ChangesetQuery:
    """Return the query for these arguments.

    Raises ``InvalidValueError`` for an ``expected`` older than ``since``, and for ``expected`` with ``bust_cache``.
    """
    after = None if since is None else parse_timestamp(since, "since")
    if expected is not None and bust_cache:
        raise InvalidValueError("changeset() takes expected= or bust_cache=True, not both.")
    wanted = parse_timestamp(expected, "expected") if expected is not None else after or 0
    if bust_cache:
        wanted = random.choice(_BUSTING)  # for which every cache on the way must ask the server
    if after is not None and wanted < after:
        raise InvalidValueError(
            f"changeset(): expected={wanted} is older than since={after}: the server has no answer."
        )
    return ChangesetQuery(
        after, wanted, [(name, value) for name, value in (filters or {}).items() if value is not None]
    )


def read_changeset(ids: tuple[str, ...], query: ChangesetQuery, what: str, runner: FlowRunner) -> Flow[Changeset]:
    """Return the changeset of a collection, from all its pages.

    Where the server does not go back as far as ``since``, the changeset holds the whole collection. Raises
    ``CapabilityMissingError``.
    """
    yield from require_capability("changes", what, runner)
    path = EntriesPath("changeset", ids)
    try:
        return (yield from _read(path, query))
    except RedirectError:
        if query.since is None:
            raise
        return (yield from _read(path, ChangesetQuery(None, query.expected, query.filters)))


def _read(path: EntriesPath, query: ChangesetQuery) -> Flow[Changeset]:
    following: str | None = encode_query(query.params)
    seen: set[str] = set()
    pages: list[Changeset] = []
    while following is not None:
        check_progress(following, seen, path)
        request = Request("GET", str(path), following)
        response = yield request
        pages.append(_page(response, request, query.since))
        following = next_query(response, path)
    return replace(pages[0], changes=tuple(change for page in pages for change in page.changes))


def _page(response: Response, request: Request, since: int | None) -> Changeset:
    body = read_document(response, request)
    metadata, timestamp, changes = (body.get(name) for name in ("metadata", "timestamp", "changes"))
    is_one = isinstance(metadata, dict) and type(timestamp) is int and isinstance(changes, list)
    if not is_one or not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in changes or ()):
        raise protocol_error(response, f"GET {request.path}", "the answer is not a changeset")
    return Changeset(body["metadata"], body["timestamp"], tuple(body["changes"]), since)

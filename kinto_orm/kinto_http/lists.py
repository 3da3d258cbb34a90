"""The flows of lists: Kinto's own keywords, pages, and deleting what matches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from kinto_orm.kinto_http.request_hooks import resumed
from kinto_orm.kinto_http.verbs import Timestamp
from kinto_orm.protocol.json_values import JSONObject, parse_timestamp
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paging import delete_pages, encode_query, unless_unchanged
from kinto_orm.protocol.paths import ListPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.query import building
from kinto_orm.query.entry_query import RawEntries
from kinto_orm.query.execution import Page, PageWalk, Place, Reading, Source
from kinto_orm.query.selection import Selection

T = TypeVar("T")

EVERY = float("inf")


class Unchanged(list[Any]):
    """The empty list that says: nothing has changed since the timestamp in ``if_none_match``."""


ROWS = RawEntries()


def read_list(
    path: ListPath,
    params: Mapping[str, Any],
    *,
    pages: float | None = None,
    if_none_match: Timestamp | None = None,
) -> Flow[list[JSONObject]]:
    """The rows that match, the newest first unless ``_sort`` says otherwise.

    ``_limit`` is how many, on however many pages the server gives them; with ``pages``, how many on each.
    ``Unchanged`` where the list still has the timestamp ``if_none_match``.
    """
    params, expected = _without_expected(params)
    selection, count = _bounded(selected(params), pages)
    walk = _walk(path, selection)
    rows: list[JSONObject] = []
    while count > 0 and (flow := walk.next_page()) is not None:
        page = yield from unless(_past_caches(flow, expected), if_none_match)
        if page is None:
            return Unchanged()
        rows += page.objects
        count -= 1
    if selection.order is None and not selection.is_newest_first:
        # Read in the order of ids, because what changes meanwhile gets lost between two pages of Kinto's own order.
        rows.sort(key=lambda row: row.get("last_modified", 0), reverse=True)
    return rows


def read_pages(path: ListPath, params: Mapping[str, Any], pages: float | None) -> Iterator[Flow[Page[JSONObject]]]:
    """The flow of each page, in the order of ids unless ``_sort`` says otherwise; ``_limit`` is the size of a page."""
    params, expected = _without_expected(params)
    selection = selected(params)
    walk = _walk(path, replace(selection, limit=None, page_size=selection.limit, is_newest_first=False))
    count = EVERY if pages is None else pages
    while count > 0 and (flow := walk.next_page()) is not None:
        yield _past_caches(flow, expected)
        count -= 1


def _without_expected(params: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The parameters, and apart from them the one that is for the caches in front of Kinto."""
    rest = dict(params)
    return rest, rest.pop("_expected", None)


def _past_caches(flow: Flow[T], expected: Any) -> Flow[T]:
    """The same flow; its request has ``_expected``, with which caches know it from earlier ones."""
    if expected is None:
        return (yield from flow)
    item = next(flow)
    assert isinstance(item, Request), "reading writes nothing"
    if "_expected=" not in item.query:  # as in that of a next page
        item = replace(item, query=f"{item.query}&{encode_query([('_expected', str(expected))])}")
    # A page is one request: its answer ends the flow.
    return (yield from resumed(item, flow))


def _walk(path: ListPath, selection: Selection) -> PageWalk[JSONObject]:
    return PageWalk(ROWS, Place(cast(Any, None), path), selection, "raise")  # rows as they came need no client


def unless(flow: Flow[Page[JSONObject]], timestamp: Timestamp | None) -> Flow[Page[JSONObject] | None]:
    """The page; ``None`` where the list still has that timestamp."""
    if timestamp is None:
        return (yield from flow)
    return (yield from unless_unchanged(flow, parse_timestamp(timestamp, "if_none_match")))


def selected(params: Mapping[str, Any]) -> Selection:
    """What Kinto's own keywords select; raises ``InvalidFilterError`` for what Kinto would refuse or ignore."""
    wanted = {_OTHER_NAMES.get(name, name): _meant(name, value) for name, value in params.items()}
    given = {name: value for name, value in wanted.items() if value is not None or not name.startswith("_")}
    return building.with_keywords(Reading(cast(Source[Any], ROWS)), given).selection


_OTHER_NAMES = {"_to": "_before"}
"""Names that Kinto is about to forget."""


def _meant(name: str, value: Any) -> Any:
    """The value of a parameter, out of the forms in which it goes over the wire."""
    if name.startswith("has_") and isinstance(value, (str, int)):
        return value not in ("false", "", "0", "null", 0)
    if name.startswith(("in_", "exclude_")):
        return [_unquoted(one) for one in (value.split(",") if isinstance(value, str) else value)]
    return value if name.startswith("_") else _unquoted(value)


def _unquoted(value: Any) -> Any:
    # '"3"' is how the text "3" is asked for where texts that look like numbers are taken for numbers.
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _bounded(selection: Selection, pages: float | None) -> tuple[Selection, float]:
    """The selection of that many pages, and how many pages to read of it."""
    size = selection.limit
    if pages is None:
        return selection, EVERY
    if size is None:
        return replace(selection, is_newest_first=pages != EVERY and selection.order is None), pages
    limit = None if pages == EVERY else int(pages) * size
    is_newest_first = limit is not None and selection.order is None
    return replace(selection, limit=limit, page_size=size or None, is_newest_first=is_newest_first), EVERY


def delete_list(
    path: ListPath, params: Mapping[str, Any], *, safe: bool, if_match: Timestamp | None
) -> Flow[list[JSONObject]]:
    """The tombstones of what matched, of every page."""
    selection = selected(params)
    tombstones: list[JSONObject] = []
    timestamp = None if if_match is None or not safe else parse_timestamp(if_match, "if_match")
    query = encode_query(selection.parameters())
    yield from delete_pages(path, query, if_match=timestamp, on_rows=tombstones.extend)
    return tombstones

"""Pages of a plural endpoint.

https://docs.kinto-storage.org/en/stable/api/1.x/pagination.html
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit

from kinto_orm.errors import InvalidTypeError, InvalidValueError, KintoError, ProtocolError
from kinto_orm.protocol.json_values import JSON, TEXTS, JSONObject, decode, encode, etag, parse_timestamp, say_value
from kinto_orm.protocol.messages import NO_HEADERS, Request, Response
from kinto_orm.protocol.paths import ListPath
from kinto_orm.protocol.responses import check_json_type, content, protocol_error, raise_for_status
from kinto_orm.protocol.writes import Flow, pause

T = TypeVar("T")

ENVELOPE_KEYS = frozenset({"id", "last_modified"})
"""The keys of a row that are no data."""
PAGES_UNCHECKED = 1000
"""The number of pages after which the server is asked, by a HEAD, how many objects there are; then twice as many."""

TOMBSTONE_KEYS = ENVELOPE_KEYS | {"deleted"}
"""The keys of a row that is a tombstone; they are known whatever the model."""


class RawPage(NamedTuple):
    """One page of a list, undecoded: the bytes are also the snapshot of its rows."""

    body: bytes
    timestamp: int | None
    """The timestamp of the whole list, in milliseconds, whatever the filters."""
    next_query: str | None
    """The query string of the next page; only its absence means the end."""
    date: str | None = None
    """The header ``Date``, which :func:`settled_until` reads; ``None`` where the server sends none."""
    cache_control: str = ""
    """The header ``Cache-Control``, which :func:`seconds_to_last` reads."""


@dataclass(frozen=True, slots=True)
class ListState:
    """The answer to a HEAD request of a list."""

    count: int
    """The number of objects that match; tombstones are not counted."""
    timestamp: int | None
    """The timestamp of the whole list, in milliseconds, whatever the filters."""
    date: str | None = None
    """The header ``Date``."""


def seconds_to_last(control: str) -> float:
    """Return the seconds of a header ``Cache-Control``: https://docs.kinto-storage.org/en/stable/configuration/settings.html."""
    found = None if "no-" in control else _MAX_AGE.search(control)
    return 0 if found is None else float(found[1])


_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})\b", re.ASCII)


def encode_query(params: Sequence[tuple[str, str]]) -> str:
    """Return the query string of the parameters."""
    return "&".join([f"{_quote(name)}={_quote(value)}" for name, value in params])


# `;` separates parameters for Kinto, as `&` does: an empty `safe` escapes it. Queries have most texts in common.
_quote = lru_cache(maxsize=256)(partial(quote, safe=""))


def read_page(path: ListPath, query: str, *, if_match: int | None = None) -> Flow[RawPage]:
    """Return one page of the list.

    Raises ``ConflictError`` where the list has another timestamp than ``if_match``, in milliseconds.
    """
    request = Request("GET", str(path), query, NO_HEADERS if if_match is None else {"If-Match": etag(if_match)})
    response = yield request
    raise_for_status(response, "GET", str(path))
    if response.status != 200:
        raise protocol_error(response, f"GET {path}", "the answer is no list")
    check_json_type(response, f"GET {path}")
    body = response.body if response.content is None else encode(response.content)  # the latter in a batch
    headers = response.headers
    control = headers.get("cache-control", "")
    return RawPage(body, list_timestamp(response), next_query(response, path), headers.get("date"), control)


class RawPages:
    """The pages of a list, one after the other; ones that run in a circle, or have no end, are refused."""

    def __init__(
        self, path: ListPath, query: str | None, *, if_match: int | None = None, may_hold_tombstones: bool = False
    ) -> None:
        self.query = query
        """The query string of the next page; ``None`` at the end."""
        self.seen: set[str] = set()
        """The query strings of the pages that were read."""
        self._path = path
        self._first = query or ""
        self._if_match = if_match
        self._may_hold_tombstones = may_hold_tombstones
        self._next_check = PAGES_UNCHECKED

    def next(self) -> Flow[RawPage] | None:
        """Return the flow that reads the next page; ``None`` at the end."""
        return None if self.query is None else self._read(self.query)

    def _read(self, query: str) -> Flow[RawPage]:
        check_progress(query, self.seen, self._path)
        if len(self.seen) == self._next_check:
            self._next_check *= 2
            yield from self._check_end()
        page = yield from read_page(self._path, query, if_match=self._if_match)
        self.query = page.next_query
        return page

    def _check_end(self) -> Flow[None]:
        """Raise ``ProtocolError`` where there are more pages than objects, even if others deleted half of them."""
        if self._may_hold_tombstones:
            return  # the server does not count these
        count = yield from read_known_count(self._path, self._first)
        if count is not None and len(self.seen) > 2 * count + PAGES_UNCHECKED // 2:
            raise ProtocolError(
                f"The pages of {self._path} have no end: these are {len(self.seen)} pages of {count} objects."
            )


def read_rows(path: ListPath, query: str) -> Flow[list[JSONObject]]:
    """Return the decoded rows of one page; works inside a batch, too."""
    response = yield Request("GET", str(path), query)
    raise_for_status(response, "GET", str(path))
    return rows_of(content(response, f"GET {path}"), path)


def with_condition(flow: Flow[T], header: str, timestamp: int) -> Flow[T | None]:
    """Return the result of a flow that reads pages with a precondition of the timestamp, in milliseconds.

    With ``If-None-Match``, ``None`` where the list still has the timestamp; with ``If-Match``, raises ``ConflictError``
    where it has another one.
    https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
    """
    try:
        item = next(flow)
        while True:
            assert isinstance(item, Request), "reading writes nothing"
            response = yield replace(item, headers={**item.headers, header: etag(timestamp)})
            if response.status == 304:
                return None
            item = flow.send(response)
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()


def read_count(path: ListPath, query: str) -> Flow[int]:
    """Return the number of objects that match."""
    return (yield from read_state(path, query)).count


def read_known_count(path: ListPath, query: str) -> Flow[int | None]:
    """Return the number of objects that match; ``None`` for a list of which the server tells none."""
    response = yield Request("HEAD", str(path), query)
    raise_for_status(response, "HEAD", str(path))
    return _count_in(response)


def read_state(path: ListPath, query: str = "", *, if_match: int | None = None) -> Flow[ListState]:
    """Return the number of objects that match, from the header that only HEAD has, and the timestamp of the list.

    Raises ``ConflictError`` where the list has another timestamp than ``if_match``, in milliseconds.
    """
    headers = NO_HEADERS if if_match is None else {"If-Match": etag(if_match)}
    response = yield Request("HEAD", str(path), query, headers)
    raise_for_status(response, "HEAD", str(path))
    count = _count_in(response)
    if count is None:
        raise ProtocolError(f"HEAD {path} was answered without a count (Total-Objects).")
    return ListState(count, list_timestamp(response), response.headers.get("date"))


def _count_in(response: Response) -> int | None:
    count = response.headers.get("total-objects", response.headers.get("total-records", ""))
    return int(count) if count.isascii() and count.isdigit() and len(count) <= 19 else None


def read_timestamp(path: ListPath) -> Flow[int | None]:
    """Return the timestamp of the list, in milliseconds."""
    response = yield Request("HEAD", str(path))
    raise_for_status(response, "HEAD", str(path))
    return list_timestamp(response)


def delete_pages(
    path: ListPath,
    query: str,
    *,
    if_match: int | None = None,
    on_rows: Callable[[list[JSONObject]], object] | None = None,
) -> Flow[int]:
    """Delete the objects that match, on every page, and return their number; also where the server ends too early.

    ``on_rows`` is called with the tombstones of each page. ``if_match`` is the timestamp, in milliseconds, that the
    list must have: raises ``ConflictError`` where another client changes the list, also between two pages.
    """
    count, left = 0, float("inf")
    again = ""
    following: str | None = query
    seen: set[str] = set()
    while following is not None:
        check_progress(following, seen, path)
        headers = {} if if_match is None else {"If-Match": etag(if_match)}
        response = yield Request("DELETE", str(path), following, headers)
        raise_for_status(response, "DELETE", str(path))
        rows = rows_of(content(response, f"DELETE {path}"), path)
        count += len(rows)
        if on_rows is not None:
            on_rows(rows)
        if if_match is not None:
            if_match = list_timestamp(response)
        again = again or (query if "_before=" in query else f"{query}{_before_all_of(rows)}".lstrip("&"))
        following = next_query(response, path)
        if following is not None and "_before=" not in following:
            following += _before_all_of(rows)
        total = _count_in(response)
        if following is None and rows and total is not None and total > len(rows):
            # Kinto 5.2 to 8.3 counts the objects in each answer, and ends too early (kinto issue 1170).
            if total - len(rows) >= left:
                raise ProtocolError(f"DELETE {path}: {count} were deleted, and the server says that {left} are left.")
            left, following = total - len(rows), again
            seen.discard(again)
    return count


def _before_all_of(tombstones: Sequence[JSONObject]) -> str:
    """Return the condition that leaves out objects written since the deletion began.

    Kinto's cursor is the time of the last tombstone, so it would reach objects that others wrote just before.
    """
    timestamps = [one["last_modified"] for one in tombstones if type(one.get("last_modified")) is int]
    return f"&_before=%22{min(timestamps)}%22" if timestamps else ""


def rows_of(body: JSON, path: ListPath) -> list[JSONObject]:
    """Return the rows of a list; raise ``ProtocolError`` where the body is no list, or a row has no id."""
    rows = entries_of(body, path)
    kinds = [type(row.get("id")) for row in rows]
    if not TEXTS.issuperset(kinds):
        number = next(number for number, kind in enumerate(kinds) if kind is not str)
        raise ProtocolError(f"Row {number} of the answer to {path} has no id.")
    return rows


def without_envelope(row: JSONObject) -> JSONObject:
    """Return the row's data alone."""
    data = row.copy()
    for key in ENVELOPE_KEYS:
        data.pop(key, None)
    return data


def is_tombstone(row: JSONObject) -> bool:
    """Return whether the row is all that a deletion leaves: a live record may have a key ``deleted``, too."""
    return row.get("deleted") is True and row.keys() == TOMBSTONE_KEYS


def entries_of(body: JSON, path: ListPath) -> list[JSONObject]:
    """Return the entries of a list, which need no id; raise ``ProtocolError`` where the body is no list."""
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise ProtocolError(f"The answer to {path} holds no list.")
    if not _OBJECTS.issuperset(map(type, entries)):
        number = next(number for number, entry in enumerate(entries) if type(entry) is not dict)
        raise ProtocolError(f"Row {number} of the answer to {path} has no id.")
    return entries


_OBJECTS = frozenset({dict})


def timestamped_rows(page: RawPage, path: ListPath) -> list[JSONObject]:
    """Return the rows of a page; raise ``ProtocolError`` where one of them has no timestamp."""
    rows = rows_of(decode(page.body, str(path)), path)
    for row in rows:
        if type(row.get("last_modified")) is not int:
            raise ProtocolError(f"{path}/{row['id']}: the answer has no timestamp, so its changes cannot be followed.")
    return rows


def check_timestamp(timestamp: int | None, path: ListPath) -> int:
    """Return the timestamp of a list; raise ``ProtocolError`` where the server did not send it."""
    if timestamp is None:
        raise ProtocolError(f"{path} was answered without an ETag, so its changes cannot be followed.")
    return timestamp


def list_timestamp(response: Response) -> int | None:
    """Return the timestamp in the ETag of a list; ``None`` where there is none."""
    try:
        return parse_timestamp(response.headers["etag"], "ETag")
    except (KeyError, KintoError):
        return None


def next_query(response: Response, path: ListPath) -> str | None:
    """Return the query string of the next page; ``None`` on the last one.

    Only the query of the ``Next-Page`` header is used: its host is the one that the server believes to have, and
    credentials must not follow it elsewhere. Raises ``ProtocolError`` where it names another list.
    """
    header = response.headers.get("next-page")
    if not header:
        return None
    try:
        url = urlsplit(header)
    except ValueError as error:
        raise ProtocolError(f"The server's Next-Page is no URL: {say_value(header, 200)}.") from error
    # The default bucket answers with its real id, and a proxy may have taken a prefix away: the end must agree.
    ids = path.parent_ids[1:] if path.parent_ids[:1] == ("default",) else path.parent_ids
    tail = "/".join([*ids[-1:], path.name])
    if not unquote(url.path).endswith(f"/{tail}") or not url.query:
        raise ProtocolError(f"The server's Next-Page leads away from {path}: {say_value(header, 200)}.")
    return url.query


def check_progress(query: str, seen: set[str], path: ListPath) -> None:
    """Remember the page; raise ``ProtocolError`` for a page that came before."""
    if query in seen:
        raise ProtocolError(f"The pages of {path} run in a circle: {say_value(query, 200)} came twice.")
    seen.add(query)


def settled_until(date: str | None, horizon: float) -> Flow[int]:
    """Return the timestamp up to which no transaction adds anything any more, in milliseconds.

    That is the server's time (its header ``Date``, in whole seconds) minus the horizon (in seconds); where the server
    does not say its time, this machine's minus twice the horizon.
    """
    try:
        now = int(parsedate_to_datetime(date or "").timestamp() * 1000)
    except ValueError:
        now, horizon = (yield from pause()), 2 * horizon
    return now - round(horizon * 1000)


def check_finite(name: str, value: object) -> float:
    """Return an option in seconds that a thread can wait; raise ``InvalidTypeError`` or ``InvalidValueError``."""
    seconds = check_seconds(name, value)
    if seconds > 1e9:  # 30 years: any system can wait so long
        raise InvalidValueError(f"{name} is at most 1e9 seconds, not {seconds}.")
    return seconds


def check_seconds(name: str, value: object) -> float:
    """Return an option in seconds, which may be infinite.

    Raises ``InvalidTypeError`` for what is no number, ``InvalidValueError`` for one below 0.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} is a number of seconds, not {say_value(value)}.")
    if not value >= 0:
        raise InvalidValueError(f"{name} is a number of seconds from 0 up, not {value}.")
    return value


def check_flags(**flags: object) -> None:
    """Raise ``InvalidTypeError`` for a flag that is neither ``True`` nor ``False``: ``'no'`` would count as true."""
    for name, one in flags.items():
        if not isinstance(one, bool):
            raise InvalidTypeError(f"{name} is True or False, not {say_value(one)}.")


def random_wait(seconds: float) -> float:
    """Return the seconds to wait, at random a fifth more or less: not all clients ask at the same moment."""
    return seconds * random.uniform(0.8, 1.2)

"""The flows of objects and of their lists: reading, creating, replacing, patching and deleting, as the reference does.

This module translates the reference client's arguments; the repository encodes the writes and reads their answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

from kinto_orm.errors import ForbiddenError, InvalidFilterError, InvalidIdError, ResponseTooLargeError
from kinto_orm.kinto_http.endpoints import as_id
from kinto_orm.kinto_http.exceptions import KintoException
from kinto_orm.kinto_http.patch_type import as_patch
from kinto_orm.kinto_http.utils import json_dumps
from kinto_orm.kinto_http.verbs import Data, Document, Grants, Timestamp
from kinto_orm.protocol.filters import Condition, as_moment, check_field_name, condition, split_keyword
from kinto_orm.protocol.json_values import JSONObject, parse_timestamp, say_value, to_json_object
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paging import delete_pages, encode_query, with_condition, without_envelope
from kinto_orm.protocol.patches import BasicPatch, JSONPatch, MergePatch, Patch
from kinto_orm.protocol.paths import Kind, ListPath, ObjectPath
from kinto_orm.protocol.responses import content, raise_for_status, read_object
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Flow, PermissionLists, Precondition, Write
from kinto_orm.query import building
from kinto_orm.query.entry_query import RawEntries
from kinto_orm.query.execution import Page, PageWalk, Place, Reading, Selection, Source
from kinto_orm.repository.reconciling import reconcile
from kinto_orm.repository.state import Change, ObjectState, Status, Verb, WriteOptions
from kinto_orm.repository.verbs import check_data

T = TypeVar("T")

EVERY = float("inf")

ROWS = RawEntries()

_FORBIDDEN = (
    "Unauthorized. Please check that the {parent} exists and that you have the permission to create or write on this "
    "{kind}."
)


def read(path: ObjectPath, params: Mapping[str, Any]) -> Flow[Document]:
    """Return the object as the server sends it; parameters that begin with ``_`` are sent along."""
    response = yield Request("GET", str(path), encode_query(_object_params(params)))
    return _document(response, path, "GET")


def _document(response: Response, path: ObjectPath, method: str) -> Document:
    """Return the body of a 2xx answer; raise ``ProtocolError`` where it is another object.

    An answer without an id is taken: stubs of servers leave it out.
    """
    raise_for_status(response, method, path)
    if response.status == 204:
        return {"data": {}}
    body: Any = content(response, f"{method} {path}")
    data = body.get("data") if isinstance(body, dict) else None
    if isinstance(data, dict) and isinstance(data.get("id"), str):
        read_object(response, path, method)
    return cast(Document, body)


def _object_params(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    # Kinto knows _fields only; others, such as _expected, are for the caches in front of it.
    if unknown := ", ".join(name for name in params if not name.startswith("_")):
        raise InvalidFilterError(f"Reading one object takes no parameter {unknown}: Kinto would ignore it.")
    given = {name: value for name, value in params.items() if value is not None}
    if (fields := given.get("_fields")) is not None:
        names = fields.split(",") if isinstance(fields, str) else fields
        given["_fields"] = ",".join(check_field_name(name.strip()) for name in names)
    return [(name, str(value)) for name, value in given.items()]


def create(
    path: ObjectPath, data: Data, permissions: Grants, *, safe: bool, if_not_exists: bool = False
) -> Flow[Document]:
    """Create the object and return it; with ``if_not_exists``, return an existing one."""
    try:
        write = _put(path, data, permissions, ABSENT if safe else UNCONDITIONAL)
        return (yield from _send(Verb.SAVE, write, WriteOptions(safe, if_not_exists=if_not_exists)))
    except ForbiddenError as error:
        if path.kind.parent is None:
            raise
        message = _FORBIDDEN.format(parent=path.kind.parent.value, kind=_NAMES.get(path.kind, path.kind.value))
        raise KintoException(message) from error


_NAMES = {Kind.RECORD: "collection record"}


def update(
    path: ObjectPath, data: Data, permissions: Grants, *, safe: bool, if_match: Timestamp | None = None
) -> Flow[Document]:
    """Replace the object, or create it where it is missing, and return it.

    ``If-Match`` is sent where the version is known: from ``if_match``, or from the ``last_modified`` in the data.
    """
    known = if_match if if_match is not None or data is None else data.get("last_modified")
    precondition = _make_precondition(known, safe=safe)
    write = _put(path, data, permissions, precondition)
    return (yield from _send(Verb.REPLACE, write, WriteOptions(safe, precondition.last_modified)))


def patch(
    path: ObjectPath, changes: object, data: Data, permissions: Grants, *, safe: bool, if_match: Timestamp | None
) -> Flow[Document]:
    """Patch the object by ``changes``, or else by ``data`` and ``permissions``, and return it."""
    if changes and (data is not None or permissions is not None):
        raise TypeError("Give changes= or data= and permissions=, not both; the object as it was goes into original=.")
    asked = as_patch(changes) if changes else BasicPatch(_sent_data(data, path), as_permissions(permissions))
    precondition = _make_precondition(if_match, safe=safe)
    write = Write(path, Action.PATCH, precondition, patch=_own_patch(asked, path))
    return (yield from _send(Verb.PATCH, write, WriteOptions(safe, precondition.last_modified)))


def _own_patch(asked: Patch, path: ObjectPath) -> Patch:
    if isinstance(asked, JSONPatch):
        return JSONPatch(json.loads(json_dumps(list(asked.operations))))
    data = _sent_data(asked.data, path)
    if isinstance(asked, MergePatch):
        return MergePatch(data, asked.permissions)
    return BasicPatch(data, asked.permissions)


def delete(path: ObjectPath, *, safe: bool, if_match: Timestamp | None, if_exists: bool) -> Flow[Any]:
    """Delete the object and return its tombstone; with ``if_exists``, ``None`` for a missing one."""
    precondition = _make_precondition(if_match, safe=safe)
    options = WriteOptions(safe, precondition.last_modified, if_exists=if_exists)
    try:
        return (yield from _send(Verb.DELETE, Write(path, Action.DELETE, precondition), options))["data"]
    except ForbiddenError:
        if not if_exists or path.kind is not Kind.BUCKET or not (yield from _is_missing(path)):
            raise
        return None


def _is_missing(bucket: ObjectPath) -> Flow[bool]:
    """Return whether the bucket surely does not exist. Kinto answers 403, as for the bucket of another user."""
    # Replacing a version that never existed stores nothing. Where the bucket exists, the server answers 403 again.
    response = yield Request("PUT", str(bucket), headers=Precondition(last_modified=1).headers)
    return response.status == 412


def _put(path: ObjectPath, data: Data, permissions: Grants, precondition: Precondition) -> Write:
    sent, granted = _sent_data(data, path), as_permissions(permissions)
    new = None if data is None else {**(sent or {}), **_given_envelope(data, path.id)}
    return Write(path, Action.PUT, precondition, new=new, permissions=granted, all_permissions=granted)


def _given_envelope(data: Mapping[str, Any], id: str) -> JSONObject:
    """Return id and ``last_modified`` of the data, where the server would take them: restores set the time."""
    timestamp = data.get("last_modified")
    given: JSONObject = {"id": id} if data.get("id") == id else {}
    if type(timestamp) is not int:
        return given
    if timestamp >= _END_OF_TIME:
        raise KintoException(f"last_modified is milliseconds, not {timestamp}: Kinto would fail on the list for ever.")
    return {**given, "last_modified": timestamp}


_END_OF_TIME = 10**15
"""Milliseconds from which on the memory backend cannot read the list any more."""


def _send(verb: Verb, write: Write, options: WriteOptions) -> Flow[Document]:
    """Send the write and return the object; the repository judges a refusal as that of any other change."""
    path, data = write.path, without_envelope(dict(write.new or {}))
    state = ObjectState(path, Status.NEW)
    change = Change(None, verb, state, data, write.permissions, write.all_permissions, options, write.patch)
    check_data(change)
    change.write = write
    response = yield write
    if 200 <= response.status < 300:
        return _document(response, path, write.action.value.upper())
    verdict = yield from reconcile(change, response)
    if verdict.state.status is Status.DELETED:
        # An earlier attempt, whose answer was lost, deleted it; or it was missing, and ``if_exists`` allows that.
        return {"data": {"id": path.id, "deleted": True} if verdict.reconciled else None}
    # The object existed, or an earlier attempt stored it; the object in a 412 has no permissions.
    return (yield from read(path, {}))


def _make_precondition(timestamp: Timestamp | None, *, safe: bool) -> Precondition:
    if not safe or timestamp is None:
        return UNCONDITIONAL
    return Precondition(last_modified=parse_timestamp(timestamp, "if_match"))


def _sent_data(data: Data, path: ObjectPath) -> JSONObject | None:
    """Return a copy of the data without the keys that the URL and the precondition carry."""
    if data is None:
        return None
    sent = to_json_object(json.loads(json_dumps(dict(data))))
    given = sent.pop("id", None)
    sent.pop("last_modified", None)
    if given is not None and as_id(given) != path.id and path.ids != ("default",):
        raise InvalidIdError(f"{path}: data['id'] is {say_value(given, 80)}, which is another object.")
    return sent


def as_permissions(permissions: Grants) -> PermissionLists | None:
    """Return the permissions as lists, or ``None``."""
    if permissions is None:
        return None
    plain = permissions.as_dict() if hasattr(permissions, "as_dict") else permissions
    return {name: list(principals) for name, principals in plain.items()}


def return_value(value: Any) -> Flow[Any]:
    """Return the value, by a flow that sends nothing."""
    yield from ()
    return value


def post(request: Request) -> Flow[Any]:
    """Send the request and return the body of the answer; ``None`` for an answer without one."""
    response: Response = yield request
    raise_for_status(response, request.method, request.path)
    return None if response.status == 204 else content(response, f"{request.method} {request.path}")


# -- lists ------------------------------------------------------------------------------------------------------------


class Unchanged(list[Any]):
    """The empty list of a read with ``if_none_match`` where nothing has changed since that timestamp."""


def read_list(
    path: ListPath,
    params: Mapping[str, Any],
    *,
    pages: float | None = None,
    if_none_match: Timestamp | None = None,
    on_timestamp: Callable[[int | None], object] | None = None,
) -> Flow[list[JSONObject]]:
    """Return the rows that match, the newest first unless ``_sort`` names another order.

    ``_limit`` is the number of rows, on however many pages; with ``pages``, it is the number on each page. Returns
    ``Unchanged`` where the list still has the timestamp ``if_none_match``. ``on_timestamp`` is called with the
    timestamp of the list before the rows were read.
    """
    selection, count = _limit_pages(select(params), pages)
    walk = ListWalk(path, selection)
    rows: list[JSONObject] = []
    while count > 0 and (flow := walk.next_page()) is not None:
        page = yield from read_changed(flow, if_none_match)
        if page is None:
            return Unchanged()
        if on_timestamp is not None:
            on_timestamp(page.timestamp)
            on_timestamp = None
        rows += page.objects
        count -= 1
    if walk.is_by_id:
        rows.sort(key=lambda row: row.get("last_modified", 0), reverse=True)
    return rows


def read_pages(path: ListPath, params: Mapping[str, Any], pages: float | None) -> Iterator[Flow[Page[JSONObject]]]:
    """Yield the flow of each page; ``_limit`` is the size of a page.

    One page is in the server's order, several are in the order of ids, unless ``_sort`` says otherwise.
    """
    selection = select(params)
    walk = ListWalk(path, replace(selection, limit=None, page_size=selection.limit, is_newest_first=False))
    count = EVERY if pages is None else pages
    while count > 0 and (flow := walk.next_page()) is not None:
        yield flow
        count -= 1


class ListWalk:
    """The pages of a list: the first is requested as the reference client does, several are read by id.

    In Kinto's order, objects that others change between two pages would be lost.
    """

    def __init__(self, path: ListPath, selection: NativeSelection) -> None:
        self._place = Place(cast(Any, None), path)  # rows as they came need no client
        self._selection = selection
        self._walk = self._start()
        self._is_first = True

    @property
    def is_by_id(self) -> bool:
        """Whether the pages are read by id although no order was asked for."""
        return not self._selection.is_plain and self._may_lose_rows

    @property
    def _may_lose_rows(self) -> bool:
        return self._selection.order is None and not self._selection.is_newest_first

    def _start(self) -> PageWalk[JSONObject]:
        return PageWalk(ROWS, self._place, self._selection, "raise")

    def next_page(self) -> Flow[Page[JSONObject]] | None:
        """Return the flow that reads the next page; ``None`` at the end."""
        flow = self._walk.next_page()
        if flow is None or not self._is_first:
            return flow
        self._is_first = False
        return self._read_first(flow)

    def _read_first(self, flow: Flow[Page[JSONObject]]) -> Flow[Page[JSONObject]]:
        try:
            page = yield from flow
            if not (page.has_more and self._may_lose_rows):
                return page
        except ResponseTooLargeError:
            pass  # as above: smaller pages may fit
        self._selection = replace(self._selection, is_plain=False)
        self._walk = self._start()
        again = self._walk.next_page()
        assert again is not None, "the first page was asked for"
        return (yield from again)


def read_changed(flow: Flow[Page[JSONObject]], timestamp: Timestamp | None) -> Flow[Page[JSONObject] | None]:
    """Return the page; ``None`` where the list still has that timestamp."""
    if timestamp is None:
        return (yield from flow)
    return (yield from with_condition(flow, "If-None-Match", parse_timestamp(timestamp, "if_none_match")))


@dataclass(frozen=True, slots=True)
class NativeSelection(Selection):
    """A selection whose filters go to the server in the caller's own words."""

    filters: tuple[tuple[str, str], ...] = ()
    is_plain: bool = True
    """Whether order and size of the pages are left to the server, unless the caller asked for them."""

    def parameters(self, page_size: int | None = None) -> list[tuple[str, str]]:
        """Return the query parameters."""
        if not self.is_plain:
            return [*self.filters, *Selection.parameters(self, page_size)]
        is_sized = page_size is not None and (self.limit is not None or self.page_size is not None)
        size = [("_limit", str(page_size))] if is_sized else []
        return [*self.filters, *Selection.parameters(self), *size]


def select(params: Mapping[str, Any]) -> NativeSelection:
    """Return what Kinto's own keywords select; raise ``InvalidFilterError`` for keywords that Kinto would ignore."""
    given = {_OTHER_NAMES.get(name, name): value for name, value in params.items()}
    filters: list[tuple[str, str]] = []
    native: dict[str, Any] = {}
    conditions: tuple[Condition, ...] = ()
    for name, value in given.items():
        if name in _MOMENTS:
            if value is not None:
                filters.append((name, _moment(name, value)))
        elif name == _EXPECTED:
            filters.append((name, str(value)))
        elif name.startswith("_"):
            native.update({} if value is None else {name: value})
        elif (text := _filter_text(name, value)) is not None:
            filters.append((name, text))
        elif name.startswith("in_"):
            conditions = (condition("id", "in", []),)  # matches nothing
    selection = building.with_keywords(Reading(cast(Source[Any], ROWS)), native).selection
    kept: dict[str, Any] = {one.name: getattr(selection, one.name) for one in fields(selection)}
    own: dict[str, Any] = {"conditions": conditions, "filters": tuple(filters)}
    return NativeSelection(**kept | own)


_OTHER_NAMES = {"_to": "_before"}
"""Names that Kinto is about to forget."""

_MOMENTS = ("_since", "_before")

_EXPECTED = "_expected"
"""A parameter for the caches in front of Kinto, which tell an answer from earlier ones by it."""


def _moment(name: str, value: Any) -> str:
    """Return the timestamp in the caller's own spelling; raise ``InvalidFilterError`` for none."""
    if not isinstance(value, float):  # Kinto takes fractions here
        as_moment(value, name)
    return _plain_text(name, value)


def _filter_text(name: str, value: Any) -> str | None:
    """Return the value of a filter; ``None`` for a choice among nothing."""
    operator, field = split_keyword(name)
    if operator not in ("in", "exclude"):
        return _plain_text(field, value)
    choices = value.split(",") if isinstance(value, str) else list(value)
    return ",".join(_plain_text(field, one, is_choice=True) for one in choices) if choices else None


def _plain_text(field: str, value: Any, *, is_choice: bool = False) -> str:
    """Return the value as the reference client sends it: text in its own spelling, all else as JSON."""
    if not isinstance(value, str):
        return json_dumps(value)
    if value.startswith('"'):
        return value
    if field == "id":
        return json.dumps(value)  # Kinto would take "123" for a number, and refuse it
    # Kinto splits choices at every comma before it parses them: only an escape can hide one.
    return json.dumps(value).replace(",", "\\u002c") if is_choice and "," in value else value


def _limit_pages(selection: NativeSelection, pages: float | None) -> tuple[NativeSelection, float]:
    """Return the selection of that many pages, and the number of pages to read of it."""
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
    """Delete the objects that match, on every page, and return their tombstones."""
    if _EXPECTED in params:
        raise InvalidFilterError(f"A deletion takes no parameter {_EXPECTED}: Kinto would ignore it.")
    selection = select(params)
    tombstones: list[JSONObject] = []
    timestamp = None if if_match is None or not safe else parse_timestamp(if_match, "if_match")
    query = encode_query(selection.parameters())
    yield from delete_pages(path, query, if_match=timestamp, on_rows=tombstones.extend)
    return tombstones

"""Answers from the file: what the server would say to the requests of a flow, for the collections of the mirror.

Data, preconditions, filters and batches are as on Kinto. Permissions are not: the file has none, so an answer shows
none, and writing some is an ``OfflineError``, as is every request for something else.
https://docs.kinto-storage.org/en/stable/api/1.x/index.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import unquote

from kinto_orm.errors import InvalidValueError, OfflineError, PermissionsUnknownError
from kinto_orm.mirror.merging import data_of, edited
from kinto_orm.mirror.selecting import BadQueryError, ListQuery, Selection, parse_query, pick, row_text
from kinto_orm.mirror.store import Row, Store
from kinto_orm.protocol.batches import ATOMIC_CAPABILITY, ATOMIC_HEADER, ROLLED_BACK_HEADER
from kinto_orm.protocol.json_patch import apply_json_patch
from kinto_orm.protocol.json_values import JSONObject, decode, etag
from kinto_orm.protocol.messages import NO_HEADERS, Request, Response
from kinto_orm.protocol.patches import JSON_PATCH_TYPE, MERGE_PATCH_TYPE, apply_merge_patch

BATCH_LIMIT = 1000
"""Writes in one batch: they are one transaction of the file."""

_RECORDS = re.compile(r"(/buckets/[^/]+/collections/[^/]+)/records(?:/([^/]+))?")
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_ETAG = re.compile(r'"(\d+)"')
_TITLES = {400: "Invalid parameters", 404: "Not Found", 405: "Method Not Allowed", 412: "Precondition Failed"}
_ERRNOS = {400: 107, 404: 110, 405: 115, 412: 114}
_MODIFIED = "Resource was modified meanwhile"

SERVER_INFO: Mapping[str, Any] = {
    "project_name": "kinto_orm mirror",
    "settings": {"batch_max_requests": BATCH_LIMIT, "readonly": False, "explicit_permissions": True},
    "capabilities": {ATOMIC_CAPABILITY: {}},
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer before it is encoded: the body is JSON text."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)


class _Call(NamedTuple):
    """One request for a collection of the mirror."""

    method: str
    collection: int
    path: str
    id: str | None
    query: str
    headers: Mapping[str, str]
    body: Any
    """The decoded body; ``None`` where there is none."""


class _RefusalError(Exception):
    """The answer to a request that is refused."""

    def __init__(self, status: int, details: Any = None, message: str = "", timestamp: int | None = None) -> None:
        super().__init__(status)
        said = {"code": status, "errno": _ERRNOS[status], "error": _TITLES[status]}
        said |= {"message": message} if message else {}
        said |= {"details": details} if details else {}
        self.answer = _Answer(status, json.dumps(said), {} if timestamp is None else {"ETag": etag(timestamp)})


class Answering:
    """The server in the file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._collections: dict[str, int] = {}

    def answer(self, request: Request) -> Response:
        """Return the answer; raise ``OfflineError`` for what the mirror does not have."""
        if request.path == "/" and not request.is_write:
            return _response(_Answer(200, json.dumps(SERVER_INFO)))
        if request.path == "/batch":
            return self._answer_batch(request)
        content_type = request.headers.get("Content-Type", "")
        body = None if request.body is None else decode(request.body, request.path)
        call = self._call(request.method, request.path, request.query, request.headers, body)
        with self._store.transaction(writes=request.is_write):
            return _response(self._handle(call, content_type))

    def _answer_batch(self, request: Request) -> Response:
        document = decode(request.body or b"{}", "/batch")
        is_atomic = request.headers.get(ATOMIC_HEADER) == "true"
        answers: list[_Answer] = []
        undone = False
        with suppress(_UndoneError), self._store.transaction():
            for entry in document["requests"]:
                path, _, query = entry["path"].partition("?")
                call = self._call(entry["method"], path, query, entry.get("headers", {}), entry.get("body"))
                answers.append(self._handle(call, ""))
            undone = is_atomic and any(one.status >= 400 for one in answers)
            if undone:
                raise _UndoneError
        texts = [
            f'{{"status":{one.status},"path":{json.dumps("/v1" + unquote(entry["path"].partition("?")[0]))},'
            f'"headers":{json.dumps(dict(one.headers))},"body":{one.body or chr(34) * 2}}}'
            for one, entry in zip(answers, document["requests"], strict=True)
        ]
        headers = {ROLLED_BACK_HEADER: "true"} if undone else {}
        return _response(_Answer(200, f'{{"responses":[{",".join(texts)}]}}', headers))

    def _call(self, method: str, path: str, query: str, headers: Mapping[str, str], body: Any) -> _Call:
        match = _RECORDS.fullmatch(path)
        collection = None if match is None else self._number(match[1])
        if match is None or collection is None:
            raise OfflineError(
                f"{method} {path}: the mirror {self._store.path} does not have it. It has the records of the "
                "collections that mirror.collection() was given; ask the server's own client for all else."
            )
        id = None if match[2] is None else unquote(match[2])
        return _Call(method, collection, path, id, query, headers, body)

    def _number(self, path: str) -> int | None:
        if path not in self._collections:
            self._collections = {known: number for number, known in self._store.collections()}
        return self._collections.get(path)

    def _handle(self, call: _Call, content_type: str) -> _Answer:
        try:
            answer = self._handle_list(call) if call.id is None else self._handle_record(call, content_type)
        except _RefusalError as refusal:
            answer = refusal.answer
        except BadQueryError as error:
            details = [{"location": "querystring", "name": str(error), "description": f"Invalid value for {error}"}]
            answer = _RefusalError(400, details).answer
        return _Answer(answer.status, "", answer.headers) if call.method == "HEAD" else answer

    def _handle_list(self, call: _Call) -> _Answer:
        match call.method:
            case "GET" | "HEAD":
                return self._read_list(call)
            case "DELETE":
                return self._delete_list(call)
            case _:
                raise OfflineError(f"{call.method} {call.path}: a mirror does not do that; ask the server's client.")

    def _handle_record(self, call: _Call, content_type: str) -> _Answer:
        if not _ID.fullmatch(call.id or ""):
            raise _RefusalError(400, [{"location": "path", "name": None, "description": "Invalid object id"}])
        match call.method:
            case "GET" | "HEAD":
                return self._read(call)
            case "PUT":
                return self._put(call)
            case "PATCH":
                return self._patch(call, content_type)
            case "DELETE":
                return self._delete(call)
            case _:
                raise OfflineError(f"{call.method} {call.path}: a mirror does not do that; ask the server's client.")

    # -- lists ----------------------------------------------------------------------------------------------------

    def _read_list(self, call: _Call) -> _Answer:
        timestamp = self._store.timestamp(call.collection)
        headers = {"ETag": etag(timestamp), "Date": formatdate(usegmt=True)}
        query: ListQuery | BadQueryError
        try:
            query = parse_query(call.query)
        except BadQueryError as error:
            if error.comes_first:
                raise
            query = error
        if self._is_unchanged(call, timestamp):
            return _Answer(304, "", headers)
        self._check_list(call, timestamp)
        if isinstance(query, BadQueryError):
            raise query
        selection = Selection(self._store, call.collection, query)
        if call.method == "HEAD":
            count = str(selection.count())
            return _Answer(200, "", {**headers, "Total-Objects": count, "Total-Records": count})
        page = selection.page()
        if page.next_query is not None:
            headers["Next-Page"] = f"http://mirror/v1{call.path}?{page.next_query}"
        return _Answer(200, f'{{"data":[{",".join(page.texts)}]}}', headers)

    def _delete_list(self, call: _Call) -> _Answer:
        self._check_list(call, self._store.timestamp(call.collection))
        page = Selection(self._store, call.collection, parse_query(call.query), only_live=True).page()
        tombstones: list[str] = []
        for id in page.ids:
            row = self._store.get(call.collection, id)
            assert row is not None
            tombstones.append(self._store_edit(call, row, None))
        headers = {"ETag": etag(self._store.timestamp(call.collection))}
        if page.next_query is not None:
            headers["Next-Page"] = f"http://mirror/v1{call.path}?{page.next_query}"
        return _Answer(200, f'{{"data":[{",".join(tombstones)}]}}', headers)

    def _check_list(self, call: _Call, timestamp: int) -> None:
        match, none_match = _conditions(call)
        if none_match == "*" or (match not in (None, "*") and match != timestamp):
            raise _RefusalError(412, {}, _MODIFIED, timestamp)

    # -- records --------------------------------------------------------------------------------------------------

    def _read(self, call: _Call) -> _Answer:
        row = self._existing(call)
        assert row is not None and row.mine is not None
        if self._is_unchanged(call, row.version):
            return _Answer(304, "", {"ETag": etag(row.version)})
        self._check(call, row)
        text = row_text(row.id, row.version, row.mine)
        fields = parse_query(call.query).fields
        if fields:
            text = json.dumps(pick(decode(text.encode(), call.path), fields))
        return _object(200, text, row.version)

    def _put(self, call: _Call) -> _Answer:
        row = self._row(call)
        self._check(call, row)
        data = self._sent(call, row)
        if data is None:
            data = data_of(row.mine) or {}
        text = self._store_edit(call, row, data)
        return _object(201 if row.mine is None else 200, text, self._store.timestamp(call.collection))

    def _patch(self, call: _Call, content_type: str) -> _Answer:
        row = self._existing(call)
        self._check(call, row)
        old = data_of(row.mine) or {}
        if content_type == JSON_PATCH_TYPE:
            data = self._patched(call, row, old)
        else:
            if not call.body:
                description = "Provide at least one of data or permissions"
                raise _RefusalError(400, [{"location": "body", "name": "data", "description": description}])
            changes = self._sent(call, row) or {}
            data = apply_merge_patch(old, changes) if content_type == MERGE_PATCH_TYPE else {**old, **changes}
        return _object(200, self._store_edit(call, row, data), self._store.timestamp(call.collection))

    def _patched(self, call: _Call, row: Row, old: JSONObject) -> JSONObject:
        try:
            patched = apply_json_patch(old, None, call.body, id=row.id, last_modified=row.version)
        except InvalidValueError as error:
            description = f"JSON Patch operation failed: {error}"
            raise _RefusalError(400, [{"location": "body", "name": None, "description": description}]) from error
        except PermissionsUnknownError as error:
            raise _no_permissions(call) from error
        return patched.data

    def _delete(self, call: _Call) -> _Answer:
        row = self._existing(call)
        self._check(call, row)
        text = self._store_edit(call, row, None)
        return _Answer(200, f'{{"data":{text}}}', {"ETag": etag(self._store.timestamp(call.collection))})

    def _store_edit(self, call: _Call, row: Row, data: JSONObject | None) -> str:
        """Write the data, or the deletion, and return the record as JSON text."""
        row = edited(row, data, self._store.next_version(call.collection))
        self._store.put(call.collection, row)
        return row_text(row.id, row.version, row.mine)

    def _row(self, call: _Call) -> Row:
        assert call.id is not None
        return self._store.get(call.collection, call.id) or Row(call.id)

    def _existing(self, call: _Call) -> Row:
        row = self._row(call)
        if row.mine is None:
            raise _RefusalError(404, {"id": call.id, "resource_name": "record"})
        return row

    def _sent(self, call: _Call, row: Row) -> JSONObject | None:
        """Return the data of the body; ``None`` where it has none."""
        body = call.body or {}
        if body.get("permissions"):
            raise _no_permissions(call)
        data: JSONObject | None = body.get("data")
        if data is None:
            return None
        if not isinstance(data, dict) or data.get("id", call.id) != call.id:
            description = "Object id does not match existing object"
            raise _RefusalError(400, [{"location": "body", "name": "id", "description": description}])
        modified = data.get("last_modified")
        if type(modified) is int and (row.mine is None or modified > row.version):
            raise OfflineError(f"{call.method} {call.path}: a mirror gives timestamps itself; leave last_modified out.")
        return {key: value for key, value in data.items() if key not in ("id", "last_modified")}

    def _check(self, call: _Call, row: Row) -> None:
        match, none_match = _conditions(call)
        exists = row.mine is not None
        if none_match == "*" and exists:
            is_refused = True
        elif match is not None:
            is_refused = not exists or (match != "*" and match != row.version)
        else:
            is_refused = False
        if is_refused:
            existing = decode(row_text(row.id, row.version, row.mine).encode(), call.path) if exists else None
            details = {} if existing is None else {"existing": existing}
            timestamp = row.version if exists else self._store.timestamp(call.collection)
            raise _RefusalError(412, details, _MODIFIED, timestamp)

    def _is_unchanged(self, call: _Call, timestamp: int) -> bool:
        return _conditions(call)[1] == timestamp


class _UndoneError(Exception):
    """Ends the transaction of an atomic batch of which something was refused."""


def _conditions(call: _Call) -> tuple[int | str | None, int | str | None]:
    """Return the timestamps of ``If-Match`` and ``If-None-Match``, ``*``, or ``None``."""
    headers = {name.lower(): value for name, value in call.headers.items()}
    return _condition(headers.get("if-match"), "If-Match"), _condition(headers.get("if-none-match"), "If-None-Match")


def _condition(value: str | None, name: str) -> int | str | None:
    if value is None or value == "*":
        return value
    if match := _ETAG.fullmatch(value):
        return int(match[1])
    description = "The value should be integer between double quotes."
    raise _RefusalError(400, [{"location": "header", "name": name, "description": description}])


def _object(status: int, text: str, version: int) -> _Answer:
    # Without permissions: they are unknown here, which is how Kinto shows them to those who may not see them.
    return _Answer(status, f'{{"permissions":{{}},"data":{text}}}', {"ETag": etag(version)})


def _no_permissions(call: _Call) -> OfflineError:
    return OfflineError(f"{call.method} {call.path}: a mirror keeps no permissions; set them by the server's client.")


def _response(answer: _Answer) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if answer.body:
        headers["content-type"] = "application/json"
    return Response(answer.status, headers, answer.body.encode())

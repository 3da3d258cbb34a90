"""Answers from the file: what the server would say to the requests of a flow, for the collections of the mirror.

Data, preconditions, filters and batches are as on Kinto. Permissions are not: the file has none, so an answer shows
none, and writing some is an ``OfflineError``, as is every request for something else.
https://docs.kinto-storage.org/en/stable/api/1.x/index.html
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import unquote

from kinto_orm.errors import InvalidValueError, OfflineError, PermissionsUnknownError
from kinto_orm.mirror.merging import data_of, edited
from kinto_orm.mirror.selecting import Selection, read_query, row_text, whole
from kinto_orm.mirror.store import Row, Store
from kinto_orm.protocol.batches import ATOMIC_CAPABILITY, ATOMIC_HEADER, ROLLED_BACK_HEADER
from kinto_orm.protocol.json_patch import apply_json_patch
from kinto_orm.protocol.json_values import JSONObject, decode, encode, etag, parse_timestamp
from kinto_orm.protocol.messages import NO_HEADERS, Request, Response
from kinto_orm.protocol.patches import JSON_PATCH_TYPE, MERGE_PATCH_TYPE, apply_merge_patch, unmergeable
from kinto_orm.protocol.paths import check_id

BATCH_LIMIT = 1000
"""Writes in one batch: they are one transaction of the file."""

_RECORDS = re.compile(r"(/buckets/[^/]+/collections/[^/]+)/records(?:/([^/]+))?")
_date_at = lru_cache(maxsize=1)(partial(formatdate, usegmt=True))
_METHODS = ("GET", "HEAD", "DELETE", "PUT", "PATCH")  # the first three of a list, too
_REFUSALS = {400: (107, "Invalid parameters"), 404: (110, "Not Found"), 412: (114, "Precondition Failed")}

SERVER_INFO: Mapping[str, Any] = {
    "project_name": "kinto_orm mirror",
    "settings": {"batch_max_requests": BATCH_LIMIT, "readonly": False, "explicit_permissions": True},
    "capabilities": {ATOMIC_CAPABILITY: {}},
}


class _Call(NamedTuple):
    """One request for a collection of the mirror."""

    method: str
    path: str
    collection: int
    id: str | None
    query: str
    headers: Mapping[str, str]
    body: Any
    """The decoded body; ``None`` where there is none. Names of headers are in small letters."""


class _RefusalError(Exception):
    """The answer to a request that is refused."""

    def __init__(self, status: int, details: Any = None, timestamp: int | None = None) -> None:
        super().__init__(status)
        errno, title = _REFUSALS[status]
        about = {"details": details} if details else {}
        said = {"code": status, "errno": errno, "error": title, "message": title, **about}
        self.answer = _answer(status, json.dumps(said), timestamp)


class FileTransport:
    """Answers requests from the file; see :class:`~kinto_orm.protocol.messages.Transport`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._collections: Mapping[str, int] = {}

    def send(self, request: Request) -> Response:
        """Return the answer; raise ``OfflineError`` for what the mirror does not have."""
        if request.path == "/" and not request.is_write:
            return _answer(200, json.dumps(SERVER_INFO))
        if request.path == "/batch":
            return self._answer_batch(request)
        body = None if request.body is None else decode(request.body, request.path)
        call = self._call(request.method, request.path, request.query, request.headers, body)
        if call.id is not None and not request.is_write:
            return self._handle(call)  # one statement
        with self._store.transaction(writes=request.is_write):
            return self._handle(call)

    async def asend(self, request: Request) -> Response:
        """Like :meth:`send`, in a thread: another process may be writing the file."""
        return await asyncio.to_thread(self.send, request)

    def release(self) -> None:
        """Close the file until the next request."""
        self._store.release()

    close = release  # the file belongs to the mirror

    def _answer_batch(self, request: Request) -> Response:
        asked = decode(request.body or b"{}", "/batch")
        if asked.keys() != {"requests"}:
            raise OfflineError("POST /batch: a mirror takes requests that are complete, without defaults.")
        entries = asked["requests"]
        answers: list[Response] = []
        with self._store.transaction() as connection:
            connection.execute("SAVEPOINT batch")
            for entry in entries:
                path, _, query = entry["path"].partition("?")
                # Inside a batch, Kinto knows one kind of patch.
                headers = {name: text for name, text in entry.get("headers", {}).items() if name != "Content-Type"}
                call = self._call(entry.get("method", "GET"), path, query, headers, entry.get("body"))
                answers.append(self._handle(call))
            is_undone = request.headers.get(ATOMIC_HEADER) == "true" and any(one.status >= 400 for one in answers)
            if is_undone:
                connection.execute("ROLLBACK TO batch")
        paths = [f"/v1{unquote(entry['path'].partition('?')[0])}" for entry in entries]
        texts = [
            b'{"status":%d,"path":%s,"headers":%s,"body":%s}'
            % (one.status, encode(path), encode(one.headers), one.body or b'""')
            for one, path in zip(answers, paths, strict=True)
        ]
        text = (b'{"responses":[%s]}' % b",".join(texts)).decode()
        return _answer(200, text, headers={ROLLED_BACK_HEADER.lower(): "true"} if is_undone else NO_HEADERS)

    def _call(self, method: str, path: str, query: str, headers: Mapping[str, str], body: Any) -> _Call:
        match = _RECORDS.fullmatch(path)
        if match is not None and match[1] not in self._collections:
            self._collections = self._store.collections()
        if match is None or match[1] not in self._collections or method not in _METHODS[: 5 if match[2] else 3]:
            raise OfflineError(
                f"{method} {path}: the mirror {self._store.path} does not do that. It has the records of the "
                "collections that mirror.collection() was given; ask the server's own client for all else."
            )
        id = None if match[2] is None else unquote(match[2])
        named = {name.lower(): text for name, text in headers.items()}
        return _Call(method, path, self._collections[match[1]], id, query, named, body)

    def _handle(self, call: _Call) -> Response:
        try:
            answer = self._handle_list(call) if call.id is None else self._handle_record(call)
        except _RefusalError as refusal:
            answer = refusal.answer
        except PermissionsUnknownError as error:
            raise OfflineError(
                f"{call.path}: a mirror keeps no permissions; set them by the server's client."
            ) from error
        except ValueError as error:  # the errors of the library's own checks, too
            answer = _RefusalError(400, [{"location": "request", "description": str(error)}]).answer
        return answer._replace(body=b"") if call.method == "HEAD" else answer

    # -- lists ----------------------------------------------------------------------------------------------------

    def _handle_list(self, call: _Call) -> Response:
        timestamp, date = self._store.timestamp(call.collection), {"date": _date_at(int(time.time()))}
        if not self._check(call, timestamp):
            return _answer(304, "", timestamp, date)
        selection = Selection(self._store, call.collection, call.query, only_live=call.method == "DELETE")
        if call.method == "HEAD":
            count = str(selection.count())
            return _answer(200, "", timestamp, {**date, "total-objects": count, "total-records": count})
        rows, query = selection.page()
        if call.method == "DELETE":
            known = self._store.of_ids(call.collection, [row[0] for row in rows])
            texts = [self._store_edit(call, known[row[0]], None) for row in rows]
            timestamp = self._store.timestamp(call.collection)
        else:
            texts = [row_text(*row, selection.fields) for row in rows]
        following = {"next-page": f"http://mirror/v1{call.path}?{query}"} if query else {}
        return _answer(200, f'{{"data":[{",".join(texts)}]}}', timestamp, {**date, **following})

    # -- records --------------------------------------------------------------------------------------------------

    def _handle_record(self, call: _Call) -> Response:
        id = check_id(call.id)
        reads = call.method in ("GET", "HEAD")
        fields = read_query(call.query).get("_fields", "") if reads and call.query else ""
        row = self._store.get(call.collection, id, is_shown=reads) or Row(id)
        if row.mine is None and call.method != "PUT":
            raise _RefusalError(404, {"id": id, "resource_name": "record"})
        if not self._check(call, row.version if row.mine is not None else None, row):
            return _answer(304, "", row.version)
        status = 201 if call.method == "PUT" and row.mine is None else 200
        if reads:
            text = row_text(row.id, row.version, row.mine, fields)
        else:
            text = self._store_edit(call, row, self._wanted(call, row))
        # Without permissions: they are unknown here, which is how Kinto shows them to those who may not see them.
        shown = "" if fields or call.method == "DELETE" else '"permissions":{},'
        timestamp = row.version if reads else self._store.timestamp(call.collection)
        return _answer(status, f'{{{shown}"data":{text}}}', timestamp)

    def _wanted(self, call: _Call, row: Row) -> JSONObject | None:
        if call.method != "PATCH":
            return self._sent(call, row, data_of(row.mine) or {}) if call.method == "PUT" else None
        old, content_type = data_of(row.mine) or {}, call.headers.get("content-type")
        if content_type == JSON_PATCH_TYPE:
            return apply_json_patch(old, None, call.body, id=row.id, last_modified=row.version).data
        if not call.body:
            raise InvalidValueError("A patch has data or permissions.")
        changes = self._sent(call, row, {})
        if content_type == MERGE_PATCH_TYPE and (place := unmergeable(old, changes)):
            raise InvalidValueError(f"{place} holds no object, and Kinto fails to merge one into any other value.")
        return apply_merge_patch(old, changes) if content_type == MERGE_PATCH_TYPE else {**old, **changes}

    def _store_edit(self, call: _Call, row: Row, data: JSONObject | None) -> str:
        """Write the data, or the deletion, and return the record as JSON text."""
        row = edited(row, data, self._store.next_version(call.collection))
        self._store.put(call.collection, row)
        return row_text(row.id, row.version, row.mine)

    def _sent(self, call: _Call, row: Row, default: JSONObject) -> JSONObject:
        """Return the data of the body, or the default where it has none."""
        body = {} if call.body is None else call.body
        data = body.get("data", default) if isinstance(body, dict) and body.keys() <= {"data", "permissions"} else None
        if not isinstance(data, dict) or data.get("id", call.id) != call.id:
            raise InvalidValueError("The body is an object with the data of this record, or permissions.")
        if body.get("permissions"):
            raise PermissionsUnknownError("The body has permissions.")
        modified = data.get("last_modified")
        if type(modified) is int and (row.mine is None or modified > row.version):
            raise OfflineError(f"{call.method} {call.path}: a mirror gives timestamps itself; leave last_modified out.")
        return {key: value for key, value in data.items() if key not in ("id", "last_modified")}

    def _check(self, call: _Call, version: int | None, row: Row | None = None) -> bool:
        """Return whether what is read is not that of ``If-None-Match``; refuse where a precondition is not met.

        ``version`` is the timestamp of the list or the record; ``None`` where there is none.
        """
        if not call.headers:
            return True
        given = [call.headers.get(name) for name in ("if-match", "if-none-match")]
        # Kinto takes "0" for no precondition.
        match, none_match = (one if one == "*" else one and parse_timestamp(one) for one in given)
        if version is not None and none_match == version and call.method in ("GET", "HEAD"):
            return False
        if (match and (version is None or match not in ("*", version))) or (none_match == "*" and version is not None):
            details = {"existing": whole((row.id, row.version, row.mine))} if row and version is not None else {}
            raise _RefusalError(412, details, version or self._store.timestamp(call.collection))
        return True


def _answer(status: int, text: str, timestamp: int | None = None, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    said = {"content-type": "application/json", **headers}
    if timestamp is not None:
        said["etag"] = etag(timestamp)
    return Response(status, said, text.encode())

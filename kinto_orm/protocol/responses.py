"""Reading answers: the object or document in an answer, or the error.

https://docs.kinto-storage.org/en/stable/api/1.x/errors.html
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kinto_orm.errors import (
    AmbiguousWriteError,
    BadRequestError,
    ConcurrentWriteError,
    ConflictError,
    FieldError,
    ForbiddenError,
    KintoError,
    MethodNotAllowedError,
    NotFoundError,
    ProtocolError,
    RedirectError,
    ResponseError,
    SchemaValidationError,
    ServerError,
    ServiceGoneError,
    UnauthorizedError,
)
from kinto_orm.protocol.json_values import JSON, TEXTS, JSONObject, parse_json
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paths import ObjectPath

STATUS_ERRORS: dict[int, type[ResponseError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    409: ConcurrentWriteError,
    410: ServiceGoneError,
    412: ConflictError,
}

_CLASS_ERRORS: dict[int, type[ResponseError]] = {3: RedirectError, 4: BadRequestError, 5: ServerError}

_ADVICE: dict[type[ResponseError], str] = {
    RedirectError: "Redirects are not followed: give the server's final URL, with its version (…/v1).",
    UnauthorizedError: "Check the credentials of the client (auth=…).",
    ConcurrentWriteError: "Another client wrote at the same moment and nothing was stored: the call may be repeated.",
    SchemaValidationError: "The JSON schema of the collection or the bucket refused it: .errors has the fields.",
    ConflictError: "Another client changed the object: see .theirs, and call .merge(), .reload() or .overwrite().",
}

_MAX_TEXT = 300
_EXCERPT = 200
_JSON_TYPE = re.compile(r"[^;]*\bjson\s*(;.*)?", re.IGNORECASE | re.DOTALL)


ShownPermissions: TypeAlias = Mapping[str, frozenset[str]] | None
"""The permissions of an object as the server shows them; ``None``: unknown. Kinto shows ``{}`` to callers who may not
see them."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the server's answer. ``data`` is without ``id`` and ``last_modified``."""

    data: JSONObject
    last_modified: int | None
    permissions: ShownPermissions
    is_deleted: bool = False


def content(response: Response, what: str) -> JSON:
    """Return the decoded body; raise ``ProtocolError`` where it is not JSON, or holds a number that is too large."""
    if response.content is not None:
        return response.content
    check_json_type(response, what)
    try:
        return parse_json(response.body)
    except ValueError as error:
        raise protocol_error(response, what, f"the answer {error}") from error


def check_json_type(response: Response, what: str) -> None:
    """Raise ``ProtocolError`` where the answer's content type is not JSON."""
    if not _JSON_TYPE.fullmatch(response.headers.get("content-type", "json")):
        raise protocol_error(response, what, "the answer is not JSON")


def protocol_error(response: Response, what: str, problem: str) -> ProtocolError:
    """Return the error for an answer that no Kinto sends; it shows the request and the answer."""
    sent_as = response.headers.get("content-type", "no content type")
    begin = (response.body or str(response.content or "").encode("utf-8", "replace"))[: 4 * _EXCERPT]
    excerpt = begin.decode("utf-8", "replace")[:_EXCERPT]
    where = what if len(what) <= _EXCERPT else f"{what[:_EXCERPT]}…"
    return ProtocolError(f"{where}: {problem} ({response.status}, {sent_as:.60}); it begins {excerpt!r}.")


def raise_for_status(response: Response, method: str, path: str | ObjectPath) -> None:
    """Raise the error of the status; do nothing for 2xx.

    Raises ``AmbiguousWriteError`` where a second attempt was refused: the first one may have been applied.
    """
    if 200 <= response.status < 300:
        return
    error: KintoError = error_of(response, method, str(path))
    if response.status == 304 or not 300 <= response.status < 600:
        error = protocol_error(response, f"{method} {path}", "this status was not asked for")
    if not response.is_repeated:
        raise error
    raise AmbiguousWriteError(
        f"{method} {path}: the answer to the first attempt got lost, so it may have been applied. "
        f"The next one was refused: {error} Read the object before you write it again."
    ) from error


def error_of(response: Response, method: str, path: str) -> ResponseError:
    """Return the error of the answer; works for any answer."""
    status = response.status
    cls = STATUS_ERRORS.get(status) or _CLASS_ERRORS.get(status // 100, ServerError)
    document = _document(response, f"{method} {path}")
    errno = document.get("errno") if isinstance(document.get("errno"), int) else None
    if status == 400 and is_of_a_schema(errno, document.get("details"), path):
        cls = SchemaValidationError
    message = f"{method} {path}: {status}"
    if text := _text(document):
        message += f" {text.rstrip('.')}"
    if target := response.headers.get("location") if cls is RedirectError else None:
        message += f" to {_shown_url(target)}"
    if advice := _ADVICE.get(cls) or _advice_on_absence(cls, document, response, method):
        message += f". {advice}"
    error = cls(
        message,
        status=status,
        method=method,
        path=path,
        errno=errno,
        details=document.get("details"),
        body=response.body[:2000].decode("utf-8", "replace"),
        retry_after=response.retry_after,
    )
    if isinstance(error, SchemaValidationError):
        error.errors = schema_errors(error.details, None)
    elif isinstance(error, BadRequestError):
        # With Kinto's names.
        error.errors = tuple(
            FieldError(_parts(one.get("name")), str(one.get("description", "")), str(one.get("location", "")))
            for one in _entries(error.details)
        )
    return error


def _advice_on_absence(cls: type[ResponseError], document: JSONObject, response: Response, method: str) -> str | None:
    details = document.get("details")
    if cls is ForbiddenError:
        who = response.user or "The user of the client (see client.server_info(refresh=True)['user'])"
        creates = "" if method == "DELETE" else " A bucket that is missing is created by client.ensure()."
        return f"{who} may not {method} it, or the bucket does not exist: Kinto does not tell them apart.{creates}"
    is_parent = isinstance(details, dict) and details.get("resource_name") in ("bucket", "collection")
    if cls is NotFoundError and is_parent and method != "DELETE":
        return "client.ensure(Model), or ensure(Bucket(…), Collection(…)), creates what is missing."
    return None


def _shown_url(url: str) -> str:
    """Return the URL as a message may show it: without credentials and query string."""
    return re.sub(r"(?<=//)[^/]*@", "", re.split(r"[?#]", url)[0])[:_EXCERPT]


def _document(response: Response, what: str) -> JSONObject:
    try:
        document = content(response, what)
    except ProtocolError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(document: JSONObject) -> str:
    parts = [str(document[key]) for key in ("error", "message") if document.get(key)]
    details = document.get("details")
    if isinstance(details, list):
        parts += [f"{one.get('name')}: {one.get('description')}" for one in details if isinstance(one, dict)]
    elif isinstance(details, dict) and "resource_name" in details:
        parts.append(f"{details['resource_name']} {details.get('id')!r}")
    text = " - ".join(dict.fromkeys(parts))
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def read_object(response: Response, path: ObjectPath, method: str) -> StoredObject:
    """Return the object of a 2xx answer.

    Raises the error of any other status, and ``ProtocolError`` where the answer is not that object.
    """
    raise_for_status(response, method, path)
    if response.status == 204 and method == "DELETE":
        return StoredObject({}, None, None, is_deleted=True)
    # An answer inside a batch is decoded already; the text that names the request is for errors only.
    body = content(response, f"{method} {path}") if response.content is None else response.content
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise protocol_error(response, f"{method} {path}", "the answer holds no object")
    # A bucket called "default" answers with its real id.
    if data.get("id") != path.id and path.ids != ("default",):
        raise protocol_error(response, f"{method} {path}", f"the answer is another object, {data.get('id')!r:.80}")
    return stored_object(data, body.get("permissions"), is_deleted=method == "DELETE")


def stored_object(data: JSONObject, permissions: Any = None, *, is_deleted: bool = False) -> StoredObject:
    """Return the object with this ``data`` and ``permissions``, as the server sends them."""
    # Only the answer to a DELETE is a tombstone: Kinto stores a ``deleted`` that a client sent like any other key.
    rest = data.copy()
    rest.pop("id", None)
    last_modified = rest.pop("last_modified", None)
    return StoredObject(
        data=rest,
        last_modified=last_modified if type(last_modified) is int else None,
        permissions=shown_permissions(permissions),
        is_deleted=is_deleted,
    )


def shown_permissions(permissions: JSON) -> ShownPermissions:
    """Return the permissions in an answer; ``None`` where it shows none. Raises ``ProtocolError`` for ones that are
    no lists of principals.
    """
    if permissions is None or permissions == {}:
        return None
    if not isinstance(permissions, dict) or not all(map(_is_list_of_texts, permissions.values())):
        raise ProtocolError(f"The permissions in an answer are no lists of principals: {str(permissions)[:200]}.")
    return {name: frozenset(principals) for name, principals in permissions.items()}


def _is_list_of_texts(value: JSON) -> bool:
    return isinstance(value, list) and TEXTS.issuperset(map(type, value))


def existing_object(response: Response, what: str) -> StoredObject | None:
    """Return the existing object in a 412; ``None`` where there is none, or the server hides it."""
    details = _document(response, what).get("details")
    existing = details.get("existing") if isinstance(details, dict) else None
    return stored_object(existing) if isinstance(existing, dict) else None


def read_document(response: Response, request: Request) -> JSONObject:
    """Return the JSON object of a 2xx answer that is no Kinto object (server information, for example)."""
    raise_for_status(response, request.method, request.path)
    what = f"{request.method} {request.path}"
    body = content(response, what)
    if not isinstance(body, dict):
        raise protocol_error(response, what, "the answer is no JSON object")
    return body


# The fields that a 400 names. Kinto sends only the end of a field's path; the data that was sent shows the rest.
# https://docs.kinto-storage.org/en/stable/api/1.x/errors.html#validation-errors

INVALID_PARAMETERS = 107
"""Kinto's error number for an invalid request."""

_KINTOS_OWN = re.compile(r"(data|permissions)(\..*)?|")
"""The names of the parts of a body; a JSON schema names keys of the data."""

_OBJECTS = re.compile(r"/buckets/[^/]+/(groups|collections)(/[^/]+(/records(/[^/]+)?)?)?|/buckets(/[^/]+)?")
_MISSING = re.compile(r"(.*) is a required property", re.DOTALL)
_UNEXPECTED = re.compile(r"Additional properties are not allowed \((.*) (?:was|were) unexpected\)", re.DOTALL)

_Path: TypeAlias = tuple[str | int, ...]


def is_of_a_schema(errno: Any, details: Any, path: str) -> bool:
    """Return whether a JSON schema, of the collection or the bucket, refused the object."""
    found = _entries(details)
    return (
        errno == INVALID_PARAMETERS
        and len(found) == 1
        and found[0].get("location") == "body"
        and not _is_kintos_own(found[0].get("name"))
        and _OBJECTS.fullmatch(path) is not None
    )


def _is_kintos_own(name: Any) -> bool:
    return name is None or (isinstance(name, str) and _KINTOS_OWN.fullmatch(name) is not None)


def _entries(details: Any) -> list[JSONObject]:
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _parts(name: Any) -> _Path:
    if isinstance(name, str):
        return tuple(int(part) if part.isdecimal() else part for part in name.split(".")) if name else ()
    return (name,) if type(name) is int else ()


def schema_errors(details: Any, data: JSONObject | None) -> tuple[FieldError, ...]:
    """Return the errors of a JSON schema, with paths in the data that was sent; ``None`` where it is unknown.

    Kinto names the last part of the path. For a missing or unexpected key it names the object around it, or something
    else. Where several fields fit none is chosen, and the path is its last part only.
    """
    (entry,) = _entries(details)
    name, message = entry.get("name"), str(entry.get("description", ""))
    if missing := _MISSING.fullmatch(message):
        paths = [_locate_in_object(name, key, data, is_there=False) for key in _names(missing[1])]
    elif unexpected := _UNEXPECTED.fullmatch(message):
        paths = [_locate_in_object(name, key, data, is_there=True) for key in _names(unexpected[1])]
    else:
        paths = [_locate(name, message, data)]
    return tuple(FieldError(path, message) for path in paths or [_locate(name, message, data)])


def _names(text: str) -> list[str]:
    """Return the names in a message, which shows them as Python does."""
    try:
        return [name for name in ast.literal_eval(f"[{text}]") if isinstance(name, str)]
    except (SyntaxError, ValueError):
        return []


def _locate_in_object(name: Any, key: str, data: JSONObject | None, *, is_there: bool) -> _Path:
    """Return the path of a key that is, or is not, in the object of that name, or at the top of the data."""
    may_be_at_top = not is_there or name == "additionalProperties"
    found = [
        path
        for path, value in _walk(data)
        if isinstance(value, dict) and (key in value) is is_there and (path[-1] == name if path else may_be_at_top)
    ]
    return (*found[0], key) if len(found) == 1 else (key,)


def _locate(name: Any, message: str, data: JSONObject | None) -> _Path:
    if not isinstance(name, (str, int)):
        return ()  # Kinto takes the last step in the schema for a name, even a number
    found = [(path, value) for path, value in _walk(data) if path and path[-1] == name]
    if len(found) > 1:
        found = [(path, value) for path, value in found if message.startswith(f"{value!r} ")]
    return found[0][0] if len(found) == 1 else (name,)


def _walk(value: JSON, path: _Path = ()) -> Iterator[tuple[_Path, JSON]]:
    """Yield each value with its path."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from _walk(one, (*path, key))

"""Accounts: what is peculiar to them is that they have a password, of which the server shows the hash.

A hash that is sent back is hashed again, and nobody can log in any more. So it is taken out of every answer, before
anything else sees it.
https://docs.kinto-storage.org/en/stable/api/1.x/accounts.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kinto_orm.errors import InvalidValueError, ProtocolError
from kinto_orm.protocol.json_values import JSON, JSONObject, decode, encode
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.patches import JSONPatch
from kinto_orm.protocol.paths import PASSWORD, ObjectPath

HIDDEN = "***"
DUMPED = "**********"
"""What pydantic makes of a password in JSON."""
MAX_PASSWORD_BYTES = 72
"""Kinto hashes passwords by bcrypt, which takes no more."""


def without_hashes(request: Request, response: Response) -> Response:
    """The answer, without the hashes of passwords."""
    is_batch = request.path == "/batch" and b"/accounts" in response.body
    if not is_batch and not _is_of_accounts(request.path):
        return response
    try:
        body = decode(response.body, request.path)
    except ProtocolError:
        return response  # whoever reads it says so; an answer without a body has no hash
    if is_batch:
        answers = body.get("responses") if isinstance(body, dict) else None
        for answer in answers if isinstance(answers, list) else ():
            if isinstance(answer, dict) and _is_of_accounts(str(answer.get("path")).partition("/v1")[2]):
                _clean(answer.get("body"))
    else:
        _clean(body)
    return replace(response, body=encode(body))


def _is_of_accounts(path: str) -> bool:
    return path.partition("?")[0] == "/accounts" or path.startswith("/accounts/")


def _clean(body: JSON) -> None:
    """Takes the hashes out of an object, a list, or a 412 with what exists."""
    if not isinstance(body, dict):
        return
    data, details = body.get("data"), body.get("details")
    existing = details.get("existing") if isinstance(details, dict) else None
    for one in [*(data if isinstance(data, list) else [data]), existing]:
        if isinstance(one, dict):
            one.pop("password", None)


def without_secrets(path: ObjectPath, data: JSONObject | None) -> JSONObject | None:
    """The data as it may be shown."""
    if data is None or path.kind.secrets.isdisjoint(data):
        return data
    return {key: value for key, value in data.items() if key not in path.kind.secrets}


def shown_entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry of a batch as it may be shown."""
    body = entry.get("body")
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or PASSWORD.isdisjoint(data) or not _is_of_accounts(entry["path"]):
        return entry
    return {**entry, "body": {**entry["body"], "data": {**data, "password": HIDDEN}}}


def check_password(path: ObjectPath, password: object) -> None:
    """Raises ``InvalidValueError``, which does not show it, for a password with which nobody could log in."""
    if not isinstance(password, str) or not password:
        raise InvalidValueError(f"{path}: the password is a string with something in it.")
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
        raise InvalidValueError(
            f"{path}: the password has more than {MAX_PASSWORD_BYTES} bytes, which is bcrypt's limit."
        )
    if password == DUMPED:
        raise InvalidValueError(f"{path}: the password is the stars that a dump shows: set the password itself.")
    if any(letter < " " or letter == "\x7f" for letter in password):
        raise InvalidValueError(f"{path}: the password has a control character: no header can carry it.")


def check_json_patch(path: ObjectPath, patch: JSONPatch) -> None:
    """Raises ``InvalidValueError`` for a JSON-Patch that reads or writes the password: Kinto would not hash it."""
    for operation in patch.operations:
        for pointer in (str(operation.get(name, "/")) for name in ("path", "from")):
            if pointer in ("", "/data") or pointer.startswith("/data/password"):
                raise InvalidValueError(
                    f"{path}: Kinto would store a password out of a JSON-Patch as it is, in clear: "
                    "use account.password = … and save(), or patch(password=…)."
                )

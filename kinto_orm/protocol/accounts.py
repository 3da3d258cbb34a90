"""Passwords of accounts: the server shows their hashes, and takes a hash that is sent back for a new password.

After that no one can log in. So hashes are removed from every answer before any other code sees it.
https://docs.kinto-storage.org/en/stable/api/1.x/accounts.html
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from kinto_orm.errors import InvalidValueError, ProtocolError
from kinto_orm.protocol.json_values import JSON, JSONObject, decode, encode
from kinto_orm.protocol.merge import at_places
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.patches import JSONPatch
from kinto_orm.protocol.paths import PASSWORD, ObjectPath

HIDDEN = "***"
DUMPED = "**********"
"""The text that pydantic dumps in place of a password."""
MAX_PASSWORD_BYTES = 72
"""The limit of bcrypt, by which Kinto hashes passwords."""


def without_hashes(request: Request, response: Response) -> Response:
    """Return the answer without the hashes of passwords."""
    is_batch = request.path == "/batch" and b"/accounts" in response.body
    if not is_batch and not request.path.startswith("/accounts"):
        return response
    try:
        body = decode(response.body, request.path)
    except ProtocolError:
        return response  # the code that reads it raises; an answer without a body has no hash
    if is_batch:
        answers = body.get("responses") if isinstance(body, dict) else None
        for answer in answers if isinstance(answers, list) else ():
            if isinstance(answer, dict) and _is_of_accounts(str(answer.get("path")).partition("/v1")[2]):
                _clean(answer.get("body"))
    else:
        _clean(body)
    try:
        return response._replace(body=encode(body))
    except ValueError:  # half a character, which no server of Kinto stores
        return response._replace(body=json.dumps(body).encode())


def _is_of_accounts(path: str) -> bool:
    return path.partition("?")[0] == "/accounts" or path.startswith("/accounts/")


def _clean(body: JSON) -> None:
    """Remove the hashes from an object, a list, or the existing object in a 412."""
    if not isinstance(body, dict):
        return
    data, details = body.get("data"), body.get("details")
    existing = details.get("existing") if isinstance(details, dict) else None
    for one in [*(data if isinstance(data, list) else [data]), existing]:
        if isinstance(one, dict):
            one.pop("password", None)


def without_secrets(path: ObjectPath, data: JSONObject | None) -> JSONObject | None:
    """Return the data without its secrets."""
    if data is None or path.kind.secrets.isdisjoint(data):
        return data
    return {key: value for key, value in data.items() if key not in path.kind.secrets}


SECRETS: defaultdict[str, dict[str, Any]] = defaultdict(dict)
"""For a list of records (its path), the keys of a model's secrets, and their places inside the values: stars."""


def mask(value: JSON, places: Any) -> JSON:
    """Return the value with stars in the place of its secrets."""
    return at_places(value, places, lambda secret: DUMPED)


def shown_entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a request as it may be shown, without passwords and secrets."""
    body, path = entry.get("body"), str(entry["path"])
    secrets = SECRETS.get(path.partition("?")[0].rpartition("/")[0], {})
    if isinstance(body, list):
        return {**entry, "body": [_shown_operation(one, secrets) for one in body]}
    data = body.get("data") if isinstance(body, dict) else None
    is_account = _is_of_accounts(path)
    if not isinstance(data, dict) or (PASSWORD if is_account else secrets.keys()).isdisjoint(data):
        return entry
    shown = {**data, "password": HIDDEN} if is_account else mask(data, secrets)
    return {**entry, "body": {**entry["body"], "data": shown}}


def _shown_operation(operation: JSON, secrets: Mapping[str, Any]) -> JSON:
    parts = str(operation.get("path", "")).split("/") if isinstance(operation, dict) else []
    is_secret = len(parts) > 2 and parts[2] in secrets and "value" in operation
    return {**operation, "value": DUMPED} if is_secret else operation


def check_password(path: ObjectPath, password: object) -> None:
    """Raise ``InvalidValueError`` for a password that cannot be used to log in; the message does not show it."""
    if not isinstance(password, str) or not password:
        raise InvalidValueError(f"{path}: the password must be a string that is not empty.")
    if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
        raise InvalidValueError(
            f"{path}: the password has more than {MAX_PASSWORD_BYTES} bytes, which is bcrypt's limit."
        )
    if password == DUMPED:
        raise InvalidValueError(f"{path}: the password is the stars of a dump: set the password itself.")
    if any(letter < " " or letter == "\x7f" for letter in password):
        raise InvalidValueError(f"{path}: the password has a control character: no header can carry it.")


def check_json_patch(path: ObjectPath, patch: JSONPatch) -> None:
    """Raise ``InvalidValueError`` for a JSON-Patch that reads or writes the password.

    Kinto would store the password in clear.
    """
    for operation in patch.operations:
        for pointer in (str(operation.get(name, "/")) for name in ("path", "from")):
            if pointer in ("", "/data") or pointer.startswith("/data/password"):
                raise InvalidValueError(
                    f"{path}: Kinto would store a password from a JSON-Patch in clear: "
                    "use account.password = … and save(), or patch(password=…)."
                )

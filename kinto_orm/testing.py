"""Helpers for tests of programs that use kinto_orm: cassettes without secrets. Fixtures are in ``pytest_plugin``."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

from kinto_orm.transport.reporting import HIDDEN, redact

Recorded: TypeAlias = Any
"""A request, or the dictionary of an answer, of vcrpy, which has no types."""

_SECRET_HEADER = re.compile(r"authori[sz]ation|cookie|token|secret|api-?key|credential|password", re.IGNORECASE)


def vcr_config() -> dict[str, Any]:
    """Return settings of ``vcrpy`` that keep credentials out of cassettes: ``vcr.VCR(**vcr_config())``.

    For ``pytest-recording``, return it from a fixture of the same name. Headers that authenticate, cookies, the
    credentials in a URL, and the values of JSON keys that look secret are replaced, in requests and in answers.
    https://vcrpy.readthedocs.io/en/latest/advanced.html
    """
    return {
        "before_record_request": _scrub_request,
        "before_record_response": _scrub_response,
        "decode_compressed_response": True,  # so that the body of an answer can be read
    }


def _scrub_request(request: Recorded) -> Recorded:
    request.uri = re.sub(r"(?<=//)[^/?#]*@", "", request.uri)
    request.body = _scrub_body(request.body)
    for name in [name for name in request.headers if _SECRET_HEADER.search(name)]:
        request.headers[name] = HIDDEN
    return request


def _scrub_response(response: Recorded) -> Recorded:
    # A copy: the caller gets this very dictionary, too.
    headers = {
        name: [HIDDEN] if _SECRET_HEADER.search(name) else values for name, values in response["headers"].items()
    }
    body = {**response["body"], "string": _scrub_body(response["body"].get("string"))}
    return {**response, "headers": headers, "body": body}


def _scrub_body(body: Recorded) -> Recorded:
    """Return the body without secrets; unchanged, where it is no JSON or holds none."""
    try:
        content = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return body
    clean = redact(content)
    return body if clean == content else json.dumps(clean).encode()

"""Many requests in one ``POST /batch``, and its answer to each.

https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Sequence

from kinto_orm.errors import ProtocolError
from kinto_orm.protocol.json_values import JSON, JSONObject, encode
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.patches import JSON_TYPE
from kinto_orm.protocol.responses import content, raise_for_status

DEFAULT_BATCH_LIMIT = 25
"""Kinto's own default, where the server does not say."""


def batch_limit(server_info: JSONObject) -> int | None:
    """Return how many entries the server takes in one batch; ``None`` where it sets no limit."""
    settings = server_info.get("settings")
    if not isinstance(settings, dict) or "batch_max_requests" not in settings:
        return DEFAULT_BATCH_LIMIT
    limit = settings["batch_max_requests"]
    if limit is None or limit == "":
        return None
    if type(limit) is not int or limit < 0:
        return DEFAULT_BATCH_LIMIT
    return limit or None


ATOMIC_CAPABILITY = "atomic_batch"
ATOMIC_HEADER = "X-Batch-Atomic"
ROLLED_BACK_HEADER = "x-batch-rolled-back"


def batch_request(
    entries: Sequence[JSONObject], *, lock: JSONObject | None = None, atomic: bool = False, attempt: int = 1
) -> Request:
    """Return the one request that carries the entries, which are encoded writes, in their order.

    ``lock`` goes before them; sent twice, it does no harm. ``atomic`` asks for all or nothing, of a server that has
    the capability ``atomic_batch``.
    """
    headers = {"Content-Type": JSON_TYPE, **({ATOMIC_HEADER: "true"} if atomic else {})}
    reads_only = is_guarded = True
    for entry in entries:
        if entry["method"] not in ("GET", "HEAD"):
            reads_only = False
            if "headers" not in entry:  # the only headers of an entry are its precondition
                is_guarded = False
    body = encode({"requests": entries if lock is None else [lock, *entries]})
    return Request(
        "POST", "/batch", headers=headers, body=body, is_guarded=is_guarded, reads_only=reads_only, attempt=attempt
    )


def is_rolled_back(response: Response) -> bool:
    """Return whether the server undid all of the batch, because one of its writes was refused."""
    return response.headers.get(ROLLED_BACK_HEADER) == "true"


def read_answers(response: Response, count: int) -> list[JSON]:
    """Return the answer to each of that many entries, in their order, as the server sent them.

    Raises the error of a batch that failed as a whole, and ``ProtocolError`` for another number of answers.
    """
    raise_for_status(response, "POST", "/batch")
    body = content(response, "POST /batch")
    answers = body.get("responses") if isinstance(body, dict) else None
    if not isinstance(answers, list) or len(answers) != count:
        found = len(answers) if isinstance(answers, list) else "no"
        raise ProtocolError(
            f"The batch of {count} requests was answered with {found} answers: what was stored is unknown."
        )
    return answers


def as_responses(answers: Sequence[JSON], whole: Response, *, with_headers: bool = False) -> list[Response]:
    """Return the answers in the response of a batch in detail; of what was stored without headers, unless asked for.

    Raises ``ProtocolError`` for an answer without a status.
    """
    return [_as_response(answer, index, whole, with_headers=with_headers) for index, answer in enumerate(answers)]


def _as_response(answer: JSON, index: int, whole: Response, *, with_headers: bool) -> Response:
    if not isinstance(answer, dict) or type(answer.get("status")) is not int:
        raise ProtocolError(f"Answer {index} of the batch has no status: what was stored is unknown.")
    # The object that was written is in the body; only refusals say something more in their headers.
    headers = answer.get("headers") if with_headers or answer["status"] >= 300 else None
    lower = {str(key).lower(): str(value) for key, value in headers.items()} if isinstance(headers, dict) else {}
    return Response(answer["status"], lower, content=answer.get("body"), is_repeated=whole.is_repeated, user=whole.user)


def count_void(responses: Sequence[Response]) -> int:
    """Return how many answers at the beginning do not hold: all up to the last 409.

    On PostgreSQL a 409 inside a batch rolls back everything before it, although that was already answered with 201;
    later entries are stored.
    """
    return max((index for index, one in enumerate(responses) if one.status == 409), default=-1) + 1

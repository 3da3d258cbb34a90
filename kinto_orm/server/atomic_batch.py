"""A plugin for Kinto: ``POST /batch`` with ``X-Batch-Atomic: true`` stores all of its requests, or none.

One line of settings adds it to a Kinto on PostgreSQL, where a batch is one transaction already::

    kinto.includes = kinto_orm.server.atomic_batch

By itself, Kinto keeps what succeeded beside a request that was refused. With the header, one refused request (a status
of 400 or more, so the 409 that has Kinto abort the first part of a batch, too) rolls back the whole batch, and the
answer carries ``X-Batch-Rolled-Back: true``. Listeners run as ever, before that is decided: what they write, such as
the history, is rolled back, too.

The capability ``atomic_batch`` is advertised where that holds. A server that cannot do it, for want of transactions,
refuses a batch with the header; it never ignores it.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol, cast

from kinto_orm.server.application import Configurator, Registry, import_extra
from kinto_orm.server.memory import backends_of, restorable, take_snapshot

CAPABILITY = "atomic_batch"
HEADER = "X-Batch-Atomic"
ROLLED_BACK = "X-Batch-Rolled-Back"

DESCRIPTION = f"A batch with the header {HEADER}: true is stored as a whole or not at all."
URL = "https://docs.kinto-storage.org/en/stable/api/1.x/batch.html"

TWEEN = "kinto_orm.server.atomic_batch.tween_factory"
# Inside of the transaction, around the views of errors and the listeners of events.
OVER, UNDER = "pyramid.tweens.excview_tween_factory", "pyramid_tm.tm_tween_factory"

Undo = Callable[[], None]
"""A function that takes back all writes since it was made."""


class Request(Protocol):
    """Pyramid's request, as far as it is used here."""

    method: str
    headers: Mapping[str, str]
    environ: Mapping[str, Any]
    registry: Registry
    tm: Any


class Response(Protocol):
    """Pyramid's response, as far as it is used here."""

    status_code: int
    headers: MutableMapping[str, str]
    body: bytes


Handler = Callable[[Request], Response]


def includeme(config: Configurator) -> None:
    """Add the plugin to a Kinto; Kinto calls this."""
    if can_undo(config.registry):
        config.add_api_capability(CAPABILITY, description=DESCRIPTION, url=URL)
    config.add_tween(TWEEN, under=UNDER, over=OVER)


def can_undo(registry: Registry) -> bool:
    """Return whether all writes of a request can be taken back until it ends."""
    if registry.settings.get("tm.manager_hook"):
        return False  # not the transactions that Kinto's sessions take part in
    return restorable(registry) or all(map(is_transactional, backends_of(registry)))


def is_transactional(backend: object) -> bool:
    """Return whether it is a backend on PostgreSQL, with Kinto's default of one transaction per request."""
    return getattr(getattr(backend, "client", None), "commit_manually", True) is False


def tween_factory(handler: Handler, registry: Registry) -> Handler:
    """Return the handler of all requests, which wraps the batches that ask for it; Pyramid calls this."""
    path = f"/{registry.route_prefix}/batch"

    def tween(request: Request) -> Response:
        asked = request.headers.get(HEADER, "false").strip().lower()
        if asked == "false" or (request.method, request.environ["PATH_INFO"]) != ("POST", path):
            return handler(request)
        if asked != "true":
            return refuse(f"{HEADER} is true or false, not {asked:.20}.")
        undo = begin(request)
        if undo is None:
            return refuse("This server cannot roll back a batch, so it takes none that has to be atomic.")
        return all_or_nothing(handler, request, undo)

    return tween


def begin(request: Request) -> Undo | None:
    """Return a function that undoes the batch, or ``None`` where that is impossible."""
    if not (can_undo(request.registry) and import_extra("pyramid_tm").is_tm_active(request)):
        return None
    restores = [take_snapshot(request.registry)] if restorable(request.registry) else []
    request.tm.get().addBeforeCommitHook(refuse_commit, (request,))

    def undo() -> None:
        for restore in restores:
            restore()
        # Not the setting tm.commit_veto, of which there is one only: the operator's, or none, stays in force.
        # https://docs.pylonsproject.org/projects/pyramid-tm/en/latest/#transaction-usage
        request.tm.doom()

    return undo


def refuse_commit(request: Request) -> None:
    """Refuse a commit in the middle of the batch, as ``/__flush__`` makes it: it could not be undone."""
    if import_extra("pyramid_tm").is_tm_active(request):
        raise RuntimeError("Something commits in the middle of a batch that has to be atomic.")


def all_or_nothing(handler: Handler, request: Request, undo: Undo) -> Response:
    """Return the answer to the batch, of which nothing is stored unless all of it can be."""
    try:
        response = handler(request)
    except BaseException:
        undo()
        raise
    if not all_succeeded(response):
        undo()
        response.headers[ROLLED_BACK] = "true"
    return response


def all_succeeded(response: Response) -> bool:
    """Return whether the answer says so; an unreadable one does not."""
    if response.status_code != 200:
        return False
    try:
        answers = json.loads(response.body)["responses"]
        return all(answer["status"] < 400 for answer in answers)
    except (ValueError, LookupError, TypeError):
        return False


def refuse(message: str) -> Response:
    """Return Kinto's answer to a bad request: nothing was done."""
    errors = import_extra("kinto.core.errors")
    bad_request = import_extra("pyramid.httpexceptions").HTTPBadRequest()
    return cast(Response, errors.http_error(bad_request, errno=errors.ERRORS.INVALID_PARAMETERS, message=message))

"""What whoever runs a server asks of it: whether it is well, which version it is, that it forgets everything.

https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kinto_orm.errors import DryRunError, ProtocolError, ServerError, UsageError
from kinto_orm.messages import Request, Response
from kinto_orm.protocol.answers import content, raise_for_status, read_document, read_object
from kinto_orm.protocol.endpoints import Kind, ObjectPath
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject
from kinto_orm.repository.capabilities import require_capability
from kinto_orm.state import ObjectState, Runner, Status


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How a server is: what it checked of itself, by name (``storage``, ``permission``, ``cache``, …)."""

    checks: Mapping[str, bool | None]
    """``None`` where there is nothing to check."""
    status: int = 200
    """200, or the 503 by which a load balancer knows."""

    @property
    def is_healthy(self) -> bool:
        """Whether all is well."""
        return self.status == 200 and not self.unhealthy

    @property
    def unhealthy(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(name for name, is_well in self.checks.items() if is_well is False)


def read_heartbeat() -> Flow[Heartbeat]:
    """How the server is; also where it is not well, which it says with a 503.

    Raises ``ServerError`` for a 503 of something in front of it.
    """
    request = Request("GET", "/__heartbeat__", takes_any_answer=True)
    response = yield request
    checks = _checks_of(response) if response.status == 503 else read_document(response, request)
    if checks is None:
        raise_for_status(response, request.method, request.path)
    return Heartbeat(checks or {}, response.status)


def _checks_of(response: Response) -> JSONObject | None:
    try:
        found = content(response, "GET /__heartbeat__")
    except ProtocolError:
        return None
    return found if isinstance(found, dict) and found and set(map(type, found.values())) <= _CHECKED else None


_CHECKED = {bool, type(None)}


def read_deployment() -> Flow[JSONObject]:
    """What the server's operator says of this installation."""
    request = Request("GET", "/__version__")
    try:
        return read_document((yield request), request)
    except ServerError as error:
        error.add_note("A Kinto without a version.json answers so: server_info()['project_version'] is Kinto's own.")
        raise


def flush(runner: Runner, *, everything: bool) -> Flow[None]:
    """Removes everything that the server has, of everybody."""
    runner.refuse_staging("flush()")
    if not everything:
        raise UsageError(
            "flush() removes all objects, permissions and accounts of everybody on that server, history included, "
            "and nothing brings them back: say flush(everything=True)."
        )
    yield from require_capability("flush_endpoint", "flush()", runner)
    request = Request("POST", "/__flush__")
    try:
        response = yield request
    except DryRunError:
        return  # it is planned
    read_document(response, request)


def read_personal_bucket(runner: Runner) -> Flow[ObjectState]:
    """The bucket that ``default`` stands for, by its real id. Kinto makes it where it is not there."""
    yield from require_capability("default_bucket", "personal_bucket()", runner)
    path = ObjectPath(Kind.BUCKET, ("default",))
    response = yield Request("GET", str(path))
    stored = read_object(response, path, "GET")
    id = content(response, f"GET {path}")["data"]["id"]
    return ObjectState(ObjectPath(Kind.BUCKET, (id,)), Status.LOADED).after(stored)

"""Server administration: heartbeat, version, flush, monitoring; and the user's personal bucket.

https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kinto_orm.client.runner import ClientRunner
from kinto_orm.errors import DryRunError, ProtocolError, ServerError, UsageError
from kinto_orm.models.kinds import Bucket
from kinto_orm.models.loading import reference
from kinto_orm.plugins.changesets import MONITOR, Changeset, changeset_query, read_changeset
from kinto_orm.protocol.json_values import JSONObject, TimestampInput
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paging import check_flags
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id
from kinto_orm.protocol.responses import content, raise_for_status, read_document, read_object
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import require_capability
from kinto_orm.repository.state import FlowRunner, ObjectState, Status
from kinto_orm.unit_of_work.unit_of_work import refuse_staging


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The server's checks of itself, by name (``storage``, ``permission``, ``cache``, …)."""

    checks: Mapping[str, bool | None]
    """``None`` for a check that does not apply."""
    status: int = 200
    """200, or the 503 that tells load balancers."""

    @property
    def is_healthy(self) -> bool:
        """Whether no check failed."""
        return self.status == 200 and not self.unhealthy

    @property
    def unhealthy(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(name for name, is_well in self.checks.items() if is_well is False)


def read_heartbeat() -> Flow[Heartbeat]:
    """Return the heartbeat; the 503 of an unhealthy server is a heartbeat, too.

    Raises ``ServerError`` for a 503 of a proxy in front of the server.
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
    """Return the operator's description of this installation."""
    request = Request("GET", "/__version__")
    try:
        return read_document((yield request), request)
    except ServerError as error:
        error.add_note("A Kinto without version.json answers so: server_info()['project_version'] is Kinto's version.")
        raise


def flush(runner: FlowRunner, *, everything: bool) -> Flow[None]:
    """Remove all objects of all users from the server."""
    refuse_staging(runner, "flush()")
    check_flags(everything=everything)
    if not everything:
        raise UsageError(
            "flush() removes all objects, permissions and accounts of all users on that server, history included, "
            "and nothing brings them back: say flush(everything=True)."
        )
    yield from require_capability("flush_endpoint", "flush()", runner)
    request = Request("POST", "/__flush__")
    try:
        response = yield request
    except DryRunError:
        return  # the request is planned
    read_document(response, request)
    runner.__kinto_locks__.clear()


def read_personal_bucket(runner: FlowRunner) -> Flow[Bucket]:
    """Return the user's personal bucket, with its real id. Kinto creates it where it is missing."""
    yield from require_capability("default_bucket", "personal_bucket()", runner)
    path = ObjectPath(Kind.BUCKET, ("default",))
    response = yield Request("GET", str(path))
    stored = read_object(response, path, "GET")
    id = content(response, f"GET {path}")["data"]["id"]
    bucket = reference(Bucket, id, runner)
    bucket.__kinto_apply_state__(ObjectState(bucket.__kinto_path__(), Status.LOADED).after(stored), None)
    return bucket


class AdminMixin(ClientRunner):
    """The verbs of a client that administer its server."""

    def heartbeat(self) -> Heartbeat:
        """Return the server's heartbeat; it is asked for only once, even where it is unhealthy.

        Raises ``TransportError`` where no answer arrives, ``ServerError`` where a proxy answers for the server.
        https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html#get-heartbeat
        """
        return self.run(read_heartbeat())

    async def aheartbeat(self) -> Heartbeat:
        """Like :meth:`heartbeat`."""
        return await self.arun(read_heartbeat())

    def version(self) -> JSONObject:
        """Return the operator's description of this installation (``name``, ``version``, ``commit``, …), unchanged.

        Raises ``ServerError`` where there is none: Kinto's version is ``server_info()["project_version"]``.
        https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html#get-version
        """
        return self.run(read_deployment())

    async def aversion(self) -> JSONObject:
        """Like :meth:`version`."""
        return await self.arun(read_deployment())

    def flush(self, *, everything: bool = False) -> None:
        """Remove the data of all users: objects, history, permissions, accounts. This cannot be undone.

        Raises ``UsageError`` without ``everything=True``. Needs the capability ``flush_endpoint``, which is for tests.
        After a lost answer the request is not sent again.
        https://docs.kinto-storage.org/en/stable/api/1.x/flush.html
        """
        return self.run(flush(self, everything=everything))

    async def aflush(self, *, everything: bool = False) -> None:
        """Like :meth:`flush`."""
        return await self.arun(flush(self, everything=everything))

    def monitor_changes(
        self,
        *,
        since: TimestampInput | None = None,
        bucket: str | None = None,
        collection: str | None = None,
        bust_cache: bool = False,
    ) -> Changeset:
        """Return the collections that changed, of all or of these: ``changes`` has an entry for each, newest first.

        An entry has ``bucket``, ``collection`` and ``last_modified``, the timestamp of the collection's changeset.
        Needs the capability ``changes``. A server that does not go back as far as ``since`` returns all collections.
        https://remote-settings.readthedocs.io/en/latest/client-specifications.html
        """
        return self.run(self._monitor(since, bucket, collection, bust_cache=bust_cache))

    async def amonitor_changes(
        self,
        *,
        since: TimestampInput | None = None,
        bucket: str | None = None,
        collection: str | None = None,
        bust_cache: bool = False,
    ) -> Changeset:
        """Like :meth:`monitor_changes`."""
        return await self.arun(self._monitor(since, bucket, collection, bust_cache=bust_cache))

    def _monitor(
        self, since: TimestampInput | None, bucket: str | None, collection: str | None, *, bust_cache: bool
    ) -> Flow[Changeset]:
        given = {"bucket": bucket, "collection": collection}
        filters = {name: None if id is None else check_id(id, name) for name, id in given.items()}
        query = changeset_query(since, None, bust_cache=bust_cache, filters=filters)
        return read_changeset(MONITOR, query, "monitor_changes()", self)

    def personal_bucket(self) -> Bucket:
        """Return the user's personal bucket (``"default"``), loaded, with its real id; Kinto creates it if missing.

        Needs the capability ``default_bucket``; raises ``UnauthorizedError`` without credentials.
        https://docs.kinto-storage.org/en/stable/api/1.x/buckets.html#personal-bucket-default
        """
        return self.run(read_personal_bucket(self))

    async def apersonal_bucket(self) -> Bucket:
        """Like :meth:`personal_bucket`."""
        return await self.arun(read_personal_bucket(self))

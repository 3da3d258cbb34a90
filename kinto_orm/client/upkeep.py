"""The verbs of a client for whoever runs a server, and the bucket that every user has.

https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
"""

from __future__ import annotations

from kinto_orm.client.running import FlowRunner
from kinto_orm.models import Bucket, bucket_reference
from kinto_orm.protocol.endpoints import check_id
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.timestamps import TimestampInput
from kinto_orm.protocol.values import JSONObject
from kinto_orm.repository import (
    MONITOR,
    Changeset,
    Heartbeat,
    changeset_query,
    flush,
    read_changeset,
    read_deployment,
    read_heartbeat,
    read_personal_bucket,
)


class Upkeep(FlowRunner):
    """The part of a client that looks after its server."""

    def heartbeat(self) -> Heartbeat:
        """How the server is, check by check; a server that is not well is an answer too, and asked once only.

        Raises ``TransportError`` where there is none, ``ServerError`` where something in front of it answers.
        https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html#get-heartbeat
        """
        return self.run(read_heartbeat())

    async def aheartbeat(self) -> Heartbeat:
        """Like :meth:`heartbeat`."""
        return await self.arun(read_heartbeat())

    def version(self) -> JSONObject:
        """What the server's operator says of this installation (``name``, ``version``, ``commit``, …), as it is.

        Raises ``ServerError`` where nothing is said: Kinto's own version is ``server_info()["project_version"]``.
        https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html#get-version
        """
        return self.run(read_deployment())

    async def aversion(self) -> JSONObject:
        """Like :meth:`version`."""
        return await self.arun(read_deployment())

    def flush(self, *, everything: bool = False) -> None:
        """Removes all that the server has, of everybody: objects, history, permissions, accounts. Nothing undoes it.

        Without ``everything=True`` it raises ``UsageError``. Needs the capability ``flush_endpoint``, which is for
        tests; never sent again where its answer got lost.
        https://docs.kinto-storage.org/en/stable/api/1.x/flush.html
        """
        return self.run(self._flush(everything=everything))

    async def aflush(self, *, everything: bool = False) -> None:
        """Like :meth:`flush`."""
        return await self.arun(self._flush(everything=everything))

    def _flush(self, *, everything: bool) -> Flow[None]:
        yield from flush(self, everything=everything)
        self._connection.locks.clear()

    def monitor_changes(
        self,
        *,
        since: TimestampInput | None = None,
        bucket: str | None = None,
        collection: str | None = None,
        bust_cache: bool = False,
    ) -> Changeset:
        """Which collections changed, of all or of these, and when: ``changes`` has an entry for each, newest first.

        Each has ``bucket``, ``collection`` and ``last_modified``, the timestamp that its changeset will have. Needs the
        capability ``changes``. A server that does not go back as far as ``since`` gives all there is.
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
        """The bucket that ``"default"`` stands for, loaded, by its real id; Kinto makes it where it is not there.

        Needs the capability ``default_bucket``; raises ``UnauthorizedError`` without credentials.
        https://docs.kinto-storage.org/en/stable/api/1.x/buckets.html#personal-bucket-default
        """
        return self.run(self._personal_bucket())

    async def apersonal_bucket(self) -> Bucket:
        """Like :meth:`personal_bucket`."""
        return await self.arun(self._personal_bucket())

    def _personal_bucket(self) -> Flow[Bucket]:
        state = yield from read_personal_bucket(self)
        bucket = bucket_reference(state.path.id, self)
        bucket.__kinto_adopt__(state, None)
        return bucket

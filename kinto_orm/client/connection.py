"""The options of a client, and the connection that clients with equal options share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from kinto_orm.errors import ConfigurationError, InvalidTypeError
from kinto_orm.protocol.json_values import JSONObject, say_value
from kinto_orm.protocol.messages import Transport
from kinto_orm.protocol.paths import ObjectPath
from kinto_orm.repository.reads import user_id
from kinto_orm.repository.state import OnInvalid
from kinto_orm.server import EmbeddedServer
from kinto_orm.transport.auth import take_credentials
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.reporting import Alerts


@dataclass(frozen=True, slots=True)
class Options(WireOptions):
    """The options of a client: those of its transport, and its own."""

    bucket: str = "default"
    collection: str | None = None
    dry_mode: bool = False
    strict_retry: bool = False
    on_invalid: OnInvalid = "raise"
    async_transport: None = None
    lacks: frozenset[str] = frozenset()
    """The options that a pickle left out because they may hold secrets, until they are given again."""

    def __post_init__(self) -> None:
        WireOptions.__post_init__(self)  # super() does not work in a class with slots=True
        if self.async_transport is not None:
            raise ConfigurationError(
                "There is no async_transport any more: leave it out. Threads send for the verbs that are awaited, up "
                "to 32 requests at a time. A call that is cancelled sends nothing more; a request that is on its way "
                "goes on to its end in its thread, and the server may apply it: the next save() of the same object "
                "finds out."
            )

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """Return the options with these changes; raise ``ConfigurationError`` for unknown names."""
        unknown = set(changes) - {one.name for one in fields(self) if one.name != "lacks"}
        if unknown:
            raise ConfigurationError(f"A client has no option {', '.join(sorted(unknown))}.")
        if "server_url" in changes and take_credentials(changes["server_url"])[1] is not None:
            changes = {"auth": None, **changes}  # credentials in the URL replace the others
        # The user's session may hold credentials.
        given = {*changes, "auth"} if "session" in changes else set(changes)
        return replace(self, **changes, lacks=self.lacks - given)

    def without_secrets(self) -> Options:
        """Return the options that a pickle keeps."""
        lacks = {name for name in ("auth", "headers", "proxies") if getattr(self, name)}
        if self.session is not None:
            lacks.add("auth")
        kept = replace(self, on_request=None, on_response=None, on_retry=None)  # functions cannot always be pickled
        return replace(kept, auth=None, session=None, headers=None, proxies=None, lacks=self.lacks | lacks)

    def connects_like(self, other: Options) -> bool:
        """Return whether both can share their connections."""
        return all(getattr(self, one.name) is getattr(other, one.name) for one in fields(WireOptions))

    def transport(self, server: EmbeddedServer | None) -> HttpTransport:
        """Return a transport with these options."""
        return HttpTransport(self, adapter=None if server is None else server.adapter())


def started_server(
    data_dir: str | os.PathLike[str] | None, server: EmbeddedServer | None, settings: Mapping[str, Any] | None
) -> EmbeddedServer:
    """Return the given server, or start one."""
    if server is not None and not isinstance(cast(object, server), EmbeddedServer):
        raise InvalidTypeError(f"server is an EmbeddedServer, not {say_value(server)}.")
    if settings is not None and not isinstance(cast(object, settings), Mapping):
        raise InvalidTypeError(f"settings is a mapping of Kinto's settings, not {say_value(settings)}.")
    if server is not None:
        if data_dir is not None or settings:
            raise ConfigurationError("server= is running already: data_dir and settings= cannot change it.")
        return server
    chosen = dict(settings or {})
    return EmbeddedServer.memory(**chosen) if data_dir is None else EmbeddedServer.postgres(data_dir, **chosen)


@dataclass(slots=True, eq=False, repr=False)
class Connection:
    """The parts that clones share: the transport, its embedded server, and facts about the server."""

    transport: Transport
    server: EmbeddedServer | None = None
    server_info: JSONObject | None = None
    locks: set[ObjectPath] = field(default_factory=set)
    """The locks whose objects are known to exist."""
    alerts: Alerts = field(default_factory=Alerts)
    writes: int = 0
    """The number of writes that were sent."""

    @property
    def user(self) -> str | None:
        """The principal of the client's user; ``None`` where the server was not asked, or knows none."""
        return user_id(self.server_info or {})

    def fitting(self, mine: Options, others: Options) -> Connection:
        """Return a connection for other options: this one, where the changes do not concern it."""
        if others.connects_like(mine):
            return self
        if self.server is not None and others.server_url != mine.server_url:
            raise ConfigurationError("A client of an embedded server cannot move to another server: make a new one.")
        return Connection(others.transport(self.server), self.server)

"""The options of a client, and the connection that clients with equal options share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import requests
from requests.utils import get_environ_proxies

from kinto_orm.errors import ConfigurationError, InvalidTypeError, UsageError
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import DownloadOptions, Response, Target, Transport
from kinto_orm.protocol.paths import ObjectPath
from kinto_orm.repository.state import OnInvalid
from kinto_orm.server import EmbeddedServer
from kinto_orm.transport.auth import AuthInput, parse_auth
from kinto_orm.transport.files import HostOptions, download, holds
from kinto_orm.transport.http import MAX_RESPONSE_BYTES, HttpTransport, merge_credentials
from kinto_orm.transport.reporting import Alerts, RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.transport.retry import OnBackoff, RetryPolicy


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a client; times are seconds."""

    server_url: str
    auth: AuthInput = field(default=None, repr=False)
    bucket: str = "default"
    collection: str | None = None
    retry: int = 3
    retry_after: float | None = None
    timeout: Any = (5, 30)
    deadline: float = 120
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    verify: Any = True
    cert: Any = None
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    trust_env: bool = False
    allow_insecure: bool = False
    max_response_bytes: int = MAX_RESPONSE_BYTES
    session: Any = field(default=None, repr=False)
    dry_mode: bool = False
    on_request: Callable[[RequestEvent], object] | None = field(default=None, repr=False)
    on_response: Callable[[ResponseEvent], object] | None = field(default=None, repr=False)
    on_retry: Callable[[RetryEvent], object] | None = field(default=None, repr=False)
    log_bodies: bool = False
    on_backoff: OnBackoff = "wait"
    strict_retry: bool = False
    on_invalid: OnInvalid = "raise"
    async_transport: None = None
    lacks: frozenset[str] = frozenset()
    """The options that a pickle left out because they may hold secrets, until they are given again."""

    def __post_init__(self) -> None:
        if self.async_transport is not None:
            raise ConfigurationError(
                "There is no async_transport any more: leave it out. Threads send for the verbs that are awaited, up "
                "to 32 requests at a time. A call that is cancelled sends nothing more; a request that is on its way "
                "goes on to its end in its thread, and the server may apply it: the next save() of the same object "
                "finds out."
            )
        # From here on credentials are in an object that does not show them.
        url, auth = merge_credentials(self.server_url, self.auth)
        object.__setattr__(self, "server_url", url)
        object.__setattr__(self, "auth", parse_auth(auth))

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """Return the options with these changes; raise ``ConfigurationError`` for unknown names."""
        unknown = set(changes) - {one.name for one in fields(self) if one.name != "lacks"}
        if unknown:
            raise ConfigurationError(f"A client has no option {', '.join(sorted(unknown))}.")
        if "server_url" in changes and merge_credentials(changes["server_url"], None)[1] is not None:
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
        own = ("bucket", "collection", "dry_mode", "on_invalid", "strict_retry", "lacks")
        return all(getattr(self, one.name) is getattr(other, one.name) for one in fields(self) if one.name not in own)

    def transport(self, server: EmbeddedServer | None) -> HttpTransport:
        """Return a transport with these options."""
        self._check_types()
        return HttpTransport(
            self.server_url,
            adapter=server.adapter() if server is not None else None,
            policy=RetryPolicy(retries=self.retry, retry_after=self.retry_after, on_backoff=self.on_backoff),
            **{name: getattr(self, name) for name in _WIRE_OPTIONS},
        )

    def fetch(
        self,
        url: str,
        target: Target,
        size: int | None,
        sha256: str | None,
        chosen: DownloadOptions,
        *,
        is_stopped: Callable[[], bool],
    ) -> Response:
        """Put a file of any host there; it is given none of these options but limits and the way to the network.

        A file that is there already stays, unless ``overwrite`` is chosen; another one is a ``UsageError``.
        """
        may_be_there = not chosen.overwrite or chosen.keeps_same
        if may_be_there and isinstance(target, (str, os.PathLike)) and holds(target, size, sha256):
            return Response(200)
        if chosen.max_bytes is not None and size is not None and size > chosen.max_bytes:
            raise UsageError(f"The file has {size} bytes, more than max_bytes={chosen.max_bytes}: it was not fetched.")
        found = get_environ_proxies(url) if self.trust_env else {}
        options = HostOptions(
            self.timeout,
            self.retry,
            self.verify,
            {**found, **(self.proxies or {})},
            self.deadline,
            chosen.max_bytes,
            chosen.allow_hosts,
            self.server_url,
        )
        download(
            url, target, size=size, sha256=sha256, options=options, is_stopped=is_stopped, overwrite=chosen.overwrite
        )
        return Response(200)

    def _check_types(self) -> None:
        if self.session is not None and not isinstance(self.session, requests.Session):
            raise ConfigurationError(f"session is a requests.Session, not of type {type(self.session).__name__}.")
        for name in ("on_request", "on_response", "on_retry"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ConfigurationError(f"{name} is a function that takes an event, not {hook!r:.60}.")
        proxies = cast(object, {} if self.proxies is None else self.proxies)
        if not isinstance(proxies, Mapping) or not all(isinstance(url, str) for url in proxies.values()):
            # Without the value: a proxy's URL may hold its password.
            raise ConfigurationError('proxies is a mapping of schemes to URLs, as in {"https": "http://proxy:3128"}.')


_WIRE_OPTIONS = frozenset(HttpTransport.__init__.__kwdefaults__ or ()) & {one.name for one in fields(Options)}
"""The options that the transport takes under the same names."""


def started_server(
    data_dir: str | os.PathLike[str] | None, server: EmbeddedServer | None, settings: Mapping[str, Any] | None
) -> EmbeddedServer:
    """Return the given server, or start one."""
    if server is not None and not isinstance(cast(object, server), EmbeddedServer):
        raise InvalidTypeError(f"server is an EmbeddedServer, not {server!r:.60}.")
    if settings is not None and not isinstance(cast(object, settings), Mapping):
        raise InvalidTypeError(f"settings is a mapping of Kinto's settings, not {settings!r:.60}.")
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
        user = (self.server_info or {}).get("user")
        id = user.get("id") if isinstance(user, dict) else None
        return id if isinstance(id, str) else None

    def fitting(self, mine: Options, others: Options) -> Connection:
        """Return a connection for other options: this one, where the changes do not concern it."""
        if others.connects_like(mine):
            return self
        if self.server is not None and others.server_url != mine.server_url:
            raise ConfigurationError("A client of an embedded server cannot move to another server: make a new one.")
        return Connection(others.transport(self.server), self.server)

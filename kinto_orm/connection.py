"""The options of a client, and what clients with the same ones share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kinto_orm.errors import ConfigurationError
from kinto_orm.messages import Transport
from kinto_orm.protocol.values import JSONObject
from kinto_orm.server import EmbeddedServer
from kinto_orm.state import OnInvalid
from kinto_orm.transport import AuthInput, HttpTransport, RequestSent, RetryPolicy


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
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    trust_env: bool = False
    session: Any = field(default=None, repr=False)
    dry_mode: bool = False
    on_request: Callable[[RequestSent], object] | None = field(default=None, repr=False)
    on_invalid: OnInvalid = "raise"
    lacks: frozenset[str] = frozenset()
    """The names of options that a pickle left out because they may hold secrets, and that were not given again."""

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """The options with these changes. Raises ``ConfigurationError`` for names that are none."""
        unknown = set(changes) - {one.name for one in fields(self) if one.name != "lacks"}
        if unknown:
            raise ConfigurationError(f"A client has no option {', '.join(sorted(unknown))}.")
        # A session of the user's may have credentials of its own.
        given = {*changes, "auth"} if "session" in changes else set(changes)
        return replace(self, **changes, lacks=self.lacks - given)

    def without_secrets(self) -> Options:
        """What a pickle keeps."""
        lacks = {name for name in ("auth", "headers", "proxies") if getattr(self, name)}
        if self.session is not None:
            lacks.add("auth")
        return replace(
            self, auth=None, session=None, headers=None, proxies=None, on_request=None, lacks=self.lacks | lacks
        )

    def connects_like(self, other: Options) -> bool:
        """Whether both can share their connections."""
        own = ("bucket", "collection", "dry_mode", "on_invalid", "lacks")
        return all(getattr(self, one.name) is getattr(other, one.name) for one in fields(self) if one.name not in own)

    def transport(self, server: EmbeddedServer | None) -> HttpTransport:
        """A transport with these options."""
        return HttpTransport(
            self.server_url,
            auth=self.auth,
            timeout=self.timeout,
            deadline=self.deadline,
            headers=self.headers,
            verify=self.verify,
            proxies=self.proxies,
            trust_env=self.trust_env,
            session=self.session,
            adapter=server.adapter() if server is not None else None,
            policy=RetryPolicy(retries=self.retry, retry_after=self.retry_after),
            on_request=self.on_request,
        )


@dataclass(slots=True)
class Connection:
    """What clones share: the transport, the embedded server behind it, and what the server said of itself."""

    transport: Transport
    server: EmbeddedServer | None = None
    server_info: JSONObject | None = None

    def fitting(self, mine: Options, others: Options) -> Connection:
        """The connection for other options than mine: this one, where they make no difference to it."""
        if others.connects_like(mine):
            return self
        if self.server is not None and others.server_url != mine.server_url:
            raise ConfigurationError("A client of an embedded server cannot move to another server: make a new one.")
        return Connection(others.transport(self.server), self.server)

"""What the server must be able to do, asked before anything else is.

https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
"""

from __future__ import annotations

from kinto_orm.errors import CapabilityMissingError
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject
from kinto_orm.state import Runner

_REMEDIES = {
    "accounts": "add kinto.plugins.accounts to its kinto.includes",
    "attachments": "install kinto-attachment there and add kinto_attachment to its kinto.includes",
    "changes": "install kinto-remote-settings there and add kinto_remote_settings.changes to its kinto.includes",
    "default_bucket": "add kinto.plugins.default_bucket to its kinto.includes",
    "flush_endpoint": "add kinto.plugins.flush to its kinto.includes",
    "history": "add kinto.plugins.history to its kinto.includes",
    "permissions_endpoint": "set kinto.experimental_permissions_endpoint = true there",
    "signer": "install kinto-remote-settings there and add kinto_remote_settings.signer to its kinto.includes",
}
"""What brings each capability to a server."""


def require_capability(name: str, what: str, runner: Runner) -> Flow[JSONObject]:
    """What the server says of the capability, which ``what`` rests on.

    Raises ``CapabilityMissingError``, which names the plugin, where the server does not advertise it.
    """
    for refresh in (False, True):  # it may have been added since the server was asked
        info = yield from runner.describe_server(refresh=refresh)
        found = info.get("capabilities", {}).get(name)
        if isinstance(found, dict):
            return found
    raise CapabilityMissingError(
        f"{what} needs the capability {name!r}, which the server does not have: {_REMEDIES[name]}. Nothing was sent."
    )


def require_kind(kind: Kind, runner: Runner) -> Flow[None]:
    """Nothing, where the server has objects of this kind; raises ``CapabilityMissingError`` where it does not."""
    if kind.capability is not None:
        yield from require_capability(kind.capability, f"An {kind.value}", runner)

"""Dry mode: the requests that a dry client keeps instead of sending them, and its plan."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kinto_orm.errors import DryRunError
from kinto_orm.protocol.json_values import JSONObject, decode
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paths import ObjectPath
from kinto_orm.unit_of_work.staging import Plan, PlannedWrite

logger = logging.getLogger("kinto_orm")


@dataclass(slots=True)
class DryRun:
    """The writes that a dry client and its dry clones kept instead of sending them."""

    requests: list[Request] = field(default_factory=list)
    locks: set[ObjectPath] = field(default_factory=set)
    """The locks whose objects the kept writes create."""

    def keep(self, request: Request) -> DryRunError:
        """Keep the request and return the error that its flow gets in place of an answer."""
        self.requests.append(request)
        logger.info("(dry mode) %s %s", request.method, request.target)
        return DryRunError(
            f"{request.method} {request.path}: dry_mode does not send it, and the call needs its answer. "
            "It is in client.plan()."
        )

    def plan(self) -> Plan:
        """Return the kept requests, write by write."""
        return Plan(tuple(_planned(self.requests)))

    def clear(self) -> None:
        """Forget the kept requests."""
        self.requests.clear()
        self.locks.clear()


def _planned(requests: Iterable[Request]) -> Iterator[PlannedWrite]:
    batch = 0
    for request in list(requests):
        whole = _as_json(request)
        if request.path != "/batch":
            yield PlannedWrite(None, None, whole)
            continue
        batch += 1
        # The headers of a batch hold for each of its writes.
        outer = {name: value for name, value in whole.get("headers", {}).items() if name != "Content-Type"}
        for entry in whole["body"]["requests"]:
            headers = {**outer, **entry.get("headers", {})}
            yield PlannedWrite(None, None, {**entry, "headers": headers} if headers else entry, batch)


def _as_json(request: Request) -> JSONObject:
    shown: JSONObject = {"method": request.method, "path": request.target}
    if request.headers:
        shown["headers"] = dict(request.headers)
    if request.body is not None:
        content_type = request.headers.get("Content-Type", "json")
        is_json = "json" in content_type
        what = f"{request.method} {request.path}"
        shown["body"] = decode(request.body, what) if is_json else f"{len(request.body)} bytes of {content_type}"
    return shown

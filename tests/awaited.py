"""A transport whose requests are awaited, for tests that are written as if they were not."""

from __future__ import annotations

import asyncio

from kinto_orm.protocol.messages import Request, Response
from kinto_orm.transport.http import HttpTransport

WAYS = ("pool", "requests", "threads")
"""The senders: the pool of ``requests``; ``requests``, once a program has patched it; a thread, for callers that await.
"""


class Awaited(HttpTransport):
    """Does everything in one event loop, which is that of the runner."""

    runner: asyncio.Runner

    def send(self, request: Request) -> Response:
        return self.runner.run(self.asend(request))

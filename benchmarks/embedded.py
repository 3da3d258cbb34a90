"""A real Kinto as a process, on a socket, in memory; prints its URL and ends with its input."""

from __future__ import annotations

import sys

from kinto_orm.server import EmbeddedServer, listening

if __name__ == "__main__":
    with EmbeddedServer.memory() as server, listening(server) as url:
        print(url, flush=True)
        sys.stdin.read()

"""The server of the soak test, as a process: Kinto on an embedded PostgreSQL that keeps its data.

``python kinto_with_data.py FOLDER PORT``: prints its URL, and ends in order when its input does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kinto_orm.server import EmbeddedServer, ServerThread


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    with EmbeddedServer.postgres(folder) as server, ServerThread(server, port=port) as thread:
        print(thread.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

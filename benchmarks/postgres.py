"""A real Kinto on PostgreSQL, in several processes behind one socket, as a larger site runs it.

Prints its URL and that of its database, and ends with its input. The processes share the socket: a free one accepts the
next connection. Unlike in the embedded server, no lock of ours keeps their calls apart.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kinto_orm.server.application import Setting, build_application, drop_connections, merge_settings, migrate
from kinto_orm.server.cluster import Cluster
from kinto_orm.server.embedded import postgres_settings

PROCESSES = 2
THREADS = 4


def main(folder: Path) -> None:
    cluster = Cluster(folder)
    defaults = {**postgres_settings(cluster), "storage_pool_size": THREADS}
    # Without the history, whose list is one for each bucket: there writers of several collections meet.
    plain = {"includes": "", "multiauth.policies": "basicauth"}
    settings = merge_settings(plain, flush=False, defaults=defaults)
    app = build_application(settings)
    migrate(app)
    drop_connections(app)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        children = [_fork(listener, settings) for _ in range(PROCESSES)]
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1 {cluster.url()}", flush=True)
        sys.stdin.read()
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    cluster.stop()


def _fork(listener: socket.socket, settings: Mapping[str, Setting]) -> int:
    child = os.fork()
    if child == 0:
        from waitress.server import create_server

        create_server(build_application(settings), sockets=[listener], threads=THREADS).run()
        os._exit(0)
    return child


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kinto-orm-bench-") as temporary:
        main(Path(temporary))

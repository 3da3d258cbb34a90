"""A host of files, as a Kinto with attachments has one."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any


@dataclass
class FileHost:
    """Serves a folder on a port of this machine, and remembers what it was asked."""

    folder: Path
    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Return the files in the folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the folder of a host."""

    def __init__(self, host: FileHost, *args: Any) -> None:
        self.host = host
        super().__init__(*args, directory=str(host.folder))

    def do_GET(self) -> None:
        self.host.asked.append((self.path, dict(self.headers)))
        super().do_GET()

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def serve_files(folder: Path) -> Generator[FileHost]:
    """Serve the folder while the block lasts."""
    host = FileHost(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, host)) as server:
        host.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield host
        server.shutdown()

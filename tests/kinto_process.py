"""One Kinto in a process of its own: run by ``servers.py``, whose settings it reads from its standard input.

It prints its port, and ends when its input does, so it never outlives who started it. It imports nothing of ours: what
is ours comes by the settings, as on anybody's server.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module


def main() -> None:
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_input, daemon=True).start()
    app = import_module("kinto").main({}, **given["settings"])
    server = import_module("waitress").create_server(app, host="127.0.0.1", port=0, threads=given["threads"])
    sys.stdout.write(f"{server.effective_port}\n")
    sys.stdout.flush()
    server.run()


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()

"""One Kinto as a process: run by ``servers.py``, whose settings it reads from its standard input.

It prints its port, and ends when its input does, so it never outlives its parent. It imports nothing of ours: our parts
are named in the settings, as on any server.
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

"""The verbs about servers: ``info``, ``serve``."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from kinto_orm import GuardError
from kinto_orm.cli.options import Command, add_connection, connect
from kinto_orm.cli.screen import Exit, Screen, escaped
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.server import EmbeddedServer, serve
from kinto_orm.server.application import PREFIX, merge_settings, openings
from kinto_orm.server.embedded import is_local

CLOSING = ("--set multiauth.policies=account", "--set account_create_principals=", "--set cors_origins=")
"""The options that close what is open by default."""
LONGEST_ROW = 500
"""The characters of a server's answer that are shown of each row."""


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``kinto-orm serve``."""
    parser.add_argument("--data", metavar="DIR", help="keep the data there, in PostgreSQL; without it, in memory only")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8888, help="0 is any free one (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="let other machines in, by a --host that they reach")
    parser.add_argument(
        *("--set", "-S"),
        type=parse_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of Kinto, such as paginate_by=5; may be repeated",
    )


def parse_setting(text: str) -> tuple[str, str]:
    """Return name and value of a setting, which Kinto reads as it reads those of an ini file."""
    name, equals, value = text.partition("=")
    if not (equals and name.strip()):
        raise argparse.ArgumentTypeError(f"a setting is NAME=VALUE, not {text!r}")
    return name.strip(), value.strip()


def run_serve(options: argparse.Namespace, screen: Screen) -> Exit:
    """Serve until Ctrl-C or SIGTERM.

    Raises ``GuardError`` where other machines would reach the server and ``--open`` does not say so, and
    ``ConnectionFailedError`` where its PostgreSQL died and could not be started again.
    """
    settings = {f"{PREFIX}{name.removeprefix(PREFIX)}": value for name, value in options.set}
    is_open = not is_local(options.host)
    found = "; ".join(openings(merge_settings(settings, flush=False, defaults={})))
    if is_open and not options.open:
        raise GuardError(
            f"Other machines reach a server at --host {options.host}. This one is open to them: {found}. Add --open "
            f"if you mean it. To close it, create the accounts first, then serve with {' '.join(CLOSING)} and put a "
            "proxy with TLS in front."
        )
    keeps = options.data is not None
    where = f"data in {options.data}" if keeps else "in memory: nothing is kept"
    users = f"Open to other machines: {found}." if is_open else "Any name:password is a user."

    def announce(url: str) -> None:
        print(f"Kinto is running at {url} ({where}).\n{users} Stop it with Ctrl-C.", flush=True)

    make = partial(EmbeddedServer.postgres, options.data) if keeps else EmbeddedServer.memory
    with interruptible(), make(**settings) as server:
        serve(server, options.host, options.port, on_ready=announce)
    return Exit.DONE


def add_info_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``kinto-orm info``."""
    add_connection(parser, bucket=False, collection=False)


def run_info(options: argparse.Namespace, screen: Screen) -> Exit:
    """Show the server's description of itself, and the user that it knows by the credentials.

    https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
    """
    with connect(options, screen) as client:
        info = client.server_info()
        if options.json:
            screen.show(info, indent=2)
        else:
            for row in described(info, client.server_url):
                if screen.is_for_people:
                    screen.hang(row, 14)
                else:
                    screen.say(row)
    if options.auth is None or "user" in info:
        return Exit.DONE
    screen.complain("The server does not know these credentials: check --auth, or KINTO_AUTH.")
    return Exit.SERVER


def described(info: JSONObject, url: str) -> Iterator[str]:
    """Yield the root of a server, line by line, for people; a server that is no Kinto may say anything there."""
    user, settings, capabilities = (part(info, name) for name in ("user", "settings", "capabilities"))
    principals = user.get("principals")
    limits = {"batch_max_requests": "requests in a batch", "paginate_by": "objects on a page"}
    rows = {
        "Server": url,
        "Version": f"{info.get('project_version', 'unknown')} (API {info.get('http_api_version', 'unknown')})",
        "User": str(user.get("id", "nobody")),
        "Principals": ", ".join(map(str, principals if isinstance(principals, list) else [])),
        "Bucket": str(user.get("bucket", "")),
        "Read only": "yes" if settings.get("readonly") else "no",
        "Limits": ", ".join(f"{settings[key]} {text}" for key, text in limits.items() if settings.get(key)),
        "Capabilities": ", ".join(sorted(capabilities)),
        "End of life": str(info.get("eos") or ""),
    }
    yield from (f"{name:<14}{escaped(text[:LONGEST_ROW])}" for name, text in rows.items() if text)


def part(info: JSONObject, name: str) -> JSONObject:
    """Return an object within the answer of a server; an empty one for anything else."""
    found = info.get(name)
    return found if isinstance(found, dict) else {}


@contextmanager
def interruptible() -> Generator[None]:
    """Leave the block quietly at the first Ctrl-C or SIGTERM; more of them do not disturb the end of the block."""
    is_signalled = threading.current_thread() is threading.main_thread()  # no other thread is
    signals = (signal.SIGINT, signal.SIGTERM) if is_signalled else ()

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = [signal.signal(each, interrupt) for each in signals]
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for each, handler in zip(signals, previous, strict=True):
            signal.signal(each, handler)


COMMANDS = (
    Command(
        "info",
        "Servers",
        "show a server's version, capabilities and limits, and who you are",
        "kinto-orm info -s https://kinto.example/v1",
        add_info_options,
        run_info,
    ),
    Command(
        "serve",
        "Servers",
        "run a real Kinto server, for development and tests",
        "kinto-orm serve --data data/",
        add_serve_options,
        run_serve,
    ),
)

"""The options by which a command finds its server.

::

    parser = add_parser_options(argparse.ArgumentParser())
    with client_from_args(parser.parse_args()) as client:
        ...

Without ``--server`` and ``--auth``, the environment's ``KINTO_SERVER`` and ``KINTO_AUTH`` are used.
:func:`progress_bar` shows the progress of a long job in a terminal.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from kinto_orm.client import Client
from kinto_orm.errors import ConfigurationError
from kinto_orm.repository.state import Progress
from kinto_orm.transport.auth import BasicAuth, BearerTokenAuth

SERVER_VARIABLE, AUTH_VARIABLE = "KINTO_SERVER", "KINTO_AUTH"


class AuthAction(argparse.Action):
    """Conversion of the option's value into credentials, which messages do not show.

    Asks for the password where the value has none.
    """

    token_auth: Any = BearerTokenAuth
    user_auth: Any = BasicAuth

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the credentials among the options."""
        try:
            setattr(namespace, self.dest, self.parsed(values))
        except ConfigurationError as error:
            raise argparse.ArgumentError(self, str(error)) from error

    @classmethod
    def parsed(cls, text: str) -> Any:
        """Return the credentials; raise ``ConfigurationError``, which does not show them."""
        scheme, space, token = text.partition(" ")
        if space and (":" not in text or scheme.lower() == "basic" or scheme.lower().startswith("bearer")):
            return cls.token_auth(token.strip(), type=scheme)
        return cls.user_auth(*get_auth(text))


def get_auth(auth: str) -> tuple[str, str]:
    """Return user and password; ask for the password where there is no colon."""
    user, colon, password = auth.partition(":")
    return user, password if colon else getpass.getpass(f"Please enter a password for {user}: ")


def add_parser_options(
    parser: argparse.ArgumentParser,
    *,
    server: str | None = None,
    auth: Any = None,
    bucket: str | None = None,
    collection: str | None = None,
    retry: int = 3,
    retry_after: int | None = None,
    ignore_batch_4xx: bool | None = None,
    include_bucket: bool = True,
    include_collection: bool = True,
    auth_action: type[argparse.Action] = AuthAction,
) -> argparse.ArgumentParser:
    """Add ``-s -a -b -c --retry --retry-after -v -q -D`` with these defaults, and return the parser.

    ``ignore_batch_4xx`` adds the option of that name, which only scripts of the reference client have.
    """
    add = parser.add_argument
    add("-s", "--server", help="The location of the remote server (with prefix)", default=server)
    add(
        "-a",
        "--auth",
        help="BasicAuth credentials: `token:my-secret` or Authorization header: `Bearer token`",
        default=auth,
        action=auth_action,
    )
    if include_bucket:
        add("-b", "--bucket", help="Bucket name.", default=bucket)
    if include_collection:
        add("-c", "--collection", help="Collection name.", default=collection)
    add("--retry", help="Number of retries when a request fails", type=int, default=retry)
    add(
        "--retry-after",
        help="Delay in seconds between retries when requests fail. (default: provided by server)",
        type=int,
        default=retry_after,
    )
    if ignore_batch_4xx is not None:
        add(
            "--ignore-batch-4xx",
            help="Do not fail on 4xx errors in batch requests.",
            default=ignore_batch_4xx,
            action="store_true",
        )
    add_verbosity_options(parser)
    return parser


def add_verbosity_options(parser: argparse.ArgumentParser) -> None:
    """Add ``-v``, ``-q`` and ``-D``."""
    for short, long, level, text in (
        ("-v", "--verbose", logging.INFO, "Show all messages."),
        ("-q", "--quiet", logging.CRITICAL, "Show only critical errors."),
        ("-D", "--debug", logging.DEBUG, "Show all messages, including debug messages."),
    ):
        parser.add_argument(short, long, action="store_const", const=level, dest="verbosity", help=text)


def client_from_args(args: argparse.Namespace) -> Client:
    """Return the client that the options and the environment name; store values of the environment among the options.

    Raises ``ConfigurationError`` where neither names a server.
    """
    server = args.server or os.environ.get(SERVER_VARIABLE)
    if not server:
        raise ConfigurationError(
            f"No server is named: use --server, as in --server http://localhost:8888/v1, or set {SERVER_VARIABLE}."
        )
    if args.auth is None and (text := os.environ.get(AUTH_VARIABLE)):
        args.auth = AuthAction.parsed(text)
    return Client(
        server,
        auth=args.auth,
        bucket=getattr(args, "bucket", None) or "default",
        collection=getattr(args, "collection", None),
        retry=args.retry,
        retry_after=args.retry_after,
        allow_insecure=getattr(args, "allow_insecure", False),
    )


def setup_logger(logger: logging.Logger, args: argparse.Namespace) -> None:
    """Make the logger write to stderr, at the level of the options. A second call adds no second writer."""
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        logger.addHandler(logging.StreamHandler())
    if args.verbosity:
        logger.setLevel(args.verbosity)


@contextmanager
def progress_bar() -> Generator[Progress]:
    """Yield a function for the argument ``progress`` of long calls, which draws a bar on stderr for each part.

    It draws nothing where stderr is no terminal, or without the extra ``cli``.
    """
    bar = _rich_bar() if sys.stderr.isatty() else None
    if bar is None:
        yield lambda done, total, what: None
        return
    tasks: dict[str, Any] = {}

    def show(done: int, total: int | None, what: str) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task("", total=total, what=what)
        bar.update(tasks[what], completed=done, total=total)

    with bar:
        yield show


def _rich_bar() -> Any:
    """Return a progress bar of rich; ``None`` without the extra ``cli``."""
    try:
        from rich import progress as rich_progress
        from rich.console import Console
    except ImportError:
        return None
    # Without markup: an id of the server may look like some.
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.fields[what]}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,  # what the job says at its end takes their place
        # Else rich takes what the program prints to stdout, which may be a file, and prints it to stderr.
        redirect_stdout=False,
        redirect_stderr=False,
    )

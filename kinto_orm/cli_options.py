"""The options by which a command finds its server: the one place that defines them."""

from __future__ import annotations

import argparse
import getpass
import logging
from typing import Any

from kinto_orm.client import Client
from kinto_orm.errors import ConfigurationError
from kinto_orm.transport import BearerTokenAuth


class AuthAction(argparse.Action):
    """Makes credentials of the option's value; asks for the password where it is left out."""

    token_auth: Any = BearerTokenAuth

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Puts the credentials among the options."""
        setattr(namespace, self.dest, self._parsed(values))

    def _parsed(self, text: str) -> Any:
        scheme, space, token = text.partition(" ")
        if space and (":" not in text or scheme.lower() == "basic" or scheme.lower().startswith("bearer")):
            return self.token_auth(token.strip(), type=scheme)
        return get_auth(text)


def get_auth(auth: str) -> tuple[str, str]:
    """User and password; the password is asked for where there is no colon."""
    user, colon, password = auth.partition(":")
    return user, password if colon else getpass.getpass(f"Please enter a password for {user}: ")


def add_client_options(
    parser: argparse.ArgumentParser,
    *,
    server: str | None = None,
    auth: Any = None,
    bucket: str | None = None,
    collection: str | None = None,
    retry: int = 0,
    retry_after: int | None = None,
    ignore_batch_4xx: bool = False,
    include_bucket: bool = True,
    include_collection: bool = True,
    auth_action: type[argparse.Action] = AuthAction,
) -> None:
    """Adds the options, with these defaults."""
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
    add(
        "--ignore-batch-4xx",
        help="Do not fail on 4xx errors in batch requests.",
        default=ignore_batch_4xx,
        action="store_true",
    )
    add_verbosity_options(parser)


def add_verbosity_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``-v``, ``-q`` and ``-D``."""
    for short, long, level, text in (
        ("-v", "--verbose", logging.INFO, "Show all messages."),
        ("-q", "--quiet", logging.CRITICAL, "Show only critical errors."),
        ("-D", "--debug", logging.DEBUG, "Show all messages, including debug messages."),
    ):
        parser.add_argument(short, long, action="store_const", const=level, dest="verbosity", help=text)


def client_from_args(args: argparse.Namespace) -> Client:
    """The client that the options name; raises ``ConfigurationError`` where they name no server."""
    if not args.server:
        raise ConfigurationError("No server is named: use --server, as in --server http://localhost:8888/v1.")
    return Client(
        args.server,
        auth=args.auth,
        bucket=getattr(args, "bucket", None) or "default",
        collection=getattr(args, "collection", None),
        retry=args.retry,
        retry_after=args.retry_after,
    )


def setup_logger(logger: logging.Logger, args: argparse.Namespace) -> None:
    """Has the logger write to stderr, as much as the options ask for. A second call adds no second writer."""
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        logger.addHandler(logging.StreamHandler())
    if args.verbosity:
        logger.setLevel(args.verbosity)

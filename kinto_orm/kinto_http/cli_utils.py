"""Options of a script that talks to Kinto."""

from __future__ import annotations

import argparse
from typing import Any

from kinto_orm import cli_options
from kinto_orm.cli_options import client_from_args, get_auth, setup_logger
from kinto_orm.kinto_http.client import Client
from kinto_orm.kinto_http.login import BearerTokenAuth

__all__ = [
    "AuthAction",
    "add_parser_options",
    "client_from_args",
    "create_client_from_args",
    "get_auth",
    "set_parser_server_options",
    "setup_logger",
]


class AuthAction(cli_options.AuthAction):
    """Conversion of the option's value into credentials; asks for the password where the value has none."""

    token_auth = BearerTokenAuth
    user_auth = staticmethod(lambda user, password: (user, password))


def add_parser_options(
    parser: argparse.ArgumentParser | None = None,
    default_server: str | None = None,
    default_auth: Any = None,
    default_retry: int = 0,
    default_retry_after: int | None = None,
    default_ignore_batch_4xx: bool = False,
    default_bucket: str | None = None,
    default_collection: str | None = None,
    include_bucket: bool = True,
    include_collection: bool = True,
    **kwargs: Any,
) -> argparse.ArgumentParser:
    """Add the options to the parser, or to a new one made with ``kwargs``, and return it."""
    if parser is None:
        parser = argparse.ArgumentParser(**kwargs)
    cli_options.add_parser_options(
        parser,
        server=default_server,
        auth=default_auth,
        bucket=default_bucket,
        collection=default_collection,
        retry=default_retry,
        retry_after=default_retry_after,
        ignore_batch_4xx=default_ignore_batch_4xx,
        include_bucket=include_bucket,
        include_collection=include_collection,
        auth_action=AuthAction,
    )
    return parser


set_parser_server_options = add_parser_options
"""The older name."""


def create_client_from_args(args: argparse.Namespace) -> Client:
    """Return the client that the options name."""
    return Client(
        server_url=args.server,
        auth=args.auth,
        bucket=getattr(args, "bucket", None) or "default",
        collection=getattr(args, "collection", None),
        retry=args.retry,
        retry_after=args.retry_after,
        ignore_batch_4xx=args.ignore_batch_4xx,
    )

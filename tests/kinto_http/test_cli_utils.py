"""Options of scripts: defined once, for the reference client's names and for ours."""

from __future__ import annotations

import argparse
import getpass
import logging
from typing import Any

import pytest

from kinto_orm import cli_options, kinto_http
from kinto_orm.errors import ConfigurationError
from kinto_orm.kinto_http import cli_utils
from kinto_orm.kinto_http.constants import ALL_PARAMETERS
from kinto_orm.transport.auth import BasicAuth


def parsed(*words: str, **defaults: Any) -> argparse.Namespace:
    return cli_utils.add_parser_options(**defaults).parse_args(words)


def options(parser: argparse.ArgumentParser) -> list[list[str]]:
    return [list(action.option_strings) for action in parser._actions]


def test_the_options_are_those_of_the_reference_client() -> None:
    assert options(cli_utils.add_parser_options()) == ALL_PARAMETERS
    assert cli_utils.set_parser_server_options is cli_utils.add_parser_options


def test_bucket_and_collection_may_be_left_out() -> None:
    parser = cli_utils.add_parser_options(include_bucket=False, include_collection=False, prog="mine")

    assert [one for one in ALL_PARAMETERS if one[1:] not in (["--bucket"], ["--collection"])] == options(parser)
    assert parser.prog == "mine"


def test_a_parser_gets_the_options_in_addition() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mine")

    assert parser is cli_utils.add_parser_options(parser)
    assert parser.parse_args(["--mine", "1", "-s", "http://x/v1"]).mine == "1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user:pass with spaces", ("user", "pass with spaces")),
        ("user:pass:word", ("user", "pass:word")),
        ("my name:secret", ("my name", "secret")),
    ],
)
def test_a_user_with_password_is_a_tuple(text: str, expected: tuple[str, str]) -> None:
    assert expected == parsed("-a", text).auth


@pytest.mark.parametrize(
    ("text", "scheme", "token"),
    [
        ("Bearer Token:with:colons", "Bearer", "Token:with:colons"),
        ("Bearer+OIDC abc", "Bearer+OIDC", "abc"),
        ("Basic abc", "Basic", "abc"),
        ("Custom abc", "Custom", "abc"),
    ],
)
def test_a_scheme_with_token_is_an_auth_object(text: str, scheme: str, token: str) -> None:
    auth = parsed("-a", text).auth

    assert isinstance(auth, kinto_http.BearerTokenAuth)
    assert (scheme, token) == (auth.type, auth.token)


def test_a_password_that_is_left_out_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: f"secret of {prompt}")

    assert parsed("-a", "alexis").auth == ("alexis", "secret of Please enter a password for alexis: ")


def test_a_default_stays_as_it_is() -> None:
    assert parsed(default_auth="user:pass").auth == "user:pass"
    assert parsed().auth is None


def test_the_client_is_what_the_options_say() -> None:
    words = "-s http://x/v1 -a a:b -b b --retry 4 --retry-after 2 --ignore-batch-4xx"

    client = cli_utils.create_client_from_args(parsed(*words.split()))

    session = client.session
    assert (session.server_url, session.auth) == ("http://x/v1", ("a", "b"))
    assert (session.nb_retry, session.retry_after) == (4, 2)
    assert (client.bucket_name, client.collection_name, client._ignore_batch_4xx) == ("b", None, True)


def test_without_a_bucket_it_is_the_default_one() -> None:
    args = parsed("-s", "https://x/v1", "-a", "a:b", include_bucket=False, include_collection=False)

    assert cli_utils.create_client_from_args(args).bucket_name == "default"
    assert cli_utils.client_from_args(args).default_bucket == "default"


def test_the_options_make_a_client_of_kinto_orm_too() -> None:
    client = cli_options.client_from_args(parsed("-s", "https://x/v1", "-a", "a:b", "-b", "b", "-c", "c"))

    assert (client.server_url, client.default_bucket, client.default_collection) == ("https://x/v1", "b", "c")


def test_credentials_of_a_script_of_ours_do_not_show() -> None:
    args = cli_options.add_parser_options(argparse.ArgumentParser()).parse_args(
        ["-s", "https://x/v1", "-a", "a:s3cr3t"]
    )

    assert "s3cr3t" not in repr(args)
    assert args.auth == BasicAuth("a", "s3cr3t")


def test_a_script_of_ours_has_no_option_of_the_reference_client_s_alone() -> None:
    parser = cli_options.add_parser_options(argparse.ArgumentParser())

    assert [one for one in ALL_PARAMETERS if one != ["--ignore-batch-4xx"]] == options(parser)


def test_without_a_server_it_says_which_option_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINTO_SERVER", raising=False)

    with pytest.raises(ConfigurationError, match="--server"):
        cli_options.client_from_args(parsed())


@pytest.mark.parametrize(
    ("word", "level"), [("", logging.NOTSET), ("-v", logging.INFO), ("-q", logging.CRITICAL), ("-D", logging.DEBUG)]
)
def test_the_logger_says_as_much_as_asked(word: str, level: int) -> None:
    logger = logging.Logger("mine")  # noqa: LOG001  no other test shall find it

    cli_utils.setup_logger(logger, parsed(*word.split()))
    cli_utils.setup_logger(logger, parsed(*word.split()))

    assert logger.level == level
    assert len(logger.handlers) == 1

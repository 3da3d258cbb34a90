"""Credentials: the forms that are taken, and that none of them shows."""

import copy
import pickle
from typing import Any

import pytest
import requests
from requests.auth import HTTPDigestAuth

from kinto_orm.errors import ConfigurationError, ConnectionFailedError, InvalidTypeError
from kinto_orm.transport.auth import BasicAuth, BearerTokenAuth, Secret, parse_auth, parse_headers, signed

CANARY = "s3cr3t-canary"

each_own_auth = pytest.mark.parametrize(
    "auth",
    [
        pytest.param(BasicAuth("alexis", CANARY), id="basic"),
        pytest.param(BasicAuth(CANARY, ""), id="user-is-the-secret"),
        pytest.param(BearerTokenAuth(CANARY), id="bearer"),
    ],
)


def prepared(body: bytes | None = None) -> requests.PreparedRequest:
    return requests.Request("PUT", "http://kinto.test/v1", data=body).prepare()


def authorization(auth: Any) -> str | None:
    return signed(prepared(), parse_auth(auth)).headers.get("Authorization")


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        pytest.param(None, None, id="anonymous"),
        pytest.param(("user", "pass"), "Basic dXNlcjpwYXNz", id="tuple"),
        pytest.param(("token", "secret"), "Basic dG9rZW46c2VjcmV0", id="user-named-token"),
        pytest.param("user:pass", "Basic dXNlcjpwYXNz", id="string"),
        pytest.param("user:pass:word", "Basic dXNlcjpwYXNzOndvcmQ=", id="colon-in-password"),
        pytest.param("my user:pass", "Basic bXkgdXNlcjpwYXNz", id="space-in-user"),
        pytest.param("Bearers abc:def", "Basic QmVhcmVycyBhYmM6ZGVm", id="nearly-a-scheme"),
        pytest.param("user:", "Basic dXNlcjo=", id="empty-password"),
        pytest.param(("é", "日本"), "Basic w6k65pel5pys", id="utf-8"),
        pytest.param("Bearer abc", "Bearer abc", id="bearer"),
        pytest.param("Bearer abc:def", "Bearer abc:def", id="bearer-with-colon"),
        pytest.param("bearer  abc", "bearer abc", id="bearer-in-lower-case"),
        pytest.param("Bearer+OIDC abc", "Bearer+OIDC abc", id="bearer-of-a-type"),
        pytest.param("Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXNz", id="basic-as-it-is"),
        pytest.param(BearerTokenAuth("abc"), "Bearer abc", id="token-object"),
        pytest.param(BearerTokenAuth("abc", type="Bearer+OIDC"), "Bearer+OIDC abc", id="typed-token-object"),
        pytest.param(requests.auth.HTTPBasicAuth("user", "pass"), "Basic dXNlcjpwYXNz", id="requests-auth"),
    ],
)
def test_every_form_of_auth_gives_its_header(auth: Any, expected: str | None) -> None:
    assert authorization(auth) == expected


@pytest.mark.parametrize(
    "auth",
    [
        pytest.param(CANARY, id="neither-scheme-nor-colon"),
        pytest.param("", id="empty"),
        pytest.param("Bearer ", id="bearer-without-token"),
        pytest.param(f"Bearer {CANARY}\n", id="line-end-after-token"),
        pytest.param(f"Bearer {CANARY}\r\nX-Evil: 1", id="header-injection"),
        pytest.param(f"Bearer {CANARY} {CANARY}", id="space-in-token"),
        pytest.param(f"Bearer {CANARY}é", id="token-beyond-ascii"),
        pytest.param(f"Bearer+é {CANARY}", id="type-beyond-ascii"),
        pytest.param(("user", f"{CANARY}\n"), id="line-end-in-password"),
        pytest.param(("user", f"{CANARY}\ud800"), id="half-a-character"),
        pytest.param((f"us:er{CANARY}", "pass"), id="colon-in-user"),
        pytest.param(("user", None), id="no-password"),
        pytest.param((b"user", CANARY), id="bytes"),
        pytest.param((CANARY,), id="one-item"),
        pytest.param(("user", "pass", CANARY), id="three-items"),
        pytest.param(["user", CANARY], id="list"),
        pytest.param(CANARY.encode(), id="bytes-alone"),
        pytest.param(42, id="number"),
        pytest.param(BearerTokenAuth, id="class"),
    ],
)
def test_anything_else_is_refused_without_showing_it(auth: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_auth(auth)

    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__context__ is None


def test_a_class_given_for_an_instance_is_named() -> None:
    with pytest.raises(ConfigurationError, match="the class BearerTokenAuth: give an instance"):
        parse_auth(BearerTokenAuth)  # type: ignore[arg-type]  # the mistake is the test


def test_a_token_is_a_string() -> None:
    with pytest.raises(ConfigurationError, match="visible ASCII"):
        BearerTokenAuth(None)  # type: ignore[arg-type]  # the mistake is the test


def test_the_auth_object_of_a_user_is_kept_as_it_is() -> None:
    auth = HTTPDigestAuth("user", "pass")
    before = dict(vars(auth))

    assert parse_auth(auth) is auth
    assert vars(auth) == before


@each_own_auth
def test_credentials_do_not_show(auth: Any) -> None:
    shown = f"{auth} {auth!r} {vars(auth)} {dir(auth)} {[auth]}"

    assert CANARY not in shown and "czNjcjN0" not in shown
    assert "***" in repr(auth)


@each_own_auth
def test_credentials_cannot_be_pickled(auth: Any) -> None:
    with pytest.raises(InvalidTypeError, match="never pickled"):
        pickle.dumps(auth)


@each_own_auth
def test_credentials_can_be_copied(auth: Any) -> None:
    assert copy.copy(auth) is auth
    assert copy.deepcopy({"auth": auth})["auth"] is auth


def test_a_secret_can_be_copied_within_other_objects() -> None:
    secret = Secret(CANARY)

    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret]) == [secret]


def test_equal_credentials_are_equal() -> None:
    assert BasicAuth("user", "pass") == parse_auth("user:pass")
    assert hash(BasicAuth("user", "pass")) == hash(BasicAuth("user", "pass"))
    assert BasicAuth("user", "pass") != BasicAuth("user", "other")
    assert BearerTokenAuth("abc") != "Bearer abc"


def test_an_auth_object_may_change_the_body() -> None:
    def wrap(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.body = b"signed {}"
        return request

    request = signed(prepared(b"{}"), wrap)

    assert request.headers["Content-Length"] == "9"


def test_an_auth_object_that_gets_no_token_has_sent_nothing() -> None:
    def fetch_token(request: requests.PreparedRequest) -> requests.PreparedRequest:
        raise requests.ReadTimeout(request=prepared(CANARY.encode()))

    with pytest.raises(ConnectionFailedError, match="got no credentials: ReadTimeout") as failed:
        signed(prepared(), fetch_token)

    assert isinstance(failed.value.__cause__, requests.ReadTimeout)
    assert failed.value.__cause__.request is None


def test_headers_of_the_client_are_taken() -> None:
    assert parse_headers({"X-Api-Key": "k\xe9y\t1"}) == {"X-Api-Key": "k\xe9y\t1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("X-Key", f"{CANARY}\r\nX-Evil: 1", id="line-end"),
        pytest.param("X-Key", f"{CANARY}日本", id="beyond-latin-1"),
        pytest.param("X-Key", CANARY.encode(), id="bytes"),
        pytest.param("X Key", CANARY, id="space-in-name"),
        pytest.param("", CANARY, id="no-name"),
        pytest.param(1, CANARY, id="number-for-name"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_without_showing_it(name: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_headers({name: value})

    assert CANARY not in str(refused.value)

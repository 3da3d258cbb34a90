"""Logging in by Firefox Accounts: PyFxA itself, a stub of the servers it asks, and a Kinto that asks them too."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from fxa.oauth import Client as OAuthClient
from fxa.plugins.requests import FxABearerTokenAuth
from fxa_stub import CLIENT_ID, EMAIL, PASSWORD, SCOPES, Accounts, firefox_accounts, kinto_settings
from scripted_server import Serve, Server, said

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    CommitError,
    ConfigurationError,
    FxaAuth,
    InvalidTypeError,
    LoginFailedError,
    MissingExtraError,
    Record,
    UnauthorizedError,
)
from kinto_orm.server import EmbeddedServer, listening


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[Accounts, EmbeddedServer]]:
    with firefox_accounts() as accounts, EmbeddedServer.memory(**kinto_settings(accounts)) as kinto:
        yield accounts, kinto


@pytest.fixture
def accounts(everything: tuple[Accounts, EmbeddedServer]) -> Iterator[Accounts]:
    """Firefox Accounts, before the first login."""
    accounts, kinto = everything
    kinto.flush()
    accounts.asked.clear()
    accounts.tokens.clear()
    yield accounts
    accounts.refusal, accounts.raw, accounts.delay = None, None, 0.0


@pytest.fixture
def kinto(everything: tuple[Accounts, EmbeddedServer]) -> EmbeddedServer:
    """A Kinto that lets in who has a token of Firefox Accounts."""
    return everything[1]


def fxa(accounts: Accounts, **changes: Any) -> FxaAuth:
    arguments: dict[str, Any] = {
        "email": EMAIL,
        "password": PASSWORD,
        "client_id": CLIENT_ID,
        "scopes": SCOPES,
        "account_server_url": accounts.url,
        "oauth_server_url": accounts.url,
    }
    return FxaAuth(**{**arguments, **changes})


def user_of(kinto: EmbeddedServer, auth: Any) -> Any:
    """Return the user, as Kinto names it."""
    with Client.embedded(server=kinto, auth=auth, retry_after=0.001) as client:
        return client.server_info(refresh=True).get("user", {}).get("id")


def failing(kinto: EmbeddedServer, auth: Any) -> str:
    """Return the message of a login that fails."""
    with pytest.raises(LoginFailedError) as caught:
        user_of(kinto, auth)
    return str(caught.value)


def test_the_first_request_logs_in_and_the_next_ones_have_the_same_token(
    accounts: Accounts, kinto: EmbeddedServer
) -> None:
    auth = fxa(accounts)
    assert accounts.asked == []

    users = [user_of(kinto, auth) for _ in range(2)]

    assert users == ["fxa:" + "0" * 32] * 2
    assert [one for one in accounts.asked if one.startswith("POST")] == [
        "POST /v1/account/login",
        "POST /v1/oauth/authorization",
        "POST /v1/token",
    ]


def test_the_object_of_pyfxa_itself_is_an_auth_too(accounts: Accounts, kinto: EmbeddedServer) -> None:
    theirs = FxABearerTokenAuth(EMAIL, PASSWORD, list(SCOPES), CLIENT_ID, accounts.url, accounts.url)

    assert user_of(kinto, theirs) == "fxa:" + "0" * 32


@pytest.mark.parametrize("brings_session", [False, True])
def test_a_login_that_the_object_of_pyfxa_cannot_do_is_our_error(accounts: Accounts, brings_session: bool) -> None:
    theirs = FxABearerTokenAuth(EMAIL, "wrong", list(SCOPES), CLIENT_ID, accounts.url, accounts.url)

    with requests.Session() as session, Client(accounts.url, auth=theirs) as client:
        asked = client.clone(auth=None, session=session) if brings_session else client
        session.auth = theirs
        with pytest.raises(LoginFailedError, match="got no credentials: ClientError"):
            asked.server_info()


def test_a_token_that_has_run_out_is_renewed_and_the_write_sent_again(
    accounts: Accounts, kinto: EmbeddedServer
) -> None:
    with Client.embedded(server=kinto, auth=fxa(accounts), retry=0):
        payments = Bucket(id="payments").save()
        accounts.revoke_all()

        Collection(bucket=payments, id="todos").save()

        assert [one.id for one in payments.collections] == ["todos"]
    assert accounts.logins == 2


def test_a_token_that_its_owner_destroyed_is_renewed(accounts: Accounts, kinto: EmbeddedServer) -> None:
    auth = fxa(accounts)
    user_of(kinto, auth)
    OAuthClient(CLIENT_ID, server_url=accounts.url).destroy_token(accounts.tokens[0])

    with Client.embedded(server=kinto, auth=auth) as client:
        Bucket(id="payments").save()
        assert client.bucket("payments").refresh().id == "payments"
    assert accounts.logins == 2


def test_a_whole_batch_is_sent_again_with_the_new_token(accounts: Accounts, kinto: EmbeddedServer) -> None:
    with Client.embedded(server=kinto, auth=fxa(accounts), retry=0) as client:
        todos = Collection(bucket=Bucket(id="payments").save(), id="todos").save()
        accounts.revoke_all()

        with client.unit_of_work() as uow:
            for number in range(3):
                Record(collection=todos, data={"number": number}).save()

        assert [outcome.status for outcome in uow.outcomes] == ["created"] * 3
        assert todos.records.count() == 3
    assert accounts.logins == 2


def test_awaited_requests_renew_too(accounts: Accounts, kinto: EmbeddedServer) -> None:
    async def scenario(url: str) -> str:
        async with Client(url, auth=fxa(accounts)):
            payments = await Bucket(id="payments").asave()
            accounts.revoke_all()
            return (await payments.apatch(title="Mine")).data["title"]

    with listening(kinto) as url:
        assert asyncio.run(scenario(url)) == "Mine"
    assert accounts.logins == 2


def test_many_threads_share_one_login_and_one_renewal(accounts: Accounts, kinto: EmbeddedServer) -> None:
    accounts.delay = 0.1
    with Client.embedded(server=kinto, auth=fxa(accounts)), ThreadPoolExecutor(8) as threads:
        client = Client.embedded(server=kinto, auth=fxa(accounts))
        buckets = list(threads.map(lambda n: Bucket(id=f"b{n}", client=client).save(), range(8)))
        assert accounts.logins == 1
        accounts.revoke_all()

        list(threads.map(lambda bucket: bucket.patch(n=1), buckets))

        assert accounts.logins == 2


def test_many_threads_share_one_login_that_fails(accounts: Accounts, kinto: EmbeddedServer) -> None:
    accounts.delay = 0.1
    auth = fxa(accounts, password="wrong")

    with ThreadPoolExecutor(8) as threads:
        said_ = set(threads.map(lambda _: failing(kinto, auth), range(8)))

    assert accounts.logins == 1
    assert all("Incorrect password" in one for one in said_)


def test_a_wrong_password_is_told_once_and_locks_no_account(accounts: Accounts, kinto: EmbeddedServer) -> None:
    auth = fxa(accounts, password="wr0ng-p4ss")

    first, second = failing(kinto, auth), failing(kinto, auth)

    assert "'Incorrect password' (status 400, errno 103). Give FxaAuth the right password." in first
    assert second == f"{first} It was not asked again."
    assert accounts.logins == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"email": "bob@example.com"}, "no account of this e-mail", id="account"),
        pytest.param({"client_id": "unknown"}, "client_id that Firefox Accounts knows", id="client"),
        pytest.param({"scopes": ["oldsync"]}, "scopes that this client_id", id="scopes"),
    ],
)
def test_what_firefox_accounts_refuse_says_what_to_do(
    accounts: Accounts, kinto: EmbeddedServer, changes: dict[str, Any], expected: str
) -> None:
    assert expected in failing(kinto, fxa(accounts, **changes))


def test_a_refusal_that_we_know_nothing_of_is_told_as_it_is(accounts: Accounts, kinto: EmbeddedServer) -> None:
    accounts.refusal = (400, {"code": 400, "errno": 999, "message": f"No {PASSWORD} of {EMAIL}"})
    auth = fxa(accounts)

    assert "said 'No *** of ***' (status 400, errno 999)." in failing(kinto, auth)
    accounts.refusal = None
    assert user_of(kinto, auth) is not None


@pytest.mark.parametrize(
    "raw", [b"[]", b"{}", b"no json", b'{"uid": 1, "sessionToken": "x", "verified": 1, "authAt": 1}']
)
def test_what_firefox_accounts_never_say_is_our_error(accounts: Accounts, kinto: EmbeddedServer, raw: bytes) -> None:
    accounts.raw = raw

    assert "not what they document" in failing(kinto, fxa(accounts))


def test_servers_that_are_not_there_are_named(kinto: EmbeddedServer, accounts: Accounts, dead_url: str) -> None:
    told = failing(kinto, fxa(accounts, account_server_url=dead_url))

    assert dead_url in told
    assert "could not be asked for a token (ConnectionError): check the network" in told


def test_a_second_401_is_for_the_caller_and_the_next_request_tries_again(accounts: Accounts, serve: Serve) -> None:
    kinto: Server = serve(said({"code": 401, "errno": 104, "error": "Unauthorized"}, "401 Unauthorized"))
    with Client(kinto.url, auth=fxa(accounts)) as client:
        for logins in (2, 3):
            with pytest.raises(UnauthorizedError):
                client.server_info()
            assert accounts.logins == logins

    assert len(kinto.requests) == 4


def test_after_its_time_a_token_is_fetched_anew(accounts: Accounts, kinto: EmbeddedServer) -> None:
    auth = fxa(accounts, ttl=60)
    now = [0.0]
    auth._tokens.clock = lambda: now[0]

    for now[0] in (0.0, 59.0, 60.0):
        user_of(kinto, auth)

    assert accounts.logins == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"email": ""}, "email is a string"),
        ({"email": "alexis"}, "with an @"),
        ({"password": 42}, "password is a string"),
        ({"client_id": None}, "client_id is a string"),
        ({"scopes": "profile"}, "scopes is a list"),
        ({"scopes": []}, "scopes is a list"),
        ({"scopes": 5}, "scopes is a list"),
        ({"scopes": ["profile kinto"]}, "scopes is a list"),
        ({"account_server_url": "http://accounts.example.com"}, "account_server_url is an https"),
        ({"oauth_server_url": "ftp://localhost"}, "oauth_server_url is an https"),
        ({"ttl": 0}, "ttl is seconds"),
        ({"ttl": True}, "ttl is seconds"),
    ],
)
def test_arguments_that_cannot_work_are_refused(accounts: Accounts, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as refused:
        fxa(accounts, **changes)

    assert PASSWORD not in str(refused.value)
    assert accounts.asked == []


def test_nobody_logs_in_where_the_token_could_be_read_by_all() -> None:
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        Client("http://kinto.example.com/v1", auth=FxaAuth(EMAIL, PASSWORD, client_id=CLIENT_ID))


def test_without_urls_it_asks_those_of_production() -> None:
    auth = FxaAuth(EMAIL, PASSWORD, client_id=CLIENT_ID)

    assert auth.account_server_url == "https://api.accounts.firefox.com/v1"
    assert auth.oauth_server_url == "https://oauth.accounts.firefox.com/v1"
    assert auth.scopes == ("profile",)


def test_without_pyfxa_it_says_what_to_install(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fxa.plugins.requests", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'kinto-orm\[fxa\]'"):
        fxa(accounts)


def test_nothing_of_a_login_is_shown(
    accounts: Accounts, kinto: EmbeddedServer, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = fxa(accounts)
    with Client.embedded(server=kinto, auth=auth, log_bodies=True) as client:
        client.server_info()
        accounts.revoke_all()
        Bucket(id="payments").save()
        shown = f"{auth} {auth!r} {vars(auth)} {client!r} {client._options} {vars(client)} {caplog.text}"

    secrets = (PASSWORD, *accounts.tokens)
    assert EMAIL not in f"{auth} {vars(auth)}"
    assert len(accounts.tokens) == 2
    assert [one for one in secrets if one in shown] == []


def test_no_error_of_a_login_shows_the_password(accounts: Accounts, kinto: EmbeddedServer) -> None:
    try:
        user_of(kinto, fxa(accounts, password="s3cr3t-canary"))
    except LoginFailedError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)

    lines = [line for line in told.format() if "fxa(accounts" not in line]  # but for this very function
    assert "Incorrect password" in "".join(lines)
    assert not any("s3cr3t-canary" in line for line in lines)


@pytest.mark.parametrize("take", [pickle.dumps, copy.deepcopy])
def test_a_login_cannot_be_pickled(accounts: Accounts, take: Any) -> None:
    with pytest.raises(InvalidTypeError, match="never pickled"):
        take(fxa(accounts))


def test_a_pickled_client_has_no_login(accounts: Accounts) -> None:
    with Client("http://localhost:8888/v1", auth=fxa(accounts)) as client:
        text = pickle.dumps(client)

    assert PASSWORD.encode() not in text and EMAIL.encode() not in text


def test_nothing_is_written_to_disk(
    accounts: Accounts, kinto: EmbeddedServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    is_listening = True

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if is_listening and event == "open" and any(letter in str(arguments[1]) for letter in "wax+"):
            opened.append(str(arguments[0]))

    sys.addaudithook(listen)
    user_of(kinto, fxa(accounts))
    is_listening = False

    assert opened == []


def test_a_login_that_fails_in_a_unit_of_work_sends_nothing(accounts: Accounts, kinto: EmbeddedServer) -> None:
    with Client.embedded(server=kinto, auth=fxa(accounts, password="wrong")) as client:
        uow = client.unit_of_work()
        uow.save(Bucket(id="payments", client=client))
        with pytest.raises(CommitError):
            uow.commit()

    assert [outcome.status for outcome in uow.outcomes] == ["not_sent"]
    assert isinstance(uow.outcomes[0].error, LoginFailedError)

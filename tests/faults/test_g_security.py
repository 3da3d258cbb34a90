"""Rows G, with V01: credentials and data go nowhere but to the server."""

from __future__ import annotations

import inspect
import json
import logging
import pickle
import socket
import sys
import traceback
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import vcr
import vcr.request
from openid_stub import Browser, callback, fetch, openid_provider
from requests.auth import HTTPBasicAuth
from scripted_server import RECORDS, Script, Serve, Talk, answer, hang_up, one, said

from kinto_orm import (
    BearerTokenAuth,
    BrowserOAuth,
    Client,
    ConfigurationError,
    KintoError,
    Record,
    RedirectError,
    ResponseError,
)
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.testing import vcr_config

SECRET = "s3cr3t-canary"
FORMS = (SECRET, b64encode(f"user:{SECRET}".encode()).decode())


def is_shown(text: str) -> bool:
    return any(form in text for form in FORMS)


def test_g01_credentials_in_the_url_are_used_and_never_shown(talk: Talk, serve: Serve) -> None:
    server = serve(said({}))
    client, _ = talk(server_url=f"http://user:{SECRET}@{server.host}/v1")

    client.server_info()

    assert server.header("Authorization") == f"Basic {FORMS[1]}"
    assert client.server_url == server.url
    assert not is_shown(f"{client!r} {client} {client._options} {vars(client)}")


def test_g01_a_clone_may_move_with_credentials_in_the_url(talk: Talk, serve: Serve) -> None:
    server = serve(said({}))
    client, _ = talk(auth="Bearer other")

    with client.clone(server_url=f"http://user:{SECRET}@{server.host}/v1") as clone:
        clone.server_info()

    assert server.header("Authorization") == f"Basic {FORMS[1]}"


def test_g01_credentials_are_given_once() -> None:
    with pytest.raises(ConfigurationError, match="once") as caught:
        Client(f"https://user:{SECRET}@kinto.test", auth="Bearer other")

    assert not is_shown(str(caught.value))


FAILURES = [
    pytest.param(said({"errno": 104}, "401 Unauthorized"), id="401"),
    pytest.param(hang_up, id="lost"),
    pytest.param(answer(b"<html>"), id="html"),
    pytest.param(b"garbage\r\n\r\n", id="garbage"),
    pytest.param(answer(b"x", "Content-Encoding: gzip"), id="gzip"),
]


def everything_of(error: BaseException) -> str:
    """Return the error and its causes, with their attributes, tracebacks and local variables."""
    shown = []
    left: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while left:
        one = left.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        frames = [frame for frame, _ in traceback.walk_tb(one.__traceback__) if frame.f_code.co_filename != __file__]
        shown.append(f"{one} {one!r} {one.args} {vars(one)} {[frame.f_locals for frame in frames]}")
        shown += traceback.format_exception(one)
        left += [one.__cause__, one.__context__, *(other for other in one.args if isinstance(other, BaseException))]
        left += [other for other in vars(one).values() if isinstance(other, BaseException)]
    return "\n".join(shown)


@pytest.mark.parametrize("script", FAILURES)
def test_g03_an_error_holds_no_credentials(talk: Talk, caplog: pytest.LogCaptureFixture, script: Script) -> None:
    caplog.set_level(logging.DEBUG)
    client, _ = talk(script, auth=("user", SECRET), headers={"X-Api-Key": SECRET})

    with pytest.raises(KintoError) as caught:
        Record(id="x", client=client).replace(safe=False)

    assert not is_shown(everything_of(caught.value))
    assert not is_shown(str(pickle.dumps(caught.value)))
    assert not is_shown(caplog.text)


def test_g03_an_error_knows_what_was_asked_and_what_came(talk: Talk) -> None:
    client, _ = talk(said({"errno": 121, "code": 403, "details": [1]}, "403 Forbidden", "Retry-After: 5"))

    with pytest.raises(ResponseError) as caught:
        client.bucket("b").refresh()

    error = pickle.loads(pickle.dumps(caught.value))
    said_ = (error.status, error.errno, error.details, error.method, error.path, error.retry_after)
    assert said_ == (403, 121, [1], "GET", "/buckets/b", 5)


@pytest.mark.parametrize("auth", [("user", SECRET), f"user:{SECRET}", f"Bearer {SECRET}", BearerTokenAuth(SECRET)])
def test_g04_no_object_of_ours_shows_its_credentials(auth: Any) -> None:
    client = Client("https://kinto.test", auth=auth, headers={"X-Api-Key": SECRET})
    transport = client._connection.transport
    ours = [client, client._options, client._options.auth, client._connection, transport, vars(transport)["_wire"]]

    assert not is_shown(" ".join(f"{one!r} {one} {getattr(one, '__dict__', '')}" for one in ours))
    assert not is_shown(str(pickle.dumps(client)))


@pytest.mark.parametrize("password", ["pässwörd", "日本", "a:b"])
def test_g08_a_password_is_sent_as_utf_8(talk: Talk, password: str) -> None:
    client, server = talk(said({}), auth=("user", password))

    client.server_info()

    assert server.header("Authorization") == f"Basic {b64encode(f'user:{password}'.encode()).decode()}"


@pytest.mark.parametrize("if_match", ["é", "1\r\nX-Evil: 1", "", "*", -1, True, 1.5])
def test_g08_an_if_match_is_digits_only(talk: Talk, if_match: Any) -> None:
    client, server = talk(one())

    with pytest.raises(KintoError):
        Record(id="x", client=client).patch({"n": 1}, if_match=if_match)

    assert server.requests == []


WRITES = [
    pytest.param(lambda client: Record(id="x", data={"n": 1}, client=client).save(), id="put"),
    pytest.param(lambda client: Record(id="x", client=client).patch({"n": 1}), id="patch"),
    pytest.param(lambda client: Record(id="x", client=client).delete(), id="delete"),
    pytest.param(lambda client: client.bucket("b").collection("c").records.delete(everything=True), id="delete-list"),
    pytest.param(lambda client: client.bucket("b").refresh(), id="get"),
]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("http://{host}/v1" + RECORDS, id="G09"),
        pytest.param("/v1" + RECORDS, id="G10"),
        pytest.param("//{host}/", id="G12"),
    ],
)
def test_a_redirect_is_never_followed(talk: Talk, serve: Serve, status: str, write: Any, target: str) -> None:
    other = serve(one())
    moved = said({}, status, f"Location: {target.format(host=other.host)}")
    client, server = talk(moved, one(), headers={"Authorization": "Bearer t0k3n", "X-Api-Key": "k3y"})

    with pytest.raises(RedirectError, match=r"redirects|Redirects") as caught:
        write(client)

    assert target.format(host=other.host)[:8] in str(caught.value)
    assert (other.requests, len(server.requests)) == ([], 1)


def test_g11_a_batch_that_is_redirected_is_not_stored(talk: Talk) -> None:
    client, server = talk(said({"settings": {}}), said({}, "301 Moved", "Location: /v2/batch"), said({"responses": []}))
    uow = client.unit_of_work()

    with pytest.raises(KintoError), uow:
        record = Record(id="x", client=client).save()

    assert [(one.status, type(one.error)) for one in uow.outcomes] == [("rejected", RedirectError)]
    assert record.is_new
    assert len(server.requests) == 2


def test_g14_the_environment_gives_no_proxy(talk: Talk, dead_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead_url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client, server = talk(said({}))

    client.server_info()

    assert len(server.requests) == 1


@pytest.mark.parametrize("auth", ["user:pass", "Bearer xyz", BearerTokenAuth("xyz")])
def test_g14_credentials_go_over_plain_http_to_this_machine_only(auth: Any) -> None:
    with pytest.raises(ConfigurationError, match="allow_insecure=True"):
        Client("http://kinto.test/v1", auth=auth)

    Client("http://kinto.test/v1", auth=auth, allow_insecure=True)
    Client("http://127.0.0.1/v1", auth=auth)
    Client("https://kinto.test/v1", auth=auth)
    Client("http://kinto.test/v1")


def test_g17_the_auth_object_of_a_user_is_never_changed(talk: Talk) -> None:
    auth = HTTPBasicAuth("user", "pass")
    before = dict(vars(auth))

    for client, server in (talk(said({}), auth=auth), talk(said({}), auth=auth)):
        client.server_info()
        assert server.header("Authorization") == "Basic dXNlcjpwYXNz"

    assert vars(auth) == before


def test_g22_the_log_has_one_line_a_request_and_no_body(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="kinto_orm")
    stored = {"status": 201, "headers": {}, "body": {"data": {"id": "x", "note": "b0dy"}}}
    client, _ = talk(said({"settings": {}}), said({"responses": [stored]}))

    with client.unit_of_work():
        Record(id="x", data={"note": "b0dy"}, client=client).save()

    lines = [record for record in caplog.records if record.name == "kinto_orm"]
    assert [line.getMessage().split(",")[0] for line in lines] == ["GET /: 200", "POST /batch: 200"]
    assert {line.levelno for line in lines} == {logging.DEBUG}
    assert "b0dy" not in caplog.text


def test_g22_bodies_are_logged_on_demand_without_secrets(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="kinto_orm")
    client, _ = talk(one(note="b0dy", password="p4ss"), log_bodies=True)

    client.bucket("b").collection("c").records.get("x")

    assert "b0dy" in caplog.text
    assert "p4ss" not in caplog.text


def test_v01_a_cassette_holds_no_secret(talk: Talk, tmp_path: Path) -> None:
    told = ["Set-Cookie: session=s3cr3t-canary", "X-Token: s3cr3t-canary"]
    client, server = talk(
        said({"data": {"id": "x", "last_modified": 5, "token": SECRET, "note": "kept"}}, "200 OK", *told),
        auth=("user", SECRET),
        headers={"X-Api-Key": SECRET, "Cookie": f"a={SECRET}"},
    )

    with vcr.VCR(**vcr_config()).use_cassette(str(tmp_path / "one.yaml")):
        record = Record(id="x", data={"password": SECRET, "note": "kept"}, client=client).replace(safe=False)

    text = (tmp_path / "one.yaml").read_text("utf-8")
    assert not is_shown(text)
    assert text.count("kept") == 2
    assert record.data["token"] == SECRET
    assert server.header("X-Api-Key") == SECRET


def test_v01_a_cassette_without_secrets_can_be_played(talk: Talk, tmp_path: Path) -> None:
    client, server = talk(one(n=1), auth=("user", SECRET))
    recorder = vcr.VCR(**vcr_config())

    for _ in range(2):
        with recorder.use_cassette(str(tmp_path / "one.yaml")):
            assert client.bucket("b").collection("c").records.get("x").data["n"] == 1

    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [None, b"", "text", b"\xff", b"[1]"])
def test_v01_a_body_that_is_no_object_is_recorded_as_it_is(body: Any) -> None:
    request = vcr.request.Request("GET", f"http://user:{SECRET}@localhost/v1/", body, {})

    recorded = vcr_config()["before_record_request"](request)

    assert recorded.uri == "http://localhost/v1/"
    assert recorded.body == (body.encode() if isinstance(body, str) else body)


class Listening:
    """Sees what a process binds, as the operating system is asked for it."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.is_on = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_on and event == "socket.bind":
            self.addresses.append(arguments[1])


def test_g25_a_login_by_browser_listens_on_this_machine_for_one_token_of_its_own() -> None:
    """Run against a real Kinto with the plugin openid, and a provider in this process."""
    statuses: list[int] = []

    class Attacked(Browser):
        def follow(self, url: str) -> None:
            self.callback = urlsplit(callback(url))
            forged = b64encode(json.dumps({"access_token": "evil", "token_type": "Bearer"}).encode()).decode()
            paths = (f"/auth/{forged}", f"/auth/?token={forged}", f"/auth/{'0' * 43}/{forged}", "/")
            statuses.extend(fetch(f"http://{self.callback.netloc}{path}") for path in paths)
            super().follow(url)

    browser = Attacked()
    with openid_provider() as settings, EmbeddedServer.memory(**settings) as server, listening(server) as url:
        heard = Listening()
        with Client(url, auth=BrowserOAuth(open_browser=browser)) as client:
            user = client.server_info()["user"]["id"]
        heard.is_on = False
        browser.wait()

    assert user == "stub:alexis"
    assert statuses == [404] * 4
    assert {address[0] for address in heard.addresses} == {"127.0.0.1"}
    assert len(browser.callback.path.split("/")[2]) >= 43  # 256 random bits
    with pytest.raises(OSError, match="refused"):  # one token, then it is over
        socket.create_connection((browser.callback.hostname or "", browser.callback.port or 0), timeout=1)


def test_g25_a_login_by_browser_is_not_waited_for_longer_than_two_minutes() -> None:
    assert inspect.signature(BrowserOAuth).parameters["timeout"].default == 120

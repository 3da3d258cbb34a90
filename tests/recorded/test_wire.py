"""What goes over the wire, word by word: recorded from real Kinto servers, replayed from ``cassettes/``."""

from __future__ import annotations

import base64
import inspect
import json
import re
import socket
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from fxa_stub import CLIENT_ID, EMAIL, firefox_accounts, kinto_settings
from fxa_stub import PASSWORD as FXA_PASSWORD
from openid_stub import TOKEN, Browser, callback, openid_provider
from recording import CASSETTES, PASSWORD, PLACEHOLDERS, USER, Wire
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from kinto_orm import (
    Account,
    AlertWarning,
    BadRequestError,
    BrowserOAuth,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    FxaAuth,
    MethodNotAllowedError,
    Record,
    ServiceGoneError,
)

SPENT = 946_684_800_000
"""A timestamp that a record has already."""


def create_todos(client: Client, **data: object) -> Collection[Record]:
    """Create a collection on the server, in two requests."""
    payments = Bucket(id="payments", client=client).save()
    return Collection(bucket=payments, id="todos", data=data).save()


def commit_refused(client: Client, *objects: Bucket | Record) -> list[tuple[str, str]]:
    """Save them as one batch, of which the server refuses some, and return the outcomes."""
    uow = client.unit_of_work()
    for one in objects:
        uow.save(one)
    with pytest.raises(CommitError) as caught:
        uow.commit()
    return [(one.object.id, one.status) for one in caught.value.outcomes]


def test_every_write_carries_its_precondition(wire: Wire) -> None:
    with wire.client() as client:
        todos = create_todos(client)
        todo = Record(collection=todos, id="milk", data={"title": "Buy milk", "done": False}).save()
        seen = [todo.last_modified]
        todo.data["done"] = True
        todo.save()
        seen.append(todo.last_modified)
        del todo.data["title"]
        todo.save()
        seen.append(todo.last_modified)
        todo.replace()
        seen.append(todo.last_modified)
        todo.save()  # clean: nothing is sent
        todo.delete()

    path = "/buckets/payments/collections/todos/records/milk"
    as_json, as_merge = "Content-Type: application/json", "Content-Type: application/merge-patch+json"
    assert wire.conversation[2:] == [
        f"PUT {path} {as_json} If-None-Match: * -> 201",
        f'PATCH {path} {as_json} If-Match: "{seen[0]}" -> 200',
        f'PATCH {path} {as_merge} If-Match: "{seen[1]}" -> 200',
        f'PUT {path} {as_json} If-Match: "{seen[2]}" -> 200',
        f'DELETE {path} If-Match: "{seen[3]}" -> 200',
    ]


def test_small_pages_of_the_server_are_followed_to_the_end(wire: Wire) -> None:
    with wire.client(paginate_by=2) as client:
        todos = create_todos(client)
        todos.records.bulk_create({"id": f"todo-{number}", "number": number} for number in range(5))

        numbers = [todo.data["number"] for todo in todos.records]

    assert numbers == [0, 1, 2, 3, 4]
    assert [bool(page) for page in wire.answers("Next-Page")[-3:]] == [True, True, False]


def test_default_bucket_answers_with_its_real_id(wire: Wire) -> None:
    with wire.client(paginate_by=1) as client:
        receipts = client.bucket("default").collection("receipts")
        for number in range(2):
            Record(collection=receipts, id=f"receipt-{number}", data={"number": number}).save()

        numbers = [receipt.data["number"] for receipt in receipts.records]

    assert numbers == [0, 1]
    assert "/buckets/default/" not in str(wire.answers("Next-Page")[-2])


def test_stale_save_is_told_what_the_server_has(wire: Wire) -> None:
    with wire.client() as client:
        todos = create_todos(client)
        mine = Record(collection=todos, id="milk", data={"title": "Buy milk", "done": False}).save()
        todos.records.get("milk").patch(title="Buy oat milk")
        mine.data["done"] = True

        with pytest.raises(ConflictError) as caught:
            mine.save()
        caught.value.overwrite()

    assert caught.value.base == {"title": "Buy milk", "done": False}
    assert caught.value.mine == {"title": "Buy milk", "done": True}
    assert caught.value.theirs == {"title": "Buy oat milk", "done": False}
    assert wire.conversation[-2].endswith("-> 412")
    assert f'If-Match: "{caught.value.theirs_last_modified}" -> 200' in wire.conversation[-1]


def test_stale_write_in_the_middle_leaves_the_rest_of_a_batch_stored(wire: Wire) -> None:
    with wire.client() as client:
        todos = create_todos(client)
        stale = Record(collection=todos, id="b", data={"title": "mine"}).save()
        todos.records.get("b").patch(title="theirs")
        stale.data["title"] = "mine again"
        a, c = (Record(collection=todos, id=id, data={"title": "new"}) for id in "ac")

        outcomes = commit_refused(client, a, stale, c)
        titles = {todo.id: todo.data["title"] for todo in todos.records}

    assert outcomes == [("a", "created"), ("b", "conflict"), ("c", "created")]
    assert titles == {"a": "new", "b": "theirs", "c": "new"}


class BackdatedWrite(AuthBase):
    """Gives the records called ``twin`` a timestamp that another record has: on PostgreSQL, two writers in one
    millisecond. It stands here because a client of ours refuses to send ``last_modified``."""

    def __call__(self, prepared: PreparedRequest) -> PreparedRequest:
        body = prepared.body
        assert body is None or isinstance(body, bytes)
        if body and b"twin" in body:
            content = json.loads(body)
            for entry in content.get("requests", [{"path": prepared.path_url, "body": content}]):
                if "twin" in entry["path"]:
                    entry["body"]["data"]["last_modified"] = SPENT
            prepared.prepare_body(json.dumps(content).encode(), None)
        return HTTPBasicAuth(USER, PASSWORD)(prepared)


def test_write_in_the_same_millisecond_undoes_what_came_before_it_in_a_batch(wire: Wire) -> None:
    with wire.client(postgres=True, auth=BackdatedWrite()) as client:
        todos = create_todos(client)
        todos.records.bulk_create([{"id": "twin-1"}])

        outcomes = commit_refused(client, *(Record(collection=todos, id=id, data={}) for id in ("a", "twin-2", "z")))
        stored = [todo.id for todo in todos.records]

    assert outcomes == [("a", "rolled_back"), ("twin-2", "rolled_back"), ("z", "created")]
    assert stored == ["twin-1", "z"]


def test_server_under_load_is_heard_with_every_answer(wire: Wire) -> None:
    with wire.client(backoff=10) as client, client.clone(on_backoff="ignore") as impatient:
        create_todos(impatient)

    assert wire.answers("Backoff") == ["10", "10"]


def test_server_that_will_end_still_answers(wire: Wire) -> None:
    warned = pytest.warns(AlertWarning, match=r"soft-eol\): Move on. https://example.com/")
    with (
        wire.client(eos="2999-12-31", eos_message="Move on.", eos_url="https://example.com/") as client,
        warned as told,
    ):
        todos = create_todos(client)

    assert len(told) == 1

    assert todos.id == "todos"
    assert all("soft-eol" in str(alert) for alert in wire.answers("Alert"))


def test_server_that_has_ended_says_so(wire: Wire) -> None:
    over = wire.client(eos="2020-12-31", eos_message="It is over.", eos_url="https://example.com/")
    with over as client, pytest.raises(ServiceGoneError, match="410"):
        create_todos(client)

    assert "hard-eol" in str(wire.answers("Alert")[0])


def test_read_only_server_refuses_writes_alone_and_in_a_batch(wire: Wire) -> None:
    with wire.client(readonly=True) as client:
        with pytest.raises(MethodNotAllowedError, match="405"):
            Bucket(id="payments", client=client).save()
        outcomes = commit_refused(client, Bucket(id="payments", client=client))

    assert outcomes == [("payments", "rejected")]


def test_record_that_breaks_the_schema_is_refused_with_the_reason(wire: Wire) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    with wire.client() as client:
        todos = create_todos(client, schema=schema)

        with pytest.raises(BadRequestError, match="title") as caught:
            Record(collection=todos, id="milk", data={"title": 3}).save()

    assert caught.value.status == 400
    assert caught.value.errno == 107


def test_token_of_firefox_accounts_that_has_run_out_is_renewed(wire: Wire) -> None:
    with firefox_accounts() as accounts:
        auth = FxaAuth(
            EMAIL,
            FXA_PASSWORD,
            client_id=CLIENT_ID,
            account_server_url=accounts.url,
            oauth_server_url=accounts.url,
        )
        with wire.client(auth=auth, **kinto_settings(accounts)) as client:
            payments = Bucket(id="payments", client=client).save()
            accounts.revoke_all()
            seen = f'"{payments.last_modified}"'
            payments.patch(title="Mine")

    as_json = "Content-Type: application/json"
    assert accounts.logins == 2
    assert wire.conversation == [
        f"PUT /buckets/payments {as_json} If-None-Match: * -> 201",
        f"PATCH /buckets/payments {as_json} If-Match: {seen} -> 401",
        f"PATCH /buckets/payments {as_json} If-Match: {seen} -> 200",
    ]


def test_account_is_created_by_anybody_and_changes_its_password(wire: Wire) -> None:
    with wire.client(auth=None) as client:
        Account(id="alexis@example.org", password="old-p4ss", client=client).save()
        with client.clone(auth=("alexis@example.org", "old-p4ss")) as mine:
            me = mine.accounts.get("alexis@example.org")
            seen = me.last_modified
            me.password = PASSWORD
            me.save()
        with client.clone(auth=("alexis@example.org", PASSWORD)) as again:
            user = again.server_info()["user"]["id"]
            again.accounts.get("alexis@example.org").delete()

    path, as_json = "/accounts/alexis%40example.org", "Content-Type: application/json"
    assert user == "account:alexis@example.org"
    assert [line for line in wire.conversation if not line.startswith("GET / ")] == [
        f"PUT {path} {as_json} If-None-Match: * -> 201",
        f"GET {path} -> 200",
        f'PATCH {path} {as_json} If-Match: "{seen}" -> 200',
        f"GET {path} -> 200",
        f'DELETE {path} If-Match: "{me.last_modified}" -> 200',
    ]


class Bringing(Browser):
    """Brings the token, as Kinto's last redirect does; not by an HTTP library, because the test patches those."""

    def follow(self, url: str) -> None:
        token = base64.b64encode(json.dumps({"access_token": TOKEN, "token_type": "Bearer"}).encode()).decode()
        where = urlsplit(callback(url))
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as connection:
            connection.sendall(f"GET {where.path}{quote(token)} HTTP/1.0\r\n\r\n".encode())
            connection.recv(1)


def test_login_by_browser_asks_for_the_provider_first(wire: Wire) -> None:
    browser = Bringing()
    with openid_provider() as settings, wire.client(auth=BrowserOAuth(open_browser=browser), **settings) as client:
        payments = Bucket(id="payments", client=client).save()
    browser.wait()

    assert "stub:alexis" in payments.permissions.write
    assert wire.conversation == [
        "GET / -> 200",
        "PUT /buckets/payments Content-Type: application/json If-None-Match: * -> 201",
    ]


class TestCassettes:
    """What holds for all of them."""

    def test_each_belongs_to_a_test(self) -> None:
        tests = inspect.getmembers(sys.modules[__name__], inspect.isfunction)
        names = {name.removeprefix("test_") for name, test in tests if "wire" in inspect.signature(test).parameters}

        assert {path.name for path in CASSETTES.iterdir()} == {f"{name}.yaml" for name in names}

    def test_none_holds_a_secret(self) -> None:
        assert {path.name: secrets for path in CASSETTES.iterdir() if (secrets := find_secrets(path))} == {}

    def test_none_depends_on_where_it_was_recorded(self) -> None:
        text = "".join(path.read_text("utf-8") for path in CASSETTES.iterdir())

        assert re.findall(r"127\.0\.0\.1|localhost", text) == []


def find_secrets(path: Path) -> set[str]:
    text = path.read_text("utf-8")
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    found = {
        secret
        for secret in (PASSWORD, "old-p4ss", "$2b$", FXA_PASSWORD, EMAIL, TOKEN, encoded, "Basic ")
        if secret in text
    }
    found |= set(re.findall(r"Bearer (?!realm=)\S+", text))
    found |= set(re.findall(r"[0-9a-f]{32,}", text))  # a user's id is a hash of the password
    headers = re.findall(r"(?i)(?:authorization|cookie):\n +- (.*)", text)
    return found | (set(headers) - set(PLACEHOLDERS.values()))

"""Accounts: users with a password that is written, never read, and never sent back by accident."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import bcrypt
import pytest
from lossy import LossyAdapter, lossy
from pydantic import SecretStr
from scripted_server import Serve, said

from kinto_orm import (
    Account,
    AmbiguousWriteError,
    Bucket,
    CapabilityMissingError,
    Client,
    CommitError,
    ConflictError,
    ForbiddenError,
    InvalidIdError,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    KintoError,
    MergePatch,
    NotBoundError,
    NotFoundError,
    NotStageableError,
    UnitOfWorkError,
)
from kinto_orm.protocol.accounts import without_hashes
from kinto_orm.protocol.json_values import decode
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.server import EmbeddedServer

ADMIN = ("admin", "admin-p4ss")
SECRET = "n3w-s3cr3t"
SETTINGS = {"account_write_principals": "account:admin", "account_read_principals": "account:admin"}


@pytest.fixture(scope="module", autouse=True)
def cheap_hashes() -> Iterator[None]:
    """Passwords are hashed as ever, but with the least effort that bcrypt knows: Kinto's takes a third of a second."""
    with pytest.MonkeyPatch.context() as patch:
        gensalt = bcrypt.gensalt
        patch.setattr(bcrypt, "gensalt", lambda: gensalt(rounds=4))
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A Kinto with an administrator of accounts, where everybody may create their own."""
    with EmbeddedServer.memory(**SETTINGS) as server:
        yield server


@pytest.fixture
def nobody(server: EmbeddedServer) -> Iterator[Client]:
    server.flush()
    with Client.embedded(server=server, auth=None) as client:
        yield client


@pytest.fixture
def admin(nobody: Client) -> Client:
    Account(id=ADMIN[0], password=ADMIN[1], client=nobody).save()
    return nobody.clone(auth=ADMIN)


@pytest.fixture
def alexis(admin: Client) -> Account:
    """An account, as the administrator has it."""
    return admin.accounts.create(id="alexis", data={"password": "old-p4ss", "name": "Alexis"})


class Person(Account):
    name: str = ""
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it


def user_of(client: Client, *auth: str) -> str:
    """Who that is, as the server says it."""
    return str(client.clone(auth=tuple(auth)).server_info()["user"]["id"])


def is_account(client: Client, id: str, password: str) -> bool:
    """Return whether the account can log in; else Kinto takes the caller for another user, by basic authentication."""
    return user_of(client, id, password) == f"account:{id}"


def hash_of(server: EmbeddedServer, id: str) -> str:
    """Return the hash that the server stores, asked by an HTTP library."""
    import requests

    session = requests.Session()
    session.mount(server.url, server.adapter())
    return str(session.get(f"{server.url}/accounts/{id}", auth=ADMIN).json()["data"]["password"])


class TestLife:
    def test_anybody_creates_an_account_and_logs_in(self, nobody: Client) -> None:
        account = Account(id="alexis", password=SECRET, client=nobody).save()

        assert account.permissions.write == {"account:alexis"}
        assert is_account(nobody, "alexis", SECRET)

    @pytest.mark.parametrize("id", ["alexis@example.com", "alexis+kinto@example.com", "a.l-e_x"])
    def test_an_e_mail_address_is_an_id(self, nobody: Client, id: str) -> None:
        Account(id=id, password=SECRET, client=nobody).save()
        mine = nobody.clone(auth=(id, SECRET))

        assert mine.accounts.get(id).data == {}
        mine.account(id).patch(name="Alexis")
        assert mine.accounts.get(id).data == {"name": "Alexis"}
        assert mine.accounts.get_or_none(id) is not None

    @pytest.mark.parametrize("id", ["", "@alexis", "a/b", "a b", "a:b", ".."])
    def test_an_id_that_kinto_would_refuse_is_refused(self, id: str) -> None:
        with pytest.raises(InvalidIdError):
            Account(id=id, password=SECRET)

    def test_many_are_found_by_their_ids(self, admin: Client) -> None:
        for id in ("alexis@example.com", "bob+kinto@example.com"):
            admin.accounts.create(id=id, password=SECRET)

        found = admin.accounts.get_many(["bob+kinto@example.com", "alexis@example.com"])

        assert {one.id for one in found} == {"alexis@example.com", "bob+kinto@example.com"}

    def test_only_accounts_have_such_ids(self) -> None:
        with pytest.raises(InvalidIdError, match="'-' and '_'"):
            Bucket(id="alexis@example.com")

    def test_an_id_is_drawn_for_no_account(self, nobody: Client) -> None:
        with pytest.raises(NotBoundError, match="construct it with id="):
            Account(password=SECRET, client=nobody).save()

    def test_an_account_is_in_no_bucket(self) -> None:
        with pytest.raises(InvalidTypeError, match="no bucket="):
            Account(id="alexis", bucket="b")  # type: ignore[call-arg]  # the mistake is the test

    def test_a_new_password_is_saved_and_the_old_one_is_dead(self, alexis: Account, admin: Client) -> None:
        alexis.password = SECRET
        assert alexis.is_dirty

        alexis.save()

        assert not alexis.is_dirty
        assert alexis.password is None
        assert is_account(admin, "alexis", SECRET)
        assert not is_account(admin, "alexis", "old-p4ss")

    @pytest.mark.parametrize("by", ["patch", "merge", "data", "replace"])
    def test_a_password_can_be_changed_in_each_way(self, alexis: Account, admin: Client, by: str) -> None:
        match by:
            case "patch":
                alexis.patch(password=SECRET)
            case "merge":
                alexis.patch(MergePatch({"password": SECRET, "name": None}))
            case "data":
                alexis.data["password"] = SECRET
                alexis.save()
            case _:
                alexis.password = SecretStr(SECRET)
                alexis.replace()

        assert is_account(admin, "alexis", SECRET)
        assert alexis.data == ({} if by == "merge" else {"name": "Alexis"})

    def test_a_change_of_something_else_leaves_the_password(
        self, alexis: Account, admin: Client, server: EmbeddedServer
    ) -> None:
        before = hash_of(server, "alexis")
        for account in (alexis, admin.accounts.get("alexis"), admin.accounts.first()):
            if account is not None and account.id == "alexis":
                account.refresh()
                account.data["name"] = f"{account.data.get('name')}!"
                account.save()
        del alexis.refresh().data["name"]
        alexis.save()

        assert hash_of(server, "alexis") == before
        assert is_account(admin, "alexis", "old-p4ss")

    def test_an_account_is_deleted(self, alexis: Account, admin: Client) -> None:
        alexis.delete()

        assert alexis.is_deleted
        assert not is_account(admin, "alexis", "old-p4ss")
        with pytest.raises(NotFoundError):
            admin.accounts.get("alexis")

    def test_own_password_is_changed_and_the_client_takes_the_new_one(self, nobody: Client) -> None:
        Account(id="alexis", password="old-p4ss", client=nobody).save()
        mine = nobody.clone(auth=("alexis", "old-p4ss"))
        me = mine.accounts.get("alexis")
        me.password = SECRET

        me.save()

        assert mine.server_info(refresh=True)["user"]["id"] != "account:alexis"
        assert nobody.clone(auth=("alexis", SECRET)).accounts.get("alexis").id == "alexis"

    def test_administrators_list_all_and_others_themselves(self, alexis: Account, admin: Client) -> None:
        assert sorted(one.id for one in admin.accounts) == ["admin", "alexis"]
        assert [one.id for one in admin.clone(auth=("alexis", "old-p4ss")).accounts] == ["alexis"]

    def test_others_cannot_write_it(self, alexis: Account, admin: Client) -> None:
        stranger = admin.clone(auth=("bob", "b"))

        with pytest.raises(ForbiddenError):
            stranger.account("alexis").patch(password=SECRET)

    def test_it_is_awaited_too(self, admin: Client) -> None:
        async def scenario() -> list[str]:
            account = await admin.accounts.acreate(id="alexis", password="old-p4ss")
            account.password = SECRET
            await account.asave()
            await account.arefresh()
            return [one.id async for one in admin.accounts.filter(id="alexis")]

        assert asyncio.run(scenario()) == ["alexis"]
        assert is_account(admin, "alexis", SECRET)

    def test_one_may_declare_more_fields(self, admin: Client) -> None:
        person = Person(id="alexis", password=SECRET, name="Alexis", client=admin).save()
        person.tags.append("new")
        person.save()

        assert is_account(admin, "alexis", SECRET)
        assert admin.accounts.get("alexis").data == {"name": "Alexis", "tags": ["new"]}

    def test_it_is_a_principal(self, alexis: Account, admin: Client) -> None:
        payments = Bucket(id="payments", permissions={"read": [alexis]}, client=admin).save()

        assert payments.permissions.read == {"account:alexis"}
        assert admin.clone(auth=("alexis", "old-p4ss")).bucket("payments").refresh().id == "payments"

    def test_get_or_create_leaves_the_password_of_one_that_exists(self, alexis: Account, admin: Client) -> None:
        again, created = admin.accounts.get_or_create("alexis", {"password": SECRET})
        bob, was_created = admin.accounts.get_or_create("bob", {"password": SECRET})

        assert (created, was_created) == (False, True)
        assert again.data == {"name": "Alexis"}
        assert is_account(admin, "alexis", "old-p4ss") and is_account(admin, "bob", SECRET)
        assert bob.password is None

    def test_many_are_read_in_parts_and_as_a_table_without_their_secrets(self, admin: Client) -> None:
        ids = [f"{name}+{n}@example.com" for name in ("alexis", "bob") for n in range(5)]
        for id in ids:
            admin.accounts.create(id=id, password=SECRET)
        everybody = sorted(["admin", *ids])
        query = admin.accounts.page_size(2)

        in_parallel = [one.id for one in query.parallel(2)]
        parts = query.partitions(3)
        table = query.to_arrow()

        assert in_parallel == [one.id for part in parts for one in part.read()] == everybody
        assert len(parts) == 3
        assert sorted(table["id"].to_pylist()) == everybody
        assert "$2b$" not in str(table.to_pydict())

    def test_it_is_edited_in_a_block(self, alexis: Account, admin: Client) -> None:
        for attempt in admin.accounts.edit("alexis"):
            with attempt as account:
                account.password = SECRET

        assert is_account(admin, "alexis", SECRET)

    def test_ensure_creates_and_leaves_passwords_alone(self, alexis: Account, admin: Client) -> None:
        for _ in range(2):
            admin.ensure(
                Account(id="alexis", password=SECRET),
                Account(id="payments", password=SECRET),
                Bucket(id="payments"),
            )

        assert is_account(admin, "alexis", "old-p4ss")
        assert is_account(admin, "payments", SECRET)


class TestUnitOfWork:
    def test_accounts_are_staged_like_all_else(self, alexis: Account, admin: Client) -> None:
        with admin.unit_of_work() as uow:
            alexis.password = SECRET
            alexis.save()
            bob = Account(id="bob", password="b0b").save()
            Bucket(id="payments", permissions={"read": [bob]}).save()

        assert [outcome.status for outcome in uow.outcomes] == ["updated", "created", "created"]
        assert (alexis.data, bob.data) == ({"name": "Alexis"}, {})
        assert is_account(admin, "alexis", SECRET) and is_account(admin, "bob", "b0b")

    def test_one_is_loaded_by_its_id(self, admin: Client) -> None:
        admin.accounts.create(id="alexis@example.com", password=SECRET)
        with admin.unit_of_work() as uow:
            uow.get(Account, "alexis@example.com").data["name"] = "Alexis"

        assert admin.accounts.get("alexis@example.com").data == {"name": "Alexis"}
        with admin.gather() as reads:
            found = reads.get(admin.accounts, "alexis@example.com")
        assert found.value.data == {"name": "Alexis"}

    def test_a_plan_shows_no_password(self, alexis: Account, admin: Client) -> None:
        uow = admin.unit_of_work()
        alexis.password = SECRET
        uow.save(alexis)
        plan = uow.plan()

        assert "'password': '***'" in str(plan)
        assert SECRET not in f"{plan} {plan!r}"
        uow.rollback()

    def test_what_takes_a_whole_account_is_refused(self, alexis: Account, admin: Client) -> None:
        uow = admin.unit_of_work()
        del alexis.data["name"]

        with pytest.raises(NotStageableError, match="outside of a unit of work"):
            uow.save(alexis)

    def test_a_conflict_in_a_batch_shows_no_hash(self, alexis: Account, admin: Client) -> None:
        admin.account("alexis").patch(name="Theirs")
        uow = admin.unit_of_work()
        alexis.password = SECRET
        uow.save(alexis)

        with pytest.raises(CommitError):
            uow.commit()

        error = uow.outcomes[0].error
        assert isinstance(error, ConflictError)
        assert "$2b$" not in f"{vars(error)}" and SECRET not in f"{error} {error.mine}"

    def test_a_password_cannot_be_compensated(self, alexis: Account, admin: Client) -> None:
        gone = admin.accounts.create(id="gone", password="g0ne")
        stale = admin.accounts.create(id="stale", password="st4le")
        admin.account("stale").patch(n=1)
        uow = admin.unit_of_work()
        alexis.password = SECRET
        uow.save(alexis)
        uow.save(Account(id="bob", password="b0b", client=admin))
        uow.delete(gone)
        stale.data["n"] = 2
        uow.save(stale)
        with pytest.raises(CommitError) as caught:
            uow.commit()

        undone = {one.object.id: one for one in caught.value.compensate()}

        assert undone["bob"].status == "deleted"
        assert isinstance(undone["alexis"].error, UnitOfWorkError) and isinstance(undone["gone"].error, UnitOfWorkError)
        assert "password was not known" in str(undone["alexis"].error)


class TestSecrets:
    def test_a_password_does_not_show(self, admin: Client, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        account = Account(id="alexis", password=SECRET, client=admin.clone(log_bodies=True))
        shown = [
            f"{account} {account!r} {account.data} {account.data!r} {dict(account.data)} {vars(account)}",
            f"{account.model_dump()} {account.model_dump_json()} {account.model_dump(mode='json', round_trip=True)}",
            f"{list(account.__repr_args__())} {account.password} {pickle.dumps(account)!r}",
        ]
        account.save()

        assert SECRET not in "".join(shown)
        assert SECRET not in caplog.text and "$2b$" not in caplog.text
        assert '"password": "***"' in caplog.text

    def test_it_is_no_data_that_can_be_read(self, alexis: Account) -> None:
        alexis.password = SECRET

        assert "password" not in alexis.data and len(alexis.data) == 1
        with pytest.raises(KeyError, match="never shown"):
            alexis.data["password"]

    def test_a_copy_keeps_it_and_a_pickle_does_not(self, alexis: Account) -> None:
        alexis.password = SECRET

        assert copy.deepcopy(alexis).password == SecretStr(SECRET)
        again = pickle.loads(pickle.dumps(alexis))
        assert (again.password, again.is_dirty, again.data) == (None, False, {"name": "Alexis"})

    def test_the_hash_is_nowhere(self, alexis: Account, admin: Client) -> None:
        listed = next(one for one in admin.accounts if one.id == "alexis")
        partial = next(one for one in admin.accounts.only("name", "password") if one.id == "alexis")
        (person,) = (one for one in admin.accounts.filter(id="alexis"))
        values = admin.accounts.filter(id="alexis").values("password", "name")

        assert (alexis.password, listed.password, person.password) == (None, None, None)
        for one in (alexis, listed, partial, person):
            assert "$2b$" not in f"{vars(one)} {one.__kinto_envelope__().data} {dict(one.data)}"
        assert "$2b$" not in str(list(values))

    def test_a_conflict_shows_neither_hash_nor_password(self, alexis: Account, admin: Client) -> None:
        admin.account("alexis").patch(name="Theirs")
        alexis.data["name"], alexis.password = "Mine", SECRET

        with pytest.raises(ConflictError) as caught:
            alexis.save()

        error = caught.value
        assert (error.base, error.mine, error.theirs) == ({"name": "Alexis"}, {"name": "Mine"}, {"name": "Theirs"})
        assert "$2b$" not in f"{vars(error)} {error} {error.body} {error.details}"
        assert SECRET not in f"{error} {error!r} {error.body} {error.details}"
        error.overwrite()
        assert is_account(admin, "alexis", SECRET)

    def test_an_account_that_somebody_else_created_shows_nothing(self, alexis: Account, nobody: Client) -> None:
        """Kinto shows anonymous users the hash of an account that exists."""
        with pytest.raises(KintoError) as caught:
            Account(id="alexis", password=SECRET, client=nobody).save()

        assert "$2b$" not in f"{vars(caught.value)} {caught.value}"

    def test_merging_keeps_the_new_password(self, alexis: Account, admin: Client) -> None:
        admin.account("alexis").patch(name="Theirs")
        alexis.password = SECRET

        alexis.save(on_conflict="merge")

        assert alexis.data == {"name": "Theirs"}
        assert is_account(admin, "alexis", SECRET)

    def test_deleted_meanwhile_shows_no_password(self, alexis: Account, admin: Client) -> None:
        admin.account("alexis").delete()
        alexis.password = SECRET
        conflicts: list[ConflictError] = []

        def look(conflict: ConflictError) -> Any:
            conflicts.append(conflict)
            return "raise"

        with pytest.raises(NotFoundError):
            alexis.save(on_conflict=look)

        assert conflicts[0].mine == {"name": "Alexis"}

    @pytest.mark.parametrize("value", [42, ["s3cr3t-list"]])
    def test_a_password_of_another_type_is_refused_without_showing_it(self, value: Any) -> None:
        with pytest.raises(InvalidValueError) as caught:
            Account(id="alexis", password=value)

        assert "s3cr3t-list" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("password", ["x" * 73, "é" * 37, "a\nb", "*" * 10])
    def test_n_a_password_with_which_nobody_could_log_in_is_refused(self, admin: Client, password: str) -> None:
        with pytest.raises(InvalidValueError) as caught:
            Account(id="alexis", password=password, client=admin).save()

        assert password not in str(caught.value)

    def test_n_an_empty_password_is_refused(self, admin: Client) -> None:
        with pytest.raises(InvalidValueError, match="not empty"):
            Account(id="alexis", password="", client=admin).save()

    def test_a_new_account_needs_a_password(self, admin: Client) -> None:
        with pytest.raises(InvalidValueError, match="needs a password"):
            Account(id="alexis", client=admin).save()

    def test_a_whole_account_is_not_stored_without_its_password(self, alexis: Account) -> None:
        with pytest.raises(InvalidValueError, match="its password is unknown"):
            alexis.replace()

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "replace", "path": "/data/password", "value": SECRET},
            {"op": "copy", "from": "/data/password", "path": "/data/name"},
            {"op": "add", "path": "/data", "value": {"password": SECRET}},
        ],
    )
    def test_a_json_patch_of_a_password_is_refused(self, alexis: Account, operation: dict[str, Any]) -> None:
        """Kinto stores such a password in clear."""
        with pytest.raises(InvalidValueError, match="in clear"):
            alexis.patch(JSONPatch([operation]))

    def test_a_json_patch_of_something_else_is_sent(self, alexis: Account, admin: Client) -> None:
        alexis.patch(JSONPatch([{"op": "add", "path": "/data/age", "value": 30}]))

        assert alexis.data == {"name": "Alexis", "age": 30}
        assert is_account(admin, "alexis", "old-p4ss")


class TestLostAnswers:
    """With a password, nothing tells whose write was found."""

    @pytest.fixture
    def network(self, server: EmbeddedServer, alexis: Account) -> Iterator[tuple[Client, LossyAdapter]]:
        client, adapter = lossy(server, auth=ADMIN)
        client.server_info()
        yield client, adapter
        client.close()

    def test_a_password_that_may_be_set_is_in_doubt(self, network: tuple[Client, LossyAdapter], admin: Client) -> None:
        client, adapter = network
        account = client.accounts.get("alexis")
        account.password = SECRET
        adapter.plan.append("lost after")

        with pytest.raises(AmbiguousWriteError, match="log in with it"):
            account.save()

        assert is_account(admin, "alexis", SECRET)

    def test_a_change_of_something_else_is_recognised(self, network: tuple[Client, LossyAdapter]) -> None:
        client, adapter = network
        account = client.accounts.get("alexis")
        account.data["name"] = "Mine"
        adapter.plan.append("lost after")

        account.save()

        assert not account.is_dirty

    def test_a_password_on_top_of_what_was_lost_is_sent(
        self, network: tuple[Client, LossyAdapter], admin: Client
    ) -> None:
        client, adapter = network
        account = client.clone(retry=0).accounts.get("alexis")
        account.data["name"] = "Mine"
        adapter.plan.append("lost after")
        with pytest.raises(KintoError):
            account.save()
        account.password = SECRET

        account.save()

        assert is_account(admin, "alexis", SECRET)

    def test_a_deletion_is_recognised(self, network: tuple[Client, LossyAdapter]) -> None:
        client, adapter = network
        account = client.accounts.get("alexis")
        adapter.plan.append("lost after")

        account.delete()

        assert account.is_deleted


@pytest.fixture(scope="module")
def bare() -> Iterator[Client]:
    """A client of a Kinto without accounts."""
    settings = {"includes": "kinto.plugins.default_bucket", "multiauth.policies": "basicauth"}
    with Client.embedded(settings=settings) as client:
        yield client
    client.close()


class TestCapability:
    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda client: Account(id="a", password="b", client=client).save(), id="save"),
            pytest.param(lambda client: client.account("a").patch(n=1), id="patch"),
            pytest.param(lambda client: client.account("a").delete(), id="delete"),
            pytest.param(lambda client: client.account("a").refresh(), id="refresh"),
            pytest.param(lambda client: client.accounts.get("a"), id="get"),
            pytest.param(lambda client: client.accounts.all(), id="all"),
            pytest.param(lambda client: list(client.accounts.parallel(2)), id="parallel"),
            pytest.param(lambda client: client.accounts.partitions(2), id="partitions"),
            pytest.param(lambda client: client.accounts.to_arrow(), id="to_arrow"),
            pytest.param(lambda client: list(client.accounts), id="iterate"),
            pytest.param(lambda client: client.accounts.get_or_create("a", {"password": "b"}), id="get_or_create"),
            pytest.param(lambda client: client.accounts.bulk_create([{"id": "a", "password": "b"}]), id="bulk"),
            pytest.param(lambda client: client.unit_of_work().get(Account, "a"), id="unit"),
            pytest.param(lambda client: next(iter(client.accounts.edit("a"))).__enter__(), id="edit"),
        ],
    )
    def test_without_the_plugin_each_verb_names_it(self, bare: Client, call: Any) -> None:
        with pytest.raises(CapabilityMissingError, match=r"kinto\.plugins\.accounts"):
            call(bare)


class TestAnswers:
    def test_what_is_no_object_is_left_as_it_is(self) -> None:
        for body in (b"", b"<html>", b"[]", b'{"data":[1],"details":[]}', b'{"data":null}'):
            response = without_hashes(Request("GET", "/accounts"), Response(200, body=body))
            assert response.body == body

    def test_a_batch_is_searched_for_accounts(self) -> None:
        entries = [
            {"path": "/v1/accounts/a", "body": {"data": {"id": "a", "password": "$2b$"}}},
            {"path": "/v1/buckets/accounts", "body": {"data": {"id": "accounts", "password": "kept"}}},
            {"path": "/v1/accounts?_limit=1", "body": {"details": {"existing": {"password": "$2b$"}}}},
            "/accounts",
        ]
        body = json.dumps({"responses": entries}).encode()

        clean = decode(without_hashes(Request("POST", "/batch"), Response(200, body=body)).body, "")

        assert [one["body"] for one in clean["responses"][:3]] == [
            {"data": {"id": "a"}},
            {"data": {"id": "accounts", "password": "kept"}},
            {"details": {"existing": {}}},
        ]

    @pytest.mark.parametrize("body", [b'["/accounts"]', b'{"responses": "/accounts"}'])
    def test_a_batch_that_is_none_is_left(self, body: bytes) -> None:
        response = without_hashes(Request("POST", "/batch"), Response(200, body=body))

        assert decode(response.body, "") == json.loads(body)

    def test_records_keep_their_passwords(self, serve: Serve) -> None:
        server = serve(said({"data": {"id": "x", "last_modified": 5, "password": "theirs"}}))
        with Client(server.url, bucket="b", collection="c") as client:
            assert client.bucket("b").collection("c").records.get("x").data["password"] == "theirs"

    def test_history_is_not_looked_for(self, alexis: Account, admin: Client) -> None:
        """Accounts are in no bucket, which could have one."""
        alexis.patch(name="Seen")
        old = admin.account("alexis")
        old.patch(name="Theirs")
        with pytest.raises(ConflictError) as caught:
            admin.account("alexis").patch({"name": "Mine"}, if_match=1)

        with pytest.raises(KintoError):
            caught.value.merge()


def test_l08_a_password_shows_nowhere(kinto_client: Client) -> None:
    secret = "s3cret-p4ss"
    account = Account(id="rita", password=secret, client=kinto_client.clone(auth=None)).save()
    rita = kinto_client.clone(auth=("rita", secret))
    account.__kinto_envelope__().client = rita
    account.refresh().password = f"{secret}-2"
    with rita.unit_of_work() as uow:
        account.save()
        account.replace()
        shown = [str(uow.plan()), repr(uow.plan()), json.dumps(uow.plan().as_json())]
        uow.rollback()
    with rita.clone(dry_mode=True) as dry:
        dry.account("rita").patch(password=f"{secret}-3")
        shown += [str(dry.plan()), json.dumps(dry.plan().as_json())]
    rita.account("rita").patch(colour="blue")
    with pytest.raises(ConflictError) as caught:
        account.save()
    shown += [str(caught.value), repr(caught.value), repr(caught.value.resolution), str(caught.value.resolution)]
    shown += [repr(vars(caught.value)), repr(caught.value.mine), repr(caught.value.theirs), repr(account), str(account)]
    with pytest.raises(CommitError) as failed:
        rita.accounts.bulk_update([account])
    shown += [str(failed.value), repr(failed.value.outcomes), repr(failed.value.report)]

    assert [one for one in shown if secret in one] == []

"""Batches with ``X-Batch-Atomic: true``: all of it is stored or nothing, on PostgreSQL and on the memory server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import requests

from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import DEFAULT_SETTINGS, Setting, build_application, import_extra
from kinto_orm.server.atomic_batch import all_succeeded, can_undo
from kinto_orm.server.embedded import SECRET
from kinto_orm.server.memory import MemoryPermission, snapshot_of_cache, take_snapshot

ATOMIC = {"X-Batch-Atomic": "true"}
STALE = {"If-Match": '"1"'}
BUCKET, COLLECTION = "/buckets/b", "/buckets/b/collections/c"
RECORDS = f"{COLLECTION}/records"
X = f"{RECORDS}/x"

# This module is also a plugin of Kinto's, whose listeners do what a record tells them.
INCLUDES = f"{DEFAULT_SETTINGS['includes']} {__name__}"
committed: list[str] = []


def includeme(config: Any) -> None:
    events = import_extra("kinto.core.events")
    config.add_subscriber(obey, events.ResourceChanged, for_resources=("record",))
    config.add_subscriber(note, events.AfterResourceChanged, for_resources=("record",))


def obey(event: Any) -> None:
    errors, answers = import_extra("kinto.core.errors"), import_extra("pyramid.httpexceptions")
    for change in event.impacted_objects:
        match change["new"].get("listener"):
            case "refuse":
                raise errors.http_error(answers.HTTPForbidden(), message="The listener refuses.")
            case "fail":
                raise ValueError("The listener fails.")
            case "interrupt":
                raise KeyboardInterrupt


def note(event: Any) -> None:
    committed.extend(change["new"]["id"] for change in event.impacted_objects)


def commit_all(request: Any, response: Any) -> bool:
    """Accept every batch, as the veto of an operator may."""
    return False


def commit_nothing(request: Any, response: Any) -> bool:
    """Veto every batch."""
    return True


def is_never_active(request: Any) -> bool:
    """For the setting ``tm.activate_hook``."""
    return False


@dataclass
class Caller:
    """Sends what it is told to a server, as one user."""

    server: EmbeddedServer
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.mount(self.server.url, self.server.adapter())
        self.session.auth = ("me", "secret")

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(method, self.server.url + path, json=body, headers=named)

    def batch(self, *entries: dict[str, Any], headers: dict[str, str] = ATOMIC) -> requests.Response:
        return self.session.post(f"{self.server.url}/batch", json={"requests": entries}, headers=headers)

    def capabilities(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.send("GET", "/").json()["capabilities"]
        return answer

    def state(self) -> dict[str, Any]:
        """All that the server can be asked for: objects, tombstones, permissions, timestamps, history."""
        lists = ["/buckets", f"{BUCKET}/groups", f"{BUCKET}/collections", RECORDS, f"{BUCKET}/history"]
        objects = [BUCKET, COLLECTION, f"{BUCKET}/groups/g", X, f"{RECORDS}/y", "/permissions"]
        answers = {path: self.send("GET", path) for path in [*(f"{path}?_since=0" for path in lists), *objects, "/"]}
        return {path: (answer.json(), answer.headers.get("ETag")) for path, answer in answers.items()}


def entry(method: str, path: str, data: Any = None, permissions: Any = None, **headers: str) -> dict[str, Any]:
    """One request of a batch."""
    body = {name: value for name, value in (("data", data), ("permissions", permissions)) if value is not None}
    # Spelled in lower case, or Kinto takes a merge patch for a plain one.
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"method": method, "path": path, "headers": named, **({"body": body} if body else {})}


def put(id: str, **data: Any) -> dict[str, Any]:
    return entry("PUT", f"{RECORDS}/{id}", data)


REFUSED = entry("PUT", X, {"n": 2}, If_Match=STALE["If-Match"])


Serve = Callable[..., "Caller"]


def statuses(answer: requests.Response) -> list[int]:
    return [one["status"] for one in answer.json()["responses"]]


def is_rolled_back(answer: requests.Response) -> bool:
    return answer.headers.get("X-Batch-Rolled-Back") == "true"


@pytest.fixture(scope="module")
def memory() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory(includes=INCLUDES, flush=True) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.postgres(tmp_path_factory.mktemp("data"), includes=INCLUDES, flush=True) as server:
        yield server


@pytest.fixture(params=["memory", "postgres"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """A server with a bucket, a group, a collection and two records."""
    server: EmbeddedServer = request.getfixturevalue(request.param)
    yield filled(server)
    server.flush()


@pytest.fixture
def on_postgres(postgres: EmbeddedServer) -> Iterator[Caller]:
    yield filled(postgres)
    postgres.flush()


def filled(server: EmbeddedServer) -> Caller:
    caller = Caller(server)
    for path, data in (
        (BUCKET, {}),
        (f"{BUCKET}/groups/g", {"members": ["bob", "alice"]}),
        (COLLECTION, {"schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}),
        (X, {"n": 1, "deep": {"er": {"est": 1}}}),
        (f"{RECORDS}/y", {"n": 1}),
    ):
        assert caller.send("PUT", path, {"data": data, "permissions": {"read": ["bob"]}}).status_code == 201
    committed.clear()
    return caller


def test_capability_is_advertised(caller: Caller) -> None:
    capability = caller.capabilities()["atomic_batch"]

    assert "X-Batch-Atomic" in capability["description"]
    assert capability["url"].startswith("https://docs.kinto-storage.org/")


def test_of_a_batch_with_a_refused_request_nothing_is_stored(caller: Caller) -> None:
    before = caller.state()

    answer = caller.batch(put("n1"), REFUSED, put("n2"))

    assert (answer.status_code, statuses(answer)) == (200, [201, 412, 201])
    assert is_rolled_back(answer)
    assert caller.state() == before


def test_batch_that_succeeds_is_stored(caller: Caller) -> None:
    answer = caller.batch(put("n1", n=5), entry("DELETE", f"{RECORDS}/y"), entry("GET", X))

    assert statuses(answer) == [201, 200, 200]
    assert "X-Batch-Rolled-Back" not in answer.headers
    assert caller.send("GET", f"{RECORDS}/n1").json()["data"]["n"] == 5
    assert caller.send("GET", f"{RECORDS}/y").status_code == 404
    actions = [one["action"] for one in caller.send("GET", f"{BUCKET}/history?_limit=2").json()["data"]]
    assert sorted(actions) == ["create", "delete"]
    assert sorted(committed) == ["n1", "y"]


@pytest.mark.parametrize("headers", [{}, {"X-Batch-Atomic": "false"}], ids=["none", "false"])
def test_without_the_header_the_others_are_stored(caller: Caller, headers: dict[str, str]) -> None:
    answer = caller.batch(put("n1"), REFUSED, put("n2"), headers=headers)

    assert statuses(answer) == [201, 412, 201]
    assert not is_rolled_back(answer)
    assert [caller.send("GET", f"{RECORDS}/{id}").status_code for id in ("n1", "n2")] == [200, 200]


def test_header_is_read_in_any_case(caller: Caller) -> None:
    assert is_rolled_back(caller.batch(REFUSED, headers={"x-batch-atomic": "True "}))


def test_header_that_means_nothing_is_refused(caller: Caller) -> None:
    before = caller.state()

    answer = caller.batch(put("n1"), headers={"X-Batch-Atomic": "1"})

    assert (answer.status_code, answer.json()["errno"]) == (400, 107)
    assert "X-Batch-Atomic is true or false, not 1." in answer.json()["message"]
    assert caller.state() == before


def test_header_means_nothing_elsewhere(caller: Caller) -> None:
    stored = caller.send("PUT", X, {"data": {"n": 2}}, X_Batch_Atomic="true")
    missing = caller.send("GET", "/batch", X_Batch_Atomic="true")
    refused = caller.send("PUT", X, {"data": {"n": 3}}, X_Batch_Atomic="true", **{"If-Match": '"1"'})

    assert [stored.status_code, missing.status_code, refused.status_code] == [200, 405, 412]
    assert not is_rolled_back(refused)
    assert not is_rolled_back(caller.batch(put("n1") | {"headers": ATOMIC}, REFUSED, headers={}))


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        pytest.param(put("n2", n="not a number"), 400, id="schema"),
        pytest.param(entry("PUT", "/buckets/elsewhere/collections/c", {}), 403, id="forbidden"),
        pytest.param(entry("PUT", X, {}, Authorization=""), 401, id="anonymous"),
        pytest.param(entry("PATCH", f"{RECORDS}/missing", {"n": 1}), 404, id="missing"),
        pytest.param(entry("POST", X, {}), 405, id="method"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_every_kind_of_refusal_rolls_back(caller: Caller, refused: dict[str, Any], status: int, is_first: bool) -> None:
    before = caller.state()

    answer = caller.batch(*([refused, put("n1")] if is_first else [put("n1"), refused]))

    assert status in statuses(answer)
    assert is_rolled_back(answer)
    assert caller.state() == before


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(entry("POST", RECORDS, {"n": 9}), id="post"),
        pytest.param(entry("PUT", X, {"n": 9}), id="replace"),
        pytest.param(entry("PATCH", X, {"n": 9}), id="patch"),
        pytest.param(
            entry("PATCH", X, {"deep": {"er": {"est": 9}}}, content_type="application/merge-patch+json"), id="merge"
        ),
        pytest.param(entry("DELETE", X), id="delete"),
        pytest.param(entry("DELETE", RECORDS), id="delete-all"),
        pytest.param(entry("DELETE", f"{RECORDS}?id=y"), id="delete-some"),
        pytest.param(entry("DELETE", COLLECTION), id="delete-collection"),
        pytest.param(entry("DELETE", BUCKET), id="delete-bucket"),
        pytest.param(entry("DELETE", "/buckets"), id="delete-buckets"),
        pytest.param(entry("DELETE", f"{BUCKET}/groups/g"), id="delete-group"),
        pytest.param(entry("PUT", f"{BUCKET}/groups/g", {"members": ["bob", "carol"]}), id="members"),
        pytest.param(entry("PATCH", X, permissions={"read": ["carol"], "write": ["bob"]}), id="permissions"),
        pytest.param(entry("PATCH", BUCKET, permissions={"read": []}), id="no-permissions"),
        pytest.param(entry("PATCH", COLLECTION, {"schema": {}}), id="schema"),
        pytest.param(entry("PUT", "/buckets/default/collections/new/records/r", {}), id="default-bucket"),
        pytest.param(put("n1", last_modified=10**14), id="future"),
    ],
)
def test_every_kind_of_write_is_rolled_back(caller: Caller, write: dict[str, Any]) -> None:
    before = caller.state()

    answer = caller.batch(write, entry("GET", "/buckets/never-there"))

    first, second = statuses(answer)
    assert (first // 100, second) == (2, 403)
    assert is_rolled_back(answer)
    assert caller.state() == before


def test_writes_after_a_rollback_are_as_if_it_had_not_been(caller: Caller) -> None:
    seen = caller.send("GET", X).headers["ETag"]
    caller.batch(entry("PATCH", X, {"n": 7}), entry("DELETE", f"{RECORDS}/y"), entry("DELETE", BUCKET), REFUSED)

    changed = caller.send("PATCH", X, {"data": {"n": 2}}, If_Match=seen)
    deleted = caller.send("DELETE", f"{RECORDS}/y")

    assert (changed.status_code, deleted.status_code) == (200, 200)
    assert changed.json()["data"]["deep"] == {"er": {"est": 1}}
    assert changed.json()["permissions"]["read"] == ["bob"]


def test_group_members_are_as_they_were(caller: Caller) -> None:
    member = caller.send("GET", "/").json()["user"]["id"]
    caller.batch(entry("PATCH", f"{BUCKET}/groups/g", {"members": [member]}), REFUSED)
    assert f"{BUCKET}/groups/g" not in caller.send("GET", "/").json()["user"]["principals"]

    caller.batch(entry("PATCH", f"{BUCKET}/groups/g", {"members": [member]}))
    caller.batch(entry("PATCH", f"{BUCKET}/groups/g", {"members": []}), REFUSED)
    assert f"{BUCKET}/groups/g" in caller.send("GET", "/").json()["user"]["principals"]
    caller.batch(entry("DELETE", f"{BUCKET}/groups/g"), REFUSED)
    assert f"{BUCKET}/groups/g" in caller.send("GET", "/").json()["user"]["principals"]


def test_batch_that_fails_stores_nothing(caller: Caller) -> None:
    before = caller.state()
    seen = before[X][1]

    # Kinto cannot say 304 in a batch.
    answer = caller.batch(put("n1"), entry("GET", X, If_None_Match=seen), put("n2"))

    assert answer.status_code == 500
    assert is_rolled_back(answer)
    assert caller.state() == before


@pytest.mark.parametrize(("order", "status"), [("refuse", 403), ("fail", 500)])
def test_listener_that_raises_rolls_back(caller: Caller, order: str, status: int) -> None:
    before = caller.state()

    answer = caller.batch(put("n1"), put("n2", listener=order))

    assert answer.status_code == status
    assert is_rolled_back(answer)
    assert caller.state() == before


def test_interrupted_batch_stores_nothing(caller: Caller) -> None:
    before = caller.state()

    with pytest.raises(KeyboardInterrupt):
        caller.batch(put("n1"), put("n2", listener="interrupt"))

    assert caller.state() == before


def test_malformed_batch_is_refused_as_ever(caller: Caller) -> None:
    before = caller.state()

    answers = [caller.batch(*[put("n1")] * 26), caller.batch({"method": "PUT"}), caller.batch()]

    assert [answer.status_code for answer in answers] == [400, 400, 200]
    assert caller.state() == before


def test_what_was_rolled_back_is_not_announced(caller: Caller) -> None:
    caller.batch(put("n1"), REFUSED)

    assert committed == []


def test_account_that_was_rolled_back_cannot_log_in(memory: EmbeddedServer) -> None:
    """Kinto remembers who has logged in, and forgets it only where a listener is told that the account changed."""
    caller = filled(memory)
    seen = caller.send("GET", X).headers["ETag"]
    credentials = "Basic ZXZlOnMzY3JldA=="  # eve:s3cret
    account = entry("PUT", "/accounts/eve", {"password": "s3cret"}, Authorization="")

    answer = caller.batch(account, entry("GET", "/", Authorization=credentials), entry("GET", X, If_None_Match=seen))

    assert answer.status_code == 500
    caller.session.auth = ("eve", "s3cret")
    assert "account:eve" not in caller.send("GET", "/").text
    memory.flush()


def test_flush_is_rolled_back_on_memory(memory: EmbeddedServer) -> None:
    caller = filled(memory)
    before = caller.state()

    answer = caller.batch(entry("POST", "/__flush__"), entry("GET", X))

    assert statuses(answer) == [202, 403]
    assert caller.state() == before
    memory.flush()


def test_flush_is_refused_on_postgres(on_postgres: Caller) -> None:
    """It commits by itself, and with it what the batch has written so far."""
    before = on_postgres.state()

    answer = on_postgres.batch(put("n1"), entry("POST", "/__flush__"), put("n2"))

    assert answer.status_code == 500
    assert on_postgres.state() == before


def test_409_in_the_middle_stores_neither_what_is_before_nor_after(on_postgres: Caller) -> None:
    before = on_postgres.state()
    taken = before[X][0]["data"]["last_modified"]
    entries = [put("before"), put("clash", last_modified=taken), put("after"), put("after2")]

    answer = on_postgres.batch(*entries)

    assert statuses(answer) == [201, 409, 201, 201]
    assert is_rolled_back(answer)
    assert on_postgres.state() == before
    assert committed == []


def test_409_in_the_middle_of_any_other_batch_leaves_a_phantom_in_the_history(on_postgres: Caller) -> None:
    """Kinto's own doing, which the header avoids: an entry for a record that never was."""
    taken = on_postgres.state()[X][0]["data"]["last_modified"]

    on_postgres.batch(put("before"), put("clash", last_modified=taken), put("after"), headers={})

    assert on_postgres.send("GET", f"{RECORDS}/before").status_code == 404
    entries = on_postgres.send("GET", f"{BUCKET}/history?record_id=before").json()["data"]
    assert [one["action"] for one in entries] == ["create"]


class TestServersOfOperators:
    """On the same PostgreSQL, with one setting more."""

    @pytest.fixture
    def serve(self, on_postgres: Caller) -> Iterator[Callable[..., Caller]]:
        made: list[EmbeddedServer] = []

        def serve(**settings: Setting) -> Caller:
            named = {name.replace("tm_", "tm."): value for name, value in settings.items()}
            made.append(EmbeddedServer({**on_postgres.server.settings, SECRET: "x", **named}))
            return Caller(made[-1])

        yield serve
        for server in made:
            server.close()

    def test_veto_that_never_objects_changes_nothing(self, serve: Serve) -> None:
        lenient = serve(tm_commit_veto=f"{__name__}.commit_all")
        seen = lenient.send("PUT", "/buckets/b2").headers["ETag"]

        answers = [
            lenient.batch(entry("PUT", "/buckets/b3"), entry("GET", "/buckets/missing")),
            lenient.batch(entry("PUT", "/buckets/b3"), entry("GET", "/buckets/b2", If_None_Match=seen)),
        ]

        assert [answer.status_code for answer in answers] == [200, 500]
        assert all(map(is_rolled_back, answers))
        assert lenient.send("GET", "/buckets/b2").status_code == 200
        assert lenient.send("GET", "/buckets/b3").status_code == 403

    def test_veto_has_its_say_where_we_have_no_objection(self, serve: Serve) -> None:
        strict = serve(tm_commit_veto=f"{__name__}.commit_nothing")

        answer = strict.batch(entry("PUT", "/buckets/b2"))

        assert statuses(answer) == [201]
        assert strict.send("GET", "/buckets/b2").status_code == 403

    @pytest.mark.parametrize(
        "setting",
        [
            pytest.param({"transaction_per_request": False}, id="no-transactions"),
            pytest.param({"permission_backend": "kinto.core.permission.memory"}, id="permissions-in-memory"),
            pytest.param({"storage_backend": "kinto.core.storage.memory"}, id="objects-in-memory"),
            pytest.param({"tm_manager_hook": "pyramid_tm.explicit_manager"}, id="other-manager"),
        ],
    )
    def test_server_that_cannot_roll_back_says_so(self, serve: Serve, setting: dict[str, Setting]) -> None:
        caller = serve(**setting)

        answer = caller.batch(entry("PUT", "/buckets/b2"))

        assert "atomic_batch" not in caller.capabilities()
        assert (answer.status_code, answer.json()["errno"]) == (400, 107)
        assert "cannot roll back a batch" in answer.json()["message"]
        assert not is_rolled_back(answer)
        assert caller.send("GET", "/buckets/b2").status_code == 403

    def test_request_outside_of_a_transaction_is_refused(self, serve: Serve) -> None:
        caller = serve(tm_activate_hook=f"{__name__}.is_never_active")

        assert caller.batch(entry("PUT", "/buckets/b2")).status_code == 400

    def test_server_without_permissions_has_it_all_the_same(self, postgres: EmbeddedServer) -> None:
        app: Any = build_application({**postgres.settings, SECRET: "x"})
        del app.registry.permission

        assert can_undo(app.registry)


@pytest.mark.parametrize("storage", ["kinto_orm.server.memory.MemoryStorage", "kinto.core.storage.memory"])
def test_memory_server_that_is_not_embedded_cannot(storage: str) -> None:
    """Others may write at the same time: a snapshot that is brought back would undo their writes."""
    ours = {"storage_backend": storage, "permission_backend": "kinto_orm.server.memory.MemoryPermission"}
    app: Any = build_application(
        {**ours, "includes": "kinto_orm.server.atomic_batch", "multiauth.policies": "basicauth", SECRET: "x"}
    )

    assert "atomic_batch" not in app.registry.api_capabilities
    assert not can_undo(app.registry)


@pytest.mark.parametrize("backend", ["storage", "permission"])
def test_embedded_server_with_kintos_own_memory_cannot(backend: str) -> None:
    with EmbeddedServer.memory(**{f"{backend}_backend": f"kinto.core.{backend}.memory"}) as server:
        caller = Caller(server)

        assert "atomic_batch" not in caller.capabilities()
        assert caller.batch(entry("PUT", BUCKET)).status_code == 400
        assert caller.batch(entry("PUT", BUCKET), headers={}).status_code == 200


@dataclass
class Answer:
    """An answer as Kinto never gives it."""

    body: bytes
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"responses": null}',
        b'{"responses": [{}]}',
        b'{"responses": ["200"]}',
        b'{"responses": [{"status": "200"}]}',
        b'{"responses": {"status": 200}}',
    ],
)
def test_answer_that_cannot_be_read_is_no_success(body: bytes) -> None:
    assert not all_succeeded(Answer(body))


def test_answer_is_a_success_where_each_part_is() -> None:
    success = json.dumps({"responses": [{"status": 201}, {"status": 304}]}).encode()

    assert all_succeeded(Answer(success))
    assert all_succeeded(Answer(b'{"responses": []}'))
    assert not all_succeeded(Answer(success, 503))


class TestMemoryBackends:
    def test_merge_patch_that_is_refused_changes_nothing(self, memory: EmbeddedServer) -> None:
        caller = filled(memory)
        patch = {"data": {"deep": {"er": {"est": 9}}, "n": "not a number"}}

        answer = caller.send("PATCH", X, patch, Content_Type="application/merge-patch+json")

        assert answer.status_code == 400
        assert caller.send("GET", X).json()["data"]["deep"] == {"er": {"est": 1}}
        memory.flush()

    def test_snapshot_shares_the_objects(self, memory: EmbeddedServer) -> None:
        """Or a batch would take the longer, the more is stored."""
        filled(memory)
        registry: Any = cast(Any, memory._app).registry
        store, permissions = registry.storage._store, registry.permission._store

        take_snapshot(registry)()

        assert registry.storage._store is not store
        assert registry.storage._store[COLLECTION]["record"]["x"] is store[COLLECTION]["record"]["x"]
        assert registry.permission._store is not permissions
        assert all(registry.permission._store[key] is kept for key, kept in permissions.items())
        memory.flush()

    def test_sets_of_principals_are_never_changed(self) -> None:
        backend = MemoryPermission.load_from_config(None)
        backend.replace_object_permissions("/b", {"read": ["bob", "alice"]})
        backend.add_user_principal("bob", "/g")
        backend.add_user_principal("alice", "/g")
        before = {key: set(principals) for key, principals in backend._store.items()}
        restore = backend.snapshot()

        backend.add_principal_to_ace("/b", "read", "carol")
        backend.remove_principal_from_ace("/b", "read", "bob")
        backend.add_user_principal("bob", "/h")
        backend.remove_user_principal("bob", "/g")
        backend.remove_principal("/g")
        backend.remove_principal_from_ace("/missing", "read", "bob")

        assert backend._store == {"permission:/b:read": {"alice", "carol"}, "user:bob": {"/h"}, "user:alice": set()}
        restore()
        assert backend._store == before

    def test_names_of_permissions_are_as_they_were(self) -> None:
        backend = MemoryPermission.load_from_config(None)
        backend.replace_object_permissions("/b", {"read": ["bob"]})
        restore = backend.snapshot()

        backend.flush()
        restore()

        assert backend.get_objects_permissions(["/b"]) == [{"read": {"bob"}}]

    def test_cache_of_another_kind_is_left_alone(self) -> None:
        snapshot_of_cache(Answer(b""))()

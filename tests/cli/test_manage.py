"""The verbs about permissions, history, schemas and reviews."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command

from kinto_orm import Bucket, Client, Collection, Group, Record
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.application import DEFAULT_SETTINGS

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 2}}, "required": ["n"]}


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """A schema that the third record of ``cfg`` violates."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


class TestPermissions:
    def test_they_are_shown_given_and_taken(self, kinto: Command, cfg: Collection[Record]) -> None:
        me = kinto("permissions", "main/cfg").lines[0]["permissions"]["write"][0]

        dry = kinto("permissions", "main/cfg", "--grant", "read=system.Everyone", "--dry-run")
        given = kinto(
            "permissions", "main/cfg", "--grant", "read=system.Everyone", "--grant", "record:create=account:bob"
        )
        taken = kinto("permissions", "main/cfg", "--revoke", "record:create=account:bob")

        assert (dry.code, dry.lines[0]["new"]) == (1, {"read": ["system.Everyone"], "write": [me]})
        assert given.lines == [
            {
                "id": "/buckets/main/collections/cfg",
                "permissions": {"read": ["system.Everyone"], "write": [me], "record:create": ["account:bob"]},
            }
        ]
        assert "record:create" not in taken.lines[0]["permissions"]
        assert kinto.in_terminal("permissions", "main/cfg").out == (
            "\x1b[1m/buckets/main/collections/cfg\x1b[0m\n"
            f"    read              system.Everyone\n    write             {me}\n"
        )

    def test_an_unknown_one_is_wrong_usage(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("permissions", "main/cfg", "--grant", "fly=account:bob").code == 2

    def test_without_a_place_it_is_what_you_may_do(self, kinto: Command, cfg: Collection[Record]) -> None:
        found = {line["id"]: list(line["permissions"]) for line in kinto("permissions").lines}

        assert {"read", "record:create", "write"} <= set(found["/buckets/main/collections/cfg"])
        lines = kinto.in_terminal("permissions", width=120).out.splitlines()
        assert len(lines) == 1 + len(found)
        assert [line.split()[-1] for line in lines if line.startswith("main/cfg ")] == ["write"]


class TestHistory:
    def test_it_shows_who_wrote_what(self, kinto: Command, cfg: Collection[Record]) -> None:
        cfg.records.get("a").patch(n=9)

        lines = kinto("history", "main/cfg/a").lines
        table = kinto.in_terminal("history", "main", "--limit", "1", "--filter", "resource_name=record").out

        assert [(line["action"], line["data"]["n"]) for line in lines] == [("update", 9), ("create", 1)]
        assert lines[0]["uri"] == "/buckets/main/collections/cfg/records/a"
        assert len(table.splitlines()) == 2 and "update  main/cfg/a" in table
        assert kinto("history", "main", "--filter", "nonsense=1").code == 2


class TestSchema:
    def test_it_is_compared_checked_and_stored(self, kinto: Command, cfg: Collection[Record], schema: Path) -> None:
        diff = kinto("schema", "diff", "main/cfg", schema)
        check = kinto("schema", "check", "main/cfg", schema)
        dry = kinto("schema", "push", "main/cfg", schema, "--dry-run")
        refused = kinto("schema", "push", "main/cfg", schema)

        assert (diff.code, diff.lines) == (1, [{"id": "schema", "new": SCHEMA}])
        assert (check.code, check.lines) == (
            1,
            [{"id": "c", "field": "n", "problem": "3 is greater than the maximum of 2"}],
        )
        assert dry.code == 1
        assert (refused.code, "1 records violate" in refused.err) == (4, True)
        cfg.records.get("c").patch(n=1)
        assert kinto("schema", "push", "main/cfg", schema).code == 0
        assert json.loads(kinto("schema", "show", "main/cfg").out) == SCHEMA
        assert kinto("schema", "diff", "main/cfg", schema).code == 0
        fine = kinto("schema", "check", "main/cfg")
        assert (fine.code, fine.err) == (0, "kinto-orm: no record violates the schema\n")
        assert kinto("schema", "push", "main/cfg", schema).err == "kinto-orm: unchanged\n"

    def test_each_keyword_that_differs_is_shown(self, kinto: Command, cfg: Collection[Record], schema: Path) -> None:
        kinto("schema", "push", "main/cfg", schema, "--force")
        schema.write_text(json.dumps({**SCHEMA, "required": []}))

        run = kinto.in_terminal("schema", "diff", "main/cfg", schema)

        assert run.out == '    required: \x1b[31m["n"]\x1b[0m -> \x1b[32m[]\x1b[0m\n'

    def test_what_the_server_never_checked_is_listed(
        self, kinto: Command, cfg: Collection[Record], schema: Path
    ) -> None:
        kinto("schema", "push", "main/cfg", schema, "--force")
        cfg.records.get("a").patch(n=2)

        assert [line["id"] for line in kinto("schema", "pending", "main/cfg").lines] == ["b", "c"]

    def test_where_there_is_none_it_says_how_to_make_one(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("schema", "show", "main/cfg")

        assert (run.code, "schema push PATH FILE.py:CLASS" in run.err) == (2, True)
        assert kinto("schema", "check", "main/cfg").code == 2
        assert kinto("schema", "diff", "main/cfg", "none.json").code == 2


@pytest.fixture(scope="module")
def signing() -> Iterator[EmbeddedServer]:
    """A server with the stand-in for the signer."""
    includes = f"{DEFAULT_SETTINGS['includes']} signer_stub"
    with EmbeddedServer.memory(includes=includes, **{"signer.to_review_enabled": "true"}) as server:
        yield server


@pytest.fixture
def signed(signing: EmbeddedServer) -> Iterator[str]:
    """A server with a collection that is under review."""
    with Client.embedded(server=signing, auth=("editor", "secret")) as editor, listening(signing) as url:
        reviewer = editor.clone(auth=("reviewer", "secret"))
        ids = [one.server_info(refresh=True)["user"]["id"] for one in (editor, reviewer)]
        workspace = Bucket(id="workspace", client=editor, permissions={"write": ids}).save()
        Collection(bucket=workspace, id="products").save()
        for group, members in {"products-editors": ids[:1], "products-reviewers": ids[1:]}.items():
            Group(bucket=workspace, id=group, members=members).replace(safe=False)
        yield url
    signing.flush()


class TestReview:
    def test_the_steps(self, kinto: Command, signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_SERVER", signed)
        monkeypatch.setenv("KINTO_AUTH", "editor:secret")
        place = "workspace/products"

        assert kinto("put", f"{place}/tea", "price=3").code == 0
        asked = kinto("review", "request", place, "-m", "A new product")
        assert (asked.code, asked.lines[0]["status"]) == (0, "to-review")
        monkeypatch.setenv("KINTO_AUTH", "reviewer:secret")
        (shown,) = kinto("review", "show", place).lines
        assert (shown["status"], shown["last_editor_comment"]) == ("to-review", "A new product")
        assert kinto("review", "decline", place, "-m", "No").lines[0]["status"] == "work-in-progress"
        monkeypatch.setenv("KINTO_AUTH", "editor:secret")
        kinto("review", "request", place, "-m", "Please")
        monkeypatch.setenv("KINTO_AUTH", "reviewer:secret")
        approved = kinto.in_terminal("review", "approve", place, "--seen", str(shown["seen"]))
        assert (approved.code, "Status                  signed" in approved.out) == (0, True)
        assert kinto("review", "sign", place).code == 0
        assert kinto("review", "approve", place).code == 4

    def test_a_rollback_is_asked_for(self, kinto: Command, signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_SERVER", signed)
        monkeypatch.setenv("KINTO_AUTH", "editor:secret")
        kinto("put", "workspace/products/tea", "price=3")
        rollback = ("review", "rollback", "workspace/products", "-m", "A mistake")

        assert kinto(*rollback).code == 4
        assert kinto(*rollback, "--yes").code == 0

    def test_a_sync_asks_for_a_review_only_where_something_changed(
        self, kinto: Command, signed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KINTO_SERVER", signed)
        monkeypatch.setenv("KINTO_AUTH", "editor:secret")
        sync = ("sync", "workspace/products", "-", "--request-review", "Prices")

        assert kinto(*sync, stdin="").code == 0
        assert kinto("review", "show", "workspace/products").lines[0]["status"] != "to-review"
        assert kinto(*sync, stdin='{"id": "tea"}\n').code == 0
        assert kinto("review", "show", "workspace/products").lines[0]["status"] == "to-review"

    def test_a_server_without_reviews_is_sent_nothing(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("review", "request", "main/cfg", "-m", "Please").code == 3

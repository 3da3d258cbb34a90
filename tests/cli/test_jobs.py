"""The verbs about all of a collection."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from canary import CANARY
from command_line import Command

from kinto_orm import Client, Collection, Record

ROWS = "id,title,n\na,Ann,1\nb,Bea,2\nd,Dee,4\n"
MODEL = """
from kinto_orm import Record

class Row(Record):
    title: str
    n: int
"""


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Rows of which one is as in ``cfg``, one differs, and one is new; two records are in none."""
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    (tmp_path / "model.py").write_text(MODEL)
    return path


@pytest.fixture
def model(csv: Path) -> str:
    return f"{csv.parent / 'model.py'}:Row"


class TestSync:
    def test_a_second_run_only_reads(self, kinto: Command, cfg: Collection[Record], csv: Path, model: str) -> None:
        first = kinto("sync", "main/cfg", csv, "--model", model)
        timestamp = cfg.records.timestamp()
        again = kinto("sync", "main/cfg", csv, "--model", model)

        assert (first.code, first.err) == (0, "kinto-orm: 1 created, 1 updated, 1 unchanged\n")
        assert first.lines == [{"id": "b", "status": "updated"}, {"id": "d", "status": "created"}]
        assert (again.code, again.out, again.err) == (0, "", "kinto-orm: 3 unchanged\n")
        assert cfg.records.timestamp() == timestamp
        assert cfg.records.get("d").data == {"title": "Dee", "n": 4}

    def test_stdin_is_json_lines(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("sync", "main/cfg", "-", stdin='{"id": "a", "title": "Ann", "n": 1}\n{"id": "e"}\n')

        assert run.lines == [{"id": "e", "status": "created"}]
        bad = kinto("sync", "main/cfg", "-", stdin='{"id": "a"}\nnonsense\n')
        assert (bad.code, bad.err) == (
            2,
            "kinto-orm: line 2 of stdin is not JSON (Expecting value: line 1 column 1 (char 0)).\n",
        )

    def test_what_list_prints_is_what_sync_takes(self, kinto: Command, cfg: Collection[Record]) -> None:
        listed = kinto("list", "main/cfg")

        assert kinto("sync", "main/cfg", "-", "--delete", stdin=listed.out).err == "kinto-orm: 3 unchanged\n"

    def test_deletions_have_a_guard(self, kinto: Command, cfg: Collection[Record], tmp_path: Path) -> None:
        empty = tmp_path / "empty.jsonl"
        empty.write_text("")

        assert kinto("sync", "main/cfg", empty, "--delete").code == 4
        assert kinto("sync", "main/cfg", "-", "--delete", stdin='{"id": "a"}\n').code == 4
        assert cfg.records.count() == 3
        run = kinto("sync", "main/cfg", empty, "--delete", "--max-deletes", "100%")
        assert run.err == "kinto-orm: 3 deleted\n"

    def test_a_dry_run_shows_the_plan(self, kinto: Command, cfg: Collection[Record], csv: Path, model: str) -> None:
        run = kinto("sync", "main/cfg", csv, "--model", model, "--dry-run")

        assert run.code == 1
        assert [(line["kind"], line["id"]) for line in run.lines] == [("update", "b"), ("create", "d")]
        assert cfg.records.count() == 3

    def test_what_is_refused_is_said_and_the_rest_is_stored(self, kinto: Command, cfg: Collection[Record]) -> None:
        cfg.data["schema"] = {"type": "object", "properties": {"n": {"type": "integer"}}}
        cfg.save()
        rows = '{"id": "x", "n": 1}\n{"id": "y", "n": "many"}\n'

        run = kinto("sync", "main/cfg", "-", stdin=rows)

        assert run.code == 1
        assert run.lines[0] == {"id": "x", "status": "created"}
        assert run.lines[1]["id"] == "y" and "'many' is not of type 'integer'" in run.lines[1]["error"]
        assert "kinto-orm: 1 created, 1 failed\n" in run.err
        shown = kinto.in_terminal("sync", "main/cfg", "-", answers=rows)
        assert shown.out.startswith("\x1b[31mrejected: y: PUT ")

    def test_a_key_of_its_own_and_another_collection(
        self, kinto: Command, cfg: Collection[Record], client: Client
    ) -> None:
        copy = Collection(bucket="main", id="copy", client=client).save()

        run = kinto("sync", "-b", "main", "copy", "cfg", "--key", "title")

        assert run.err == "kinto-orm: 3 created\n"
        assert sorted(record.data["n"] for record in copy.records) == [1, 2, 3]

    def test_rows_come_from_another_server_with_its_own_credentials(
        self, kinto: Command, cfg: Collection[Record], elsewhere: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KINTO_SERVER", elsewhere)
        monkeypatch.setenv("KINTO_AUTH", "other:secret")
        kinto("put", "main/cfg/x", "n=9", "--parents")
        sync = ("sync", "main/cfg", "main/cfg", "--from-server", cfg.client.server_url)  # type: ignore[union-attr]

        refused = kinto(*sync)
        monkeypatch.setenv("KINTO_FROM_AUTH", f"canary:{CANARY}")

        assert (refused.code, "KINTO_FROM_AUTH" in refused.err) == (3, True)  # without credentials
        assert kinto(*sync).err == "kinto-orm: 3 created\n"
        assert kinto("list", "main/cfg", "--count").lines == [4]

    @pytest.mark.parametrize("place", ["main/missing", "missing/cfg"])
    def test_a_collection_that_is_not_there_is_made_as_the_message_says(
        self, place: str, kinto: Command, cfg: Collection[Record]
    ) -> None:
        run = kinto("sync", place, "-", stdin='{"id": "a"}\n')

        assert (run.code, "kinto-orm put BUCKET/COLLECTION --parents" in run.err) == (3, True)
        assert kinto("put", place, "--parents").code == 0
        assert kinto("sync", place, "-", stdin='{"id": "a"}\n').code == 0

    @pytest.mark.parametrize(
        ("source", "message"), [("no.csv", "No such file"), ("nothing", "names no collection"), (__file__, "end in")]
    )
    def test_a_source_that_is_none_is_wrong_usage(
        self, source: str, message: str, kinto: Command, cfg: Collection[Record]
    ) -> None:
        run = kinto("sync", "main/cfg", source)

        assert (run.code, message in run.err) == (2, True)

    @pytest.mark.parametrize("model", ["x", "nothing.py:Row", "json:dumps", "no.such.module:Row"])
    def test_a_model_that_is_none_is_wrong_usage(self, model: str, kinto: Command) -> None:
        assert kinto("sync", "main/cfg", "-", "--model", model, stdin="").code == 2

    def test_ctrl_c_says_what_is_stored_and_the_next_run_finishes_it(
        self, kinto: Command, cfg: Collection[Record], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = "".join(f'{{"id": "r{n}"}}\n' for n in range(60))

        def interrupted(done: int, total: int | None, what: str) -> None:
            if what == "write records":
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("kinto_orm.cli.screen.Screen.progress", lambda self: nullcontext(interrupted))
            first = kinto("sync", "main/cfg", "-", stdin=rows)
        second = kinto("sync", "main/cfg", "-", stdin=rows)

        assert first.code == 130
        assert first.err == (
            "kinto-orm: interrupted. The server has confirmed 25 changes. "
            "Run the same command again: it compares, and writes what is left.\n"
        )
        assert second.err == "kinto-orm: 35 created, 25 unchanged\n"


class TestPlan:
    def test_it_is_shown_kept_and_applied(
        self, kinto: Command, cfg: Collection[Record], csv: Path, model: str, tmp_path: Path
    ) -> None:
        out = tmp_path / "plan.json"

        plan = kinto("plan", "main/cfg", csv, "--model", model, "--delete", "--out", out)
        dry = kinto("apply", out, "--dry-run")
        apply = kinto("apply", out)
        again = kinto("plan", "main/cfg", csv, "--model", model, "--delete")

        assert plan.code == 1
        assert [(line["kind"], line["id"]) for line in plan.lines] == [
            ("update", "b"),
            ("create", "d"),
            ("delete", "c"),
        ]
        assert plan.lines[0]["old"] == {"title": "Bob", "n": 2} and plan.lines[0]["new"] == {"title": "Bea", "n": 2}
        assert plan.err == (
            "kinto-orm: 1 to create, 1 to update, 1 to delete, 1 unchanged\n"
            f"kinto-orm: {out} has the plan: kinto-orm apply {out}\n"
        )
        assert (dry.code, dry.lines) == (1, plan.lines)
        assert (apply.code, [line["status"] for line in apply.lines]) == (0, ["updated", "created", "deleted"])
        assert (again.code, again.out) == (0, "")

    def test_a_terminal_shows_each_field(self, kinto: Command, cfg: Collection[Record], csv: Path, model: str) -> None:
        cfg.records.get("b").patch(nested={"x": {"y": 1}})

        run = kinto.in_terminal("plan", "main/cfg", csv, "--model", model)

        assert run.out.splitlines() == [
            "\x1b[33m~ b\x1b[0m",
            '    title: \x1b[31m"Bob"\x1b[0m -> \x1b[32m"Bea"\x1b[0m',
            '    nested: \x1b[31m{"x": {"y": 1}}\x1b[0m -> \x1b[32m(none)\x1b[0m',
            "\x1b[32m+ d\x1b[0m",
            '    title: \x1b[32m"Dee"\x1b[0m',
            "    n: \x1b[32m4\x1b[0m",
            "1 to create, 1 to update, 0 to delete, 1 unchanged",
        ]

    def test_a_plan_of_another_state_is_refused(
        self, kinto: Command, cfg: Collection[Record], csv: Path, model: str, tmp_path: Path
    ) -> None:
        kinto("plan", "main/cfg", csv, "--model", model, "--out", tmp_path / "plan.json")
        cfg.records.create(id="rival")

        run = kinto("apply", tmp_path / "plan.json")

        assert run.code == 4
        assert "make a new plan. Nothing was stored." in run.err
        assert kinto("apply", tmp_path / "none.json").code == 2

    def test_a_diff_shows_deletions_too(self, kinto: Command, cfg: Collection[Record], csv: Path, model: str) -> None:
        run = kinto("diff", "main/cfg", csv, "--model", model, "--fields", "title")

        assert run.code == 1
        assert [(line["kind"], line["id"]) for line in run.lines] == [
            ("update", "b"),
            ("create", "d"),
            ("delete", "c"),
        ]
        assert kinto("diff", "main/cfg", "main/cfg").code == 0


class TestChanges:
    def test_each_change_comes_once(self, kinto: Command, cfg: Collection[Record], tmp_path: Path) -> None:
        changes = ("changes", "main/cfg", "--state", tmp_path / "token", "--horizon", "0.1")

        first = kinto(*changes)
        cfg.records.ref("a").delete()
        cfg.records.get("b").patch(n=9)
        second = kinto(*changes)

        assert [(line["id"], line["kind"]) for line in first.lines] == [(id, "changed") for id in "abc"]
        assert first.lines[0]["record"]["title"] == "Ann"
        assert [(line["id"], line["kind"]) for line in second.lines] == [("a", "deleted"), ("b", "changed")]
        assert kinto(*changes).out == ""

    def test_the_token_can_be_kept_by_the_caller(self, kinto: Command, cfg: Collection[Record]) -> None:
        first = kinto("changes", "main/cfg", "--horizon", "0.1")
        token = first.err.removeprefix("kinto-orm: go on with --since ").strip()
        cfg.records.ref("a").delete()

        run = kinto.in_terminal("changes", "main/cfg", "--since", token, "--horizon", "0.1")

        assert run.out == "\x1b[31m- a\x1b[0m\n"

    def test_a_list_that_is_another_one_is_told_apart(
        self, kinto: Command, cfg: Collection[Record], tmp_path: Path
    ) -> None:
        state = tmp_path / "token"
        kinto("changes", "main/cfg", "--state", state, "--horizon", "0.1")
        token = state.read_text()
        kinto("delete", "main", "--yes")
        kinto("put", "main/cfg/new", "n=1", "--parents")

        run = kinto("changes", "main/cfg", "--state", state, "--horizon", "0.1")

        assert run.code == 1
        assert state.read_text() == token
        assert kinto("changes", "main/cfg", "--since", "nonsense").code == 2

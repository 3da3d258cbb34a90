"""The verbs about objects."""

from __future__ import annotations

import pytest
from command_line import Command

from kinto_orm import Client, Collection, Record


def ids(lines: list[dict[str, object]]) -> list[object]:
    return [line["id"] for line in lines]


class TestList:
    def test_each_object_is_a_line_with_its_id(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert ids(kinto("list").lines) == ["main"]
        assert ids(kinto("list", "main").lines) == ["cfg"]
        assert [(line["id"], line["title"]) for line in kinto("list", "main/cfg").lines] == [
            ("a", "Ann"),
            ("b", "Bob"),
            ("c", "Cy"),
        ]

    @pytest.mark.parametrize(
        "place",
        [
            ["main/cfg"],
            ["main/cfg/"],
            ["-b", "main", "cfg"],
            ["-b", "main", "-c", "cfg"],
            ["/buckets/main/collections/cfg"],
            ["/buckets/main/collections/cfg/records"],
        ],
    )
    def test_a_place_can_be_named_in_several_ways(
        self, place: list[str], kinto: Command, cfg: Collection[Record]
    ) -> None:
        assert kinto("list", *place, "--count").lines == [3]

    def test_it_filters_sorts_narrows_and_limits(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("list", "main/cfg", "--filter", "gt_n=1", "--sort=-n", "--fields", "n", "--limit", "1")

        assert [(line["id"], line["n"], "title" in line) for line in run.lines] == [("c", 3, False)]
        assert ids(kinto("list", "main/cfg", "--filter", "title=Bob").lines) == ["b"]
        assert ids(kinto("list", "main/cfg", "--filter", 'in_id=["a","c"]').lines) == ["a", "c"]

    def test_a_filter_that_kinto_would_ignore_is_wrong_usage(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("list", "main/cfg", "--filter", "_typo=1")

        assert run.code == 2
        assert "_typo" in run.err

    def test_groups_are_listed_where_they_are_asked_for(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("put", "/buckets/main/groups/staff", 'members=["account:bob"]').code == 0

        assert ids(kinto("list", "main", "--groups").lines) == ["staff"]
        assert ids(kinto("list", "/buckets/main/groups").lines) == ["staff"]
        assert kinto("list", "main/cfg", "--groups").code == 2

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("main/cfg/a", "holds no list"),
            ("main/cfg/a/b", "too many parts"),
            ("main/cf g", "'cf g' is no collection"),
            ("/buckets/main/records", "is no path of Kinto"),
            ("/nowhere/x", "is no path of Kinto"),
        ],
    )
    def test_a_place_that_is_none_is_wrong_usage(self, place: str, message: str, kinto: Command) -> None:
        run = kinto("list", place)

        assert run.code == 2
        assert message in run.err

    def test_a_collection_needs_its_bucket(self, kinto: Command) -> None:
        assert "-c needs -b" in kinto("list", "-c", "cfg").err

    def test_a_terminal_shows_a_table(self, kinto: Command, cfg: Collection[Record]) -> None:
        cfg.records.create(id="d", data={"title": "\x1b[2Jevil", "tags": ["x"]})

        run = kinto.in_terminal("list", "main/cfg")

        header, *rows = run.out.splitlines()
        assert header.startswith("\x1b[1m") and header.split()[0].endswith("id")
        assert [row.split()[0] for row in rows] == ["a", "b", "c", "d"]
        assert "\\x1b[2Jevil" in rows[3] and '["x"]' in rows[3] and "\x1b" not in rows[3]
        assert kinto.in_terminal("list", "main/cfg", "--json").lines[0]["id"] == "a"


class TestGet:
    def test_objects_are_printed_in_the_order_asked_for(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert ids(kinto("get", "main/cfg/b", "main/cfg", "main").lines) == ["b", "cfg", "main"]
        assert kinto.in_terminal("get", "main/cfg/b").out.startswith('{\n  "id": "b",\n')

    def test_what_is_not_there_is_an_error_of_the_server(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("get", "main/cfg/zz")

        assert run.code == 3
        assert run.err == "kinto-orm: GET /buckets/main/collections/cfg/records/zz: 404 Not Found - record 'zz'\n"

    def test_an_object_has_to_be_named(self, kinto: Command) -> None:
        assert kinto("get").code == 2
        assert kinto("get", "main/").code == 2


class TestPut:
    def test_it_creates_then_writes_only_what_differs(self, kinto: Command, cfg: Collection[Record]) -> None:
        put = ("put", "main/cfg/d", "title=Dee", "n=4", 'tags=["x"]')

        first = kinto(*put)
        timestamp = cfg.records.timestamp()
        again = kinto(*put)

        assert (first.code, first.lines) == (0, [{"id": "d", "status": "created"}])
        assert (again.code, again.lines) == (0, [{"id": "d", "status": "unchanged"}])
        assert cfg.records.timestamp() == timestamp
        assert cfg.records.get("d").data == {"title": "Dee", "n": 4, "tags": ["x"]}

    def test_it_replaces_all_of_the_data(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("put", "main/cfg/a", "--data", "-", stdin='{"title": "Anna"}')

        assert run.lines == [{"id": "a", "status": "updated"}]
        assert cfg.records.get("a").data == {"title": "Anna"}

    def test_without_data_it_makes_sure_that_the_object_is_there(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("put", "main/cfg/a").lines == [{"id": "a", "status": "unchanged"}]
        assert cfg.records.get("a").data == {"title": "Ann", "n": 1}

    def test_it_makes_what_is_above_where_that_is_said(self, kinto: Command, client: Client) -> None:
        assert kinto("put", "new/things/x", "n=1").code == 3
        assert kinto("put", "new/things/x", "n=1", "--parents", "--dry-run").code == 1
        assert kinto("list").lines == []

        assert kinto("put", "new/things/x", "n=1", "--parents").code == 0

        assert client.bucket("new").collection("things").records.get("x").data == {"n": 1}

    def test_a_list_draws_an_id(self, kinto: Command, cfg: Collection[Record]) -> None:
        (line,) = kinto("put", "main/cfg/", "title=New").lines

        assert cfg.records.get(line["id"]).data == {"title": "New"}

    def test_a_dry_run_shows_the_difference_and_writes_nothing(self, kinto: Command, cfg: Collection[Record]) -> None:
        timestamp = cfg.records.timestamp()

        run = kinto.in_terminal("put", "main/cfg/a", "title=Anna", "n=1", "--dry-run")

        assert run.code == 1
        assert run.out.splitlines() == [
            "\x1b[33m~ a\x1b[0m",
            '    title: \x1b[31m"Ann"\x1b[0m -> \x1b[32m"Anna"\x1b[0m',
        ]
        assert kinto("put", "main/cfg/a", "title=Ann", "n=1", "--dry-run").code == 0
        assert cfg.records.timestamp() == timestamp

    @pytest.mark.parametrize("data", ["x", "[]", "{"])
    def test_data_that_is_no_object_is_wrong_usage(self, data: str, kinto: Command) -> None:
        assert kinto("put", "main", "--data", data).code == 2

    def test_a_password_is_set_and_not_shown(self, kinto: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KINTO_AUTH")

        run = kinto.in_terminal("put", "/accounts/alexis", "password=p4ssw0rd")

        assert run.code == 0
        assert "p4ssw0rd" not in run.out + run.err
        assert run.out == "\x1b[32m+ alexis\x1b[0m\ncreated: alexis\n"


class TestUpdate:
    def test_keys_of_one_object_are_set_removed_and_renamed(self, kinto: Command, cfg: Collection[Record]) -> None:
        run = kinto("update", "main/cfg/a", "done=true", "--remove", "n", "--rename", "title=name")

        assert run.lines == [{"id": "a", "status": "updated"}]
        assert cfg.records.get("a").data == {"name": "Ann", "done": True}
        assert kinto("update", "main/cfg/a", "done=true").lines == [{"id": "a", "status": "unchanged"}]

    def test_a_key_is_renamed_in_all_records_once(self, kinto: Command, cfg: Collection[Record]) -> None:
        first = kinto("update", "main/cfg", "--everything", "--rename", "title=name")
        again = kinto("update", "main/cfg", "--everything", "--rename", "title=name")

        assert first.lines == [{"id": id, "status": "updated"} for id in "abc"]
        assert first.err == "kinto-orm: 3 updated\n"
        assert (again.code, again.out, again.err) == (0, "", "kinto-orm: 3 unchanged\n")
        assert [record.data["name"] for record in cfg.records] == ["Ann", "Bob", "Cy"]

    def test_a_filter_selects_the_records(self, kinto: Command, cfg: Collection[Record]) -> None:
        dry = kinto("update", "main/cfg", "--filter", "gt_n=1", "big=true", "--dry-run")
        run = kinto.in_terminal("update", "main/cfg", "--filter", "gt_n=1", "big=true")

        assert (dry.code, ids(dry.lines)) == (1, ["b", "c"])
        assert (run.code, run.out) == (0, "2 updated\n")
        assert [record.id for record in cfg.records.filter(big=True)] == ["b", "c"]

    def test_nothing_to_change_is_wrong_usage(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("update", "main/cfg/a").code == 2
        assert kinto("update", "main/cfg/a", "--rename", "x").code == 2
        assert kinto("update", "main", "--everything", "x=1").code == 2


class TestDelete:
    def test_records_are_deleted_by_name(self, kinto: Command, cfg: Collection[Record]) -> None:
        dry = kinto("delete", "-b", "main", "-c", "cfg", "a", "b", "--dry-run")
        run = kinto("delete", "-b", "main", "-c", "cfg", "a", "b")

        assert (dry.code, ids(dry.lines)) == (1, ["a", "b"])
        assert (run.code, run.lines) == (0, [{"id": "a", "status": "deleted"}, {"id": "b", "status": "deleted"}])
        assert kinto("delete", "main/cfg/a").code == 3
        assert kinto("delete", "main/cfg/a", "--if-exists").code == 0
        assert cfg.records.count() == 1

    def test_a_filter_deletes_no_more_than_the_guard_allows(self, kinto: Command, cfg: Collection[Record]) -> None:
        delete = ("delete", "main/cfg", "--filter", "gt_n=1")

        assert ids(kinto(*delete, "--dry-run").lines) == ["b", "c"]
        assert kinto(*delete).code == 4  # no terminal to ask in
        refused = kinto(*delete, "--yes")
        assert refused.code == 4
        assert "--max-deletes 50%" in refused.err
        assert cfg.records.count() == 3
        assert kinto(*delete, "--yes", "--max-deletes", "2").err == "kinto-orm: 2 deleted\n"
        assert [record.id for record in cfg.records] == ["a"]

    def test_everything_is_guarded_too(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("delete", "main/cfg", "--everything", "--yes").code == 4
        assert kinto("delete", "main/cfg", "--everything", "--yes", "--max-deletes", "100%").code == 0
        assert cfg.records.count() == 0
        nothing_to_ask = kinto.in_terminal("delete", "main/cfg", "--everything")
        assert (nothing_to_ask.code, nothing_to_ask.out) == (0, "nothing to do\n")
        assert kinto.in_terminal("list", "main/cfg").err == "kinto-orm: nothing found\n"

    def test_a_filter_is_of_one_collection(self, kinto: Command, cfg: Collection[Record]) -> None:
        assert kinto("delete", "main/cfg", "main/other", "--filter", "n=1").code == 2
        assert kinto("delete", "main/cfg", "--filter", "n=1", "--max-deletes", "half").code == 2
        assert kinto("delete").code == 2

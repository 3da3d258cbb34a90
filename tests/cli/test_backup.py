"""The verbs about whole buckets."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command

from kinto_orm import Client, Collection, Group, Record
from kinto_orm.cli import screen


@pytest.fixture
def dumped(kinto: Command, cfg: Collection[Record], tmp_path: Path) -> Path:
    Group(bucket="main", id="staff", members=["account:bob"], client=cfg.client).save()
    assert kinto("dump", "main", tmp_path / "backup", "--horizon", "0").code == 0
    return tmp_path / "backup"


def test_a_dump_says_what_it_holds(kinto: Command, dumped: Path) -> None:
    run = kinto("dump", "main", dumped, "--horizon", "0")

    assert (run.code, [(line["id"], line["records"]) for line in run.lines]) == (0, [("cfg", 3)])
    assert run.err == f"kinto-orm: {dumped}: 1 collection, 3 records, 1 group\n"
    assert (dumped / "collections/cfg/records.jsonl").read_text().count("\n") == 3


def test_a_load_writes_what_is_missing_and_a_second_one_nothing(
    kinto: Command, dumped: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINTO_SERVER", elsewhere)

    dry = kinto("load", dumped, "--dry-run")
    first = kinto("load", dumped, "--principal", "account:bob=account:robert")
    again = kinto("load", dumped, "--principal", "account:bob=account:robert")

    assert dry.code == 1
    assert [line["path"] for line in dry.lines] == [
        "/buckets/main",
        "/buckets/main/groups/staff",
        "/buckets/main/collections/cfg",
    ]
    assert (first.code, first.err.splitlines()[0]) == (0, "kinto-orm: 3 created")
    assert (again.code, again.err.splitlines()[0]) == (0, "kinto-orm: 3 unchanged")
    assert kinto("get", "/buckets/main/groups/staff").lines[0]["members"] == ["account:robert"]


def test_a_load_under_another_id_and_without_permissions(kinto: Command, dumped: Path, client: Client) -> None:
    assert kinto("load", dumped, "--as", "restored", "--permissions", "skip").code == 0

    assert client.bucket("restored").collection("cfg").records.count() == 3


def test_what_a_load_would_delete_has_a_guard(kinto: Command, dumped: Path, cfg: Collection[Record]) -> None:
    cfg.records.bulk_create({"id": f"new{n}"} for n in range(9))

    assert kinto("load", dumped, "--delete").code == 4
    assert cfg.records.count() == 12
    assert kinto("load", dumped, "--delete", "--max-deletes", "9").code == 0
    assert cfg.records.count() == 3


def test_a_damaged_dump_is_refused(kinto: Command, dumped: Path) -> None:
    (dumped / "collections/cfg/records.jsonl").write_text("")

    run = kinto("load", dumped)

    assert (run.code, "records.jsonl" in run.err) == (2, True)


def test_a_copy_goes_to_another_server(
    kinto: Command, dumped: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINTO_TO_AUTH", "other:secret")
    copy = ("copy", "main", "copied", "--to-server", elsewhere, "--horizon", "0")

    dry = kinto(*copy, "--dry-run")
    run = kinto(*copy)
    monkeypatch.setenv("KINTO_SERVER", elsewhere)
    monkeypatch.setenv("KINTO_AUTH", "other:secret")

    assert (dry.code, dry.lines[0]["path"]) == (1, "/buckets/copied")
    assert (run.code, run.err.splitlines()[0]) == (0, "kinto-orm: 3 created")
    assert kinto("list", "copied/cfg", "--count").lines == [3]


def test_ctrl_c_says_how_much_of_a_load_is_stored(
    kinto: Command, cfg: Collection[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int | None, what: str) -> None:
        if what == "write records":
            raise KeyboardInterrupt

    kinto("dump", "main", tmp_path / "dump", "--horizon", "0")
    with monkeypatch.context() as patched:
        patched.setattr(screen, "_draw_nothing", interrupt)
        first = kinto("load", tmp_path / "dump", "--as", "other")
    second = kinto("load", tmp_path / "dump", "--as", "other")

    assert (first.code, "The server has confirmed 3 changes." in first.err) == (130, True)
    assert (second.code, second.err.partition("\n")[0]) == (0, "kinto-orm: 3 unchanged")

"""A bucket as a folder: complete, readable, one state of each collection, and cheap to bring up to date."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killed import kill_at, points, start_server
from wiretap import Wiretap

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    DumpReport,
    ForbiddenError,
    Group,
    InvalidTypeError,
    InvalidValueError,
    UsageError,
)
from kinto_orm.jobs import dump
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.application import DEFAULT_SETTINGS

HORIZON = 0.05
"""In seconds. The embedded server sends no header Date, so that it is doubled."""

ME = ("me", "secret")


@pytest.fixture
def bucket(payments: Bucket) -> Bucket:
    """A bucket with two groups and two collections, one of which has records."""
    payments.data["description"] = "Zahlungen, größer"
    payments.save()
    Group(bucket=payments, id="staff", members=["account:bob"]).save()
    Group(bucket=payments, id="auditors", permissions={"read": ["system.Everyone"]}).save()
    Collection(bucket=payments, id="empty").save()
    todos = Collection(bucket=payments, id="todos", sort="title", schema={"type": "object"}).save()
    todos.records.bulk_create({"id": f"r{n}", "title": f"é{n}", "n": {"b": n, "a": [1.0, None]}} for n in (2, 0, 1))
    return payments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def dumped(bucket: Bucket, folder: Path) -> DumpReport:
    return bucket.dump(folder, horizon=HORIZON)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(folder: Path) -> list[Any]:
    """Return the records of the collection ``todos``."""
    text = (folder / "collections/todos/records.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def manifest(folder: Path) -> Any:
    return json.loads((folder / "MANIFEST.json").read_bytes())


def test_a_dump_is_a_folder_that_can_be_read(bucket: Bucket, folder: Path) -> None:
    report = dumped(bucket, folder)

    assert report.collections == {"empty": 0, "todos": 3} and report.groups == 2
    assert sorted(contents(folder)) == [
        "MANIFEST.json",
        "bucket.json",
        "collections/empty/collection.json",
        "collections/empty/records.jsonl",
        "collections/todos/collection.json",
        "collections/todos/records.jsonl",
        "groups/auditors.json",
        "groups/staff.json",
    ]
    records = [
        json.loads(line) for line in (folder / "collections/todos/records.jsonl").read_text("utf-8").splitlines()
    ]
    stored = {one.id: one for one in bucket.collection("todos").records}
    assert records == [
        {"id": id, **stored[id].data, "last_modified": stored[id].last_modified} for id in sorted(stored)
    ]
    assert [list(one) for one in records] == [["id", "last_modified", "n", "schema", "title"]] * 3
    text = (folder / "bucket.json").read_text("utf-8")
    assert '\n    "description": "Zahlungen, größer",\n' in text and text.endswith("}\n")


def test_the_lines_of_records_depend_on_their_data_alone(bucket: Bucket, folder: Path) -> None:
    data = {"b": [{"z": 1, "a": "ä \u2028"}], "a": {"d": {}, "c": None}, "n": 1.5}
    bucket.collection("empty").records.create(id="x", data=data)

    dumped(bucket, folder)

    (line,) = (folder / "collections/empty/records.jsonl").read_text("utf-8").split("\n")[:-1]
    before, after = '{"a":{"c":null,"d":{}},"b":[{"a":"ä \u2028","z":1}],"id":"x","last_modified":', ',"n":1.5}'
    assert (line[: len(before)], line[-len(after) :]) == (before, after)


def test_objects_have_their_data_and_permissions(bucket: Bucket, folder: Path) -> None:
    dumped(bucket, folder)
    group = json.loads((folder / "groups/auditors.json").read_bytes())

    stored = bucket.groups.get("auditors")
    assert group == {
        "data": {"id": "auditors", "last_modified": stored.last_modified, "members": []},
        "permissions": {"read": ["system.Everyone"], "write": sorted(stored.permissions["write"])},
    }


def test_the_manifest_has_the_digest_of_each_file(bucket: Bucket, folder: Path) -> None:
    dumped(bucket, folder)

    found = manifest(folder)
    assert (found["bucket"], found["is_complete"]) == ("payments", True)
    assert found["files"].keys() == contents(folder).keys() - {"MANIFEST.json"}
    timestamp = bucket.collection("todos").records.timestamp()
    assert found["collections"]["todos"] == {
        "attachments": None,
        "count": 3,
        "folder": "collections/todos",
        "is_settled": True,
        "timestamp": timestamp,
    }


def test_a_second_dump_reads_no_records_and_changes_nothing(bucket: Bucket, folder: Path, wire: Wiretap) -> None:
    wire.requests.clear()
    dumped(bucket, folder)
    batched = [entry["method"] for body in wire.bodies if body for entry in body["requests"]]
    assert {request.method for request in wire.requests if request.path != "/batch"} | set(batched) <= {"GET", "HEAD"}
    before = contents(folder)
    wire.requests.clear()

    report = dumped(bucket, folder)

    assert contents(folder) == before
    assert report.reused == ["empty", "todos"] and report.collections == {"empty": 0, "todos": 3}
    assert [one.path for one in wire.requests if one.method == "GET" and one.path.endswith("/records")] == []


def test_only_what_changed_is_dumped_again(bucket: Bucket, folder: Path) -> None:
    Collection(bucket=bucket, id="more").save().records.create(id="m")
    dumped(bucket, folder)
    before = contents(folder)
    bucket.collection("todos").records.get("r1").patch(title="new")
    bucket.groups.get("staff").delete()
    bucket.collections.get("more").delete()

    report = dumped(bucket, folder)

    after = contents(folder)
    assert report.reused == ["empty"]
    assert before.keys() - after.keys() == {
        "groups/staff.json",
        "collections/more/collection.json",
        "collections/more/records.jsonl",
    }
    assert {name for name in after if after[name] != before[name]} == {
        "MANIFEST.json",
        "collections/todos/records.jsonl",
    }
    assert b'"title":"new"' in after["collections/todos/records.jsonl"]


def test_a_file_that_was_damaged_is_dumped_again(bucket: Bucket, folder: Path) -> None:
    dumped(bucket, folder)
    before = contents(folder)
    (folder / "collections/todos/records.jsonl").write_text("{}\n")

    assert dumped(bucket, folder).reused == ["empty"]
    assert contents(folder) == before


def test_a_list_that_was_changed_just_now_is_waited_for(bucket: Bucket, folder: Path) -> None:
    horizon = 0.3
    start = time.monotonic()
    bucket.collection("todos").records.get("r1").patch(title="new")

    bucket.dump(folder, horizon=horizon)

    assert time.monotonic() - start > horizon
    assert manifest(folder)["collections"]["todos"]["is_settled"]


def test_a_collection_that_is_written_to_meanwhile_is_read_again(
    bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "PAGE_SIZE", 2)
    records = bucket.collection("todos").records
    rivals = iter([lambda: records.create(id="r00")])

    def interfere(done: int, total: int | None, what: str) -> None:
        next(rivals, int)() if what == "dump todos" else None

    report = bucket.dump(folder, horizon=HORIZON, progress=interfere)

    assert report.collections["todos"] == 4 and report.unsettled == []
    assert [row["id"] for row in lines(folder)] == ["r0", "r00", "r1", "r2"]


def test_a_collection_that_never_rests_is_named(bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "PAGE_SIZE", 2)
    records = bucket.collection("todos").records

    def interfere(done: int, total: int | None, what: str) -> None:
        if what == "dump todos":
            records.get("r0").patch(n=done)

    report = bucket.dump(folder, horizon=HORIZON, progress=interfere)

    assert report.unsettled == ["todos"] and not manifest(folder)["collections"]["todos"]["is_settled"]
    assert len(lines(folder)) == 3
    assert dumped(bucket, folder).unsettled == []  # by now it rests


def test_the_default_bucket_is_dumped_by_its_own_id(kinto_client: Client, folder: Path) -> None:
    kinto_client.bucket("default").collection("todos").records.create(id="r", data={"n": 1})

    kinto_client.bucket("default").dump(folder, horizon=HORIZON)

    id = kinto_client.personal_bucket().id
    assert manifest(folder)["bucket"] == json.loads((folder / "bucket.json").read_bytes())["data"]["id"] == id
    assert kinto_client.bucket(id).dump(folder, horizon=HORIZON).reused == ["todos"]


def test_ids_that_differ_in_case_only_have_files_of_their_own(payments: Bucket, folder: Path) -> None:
    for id in ("Todos", "todos"):
        Collection(bucket=payments, id=id).save().records.create(id="r", data={"of": id})
        Group(bucket=payments, id=id).save()

    dumped(payments, folder)

    files = {name.lower() for name in contents(folder)}
    assert len(files) == len(contents(folder)) == 8
    assert {id: one["folder"] for id, one in manifest(folder)["collections"].items()} == {
        "Todos": "collections/Todos",
        "todos": "collections/todos~2",
    }


def test_the_dump_can_be_awaited(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    asyncio.run(bucket.adump(folder, horizon=HORIZON))
    dumped(bucket, tmp_path / "other")

    assert contents(folder) == contents(tmp_path / "other")


# -- permissions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(server: EmbeddedServer, payments: Bucket) -> Iterator[Bucket]:
    """The bucket as another user sees it, who may read it all and is shown no permissions."""
    payments.permissions.add("read", "system.Authenticated")
    payments.save()
    with Client.embedded(server=server, auth=("bob", "secret")) as bob:
        yield bob.bucket("payments")


def test_permissions_that_are_not_shown_come_from_the_history(
    theirs: Bucket, payments: Bucket, folder: Path, tmp_path: Path
) -> None:
    Collection(bucket=payments, id="todos", permissions={"record:create": ["account:bob"]}).save()
    assert not theirs.collections.get("todos").permissions.is_known

    report = dumped(theirs, folder)

    dumped(payments, tmp_path / "mine")
    assert report.unknown_permissions == []
    assert contents(folder) == contents(tmp_path / "mine")


def test_permissions_that_nobody_tells_are_null_and_named(folder: Path) -> None:
    includes = str(DEFAULT_SETTINGS["includes"]).replace("kinto.plugins.history", "")
    with EmbeddedServer.memory(includes=includes) as server, Client.embedded(server=server) as client:
        Bucket(id="b", client=client, permissions={"read": ["system.Authenticated"]}).save()
        with Client.embedded(server=server, auth=("bob", "secret")) as bob:
            report = bob.bucket("b").dump(folder, horizon=HORIZON)

    assert report.unknown_permissions == ["/buckets/b"]
    assert json.loads((folder / "bucket.json").read_bytes())["permissions"] is None


# -- what is refused, and what ends in the middle ---------------------------------------------------------------------


def test_a_folder_of_something_else_is_left_alone(bucket: Bucket, folder: Path) -> None:
    (folder / "groups").mkdir(parents=True)
    (folder / "groups" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds groups/mine\.txt and no MANIFEST\.json"):
        dumped(bucket, folder)

    (folder / "groups" / "mine.txt").unlink()
    (folder / "README.md").write_text("mine")
    dumped(bucket, folder)
    assert "README.md" in contents(folder)
    other = Bucket(id="other", client=bucket.client).save()
    with pytest.raises(UsageError, match="a dump of the bucket payments, not of other"):
        dumped(other, folder)
    (folder / "MANIFEST.json").write_text("{}")
    with pytest.raises(InvalidValueError, match="cannot be read as a manifest"):
        dumped(bucket, folder)


@pytest.mark.parametrize("attachments", [[1], "x", {"r1": 5}], ids=repr)
def test_a_manifest_whose_files_make_no_sense_is_refused(bucket: Bucket, folder: Path, attachments: Any) -> None:
    dumped(bucket, folder)
    found = manifest(folder)
    found["collections"]["todos"]["attachments"] = attachments
    (folder / "MANIFEST.json").write_text(json.dumps(found))

    with pytest.raises(InvalidValueError, match="cannot be read as a manifest"):
        dumped(bucket, folder)


def test_a_bucket_that_is_not_there_makes_no_folder(kinto_client: Client, folder: Path) -> None:
    with pytest.raises(ForbiddenError):
        kinto_client.bucket("nowhere").dump(folder)

    assert not folder.exists()


def test_wrong_options_are_refused(bucket: Bucket, folder: Path) -> None:
    with pytest.raises(InvalidTypeError, match="path"):
        bucket.dump(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="horizon"):
        bucket.dump(folder, horizon=-1)


def test_a_dump_that_is_killed_is_finished_by_the_next_one(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with start_server(pytestconfig, tmp_path) as server, Client.embedded(server=server, auth=ME) as client:
        bucket = Bucket(id="b", client=client).save()
        Group(bucket=bucket, id="staff").save()
        for number in range(3):
            collection = Collection(bucket=bucket, id=f"c{number}").save()
            collection.records.bulk_create({"id": str(one)} for one in range(number))
        time.sleep(3 * HORIZON)
        dumped(bucket, tmp_path / "whole")
        expected = contents(tmp_path / "whole")

        with listening(server) as url:
            for point in points():
                folder = tmp_path / str(point)
                is_killed = kill_at(point, url, lambda mine, to=folder: dumped(mine.bucket("b"), to), auth=ME)  # type: ignore[misc]
                dumped(bucket, folder)
                assert contents(folder) == expected, point
                if not is_killed:
                    break

    assert point >= 20

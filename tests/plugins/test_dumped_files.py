"""Files of records in a dump: fetched and checked, uploaded where the dump is loaded, never referenced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_host import FileHost, serve_files

from kinto_orm import Bucket, CapabilityMissingError, Client, Collection, Record, UsageError
from kinto_orm.server import EmbeddedServer

HORIZON = 0.02


@pytest.fixture
def folder(collection: Collection[Record], tmp_path: Path) -> Path:
    """A dump of the bucket ``b``, with three records of which two have a file."""
    records = collection.records
    records.create(id="none", data={"n": 1})
    records.attach(Record(collection=collection, id="one", data={"n": 1}), b"one", filename="one.txt")
    records.attach(Record(collection=collection, id="two", data={"n": 2}), b"two", filename="zwei ä.txt")
    report = collection.bucket.dump(tmp_path / "backup", horizon=HORIZON)
    assert (report.files, report.lost_files) == (2, [])
    return tmp_path / "backup"


def test_files_are_fetched_beside_their_records(folder: Path, collection: Collection[Record]) -> None:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "attachments").rglob("*.txt")}

    assert files == {"attachments/c/one/one.txt": b"one", "attachments/c/two/zwei ä.txt": b"two"}
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    assert set(manifest["collections"]["c"]["attachments"].values()) == set(files)


def test_only_new_files_are_fetched_again(folder: Path, collection: Collection[Record], file_host: FileHost) -> None:
    collection.records.attach(collection.records.get("one"), b"new", filename="one.txt")
    file_host.asked.clear()

    report = collection.bucket.dump(folder, horizon=HORIZON)

    assert (report.files, len(file_host.asked)) == (2, 1)
    assert (folder / "attachments/c/one/one.txt").read_bytes() == b"new"
    assert collection.bucket.dump(folder, horizon=HORIZON).reused == ["c"]
    assert len(file_host.asked) == 1


def test_files_are_uploaded_and_not_referenced(
    folder: Path, client: Client, collection: Collection[Record], file_host: FileHost
) -> None:
    report = client.load(folder, bucket="copy")

    copies = client.bucket("copy").collection("c").records
    mine, theirs = (records.attachment(records.get("one")) for records in (collection.records, copies))
    assert report.files == 2 and mine is not None and theirs is not None
    assert (theirs.filename, theirs.hash, theirs.size) == (mine.filename, mine.hash, mine.size)
    assert theirs.location != mine.location
    collection.records.detach(collection.records.get("one"))
    assert any(path.name == Path(theirs.location).name for path in file_host.files())
    assert copies.get("two").data["n"] == 2


def test_a_second_load_uploads_nothing(folder: Path, client: Client, adapter: Any) -> None:
    client.load(folder, bucket="copy")
    adapter.sent.clear()

    report = client.load(folder, bucket="copy")

    assert (report.files, [one[:2] for one in adapter.sent if one[1] != "/batch"]) == (0, [])


def test_an_upload_whose_answer_got_lost_is_made_once(folder: Path, client: Client, adapter: Any) -> None:
    client.load(folder, bucket="copy")
    copies = client.bucket("copy").collection("c").records
    copies.detach(copies.get("one"))
    adapter.plan.append("lost after")

    assert client.load(folder, bucket="copy").files == 1
    assert copies.attachment(copies.get("one")) is not None


def test_a_file_that_the_server_has_lost_is_named(
    client: Client, collection: Collection[Record], file_host: FileHost, tmp_path: Path
) -> None:
    collection.records.attach(Record(collection=collection, id="one"), b"one", filename="one.txt")
    for file in file_host.files():
        file.unlink()

    report = collection.bucket.dump(tmp_path / "backup", horizon=HORIZON)

    assert report.lost_files == ["/buckets/b/collections/c/records/one"]
    assert client.load(tmp_path / "backup", bucket="copy").lost_files == ["/buckets/copy/collections/c/records/one"]


def test_files_need_a_server_that_takes_them_and_have_new_timestamps(
    folder: Path, client: Client, kinto_client: Client
) -> None:
    with pytest.raises(CapabilityMissingError, match="attachments"):
        kinto_client.load(folder)
    with pytest.raises(UsageError, match="timestamps=True cannot keep"):
        client.load(folder, bucket="copy", timestamps=True)

    assert client.bucket("copy").collections is not None
    assert [bucket.id for bucket in kinto_client.buckets] == []


def test_a_bucket_with_files_is_copied(client: Client, folder: Path, collection: Collection[Record]) -> None:
    assert collection.bucket.copy_to(client, bucket="copy", horizon=HORIZON).files == 2
    assert Bucket(id="copy", client=client).collection("c").records.count() == 3


@pytest.fixture
def elsewhere(server: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[Client, FileHost]]:
    """A client of another server with the same plugin, and the host of its files."""
    (tmp_path / "elsewhere").mkdir()
    with serve_files(tmp_path / "elsewhere") as host:
        settings = {"attachment.base_path": str(host.folder), "attachment.base_url": host.url}
        other = EmbeddedServer.memory(includes=server.settings["includes"], **settings)
        with other, Client.embedded(server=other) as client:
            yield client, host


def test_a_bucket_with_files_is_copied_to_another_server(
    folder: Path,
    collection: Collection[Record],
    file_host: FileHost,
    elsewhere: tuple[Client, FileHost],
    tmp_path: Path,
) -> None:
    other, host = elsewhere

    assert collection.bucket.copy_to(other, horizon=HORIZON).files == 2

    for file in file_host.files():
        file.unlink()
    copies = other.bucket("b").collection("c").records
    for id, content in {"one": b"one", "two": b"two"}.items():
        copies.download(copies.get(id), tmp_path / id)
        assert (tmp_path / id).read_bytes() == content
    assert len(host.files()) == 2
    assert collection.records.diff(copies).is_empty
    assert collection.bucket.copy_to(other, horizon=HORIZON).files == 0

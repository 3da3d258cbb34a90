"""A dump in another place: equal, verified, and safe to load twice, or again after it was interrupted."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
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
    CommitError,
    ConflictError,
    EmptySourceError,
    Group,
    InvalidTypeError,
    InvalidValueError,
    LoadReport,
    NotStageableError,
    Record,
    TooManyDeletesError,
    UsageError,
    VerificationError,
)
from kinto_orm.jobs import load
from kinto_orm.repository.state import Outcome
from kinto_orm.server import EmbeddedServer, listening

HORIZON = 0.02
ME, BOB = ("me", "secret"), ("bob", "secret")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.fixture(scope="module")
def server_of_source() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory() as server:
        yield server


@pytest.fixture
def source(server_of_source: EmbeddedServer) -> Iterator[Client]:
    with Client.embedded(server=server_of_source, auth=ME) as client:
        yield client
    server_of_source.flush()


@pytest.fixture
def bucket(source: Client) -> Bucket:
    """A bucket with a group, and two collections of which one has records, and a schema that one of them violates."""
    group = "/buckets/payments/groups/staff"
    permissions = {"read": [group, "system.Everyone"]}
    bucket = Bucket(id="payments", data={"title": "Payments"}, client=source, permissions=permissions).save()
    Group(bucket=bucket, id="staff", members=["account:bob"], permissions={"write": ["account:eve"]}).save()
    Collection(bucket=bucket, id="empty").save()
    todos = Collection(bucket=bucket, id="todos", sort="n", permissions={"record:create": [group]}).save()
    todos.records.bulk_create({"id": f"r{n}", "n": n, "tags": [{"a": 1.5, "b": None}]} for n in range(30))
    todos.records.create(id="old", data={"n": "many"})
    todos.patch(schema=SCHEMA)
    return bucket


@pytest.fixture
def folder(bucket: Bucket, tmp_path: Path) -> Path:
    time.sleep(3 * HORIZON)
    bucket.dump(tmp_path / "backup", horizon=HORIZON)
    return tmp_path / "backup"


def writes(wire: Wiretap) -> list[str]:
    return [f"{request.method} {request.path}" for request in wire.requests if request.is_write]


def contents(client: Client, folder: Path, bucket: str = "payments") -> dict[str, Any]:
    """All that the bucket holds, without timestamps, and without those who loaded it."""
    client.bucket(bucket).dump(folder, horizon=HORIZON)
    found: dict[str, Any] = {}
    for path in folder.rglob("*.json*"):
        name = path.relative_to(folder).as_posix()
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.suffix == ".jsonl" else None
        if rows is not None:
            found[name] = [{key: row[key] for key in row if key not in ("last_modified", "schema")} for row in rows]
        elif name != "MANIFEST.json":
            document = json.loads(path.read_bytes())
            del document["data"]["last_modified"]
            writers = [one for one in document["permissions"].pop("write", []) if not one.startswith("basicauth")]
            found[name] = {**document, "writers": writers}
    return found


def test_a_dump_is_loaded_into_another_server(
    bucket: Bucket, folder: Path, kinto_client: Client, tmp_path: Path
) -> None:
    report = kinto_client.load(folder)

    assert (report.created, report.objects.created, report.failed) == (31, 4, [])
    assert contents(kinto_client, tmp_path / "there") == contents(bucket.client, tmp_path / "here")  # type: ignore[arg-type]
    a, b = bucket.collection("todos").records, kinto_client.bucket("payments").collection("todos").records
    assert a.diff(b).is_empty
    assert [(one.id, one.loc) for one in report.violations or ()] == [("old", ("n",))]


def test_a_second_load_writes_nothing(folder: Path, kinto_client: Client, wire: Wiretap) -> None:
    kinto_client.load(folder)
    wire.requests.clear()

    report = kinto_client.load(folder)

    assert writes(wire) == []
    assert (report.unchanged, report.created, report.objects.unchanged) == (31, 0, 4)


def test_a_dump_can_be_loaded_under_another_id(folder: Path, kinto_client: Client) -> None:
    kinto_client.load(folder, bucket="copy")

    copy = kinto_client.buckets.get("copy")
    assert copy.permissions["read"] == {"/buckets/copy/groups/staff", "system.Everyone"}
    permissions = copy.collections.get("todos").permissions
    assert permissions["record:create"] == {"/buckets/copy/groups/staff"}
    assert copy.collection("todos").records.count() == 31


def test_what_exists_is_merged(folder: Path, kinto_client: Client) -> None:
    payments = Bucket(id="payments", client=kinto_client, data={"mine": 1, "title": "old"}).save()
    todos = Collection(bucket=payments, id="todos", data={"mine": 1}).save()
    todos.records.bulk_create([{"id": "r1", "n": 99, "gone": 1}, {"id": "mine", "n": 1}])

    report = kinto_client.load(folder)

    assert (report.created, report.updated, report.deleted) == (30, 1, 0)
    assert payments.refresh().data["mine"] == 1 and payments.data["title"] == "Payments"
    assert todos.refresh().sort == "n" and todos.data["mine"] == 1
    assert todos.records.get("r1").data["n"] == 1 and "gone" not in todos.records.get("r1").data
    assert todos.records.get("mine").data["n"] == 1


def test_delete_makes_equal_and_has_its_guard(
    bucket: Bucket, folder: Path, kinto_client: Client, wire: Wiretap, tmp_path: Path
) -> None:
    kinto_client.load(folder)
    payments = kinto_client.bucket("payments")
    Group(bucket=payments, id="extra").save()
    Collection(bucket=payments, id="more").save().records.create(id="m")
    payments.collection("todos").records.bulk_create({"id": f"x{n}"} for n in range(40))
    wire.requests.clear()

    with pytest.raises(TooManyDeletesError, match=r"collections/more is not in the dump"):
        kinto_client.load(folder, delete=True)
    payments.collection("more").records.delete(everything=True)
    payments.collection("more").records.create(id="m").delete()
    wire.requests.clear()
    with pytest.raises(TooManyDeletesError, match="40 of the 71 records"):
        kinto_client.load(folder, delete=True)
    assert writes(wire) == []

    report = kinto_client.load(folder, delete=True, max_deletes=40)
    assert (report.deleted, report.objects.deleted) == (40, 2)
    assert contents(kinto_client, tmp_path / "there") == contents(bucket.client, tmp_path / "here")  # type: ignore[arg-type]


def test_a_collection_that_is_empty_in_the_dump_is_guarded(folder: Path, kinto_client: Client) -> None:
    kinto_client.load(folder)
    kinto_client.bucket("payments").collection("empty").records.create(id="mine")

    with pytest.raises(EmptySourceError):
        kinto_client.load(folder, delete=True)


# -- permissions ------------------------------------------------------------------------------------------------------


def test_permissions_are_exact_added_or_left_alone(folder: Path, kinto_client: Client) -> None:
    kinto_client.load(folder)
    group = kinto_client.bucket("payments").groups.get("staff")
    group.permissions.assign({"read": ["account:ann"]})
    group.save()
    own = kinto_client.server_info()["user"]["id"]

    kinto_client.load(folder, permissions="skip")
    assert {name: set(one) for name, one in group.refresh().permissions.items()} == {
        "read": {"account:ann"},
        "write": {own},
    }
    kinto_client.load(folder, permissions="add")
    added = {name: set(one) for name, one in group.refresh().permissions.items()}
    assert added["read"] == {"account:ann"} and {own, "account:eve"} <= added["write"]
    kinto_client.load(folder)
    exact = {name: set(one) for name, one in group.refresh().permissions.items() if one}
    assert "read" not in exact and {own, "account:eve"} <= exact["write"]


def test_principals_are_mapped(folder: Path, kinto_client: Client) -> None:
    kinto_client.load(folder, principals={"account:bob": "account:rob", "account:eve": None})

    group = kinto_client.bucket("payments").groups.get("staff")
    assert group.members == ["account:rob"]
    assert "account:eve" not in group.permissions["write"]
    kinto_client.load(folder, bucket="more", principals=lambda one: one.replace("bob", "rob"))
    assert kinto_client.bucket("more").groups.get("staff").members == ["account:rob"]


def test_whom_kinto_added_is_told(folder: Path, kinto_client: Client) -> None:
    loader = kinto_client.clone(auth=BOB)

    report = loader.load(folder)

    own = loader.server_info()["user"]["id"]
    assert set(report.added_principals.values()) == {own}
    assert "/buckets/payments/collections/todos" in report.added_principals


def test_permissions_that_are_not_shown_are_left_alone_and_told(folder: Path, kinto_client: Client) -> None:
    kinto_client.load(folder)
    loader = kinto_client.clone(auth=BOB)
    payments = kinto_client.buckets.get("payments")
    payments.permissions.add("write", loader.server_info(refresh=True)["user"]["id"])
    payments.save()

    report = loader.load(folder)

    assert "/buckets/payments/groups/staff" in report.unknown_permissions
    assert (report.objects.updated, report.objects.unchanged) == (1, 3)  # the bucket shows them to its writers


# -- schemas, refusals ------------------------------------------------------------------------------------------------


def test_records_that_the_server_refuses_are_told_and_the_others_stored(folder: Path, kinto_client: Client) -> None:
    payments = Bucket(id="payments", client=kinto_client).save()
    Collection(bucket=payments, id="todos", schema=SCHEMA).save()

    with pytest.raises(CommitError, match="load: failed for 1") as caught:
        kinto_client.load(folder)

    report: LoadReport = caught.value.report
    assert (report.created, [one.status for one in report.failed]) == (30, ["rejected"])
    assert payments.collection("todos").records.count() == 30


@pytest.mark.parametrize("name", ["bucket.json", "collections/todos/records.jsonl", "groups/staff.json"])
def test_a_damaged_dump_is_refused(folder: Path, kinto_client: Client, wire: Wiretap, name: str) -> None:
    (folder / name).write_text((folder / name).read_text("utf-8").replace("1", "2", 1), "utf-8")
    with pytest.raises(InvalidValueError, match=rf"damaged: {name} is not the file that was dumped"):
        kinto_client.load(folder)

    (folder / name).unlink()
    with pytest.raises(InvalidValueError, match=rf"damaged: {name} is missing"):
        kinto_client.load(folder)
    assert writes(wire) == []


def test_what_is_no_dump_is_refused(folder: Path, kinto_client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"no MANIFEST\.json"):
        kinto_client.load(tmp_path)
    text = (folder / "MANIFEST.json").read_text("utf-8")
    (folder / "MANIFEST.json").write_text(text.replace('"is_complete": true', '"is_complete": false'), "utf-8")
    with pytest.raises(InvalidValueError, match="is not complete: dump again"):
        kinto_client.load(folder)
    (folder / "MANIFEST.json").write_text(text.replace('"groups/staff.json"', '"../staff.json"'), "utf-8")
    with pytest.raises(InvalidValueError, match="no name of a file"):
        kinto_client.load(folder)


def test_wrong_options_are_refused(folder: Path, kinto_client: Client) -> None:
    with pytest.raises(InvalidValueError, match="permissions is"):
        kinto_client.load(folder, permissions="all")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="principals is"):
        kinto_client.load(folder, principals=["a"])  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="delete=True has no meaning"):
        kinto_client.load(folder, timestamps=True, delete=True)
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match="load"):
        kinto_client.load(folder)


def test_what_another_client_changed_meanwhile_is_told(
    folder: Path, kinto_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = load.Applying.write

    def write_and_meddle(applying: Any, verb: str) -> Any:
        report = yield from write(applying, verb)
        kinto_client.bucket("payments").collection("todos").records.filter(id="r1").update(n=7)
        return report

    monkeypatch.setattr(load.Applying, "write", write_and_meddle)

    with pytest.raises(VerificationError, match="1 records differ, the first one is r1"):
        kinto_client.load(folder)


in_memory = pytest.mark.parametrize("server", ["memory"], indirect=True)


@in_memory
@pytest.mark.parametrize("exists", [False, True], ids=["created", "changed"])
def test_what_a_rival_writes_between_two_batches_is_kept_and_told(
    folder: Path, kinto_client: Client, exists: bool
) -> None:
    """``r9`` is in the last batch, which is not yet sent when the rival writes."""
    if exists:
        kinto_client.load(folder)
        kinto_client.bucket("payments").collection("todos").records.filter(not_id="old").update(n=-1)
    rival = Rival(kinto_client, "r9", {"n": 7, "mine": True})

    with pytest.raises(CommitError) as caught:
        kinto_client.load(folder, progress=rival)

    assert rival.is_done
    (theirs,) = [one for one in caught.value.outcomes if one.status == "conflict"]
    assert theirs.object.id == "r9" and isinstance(theirs.error, ConflictError)
    records = {one.id: dict(one.data) for one in kinto_client.bucket("payments").collection("todos").records}
    assert records.pop("r9").items() >= {"n": 7, "mine": True}.items()
    assert len(records) == 30 and all(records[f"r{n}"]["n"] == n for n in range(30) if n != 9)


@in_memory
def test_a_rival_that_changes_what_an_earlier_batch_wrote_is_told(folder: Path, kinto_client: Client) -> None:
    rival = Rival(kinto_client, "r0", {"n": 7})

    with pytest.raises(VerificationError, match="1 records differ, the first one is r0"):
        kinto_client.load(folder, progress=rival)

    assert rival.is_done
    records = kinto_client.bucket("payments").collection("todos").records
    assert records.count() == 31 and records.get("r0").data["n"] == 7
    assert kinto_client.load(folder).updated == 1


class Rival:
    """Another client that writes one record once the first batch of records is stored."""

    def __init__(self, client: Client, id: str, data: dict[str, Any]) -> None:
        self._records = client.clone().bucket("payments").collection("todos").records
        self._row = {"id": id, **data}
        self.is_done = False

    def __call__(self, done: int, total: int | None, what: str) -> None:
        if what == "write records" and not self.is_done:
            assert total is not None and done < total, "the load wrote all at once"
            self.is_done = True
            self._records.sync([self._row], fields="given")


def test_a_dry_client_plans_what_can_be_planned(folder: Path, kinto_client: Client, wire: Wiretap) -> None:
    dry = kinto_client.clone(dry_mode=True)

    assert dry.load(folder).objects.planned == 4
    kinto_client.load(folder)
    kinto_client.bucket("payments").collection("todos").records.get("r1").patch(n=7)
    dry.clear_plan()
    wire.requests.clear()

    assert dry.load(folder).planned == 1
    assert len(dry.plan().as_json()) == 1 and writes(wire) == []


# -- timestamps -------------------------------------------------------------------------------------------------------


def stamps(client: Client) -> dict[str, int | None]:
    return {one.id: one.last_modified for one in client.bucket("payments").collection("todos").records}


def test_timestamps_are_kept_in_empty_collections(
    source: Client, folder: Path, kinto_client: Client, wire: Wiretap
) -> None:
    report = kinto_client.load(folder, timestamps=True)

    assert report.created == 31 and stamps(kinto_client) == stamps(source)
    wire.requests.clear()
    assert kinto_client.load(folder, timestamps=True).unchanged == 31
    assert writes(wire) == []


def test_timestamps_are_refused_where_there_are_other_records(
    folder: Path, kinto_client: Client, wire: Wiretap
) -> None:
    payments = Bucket(id="payments", client=kinto_client).save()
    Collection(bucket=payments, id="todos").save().records.create(id="r1", data={"n": 1})
    wire.requests.clear()

    with pytest.raises(UsageError, match="is not empty: it has r1"):
        kinto_client.load(folder, timestamps=True)

    assert writes(wire) == []


@pytest.mark.parametrize("id", ["r0", "rival"], ids=["changed", "created"])
def test_what_a_rival_writes_while_timestamps_are_loaded_is_told(
    folder: Path, kinto_client: Client, wire: Wiretap, id: str
) -> None:
    rival = kinto_client.clone().bucket("payments").collection("todos").records
    send, batches = wire.transport.send, itertools.count()

    def meddle(request: Any) -> Any:
        answer = send(request)
        # The first one is that of bucket, groups and collections; the next two have the records.
        if request.path == "/batch" and next(batches) == 2:
            rival.update_or_create(id, {"n": 7})
        return answer

    wire.transport.send = meddle  # type: ignore[method-assign]

    with pytest.raises(VerificationError, match=f"todos/records is not as it was loaded: it has {id}"):
        kinto_client.load(folder, timestamps=True)


def test_timestamps_that_cannot_be_stored_are_refused(folder: Path, kinto_client: Client, wire: Wiretap) -> None:
    file = folder / "collections/todos/records.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    wrong: dict[str, list[Any]] = {
        "have the same timestamp": [rows[0], {**rows[1], "last_modified": rows[0]["last_modified"]}],
        "sorted by id": [rows[1], rows[0]],
        "cannot store": [{**rows[0], "last_modified": 10**15}],
    }
    for message, some in wrong.items():
        rewrite(folder, "".join(f"{json.dumps(row)}\n" for row in some))
        with pytest.raises(InvalidValueError, match=message):
            kinto_client.load(folder, timestamps=True)
    assert writes(wire) == []


def rewrite(folder: Path, text: str) -> None:
    """Change the records, and the manifest with them."""
    name = "collections/todos/records.jsonl"
    (folder / name).write_text(text, "utf-8")
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    manifest["files"][name] = {"size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest), "utf-8")


# -- copies, twins, kills ---------------------------------------------------------------------------------------------


def test_a_bucket_is_copied_without_a_folder(bucket: Bucket, kinto_client: Client, tmp_path: Path) -> None:
    report = bucket.copy_to(kinto_client, horizon=HORIZON)

    assert report.created == 31
    assert contents(kinto_client, tmp_path / "there") == contents(bucket.client, tmp_path / "here")  # type: ignore[arg-type]
    assert bucket.copy_to(kinto_client, horizon=HORIZON).unchanged == 31
    assert bucket.copy_to(bucket.client, bucket="copy", horizon=HORIZON).created == 31  # type: ignore[arg-type]


@in_memory
def test_a_bucket_is_copied_to_a_client_only(bucket: Bucket, wire: Wiretap) -> None:
    wire.requests.clear()

    with pytest.raises(InvalidTypeError, match="copied to a client"):
        bucket.copy_to("http://localhost/v1")  # type: ignore[arg-type]

    assert wire.requests == []


def test_the_twins_do_the_same(bucket: Bucket, folder: Path, kinto_client: Client) -> None:
    assert asyncio.run(kinto_client.aload(folder)).created == 31
    assert asyncio.run(bucket.acopy_to(kinto_client, bucket="copy", horizon=HORIZON)).created == 31


@pytest.mark.parametrize("timestamps", [False, True], ids=["now", "timestamps"])
def test_a_load_that_is_killed_is_finished_by_the_next_one(
    source: Client, tmp_path: Path, pytestconfig: pytest.Config, timestamps: bool
) -> None:
    bucket = Bucket(id="payments", client=source).save()
    Group(bucket=bucket, id="staff").save()
    todos = Collection(bucket=bucket, id="todos", schema=SCHEMA).save()
    todos.records.bulk_create({"id": f"r{n}", "n": n} for n in range(75))
    time.sleep(3 * HORIZON)
    folder = tmp_path / "backup"
    bucket.dump(folder, horizon=HORIZON)
    expected = contents(source, tmp_path / "here")

    with (
        start_server(pytestconfig, tmp_path, batch_max_requests=5) as server,
        Client.embedded(server=server, auth=ME) as client,
        listening(server) as url,
    ):
        for point in points():
            is_killed = kill_at(point, url, lambda mine: mine.load(folder, timestamps=timestamps), auth=ME)
            client.load(folder, timestamps=timestamps)
            assert contents(client, tmp_path / f"there{point}") == expected, point
            assert not timestamps or stamps(client) == stamps(source)
            written = [one.uri for one in client.bucket("payments").history.filter(resource_name="record")]
            assert len(written) == len(set(written)) == 75, point
            server.flush()
            if not is_killed:
                break

    assert point >= 20


def test_outcomes_name_the_records(folder: Path, kinto_client: Client) -> None:
    payments = Bucket(id="payments", client=kinto_client).save()
    Collection(bucket=payments, id="todos", schema=SCHEMA).save()

    with pytest.raises(CommitError) as caught:
        kinto_client.load(folder)
    (outcome,) = caught.value.outcomes
    assert isinstance(outcome, Outcome) and isinstance(outcome.object, Record) and outcome.object.id == "old"


REAL = Path(__file__).parents[3] / "shared" / "data"
"""Dumps of real collections, where they are."""


@pytest.mark.parametrize("name", ["search-config-v2", "search-telemetry-v2"])
def test_real_records_survive_dump_and_load(source: Client, kinto_client: Client, tmp_path: Path, name: str) -> None:
    file = REAL / f"{name}.json"
    if not file.exists():
        pytest.skip(f"there is no {file}")
    bucket = Bucket(id="main", client=source).save()
    mine = Collection(bucket=bucket, id=name).save().records
    mine.sync(file)
    bucket.dump(tmp_path, horizon=HORIZON)

    report = kinto_client.load(tmp_path, timestamps=True)

    theirs = kinto_client.bucket("main").collection(name).records
    assert report.created == mine.count() > 0
    assert mine.diff(theirs).is_empty
    assert {one.id: one.last_modified for one in mine} == {one.id: one.last_modified for one in theirs}

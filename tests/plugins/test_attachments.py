"""Files of records, as one unit with their record."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from file_host import FileHost
from lossy import LossyAdapter, Raced

from kinto_orm import (
    AmbiguousWriteError,
    BadRequestError,
    BasicPatch,
    Client,
    Collection,
    ConflictError,
    ConnectionLostError,
    DeletedObjectError,
    InvalidTypeError,
    InvalidValueError,
    NotFoundError,
    NotLoadedError,
    NotStageableError,
    ProtocolError,
    Record,
    ResponseError,
    ServerError,
    UnsavedChangesError,
    UsageError,
)
from kinto_orm.server import EmbeddedServer

CONTENT = b"hello, world"
OTHER = b"something else"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def record(collection: Collection[Record]) -> Record:
    return collection.records.create(id="r", data={"n": 1})


@pytest.fixture
def attached(collection: Collection[Record], record: Record, adapter: LossyAdapter) -> Record:
    collection.records.attach(record, CONTENT, filename="a.txt")
    adapter.sent.clear()
    return record


def stored(collection: Collection[Record], id: str = "r") -> Record:
    """Return the record as the server has it."""
    return collection.records.get(id)


def sent(adapter: LossyAdapter) -> list[str]:
    return [f"{method} {path.rpartition('/records/')[2]}" for method, path, _ in adapter.sent]


# -- attach -----------------------------------------------------------------------------------------------------------


def test_a_file_is_attached_and_the_record_is_up_to_date(
    collection: Collection[Record], record: Record, file_host: FileHost
) -> None:
    outcome = collection.records.attach(record, CONTENT, filename="a.txt", mimetype="text/x-greeting")

    found = collection.records.attachment(record)
    assert (outcome.status, outcome.object, outcome.reconciled) == ("updated", record, False)
    assert found is not None
    assert (found.filename, found.mimetype, found.size, found.hash) == (
        "a.txt",
        "text/x-greeting",
        len(CONTENT),
        sha256(CONTENT),
    )
    assert (record.data["n"], record.is_dirty) == (1, False)
    assert stored(collection).last_modified == record.last_modified
    assert [path.read_bytes() for path in file_host.files()] == [CONTENT]
    record.data["n"] = 2
    record.save()
    assert stored(collection).data["attachment"]["filename"] == "a.txt"


@pytest.mark.parametrize("form", ["path", "text", "open", "stream"])
def test_a_file_is_given_by_its_path_or_open(
    collection: Collection[Record], record: Record, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "é a.txt"
    path.write_bytes(CONTENT)

    with path.open("rb") as opened:
        file = {"path": path, "text": str(path), "open": opened, "stream": io.BytesIO(CONTENT)}[form]
        collection.records.attach(record, file, filename=None if form != "stream" else "é a.txt")  # type: ignore[arg-type]

    found = collection.records.attachment(record)
    assert found is not None
    assert (found.filename, found.hash) == ("é a.txt", sha256(CONTENT))


def test_an_open_file_may_be_given_again(collection: Collection[Record], record: Record, adapter: LossyAdapter) -> None:
    stream = io.BytesIO(b"skipped" + CONTENT)
    stream.seek(len(b"skipped"))
    adapter.plan.extend(["lost before"] * 4)
    with pytest.raises(ConnectionLostError):
        collection.records.attach(record, stream, filename="a.txt")

    for one in (record, Record(collection=collection, id="another")):
        collection.records.attach(one, stream, filename="a.txt")

        found = collection.records.attachment(one)
        assert found is not None
        assert found.hash == sha256(CONTENT)


def test_what_is_read_from_a_pipe_is_attached(collection: Collection[Record], record: Record) -> None:
    reading, writing = os.pipe()
    with open(writing, "wb") as end:
        end.write(CONTENT)

    with open(reading, "rb") as pipe:
        collection.records.attach(record, pipe, filename="a.txt")

    assert stored(collection).data["attachment"]["hash"] == sha256(CONTENT)


def test_a_new_record_is_made_with_its_file_in_one_request(
    collection: Collection[Record], adapter: LossyAdapter
) -> None:
    record = Record(collection=collection, data={"n": 1}, permissions={"read": ["system.Everyone"]})

    outcome = collection.records.attach(record, CONTENT, filename="a.txt")

    assert (outcome.status, record.is_new, record.is_dirty) == ("created", False, False)
    assert sent(adapter) == [f"POST {record.id}/attachment"]
    assert record.permissions.read == {"system.Everyone"}
    assert stored(collection, str(record.id)).data["n"] == 1


def test_a_new_record_without_data_is_made_too(collection: Collection[Record]) -> None:
    record = Record(id="bare")

    assert collection.records.attach(record, CONTENT, filename="a.txt").status == "created"
    assert set(record.data) == {"attachment"}


def test_a_record_of_that_id_is_not_written_over(collection: Collection[Record], record: Record) -> None:
    new = Record(collection=collection, id="r", data={"n": 2})

    with pytest.raises(ConflictError, match="already") as caught:
        collection.records.attach(new, CONTENT, filename="a.txt")

    assert (caught.value.theirs, caught.value.mine) == ({"n": 1}, {"n": 2})
    assert caught.value.reload() is new
    assert collection.records.attach(new, CONTENT, filename="a.txt").status == "updated"


def test_it_may_be_merged_into_a_record_of_that_id(collection: Collection[Record], record: Record) -> None:
    new = Record(collection=collection, id="r", data={"more": True})

    assert collection.records.attach(new, CONTENT, filename="a.txt", safe=False).status == "updated"
    assert new.data["n"] == 1 and new.data["more"] is True


def test_a_file_that_the_record_has_already_is_not_sent(
    collection: Collection[Record], attached: Record, adapter: LossyAdapter
) -> None:
    before = attached.last_modified

    assert collection.records.attach(attached, CONTENT, filename="a.txt").status == "unchanged"
    assert collection.records.attach(attached, io.BytesIO(CONTENT), filename="a.txt").status == "unchanged"
    assert (sent(adapter), stored(collection).last_modified) == ([], before)


def test_the_same_content_under_another_name_is_sent(collection: Collection[Record], attached: Record) -> None:
    assert collection.records.attach(attached, CONTENT, filename="b.txt").status == "updated"
    assert stored(collection).data["attachment"]["filename"] == "b.txt"


def test_a_file_by_another_path_is_the_same_file(
    collection: Collection[Record], attached: Record, tmp_path: Path
) -> None:
    (tmp_path / "drawn-at-random.txt").write_bytes(CONTENT)

    assert collection.records.attach(attached, tmp_path / "drawn-at-random.txt").status == "unchanged"


def test_what_somebody_else_attached_is_found_before_anything_is_sent(
    collection: Collection[Record], adapter: LossyAdapter
) -> None:
    collection.records.create(id="r", data={"n": 1})
    mine = Record(collection=collection, id="r")
    collection.records.attach(stored(collection), CONTENT, filename="a.txt")
    adapter.sent.clear()

    outcome = collection.records.attach(stored(collection).patch(n=2), CONTENT, filename="a.txt")
    assert outcome.status == "unchanged"
    assert collection.records.attach(mine, CONTENT, filename="a.txt", safe=False).status == "updated"


def test_a_stale_record_is_a_conflict(collection: Collection[Record], record: Record, adapter: LossyAdapter) -> None:
    stored(collection).patch(n=2)
    adapter.sent.clear()

    with pytest.raises(ConflictError) as caught:
        collection.records.attach(record, CONTENT, filename="a.txt")

    assert (sent(adapter), caught.value.base, caught.value.theirs) == ([], {"n": 1}, {"n": 2})
    assert caught.value.reload() is record
    assert collection.records.attach(record, CONTENT, filename="a.txt").status == "updated"


def test_a_stale_record_may_get_its_file_all_the_same(collection: Collection[Record], record: Record) -> None:
    stored(collection).patch(n=2)

    assert collection.records.attach(record, CONTENT, filename="a.txt", safe=False).status == "updated"
    assert record.data["n"] == 2


def test_a_record_with_changes_is_saved_first(
    collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    record.data["n"] = 2
    adapter.sent.clear()

    with pytest.raises(UnsavedChangesError, match="save"):
        collection.records.attach(record, CONTENT, filename="a.txt")
    with pytest.raises(UnsavedChangesError, match="save"):
        collection.records.detach(record)

    assert sent(adapter) == []


def test_a_record_that_is_gone_gets_no_file(collection: Collection[Record], attached: Record) -> None:
    stored(collection).delete()

    with pytest.raises(NotFoundError):
        collection.records.attach(attached, OTHER, filename="a.txt")
    with pytest.raises(NotFoundError):
        collection.records.detach(attached)
    with pytest.raises(NotFoundError):
        collection.records.detach(Record(collection=collection, id="never"))
    with pytest.raises(DeletedObjectError):
        collection.records.attach(attached.delete(if_exists=True), OTHER, filename="a.txt")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param('a"b.txt', id="a quote"),
        pytest.param('"; name="data.txt', id="quotes that would name another field"),
        pytest.param("a%22b%0D%0A.txt", id="what browsers write for a quote and for line ends"),
        pytest.param("a; b='c'.txt", id="other signs of a header"),
        pytest.param("日本 \N{GREEK SMALL LETTER ALPHA}\N{FIRE}.txt", id="letters beyond Latin-1"),
        pytest.param("e\u0301\u2028\x85.txt", id="accents and line ends of Unicode"),
    ],
)
def test_a_name_comes_back_as_it_was_given(
    collection: Collection[Record], record: Record, adapter: LossyAdapter, name: str
) -> None:
    adapter.plan.append("lost after")

    outcome = collection.records.attach(record, CONTENT, filename=name)

    assert (outcome.status, outcome.reconciled) == ("updated", True)  # by the name, too
    found = collection.records.attachment(stored(collection))
    assert found is not None
    assert (found.filename, found.hash) == (name, sha256(CONTENT))
    assert stored(collection).data["n"] == 1
    assert collection.records.attach(record, CONTENT, filename=name).status == "unchanged"


@pytest.mark.parametrize(
    "name", ["../a.txt", "/etc/passwd", "a\\b.txt", "..", "", "a\n.txt", "a\r\nX: y.txt", "\udcff.txt"]
)
def test_a_name_with_a_path_is_not_sent(
    collection: Collection[Record], record: Record, adapter: LossyAdapter, name: str
) -> None:
    adapter.sent.clear()

    with pytest.raises(InvalidValueError, match="without folders"):
        collection.records.attach(record, CONTENT, filename=name)

    assert sent(adapter) == []


def test_what_is_no_file_is_refused(collection: Collection[Record], record: Record, tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="filename="):
        collection.records.attach(record, CONTENT)
    with pytest.raises(InvalidTypeError, match="binary"):
        collection.records.attach(record, io.StringIO("text"), filename="a.txt")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="binary"):
        collection.records.attach(record, 5, filename="a.txt")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="missing"):
        collection.records.attach(record, tmp_path / "missing.txt")
    with pytest.raises(InvalidTypeError, match="no Record"):
        collection.records.attach(collection, CONTENT, filename="a.txt")  # type: ignore[type-var]
    with pytest.raises(InvalidValueError, match="ASCII"):
        collection.records.attach(record, CONTENT, filename="a.txt", mimetype="text/\n")


def test_it_is_no_part_of_a_unit_of_work(client: Client, collection: Collection[Record], record: Record) -> None:
    with client.unit_of_work(), pytest.raises(NotStageableError, match="attach"):
        collection.records.attach(record, CONTENT, filename="a.txt")
    with client.unit_of_work(), pytest.raises(NotStageableError, match="detach"):
        collection.records.detach(record)


def test_a_refused_file_leaves_no_new_record(collection: Collection[Record]) -> None:
    new = Record(collection=collection, id="new", data={"n": 1})

    with pytest.raises(BadRequestError, match="extension"):
        collection.records.attach(new, CONTENT, filename="a.exe")

    assert new.is_new and collection.records.get_or_none("new") is None
    assert collection.records.attach(new, CONTENT, filename="a.txt").status == "created"


def test_a_refusal_says_that_the_old_file_may_be_gone(
    collection: Collection[Record], attached: Record, file_host: FileHost
) -> None:
    with pytest.raises(BadRequestError) as caught:
        collection.records.attach(attached, OTHER, filename="a.exe")

    assert "detach() it before" in caught.value.__notes__[0]
    assert file_host.files() == []  # so the record names a file that is not there any more
    collection.records.detach(attached)
    assert collection.records.attach(attached, CONTENT, filename="a.txt").status == "updated"
    assert [path.read_bytes() for path in file_host.files()] == [CONTENT]


def test_an_answer_that_got_lost_says_that_the_old_file_may_be_gone(
    collection: Collection[Record], attached: Record, adapter: LossyAdapter
) -> None:
    adapter.plan.extend(["lost before"] * 4)

    with pytest.raises(ConnectionLostError) as caught:
        collection.records.attach(attached, OTHER, filename="a.txt")

    assert "old file" in caught.value.__notes__[0]


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize(("verb", "file"), [("attach", {"file": OTHER, "filename": "a.txt"}), ("detach", {})])
def test_a_record_that_somebody_else_deletes_in_the_same_moment_is_not_back_unnoticed(
    collection: Collection[Record], attached: Record, adapter: LossyAdapter, verb: str, file: Any, is_lost: bool
) -> None:
    adapter.plan.extend([Raced(lambda: stored(collection).delete()), "ok"])
    if is_lost:
        adapter.plan.appendleft("lost before")

    with pytest.raises((ConflictError, AmbiguousWriteError), match=r"deleted|changed since"):
        getattr(collection.records, verb)(attached, **file)

    assert not attached.is_dirty and attached.data["n"] == 1


# -- answers that get lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost before", "lost after", "502 after", "500 after"])
def test_a_lost_answer_is_looked_for_before_the_file_is_sent_again(
    collection: Collection[Record], record: Record, adapter: LossyAdapter, fault: Any
) -> None:
    adapter.sent.clear()
    adapter.plan.append(fault)

    outcome = collection.records.attach(record, CONTENT, filename="a.txt")

    is_sent_again = fault == "lost before"
    assert outcome.status == "updated" and outcome.reconciled is not is_sent_again
    assert sent(adapter) == ["POST r/attachment"] * (1 + is_sent_again)
    assert len({body for _, _, body in adapter.sent}) == 1
    assert not record.is_dirty and stored(collection).last_modified == record.last_modified


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
def test_a_new_record_with_a_file_survives_a_lost_answer(
    collection: Collection[Record], adapter: LossyAdapter, fault: Any
) -> None:
    adapter.plan.append(fault)
    record = Record(collection=collection, id="new", data={"n": 1})

    assert collection.records.attach(record, CONTENT, filename="a.txt").status == "created"
    assert stored(collection, "new").data["n"] == 1


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
def test_a_removal_survives_a_lost_answer(
    collection: Collection[Record], attached: Record, adapter: LossyAdapter, fault: Any
) -> None:
    adapter.plan.append(fault)

    assert collection.records.detach(attached).status == "updated"
    assert collection.records.attachment(attached) is None


def test_what_is_lost_again_and_again_is_an_error(
    collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    adapter.sent.clear()
    adapter.plan.extend(["lost before"] * 4)

    with pytest.raises(ConnectionLostError):
        collection.records.attach(record, CONTENT, filename="a.txt")

    assert sent(adapter) == ["POST r/attachment"] * 4
    assert collection.records.attach(record, CONTENT, filename="a.txt").status == "updated"


def test_a_record_that_was_changed_since_tells_nothing(
    collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    adapter.plan.append(lambda: stored(collection).patch(n=2))
    other = stored(collection)
    adapter.plan.clear()
    adapter.plan.append(lambda: collection.records.attach(stored(collection), OTHER, filename="b.txt"))

    with pytest.raises(AmbiguousWriteError, match="changed since"):
        collection.records.attach(record, CONTENT, filename="a.txt")

    assert stored(collection).data["attachment"]["filename"] == "b.txt"
    assert other.last_modified != stored(collection).last_modified


def test_with_strict_retry_only_a_drawn_id_is_recognised(
    client: Client, collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    strict = client.clone(strict_retry=True).bucket("b").collection("c").records
    adapter.plan.append("lost after")
    drawn = Record(data={"n": 1})
    assert strict.attach(drawn, CONTENT, filename="a.txt").reconciled

    adapter.plan.append("lost after")
    with pytest.raises(AmbiguousWriteError, match="strict_retry"):
        strict.attach(strict.get("r"), CONTENT, filename="a.txt")


def test_a_new_record_in_doubt_is_recognised_by_its_drawn_id(
    client: Client, collection: Collection[Record], adapter: LossyAdapter
) -> None:
    record = Record(collection=collection, data={"n": 1})
    inner, adapter.inner = adapter.inner, Silent(adapter.inner, loses_answer=True)
    with pytest.raises(ConnectionLostError):
        client.clone(retry=0).bucket("b").collection("c").records.attach(record, CONTENT, filename="a.txt")
    adapter.inner = inner

    outcome = collection.records.attach(record, CONTENT, filename="a.txt")

    assert (outcome.status, outcome.reconciled, record.is_new) == ("unchanged", True, False)
    assert collection.records.count() == 1


class Silent:
    """Passes everything on until a file was sent; from then on no answer comes, or already of that."""

    def __init__(self, inner: Any, *, loses_answer: bool) -> None:
        self.inner = inner
        self.loses_answer = loses_answer
        self.is_gone = False

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        if self.is_gone:
            raise TimeoutError
        answer = self.inner.send(request, *args, **options)
        if request.method == "POST":
            self.is_gone = True
            if self.loses_answer:
                raise TimeoutError
        return answer


def test_a_record_that_cannot_be_read_again_has_its_file_all_the_same(
    client: Client, collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    inner, adapter.inner = adapter.inner, Silent(adapter.inner, loses_answer=False)
    with pytest.raises(ConnectionLostError) as caught:
        client.clone(retry=0).bucket("b").collection("c").records.attach(record, CONTENT, filename="a.txt")
    adapter.inner = inner

    assert "was applied" in caught.value.__notes__[0]
    assert collection.records.attachment(record.refresh()) is not None


class Pretending:
    """Answers a file with success, and passes only the rest on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        if request.method == "POST":
            request = request.copy()
            request.method, request.url, request.body = "GET", request.url.partition("/buckets")[0] + "/", None
        return self.inner.send(request, *args, **options)


def test_a_success_that_changes_nothing_is_none(
    collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    adapter.inner = Pretending(adapter.inner)  # type: ignore[assignment]

    with pytest.raises(ProtocolError, match="as it was before"):
        collection.records.attach(record, CONTENT, filename="a.txt")


def test_a_record_that_somebody_else_makes_in_the_same_moment_is_not_taken_for_ours(
    collection: Collection[Record], adapter: LossyAdapter
) -> None:
    adapter.plan.append(Raced(lambda: collection.records.create(id="new", data={"theirs": True})))
    # Their own write goes through the same adapter first.
    adapter.plan.append("ok")
    mine = Record(collection=collection, id="new", data={"n": 1})

    with pytest.raises(ConflictError, match="created this record at that moment") as caught:
        collection.records.attach(mine, CONTENT, filename="a.txt")

    assert caught.value.theirs is not None and caught.value.theirs["theirs"] is True
    assert caught.value.reload() is mine


def test_an_attempt_that_is_late_is_not_taken_for_somebody_else_s(
    collection: Collection[Record], adapter: LossyAdapter
) -> None:
    other = collection.records

    def late() -> None:
        other.attach(Record(collection=collection, id="new", data={"n": 1}), CONTENT, filename="a.txt")

    adapter.plan.append(Raced(late))
    mine = Record(collection=collection, id="new", data={"n": 1})

    assert collection.records.attach(mine, CONTENT, filename="a.txt").status == "created"


def test_what_the_server_surely_did_not_do_is_its_error(
    collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    adapter.plan.extend(["503"] * 4)

    with pytest.raises(ServerError, match="503"):
        collection.records.attach(record, CONTENT, filename="a.txt")

    assert not stored(collection).data.get("attachment")


def test_who_may_only_create_attaches_to_new_records(
    client: Client, server: EmbeddedServer, collection: Collection[Record]
) -> None:
    collection.patch(BasicPatch(permissions={"record:create": ["system.Authenticated"]}))
    with Client.embedded(server=server, auth=("bob", "secret"), bucket="b", collection="c") as bob:
        outcome = bob.bucket("b").collection("c").records.attach(Record(data={"n": 1}), CONTENT, filename="a.txt")

    assert outcome.status == "created"
    assert stored(collection, str(outcome.object.id)).data["n"] == 1


# -- detach -----------------------------------------------------------------------------------------------------------


def test_a_file_is_removed_with_what_the_record_says_of_it(
    collection: Collection[Record], attached: Record, file_host: FileHost
) -> None:
    outcome = collection.records.detach(attached)

    assert (outcome.status, outcome.object) == ("updated", attached)
    assert collection.records.attachment(attached) is None
    assert file_host.files() == []
    assert stored(collection).data == {"n": 1, "attachment": None}
    assert not attached.is_dirty and stored(collection).last_modified == attached.last_modified


def test_where_there_is_no_file_nothing_is_sent(
    collection: Collection[Record], record: Record, adapter: LossyAdapter
) -> None:
    adapter.sent.clear()

    assert collection.records.detach(record).status == "unchanged"
    assert collection.records.detach(Record(collection=collection, id="r")).status == "unchanged"
    assert sent(adapter) == []


def test_a_removal_from_a_stale_record_is_a_conflict(collection: Collection[Record], attached: Record) -> None:
    stored(collection).patch(n=2)

    with pytest.raises(ConflictError):
        collection.records.detach(attached)

    assert collection.records.detach(attached, safe=False).status == "updated"


# -- download ---------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_into_a_folder_a_file_or_a_stream(
    collection: Collection[Record], attached: Record, tmp_path: Path
) -> None:
    stream = io.BytesIO()

    assert collection.records.download(attached, tmp_path) == tmp_path / "a.txt"
    assert collection.records.download(attached, tmp_path / "b.bin") == tmp_path / "b.bin"
    assert collection.records.download(attached, f"{tmp_path}/new/") == tmp_path / "new" / "a.txt"
    assert collection.records.download(attached, stream) is None

    assert {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {CONTENT}
    assert stream.getvalue() == CONTENT


def test_a_file_is_asked_for_without_credentials_and_once(
    collection: Collection[Record], attached: Record, file_host: FileHost, tmp_path: Path
) -> None:
    for _ in range(2):
        collection.records.download(attached, tmp_path)
    collection.records.download(attached, tmp_path, overwrite=True)

    assert len(file_host.asked) == 2
    assert "Authorization" not in file_host.asked[0][1]


def test_a_wrong_file_is_not_kept(
    collection: Collection[Record], attached: Record, file_host: FileHost, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"good")
    file_host.files()[0].write_bytes(b"hello, w0rld")
    stream = io.BytesIO()

    for target in (tmp_path, stream):
        with pytest.raises(ProtocolError, match="SHA-256"):
            collection.records.download(attached, target, overwrite=True)  # type: ignore[call-overload]

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"good"]
    assert stream.getvalue() == b""


def test_a_file_that_is_not_there_any_more_is_an_error(
    collection: Collection[Record], attached: Record, file_host: FileHost, tmp_path: Path
) -> None:
    file_host.files()[0].unlink()

    with pytest.raises(ResponseError, match=r"404.*refresh"):
        collection.records.download(attached, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_without_a_file_there_is_nothing_to_fetch(
    collection: Collection[Record], record: Record, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no attachment"):
        collection.records.download(record, tmp_path)
    with pytest.raises(NotLoadedError, match="never read"):
        collection.records.attachment(Record(collection=collection, id="r"))


# -- twins ------------------------------------------------------------------------------------------------------------


def test_the_twins_do_the_same(collection: Collection[Record], record: Record, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(CONTENT)

    async def there_and_back() -> Path:
        assert (await collection.records.aattach(record, tmp_path / "a.txt")).status == "updated"
        fetched = await collection.records.adownload(record, tmp_path / "b.txt")
        assert (await collection.records.adetach(record)).status == "updated"
        return fetched

    assert asyncio.run(there_and_back()).read_bytes() == CONTENT

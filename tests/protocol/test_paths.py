"""Ids and paths. Nothing that Kinto would read as another object, or as a whole list, is ever sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from urllib.parse import unquote
from uuid import RFC_4122, UUID, uuid4

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    Group,
    InvalidIdError,
    InvalidTypeError,
    KintoError,
    ProtocolError,
    Record,
    ResponseEvent,
)
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, check_id, draw_id, endpoint
from kinto_orm.protocol.responses import read_object
from kinto_orm.protocol.writes import Flow
from kinto_orm.server import EmbeddedServer
from kinto_orm.transport.options import parse_server_url

Try = Callable[[Client], object]

NASTY = ["", "!!!", "///", "...", "€€", "?", ".", "..", "../../x", "a.b", "Foo Bar", "x?_since=0", "x#frag", "x%2Fy"]
NASTY += [
    "%2e%2e",
    "abc\n",
    "日本",
    "É",
    "x\r\nHost: evil",
    "{id}",
    "a\0b",
    "-a",
    "_a",
    " a",
    "a/b",
    "a" * 256,
    "\ud800",
]


@pytest.fixture
def client(kinto_server: EmbeddedServer, sent: list[ResponseEvent]) -> Iterator[Client]:
    """Counts its requests; the bucket ``b`` and the collection ``c``, its defaults, exist and hold five records."""
    with Client.embedded(server=kinto_server, bucket="b", collection="c", on_response=sent.append) as client:
        Bucket(id="b", client=client).save()
        records = Collection(bucket="b", id="c", client=client).save().records
        records.bulk_create({"id": id} for id in ("ab", "foo-bar", "x", "r4", "r5"))
        sent.clear()
        yield client


def records(client: Client) -> Collection[Record]:
    return client.bucket("b").collection("c")


# Rows of section A that stand elsewhere in this file: A11 (no default to fall back to), A31 to A34, and A24's UUID.
# A16 to A18, A21, A22 and A25 to A30 do not exist.
ROWS: list[tuple[str, Try]] = [
    ("A01", lambda client: Record(collection="c", id="").delete()),
    ("A02", lambda client: Record(collection="c", id="!!!").delete()),
    ("A03", lambda client: Record(collection="c", id="///").delete()),
    ("A04", lambda client: Record(collection="c", id="...").delete()),
    ("A05", lambda client: Record(collection="c", id="€€").delete()),
    ("A06", lambda client: Record(collection="c", id="?").delete()),
    ("A07", lambda client: records(client).records.get("...")),
    ("A08", lambda client: client.bucket("!!!").delete()),
    ("A09", lambda client: client.bucket("b").collection("!!!").delete()),
    ("A10", lambda client: client.bucket("").delete()),
    ("A12", lambda client: records(client).records.get("../../x")),
    ("A13", lambda client: Record(collection="c", id="a.b").delete()),
    ("A14", lambda client: Record(collection="c", id="Foo Bar").replace(safe=False)),
    ("A15 query", lambda client: records(client).records.get("x?_since=0")),
    ("A15 fragment", lambda client: records(client).records.get("x#frag")),
    ("A15 slash", lambda client: records(client).records.get("x%2Fy")),
    ("A15 dots", lambda client: records(client).records.get("%2e%2e")),
    ("A19", lambda client: Record(collection="c", id="abc\n").save()),
    ("A20 japanese", lambda client: Record(collection="c", id="日本").save()),
    ("A20 accent", lambda client: Record(collection="c", id="É").save()),
    ("A20 header", lambda client: Record(collection="c", id="x\r\nHost: evil").save()),
    ("A20 braces", lambda client: Record(collection="c", id="{id}").save()),
    ("A20 nul", lambda client: Record(collection="c", id="a\0b").save()),
    ("A23", lambda client: Record(collection="c", id="a" * 5000).save()),
    ("A24 zero", lambda client: records(client).records.get(0)),  # type: ignore[arg-type]
    ("A24 true", lambda client: records(client).records.get(True)),  # type: ignore[arg-type]
    ("A35", lambda client: Record(collection="c", id="b", data={"id": "a"}).save()),
    ("A36", lambda client: Record(collection="c", data={"id": 0}).save()),
]


@pytest.mark.parametrize("attempt", [pytest.param(attempt, id=row) for row, attempt in ROWS])
def test_a_bad_id_is_refused_before_anything_is_sent(client: Client, sent: list[ResponseEvent], attempt: Try) -> None:
    with pytest.raises((InvalidIdError, InvalidTypeError)) as caught:
        attempt(client)

    assert isinstance(caught.value, (ValueError, TypeError))
    assert sent == []
    assert records(client).records.count() == 5


def test_an_object_without_an_id_has_nothing_to_delete(client: Client, sent: list[ResponseEvent]) -> None:
    """A11: there is no default to fall back to; a bucket or collection has to be named to be deleted."""
    for unnamed in (Record(collection="c"), Collection(bucket="b"), Bucket()):
        with pytest.raises(KintoError):
            unnamed.delete()
    assert sent == []


def test_a_whole_list_is_deleted_only_on_demand(client: Client, sent: list[ResponseEvent]) -> None:
    """A08, A09."""
    for manager in (client.buckets, client.bucket("b").collections, records(client).records):
        with pytest.raises(KintoError, match="everything=True"):
            manager.delete()
    assert sent == []


def test_a_list_in_the_place_of_an_object_is_an_error() -> None:
    """A07."""
    answer = Response(200, content={"data": [{"id": "x"}]})
    with pytest.raises(ProtocolError, match="holds no object"):
        read_object(answer, ObjectPath(Kind.RECORD, ("b", "c", "x")), "GET")


def test_a_uuid_is_an_id(client: Client) -> None:
    """A24."""
    id = uuid4()
    Record(collection="c", id=id).save()
    assert records(client).records.get(id).id == str(id)


@pytest.mark.parametrize("name", [pytest.param("datav1", id="A31"), pytest.param("v1", id="A32")])
def test_a_bucket_with_the_version_in_its_name_can_be_in_a_unit_of_work(client: Client, name: str) -> None:
    with client.unit_of_work():
        bucket = Bucket(id=name).save()
        collection = Collection(bucket=bucket, id="c").save()
        Record(collection=collection, id="r", data={"n": 1}).save()
    assert client.bucket(name).collection("c").records.get("r").data["n"] == 1


def test_deleting_collections_of_a_bucket_named_v1_deletes_no_other_bucket(client: Client) -> None:
    """A32."""
    Bucket(id="collections").save()
    v1 = Bucket(id="v1").save()
    Collection(bucket=v1, id="c").save()
    assert v1.collections.delete(everything=True) == 1
    assert client.buckets.get("collections").is_deleted is False


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://localhost:8888/v1?a=1#f", id="A34 query and fragment"),
        pytest.param("localhost:8888/v1", id="A34 no scheme"),
        pytest.param("ftp://localhost/v1", id="A34 scheme"),
        pytest.param("", id="A34 empty"),
    ],
)
def test_a_server_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Client(url)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://localhost:1/", "http://localhost:1/v1/"])
def test_a_server_url_without_a_version_is_completed_once(url: str) -> None:
    """A33: a redirect is never relied on."""
    assert parse_server_url(url) == "http://localhost:1/v1"


def test_ids_are_checked_in_references_and_arguments_too(client: Client, sent: list[ResponseEvent]) -> None:
    for attempt in (
        lambda: client.bucket("b").group("a b"),
        lambda: Group(bucket="a/b", id="g").save(),
        lambda: Record(collection="a/b", id="r").save(),
        lambda: records(client).records.get_many(["x", "a b"]),
        lambda: client.clone(bucket="a b"),
        lambda: client.get_endpoint("record", id="a b"),
        lambda: records(client).records.get_or_create("a b"),
    ):
        with pytest.raises(InvalidIdError):
            attempt()
    assert sent == []


def test_an_id_with_a_newline_that_the_server_stored_can_be_read_and_written(client: Client) -> None:
    """A19: Kinto's own expression lets it in."""
    client.run(_put("/buckets/b/collections/c/records/abc%0A"))

    found = next(one for one in records(client).records if one.id == "abc\n")
    found.refresh()
    found.data["n"] = 1
    found.save().delete()

    assert records(client).records.count() == 5


def _put(path: str) -> Flow[None]:
    yield Request("PUT", path, headers={"Content-Type": "application/json"}, body=b'{"data": {}}')


def test_a_record_named_default_is_a_record(client: Client) -> None:
    Record(collection="c", id="default").save()
    assert records(client).records.get("default").id == "default"


def test_the_default_bucket_is_reached_by_its_name(kinto_client: Client) -> None:
    collection = Collection(bucket="default", id="notes", client=kinto_client).save()
    record = collection.records.create(id="n", data={"n": 1})
    assert collection.records.get("n") == record
    assert kinto_client.bucket("default").refresh().id == "default"


# -- paths, purely ----------------------------------------------------------------------------------------------------

_NEEDED = {
    "bucket": ("bucket",),
    "group": ("bucket", "group"),
    "collection": ("bucket", "collection"),
    "records": ("bucket", "collection"),
    "record": ("bucket", "collection", "id"),
    "attachment": ("bucket", "collection", "id"),
    "changeset": ("bucket", "collection"),
    "history": ("bucket",),
}
_any_id = st.one_of(st.text(max_size=20), st.sampled_from(NASTY), st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_-]*\Z"))


@given(st.sampled_from(sorted(_NEEDED)), st.tuples(_any_id, _any_id, _any_id))
@example("record", ("b", "c", ".."))
@example("record", ("b", "c", ""))
@example("bucket", ("abc\n", "", ""))
@example("record", ("datav1", "v1", "batch"))
def test_an_endpoint_is_refused_or_splits_back_into_its_ids(name: str, ids: tuple[str, str, str]) -> None:
    named = dict(zip(_NEEDED[name], ids, strict=False))
    try:
        path = endpoint(name, **named)
    except InvalidIdError:
        assert not all(_is_plain(id) for id in named.values())
        return
    segments = [unquote(segment) for segment in path.split("/")[1:]]
    assert segments[1::2][: len(named)] == list(named.values())


def _is_plain(id: str) -> bool:
    return 0 < len(id) < 256 and id.isascii() and id.replace("-", "a").replace("_", "a").isalnum() and id[0].isalnum()


DEPTHS = {Kind.BUCKET: 1, Kind.GROUP: 2, Kind.COLLECTION: 2, Kind.RECORD: 3, Kind.ACCOUNT: 1}


@given(st.sampled_from(Kind), st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=3, max_size=3))
@example(Kind.RECORD, ["/", "//", "?#%"])
@example(Kind.RECORD, ["b", "c", "abc\n"])
def test_the_path_of_any_id_that_a_server_stored_splits_back(kind: Kind, ids: list[str]) -> None:
    assume(not {".", ".."} & set(ids))
    path = ObjectPath(kind, tuple(ids[: DEPTHS[kind]]))
    segments = [unquote(segment) for segment in str(path).split("/")]
    assert segments[2::2] == ids[: DEPTHS[kind]]
    assert path.plural.object(path.id) == path


@pytest.mark.parametrize("id", NASTY)
def test_a_nasty_id_is_never_rewritten(id: str) -> None:
    with pytest.raises(InvalidIdError, match=r"."):
        check_id(id)


@pytest.mark.parametrize("value", [0, True, None, 1.5, b"a", ["a"]])
def test_other_types_than_text_and_uuid_are_no_ids(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="must be a string or a UUID"):
        check_id(value, "bucket")


def test_the_message_names_the_argument() -> None:
    with pytest.raises(InvalidIdError, match="is no bucket"):
        check_id("!", "bucket")


def test_an_endpoint_that_lacks_an_id_says_which() -> None:
    with pytest.raises(InvalidIdError, match="needs collection and id"):
        endpoint("record", bucket="b")


def test_an_unknown_endpoint_is_refused() -> None:
    with pytest.raises(InvalidIdError, match="no endpoint 'recrod'"):
        endpoint("recrod", bucket="b")


@pytest.mark.parametrize(
    ("name", "path"),
    [("root", "/"), ("batch", "/batch"), ("buckets", "/buckets"), ("permissions", "/permissions")],
)
def test_some_endpoints_need_no_id(name: str, path: str) -> None:
    assert endpoint(name) == path


def test_the_client_fills_in_its_defaults(client: Client) -> None:
    assert client.get_endpoint("record", id="x") == "/buckets/b/collections/c/records/x"
    assert client.get_endpoint("record", bucket="o", id="x") == "/buckets/o/collections/c/records/x"


@pytest.mark.parametrize("kind", list(Kind))
def test_a_drawn_id_is_valid_and_can_be_in_a_batch(kind: Kind) -> None:
    drawn = {draw_id(kind) for _ in range(50)}
    assert len(drawn) == 50
    assert all(check_id(id) == id and not id.startswith("batch") for id in drawn)


def test_a_record_draws_a_uuid() -> None:
    drawn = [draw_id(Kind.RECORD) for _ in range(50)]
    assert all(UUID(id).version == 4 and UUID(id).variant == RFC_4122 and str(UUID(id)) == id for id in drawn)


def test_a_drawn_id_that_a_batch_would_refuse_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = iter("batchaaaok123456")
    monkeypatch.setattr("kinto_orm.protocol.paths.secrets.choice", lambda _: next(letters))
    assert draw_id(Kind.BUCKET) == "ok123456"


def test_each_kind_knows_its_parent_and_its_permissions() -> None:
    assert Kind.RECORD.parent is Kind.COLLECTION and Kind.BUCKET.parent is None
    assert Kind.COLLECTION.permissions == ("read", "write", "record:create")
    assert str(PluralPath(Kind.BUCKET)) == "/buckets"


def test_a_path_with_more_ids_than_its_kind_has_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="too many ids"):
        str(ObjectPath(Kind.BUCKET, ("a", "b")))


def test_a_path_with_fewer_ids_than_its_kind_has_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="too few ids"):
        str(PluralPath(Kind.RECORD, ("b",)))


@pytest.mark.parametrize("id", ["", ".", ".."])
def test_no_path_is_made_of_an_id_that_urls_do_away_with(id: str) -> None:
    """Kinto stores none of them: only a hostile server could send one."""
    for ids in (("b", "c", id), (id, "c", "x"), ("b", id, "x")):
        with pytest.raises(InvalidIdError):
            str(ObjectPath(Kind.RECORD, ids))


def test_an_id_out_of_an_enumeration_is_its_value() -> None:
    class Name(str, Enum):  # noqa: UP042  # its str() is another
        TODOS = "todos"

    assert type(check_id(Name.TODOS)) is str
    assert endpoint("records", bucket="b", collection=Name.TODOS) == "/buckets/b/collections/todos/records"

"""Queries: lazy, immutable, complete, and flat in memory."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    CommitError,
    F,
    InvalidFilterError,
    InvalidIdError,
    InvalidTypeError,
    KintoError,
    Manager,
    MultipleObjectsError,
    NotBoundError,
    NotFoundError,
    PartialObjectError,
    ProtocolError,
    Query,
    Record,
    ResponseEvent,
    UsageError,
)
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow
from kinto_orm.query import execution
from kinto_orm.repository.state import OnInvalid
from kinto_orm.server import EmbeddedServer

T = TypeVar("T")
IDS = [f"r{number:02}" for number in range(12)]


@pytest.fixture(scope="module")
def small_pages() -> Iterator[EmbeddedServer]:
    """A server that never gives more than five objects at a time."""
    with EmbeddedServer.memory(paginate_by=5) as server:
        yield server


@pytest.fixture
def records(small_pages: EmbeddedServer, sent: list[ResponseEvent]) -> Iterator[Manager[Record]]:
    """Twelve records, ``{"n": 0}`` to ``{"n": 11}``."""
    with Client.embedded(server=small_pages, on_response=sent.append) as client:
        Bucket(id="b", client=client).save()
        records = Collection(bucket="b", id="c", client=client).save().records
        records.bulk_create({"id": id, "n": number, "odd": number % 2 == 1} for number, id in enumerate(IDS))
        sent.clear()
        yield records
    small_pages.flush()


def ids(query: Any) -> list[str]:
    return [one.id for one in query]


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refine",
    [
        pytest.param(lambda q: q.filter(n=1), id="filter"),
        pytest.param(lambda q: q.exclude(n=1), id="exclude"),
        pytest.param(lambda q: q.order_by("n"), id="order_by"),
        pytest.param(lambda q: q.only("n"), id="only"),
        pytest.param(lambda q: q.limit(1), id="limit"),
        pytest.param(lambda q: q.page_size(1), id="page_size"),
        pytest.param(lambda q: q.since(5), id="since"),
        pytest.param(lambda q: q.before(5), id="before"),
        pytest.param(lambda q: q[1:2], id="slice"),
    ],
)
def test_refining_gives_a_new_query_and_asks_nothing(
    records: Manager[Record], sent: list[ResponseEvent], refine: Callable[[Any], Any]
) -> None:
    query = records.filter(odd=True)
    before = repr(query)

    refined = refine(query)

    assert refined is not query
    assert repr(query) == before
    assert sent == []


def test_a_query_cannot_be_changed(records: Manager[Record]) -> None:
    with pytest.raises(AttributeError):
        records.filter(n=1)._reading = records.__kinto_reading__()  # type: ignore[misc]


def test_nothing_is_asked_before_the_first_object(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    objects, pages = iter(records), records.pages()
    assert sent == []
    next(objects), next(pages)
    assert len(sent) == 2


def test_each_iteration_asks_anew(records: Manager[Record]) -> None:
    query = records.filter(n=100)
    assert ids(query) == []
    records.create(id="new", data={"n": 100})
    assert ids(query) == ids(query) == ["new"]


def test_pages_are_read_when_they_are_needed(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    assert ids(islice(records, 5)) == IDS[:5]
    assert len(sent) == 1
    assert ids(islice(records, 6)) == IDS[:6]
    assert len(sent) == 3


def test_a_query_has_no_length_no_truth_and_no_index(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    with pytest.raises(TypeError, match="len"):
        len(records)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"exists\(\)"):
        bool(records)
    with pytest.raises(InvalidTypeError, match=r"first\(\)"):
        records[0]  # type: ignore[index]
    assert sent == []


def test_repr_tells_the_selection_and_asks_nothing(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    assert repr(records.filter(n=1).limit(3)) == "<Query of 3 records: n=1>"
    assert repr(records.limit(3)) == "<Query of 3 records: no filter>"
    assert repr(records.page_size(3)) == "<Query of all records: no filter>"
    assert repr(records).startswith("<Manager of Record records of")
    assert sent == []


def test_a_query_without_a_client_is_made_but_not_read() -> None:
    query = Record.records.filter(n=1)
    with pytest.raises(NotBoundError):
        query.all()
    with pytest.raises(NotBoundError):
        next(iter(query))


def test_a_query_of_the_active_client_finds_its_collection_at_the_end(records: Manager[Record]) -> None:
    query = Record.records.filter(n=3)
    client = records.__kinto_reading__().source.locate().runner
    assert isinstance(client, Client)
    with client.clone(bucket="b", collection="c"):
        assert ids(query) == ["r03"]
        assert ids(Collection.records.filter(_limit=1, _sort="n")) == ["r00"]


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refine", "expected", "requests"),
    [
        pytest.param(lambda q: q, IDS, 3, id="all"),
        pytest.param(lambda q: q.page_size(3), IDS, 4, id="page_size"),
        pytest.param(lambda q: q.page_size(100), IDS, 3, id="page_size above the server's"),
        pytest.param(lambda q: q.limit(7), IDS[:7], 2, id="limit over pages"),
        pytest.param(lambda q: q.limit(5), IDS[:5], 1, id="limit of a page"),
        pytest.param(lambda q: q.limit(0), [], 0, id="limit 0"),
        pytest.param(lambda q: q.limit(100), IDS, 3, id="limit above all"),
        pytest.param(lambda q: q.limit(4).page_size(2), IDS[:4], 2, id="limit and page_size"),
        pytest.param(lambda q: q[3:8], IDS[3:8], 2, id="slice"),
        pytest.param(lambda q: q[10:], IDS[10:], 3, id="slice to the end"),
        pytest.param(lambda q: q[:2], IDS[:2], 1, id="slice from the beginning"),
        pytest.param(lambda q: q[2:2], [], 0, id="empty slice"),
        pytest.param(lambda q: q[2:][3:5], IDS[5:7], 2, id="slice of a slice"),
        pytest.param(lambda q: q[2:6][1:100], IDS[3:6], 2, id="slice within a slice"),
        pytest.param(lambda q: q[2:4][5:], [], 0, id="slice beyond a slice"),
        pytest.param(lambda q: q[100:], [], 3, id="slice beyond the end"),
        pytest.param(lambda q: q.filter(_limit=3), IDS[:-4:-1], 1, id="native limit: newest first"),
        pytest.param(lambda q: q.filter(_limit=7), IDS[:-8:-1], 2, id="native limit over pages"),
        pytest.param(lambda q: q.filter(_limit=3, _sort="n"), IDS[:3], 1, id="native limit and sort"),
        pytest.param(lambda q: q.filter(_sort="-n", _limit=3), IDS[:-4:-1], 1, id="native sort and limit"),
        pytest.param(lambda q: q.filter(_limit=4, pages=float("inf")), IDS, 3, id="all pages"),
        pytest.param(lambda q: q.filter(_limit=4, pages=2), IDS[:8], 2, id="two pages"),
        pytest.param(lambda q: q.filter(_limit=4).page_size(2), IDS[:-5:-1], 2, id="native limit and page_size"),
    ],
)
def test_a_query_gives_just_what_was_asked(
    records: Manager[Record],
    sent: list[ResponseEvent],
    refine: Callable[[Any], Any],
    expected: list[str],
    requests: int,
) -> None:
    query = refine(records)
    assert ids(query) == expected
    assert len(sent) == requests
    assert [one.id for page in query.pages() for one in page.objects] == expected
    assert query.count() == len(expected)
    assert query.exists() is bool(expected)


@pytest.mark.parametrize(
    ("refine", "error"),
    [
        pytest.param(lambda q: q.limit(-1), InvalidFilterError, id="negative limit"),
        pytest.param(lambda q: q.limit(True), InvalidTypeError, id="limit True"),
        pytest.param(lambda q: q.limit(1.5), InvalidTypeError, id="limit with a fraction"),
        pytest.param(lambda q: q.page_size(0), InvalidFilterError, id="empty pages"),
        pytest.param(lambda q: q[-1:], InvalidFilterError, id="slice from the end"),
        pytest.param(lambda q: q[:-1], InvalidFilterError, id="slice to the end"),
        pytest.param(lambda q: q[5:2], InvalidFilterError, id="slice backwards"),
        pytest.param(lambda q: q[::2], InvalidFilterError, id="slice with a step"),
        pytest.param(lambda q: q.filter(pages=2), InvalidFilterError, id="pages without _limit"),
        pytest.param(lambda q: q.filter(_limit=5, pages=0), InvalidFilterError, id="no pages"),
        pytest.param(lambda q: q.filter(_limit=5, pages=1.5), InvalidTypeError, id="part of a page"),
        pytest.param(lambda q: q.order_by(), InvalidFilterError, id="no order"),
        pytest.param(lambda q: q.order_by(3), InvalidTypeError, id="order by a number"),
        pytest.param(lambda q: q.only(), InvalidFilterError, id="no fields"),
        pytest.param(lambda q: q.since(5, overlap=-1), InvalidFilterError, id="negative overlap"),
        pytest.param(lambda q: q.get_many("abc"), InvalidTypeError, id="one id for many"),
        pytest.param(lambda q: q.get_many(["a", "b c"]), InvalidIdError, id="bad id"),
        pytest.param(lambda q: q.update(), UsageError, id="no update"),
        pytest.param(lambda q: q.update(print, n=1), UsageError, id="two updates"),
        pytest.param(lambda q: q.values(), InvalidFilterError, id="no values"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    records: Manager[Record], sent: list[ResponseEvent], refine: Callable[[Any], Any], error: type[KintoError]
) -> None:
    with pytest.raises(error):
        refine(records)
    assert sent == []


def test_pages_tell_whether_there_are_more_and_the_time_of_the_list(records: Manager[Record]) -> None:
    pages = list(records.pages())
    assert [page.has_more for page in pages] == [True, True, False]
    assert {page.timestamp for page in pages} == {records.timestamp()}


# -- order and fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param(("-n",), IDS[::-1], id="descending"),
        pytest.param(("+n",), IDS, id="ascending"),
        pytest.param((F("n").desc(),), IDS[::-1], id="expression descending"),
        pytest.param((F("odd"), F("n").desc()), IDS[::2][::-1] + IDS[1::2][::-1], id="two"),
        pytest.param(("-last_modified",), IDS[::-1], id="time of change"),
    ],
)
def test_objects_come_in_the_order_asked_for(records: Manager[Record], order: Any, expected: list[str]) -> None:
    assert ids(records.order_by(*order)) == expected


def test_partial_objects_hold_their_fields_and_cannot_be_written(records: Manager[Record]) -> None:
    one = records.only("odd").filter(n=3).one()
    assert dict(one.data) == {"odd": True}
    assert one.last_modified
    with pytest.raises(PartialObjectError):
        one.save()


def test_values_are_plain_dictionaries_of_what_is_there(records: Manager[Record]) -> None:
    records.create(id="a", data={"below": {"x": 1}, "n": -1})
    assert records.order_by("n").limit(2).values("id", "n", "below.x", "below.y", "n.x") == [
        {"id": "a", "n": -1, "below.x": 1},
        {"id": "r00", "n": 0},
    ]


# -- endings ----------------------------------------------------------------------------------------------------------


def test_get_brings_one_object_with_its_permissions(records: Manager[Record]) -> None:
    one = records.get("r03")
    assert (one.id, one.data["n"], one.permissions.is_known) == ("r03", 3, True)


def test_get_on_a_filtered_query_looks_among_what_matches(records: Manager[Record]) -> None:
    assert records.filter(odd=True).get("r03").id == "r03"
    with pytest.raises(NotFoundError):
        records.filter(odd=True).get("r02")


def test_get_or_none_tells_missing_from_forbidden(records: Manager[Record]) -> None:
    assert records.get_or_none("unknown") is None
    assert records.filter(odd=True).get_or_none("r02") is None
    runner = records.__kinto_reading__().source.locate().runner
    with pytest.raises(KintoError, match="403"):
        Bucket(id="unknown", client=runner).collections.get_or_none("c")


def test_first_and_one(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    first = records.first()
    assert first is not None and first.id == "r00"
    assert records.filter(n=100).first() is None
    assert records.filter(n=5).one().id == "r05"
    with pytest.raises(NotFoundError):
        records.filter(n=100).one()
    with pytest.raises(MultipleObjectsError):
        records.filter(odd=True).one()
    assert all("_limit=1" in one.target or "_limit=2" in one.target for one in sent)


def test_one_and_first_respect_the_slice(records: Manager[Record]) -> None:
    assert records[3:4].one().id == "r03"
    assert records[11:].one().id == "r11"
    assert records.limit(0).first() is None


def test_get_many_keeps_the_order_and_skips_what_is_missing(records: Manager[Record]) -> None:
    assert ids(records.get_many(["r07", "unknown", "r01", "r07"])) == ["r07", "r01"]
    assert ids(records.filter(odd=True).get_many(["r02", "r01"])) == ["r01"]
    assert records.get_many([]) == []


def test_k11_get_many_of_many_ids_takes_few_requests_with_short_urls(
    todos: Collection[Record], kinto_server: EmbeddedServer
) -> None:
    todos.records.bulk_create({"id": f"{number:036}"} for number in range(300))
    wanted = [f"{number:036}" for number in range(299, -1, -1)]
    sent: list[ResponseEvent] = []
    with Client.embedded(server=kinto_server, on_response=sent.append) as client:
        found = client.bucket("payments").collection("todos").records.get_many(wanted)
    assert ids(found) == wanted
    assert len(sent) <= 6
    assert max(len(one.target) for one in sent) < 8000


def test_counting_reads_no_page(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    assert (records.count(), records.filter(odd=True).count(), records.limit(5).count()) == (12, 6, 5)
    assert (records[10:].count(), records[20:].count(), records.limit(0).count()) == (2, 0, 0)
    assert {one.method for one in sent} == {"HEAD"}


def test_the_timestamp_is_that_of_the_whole_list(records: Manager[Record]) -> None:
    before = records.timestamp()
    assert before is not None
    records.filter(n=3).one().delete()
    after = records.filter(odd=True).timestamp()
    assert after is not None and after > before


# -- since and before -------------------------------------------------------------------------------------------------


def test_since_brings_what_changed_and_tombstones(records: Manager[Record]) -> None:
    cursor = records.timestamp()
    assert cursor is not None
    records.get("r03").delete()
    records.get("r04").patch(n=40)
    changed = {one.id: one.is_deleted for one in records.since(cursor)}
    assert changed == {"r03": True, "r04": False}
    assert records.since(cursor).count() == 2


def test_since_looks_back_by_its_overlap(records: Manager[Record]) -> None:
    cursor = records.timestamp()
    assert cursor is not None
    assert ids(records.since(cursor)) == []
    assert ids(records.since(cursor, overlap=3600)) == IDS
    assert ids(records.since(0)) == ids(records.since(5, overlap=10)) == IDS


def test_before_brings_what_is_older(records: Manager[Record]) -> None:
    moment, first = records.get("r03").last_modified, records.get("r00").last_modified
    assert moment is not None and first is not None
    assert ids(records.before(moment)) == IDS[:3]
    assert ids(records.before(f'"{moment}"').since(first)) == IDS[1:3]


def test_a_datetime_is_a_moment(records: Manager[Record]) -> None:
    tomorrow = datetime.now(UTC) + timedelta(hours=1)
    assert ids(records.before(tomorrow)) == IDS


def test_a_condition_on_the_time_of_change_leaves_tombstones_out(records: Manager[Record]) -> None:
    cursor = records.timestamp()
    records.get("r03").delete()
    records.get("r04").patch(n=40)
    assert [(one.id, one.is_deleted) for one in records.filter(F("last_modified") > cursor)] == [("r04", False)]


# -- delete and update ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delete",
    [
        pytest.param(lambda q: q.delete(), id="no filter"),
        pytest.param(lambda q: q.exclude(id=[]).delete(), id="a filter that filters nothing"),
        pytest.param(lambda q: q.order_by("n").page_size(2).delete(), id="order is no filter"),
        pytest.param(lambda q: q.filter(n=1).limit(1).delete(), id="limit"),
        pytest.param(lambda q: q.filter(n=1)[1:].delete(), id="slice"),
        pytest.param(lambda q: q.filter(n=1).only("n").delete(), id="only"),
    ],
)
def test_a_delete_that_would_delete_more_than_meant_is_refused(
    records: Manager[Record], sent: list[ResponseEvent], delete: Callable[[Any], int]
) -> None:
    with pytest.raises(UsageError):
        delete(records)
    assert sent == []


def test_delete_goes_over_all_pages_and_counts(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    records.bulk_create({"id": f"s{number:02}", "odd": True} for number in range(8))
    sent.clear()
    assert records.filter(odd=True).delete() == 14
    assert [one.method for one in sent] == ["DELETE"] * 3
    assert ids(records) == IDS[::2]


def test_everything_is_deleted_on_demand(records: Manager[Record]) -> None:
    assert records.delete(everything=True) == 12
    assert records.count() == 0


def test_update_writes_only_what_changed(records: Manager[Record], sent: list[ResponseEvent]) -> None:
    report = records.filter(n=[1]).update(n=5)
    assert report.stored == 0
    report = records.filter(gt_n=7).update(lambda one: one.data.update(n=max(9, one.data["n"])))
    assert (report.updated, report.unchanged) == (1, 3)
    assert records.get("r08").data["n"] == 9


@pytest.mark.parametrize("change", [{"n": -1}, lambda one: one.data.update(n=-1)], ids=["mapping", "function"])
def test_update_goes_over_all_pages(records: Manager[Record], change: Any) -> None:
    assert records.update(change).updated == 12
    assert records.filter(n=-1).count() == 12


def test_update_reports_who_was_in_the_way(records: Manager[Record]) -> None:
    def change(one: Record) -> None:
        if one.id == "r03":
            records.get("r03").patch(n=100)
        one.data["n"] = -1

    with pytest.raises(CommitError, match="1 object") as caught:
        records.update(change)

    assert [one.status for one in caught.value.outcomes] == ["conflict"]
    assert records.filter(n=-1).count() == 11
    assert records.filter(n=100).count() == 1


# -- async ------------------------------------------------------------------------------------------------------------


def test_the_async_twins_give_the_same(records: Manager[Record]) -> None:
    async def check() -> None:
        odd = records.filter(odd=True)
        assert [one.id async for one in odd] == ids(odd)
        assert [one.id async for page in odd.apages() for one in page.objects] == ids(odd)
        assert ids(await odd.aall()) == ids(odd)
        assert await odd.afirst() == odd.first()
        assert await records.filter(n=3).aone() == records.get("r03") == await records.aget("r03")
        assert await records.aget_or_none("unknown") is None
        assert await records.aget_many(["r03"]) == [records.get("r03")]
        assert (await odd.acount(), await odd.aexists()) == (6, True)
        assert await odd.avalues("n") == odd.values("n")
        assert await odd.atimestamp() == odd.timestamp()
        assert (await odd.aupdate(n=-1)).updated == 6
        assert await odd.adelete() == 6

    asyncio.run(check())


# -- complete, while others write -------------------------------------------------------------------------------------


def test_reading_is_complete_and_without_duplicates_while_another_client_writes(records: Manager[Record]) -> None:
    """In Kinto's order the updated record moves in front of the cursor and is lost."""
    found: list[str] = []
    for number, page in enumerate(records.page_size(2).pages()):
        found += ids(page.objects)
        if number == 0:
            records.get("r01").patch(n=100)
            records.get("r04").patch(n=100)
            records.get("r02").delete()
            records.create(id="r99")
    assert found == [id for id in IDS if id != "r02"] + ["r99"]


def test_objects_updated_while_they_are_read_come_once(records: Manager[Record]) -> None:
    found = []
    for one in records.page_size(2):
        found.append(one.id)
        one.patch(n=one.data["n"] + 100)
    assert found == IDS


# -- pages that grow --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "limits"),
    [
        pytest.param(ids, [2, 4, 4, 4], id="an-iteration-begins-with-a-small-page"),
        pytest.param(lambda q: [one.id for page in q.pages() for one in page.objects], [2, 4, 4, 4], id="pages"),
        pytest.param(lambda q: ids(q[1:]), [2, 4, 4, 4], id="slice"),
        pytest.param(lambda q: ids(q.limit(1)), [1], id="limit-below-the-small-page"),
        pytest.param(lambda q: ids(q.limit(5)), [2, 3], id="limit"),
        pytest.param(lambda q: ids(q.page_size(3)), [3, 3, 3, 3], id="page-size"),
        pytest.param(lambda q: ids(q.all()), [4, 4, 4], id="all"),
        pytest.param(lambda q: q.to_arrow(), [4, 4, 4], id="frames"),
        pytest.param(lambda q: ids(q.parallel(1)), [4, 4, 4], id="parallel"),
    ],
)
def test_pages_grow(
    kinto_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, read: Callable[[Any], Any], limits: list[int]
) -> None:
    monkeypatch.setattr(execution, "FIRST_PAGE_SIZE", 2)
    monkeypatch.setattr(execution, "PAGE_SIZE", 4)
    asked: list[str] = []
    with Client.embedded(server=kinto_server, on_request=lambda event: asked.append(event.target)) as client:
        Bucket(id="b", client=client).save()
        records = Collection(bucket="b", id="c", client=client).save().records
        records.bulk_create({"id": id} for id in IDS)
        asked.clear()
        found = read(records.filter())

    assert [int(parse_qs(urlsplit(target).query)["_limit"][0]) for target in asked] == limits
    assert not isinstance(found, list) or found == IDS[-len(found) :] or found == IDS[: len(found)]


def test_pages_of_a_server_with_smaller_ones_stay_as_they_are(
    records: Manager[Record], sent: list[ResponseEvent]
) -> None:
    assert ids(records) == IDS
    limits = [parse_qs(urlsplit(event.target).query)["_limit"] for event in sent]
    assert limits == [["500"], ["5"], ["5"]]


# -- a scripted server ------------------------------------------------------------------------------------------------


class Script:
    """A runner whose server gives ``count`` pages of one record of 10 kB, or what ``answers`` says."""

    default_bucket = "b"
    default_collection = "c"
    on_invalid: OnInvalid = "raise"

    def __init__(self, count: int = 0, answers: Callable[[Request], Response] | None = None) -> None:
        self.count = count
        self.requests = 0
        self.answers = answers or self.page

    def page(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(200, {"total-objects": str(self.count)})
        self.requests += 1
        following = f"http://elsewhere/v1{request.path}?_token={self.requests}"
        headers = {"next-page": following} if self.requests < self.count else {}
        row = {"id": f"r{self.requests}", "last_modified": self.requests, "text": "x" * 10_000}
        return Response(200, {"etag": '"1"', **headers}, json.dumps({"data": [row]}).encode())

    def run(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                assert isinstance(request, Request)
                request = flow.send(self.answers(request))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def arun(self, flow: Flow[T]) -> T:
        return self.run(flow)

    def __kinto_perform__(self, holder: Any, intent: Any) -> Any:
        raise NotImplementedError

    async def __kinto_aperform__(self, holder: Any, intent: Any) -> Any:
        raise NotImplementedError

    def __kinto_describe_server__(self, *, refresh: bool = False) -> Flow[JSONObject]:
        raise NotImplementedError

    def records(self) -> Query[Record]:
        return Manager.__kinto_make__(Record, client=self)


def test_thousands_of_pages_are_read_in_constant_memory_and_without_recursion() -> None:
    """D05: the reference client fails at page 486."""
    script = Script(2000)
    tracemalloc.start()
    try:
        read = 0
        for _ in script.records():
            read += 1
            if read == 10:
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (read, script.requests) == (2000, 2000)
    assert peak - before < 1_500_000  # 2,000 pages are 20 MB


def test_thousands_of_pages_can_be_collected_counted_as_values_and_awaited() -> None:
    assert len(Script(2000).records().all()) == 2000
    assert len(Script(2000).records().values("id")) == 2000

    async def count() -> int:
        return len([one async for one in Script(2000).records()])

    assert asyncio.run(count()) == 2000


def test_an_empty_page_is_not_the_end() -> None:
    def answers(request: Request) -> Response:
        if request.query == "_token=2":
            return Response(200, {}, b'{"data": [{"id": "a", "last_modified": 1}]}')
        return Response(200, {"next-page": f"http://h/v1{request.path}?_token=2"}, b'{"data": []}')

    assert ids(Script(answers=answers).records()) == ["a"]
    assert ids(Script(answers=answers).records().limit(1)) == ["a"]


def test_pages_in_a_circle_end_with_an_error() -> None:
    """D02."""

    def answers(request: Request) -> Response:
        return Response(200, {"next-page": f"http://h/v1{request.path}?_token=1"}, b'{"data": []}')

    for ending in (Query.all, Query.first, lambda query: query.delete(everything=True)):
        with pytest.raises(ProtocolError, match="circle"):
            ending(Script(answers=answers).records())


def test_credentials_follow_no_page_to_another_host() -> None:
    """D01: only the query string of Next-Page is used."""
    asked: list[Request] = []

    def answers(request: Request) -> Response:
        asked.append(request)
        following = {"next-page": f"http://evil.example/v1{request.path}?_token=1"} if len(asked) == 1 else {}
        return Response(200, following, b'{"data": []}')

    Script(answers=answers).records().all()

    assert [one.path for one in asked] == ["/buckets/b/collections/c/records"] * 2
    assert asked[1].query == "_token=1"


def test_a_page_that_breaks_in_the_middle_ends_the_iteration_with_its_error() -> None:
    def answers(request: Request) -> Response:
        if "_token" in request.query:
            return Response(503, {"retry-after": "5"}, b"{}")
        return Response(200, {"next-page": f"http://h/v1{request.path}?_token=1"}, b'{"data": [{"id": "a"}]}')

    iterator = iter(Script(answers=answers).records())
    assert next(iterator).id == "a"
    with pytest.raises(KintoError, match="503"):
        next(iterator)
    assert list(iterator) == []


# -- update, where order and tombstones could mislead it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        pytest.param(lambda q: q.order_by("n"), 12, id="ordered"),
        pytest.param(lambda q: q.order_by("n").limit(20), 12, id="ordered and limited"),
        pytest.param(lambda q: q.order_by("n")[1:], 11, id="ordered and sliced"),
        pytest.param(lambda q: q.filter(_limit=20), 12, id="newest first"),
        pytest.param(lambda q: q.limit(7), 7, id="limited"),
    ],
)
def test_each_object_is_updated_once_whatever_the_order(
    records: Manager[Record], refine: Callable[[Any], Any], expected: int
) -> None:
    report = refine(records).update(lambda one: one.data.update(n=one.data["n"] + 100))
    assert report.updated == expected
    assert records.filter(gt_n=99).count() == expected
    assert records.filter(gt_n=199).count() == 0


def test_update_leaves_tombstones_alone(records: Manager[Record]) -> None:
    records.get("r03").delete()
    assert records.since(0).update(n=-1).updated == 11


def test_update_of_partial_objects_is_refused_before_anything_is_written(
    records: Manager[Record], sent: list[ResponseEvent]
) -> None:
    with pytest.raises(PartialObjectError):
        records.only("n").update(n=5)
    assert {one.method for one in sent} <= {"GET"}


def test_a_policy_for_invalid_rows_that_does_not_exist_is_refused(records: Manager[Record]) -> None:
    with pytest.raises(InvalidFilterError, match="'raise', 'skip' or 'keep'"):
        records.filter(on_invalid="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(("policy", "expected"), [("skip", ["r00", "r02"]), ("keep", ["r00", "r01"])])
def test_rows_that_do_not_fit_their_model_are_skipped_or_kept(
    records: Manager[Record], policy: OnInvalid, expected: list[str]
) -> None:
    class Even(Record, collection="c"):
        odd: Literal[False]

    evens = records.get("r00").bucket.collection(Even).records
    assert ids(evens.limit(2).filter(on_invalid=policy)) == expected
    with pytest.raises(KintoError, match="r01 does not fit"):
        evens.limit(2).all()


def test_a_unit_of_work_gets_objects_through_a_query(records: Manager[Record]) -> None:
    client = records.__kinto_reading__().source.locate().runner
    assert isinstance(client, Client)
    with client.unit_of_work() as uow:
        one = uow.get(records.filter(odd=True), "r03")
        one.data["n"] = 100
    assert records.get("r03").data["n"] == 100
    with client.unit_of_work() as uow, pytest.raises(NotFoundError):
        uow.get(records.filter(odd=True), "r02")


def test_a_change_is_a_function_or_values(todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match="a function, or names and values"):
        todos.records.update(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", ["get_or_create", "update_or_create"])
def test_defaults_are_a_mapping(verb: str, todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match="defaults is a mapping"):
        getattr(todos.records, verb)("x", 5)

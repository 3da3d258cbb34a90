"""What a batch answer means for each write: with literals, and no server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from kinto_orm.errors import (
    AtomicityUnavailableError,
    BatchTooLargeError,
    ClientClosedError,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    DeletedObjectError,
    DuplicateObjectError,
    InvalidValueError,
    KintoError,
    LockError,
    NotFoundError,
    ProtocolError,
    ResponseError,
    RolledBackError,
    ServerError,
)
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.responses import ShownPermissions
from kinto_orm.protocol.writes import UNCONDITIONAL, Action, Flow, Write
from kinto_orm.repository.state import Change, ObjectState, Outcome, Status, StoredRows, Verb
from kinto_orm.unit_of_work.bulk import Bulk, BulkReport, raise_for_report, report_of
from kinto_orm.unit_of_work.engine import CommitOptions, commit, raise_unless_stored
from kinto_orm.unit_of_work.unit_of_work import create_lock

T = TypeVar("T")
Answer = tuple[int, Any]


class Thing:
    """An object as the layers below the models see it."""

    def __init__(self, number: int, *, adopts: bool = True) -> None:
        self.path = ObjectPath(Kind.RECORD, ("b", "c", f"r{number}"))
        self.adopted: ObjectState | None = None
        self.adopts = adopts
        self.doubt: Change[Any] | None = None

    def __kinto_accept__(
        self, change: Change[Any], row: dict[str, Any], shown: ShownPermissions, rows: StoredRows
    ) -> bool:
        return False

    def __kinto_apply_state__(self, state: ObjectState, change: Change[Any] | None) -> None:
        if not self.adopts:
            raise InvalidValueError("it does not fit")
        self.adopted = state

    def __kinto_mark_uncertain__(self, change: Change[Any]) -> None:
        self.doubt = change

    def __kinto_path__(self) -> ObjectPath:
        return self.path

    def __kinto_is_clean__(self) -> bool:
        return False

    def __kinto_state__(self) -> ObjectState:
        raise NotImplementedError

    def __kinto_change__(self, verb: Verb) -> Change[Thing]:
        raise NotImplementedError

    def __kinto_check__(self, data: JSONObject) -> None:
        raise NotImplementedError

    def __kinto_edit__(self, data: Mapping[str, Any], permissions: Mapping[str, Iterable[str]]) -> None:
        raise NotImplementedError

    def __kinto_runner__(self) -> Any:
        return None


class Server:
    """A client, as the layers below see it, of a server that says this of itself: each time that is asked in turn."""

    strict_retry = False

    def __init__(self, *limits: Any, retry: int = 0, capabilities: tuple[str, ...] = (), known: bool = True) -> None:
        self.limits = list(limits or (25,))
        self.retry = retry
        self.capabilities = capabilities
        self.known = known
        self.__kinto_locks__: set[ObjectPath] = set()

    def __kinto_describe_server__(self, *, refresh: bool = False) -> Flow[dict[str, Any]]:
        if refresh or not self.known:
            yield Request("GET", "/")
        if refresh and len(self.limits) > 1:
            self.limits.pop(0)
        self.known = True
        settings = {"batch_max_requests": self.limits[0]}
        return {"settings": settings, "capabilities": dict.fromkeys(self.capabilities)}


def run(writes: Sequence[Change[Thing]], *, server: Server | None = None, **options: Any) -> Flow[list[Outcome[Thing]]]:
    runner: Any = server or Server()  # only what it needs
    return [one.outcome for one in (yield from commit(writes, runner, CommitOptions(**options)))]


def staged(number: int, verb: Verb = Verb.SAVE, status: Status = Status.NEW, *, adopts: bool = True) -> Change[Thing]:
    thing = Thing(number, adopts=adopts)
    known = {"n": 0} if status is Status.LOADED else None
    state = ObjectState(thing.path, status, known, 5 if known else None)
    return Change(thing, verb, state, {"n": 1})


def stored(number: int, status: int = 201) -> Answer:
    return status, {"data": {"id": f"r{number}", "last_modified": 7, "n": 1}}


def batch(*answers: Answer) -> Response:
    entries = [{"status": status, "path": "/v1/x", "headers": {}, "body": body} for status, body in answers]
    return Response(200, body=json.dumps({"responses": entries}).encode())


def drive(flow: Flow[T], *answers: Response | KintoError) -> tuple[T, list[Request]]:
    """Return the result of the flow when its requests are answered so, and the requests."""
    sent: list[Any] = []
    script = iter(answers)
    try:
        item = next(flow)
        while True:
            sent.append(item)
            answer = next(script)
            item = flow.throw(answer) if isinstance(answer, KintoError) else flow.send(answer)
    except StopIteration as stop:
        return stop.value, sent


def outcomes(writes: list[Change[Thing]], *answers: Answer) -> list[Outcome[Thing]]:
    return drive(run(writes), batch(*answers))[0]


# -- one batch ----------------------------------------------------------------------------------------------------


def test_one_batch_carries_all_writes_in_their_order() -> None:
    _, (request,) = drive(run([staged(1), staged(0)]), batch(stored(1), stored(0)))

    body = json.loads(request.body or b"")

    assert (request.method, request.path) == ("POST", "/batch")
    assert [one["path"] for one in body["requests"]] == [f"/buckets/b/collections/c/records/r{n}" for n in (1, 0)]


def test_only_what_changed_is_sent_and_the_rest_is_unchanged() -> None:
    clean = staged(0, status=Status.LOADED)
    clean = replace(clean, data={"n": 0})

    found = outcomes([clean, staged(1)], stored(1))

    assert [one.status for one in found] == ["unchanged", "created"]


def test_nothing_is_asked_where_nothing_is_to_be_written() -> None:
    assert drive(run([])) == ([], [])


@pytest.mark.parametrize(
    ("write", "answer", "status"),
    [
        pytest.param(staged(0), stored(0), "created", id="created"),
        pytest.param(staged(0, Verb.REPLACE), stored(0, 200), "created", id="new-replaced"),
        pytest.param(staged(0, status=Status.LOADED), stored(0, 200), "updated", id="updated"),
        pytest.param(
            staged(0, Verb.DELETE, Status.LOADED),
            (200, {"data": {"id": "r0", "last_modified": 7, "deleted": True}}),
            "deleted",
            id="deleted",
        ),
    ],
)
def test_what_was_stored_is_adopted(write: Change[Thing], answer: Answer, status: str) -> None:
    (found,) = outcomes([write], answer)

    assert (found.status, found.is_stored, found.error) == (status, True, None)
    assert write.holder.adopted is not None
    assert write.holder.adopted.last_modified == 7


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        pytest.param((412, {"details": {"existing": {"id": "r0", "n": 3}}}), "conflict", ConflictError, id="412"),
        pytest.param((404, {}), "gone", NotFoundError, id="404"),
        pytest.param((400, {"message": "no"}), "rejected", ResponseError, id="400"),
        pytest.param((403, {}), "rejected", ResponseError, id="403"),
        pytest.param((405, {}), "rejected", ResponseError, id="405"),
        pytest.param((302, {}), "rejected", ResponseError, id="302"),
        pytest.param((409, {}), "rolled_back", ConcurrentWriteError, id="409"),
        pytest.param((503, {}), "unknown", ServerError, id="503"),
        pytest.param((201, None), "unknown", ProtocolError, id="no-body"),
        pytest.param((201, "<html>"), "unknown", ProtocolError, id="text"),
        pytest.param((201, {"data": {"id": "other"}}), "unknown", ProtocolError, id="another-object"),
    ],
)
def test_what_was_not_stored_is_not_adopted(answer: Answer, status: str, kind: type[KintoError]) -> None:
    write = staged(0)

    (found,) = outcomes([write], answer)

    assert (found.status, found.is_stored) == (status, False)
    assert isinstance(found.error, kind)
    assert write.holder.adopted is None


def test_a_conflict_says_what_was_seen_wanted_and_found() -> None:
    write = staged(0, status=Status.LOADED)

    (found,) = outcomes([write], (412, {"details": {"existing": {"id": "r0", "last_modified": 9, "n": 3}}}))

    error = found.error
    assert isinstance(error, ConflictError)
    assert (error.base, error.mine, error.theirs, error.theirs_last_modified) == ({"n": 0}, {"n": 1}, {"n": 3}, 9)
    assert error.resolution is not None


def test_what_was_stored_but_does_not_fit_its_model_is_stored_and_has_an_error() -> None:
    change = staged(0, adopts=False)
    (found,) = outcomes([change], stored(0))

    assert (found.status, found.is_stored) == ("created", True)
    with pytest.raises(CommitError, match=r"1 of 1 writes failed \(1 are stored\)"):
        raise_unless_stored([change])


# -- the rule of the 409 ------------------------------------------------------------------------------------------


def test_a_409_makes_everything_before_it_void_and_nothing_after_it() -> None:
    writes = [staged(n) for n in range(4)]

    found = outcomes(writes, stored(0), (409, {}), stored(2), stored(3))

    assert [one.status for one in found] == ["rolled_back", "rolled_back", "created", "created"]
    assert [write.holder.adopted is not None for write in writes] == [False, False, True, True]


def test_the_last_of_several_409_counts() -> None:
    found = outcomes([staged(n) for n in range(4)], (409, {}), stored(1), (409, {}), stored(3))

    assert [one.status for one in found] == ["rolled_back", "rolled_back", "rolled_back", "created"]


def test_a_refusal_before_a_409_leaves_the_doubt_that_a_first_attempt_was_stored() -> None:
    writes = [staged(0), staged(1)]
    answer = batch((412, {}), (409, {}))._replace(is_repeated=True)

    found, _ = drive(run(writes), answer)

    assert [one.status for one in found] == ["unknown", "unknown"]
    assert all(write.holder.doubt is not None for write in writes)


def test_a_refusal_before_a_409_is_void_too() -> None:
    found = outcomes([staged(0), staged(1)], (412, {}), (409, {}))

    assert [one.status for one in found] == ["rolled_back", "rolled_back"]
    assert found[0].error is not found[1].error


# -- a batch that failed as a whole -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(Response(200, body=b'{"responses": []}'), "unknown", id="none-for-one"),
        pytest.param(batch(stored(0), stored(1)), "unknown", id="two-for-one"),
        pytest.param(Response(200, body=b"{}"), "unknown", id="no-responses"),
        pytest.param(Response(200, body=b"<html>"), "unknown", id="html"),
        pytest.param(Response(200, body=b'{"responses": [null]}'), "unknown", id="entry-null"),
        pytest.param(Response(200, body=b'{"responses": [{"status": "201"}]}'), "unknown", id="status-text"),
        pytest.param(Response(500), "unknown", id="500"),
        pytest.param(Response(503), "unknown", id="503-of-a-proxy"),
        pytest.param(Response(503, body=b'{"errno": 201}'), "rolled_back", id="503"),
        pytest.param(Response(409), "rolled_back", id="409"),
        pytest.param(Response(400), "rejected", id="400"),
        pytest.param(Response(401), "rejected", id="401"),
        pytest.param(Response(307), "rejected", id="307"),
        pytest.param(ConnectionFailedError("refused"), "not_sent", id="refused"),
        pytest.param(ConnectionLostError("lost"), "unknown", id="lost"),
        pytest.param(DeadlineError("late"), "unknown", id="late"),
        pytest.param(ProtocolError("no http"), "unknown", id="no-http"),
        pytest.param(ClientClosedError("closed"), "not_sent", id="closed"),
    ],
)
def test_a_batch_that_failed_says_what_is_known_of_each_write(answer: Response | KintoError, status: str) -> None:
    write = staged(0)

    (found,), _ = drive(run([write]), answer, Response(200))  # a 400 may mean that the server takes fewer

    assert (found.status, found.error is None, write.holder.adopted) == (status, False, None)


# -- the size -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 0, "", None, "many", -1])
def test_as_many_as_the_server_takes_are_sent(limit: Any) -> None:
    flow = run([staged(0), staged(1)], server=Server(limit))

    found, _ = drive(flow, batch(stored(0), stored(1)))

    assert [one.status for one in found] == ["created", "created"]


def test_more_than_the_server_takes_are_refused_before_anything_is_sent() -> None:
    flow = run([staged(0), staged(1)], server=Server(1))

    with pytest.raises(BatchTooLargeError, match="2 writes are staged and the server takes 1"):
        drive(flow)


@pytest.mark.parametrize("error", [ConnectionLostError("lost"), ProtocolError("html"), ServerError("no", status=500)])
def test_nothing_is_sent_where_the_server_does_not_say_how_many_it_takes(error: KintoError) -> None:
    found, sent = drive(run([staged(0)], server=Server(known=False)), error)

    assert [(one.status, one.error) for one in found] == [("not_sent", error)]
    assert [one.path for one in sent] == ["/"]


# -- many batches -------------------------------------------------------------------------------------------------


def bulk(writes: Iterable[Change[Thing]], *answers: Response | KintoError, limit: int = 2) -> BulkReport:
    return drive(run_all(writes, limit), *answers)[0]


def run_all(writes: Iterable[Change[Thing]], limit: int = 2, on_outcome: Any = None) -> Flow[BulkReport]:
    return report_of(Bulk(writes, Server(limit)), on_outcome)  # type: ignore[arg-type]  # only what it needs


def test_a_bulk_fills_its_batches_and_counts() -> None:
    report, sent = drive(run_all(staged(n) for n in range(3)), batch(stored(0), stored(1)), batch(stored(2)))

    assert [len(json.loads(one.body or b"")["requests"]) for one in sent] == [2, 1]
    assert (report.created, report.stored, report.failed, report.is_complete) == (3, 3, [], True)


def test_a_bulk_reads_no_more_than_one_batch_ahead() -> None:
    read: list[int] = []

    def source() -> Iterable[Change[Thing]]:
        for number in range(5):
            read.append(number)
            yield staged(number)

    flow = run_all(source())
    next(flow)

    assert read == [0, 1]


def test_clean_objects_take_no_room_in_a_batch() -> None:
    clean = [replace(one, data={"n": 0}) for one in loaded(3)]

    report, sent = drive(run_all([*clean, staged(4), staged(5)]), batch(stored(4), stored(5)))

    assert (report.unchanged, report.created, len(sent)) == (3, 2, 1)


def loaded(count: int) -> list[Change[Thing]]:
    return [staged(number, status=Status.LOADED) for number in range(count)]


def test_each_outcome_is_told_when_its_batch_was_answered() -> None:
    told: list[str] = []

    drive(run_all([staged(0), staged(1)], on_outcome=lambda one: told.append(one.status)), batch(stored(0), (412, {})))

    assert told == ["created", "conflict"]


def test_a_refused_batch_does_not_stop_a_bulk_and_a_lost_connection_does() -> None:
    report = bulk(
        (staged(n) for n in range(8)), Response(403), batch(stored(2), stored(3)), ConnectionLostError("lost")
    )

    assert [one.status for one in report.failed] == ["rejected"] * 2 + ["unknown"] * 2
    assert (report.created, report.is_complete) == (2, False)
    with pytest.raises(CommitError, match="what came after was not sent"):
        raise_for_report(report, "bulk_create")


def test_an_object_in_no_state_for_its_verb_fails_alone() -> None:
    dead = staged(0, status=Status.DELETED)

    report = bulk([dead, staged(1)], batch(stored(1)))

    assert [type(one.error) for one in report.failed] == [DeletedObjectError]
    assert (report.failed[0].status, report.created) == ("rejected", 1)


def test_an_object_given_twice_is_written_once() -> None:
    one = staged(0)

    report = bulk([one, replace(one), staged(1)], batch(stored(0), stored(1)))

    assert [type(found.error) for found in report.failed] == [DuplicateObjectError]
    assert report.created == 2


def test_what_the_source_raises_says_what_is_stored() -> None:
    def source() -> Iterable[Change[Thing]]:
        yield from (staged(0), staged(1), staged(2))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        bulk(source(), batch(stored(0), stored(1)), batch(stored(2)))

    assert caught.value.__notes__ == ["3 objects were stored before this; what came after them was not sent."]


def test_a_report_without_failures_is_given_back() -> None:
    report = BulkReport(created=1)

    assert raise_for_report(report, "bulk_create") is report


# -- again --------------------------------------------------------------------------------------------------------


def ids(request: Request) -> list[str]:
    return [one["path"].rpartition("/")[2] for one in json.loads(request.body or b"")["requests"]]


def test_what_a_409_rolled_back_is_sent_again() -> None:
    flow = run([staged(n) for n in range(3)], server=Server(retry=1))

    found, sent = drive(flow, batch(stored(0), (409, {}), stored(2)), batch(stored(0), stored(1)))

    assert [one.status for one in found] == ["created", "created", "created"]
    assert [(ids(one), one.attempt) for one in sent] == [(["r0", "r1", "r2"], 1), (["r0", "r1"], 2)]


def test_what_was_refused_for_want_of_something_rolled_back_is_sent_again() -> None:
    flow = run([staged(n) for n in range(3)], server=Server(retry=1))

    found, sent = drive(flow, batch(stored(0), (409, {}), (404, {})), batch(stored(0), stored(1), stored(2)))

    assert [one.status for one in found] == ["created", "created", "created"]
    assert len(sent) == 2


def test_races_that_go_on_end() -> None:
    flow = run([staged(0), staged(1)], server=Server(retry=9))

    found, sent = drive(flow, *[batch(stored(0), (409, {}))] * 9)

    assert [one.status for one in found] == ["rolled_back", "rolled_back"]
    assert len(sent) == 4


def test_a_batch_that_is_rolled_back_as_a_whole_is_sent_again() -> None:
    found, sent = drive(run([staged(0)], server=Server(retry=1)), Response(409), batch(stored(0)))

    assert [one.status for one in found] == ["created"]
    assert [one.attempt for one in sent] == [1, 2]


def test_more_than_one_batch_takes_goes_in_chunks() -> None:
    flow = run([staged(n) for n in range(3)], server=Server(2), chunked=True)

    found, sent = drive(flow, batch(stored(0), (412, {})), batch(stored(2)))

    assert [one.status for one in found] == ["created", "conflict", "created"]
    assert [ids(one) for one in sent] == [["r0", "r1"], ["r2"]]


def test_after_a_lost_chunk_nothing_more_is_sent() -> None:
    flow = run([staged(n) for n in range(5)], server=Server(2), chunked=True)

    found, sent = drive(flow, batch(stored(0), stored(1)), ConnectionLostError("lost"))

    assert [one.status for one in found] == ["created", "created", "unknown", "unknown", "not_sent"]
    assert "a batch before it failed: lost" in str(found[4].error)
    assert len(sent) == 2


def test_a_server_that_takes_fewer_by_now_gets_smaller_batches() -> None:
    flow = run([staged(n) for n in range(3)], server=Server(25, 2), chunked=True)

    found, sent = drive(flow, Response(400), Response(200), batch(stored(0), stored(1)), batch(stored(2)))

    assert [one.status for one in found] == ["created", "created", "created"]
    assert [one.path for one in sent] == ["/batch", "/", "/batch", "/batch"]


def test_a_limit_that_is_lowered_twice_is_found_out_twice() -> None:
    flow = run([staged(n) for n in range(3)], server=Server(25, 2, 1), chunked=True)

    found, sent = drive(
        flow,
        *(Response(400), Response(200), Response(400), Response(200)),
        *(batch(stored(n)) for n in range(3)),
    )

    assert [one.status for one in found] == ["created", "created", "created"]
    assert [one.path for one in sent] == ["/batch", "/", "/batch", "/", "/batch", "/batch", "/batch"]


def test_a_unit_that_must_be_one_batch_is_refused_by_a_server_that_takes_fewer_by_now() -> None:
    flow = run([staged(n) for n in range(3)], server=Server(25, 2))

    with pytest.raises(BatchTooLargeError):
        drive(flow, Response(400), Response(200))


def test_a_400_for_another_reason_is_a_refusal() -> None:
    flow = run([staged(0), staged(1)], server=Server(25))

    found, _ = drive(flow, Response(400), ConnectionLostError("lost"))

    assert [one.status for one in found] == ["rejected", "rejected"]


# -- all or nothing -----------------------------------------------------------------------------------------------


def undone(*answers: Answer) -> Response:
    return batch(*answers)._replace(headers={"x-batch-rolled-back": "true"})


def atomic(*writes: Change[Thing], on_conflict: Any = "raise") -> Flow[list[Outcome[Thing]]]:
    return run(writes, server=Server(capabilities=("atomic_batch",)), atomic=True, on_conflict=on_conflict)


def test_one_refusal_is_the_end_of_an_atomic_unit() -> None:
    (found, (request,)) = drive(atomic(staged(0), staged(1)), undone(stored(0), (412, {})))

    assert request.headers["X-Batch-Atomic"] == "true"
    assert [one.status for one in found] == ["rolled_back", "conflict"]
    assert isinstance(found[0].error, RolledBackError)


def test_an_atomic_unit_goes_on_top_of_a_conflict_together() -> None:
    existing = {"details": {"existing": {"id": "r1", "last_modified": 9, "n": 3}}}
    flow = atomic(staged(0), staged(1, status=Status.LOADED), on_conflict="mine")

    found, sent = drive(flow, undone(stored(0), (412, existing)), batch(stored(0), stored(1, 200)))

    assert [one.status for one in found] == ["created", "updated"]
    assert [ids(one) for one in sent] == [["r0", "r1"], ["r0", "r1"]]


def test_what_takes_theirs_is_not_sent_again_with_an_atomic_unit() -> None:
    existing = {"details": {"existing": {"id": "r1", "last_modified": 9, "n": 3}}}
    flow = atomic(staged(0), staged(1, status=Status.LOADED), on_conflict="theirs")

    found, sent = drive(flow, undone(stored(0), (412, existing)), batch(stored(0)))

    assert [one.status for one in found] == ["created", "unchanged"]
    assert [ids(one) for one in sent] == [["r0", "r1"], ["r0"]]


def test_nothing_is_sent_to_a_server_that_cannot_store_all_or_nothing() -> None:
    with pytest.raises(AtomicityUnavailableError, match=r"kinto_orm.server.atomic_batch"):
        drive(run([staged(0)], atomic=True))


# -- the lock -----------------------------------------------------------------------------------------------------

LOCK = Write(ObjectPath(Kind.GROUP, ("b", "lock")), Action.PUT, UNCONDITIONAL)


def test_the_lock_goes_first_and_is_no_outcome() -> None:
    found, (request,) = drive(run([staged(0)], lock=LOCK), batch((200, {}), stored(0)))

    assert ids(request) == ["lock", "r0"]
    assert [one.status for one in found] == ["created"]


def test_the_lock_counts() -> None:
    flow = run([staged(n) for n in range(2)], server=Server(2), lock=LOCK, chunked=True)

    _, sent = drive(flow, batch((200, {}), stored(0)), batch((200, {}), stored(1)))

    assert [ids(one) for one in sent] == [["lock", "r0"], ["lock", "r1"]]
    with pytest.raises(BatchTooLargeError, match="2 writes and the lock are staged"):
        drive(run([staged(0), staged(1)], server=Server(2), lock=LOCK))


@pytest.mark.parametrize("status", [403, 404, 409])
def test_what_was_stored_without_the_lock_says_so(status: int) -> None:
    found, _ = drive(run([staged(0), staged(1)], lock=LOCK), batch((status, {}), stored(0), (412, {})))

    assert [one.status for one in found] == ["created", "conflict"]
    assert isinstance(found[0].error, LockError)


def test_a_409_undoes_the_lock_of_what_comes_after_it() -> None:
    first = batch((200, {}), stored(0), (409, {}), stored(2))

    found, sent = drive(
        run([staged(n) for n in range(3)], server=Server(retry=1), lock=LOCK),
        first,
        batch((200, {}), stored(0), stored(1)),
    )

    assert [ids(one) for one in sent] == [["lock", "r0", "r1", "r2"], ["lock", "r0", "r1"]]
    assert [one.status for one in found] == ["created", "created", "created"]
    assert [type(one.error) for one in found] == [type(None), type(None), LockError]


NAMED = ObjectPath(Kind.RECORD, ("b", "lock-one", "lock"))


def test_the_object_of_a_lock_is_made_although_others_are_in_the_way() -> None:
    _, sent = drive(create_lock(NAMED), Response(412), *[Response(409)] * 3, Response(201))

    assert [one.path.kind for one in sent] == [Kind.COLLECTION, *[Kind.RECORD] * 4]


@pytest.mark.parametrize("status", [403, 409])
def test_the_object_of_a_lock_that_cannot_be_made_is_an_error(status: int) -> None:
    with pytest.raises(ResponseError):
        drive(create_lock(NAMED), *[Response(status)] * 4)


def test_a_batch_with_a_lock_may_be_sent_again() -> None:
    _, (request,) = drive(run([staged(0)], lock=LOCK), batch((200, {}), stored(0)))

    assert request.is_repeatable

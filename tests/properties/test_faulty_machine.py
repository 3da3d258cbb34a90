"""Two sessions behind networks that lose things, and a third writer: no session believes anything but the server's
state.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pytest
import requests
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from lossy import Fault, LossyAdapter, Raced, lossy

from kinto_orm import (
    BatchTooLargeError,
    Client,
    Collection,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    ConnectionLostError,
    KintoError,
    MergeConflict,
    NotFoundError,
    ProtocolError,
    Record,
    ServerError,
)
from kinto_orm.protocol.json_values import is_same
from kinto_orm.repository.state import Outcome
from kinto_orm.server import EmbeddedServer
from kinto_orm.unit_of_work.unit_of_work import UnitOfWork

from .journal import ABSENT, Call, Data, Goal, Journal, Version, Way, by_hand

IDS = st.sampled_from(["a", "b", "c"])
SESSIONS = st.sampled_from([0, 1])
WAYS: st.SearchStrategy[Way] = st.sampled_from(["raise", "mine", "theirs", "merge", "by hand"])
NUMBERS = st.integers(0, 3)
DEEP = st.fixed_dictionaries({}, optional={"p": NUMBERS, "q": NUMBERS})
DATA = st.fixed_dictionaries({}, optional={"x": NUMBERS, "y": st.lists(NUMBERS, max_size=2), "o": DEEP})
CHANGES = DATA.filter(bool)
UNSENT = ("ok", "503", "409", "409 inside")
"""What leaves no doubt about what became of a request."""


@dataclass(frozen=True)
class Meddling:
    """What the third writer does: a change, or with ``None`` a deletion; before the request, or before its answer."""

    id: str
    changes: Data | None
    is_before: bool


FAULTS = st.one_of(
    st.sampled_from(["ok", "lost before", "lost after", "502 after", "500 after", "503", "409", "cut short"]),
    st.sampled_from(["wrong count", "409 inside", "500 inside"]),
    st.builds(Meddling, IDS, st.none() | CHANGES, st.booleans()),
)


PLANS = st.one_of(
    st.just([]),
    st.lists(FAULTS, min_size=1, max_size=3),
    st.builds(lambda fault, count: [fault] * count, FAULTS, st.integers(2, 5)),
    st.builds(lambda count, last: ["lost before"] * count + [last], st.integers(1, 3), FAULTS),
    st.just(["lost after", "lost before", "lost before", "lost before"]),
)
"""What happens to the next requests of a session, also more than it sends for one call."""


@dataclass
class Staged:
    """What is staged of one record."""

    record: Record
    goal: Goal | None
    """``None``: nothing is left of it to be sent."""
    base: Version
    shown: Data
    doubts: tuple[Call, ...] = ()
    """What the object was in doubt about when it was staged, or sent last."""


@dataclass
class Session:
    """A client behind its own network, with the objects that it believes to know."""

    client: Client
    adapter: LossyAdapter
    name: str
    unit: UnitOfWork
    way: Way = "raise"
    is_atomic: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    staged: dict[str, Staged] = field(default_factory=dict)
    doubts: dict[int, tuple[Call, ...]] = field(default_factory=dict)
    """An object's calls that ended in doubt, by the identity of the object."""

    def doubts_of(self, record: Record) -> tuple[Call, ...]:
        return self.doubts.get(builtin_id(record), ())

    @property
    def collection(self) -> Collection[Record]:
        return self.client.bucket("b").collection("c")


@dataclass
class Report:
    """What a call says became of it."""

    call: Call
    status: str
    error: KintoError | None = None


class FaultyNetwork(RuleBasedStateMachine):
    """Rules name a session and an id; where that session has no such object, it loads or creates it."""

    server: ClassVar[EmbeddedServer]

    @initialize(limit=st.sampled_from([2, 25]))
    def start(self, limit: int) -> None:
        self.server.flush()
        self.third = requests.Session()
        self.third.mount(self.server.url, self.server.adapter())
        self.third.auth = ("carol", "x")
        self._third("PUT", "/buckets/b", permissions={"write": ["system.Authenticated"]})
        self._third("PUT", "/buckets/b/collections/c")
        self.journal = Journal()
        self.names: dict[str, str] = {self._user(self.third.get(self.server.url + "/").json()): "third"}
        self.sessions = [self._session(name, limit) for name in ("alice", "bob")]
        self.calls: list[Call] = []
        self.is_broken = False
        self.is_fresh = True
        """Whether sessions load again what others have changed, before they use it."""

    def _session(self, name: str, limit: int) -> Session:
        client, adapter = lossy(self.server, auth=(name, "x"), bucket="b", collection="c", retry_after=0)
        info = client.server_info()
        # As if the server took so few: it is the client that cuts batches to this size.
        client._connection.server_info = {**info, "settings": {**info["settings"], "batch_max_requests": limit}}
        self.names[self._user(info)] = name
        return Session(client, adapter, name, client.unit_of_work())

    def _user(self, info: Data) -> str:
        user: str = info["user"]["id"]
        return user

    def _third(self, method: str, path: str, **body: Any) -> None:
        self.third.request(method, self.server.url + path, json=body or None)

    # -- the network ----------------------------------------------------------------------------------------------

    def _plan(self, session: Session, faults: Sequence[Any]) -> None:
        session.adapter.plan.clear()
        session.adapter.plan.extend(map(self._fault, faults))

    @rule(id=IDS, changes=st.none() | CHANGES)
    def write_as_third(self, id: str, changes: Data | None) -> None:
        self._meddle(id, changes)
        self._read_journal()

    def _fault(self, fault: Any) -> Fault:
        if not isinstance(fault, Meddling):
            known: Fault = fault
            return known
        meddle = partial(self._meddle, fault.id, fault.changes)
        return Raced(meddle) if fault.is_before else meddle

    def _meddle(self, id: str, changes: Data | None) -> None:
        path = f"/buckets/b/collections/c/records/{id}"
        if changes is None:
            self._third("DELETE", path)
        elif self.third.get(self.server.url + path).status_code == 404:
            self._third("PUT", path, data=changes)
        else:
            self._third("PATCH", path, data=changes)

    # -- directly -------------------------------------------------------------------------------------------------

    @rule(number=SESSIONS, id=IDS, data=DATA, way=WAYS, plan=PLANS)
    def create(self, number: int, id: str, data: Data, way: Way, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        if id not in session.staged:
            record = Record(collection=session.collection, id=id, data=data)
            session.records[id] = record
            self._direct(session, id, Goal("save", data), way, partial(record.save, on_conflict=_policy(way)))

    @rule(number=SESSIONS, id=IDS)
    def refresh(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record = self._held(session, id)
        self._refresh(session, id, record)

    @rule(number=SESSIONS, id=IDS, changes=CHANGES)
    def edit(self, number: int, id: str, changes: Data) -> None:
        self._held(self.sessions[number], id).data.update(changes)

    @rule(number=SESSIONS, id=IDS, key=st.sampled_from(["p", "q"]), value=NUMBERS)
    def edit_inside(self, number: int, id: str, key: str, value: int) -> None:
        self._held(self.sessions[number], id).data.setdefault("o", {})[key] = value

    @rule(number=SESSIONS, id=IDS, key=st.sampled_from(["x", "y", "o"]))
    def remove_a_key(self, number: int, id: str, key: str) -> None:
        self._held(self.sessions[number], id).data.pop(key, None)

    @rule(number=SESSIONS, id=IDS, way=WAYS, plan=PLANS)
    def save(self, number: int, id: str, way: Way, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        record = self._held(session, id)
        self._direct(session, id, Goal("save", _copy(record)), way, partial(record.save, on_conflict=_policy(way)))

    @rule(number=SESSIONS, id=IDS, way_out=st.sampled_from(["reload", "overwrite", "merge"]), plan=PLANS)
    def save_or(self, number: int, id: str, way_out: str, plan: list[Any]) -> None:
        session = self.sessions[number]
        record = self._held(session, id)
        self._plan(session, plan)
        goal = Goal("save", _copy(record))
        report = self._direct(session, id, goal, "raise", record.save)
        if isinstance(report.error, ConflictError):
            self._take(session, report.call, report.error, way_out)

    def _take(self, session: Session, call: Call, error: ConflictError, way_out: str) -> None:
        """Take the way out of the conflict: another call, on top of the data that the conflict has shown."""
        theirs = ABSENT if error.theirs is None else self.journal.find(call.id, error.theirs_last_modified or 0)
        if way_out == "reload":
            error.reload()
            session.doubts.pop(builtin_id(call.holder), None)
            assert call.holder.is_deleted == (theirs is ABSENT)
            assert theirs is ABSENT or is_same(dict(call.holder.data), theirs.data)
            self._drop_deleted(session, call.id)
            return
        goal = call.goal.after(call.base.data, theirs.data, "mine" if way_out == "overwrite" else "merge")
        if goal is None:
            with pytest.raises(MergeConflict):
                error.merge()
            return
        again = Call(session.name, call.id, call.holder, goal, theirs, call.shown)
        report = self._run(session, again, error.overwrite if way_out == "overwrite" else error.merge)
        assert report.error is not None or not call.holder.is_dirty

    @rule(number=SESSIONS, id=IDS, changes=CHANGES, way=WAYS, plan=PLANS)
    def edit_and_save(self, number: int, id: str, changes: Data, way: Way, plan: list[Any]) -> None:
        self.edit(number, id, changes)
        self.save(number, id, way, plan)

    @rule(number=SESSIONS, id=IDS, plan=PLANS)
    def replace(self, number: int, id: str, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        record = self._held(session, id)
        self._direct(session, id, Goal("replace", _copy(record)), "raise", record.replace)

    @rule(number=SESSIONS, id=IDS, changes=CHANGES, plan=PLANS)
    def patch(self, number: int, id: str, changes: Data, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        record = self._held(session, id)
        if not record.is_new:
            self._direct(session, id, Goal("patch", changes=changes), "raise", partial(record.patch, changes))

    @rule(number=SESSIONS, id=IDS, plan=PLANS)
    def delete(self, number: int, id: str, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        record = self._held(session, id)
        if not record.is_new:
            self._direct(session, id, Goal("delete"), "raise", record.delete)

    @rule(number=SESSIONS, id=IDS, key=st.sampled_from(["x", "z"]), value=NUMBERS, plan=PLANS)
    def edit_until_saved(self, number: int, id: str, key: str, value: int, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        if self.journal.now(id).data is None:
            return
        call = Call(session.name, id, None, Goal("patch", changes={key: value}), ABSENT, {}, any_base=True)

        def edit() -> None:
            for attempt in session.client.bucket("b").collection("c").records.edit(id):
                with attempt as record:
                    call.holder = record
                    call.base = Version(_copy(record), record.last_modified, "somebody")
                    record.data[key] = value

        self._run(session, call, edit)

    def _direct(self, session: Session, id: str, goal: Goal, way: Way, verb: Callable[[], Any]) -> Report:
        record = session.records[id]
        report = self._run(session, self._call(session, id, record, goal, way), verb)
        if record.is_deleted:
            del session.records[id]
        return report

    def _call(self, session: Session, id: str, record: Record, goal: Goal, way: Way) -> Call:
        known = self._known(id, record)
        return Call(session.name, id, record, goal, known, _copy(record), way, session.doubts_of(record))

    def _known(self, id: str, record: Record) -> Version:
        return ABSENT if record.is_new else self.journal.find(id, record.last_modified or 0)

    def _run(self, session: Session, call: Call, verb: Callable[[], Any]) -> Report:
        """Call the verb, and compare its result with the writes."""
        report = Report(call, "stored")
        with self._watched(session, [call]) as watched:
            try:
                verb()
            except NotFoundError as error:
                report = Report(call, "gone", error)
            except ConflictError as error:
                report = Report(call, "conflict", error)
            except ConcurrentWriteError as error:
                report = Report(call, "rolled_back", error)
            except (ConnectionLostError, ProtocolError, ServerError) as error:
                is_kinto_s = isinstance(error, ServerError) and error.status == 503
                report = Report(call, "rolled_back" if is_kinto_s else "unknown", error)
        self._check(session, report, watched)
        return report

    # -- in a unit of work ----------------------------------------------------------------------------------------

    @rule(number=SESSIONS, way=WAYS, kind=st.sampled_from(["", "atomic", "chunked"]))
    def open_unit(self, number: int, way: Way, kind: str) -> None:
        session = self.sessions[number]
        options = {kind: True} if kind else {}
        session.unit = session.client.unit_of_work(on_conflict=_policy(way), **options)
        session.way, session.is_atomic = way, kind == "atomic"
        session.staged.clear()

    @rule(number=SESSIONS, id=IDS, data=DATA)
    def stage_creation(self, number: int, id: str, data: Data) -> None:
        session = self.sessions[number]
        if id not in session.staged:
            record = session.records[id] = Record(collection=session.collection, id=id, data=data)
            session.unit.save(record)
            session.staged[id] = Staged(record, Goal("save", data), ABSENT, dict(data))

    @rule(number=SESSIONS, id=IDS, changes=DATA)
    def stage_save(self, number: int, id: str, changes: Data) -> None:
        session = self.sessions[number]
        record, before = self._to_stage(session, id)
        if not record.is_deleted and (before is None or before.goal is None or before.goal.verb == "save"):
            record.data.update(changes)
            session.unit.save(record)
            self._stage(session, id, record, Goal("save", _copy(record)))

    @rule(number=SESSIONS, id=IDS)
    def stage_replacement(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record, before = self._to_stage(session, id)
        if before is None and not record.is_deleted:
            session.unit.replace(record)
            self._stage(session, id, record, Goal("replace", _copy(record)))

    @rule(number=SESSIONS, id=IDS, changes=CHANGES)
    def stage_patch(self, number: int, id: str, changes: Data) -> None:
        session = self.sessions[number]
        record, before = self._to_stage(session, id)
        if (
            record.is_new
            or record.is_deleted
            or (before is not None and (before.goal is None or before.goal.verb != "patch"))
        ):
            return
        session.unit.patch(record, changes)
        earlier = {} if before is None or before.goal is None else before.goal.changes
        self._stage(session, id, record, Goal("patch", changes={**earlier, **changes}))

    @rule(number=SESSIONS, id=IDS)
    def stage_deletion(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record, before = self._to_stage(session, id)
        if not record.is_deleted and (not record.is_new or (before is not None and before.goal is not None)):
            session.unit.delete(record)
            self._stage(session, id, record, None if record.is_new else Goal("delete"))

    @rule(
        number=SESSIONS,
        calls=st.lists(st.tuples(st.sampled_from(["save", "save", "patch", "delete"]), IDS, CHANGES), max_size=5),
        then=st.sampled_from(["", "compensate", "again"]),
        plan=PLANS,
    )
    def stage_and_commit(self, number: int, calls: list[tuple[str, str, Data]], then: str, plan: list[Any]) -> None:
        for call, id, changes in calls:
            if call == "patch":
                self.stage_patch(number, id, changes)
            elif call == "delete":
                self.stage_deletion(number, id)
            else:
                self.stage_save(number, id, changes)
        self.commit(number, then, plan)

    def _to_stage(self, session: Session, id: str) -> tuple[Record, Staged | None]:
        """Return the object, and its staged changes, which no longer count where it was loaded again since."""
        staged = session.staged.get(id)
        record = staged.record if staged else self._held(session, id)
        return record, staged if staged and staged.base is self._known(id, record) else None

    def _stage(self, session: Session, id: str, record: Record, goal: Goal | None) -> None:
        known = self._known(id, record)
        session.staged[id] = Staged(record, goal, known, _copy(record), session.doubts_of(record))

    @rule(number=SESSIONS)
    def roll_back(self, number: int) -> None:
        session = self.sessions[number]
        session.unit.rollback()
        session.staged.clear()

    @rule(number=SESSIONS, then=st.sampled_from(["", "compensate", "again"]), plan=PLANS)
    def commit(self, number: int, then: str, plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        error = self._commit(session)
        if error is not None and then == "again":
            self._commit(session)
        elif error is not None and then == "compensate":
            self._compensate(session, error)

    def _commit(self, session: Session) -> CommitError | None:
        staged = dict(session.staged)
        calls = [self._call_of(session, id, one) for id, one in staged.items()]
        failure: CommitError | None = None
        with self._watched(session, calls) as watched:
            try:
                outcomes: Sequence[Outcome[Any]] = session.unit.commit()
            except BatchTooLargeError:
                assert len(staged) > 2
                return None
            except CommitError as error:
                outcomes, failure = error.outcomes, error
        assert [one.object for one in outcomes] == [one.record for one in staged.values()]
        assert (failure is None) == all(one.error is None for one in outcomes)
        for outcome, call in zip(outcomes, calls, strict=True):
            self._check(session, Report(call, outcome.status, outcome.error), watched)
            if outcome.is_stored:
                del session.staged[call.id]
                session.records[call.id] = call.holder
                self._drop_deleted(session, call.id)
            elif outcome.status == "unknown":
                session.staged[call.id].doubts = session.doubts_of(call.holder)
        if session.is_atomic and not watched.is_doubtful and not any(call.doubts for call in calls):
            self._check_atomicity(outcomes, watched)
        return failure

    def _call_of(self, session: Session, id: str, one: Staged) -> Call:
        # What cancelled itself out changes nothing.
        goal = one.goal or Goal("save", one.base.data)
        return Call(
            session.name,
            id,
            one.record,
            goal,
            one.base,
            one.shown,
            session.way,
            one.doubts,
        )

    def _check_atomicity(self, outcomes: Sequence[Outcome[Any]], watched: Watched) -> None:
        written = [call.id for call in watched.calls if watched.written(call)]
        if any(not one.is_stored for one in outcomes):
            assert not written, f"{written} were stored by an atomic unit that failed: {outcomes}"

    def _compensate(self, session: Session, error: CommitError) -> None:
        stored = [one for one in error.outcomes if one.is_stored and one.change.after is not None]
        calls = [self._undoing(session, one) for one in stored]
        with self._watched(session, calls) as watched:
            undone = error.compensate()
        by_id = {call.id: call for call in calls}
        assert sorted(one.object.id for one in undone) == sorted(by_id)
        for outcome in undone:
            call = by_id[outcome.object.id]
            self._check(session, Report(call, outcome.status, outcome.error), watched)
            self._drop_deleted(session, call.id)

    def _undoing(self, session: Session, outcome: Outcome[Any]) -> Call:
        """Return the call that restores the record to its state before the write."""
        record, id = outcome.object, outcome.object.id
        session.records[id] = record
        if record.is_deleted:
            gone = [one for one in self.journal.of(id)[1:] if one.data is None][-1]
            return Call(session.name, id, record, Goal("save", self.journal.before(id, gone).data), ABSENT, {})
        stored = self.journal.find(id, record.last_modified)
        before = self.journal.before(id, stored).data
        if stored.author != session.name:  # they wrote the very same while an answer of ours got lost
            sent = outcome.change.sent if outcome.change is not None else None
            before = None if sent is None else sent.state.data
        goal = Goal("delete") if before is None else Goal("save", before)
        return Call(session.name, id, record, goal, stored, _copy(record))

    @rule(number=SESSIONS, items=st.lists(st.tuples(IDS, DATA), max_size=3, unique_by=lambda one: one[0]), plan=PLANS)
    def stream(self, number: int, items: list[tuple[str, Data]], plan: list[Any]) -> None:
        self._plan(self.sessions[number], plan)
        session = self.sessions[number]
        items = [(id, data) for id, data in items if id not in session.staged]
        for id, data in items:
            session.records[id] = Record(collection=session.collection, id=id, data=data)
        records = [session.records[id] for id, _ in items]
        calls = [self._call(session, id, session.records[id], Goal("save", data), "raise") for id, data in items]
        with self._watched(session, calls) as watched:
            outcomes = list(session.collection.records.stream_create(records))
        assert [one.object for one in outcomes] == records[: len(outcomes)]
        for outcome, call in zip(outcomes, calls, strict=False):
            self._check(session, Report(call, outcome.status, outcome.error), watched)
        for call in calls[len(outcomes) :]:
            self._check(session, Report(call, "not_sent"), watched)

    # -- what always holds ----------------------------------------------------------------------------------------

    @contextmanager
    def _watched(self, session: Session, calls: list[Call]) -> Generator[Watched]:
        """Note the writes of the records during these calls."""
        self.is_broken = True
        starts = {call.id: self.journal.now(call.id) for call in calls}
        planned = list(session.adapter.plan)
        self.calls = calls
        watched = Watched(self.journal, calls, starts)
        yield watched
        watched.faults = planned[: len(planned) - len(session.adapter.plan)]
        self._read_journal()
        self.calls = []
        self.is_broken = False

    def _read_journal(self) -> None:
        query = f"resource_name=record&_sort=last_modified&gt_last_modified={self.journal.last}"
        for entry in self.third.get(f"{self.server.url}/buckets/b/history?{query}").json()["data"]:
            author = self.names[entry["user_id"]]
            calls = {call.id: call for call in self.calls if call.author == author}
            self.journal.add(entry, author, calls.get(entry["record_id"]))

    def _check(self, session: Session, report: Report, watched: Watched) -> None:
        """Check the result of the call against the writes."""
        self.is_broken = True
        self._check_report(session, report, watched)
        self.is_broken = False

    def _check_report(self, session: Session, report: Report, watched: Watched) -> None:
        call, status = report.call, report.status
        written = self.journal.check_writes(call, watched.starts[call.id])
        if status == "unknown":
            assert watched.is_doubtful or call.doubts, (report, watched.faults)
            # A staged write knows the doubts that its object had when it was staged.
            session.doubts[builtin_id(call.holder)] = (*call.doubts, call)
            return
        if status in ("stored", "created", "updated", "deleted", "unchanged"):
            self._check_stored(report, watched, written)
            session.doubts.pop(builtin_id(call.holder), None)
            return
        assert not (written and not watched.is_doubtful), f"{report} was stored"
        during = self.journal.since(call.id, watched.starts[call.id])
        if status in ("conflict", "gone"):
            assert during[-1] not in written, f"{report} is stored"
            others = [one for one in during if one.key != call.base.key and one not in written]
            others = [one for one in others if one.call not in call.doubts or one.data is None]
            assert others, f"nobody is the cause of {report}"
        else:
            assert status in ("rolled_back", "not_sent"), report
            assert not written, f"{report} is stored"

    def _check_stored(self, report: Report, watched: Watched, written: list[Version]) -> None:
        call, record = report.call, report.call.holder
        during = self.journal.since(call.id, watched.starts[call.id])
        may_be_alike = watched.is_doubtful or bool(call.doubts)
        is_no_change = call.goal.verb == "save" and is_same(call.goal.data, call.base.data)
        if is_no_change and not written and not call.doubts:
            return  # nothing had to be sent
        if record.is_deleted:
            assert any(one.data is None for one in during), f"{report}, and it always was there"
            return
        found = self.journal.find(call.id, record.last_modified) if not record.is_new else None
        if found is None:
            assert call.goal.data is None or call.base is ABSENT, report
            assert not written
            return
        assert is_same(record.__kinto_state__().data, found.data), f"{record} is not as the server had it"
        assert found in during, f"{report}: the object is older than the call"
        if report.status in ("created", "updated"):
            assert found in written or may_be_alike, f"{report}: written by {found.author}"
        if found in written or found.call in call.doubts:
            return
        assert (
            call.way == "theirs"
            or call.way == "by hand"
            or may_be_alike
            or is_same(found.data, call.goal.on(found.data))
            or call.way == "merge"
        ), report

    @invariant()
    def the_server_holds_what_the_journal_says(self) -> None:
        rows = self.third.get(f"{self.server.url}/buckets/b/collections/c/records").json()["data"]
        stored = self.journal.stored

        assert {row["id"] for row in rows} == set(stored)
        for row in rows:
            version = stored[row.pop("id")]
            assert row.pop("last_modified") == version.timestamp
            assert is_same(row, version.data)

    @invariant()
    def clean_objects_of_the_latest_state_are_what_the_server_holds(self) -> None:
        for session in self.sessions:
            for id, record in session.records.items():
                now = self.journal.now(id)
                if record.last_modified == now.timestamp and not record.is_deleted and not record.is_dirty:
                    assert is_same(_copy(record), now.data), f"{session.name} believes {_copy(record)}"

    def _held(self, session: Session, id: str) -> Record:
        """Return the session's object."""
        if id not in session.records:
            record = session.collection.records.get_or_none(id)
            if record is None:
                self._meddle(id, {"x": 0})
                self._read_journal()
                record = session.collection.records.get(id)
            session.records[id] = record
        record = session.records[id]
        if self.is_fresh and not record.is_new and self._is_only_stale(session, id, record):
            self._refresh(session, id, record)
        return record

    def _is_only_stale(self, session: Session, id: str, record: Record) -> bool:
        now = self.journal.now(id)
        is_staged = id in session.staged or session.doubts_of(record)
        return not is_staged and now.data is not None and record.last_modified != now.timestamp

    @rule(is_fresh=st.booleans())
    def keep_fresh(self, is_fresh: bool) -> None:
        self.is_fresh = is_fresh

    def _drop_deleted(self, session: Session, id: str) -> None:
        if session.records[id].is_deleted:
            del session.records[id]

    def _refresh(self, session: Session, id: str, record: Record) -> None:
        now = self.journal.now(id)
        if now.data is None:
            with pytest.raises(NotFoundError):
                record.refresh(discard=True)
            return
        record.refresh(discard=True)
        session.doubts.pop(builtin_id(record), None)
        assert not record.is_dirty
        assert record.last_modified == now.timestamp
        assert is_same(_copy(record), now.data)

    # -- the end: the network is well again -----------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "sessions"):
            return
        try:
            if not self.is_broken:
                for session in self.sessions:
                    self._converge(session)
                self.the_server_holds_what_the_journal_says()
                self.clean_objects_of_the_latest_state_are_what_the_server_holds()
        finally:
            for session in self.sessions:
                session.client.close()
            self.third.close()

    def _converge(self, session: Session) -> None:
        """Commit and save once more: each is stored, or another writer is the cause; then all equal the server."""
        session.adapter.plan.clear()
        for _ in range(3 if session.staged else 0):
            self._commit(session)
        session.unit.rollback()
        session.staged.clear()
        for id, record in list(session.records.items()):
            if record.is_dirty:
                goal = Goal("save", _copy(record))
                self._direct(session, id, goal, "raise", record.save)
            if not record.is_deleted:
                self._refresh(session, id, record)


@dataclass
class Watched:
    """What happened during some calls."""

    journal: Journal
    calls: list[Call]
    starts: dict[str, Version]
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_doubtful(self) -> bool:
        """Whether an answer got lost."""
        return any(fault not in UNSENT and not isinstance(fault, Raced) for fault in self.faults)

    def written(self, call: Call) -> list[Version]:
        """Return the versions that the call wrote."""
        return [one for one in self.journal.of(call.id) if one.call is call]


def _copy(record: Record) -> Data:
    return deepcopy(dict(record.data))


def _policy(way: Way) -> Any:
    return by_hand if way == "by hand" else way


builtin_id = id


class TestFaultyNetwork(FaultyNetwork.TestCase):
    """The machine, on the server of the tests: in memory, or with ``--kinto-postgres`` on PostgreSQL."""

    settings = settings(stateful_step_count=25)

    @pytest.fixture(autouse=True)
    def _server(self, kinto_server: EmbeddedServer) -> None:
        FaultyNetwork.server = kinto_server

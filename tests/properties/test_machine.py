"""Two sessions save, patch, delete, stage and commit as they like: the server always holds what a dictionary says."""

from __future__ import annotations

import atexit
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kinto_orm import Bucket, Client, Collection, CommitError, ConflictError, NotFoundError, Record
from kinto_orm.protocol.json_values import is_same
from kinto_orm.unit_of_work.unit_of_work import UnitOfWork

Data = dict[str, Any]
Call = Literal["save", "patch", "delete"]

IDS = st.sampled_from(["a", "b"])
KEYS = st.sampled_from(["x", "y", "z"])
VALUES = st.one_of(st.integers(0, 3), st.none(), st.lists(st.integers(0, 2), max_size=2), st.just({"deep": 1}))
DATA = st.dictionaries(KEYS, VALUES, max_size=3)
CALLS = st.sampled_from(["save", "save", "patch", "patch", "delete"])
SESSIONS = st.sampled_from([0, 1])


@dataclass
class Stored:
    """What the server has, by the book."""

    data: Data
    last_modified: int | None


@dataclass
class Expected:
    """What a commit will do with one staged object."""

    record: Record
    base: int | None
    """The timestamp that the write expects; ``None`` expects nothing to be there."""
    result: Data | None
    """What the server has afterwards; ``None``: nothing."""
    calls: list[Call] = field(default_factory=list)
    is_sent: bool = True
    is_put: bool = False


@dataclass
class Session:
    """A client with the objects that it believes to know."""

    client: Client
    collection: Collection[Record]
    unit: UnitOfWork
    records: dict[str, Record] = field(default_factory=dict)
    staged: dict[str, Expected] = field(default_factory=dict)


@cache
def server() -> Client:
    client = Client.embedded()
    atexit.register(client.close)
    return client


class TwoSessions(RuleBasedStateMachine):
    """Rules name a session and an id; where that session has no such object, it loads or creates it."""

    @initialize()
    def start(self) -> None:
        client = server()
        assert client._connection.server is not None
        client._connection.server.flush()
        self.collection = Collection(bucket=Bucket(id="b", client=client).save(), id="c").save()
        self.book: dict[str, Stored] = {}
        self.sessions = [self._session(client.clone(bucket="b", collection="c")) for _ in range(2)]

    def _session(self, client: Client) -> Session:
        return Session(client, client.bucket("b").collection("c"), client.unit_of_work())

    # -- directly -------------------------------------------------------------------------------------------------

    @rule(number=SESSIONS, id=IDS, data=DATA)
    def create(self, number: int, id: str, data: Data) -> None:
        session = self.sessions[number]
        record = Record(collection=session.collection, id=id, data=data)
        try:
            record.save()
        except ConflictError as error:
            self._refused(id, record, error)
        else:
            assert id not in self.book
            self._note(id, record, data)
            self._hold(session, id, record)

    @rule(number=SESSIONS, id=IDS)
    def load(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record = session.collection.records.get_or_none(id)
        assert (record is None) == (id not in self.book)
        if record is not None:
            self._hold(session, id, record)

    @rule(number=SESSIONS, id=IDS)
    def refresh(self, number: int, id: str) -> None:
        record = self._held(self.sessions[number], id)
        if id in self.book:
            record.refresh(discard=True)
            assert is_same(dict(record.data), self.book[id].data)

    @rule(number=SESSIONS, id=IDS, key=KEYS, value=VALUES)
    def edit(self, number: int, id: str, key: str, value: Any) -> None:
        self._held(self.sessions[number], id).data[key] = value

    @rule(number=SESSIONS, id=IDS, key=KEYS)
    def remove_a_key(self, number: int, id: str, key: str) -> None:
        self._held(self.sessions[number], id).data.pop(key, None)

    @rule(number=SESSIONS, id=IDS, way_out=st.sampled_from(["", "reload", "overwrite"]))
    def save(self, number: int, id: str, way_out: str) -> None:
        record = self._held(self.sessions[number], id)
        wanted, was_dirty = dict(record.data), record.is_dirty
        try:
            record.save()
        except (ConflictError, NotFoundError) as error:
            assert was_dirty
            self._refused(id, record, error)
            assert record.is_dirty
            assert is_same(dict(record.data), wanted)
            self._take(way_out, id, record, error, wanted)
        else:
            assert not was_dirty or self._was_current(id, record, changed=True)
            if was_dirty:
                self._note(id, record, wanted)

    @rule(number=SESSIONS, id=IDS)
    def replace(self, number: int, id: str) -> None:
        record = self._held(self.sessions[number], id)
        wanted = dict(record.data)
        try:
            record.replace()
        except ConflictError as error:
            self._refused(id, record, error)
        else:
            self._note(id, record, wanted)

    @rule(number=SESSIONS, id=IDS, changes=DATA.filter(bool))
    def patch(self, number: int, id: str, changes: Data) -> None:
        record = self._held(self.sessions[number], id)
        before = self.book.get(id)
        try:
            record.patch(changes)
        except (ConflictError, NotFoundError) as error:
            self._refused(id, record, error)
        else:
            assert before is not None
            self._note(id, record, {**before.data, **changes})

    @rule(number=SESSIONS, id=IDS)
    def delete(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record = self._held(session, id)
        try:
            record.delete()
        except (ConflictError, NotFoundError) as error:
            self._refused(id, record, error)
        else:
            assert record.is_deleted
            del self.book[id], session.records[id]
            self._start_over(session)

    # -- in a unit of work ----------------------------------------------------------------------------------------

    @rule(number=SESSIONS, id=IDS, data=DATA)
    def stage_creation(self, number: int, id: str, data: Data) -> None:
        session = self.sessions[number]
        if id not in session.staged:
            session.records.pop(id, None)
            record = session.unit.save(Record(collection=session.collection, id=id, data=data))
            session.staged[id] = Expected(record, None, dict(data), ["save"])

    @rule(number=SESSIONS, id=IDS)
    def stage_save(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record, expected = self._to_stage(session, id)
        if expected and expected.calls[-1] != "save":
            return  # unit_of_work/test_staging.py tests a save after a patch
        session.unit.save(record)
        session.staged[id] = Expected(record, record.last_modified, dict(record.data), ["save"])
        self._foresee(session.staged[id])

    @rule(number=SESSIONS, id=IDS, changes=DATA.filter(bool))
    def stage_patch(self, number: int, id: str, changes: Data) -> None:
        session = self.sessions[number]
        record, expected = self._to_stage(session, id)
        if expected and expected.calls[-1] == "delete":
            return
        session.unit.patch(record, changes)
        if expected is None:
            # Where this is not what the session saw last, the patch will be refused.
            seen = self.book[id].data if id in self.book else {}
            expected = session.staged[id] = Expected(record, record.last_modified, dict(seen))
        assert expected.result is not None
        expected.result |= changes
        expected.calls.append("patch")
        self._foresee(expected)

    def _foresee(self, one: Expected) -> None:
        """Where a save is among the calls, the difference is sent: none at all, or a PUT where a key has to go."""
        known = one.record.__kinto_state__().data or {}
        if "save" in one.calls and one.result is not None and not one.record.is_new:
            one.is_sent = not is_same(one.result, known)
            one.is_put = any(key not in one.result for key in known)

    @rule(number=SESSIONS, id=IDS)
    def stage_deletion(self, number: int, id: str) -> None:
        session = self.sessions[number]
        record, _ = self._to_stage(session, id)
        session.unit.delete(record)
        session.staged[id] = Expected(record, record.last_modified, None, ["delete"], is_sent=not record.is_new)

    @rule(number=SESSIONS, calls=st.lists(st.tuples(CALLS, IDS, DATA.filter(bool)), min_size=1, max_size=5))
    def stage_and_commit(self, number: int, calls: list[tuple[Call, str, Data]]) -> None:
        for call, id, changes in calls:
            if call == "patch":
                self.stage_patch(number, id, changes)
            elif call == "delete":
                self.stage_deletion(number, id)
            else:
                self._held(self.sessions[number], id).data.update(changes)
                self.stage_save(number, id)
        self.commit(number)

    def _to_stage(self, session: Session, id: str) -> tuple[Record, Expected | None]:
        """Return the object, and its staged changes, which no longer count where it was loaded again since."""
        staged = session.staged.get(id)
        record = staged.record if staged else self._held(session, id)
        return record, staged if staged and staged.record.last_modified == staged.base else None

    @rule(number=SESSIONS)
    def rollback(self, number: int) -> None:
        self._start_over(self.sessions[number])

    @rule(number=SESSIONS)
    def commit(self, number: int) -> None:
        session = self.sessions[number]
        expected = [(id, one, self._status(id, one)) for id, one in session.staged.items()]
        try:
            outcomes = session.unit.commit()
        except CommitError as error:
            outcomes = error.outcomes
            assert any(status in ("conflict", "gone") for _, _, status in expected)
        assert [one.object for one in outcomes] == [one.record for _, one, _ in expected]
        for outcome, (id, one, status) in zip(outcomes, expected, strict=True):
            assert outcome.status == status, (id, one, outcome)
            if outcome.is_stored:
                self._note_commit(session, id, one)

    def _note_commit(self, session: Session, id: str, one: Expected) -> None:
        del session.staged[id]
        if not one.is_sent:
            return
        if one.result is None:
            del self.book[id]
            session.records.pop(id, None)
        else:
            self._note(id, one.record, one.result)
            session.records[id] = one.record

    def _status(self, id: str, one: Expected) -> str:
        stored = self.book.get(id)
        if not one.is_sent:
            return "unchanged"
        if one.base is None:
            return "created" if stored is None else "conflict"
        if stored is None:
            return "conflict" if one.is_put else "gone"  # Kinto answers 412 to a PUT and 404 to the others
        if stored.last_modified != one.base:
            return "conflict"
        return "deleted" if one.result is None else "updated"

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def the_server_holds_what_the_book_says(self) -> None:
        listed = {one.id: (dict(one.data), one.last_modified) for one in self.collection.records}

        assert listed.keys() == self.book.keys()
        for id, (data, last_modified) in listed.items():
            assert is_same(data, self.book[id].data)
            assert last_modified == self.book[id].last_modified

    @invariant()
    def clean_objects_of_the_latest_state_are_what_the_server_holds(self) -> None:
        for session in self.sessions:
            for id, record in session.records.items():
                if id in self.book and record.last_modified == self.book[id].last_modified and not record.is_dirty:
                    assert is_same(dict(record.data), self.book[id].data)

    def _held(self, session: Session, id: str) -> Record:
        """Return the session's object."""
        if id not in session.records:
            if id in self.book:
                record = session.collection.records.get(id)
            else:
                record = Record(collection=session.collection, id=id, data={"x": 0}).save()
                self._note(id, record, {"x": 0})
            self._hold(session, id, record)
        return session.records[id]

    # -- the book -------------------------------------------------------------------------------------------------

    def _note(self, id: str, record: Record, data: Data) -> None:
        self.book[id] = Stored(dict(data), record.last_modified)

    def _hold(self, session: Session, id: str, record: Record) -> None:
        """Make this Python object the session's object from now on."""
        session.records[id] = record
        if id in session.staged:
            self._start_over(session)

    def _start_over(self, session: Session) -> None:
        session.unit.rollback()
        session.staged.clear()

    def _refused(self, id: str, record: Record, error: ConflictError | NotFoundError) -> None:
        """Only what is stale is refused, and the refusal shows what is there."""
        stored = self.book.get(id)
        assert stored is None or stored.last_modified != record.last_modified
        if isinstance(error, ConflictError):
            assert is_same(error.theirs, stored.data if stored else None)
        else:
            assert stored is None

    def _was_current(self, id: str, record: Record, *, changed: bool) -> bool:
        return id in self.book and (record.last_modified != self.book[id].last_modified) == changed

    def _take(self, way_out: str, id: str, record: Record, error: Exception, wanted: Data) -> None:
        if not isinstance(error, ConflictError) or error.theirs is None:
            return
        if way_out == "reload":
            error.reload()
            assert not record.is_dirty
        elif way_out == "overwrite":
            error.overwrite()
            if is_same(wanted, self.book[id].data):
                return
            self._note(id, record, wanted)


TestTwoSessions = TwoSessions.TestCase

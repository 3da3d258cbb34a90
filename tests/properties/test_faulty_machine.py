"""Two sessions write as they like over networks that lose things: the server holds what they were told, and nothing
that they believe is not there."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from lossy import Fault, LossyAdapter, lossy

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    KintoError,
    NotFoundError,
    Outcome,
    ProtocolError,
    Record,
    ServerError,
    TransportError,
)
from kinto_orm.messages import Request
from kinto_orm.protocol.values import decode, is_same
from kinto_orm.server import EmbeddedServer

Data = dict[str, Any]

IN_DOUBT = (TransportError, ProtocolError, ServerError)
IDS = ["a", "b", "c"]
SESSIONS = st.sampled_from([0, 1])
ONE_ID = st.sampled_from(IDS)
KEYS = st.sampled_from(["x", "y", "deep"])
VALUES = st.one_of(st.integers(0, 3), st.none(), st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 3)))
CHANGES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=2)
POLICIES = st.sampled_from(["raise", "mine", "theirs", "merge", lambda conflict: {"chosen": 1}])
FAULTS: st.SearchStrategy[Fault] = st.sampled_from(
    ["ok", "lost before", "lost after", "502 after", "500 after", "503", "409", "409 inside", "one answer short"]
)
CALLS = st.tuples(ONE_ID, st.sampled_from(["save", "save", "patch", "delete", "create"]), CHANGES)


@dataclass
class Session:
    """A client behind a network of its own, and the objects that it knows."""

    client: Client
    adapter: LossyAdapter
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def todos(self) -> Collection[Record]:
        return self.client.bucket("b").collection("c")


@cache
def setting() -> tuple[EmbeddedServer, Client, list[tuple[Client, LossyAdapter]]]:
    server = EmbeddedServer.memory()
    clean = Client.embedded(server=server)
    networks = [lossy(server, retry_after=0) for _ in range(2)]
    atexit.register(server.close)
    return server, clean, networks


class FaultyNetworks(RuleBasedStateMachine):
    """After each call the server is asked, by a client without faults, whether it holds what the call said."""

    @initialize()
    def start(self) -> None:
        server, self.clean, networks = setting()
        server.flush()
        self.todos = Collection(bucket=Bucket(id="b", client=self.clean).save(), id="c").save()
        self.sessions = [Session(client, adapter) for client, adapter in networks]
        for session in self.sessions:
            session.adapter.plan.clear()
            session.client.server_info()

    # -- what goes wrong ------------------------------------------------------------------------------------------

    @rule(number=SESSIONS, faults=st.lists(FAULTS, min_size=1, max_size=5))
    def break_the_network(self, number: int, faults: list[Fault]) -> None:
        self.sessions[number].adapter.plan.extend(faults)

    @rule(number=SESSIONS)
    def mend_the_network(self, number: int) -> None:
        self.sessions[number].adapter.plan.clear()

    # -- one object -----------------------------------------------------------------------------------------------

    @rule(number=SESSIONS, id=ONE_ID, data=CHANGES)
    def create(self, number: int, id: str, data: Data) -> None:
        session = self.sessions[number]
        record = session.records[id] = Record(collection=session.todos, id=id, data=data)
        self._call(record, id, record.save, dict(data))

    @rule(number=SESSIONS, id=ONE_ID)
    def load(self, number: int, id: str) -> None:
        self._known(self.sessions[number], id)

    @rule(number=SESSIONS, id=ONE_ID, changes=CHANGES)
    def edit(self, number: int, id: str, changes: Data) -> None:
        if record := self._known(self.sessions[number], id):
            record.data.update(changes)

    @rule(number=SESSIONS, id=ONE_ID, key=KEYS, policy=POLICIES)
    def save(self, number: int, id: str, key: str, policy: Any) -> None:
        if record := self._known(self.sessions[number], id):
            record.data.pop(key, None)
            if not record.is_dirty:
                sent = len(self.sessions[number].adapter.sent)
                record.save(on_conflict=policy)
                assert len(self.sessions[number].adapter.sent) == sent
                return
            self._call(record, id, lambda: record.save(on_conflict=policy), dict(record.data), policy)

    @rule(number=SESSIONS, id=ONE_ID, changes=CHANGES)
    def patch(self, number: int, id: str, changes: Data) -> None:
        record = self._known(self.sessions[number], id)
        if record is not None:
            self._call(record, id, lambda: record.patch(changes), {**self._patched(record, id), **changes})

    @rule(number=SESSIONS, id=ONE_ID)
    def delete(self, number: int, id: str) -> None:
        if record := self._known(self.sessions[number], id):
            self._call(record, id, record.delete, None)

    @rule(number=SESSIONS, id=ONE_ID, changes=CHANGES)
    def edit_until_saved(self, number: int, id: str, changes: Data) -> None:
        session = self.sessions[number]
        before = self._stored(id)
        if before is None:
            return

        def work() -> None:
            for attempt in session.todos.records.edit(id):
                with attempt as record:
                    session.records[id] = record
                    record.data.update(changes)

        self._call(None, id, work, {**before, **changes})

    def _call(
        self, record: Record | None, id: str, call: Callable[[], object], wanted: Data | None, policy: Any = "raise"
    ) -> None:
        before, done = self._stored(id), self._history(id)
        try:
            call()
        except IN_DOUBT:
            assert self._is_one_of(self._stored(id), [before, wanted, *self._possible(record, wanted, before, policy)])
            assert self._history(id) <= done + 1
            return
        except (ConflictError, ConcurrentWriteError, NotFoundError):
            assert self._is_one_of(self._stored(id), [before])
            assert self._history(id) == done
            return
        now = self._stored(id)
        if policy == "raise":
            assert self._is_one_of(now, [wanted])
        assert self._history(id) <= done + 1
        if record is not None:
            self._agrees(record, id)

    def _possible(self, record: Record | None, wanted: Data | None, before: Data | None, policy: Any) -> list[Data]:
        """What else a write that goes on top of a conflict may have stored."""
        if callable(policy):
            return [{"chosen": 1}]
        now = self._stored(record.id) if record is not None and record.id is not None else None
        return [now] if policy == "merge" and now is not None else []

    # -- many objects ---------------------------------------------------------------------------------------------

    @rule(
        number=SESSIONS,
        calls=st.lists(CALLS, min_size=1, max_size=4, unique_by=lambda call: call[0]),
        policy=st.sampled_from(["raise", "mine", "merge"]),
        kind=st.sampled_from(["plain", "chunked", "atomic"]),
    )
    def commit(self, number: int, calls: list[tuple[str, str, Data]], policy: Any, kind: str) -> None:
        session = self.sessions[number]
        if kind == "atomic":  # PostgreSQL undoes it as a whole, which the network cannot act
            kept = [fault for fault in session.adapter.plan if fault != "409 inside"]
            session.adapter.plan.clear()
            session.adapter.plan.extend(kept)
        before = {id: self._stored(id) for id in IDS}
        done = {id: self._history(id) for id in IDS}
        wanted: dict[str, Data | None] = {}
        unit = session.client.unit_of_work(atomic=kind == "atomic", chunked=kind == "chunked", on_conflict=policy)
        for id, call, changes in calls:
            self._stage(session, unit, id, call, changes, wanted)
        sent = {one.request["path"].rpartition("/")[2] for one in unit.plan().writes}
        try:
            outcomes = unit.commit()
        except CommitError as error:
            outcomes = error.outcomes
        for outcome in outcomes:
            if outcome.object.id in sent:
                self._check(outcome, before, done, wanted, policy)
        if kind == "atomic" and not any(one.status == "unknown" or one.reconciled for one in outcomes):
            stored = [one.is_stored for one in outcomes]
            assert all(stored) or not any(one.is_stored and one.status != "unchanged" for one in outcomes)
        if any(one.status == "unknown" for one in outcomes):
            session.adapter.plan.clear()
            self._commit_again(unit)

    def _stage(
        self, session: Session, unit: Any, id: str, call: str, changes: Data, wanted: dict[str, Data | None]
    ) -> None:
        record = self._known(session, id)
        if call == "create" or record is None:
            record = session.records[id] = Record(collection=session.todos, id=id, data=changes)
            unit.save(record)
            wanted[id] = dict(changes)
        elif call == "delete":
            unit.delete(record)
            wanted[id] = None
        elif call == "patch":
            wanted[id] = {**self._patched(record, id), **changes}
            unit.patch(record, changes)
        else:
            record.data.update(changes)
            unit.save(record)
            wanted[id] = dict(record.data)

    def _check(
        self, outcome: Outcome[Any], before: dict[str, Any], done: dict[str, int], wanted: dict[str, Any], policy: Any
    ) -> None:
        id = outcome.object.id
        now = self._stored(id)
        assert self._history(id) <= done[id] + 1
        if outcome.is_stored:
            if policy == "raise":
                assert self._is_one_of(now, [wanted[id]])
            self._agrees(outcome.object, id)
        elif outcome.status == "unknown":
            assert policy == "merge" or self._is_one_of(now, [before[id], wanted[id]])
        else:
            assert self._is_one_of(now, [before[id]]), outcome
            assert self._history(id) == done[id]

    def _commit_again(self, unit: Any) -> None:
        """Without faults, a second commit tells of every write what became of it."""
        try:
            outcomes = unit.commit()
        except CommitError as error:
            outcomes = error.outcomes
        for outcome in outcomes:
            assert outcome.status not in ("unknown", "not_sent"), outcome
            if outcome.is_stored:
                self._agrees(outcome.object, outcome.object.id)

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def clean_objects_of_the_latest_state_are_what_the_server_holds(self) -> None:
        listed = {one.id: one for one in self.todos.records}
        for session in self.sessions:
            for id, record in session.records.items():
                if id in listed and record.last_modified == listed[id].last_modified and not record.is_deleted:
                    snapshot = record.__kinto_describe__()[0].data
                    assert is_same(snapshot, dict(listed[id].data))

    def _agrees(self, record: Record, id: str) -> None:
        stored = self.todos.records.get_or_none(id)
        if record.is_deleted:
            assert stored is None
            return
        assert stored is not None
        assert record.last_modified == stored.last_modified
        assert is_same(record.__kinto_describe__()[0].data, dict(stored.data))

    def _known(self, session: Session, id: str) -> Record | None:
        """The object as the session knows it, loaded where it knows none."""
        record = session.records.get(id)
        if record is None or record.is_deleted:
            try:
                record = session.todos.records.get_or_none(id)
            except KintoError:
                return None
            if record is not None:
                session.records[id] = record
        return record

    def _patched(self, record: Record, id: str) -> Data:
        """What a patch is made of: what was seen; of an object that was never stored, whatever is there."""
        seen = record.__kinto_describe__()[0].data
        return (self._stored(id) or {}) if seen is None else seen

    def _stored(self, id: str) -> Data | None:
        record = self.todos.records.get_or_none(id)
        return None if record is None else dict(record.data)

    def _history(self, id: str) -> int:
        request = Request("GET", "/buckets/b/history", query=f"record_id=%22{id}%22")
        answer = self.clean._connection.transport.send(request)
        return len(decode(answer.body, "history")["data"])

    def _is_one_of(self, now: Data | None, possible: list[Data | None]) -> bool:
        return any(now is one if one is None or now is None else is_same(now, one) for one in possible)


TestFaultyNetworks = FaultyNetworks.TestCase
TestFaultyNetworks.settings = settings(stateful_step_count=20)

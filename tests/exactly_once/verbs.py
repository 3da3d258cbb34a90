"""Every public verb that writes, and how the oracle calls it.

A method that is neither in ``VERBS`` nor in ``NOT_WRITING`` fails ``test_every_public_method_is_accounted_for``.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Seen, is_write
from world import ANYTHING, USER, Data, World

from kinto_orm import (
    Account,
    Bucket,
    Collection,
    CommitError,
    ConflictError,
    F,
    Group,
    JSONPatch,
    MergePatch,
    Outcome,
    Record,
    UnitOfWork,
)

RECORDS = "/buckets/b/collections/c/records"
SOMEWHERE = f"{RECORDS}/somewhere"
"""Stands for the path of a record whose id the call draws."""


@dataclass
class Call:
    """A verb, ready to be called, and what the server shall hold afterwards."""

    target: Any
    method: str
    expected: Mapping[str, Data | None]
    """The data by path, without ``id``; ``None`` where nothing is left."""
    holders: Sequence[Any] = ()
    """The Python objects that shall equal what the server holds then."""
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    holders_of: Callable[[Any], Sequence[Any]] = lambda result: ()
    """The objects that the call itself gives."""
    is_right: Callable[[Any], bool] = lambda result: True
    """Whether the call gives what it gives without a fault."""
    lock: str | None = None
    """The path of a collection whose objects may be written more than once, because they say nothing."""
    is_stream: bool = False
    """Whether what it gives has to be iterated."""

    def is_lock(self, path: str) -> bool:
        """Return whether the object is only the lock of a unit of work."""
        return self.lock is not None and path.startswith(self.lock)

    def now(self) -> Any:
        """Call the verb."""
        result = getattr(self.target, self.method)(*self.arguments, **self.keywords)
        return list(result) if self.is_stream else result

    async def later(self) -> Any:
        """Awaits its twin."""
        twin = "async_" if self.method == "sync" else f"a{self.method}"
        result = getattr(self.target, twin)(*self.arguments, **self.keywords)
        return [one async for one in result] if self.is_stream else await result


@dataclass(frozen=True)
class Verb:
    """One way of calling a public method that writes."""

    id: str
    """The method, and the way after a hyphen: ``Record.save-new``."""
    prepare: Callable[[World], Call]
    is_guarded: bool = True
    """Whether what it sends carries a precondition: then it must survive lost answers."""
    is_decidable: bool = True
    """Whether a 412 tells if the write was our own; else a typed error is as good as success."""
    meets: Callable[[Seen], bool] = is_write
    """Which of its requests meet the faults."""
    looks_first: bool = False
    """Whether the server takes no precondition there, so that after a lost answer the object is read before anything
    is sent again: one fault is enough to know, and nothing is sent again without knowing."""

    @property
    def method(self) -> str:
        """The public method: ``Record.save``."""
        return self.id.partition("-")[0]


def path(id: str) -> str:
    """Return the path of a record."""
    return f"{RECORDS}/{id}"


def call(holder: Any, method: str, expected: Data | None, *arguments: Any, **keywords: Any) -> Call:
    """Return a verb of an object that has its id already."""
    return Call(holder, method, {str(holder.__kinto_path__()): expected}, (holder,), arguments, keywords)


def new_account(world: World) -> Call:
    """Anybody creates one: the user of the world becomes an account."""
    world.client = world.client.clone(auth=None)
    account = Account(id=USER[0], password=USER[1], client=world.client)
    return Call(account, "save", {str(account.__kinto_path__()): {}})


def load_account(world: World) -> Account:
    """Return the account of the world's user, loaded by the client behind the proxy."""
    data = {"password": USER[1], "name": "Alexis"}
    Account(id=USER[0], data=data, client=world.direct.clone(auth=None)).save()
    return world.client.accounts.get(USER[0])


def changed_account(world: World) -> Call:
    account = load_account(world)
    account.data["name"] = "Bob"
    return call(account, "save", {"name": "Bob"})


def replaced_account(world: World) -> Call:
    account = load_account(world)
    account.data["name"], account.password = "Bob", USER[1]
    return call(account, "replace", {"name": "Bob"})


ACCOUNT_VERBS = [
    # No answer shows whether a password is stored, and a user who deleted their account can no longer ask.
    Verb("Account.save-new", new_account, is_decidable=False),
    Verb("Account.save-changed", changed_account),
    Verb("Account.replace", replaced_account, is_decidable=False),
    Verb("Account.patch", lambda world: call(load_account(world), "patch", {"name": "Bob"}, name="Bob")),
    Verb("Account.delete", lambda world: call(load_account(world), "delete", None), is_decidable=False),
]


def is_patch(seen: Seen) -> bool:
    return seen.method == "PATCH"


def is_batch(seen: Seen) -> bool:
    return seen.path.endswith("/batch")


# -- objects ------------------------------------------------------------------------------------------------------


def new_record(world: World, **keywords: Any) -> Record:
    return Record(collection=world.collection, id="r", data={"n": 1, "deep": {"x": [1, None]}}, **keywords)


NEW: Data = {"n": 1, "deep": {"x": [1, None]}}
OLD: Data = {"n": 1, "kept": "as it is", "gone": True}


def changed(world: World, **changes: Any) -> tuple[Record, Data]:
    record = world.load("r", OLD)
    record.data.update(changes)
    return record, {**OLD, **changes}


def save_changed(world: World) -> Call:
    record, expected = changed(world, n=2)
    return call(record, "save", expected)


def save_with_a_key_removed(world: World) -> Call:
    record, _ = changed(world, n=2)
    del record.data["gone"]
    return call(record, "save", {"n": 2, "kept": "as it is"})


def save_permissions(world: World) -> Call:
    record = world.load("r", OLD)
    record.permissions.add("read", "system.Everyone")
    return call(record, "save", OLD)


def save_new_with_permissions(world: World) -> Call:
    return call(new_record(world, permissions={"read": ["system.Everyone"]}), "save", NEW)


def save_over_a_tombstone(world: World) -> Call:
    world.load("r", OLD).delete()
    return call(new_record(world), "save", NEW)


def save_of_a_drawn_id(world: World) -> Call:
    record = Record(collection=world.collection, data=NEW)
    return Call(record, "save", {SOMEWHERE: NEW}, (record,))


def save_numbers(world: World) -> Call:
    """Kinto gives some floats back that are not quite the ones sent: they are still ours."""
    numbers = {"whole": 1e22, "zero": -0.0, "many": [n / 7 * 1e-5 for n in range(1, 40)]}
    record = Record(collection=world.collection, id="r", data=numbers)
    return call(record, "save", numbers)


def save_under_a_schema(world: World) -> Call:
    """Save a record of a collection with a schema, to which the server adds a key."""
    collection = world.records.refresh()
    collection.schema_ = {"properties": {"n": {"type": "integer"}}}
    collection.save()
    return call(new_record(world), "save", {**NEW, "schema": collection.last_modified})


def replace_loaded(world: World, **keywords: Any) -> Call:
    record = world.load("r", OLD)
    record.data = NEW
    return call(record, "replace", NEW, **keywords)


def patch_loaded(world: World, *arguments: Any, expected: Data, **keywords: Any) -> Call:
    return call(world.load("r", OLD), "patch", expected, *arguments, **keywords)


def patch_reference(world: World) -> Call:
    world.load("r", OLD)
    return call(Record(collection=world.collection, id="r"), "patch", {**OLD, "n": 2}, n=2)


def delete_loaded(world: World, **keywords: Any) -> Call:
    return call(world.load("r", OLD), "delete", None, **keywords)


def delete_reference(world: World) -> Call:
    world.load("r", OLD)
    return call(Record(collection=world.collection, id="r"), "delete", None)


def outdated(world: World) -> tuple[Record, Data]:
    """Return a record that was changed here and on the server, and the merge of both changes."""
    record, expected = changed(world, n=2)
    world.records.records.get("r").patch(kept="changed")
    return record, {**expected, "kept": "changed"}


def save_merged(world: World) -> Call:
    record, expected = outdated(world)
    return call(record, "save", expected, on_conflict="merge")


def settle_conflict(world: World, method: str, **theirs: Any) -> Call:
    record, expected = outdated(world)
    with pytest.raises(ConflictError) as failed:
        record.save()
    return Call(failed.value, method, {path("r"): {**expected, **theirs}}, (record,))


RECORD_VERBS = [
    Verb("Record.save-new", lambda world: call(new_record(world), "save", NEW)),
    Verb("Record.save-new-with-permissions", save_new_with_permissions),
    Verb("Record.save-over-a-tombstone", save_over_a_tombstone),
    Verb("Record.save-drawn-id", save_of_a_drawn_id),
    Verb("Record.save-numbers", save_numbers),
    Verb("Record.save-under-a-schema", save_under_a_schema),
    Verb("Record.save-if-not-exists", lambda world: call(new_record(world), "save", NEW, if_not_exists=True)),
    Verb("Record.save-changed", save_changed),
    Verb("Record.save-key-removed", save_with_a_key_removed),
    Verb("Record.save-permissions", save_permissions),
    Verb("Record.save-forced", lambda world: call(new_record(world), "save", NEW, safe=False), is_guarded=False),
    Verb("Record.replace-new", lambda world: call(new_record(world), "replace", NEW)),
    Verb("Record.replace-loaded", replace_loaded),
    Verb("Record.replace-forced", lambda world: replace_loaded(world, safe=False), is_guarded=False),
    Verb("Record.patch-values", lambda world: patch_loaded(world, n=2, expected={**OLD, "n": 2})),
    Verb(
        "Record.patch-merge",
        lambda world: patch_loaded(world, MergePatch({"gone": None}), expected={"n": 1, "kept": "as it is"}),
    ),
    Verb(
        "Record.patch-json",
        lambda world: patch_loaded(
            world,
            JSONPatch([{"op": "add", "path": "/data/list", "value": [1]}, {"op": "remove", "path": "/data/gone"}]),
            expected={"n": 1, "kept": "as it is", "list": [1]},
        ),
        is_decidable=False,
    ),
    Verb(
        "Record.patch-forced",
        lambda world: patch_loaded(world, n=2, safe=False, expected={**OLD, "n": 2}),
        is_guarded=False,
    ),
    Verb("Record.patch-reference", patch_reference, is_guarded=False),
    Verb("Record.delete-loaded", delete_loaded),
    Verb("Record.delete-if-exists", lambda world: delete_loaded(world, if_exists=True)),
    Verb("Record.delete-forced", lambda world: delete_loaded(world, safe=False), is_guarded=False),
    Verb("Record.delete-reference", delete_reference, is_guarded=False),
    Verb("Record.save-merged", save_merged),
    Verb("ConflictError.overwrite", lambda world: settle_conflict(world, "overwrite", kept=OLD["kept"])),
    Verb("ConflictError.merge", lambda world: settle_conflict(world, "merge")),
]


# -- the other kinds ----------------------------------------------------------------------------------------------


def another(world: World, kind: type[Any]) -> tuple[Any, Data]:
    """Return a new object of that kind, and its data."""
    if kind is Bucket:
        return Bucket(client=world.client, id="x", data={"n": 1}), {"n": 1}
    if kind is Group:
        return Group(bucket=world.bucket, id="x", members=["account:bob"]), {"members": ["account:bob"]}
    return Collection(bucket=world.bucket, id="x", data={"sort": "n"}), {"sort": "n"}


def existing(world: World, kind: type[Any]) -> tuple[Any, Data]:
    """Return an object of that kind that the server has, and its data."""
    new, data = another(world, kind)
    return new.save(), data


def save_another(kind: type[Any]) -> Callable[[World], Call]:
    def prepare(world: World) -> Call:
        new, data = another(world, kind)
        return call(new, "save", data)

    return prepare


def edit(kind: type[Any], method: str, **changes: Any) -> Callable[[World], Call]:
    def prepare(world: World) -> Call:
        old, data = existing(world, kind)
        old.data.update(changes)
        return call(old, method, {**data, **changes})

    return prepare


def patch_existing(kind: type[Any]) -> Callable[[World], Call]:
    def prepare(world: World) -> Call:
        old, data = existing(world, kind)
        return call(old, "patch", {**data, "title": "new"}, title="new")

    return prepare


def delete_existing(kind: type[Any]) -> Callable[[World], Call]:
    return lambda world: call(existing(world, kind)[0], "delete", None)


KIND_VERBS = [
    verb
    for kind in (Bucket, Group, Collection)
    for verb in (
        Verb(f"{kind.__name__}.save-new", save_another(kind)),
        Verb(f"{kind.__name__}.save-changed", edit(kind, "save", title="new")),
        Verb(f"{kind.__name__}.replace", edit(kind, "replace", title="new")),
        Verb(f"{kind.__name__}.patch", patch_existing(kind)),
        Verb(f"{kind.__name__}.delete", delete_existing(kind)),
    )
]


# -- managers and queries -----------------------------------------------------------------------------------------


def create(world: World) -> Call:
    return Call(
        world.collection.records,
        "create",
        {SOMEWHERE: NEW},
        keywords={"data": NEW},
        holders_of=lambda result: [result],
    )


def get_or_create(world: World, method: str = "get_or_create") -> Call:
    return Call(
        world.collection.records,
        method,
        {path("r"): NEW},
        arguments=("r", NEW),
        holders_of=lambda result: [result[0]],
        is_right=lambda result: result[1] is True,
    )


def get_existing(world: World) -> Call:
    world.load("r", OLD)
    return Call(
        world.collection.records,
        "get_or_create",
        {path("r"): OLD},
        arguments=("r", NEW),
        holders_of=lambda result: [result[0]],
        is_right=lambda result: result[1] is False,
    )


def update_existing(world: World) -> Call:
    world.load("r", OLD)
    return Call(
        world.collection.records,
        "update_or_create",
        {path("r"): {**OLD, "n": 2}},
        arguments=("r", {"n": 2}),
        holders_of=lambda result: [result[0]],
        is_right=lambda result: result[1] is False,
    )


def three(world: World) -> dict[str, Record]:
    return {id: world.load(id, {**OLD, "id_": id}) for id in ("r1", "r2", "r3")}


def bulk(method: str, objects: Sequence[Record], expected: Mapping[str, Data | None], **counts: int) -> Call:
    target = objects[0].collection.records
    return Call(target, method, expected, objects, (objects,), is_right=lambda report: has_counts(report, counts))


def has_counts(report: Any, counts: Mapping[str, int]) -> bool:
    return not report.failed and {name: getattr(report, name) for name in counts} == counts


def bulk_create(world: World) -> Call:
    records = [Record(collection=world.collection, id=f"r{n}", data={"n": n}) for n in range(3)]
    return bulk("bulk_create", records, {path(f"r{n}"): {"n": n} for n in range(3)}, created=3)


def bulk_update(world: World) -> Call:
    records = three(world)
    for record in records.values():
        record.data["n"] = 2
    expected = {path(id): {**OLD, "id_": id, "n": 2} for id in records}
    return bulk("bulk_update", list(records.values()), expected, updated=3)


def bulk_delete(world: World) -> Call:
    records = three(world)
    return bulk("bulk_delete", list(records.values()), dict.fromkeys(map(path, records)), deleted=3)


def by_collection(prepare: Callable[[World], Call]) -> Callable[[World], Call]:
    """Return the same by the client, which writes several collections at once."""

    def prepared(world: World) -> Call:
        call = prepare(world)
        (records,) = call.arguments
        is_right, collection = call.is_right, records[0].collection
        call.target, call.arguments = world.client, ({collection: records},)
        call.is_right = lambda reports: is_right(reports[collection])
        return call

    return prepared


def stream(prepare: Callable[[World], Call]) -> Callable[[World], Call]:
    """Return the same as a bulk verb, by outcomes that are iterated."""

    def prepared(world: World) -> Call:
        call = prepare(world)
        call.method, call.is_stream = call.method.replace("bulk", "stream"), True
        call.is_right = lambda outcomes: len(outcomes) == 3 and all(one.is_stored for one in outcomes)
        return call

    return prepared


class Edit:
    """A loop of attempts to change a record."""

    def __init__(self, world: World) -> None:
        self._attempts = world.collection.records.edit("r")

    def run(self) -> Record:
        for attempt in self._attempts:
            with attempt as record:
                record.data["n"] = 2
        return record

    async def arun(self) -> Record:
        async for attempt in self._attempts:
            async with attempt as record:
                record.data["n"] = 2
        return record


def edit_record(world: World) -> Call:
    world.load("r", OLD)
    return Call(Edit(world), "run", {path("r"): {**OLD, "n": 2}}, holders_of=lambda result: [result])


def update_query(world: World) -> Call:
    expected = {path(id): {**OLD, "id_": id, "n": 2} for id in three(world)}
    return Call(
        world.collection.records.filter(n=1),
        "update",
        expected,
        keywords={"n": 2},
        is_right=lambda report: has_counts(report, {"updated": 3}),
    )


def update_with_state(world: World) -> Call:
    call = update_query(world)
    folder = Path(tempfile.mkdtemp())
    call.arguments, call.keywords = (
        (lambda record: record.data.update(n=record.data["n"] + 1),),
        {"state": folder / "s"},
    )
    return call


def delete_query(world: World) -> Call:
    expected = dict.fromkeys(map(path, three(world)))
    return Call(world.collection.records.filter(n=1), "delete", expected, is_right=lambda count: count == 3)


SYNCED: Mapping[str, Data | None] = {
    path("new"): NEW,
    path("r1"): {**OLD, "id_": "r1", "n": 2},
    path("r3"): None,
}


def rows_to_sync(world: World) -> list[Data]:
    """Return the rows that lead to ``SYNCED``: of three records, one must change, one is equal, one is missing."""
    three(world)
    return [{**NEW, "id": "new"}, {**OLD, "id_": "r1", "n": 2, "id": "r1"}, {**OLD, "id_": "r2", "id": "r2"}]


def sync(world: World) -> Call:
    rows = rows_to_sync(world)
    counts = {"created": 1, "updated": 1, "deleted": 1, "unchanged": 1}
    return Call(
        world.collection.records,
        "sync",
        SYNCED,
        arguments=(rows,),
        keywords={"delete": True},
        is_right=lambda report: has_counts(report, counts),
    )


def apply_plan(world: World) -> Call:
    plan = world.collection.records.plan(rows_to_sync(world), delete=True)
    counts = {"created": 1, "updated": 1, "deleted": 1, "unchanged": 1}
    return Call(plan, "apply", SYNCED, is_right=lambda report: has_counts(report, counts))


FILE = b"hello, world"


def with_file(data: Data, content: bytes = FILE) -> Data:
    said = {"filename": "a.txt", "hash": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return {**data, "attachment": {**said, "mimetype": "text/plain", "location": ANYTHING}}


def attach(record: Record, expected: Data) -> Call:
    call = Call(record.collection.records, "attach", {}, (record,), (record, FILE), {"filename": "a.txt"})
    call.expected = {str(record.__kinto_path__(draw=True)): with_file(expected)}
    return call


def attach_another(world: World) -> Call:
    record = world.load("r", OLD)
    world.records.records.attach(record, b"the old one", filename="old.txt")
    return attach(world.collection.records.get("r"), OLD)


def detach(world: World) -> Call:
    record = world.load("r", OLD)
    world.records.records.attach(record, FILE, filename="a.txt")
    loaded = world.collection.records.get("r")
    return Call(loaded.collection.records, "detach", {path("r"): {**OLD, "attachment": None}}, (loaded,), (loaded,))


def revert(world: World, *, deletes: bool = False) -> Call:
    record = world.load("r", OLD)
    before = record.last_modified
    if deletes:
        record.delete()
    else:
        record.patch(n=2)
    return Call(world.collection.records, "revert", {path("r"): OLD}, (record,), (record,), {"to": before})


def revert_id(world: World) -> Call:
    before = world.load("r", OLD).last_modified
    world.records.records.get("r").delete()
    return Call(
        world.collection.records,
        "revert",
        {path("r"): OLD},
        arguments=("r",),
        keywords={"to": before},
        holders_of=lambda result: [result],
    )


def purge(world: World) -> Call:
    world.load("r", OLD)
    history = world.bucket.history.filter(record_id="r")
    return Call(history, "purge", {path("r"): OLD}, is_right=lambda count: count == 1)


LIST_VERBS = [
    Verb("RecordManager.attach", lambda world: attach(world.load("r", OLD), OLD), looks_first=True),
    Verb("RecordManager.attach-new", lambda world: attach(new_record(world), NEW), looks_first=True),
    Verb("RecordManager.attach-another", attach_another, looks_first=True),
    Verb("RecordManager.detach", detach, looks_first=True),
    Verb("Manager.create", create),
    Verb("Manager.get_or_create-new", get_or_create),
    Verb("Manager.get_or_create-existing", get_existing),
    Verb("Manager.update_or_create-new", lambda world: get_or_create(world, "update_or_create")),
    Verb("Manager.update_or_create-existing", update_existing),
    Verb("Manager.update_or_create-second-request", update_existing, meets=is_patch),
    Verb("Manager.bulk_create", bulk_create),
    Verb("Manager.bulk_update", bulk_update),
    Verb("Manager.bulk_delete", bulk_delete),
    Verb("Manager.stream_create", stream(bulk_create)),
    Verb("Manager.stream_update", stream(bulk_update)),
    Verb("Manager.stream_delete", stream(bulk_delete)),
    Verb("Manager.edit", edit_record),
    Verb("Query.update", update_query),
    Verb("Query.update-with-state", update_with_state),
    Verb("Query.delete", delete_query, is_guarded=False),
    Verb("RecordManager.sync", sync),
    Verb("SyncPlan.apply", apply_plan),
    Verb("Manager.revert-changed", revert),
    Verb("Manager.revert-deleted", lambda world: revert(world, deletes=True)),
    Verb("Manager.revert-deleted-id", revert_id),
    Verb("History.purge", purge, is_guarded=False),
]


# -- units of work, and whole set-ups -----------------------------------------------------------------------------


class Block:
    """A unit of work as a ``with`` block, which commits when it is left."""

    def __init__(self, world: World) -> None:
        self.unit = world.client.unit_of_work()
        self.records, self._stage = four(world)

    def run(self) -> Sequence[Outcome[Any]]:
        with self.unit:
            self._stage(self.unit)
        return self.unit.outcomes

    async def arun(self) -> Sequence[Outcome[Any]]:
        async with self.unit:
            self._stage(self.unit)
        return self.unit.outcomes


STAGED: Mapping[str, Data | None] = {
    path("new"): NEW,
    path("r1"): {**OLD, "id_": "r1", "n": 2},
    path("r2"): {"n": 1, "kept": "as it is", "id_": "r2"},
    path("r3"): None,
}
STATUSES = ["created", "updated", "updated", "deleted"]


def four(world: World) -> tuple[list[Record], Callable[..., None]]:
    """One record to create, one to patch, one to save with a key removed, one to delete; and what stages that."""
    new, old = Record(collection=world.collection, id="new", data=NEW), three(world)

    def stage(unit: UnitOfWork, **keywords: Any) -> None:
        unit.save(new, **keywords)
        unit.patch(old["r1"], n=2, **keywords)
        del old["r2"].data["gone"]
        unit.save(old["r2"])
        unit.delete(old["r3"], **keywords)

    return [new, *old.values()], stage


def have_statuses(outcomes: Sequence[Any]) -> bool:
    return [one.status for one in outcomes] == STATUSES


def commit(world: World, *, lock: str | None = None, **keywords: Any) -> Call:
    unit = world.client.unit_of_work(lock=lock)
    records, stage = four(world)
    stage(unit, **keywords)
    return Call(unit, "commit", STAGED, records, is_right=have_statuses, lock="/buckets/b/collections/lock-l")


def commit_in_block(world: World) -> Call:
    block = Block(world)
    return Call(block, "run", STAGED, block.records, is_right=have_statuses)


def commit_in_chunks(world: World) -> Call:
    """Two batches; the faults meet the first one."""
    unit = world.client.unit_of_work(chunked=True)
    records = [Record(collection=world.collection, id=f"r{n}", data={"n": n}) for n in range(26)]
    for record in records:
        unit.save(record)
    return Call(unit, "commit", {path(f"r{n}"): {"n": n} for n in range(26)}, records)


def compensate(world: World) -> Call:
    unit = world.client.unit_of_work()
    (new, *old), stage = four(world)
    stage(unit)
    world.records.records.get("r3").patch(n=3)  # so that it cannot be deleted, and the others are to be undone
    with pytest.raises(CommitError) as failed:
        unit.commit()
    before = {path(id): {**OLD, "id_": id} for id in ("r1", "r2")}
    return Call(failed.value, "compensate", {path("new"): None, **before}, (new, *old[:2]), is_right=are_undone)


def are_undone(outcomes: Sequence[Any]) -> bool:
    return [one.status for one in outcomes] == ["updated", "updated", "deleted"]


TREE: Mapping[str, Data | None] = {
    "/buckets/x": {"n": 1},
    "/buckets/x/groups/staff": {"members": ["account:bob"]},
    "/buckets/x/collections/c": {"sort": "n"},
    "/buckets/x/collections/c/records/r": NEW,
}


def tree(world: World) -> list[Any]:
    """Return a new bucket with all kinds of objects below it, parents first."""
    bucket = Bucket(client=world.client, id="x", data={"n": 1})
    group = Group(bucket=bucket, id="staff", members=["account:bob"])
    collection = Collection(bucket=bucket, id="c", data={"sort": "n"})
    return [bucket, group, collection, Record(collection=collection, id="r", data=NEW)]


def commit_tree(world: World) -> Call:
    unit, objects = world.client.unit_of_work(), tree(world)
    for one in objects:
        unit.save(one)
    return Call(unit, "commit", TREE, objects)


def commit_loaded(world: World) -> Call:
    """Commit an object that ``uow.get()`` returned and the block changed, without staging it."""
    world.load("r", OLD)
    unit = world.client.unit_of_work()
    record = unit.get(world.collection.records, "r")
    record.data["n"] = 2
    return Call(unit, "commit", {path("r"): {**OLD, "n": 2}}, (record,))


def ensure(world: World) -> Call:
    objects = tree(world)
    return Call(world.client, "ensure", TREE, objects, tuple(objects))


def ensure_more(world: World) -> Call:
    world.load("r", OLD)
    record = Record(collection=world.collection, id="r", data={"n": 2})
    return Call(world.client, "ensure", {path("r"): {**OLD, "n": 2}}, (record,), (record,))


def load_dump(world: World) -> Call:
    """Return a dump of two records, of which one is on the server with other data."""
    source = Bucket(id="source", client=world.direct).save()
    records = Collection(bucket=source, id="c").save().records
    records.bulk_create([{"id": "r", "n": 2}, {"id": "new", "n": 1}])
    source.dump(world.folder, horizon=0)
    world.load("r", OLD)
    expected = {path("r"): {"n": 2}, path("new"): {"n": 1}}
    return Call(world.client, "load", expected, (), (world.folder,), {"bucket": "b"})


def copy_bucket(world: World) -> Call:
    source = Bucket(id="source", client=world.direct).save()
    Collection(bucket=source, id="c").save().records.create(id="new", data={"n": 1})
    keywords = {"bucket": "b", "horizon": 0}
    return Call(source, "copy_to", {path("new"): {"n": 1}}, (), (world.client,), keywords)


def flush(world: World) -> Call:
    world.load("r", OLD)
    paths = ("/buckets/b", "/buckets/b/collections/c", path("r"))
    return Call(world.client, "flush", dict.fromkeys(paths), keywords={"everything": True})


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def push_schema(world: World) -> Call:
    collection = world.bucket.collections.get("c")
    diff = collection.schema_diff(SCHEMA)
    return Call(diff, "push", {"/buckets/b/collections/c": {"schema": SCHEMA}}, (collection,))


def ensure_schema(world: World) -> Call:
    class Todo(Record, bucket="b", collection="c"):
        n: int

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return Call(world.client, "ensure", {"/buckets/b/collections/c": {"schema": schema}}, (), (Todo,), {"schema": True})


UNIT_VERBS = [
    Verb("UnitOfWork.commit", commit),
    Verb("UnitOfWork.commit-tree", commit_tree),
    Verb("UnitOfWork.commit-loaded", commit_loaded),
    Verb("UnitOfWork.commit-forced", lambda world: commit(world, safe=False), is_guarded=False),
    Verb("UnitOfWork.commit-locked", lambda world: commit(world, lock="l"), meets=is_batch),
    Verb("UnitOfWork.commit-chunks", commit_in_chunks),
    Verb("UnitOfWork.__exit__", commit_in_block),
    Verb("CommitError.compensate", compensate),
    Verb("Client.bulk_create", by_collection(bulk_create)),
    Verb("Client.bulk_update", by_collection(bulk_update)),
    Verb("Client.bulk_delete", by_collection(bulk_delete)),
    Verb("Client.ensure-new", ensure),
    Verb("Client.ensure-existing", ensure_more),
    Verb("Client.ensure-schema", ensure_schema),
    Verb("SchemaDiff.push", push_schema),
    Verb("Client.load", load_dump),
    Verb("Bucket.copy_to", copy_bucket),
    Verb("Client.flush", flush, is_guarded=False),
]

# -- reviews ------------------------------------------------------------------------------------------------------


def under_review(world: World, status: str) -> Collection[Record]:
    """Return a collection with changes, for a user who may do everything; another user asked for its review."""
    editor = world.direct.clone(auth=("editor", "secret"))
    users = [one.server_info(refresh=True)["user"]["id"] for one in (editor, world.direct)]
    Bucket(id="workspace", client=world.direct, permissions={"write": users}).save()
    for group in ("c-editors", "c-reviewers"):
        Group(bucket=world.direct.bucket("workspace"), id=group, members=users).save()
    collection = Collection(bucket=editor.bucket("workspace"), id="c").save()
    collection.records.create(id="r")
    if status == "to-review":
        collection.request_review("please")
    return world.client.bucket("workspace").collections.get("c")


def step(method: str, status: str, *arguments: str, before: str, **changes: Any) -> Callable[[World], Call]:
    """Return a step of a review, and the collection's data after it."""

    def prepare(world: World) -> Call:
        collection = under_review(world, before)
        expected = {**dict.fromkeys(collection.data, ANYTHING), "status": status, **changes}
        return call(collection, method, expected, *arguments)

    return prepare


REVIEW_VERBS = [
    Verb(
        "Collection.request_review",
        step(
            "request_review",
            "to-review",
            "please",
            before="work-in-progress",
            last_editor_comment="please",
            last_review_request_by=ANYTHING,
        ),
        looks_first=True,
    ),
    Verb(
        "Collection.approve",
        step("approve", "signed", before="to-review", last_review_by=ANYTHING),
        looks_first=True,
    ),
    Verb(
        "Collection.decline",
        step("decline", "work-in-progress", "no", before="to-review", last_reviewer_comment="no"),
        looks_first=True,
    ),
    Verb(
        "Collection.rollback",
        step("rollback", "signed", "no", before="to-review"),
        looks_first=True,
    ),
    Verb("Collection.refresh_signature", step("refresh_signature", "to-review", before="to-review"), looks_first=True),
]

VERBS = [*ACCOUNT_VERBS, *RECORD_VERBS, *KIND_VERBS, *LIST_VERBS, *UNIT_VERBS, *REVIEW_VERBS]


# -- the rest -----------------------------------------------------------------------------------------------------

STAGES = "stages the verb of the object, which is called here directly; commit() sends it"
REFINES = "gives another query and asks nothing"
READS = "reads; see READS below"
MOVES = "moves the flows of all the other verbs, so it is called with each of them"
LOCAL = "asks nothing"

NOT_WRITING: Mapping[str, str] = {
    "Account.refresh": READS,
    **{
        f"{kind}.{name}": LOCAL
        for kind in ("Account", "Bucket", "Group", "Collection", "Record")
        for name in ("model_construct", "model_copy", "to_dict")
    },
    "Client.account": LOCAL,
    **dict.fromkeys(("BearerTokenAuth.reveal", "Manager.ref"), LOCAL),
    **dict.fromkeys(("BrowserOAuth.renew", "FxaAuth.renew"), LOCAL),
    **{f"{kind}.refresh": READS for kind in ("Bucket", "Group", "Collection", "Record")},
    **{f"Bucket.{name}": LOCAL for name in ("collection", "group")},
    **{f"Query.{name}": REFINES for name in ("before", "exclude", "filter", "limit", "only", "order_by", "page_size")},
    "Query.since": REFINES,
    "Query.cached": REFINES,
    "Query.consistent": READS,
    **{f"CachedQuery.{name}": READS for name in ("all", "count", "exists", "first", "get", "one")},
    "Query.parallel": REFINES,
    "Query.partitions": READS,
    **{f"Query.to_{name}": READS for name in ("arrow", "pandas", "polars")},
    "ParallelQuery.pages": READS,
    "Partition.on": LOCAL,
    "Partition.read": READS,
    **{f"Query.{name}": READS for name in ("all", "count", "exists", "first", "get", "get_many", "get_or_none", "one")},
    **{f"Query.{name}": READS for name in ("pages", "timestamp", "values")},
    **{f"Manager.{name}": LOCAL for name in ("as_of", "history")},
    **{f"EntryQuery.{name}": REFINES for name in ("filter", "limit", "page_size")},
    **{f"EntryQuery.{name}": READS for name in ("all", "count", "exists", "first")},
    **{f"History.{name}": REFINES for name in ("before", "since")},
    "History.timestamp": READS,
    **{f"Snapshot.{name}": READS for name in ("all", "count", "get")},
    "Client.server_info": READS,
    **{f"Client.{name}": READS for name in ("heartbeat", "monitor_changes", "personal_bucket", "version")},
    "Bucket.dump": READS,
    "Collection.changeset": READS,
    "Collection.model_source": READS,
    **dict.fromkeys(("PlannedChange.as_json", "PlannedChange.differences", "SchemaDiff.differences"), LOCAL),
    "Collection.publication": LOCAL,
    "Client.run": MOVES,
    **{f"Client.{name}": LOCAL for name in ("bind", "bucket", "clone", "close", "embedded", "get_endpoint")},
    **{f"Client.{name}": LOCAL for name in ("gather", "unit_of_work")},
    **{f"Client.{name}": LOCAL for name in ("clear_plan", "plan")},
    "Plan.as_json": LOCAL,
    **{f"Gathering.{name}": READS for name in ("count", "exists", "get", "get_or_none", "timestamp")},
    **{f"UnitOfWork.{name}": STAGES for name in ("delete", "patch", "replace", "save")},
    **{f"UnitOfWork.{name}": LOCAL for name in ("plan", "rollback")},
    "UnitOfWork.get": READS,
    "ConflictError.reload": LOCAL,
    **{f"Permissions.{name}": LOCAL for name in ("add", "assign", "remove")},
    "BulkReport.add": LOCAL,
    **{f"RecordManager.{name}": LOCAL for name in ("attachment", "unsaved")},
    **{f"RecordManager.{name}": READS for name in ("diff", "plan")},
    **{f"SyncPlan.{name}": LOCAL for name in ("as_json", "save")},
    "Client.load_plan": LOCAL,
    "RecordManager.changes": READS,
    "RecordManager.watch": READS,
    "FeedLostError.reconcile": READS,
    "Collection.schema_diff": READS,
    **{f"SchemaDiff.{name}": READS for name in ("pending", "violations")},
    "RecordManager.download": READS,
    "Attachment.url": LOCAL,
}
"""Public methods that send no write, and why."""


# -- reads --------------------------------------------------------------------------------------------------------


def read(method: str, *arguments: Any, **keywords: Any) -> Callable[[World], Call]:
    def prepare(world: World) -> Call:
        world.load("r", OLD)
        return Call(world.collection.records, method, {path("r"): OLD}, (), arguments, keywords)

    return prepare


def refresh(world: World) -> Call:
    record = world.load("r", OLD)
    world.records.records.get("r").patch(n=2)
    return call(record, "refresh", {**OLD, "n": 2})


def everything(seen: Seen) -> bool:
    return True


def get_filtered(world: World) -> Call:
    world.load("r", OLD)
    return Call(
        world.collection.records.filter(F("n") >= 1), "all", {path("r"): OLD}, is_right=lambda found: len(found) == 1
    )


def read_history(world: World) -> Call:
    world.load("r", OLD)
    history = world.collection.records.history("r")
    return Call(history, "all", {path("r"): OLD}, is_right=lambda found: [one.action for one in found] == ["create"])


def read_snapshot(world: World) -> Call:
    before = world.load("r", OLD).last_modified
    world.records.records.get("r").patch(n=2)
    snapshot = world.collection.records.as_of(before or 0)
    expected = {path("r"): {**OLD, "n": 2}}
    return Call(snapshot, "all", expected, is_right=lambda found: [dict(one.data) for one in found] == [OLD])


class Reads:
    """A block whose reads travel in one batch."""

    def __init__(self, world: World) -> None:
        self._records, self._client = world.collection.records, world.client

    def run(self) -> Record:
        with self._client.gather() as reads:
            found = reads.get(self._records, "r")
        return found.value

    async def arun(self) -> Record:
        async with self._client.gather() as reads:
            found = reads.get(self._records, "r")
        return found.value


def gather(world: World) -> Call:
    world.load("r", OLD)
    return Call(Reads(world), "run", {path("r"): OLD}, holders_of=lambda result: [result])


def server_info(world: World) -> Call:
    return Call(world.client, "server_info", {}, keywords={"refresh": True})


READ_VERBS = [
    Verb("Record.refresh", refresh, meets=everything),
    Verb("Query.get", read("get", "r"), meets=everything),
    Verb("Query.all", get_filtered, meets=everything),
    Verb("Query.count", read("count"), meets=everything),
    Verb("Query.timestamp", read("timestamp"), meets=everything),
    Verb("EntryQuery.all", read_history, meets=everything),
    Verb("Snapshot.all", read_snapshot, meets=everything),
    Verb(
        "Client.server_info",
        lambda world: Call(world.client, "server_info", {}, keywords={"refresh": True}),
        meets=everything,
    ),
]

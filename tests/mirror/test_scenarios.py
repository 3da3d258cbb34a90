"""The groups of kinto.js' integration scenarios whose feature exists here, by their names.

Left out: transformers and ``idSchema`` (models validate and encode), and the end of life (the client warns of it).
``CLIENT_WINS`` and ``SERVER_WINS`` are ``on_conflict="mine"`` and ``"theirs"``: both merge what does not clash.
https://github.com/Kinto/kinto.js
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kinto_orm import Collection, Record, ServerResetError

from .conftest import Device, remote

Prepare = Callable[[Device, Collection[Record]], None]


class Scenario(NamedTuple):
    """What happens before a sync, the sync, and what is so afterwards."""

    name: str
    prepare: Prepare
    options: Mapping[str, Any] = {}
    ok: bool = True
    pulled: str = ""
    """The ids, one letter each."""
    pushed: str = ""
    conflicts: str = ""
    recreated: str = ""
    here: Mapping[str, Any] = {}
    there: Mapping[str, Any] | None = None
    """``None``: as here."""
    stays: str = ""
    """The conflicts that are there after the next sync, too."""


def put(todos: Collection[Record], id: str, **data: Any) -> None:
    todos.records.update_or_create(id, data)


def nothing(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", title="task1")
    device.sync()


def no_conflict(device: Device, todos: Collection[Record]) -> None:
    put(todos, "d", title="to delete")
    device.sync()
    put(todos, "a", title="task1")
    device.save("b", title="task2")
    device.delete("d")


def incoming_conflict(device: Device, todos: Collection[Record]) -> None:
    """Both sides create a record of the same id."""
    put(todos, "a", title="task1-remote")
    device.save("a", title="task1-local")
    device.save("b", title="task2")


def local_delete_remote_update(device: Device, todos: Collection[Record]) -> None:
    nothing(device, todos)
    put(todos, "a", title="task1-remote")
    device.delete("a")


def local_delete_remote_delete(device: Device, todos: Collection[Record]) -> None:
    nothing(device, todos)
    todos.records.get("a").delete()
    device.delete("a")


def outgoing_conflict(device: Device, todos: Collection[Record]) -> None:
    """Another client writes between the pull and the push."""
    nothing(device, todos)
    device.save("a", title="task1-local")

    def rival(request: Any) -> None:
        if request.method == "POST":
            device.wire.before = None
            put(todos, "a", title="task1-remote")

    device.wire.before = rival


def outgoing_conflict_remote_deleted(device: Device, todos: Collection[Record]) -> None:
    nothing(device, todos)
    device.save("a", title="task1-local")
    todos.records.get("a").delete()


LOCAL, REMOTE, SECOND = {"title": "task1-local"}, {"title": "task1-remote"}, {"title": "task2"}
TASK = {"title": "task1"}

SCENARIOS = (
    Scenario("No change", nothing, here={"a": TASK}),
    Scenario("No conflict", no_conflict, pulled="a", pushed="bd", here={"a": TASK, "b": SECOND}),
    Scenario(
        "Incoming conflict, PULL_ONLY",
        incoming_conflict,
        {"push": False},
        ok=False,
        conflicts="a",
        here={"a": LOCAL, "b": SECOND},
        there={"a": REMOTE},
        stays="a",
    ),
    Scenario(
        "Incoming conflict, MANUAL",
        incoming_conflict,
        ok=False,
        pushed="b",
        conflicts="a",
        here={"a": LOCAL, "b": SECOND},
        there={"a": REMOTE, "b": SECOND},
        stays="a",
    ),
    Scenario(
        "Incoming conflict, CLIENT_WINS",
        incoming_conflict,
        {"on_conflict": "mine"},
        pushed="ab",
        here={"a": LOCAL, "b": SECOND},
    ),
    Scenario(
        "Incoming conflict, SERVER_WINS",
        incoming_conflict,
        {"on_conflict": "theirs"},
        pushed="b",
        here={"a": REMOTE, "b": SECOND},
    ),
    Scenario(
        "Outgoing conflicting local deletion, with remote update",
        local_delete_remote_update,
        ok=False,
        conflicts="a",
        there={"a": REMOTE},
        stays="a",
    ),
    # kinto.js blanks the record on both sides.
    Scenario(
        "Outgoing conflicting local deletion, with remote update, CLIENT_WINS",
        local_delete_remote_update,
        {"on_conflict": "mine"},
        pushed="a",
    ),
    Scenario(
        "Outgoing conflicting local deletion, with remote update, SERVER_WINS",
        local_delete_remote_update,
        {"on_conflict": "theirs"},
        here={"a": REMOTE},
    ),
    Scenario("Outgoing conflicting local deletion, with remote deletion", local_delete_remote_delete),
    Scenario(
        "Outgoing conflict, MANUAL",
        outgoing_conflict,
        ok=False,
        conflicts="a",
        here={"a": LOCAL},
        there={"a": REMOTE},
        stays="a",
    ),
    Scenario(
        "Outgoing conflict, CLIENT_WINS", outgoing_conflict, {"on_conflict": "mine"}, pushed="a", here={"a": LOCAL}
    ),
    Scenario("Outgoing conflict, SERVER_WINS", outgoing_conflict, {"on_conflict": "theirs"}, here={"a": REMOTE}),
    Scenario(
        "Outgoing conflict, remote deleted, MANUAL",
        outgoing_conflict_remote_deleted,
        ok=False,
        conflicts="a",
        here={"a": LOCAL},
        there={},
        stays="a",
    ),
    Scenario(
        "Outgoing conflict, remote deleted, CLIENT_WINS",
        outgoing_conflict_remote_deleted,
        {"on_conflict": "mine"},
        pushed="a",
        recreated="a",
        here={"a": LOCAL},
    ),
    Scenario(
        "Outgoing conflict, remote deleted, SERVER_WINS", outgoing_conflict_remote_deleted, {"on_conflict": "theirs"}
    ),
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_scenarios_of_kinto_js(device: Device, todos: Collection[Record], scenario: Scenario) -> None:
    scenario.prepare(device, todos)

    result = device.sync(**scenario.options)

    assert (scenario.ok, []) == (result.ok, result.errors)
    for kind in ("pushed", "conflicts", "recreated"):
        assert sorted(getattr(scenario, kind)) == sorted(path[-1] for path in getattr(result, kind)), kind
    assert set(scenario.pulled) <= {path[-1] for path in result.pulled}
    assert scenario.here == device.data
    assert (scenario.here if scenario.there is None else scenario.there) == remote(todos)

    again = device.sync(push="push" not in scenario.options)  # on next MANUAL sync
    assert (scenario.ok, [], [], []) == (again.ok, again.errors, again.pulled, again.pushed)
    assert sorted(scenario.stays) == sorted(path[-1] for path in again.conflicts)
    assert scenario.here == device.data


def test_every_server_page_is_fetched(device: Device, todos: Collection[Record], monkeypatch: Any) -> None:
    todos.records.bulk_create({"n": number} for number in range(30))
    monkeypatch.setattr("kinto_orm.mirror.syncing.PAGE_SIZE", 7)

    assert len(device.sync().pulled) == 30
    assert device.data == remote(todos)


def test_resolving_conflicts_does_not_interfere_with_sync(device: Device, todos: Collection[Record]) -> None:
    for id in ("a", "b"):
        put(todos, id, title=f"remote {id}")
        device.save(id, title=f"local {id}")
    device.sync()
    first, second = device.mirror.conflicts

    first.take_theirs()
    result = device.sync()

    assert [path[-1] for path in result.conflicts] == ["b"]  # the other one stays
    second.keep_mine()
    assert device.sync().ok
    assert remote(todos) == device.data == {"a": {"title": "remote a"}, "b": {"title": "local b"}}


def test_load_dump_then_sync(device: Device, todos: Collection[Record], tmp_path: Path) -> None:
    put(todos, "a", title="task1")
    put(todos, "b", title="task2")
    rows = [{**one.data, "id": one.id, "last_modified": one.last_modified} for one in todos.records]
    (tmp_path / "dump.json").write_text(json.dumps(rows))
    assert device.mirror.load_dump(device.todos, tmp_path / "dump.json") == 2
    put(todos, "c", title="task3")

    result = device.sync()

    assert result.ok and [path[-1] for path in result.pulled] == ["c"]
    assert device.data == remote(todos)


def test_batches_are_chunked(device: Device, todos: Collection[Record]) -> None:
    device.todos.records.bulk_create({"n": number} for number in range(60))

    assert device.sync().ok and len(remote(todos)) == 60
    batches = [body["requests"] for method, _, body in device.wire.sent if method == "POST"]
    assert [len(requests) for requests in batches] == [25, 25, 10]


def test_a_flushed_server_is_rejected_and_can_be_published_again(device: Device, todos: Collection[Record]) -> None:
    for id in ("a", "b"):
        put(todos, id, title=id)
    device.sync()
    before = device.data
    todos.refresh().delete()
    Collection(bucket=todos.bucket, id="todos").save()

    with pytest.raises(ServerResetError):
        device.sync()
    assert device.sync(on_reset="push").ok
    assert remote(todos) == device.data == before

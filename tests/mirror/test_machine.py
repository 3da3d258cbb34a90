"""Two mirrors, a direct writer and all faults: in the end all are equal, and no edit is lost without a report."""

from __future__ import annotations

import http.client
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests
import urllib3

from kinto_orm import Collection, MirrorFileError, Record, ServerResetError
from kinto_orm.server import EmbeddedServer

from .conftest import Device, remote

EVERYTHING = bool(os.environ.get("KINTO_ORM_EVERYTHING"))
SEEDS = range(20 if EVERYTHING else 2)
STEPS = 60
IDS = ("a", "b", "c")


class World:
    """The server, the mirrors, and what was written."""

    def __init__(
        self, seed: int, folder: Path, server: EmbeddedServer, todos: Collection[Record], deletes: bool
    ) -> None:
        self.random = Random(seed)
        self.folder, self.server, self.todos, self.deletes = folder, server, todos, deletes
        self.devices = {name: Device(folder / name, server) for name in ("one", "two")}
        for device in self.devices.values():
            device.mirror._horizon = self.random.choice((0, 0, 10))
        self.writes = 0
        self.last: dict[tuple[str, str], int] = {}
        """The last value that each owner of a field wrote there."""
        self.reported: set[tuple[str, str]] = set()

    def step(self) -> None:
        kinds = ["edit"] * 5 + ["direct"] * 3 + ["sync"] * 3 + ["faulty sync"] * 3 + ["crash"] * 2
        kinds += ["delete", "direct delete", "purge", "make anew"] if self.deletes else []
        kind = self.random.choice(kinds)
        getattr(self, kind.replace(" ", "_"))()

    def value(self, id: str, field: str) -> int:
        self.writes += 1
        self.last[id, field] = self.writes
        return self.writes

    def edit(self) -> None:
        name, id = self.random.choice(list(self.devices)), self.random.choice(IDS)
        field = self.random.choice((name, name, "shared"))
        self.devices[name].save(id, **{field: self.value(id, field)})

    def direct(self) -> None:
        id, field = self.random.choice(IDS), self.random.choice(("direct", "direct", "shared"))
        self.todos.records.update_or_create(id, {field: self.value(id, field)})

    def delete(self) -> None:
        device = self.random.choice(list(self.devices.values()))
        if (record := device.todos.records.get_or_none(self.random.choice(IDS))) is not None:
            record.delete()

    def direct_delete(self) -> None:
        if (record := self.todos.records.get_or_none(self.random.choice(IDS))) is not None:
            record.delete()

    def purge(self) -> None:
        storage: Any = self.server._app.registry.storage  # type: ignore[union-attr]  # Kinto's, as it runs
        storage.purge_deleted("record", "/buckets/payments/collections/todos")

    def make_anew(self) -> None:
        """Make the collection anew: records and tombstones are gone."""
        self.todos.delete(safe=False)
        self.todos = Collection(bucket=self.todos.bucket, id="todos").save()

    def sync(self, device: Device | None = None) -> None:
        device = device or self.random.choice(list(self.devices.values()))
        try:
            device.sync(on_conflict=self.resolve)
        except ServerResetError:  # made anew; or all that it knew was deleted, and the tombstones were purged
            assert self.deletes
            device.sync(on_conflict=self.resolve, on_reset=self.random.choice(("pull", "push")))

    def resolve(self, conflict: Any) -> Any:
        self.reported |= {(conflict.id, field) for field in conflict.fields}
        return self.random.choice(("mine", "theirs"))

    def faulty_sync(self) -> None:
        device = self.random.choice(list(self.devices.values()))
        faults = (lose_before, lose_after, refuse, edit_in_flight, *([begin_anew] if self.deletes else []))
        at, fault = self.random.randrange(6), self.random.choice(faults)

        def disturb(request: requests.PreparedRequest, answer: requests.Response | None) -> Any:
            nonlocal at
            at -= 1
            if (at in (0, -1, -2, -3) and fault not in (edit_in_flight, begin_anew)) or at == 0:
                return fault(self, device, request, answer)
            return None

        if fault in (lose_before, refuse):
            device.wire.before = lambda request: disturb(request, None)
        else:
            device.wire.after = disturb
        self.sync(device)
        device.wire.before = device.wire.after = None

    def crash(self) -> None:
        """End a mirror at a random statement, and open its file again."""
        name = self.random.choice(list(self.devices))
        device, left = self.devices[name], self.random.randrange(2, 40)

        def trace(statement: str) -> None:
            nonlocal left
            left -= 1

        def progress() -> int:
            return 1 if left < 0 else 0

        with device.mirror._store.transaction(writes=False) as connection:
            connection.set_trace_callback(trace)
            connection.set_progress_handler(progress, 1)
        with suppress(MirrorFileError, ServerResetError):
            device.sync(on_conflict=self.resolve)
        connection.set_progress_handler(None, 0)
        connection.set_trace_callback(None)
        horizon = device.mirror._horizon
        device.close()
        self.devices[name] = Device(self.folder / name, self.server)
        self.devices[name].mirror._horizon = horizon

    def finish(self) -> None:
        for _ in range(4):
            for device in self.devices.values():
                self.sync(device)


def lose_before(world: World, device: Device, request: Any, answer: Any) -> Any:
    raise lost()


def lose_after(world: World, device: Device, request: Any, answer: Any) -> Any:
    raise lost()


def refuse(world: World, device: Device, request: Any, answer: Any) -> Any:
    refusal = requests.Response()
    refusal.status_code = 503
    refusal._content = b'{"code": 503, "errno": 201}'
    refusal.request = request
    return refusal


def edit_in_flight(world: World, device: Device, request: Any, answer: Any) -> Any:
    name = next(name for name, one in world.devices.items() if one is device)
    id = world.random.choice(IDS)
    device.save(id, **{name: world.value(id, name)})


def begin_anew(world: World, device: Device, request: Any, answer: Any) -> Any:
    world.make_anew()


def lost() -> requests.ConnectionError:
    gone = http.client.RemoteDisconnected("closed")
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", gone))


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_all_become_equal_and_no_edit_is_lost(
    tmp_path: Path, kinto_server: EmbeddedServer, todos: Collection[Record], seed: int, deletes: bool
) -> None:
    world = World(seed, tmp_path, kinto_server, todos, deletes)

    for _ in range(STEPS):
        world.step()
    world.finish()

    one, two = world.devices.values()
    assert remote(todos) == one.data == two.data
    assert one.mirror.pending == two.mirror.pending == one.mirror.conflicts == two.mirror.conflicts == []
    if not deletes:
        own = {key: value for key, value in world.last.items() if key[1] != "shared"}
        assert own == {key: one.data[key[0]].get(key[1]) for key in own}
    assert one.mirror.verify().ok and two.mirror.verify().ok
    one.close()
    two.close()

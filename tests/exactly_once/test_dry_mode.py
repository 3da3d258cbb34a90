"""Every public verb that writes, called on a dry client: nothing leaves, and all of it is in the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fault_proxy import FaultProxy
from verbs import RECORDS, SOMEWHERE, VERBS, Verb
from world import USER, World

from kinto_orm import Bucket, Client, Collection
from kinto_orm.server import EmbeddedServer

ELSEWHERE = {"Query.delete": {RECORDS}, "Client.flush": {"/__flush__"}, "History.purge": {"/buckets/b/history"}}
"""Where the verbs write that name no object."""


@pytest.fixture
def world(kinto_server: EmbeddedServer, tmp_path: Path) -> Iterator[World]:
    """A world without faults, whose client is real until the verb is prepared."""
    options: dict[str, Any] = {"server": kinto_server, "auth": USER}
    with Client.embedded(**options) as direct, Client.embedded(**options, bucket="b", collection="c") as client:
        Collection(bucket=Bucket(id="b", client=direct).save(), id="c").save()
        yield World(cast(FaultProxy, None), client, direct, str(tmp_path))


def history(world: World) -> dict[str, dict[str, str]]:
    return {bucket.id or "": world.history(bucket.id or "") for bucket in world.direct.buckets}


@pytest.mark.parametrize("is_twin", [pytest.param(False, id="called"), pytest.param(True, id="awaited")])
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.id)
def test_a_dry_client_plans_what_it_would_write_and_sends_nothing(verb: Verb, is_twin: bool, world: World) -> None:
    call = verb.prepare(world)
    world.client._options = replace(world.client._options, dry_mode=True)
    before, dirty = history(world), [one for one in call.holders if one.is_dirty]

    asyncio.run(call.later()) if is_twin else call.now()

    assert history(world) == before
    paths = {write.request["path"].partition("?")[0] for write in world.client.plan().writes}
    planned = {path.removesuffix("/attachment") for path in paths}  # a file is written below its record
    wanted = ELSEWHERE.get(verb.id, set(call.expected) - {SOMEWHERE})
    assert planned and planned >= wanted
    assert all(one.is_dirty for one in dirty)
    assert not any(one.is_deleted for one in call.holders)

"""Any JSON-Patch of any object: what we say comes of it is what the server stores, and we refuse what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st

from kinto_orm import Client, InvalidValueError
from kinto_orm.protocol.json_patch import Patched, apply_json_patch
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.patches import JSON_PATCH_TYPE, JSON_TYPE
from kinto_orm.protocol.writes import Flow
from kinto_orm.server import EmbeddedServer

Data = dict[str, Any]

BUCKET = "/buckets/b"
PARENT = f"{BUCKET}/collections/parent"
COLLECTION = f"{BUCKET}/collections/x"
RECORD = f"{PARENT}/records/x"

TIMESTAMP = "the timestamp of the object"
"""Stands for it until it is known."""

OWN: Any = {"id": "x", "last_modified": TIMESTAMP}

DEPARTURES = {
    "set by the server only": "Kinto ignores, obeys or stores what is written there; no patch of ours may send it",
    "the data must stay an object": "Kinto answers 500",
    "the permissions must stay an object": "Kinto answers 500, or ignores what is empty",
    "keys are principals": "Kinto answers 500, or takes the letters of a text and the numbers of a list for principals",
}
"""Where we refuse what Kinto does not: the reason that we give, and why."""

KEYS = st.sampled_from(["a", "b", "a/b", "~1", "", "0"])
PRINCIPALS = st.sampled_from(["system.Everyone", "account:bob", "/buckets/b/groups/g"])
SCALARS = st.sampled_from([None, True, 0, 1, 1.0, "a", "system.Everyone", TIMESTAMP])
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3), max_leaves=5
)
DATA = st.dictionaries(KEYS, VALUES, max_size=4)
PERMISSIONS = st.dictionaries(st.sampled_from(["read", "write"]), st.lists(PRINCIPALS, max_size=2), max_size=2)


def escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def pointers(value: Any, here: str = "") -> Iterator[tuple[str, Any]]:
    """Every place in a value, with what is there."""
    yield here, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from pointers(item, f"{here}/{escape(str(step))}")


@st.composite
def operation(draw: st.DrawFn, places: list[tuple[str, Any]], is_careless: bool) -> dict[str, Any]:
    """One operation: on a place that is there, with what it needs; or, if careless, on any and with anything."""
    name = draw(st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]))
    ours = [place for place in places if is_careless or not place[0].startswith(("/data/id", "/data/last_modified"))]
    path, value = draw(st.sampled_from(ours))
    if name in ("add", "move", "copy"):
        path, value = draw(st.sampled_from([one for one in ours if is_careless or isinstance(one[1], (dict, list))]))
        steps = st.sampled_from(["-", "0", "1", "2", "new", "a~1b", "system.Everyone"])
        path += "/" + draw(st.sampled_from("-0") if isinstance(value, list) and not is_careless else steps)
    made: dict[str, Any] = {"op": name, "path": path}
    if name in ("move", "copy"):
        made["from"] = draw(st.sampled_from(places))[0]
    elif name == "test" and not is_careless:
        made["value"] = value
    elif name != "remove" and not (is_careless and draw(st.booleans())):
        made["value"] = draw(VALUES)
    return made


@st.composite
def malformed(draw: st.DrawFn, places: list[tuple[str, Any]]) -> dict[str, Any]:
    """Draw an operation with a member that is wrong, or too much, or missing."""
    made = draw(operation(places, is_careless=True))
    name = draw(st.sampled_from(["op", "path", "from", "more"]))
    made[name] = draw(st.sampled_from([None, "", 0, 5, "x", "/", "/data/~2", "/data/n~", ["/data"], "/elsewhere"]))
    if draw(st.booleans()):
        del made[name]
    return made


@st.composite
def patches(draw: st.DrawFn) -> tuple[Data, Data, list[Any]]:
    """Draw data, permissions, and operations on them, of which mostly only the last one cannot be applied."""
    data, permissions = draw(DATA), draw(PERMISSIONS)
    operations: list[Any] = []
    for _ in range(draw(st.integers(1, 5))):
        try:
            now = apply_json_patch(data, permissions, operations, **OWN)
        except InvalidValueError:
            break
        sets = {"read": {}, "write": {}, **(now.permissions or permissions)}
        inside = list(pointers({**now.data, **OWN}, "/data"))
        places = [*inside, *inside]
        places += pointers({name: dict.fromkeys(who, "") for name, who in sets.items()}, "/permissions")
        operations.append(
            draw(
                st.one_of(
                    *[operation(places, is_careless=False)] * 6, operation(places, is_careless=True), malformed(places)
                )
            )
        )
    return data, permissions, operations


def ask(method: str, path: str, body: Any = None, content_type: str = JSON_TYPE) -> Flow[Response]:
    """Send a request, and return its answer whatever its status."""
    content = None if body is None else json.dumps(body).encode()
    return (yield Request(method, path, headers={"Content-Type": content_type}, body=content))


def read(client: Client, path: str) -> tuple[Data, dict[str, frozenset[str]]]:
    """Return data and permissions on the server."""
    content = json.loads(client.run(ask("GET", path)).body)
    return content["data"], {name: frozenset(principals) for name, principals in content["permissions"].items()}


def attempt(*arguments: Any, **known: Any) -> Patched | InvalidValueError:
    try:
        return apply_json_patch(*arguments, **known)
    except InvalidValueError as error:
        return error


def at_timestamp(value: Any, timestamp: int) -> Any:
    return json.loads(json.dumps(value).replace(f'"{TIMESTAMP}"', str(timestamp)))


@given(patch=patches(), path=st.sampled_from([RECORD, COLLECTION]))
@example(patch=({}, {}, []), path=RECORD)
@example(patch=({}, {}, [{"op": "test", "path": "/data/last_modified", "value": TIMESTAMP}]), path=RECORD)
@example(patch=({}, {}, [{"op": "replace", "path": "/data/id", "value": "other"}]), path=RECORD)
@example(patch=({}, {"read": ["r"]}, [{"op": "test", "path": "/permissions/read/r", "value": "other"}]), path=RECORD)
@example(patch=({}, {"read": ["/g"]}, [{"op": "test", "path": "/permissions/read/~1g"}]), path=RECORD)
@example(patch=({}, {"read": ["r"]}, [{"op": "remove", "path": "/permissions/read"}]), path=RECORD)
@example(patch=({}, {"read": ["r"]}, [{"op": "replace", "path": "/permissions", "value": {}}]), path=RECORD)
@example(patch=({}, {}, [{"op": "add", "path": "/permissions/record:create/r", "value": 1}]), path=COLLECTION)
@example(
    patch=({}, {"record:create": ["r"]}, [{"op": "remove", "path": "/permissions/record:create/r"}]), path=COLLECTION
)
@example(patch=({"a": 1}, {}, [{"op": "copy", "path": "/data/all", "from": ""}]), path=RECORD)
@example(patch=({"a": 1}, {}, [{"op": "copy", "path": "/data/b", "from": "/data"}]), path=RECORD)
@example(patch=({"a": 1}, {}, [{"op": "move", "path": "/elsewhere", "from": "/data/a"}]), path=RECORD)
@example(patch=({"a": 1}, {}, [{"op": "add", "path": "/data/a", "value": 2, "from": "/data/~"}]), path=RECORD)
def test_the_server_does_what_we_say(
    kinto_server: EmbeddedServer, kinto_client: Client, patch: tuple[Data, Data, list[Any]], path: str
) -> None:
    data, permissions, operations = patch
    client = kinto_client.clone(retry=0)
    kinto_server.flush()  # what makes the server fail may stay in its memory
    for parent in (BUCKET, PARENT):
        client.run(ask("PUT", parent))
    client.run(ask("PUT", path, {"data": {**data}, "permissions": permissions}))
    stored, shown = read(client, path)
    id, timestamp = stored.pop("id"), stored.pop("last_modified")
    operations = at_timestamp(operations, timestamp)

    patched = attempt(stored, shown, operations, id=id, last_modified=timestamp)
    status = client.run(ask("PATCH", path, operations, JSON_PATCH_TYPE)).status

    if isinstance(patched, InvalidValueError):
        event(f"refused, answered {status}")
        assert status == 400 or any(reason in str(patched) for reason in DEPARTURES)
        return
    event(f"applied: {len(operations)}")
    assert status == 200
    data_now, permissions_now = read(client, path)
    assert is_same({**patched.data, "id": id, "last_modified": data_now["last_modified"]}, data_now)
    expected = dict(shown if patched.permissions is None else patched.permissions)
    # Who writes is always given the permission to write.
    expected["write"] = expected.get("write", frozenset()) | shown["write"].difference(*permissions.values())
    assert {name: who for name, who in expected.items() if who} == permissions_now

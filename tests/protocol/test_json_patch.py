"""What a JSON-Patch makes of an object, without a server; tests/properties/test_json_patch.py asks the server."""

from __future__ import annotations

from typing import Any

import pytest

from kinto_orm import InvalidValueError, PermissionsUnknownError
from kinto_orm.protocol.json_patch import apply_json_patch
from kinto_orm.protocol.json_values import copy_json, is_same
from kinto_orm.protocol.patches import JSONPatch

DATA: dict[str, Any] = {"n": 1, "tags": ["a", "b"], "below": {"x": {"y": None}}, "a/b~": "mine"}
GROUP = "/buckets/b/groups/g"
ESCAPED_GROUP = "~1buckets~1b~1groups~1g"
PERMISSIONS = {"read": frozenset({"account:bob", GROUP}), "write": frozenset({"account:me"})}


def apply(*operations: Any, **known: Any) -> Any:
    """Return the data afterwards, with permissions that no operation touches."""
    return apply_json_patch(DATA, None, operations, **known).data


def permissions_after(*operations: Any) -> Any:
    return apply_json_patch(DATA, PERMISSIONS, operations).permissions


def op(name: str, path: str, *value: Any, origin: str | None = None) -> dict[str, Any]:
    return {
        "op": name,
        "path": path,
        **({"value": value[0]} if value else {}),
        **({} if origin is None else {"from": origin}),
    }


# -- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        pytest.param(op("add", "/data/new", {"z": []}), {"new": {"z": []}}, id="add a key"),
        pytest.param(op("add", "/data/n", None), {"n": None}, id="add sets what is there"),
        pytest.param(op("add", "/data/below/x/z", 1), {"below": {"x": {"y": None, "z": 1}}}, id="add below"),
        pytest.param(op("add", "/data/tags/0", "z"), {"tags": ["z", "a", "b"]}, id="insert"),
        pytest.param(op("add", "/data/tags/2", "z"), {"tags": ["a", "b", "z"]}, id="insert at the end"),
        pytest.param(op("add", "/data/tags/-", "z"), {"tags": ["a", "b", "z"]}, id="append"),
        pytest.param(op("add", "/data/", 1), {"": 1}, id="add the empty key"),
        pytest.param(op("add", "/data/-", 1), {"-": 1}, id="a dash is a key of an object"),
        pytest.param(op("add", "/data/a~1b~0", 1), {"a/b~": 1}, id="slash and tilde"),
        pytest.param(op("add", "/data/~01", 1), {"~1": 1}, id="tilde and one"),
        pytest.param(op("remove", "/data/tags/0"), {"tags": ["b"]}, id="remove an item"),
        pytest.param(op("remove", "/data/below/x/y"), {"below": {"x": {}}}, id="remove below"),
        pytest.param(op("replace", "/data/tags/1", [1]), {"tags": ["a", [1]]}, id="replace an item"),
        pytest.param(op("replace", "/data/below", 1.5), {"below": 1.5}, id="replace a key"),
        pytest.param(op("move", "/data/tags/-", origin="/data/tags/0"), {"tags": ["b", "a"]}, id="move an item"),
        pytest.param(op("move", "/data/below/x/z", origin="/data/below/x/y"), {"below": {"x": {"z": None}}}, id="move"),
        pytest.param(op("move", "/data/below", origin="/data/below/x"), {"below": {"y": None}}, id="move up"),
        pytest.param(op("move", "/data/n", origin="/data/n"), {}, id="move to where it is"),
        pytest.param(op("copy", "/data/n", origin="/data/a~1b~0"), {"n": "mine"}, id="copy"),
        pytest.param(op("copy", "/data/tags/0", origin="/data/tags"), {"tags": [["a", "b"], "a", "b"]}, id="copy in"),
        pytest.param(op("test", "/data/n", 1.0), {}, id="test a number"),
        pytest.param(op("test", "/data/below", {"x": {"y": None}}), {}, id="test an object"),
        pytest.param(op("test", "/data/tags/1", "b"), {}, id="test an item"),
        pytest.param({**op("add", "/data/n", 2), "from": "/data/~"}, {"n": 2}, id="a 'from' that is not needed"),
        pytest.param({**op("add", "/data/n", 2), "from": ""}, {"n": 2}, id="an empty 'from'"),
        pytest.param(op("add", "/elsewhere", 2), {}, id="what is no part of the object is dropped"),
    ],
)
def test_each_operation_changes_its_place(operation: Any, changes: Any) -> None:
    assert is_same(apply(operation), {**DATA, **changes})


def test_a_key_is_removed_and_moved() -> None:
    assert apply(op("remove", "/data/n")) == {key: DATA[key] for key in ("tags", "below", "a/b~")}
    assert apply(op("move", "/data/m", origin="/data/n")) == {"m": 1, **apply(op("remove", "/data/n"))}


def test_the_whole_data_is_replaced() -> None:
    assert apply(op("replace", "/data", {"x": 1})) == apply(op("add", "/data", {"x": 1})) == {"x": 1}
    assert apply(op("move", "/data", origin="/data/below")) == DATA["below"]


def test_operations_follow_each_other() -> None:
    operations = [
        op("add", "/data/list", []),
        op("add", "/data/list/-", {"x": 1}),
        op("copy", "/data/list/-", origin="/data/list/0"),
        op("replace", "/data/list/0/x", 2),
        op("move", "/parked", origin="/data/n"),
        op("move", "/data/m", origin="/parked"),
        op("test", "/data/list", [{"x": 2}, {"x": 1}]),
    ]

    assert apply(*operations) == {"m": 1, "list": [{"x": 2}, {"x": 1}], **apply(op("remove", "/data/n"))}


def test_no_operations_change_nothing() -> None:
    patched = apply_json_patch(DATA, PERMISSIONS, [])

    assert patched.data == DATA and patched.permissions is None


def test_nothing_given_is_changed_or_shared() -> None:
    data = {"list": [{"x": 1}], "n": {}}
    value = {"y": []}
    operations = [op("add", "/data/list/-", value), op("copy", "/data/m", origin="/data/n")]
    before = copy_json(data), copy_json(operations)

    patched = apply_json_patch(data, PERMISSIONS, operations).data
    patched["list"][0]["x"] = patched["list"][1]["y"] = patched["m"]["z"] = 2

    assert (data, operations) == before and patched["n"] == {}


def test_the_body_of_a_patch_is_taken() -> None:
    patch = JSONPatch(op("add", f"/data/{key}", (1,)) for key in "ab")

    assert apply(*patch.body) == apply(*patch.operations) == {**DATA, "a": [1], "b": [1]}


# -- what cannot be applied -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        pytest.param("add", "not an operation", id="text"),
        pytest.param(None, "not an operation", id="null"),
        pytest.param({}, "None is not an operation", id="empty"),
        pytest.param(op("append", "/data/n", 1), "'append' is not an operation", id="unknown operation"),
        pytest.param(
            {**op("test", "/data/n", 1), "op": ["add"]}, "is not an operation", id="operation of another type"
        ),
        pytest.param({**op("test", "/data/n", 1), "comment": ""}, "refuses 'comment'", id="unknown member"),
        pytest.param({"op": "remove"}, "'path' must be a JSON pointer", id="no path"),
        pytest.param(op("remove", ""), "'path' must be a JSON pointer", id="empty path"),
        pytest.param(op("remove", "data/n"), "'path' must be a JSON pointer", id="no slash"),
        pytest.param({"op": "remove", "path": 5}, "'path' must be a JSON pointer", id="path of another type"),
        pytest.param(op("remove", "/data/~2"), "~0", id="bad escape"),
        pytest.param(op("remove", "/data/n~"), "~0", id="escape of nothing"),
        pytest.param(op("copy", "/data/m", origin="/data/~"), "'from'", id="bad escape in 'from'"),
        pytest.param(op("copy", "/data/m", origin="n"), "'from' must be a JSON pointer", id="'from' is no pointer"),
        pytest.param({**op("add", "/data/n", 1), "from": 5}, "'from' must be", id="'from' of another type"),
        pytest.param(op("add", "/data/n"), "needs a value", id="no value"),
        pytest.param(op("replace", "/data/n"), "needs a value", id="nothing to replace with"),
        pytest.param(op("test", "/data/n"), "needs a value", id="nothing to test"),
        pytest.param(op("move", "/data/n"), "needs a 'from'", id="no 'from'"),
        pytest.param(op("copy", "/data/n", origin=""), "needs a 'from'", id="empty 'from'"),
        pytest.param(op("remove", "/data/m"), "there is no 'm'", id="remove a missing key"),
        pytest.param(op("replace", "/data/m", 1), "there is no 'm'", id="replace a missing key"),
        pytest.param(op("move", "/data/n", origin="/data/m"), "there is no 'm'", id="move a missing key"),
        pytest.param(op("move", "/data/m", origin="/data/m"), "there is no 'm'", id="move a missing key to itself"),
        pytest.param(op("copy", "/data/n", origin="/data/m"), "there is no 'm'", id="copy a missing key"),
        pytest.param(op("test", "/data/m", None), "there is no 'm'", id="test a missing key"),
        pytest.param(op("add", "/data/m/x", 1), "there is no 'm'", id="add below a missing key"),
        pytest.param(op("add", "/data/n/x", 1), "neither object nor list", id="add to a number"),
        pytest.param(op("add", "/data/a~1b~0/0", 1), "neither object nor list", id="add to a text"),
        pytest.param(op("test", "/data/n/x", 1), "neither object nor list", id="test below a number"),
        pytest.param(op("add", "/data/tags/3", 1), "no item 3, the list has 2", id="insert too far"),
        pytest.param(op("remove", "/data/tags/2"), "no item 2", id="remove a missing item"),
        pytest.param(op("replace", "/data/tags/2", 1), "no item 2", id="replace a missing item"),
        pytest.param(op("replace", "/data/tags/-", 1), "'-' is not an index", id="replace behind the end"),
        pytest.param(
            op("copy", "/data/n", origin="/data/tags/-"), "'-' is not an index", id="copy from behind the end"
        ),
        pytest.param(op("add", "/data/tags/01", 1), "'01' is not an index", id="zero first"),
        pytest.param(op("add", "/data/tags/-1", 1), "'-1' is not an index", id="negative"),
        pytest.param(op("add", "/data/tags/x", 1), "'x' is not an index", id="key of a list"),
        pytest.param(op("add", "/data/tags/" + "9" * 5000, 1), "is not an index", id="far too far"),
        pytest.param(op("move", "/data/below/x", origin="/data/below"), "into itself", id="move into itself"),
        pytest.param(op("move", "/data/tags/2", origin="/data/tags/0"), "no item 2", id="gone when it is put"),
        pytest.param(op("test", "/data/n", 2), "the value is 1, not 2", id="another value"),
        pytest.param(op("test", "/data/n", True), "the value is 1, not True", id="true is not 1"),
        pytest.param(op("remove", "/data"), "must stay an object", id="remove the data"),
        pytest.param(op("move", "/parked", origin="/data"), "must stay an object", id="move the data away"),
        pytest.param(op("replace", "/data", []), "must stay an object", id="data that is no object"),
        pytest.param(op("add", "/data/n", float("nan")), "nan", id="what is no JSON"),
    ],
)
def test_what_cannot_be_applied_names_the_operation_and_the_reason(operation: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        apply(op("add", "/data/other", 1), operation, op("add", "/elsewhere", 1))

    assert str(refused.value).startswith("operations[1]") and reason in str(refused.value)


def test_an_error_says_what_the_operation_was() -> None:
    with pytest.raises(InvalidValueError, match=r"^operations\[0\], move /data/m to /data/n: there is no 'm'\.$"):
        apply(op("move", "/data/n", origin="/data/m"))
    with pytest.raises(InvalidValueError, match=r"^operations\[0\], remove /data/m: there is no 'm'\.$"):
        apply(op("remove", "/data/m"))


@pytest.mark.parametrize("operations", [{"op": "test"}, "text", b"bytes"])
def test_operations_are_a_list(operations: Any) -> None:
    with pytest.raises(InvalidValueError, match="list of operations"):
        apply_json_patch(DATA, None, operations)


# -- id and last_modified ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(op("test", "/data/id", "x"), id="test the id"),
        pytest.param(op("test", "/data/last_modified", 5), id="test the timestamp"),
        pytest.param(op("test", "/data", {"id": "x", "last_modified": 5, **DATA}), id="test the data"),
        pytest.param(op("remove", "/data/id"), id="remove the id"),
        pytest.param(op("remove", "/data/last_modified"), id="remove the timestamp"),
        pytest.param(op("replace", "/data/id", "x"), id="the same id"),
        pytest.param(op("add", "/data/last_modified", 5), id="the same timestamp"),
        pytest.param(op("replace", "/data", DATA), id="data without them"),
    ],
)
def test_what_leaves_the_own_keys_as_they_are_is_taken(operation: Any) -> None:
    assert apply(operation, id="x", last_modified=5) == DATA
    assert apply_json_patch({"id": "x", "last_modified": 5, **DATA}, None, [operation]).data == DATA


def test_the_own_keys_can_be_copied_where_they_are_known() -> None:
    copied = apply(
        op("copy", "/data/n", origin="/data/id"), op("copy", "/data/m", origin="/data"), id="x", last_modified=5
    )

    assert copied == {**DATA, "n": "x", "m": {**DATA, "n": "x", "id": "x", "last_modified": 5}}


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(op("replace", "/data/id", "other"), id="another id"),
        pytest.param(op("replace", "/data", {"id": "other"}), id="another id in other data"),
        pytest.param(op("add", "/data/last_modified", 6), id="another timestamp"),
        pytest.param(op("add", "/data/last_modified", True), id="no timestamp"),
        pytest.param(op("add", "/data/deleted", True), id="deleted"),
        pytest.param(op("add", "/data/__permissions__", {}), id="permissions inside of the data"),
    ],
)
@pytest.mark.parametrize("known", [{"id": "x", "last_modified": 5}, {}], ids=["known", "unknown"])
def test_what_only_the_server_sets_is_refused(operation: Any, known: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^operations\[0\].*set by the server only"):
        apply(operation, **known)


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([op("test", "/data/id", "x")], id="test"),
        pytest.param([op("test", "/data", DATA)], id="test the data"),
        pytest.param([op("copy", "/data/n", origin="/data/last_modified")], id="copy"),
        pytest.param([op("copy", "/data/tags/0", origin="/data")], id="copy the data"),
        pytest.param([op("move", "/data/n", origin="/data/id")], id="move"),
    ],
)
def test_unknown_own_keys_cannot_be_read(operations: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^operations\[0\].*unknown: refresh"):
        apply(*operations)


def test_unknown_own_keys_can_be_removed_and_set_aside() -> None:
    assert apply(op("remove", "/data/id"), op("move", "/parked", origin="/data/last_modified")) == DATA


# -- permissions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operations", "changes"),
    [
        pytest.param([op("add", "/permissions/read/eve")], {"read": {"account:bob", GROUP, "eve"}}, id="add"),
        pytest.param([op("add", "/permissions/write/~1g", 5)], {"write": {"account:me", "/g"}}, id="add with a value"),
        pytest.param([op("remove", f"/permissions/read/{ESCAPED_GROUP}")], {"read": {"account:bob"}}, id="remove"),
        pytest.param([op("replace", "/permissions/read", {"x": None, "y": 1})], {"read": {"x", "y"}}, id="replace"),
        pytest.param([op("replace", "/permissions/read", ["x", "x"])], {"read": {"x"}}, id="replace by a list"),
        pytest.param([op("replace", "/permissions/read", {})], {"read": set()}, id="empty"),
        pytest.param(
            [op("move", "/permissions/write/account:bob", origin="/permissions/read/account:bob")],
            {"read": {GROUP}, "write": {"account:me", "account:bob"}},
            id="move",
        ),
        pytest.param(
            [op("copy", "/permissions/write", origin="/permissions/read")], {"write": {"account:bob", GROUP}}, id="copy"
        ),
        pytest.param([op("add", "/permissions/record:create", {"x": 1})], {"record:create": {"x"}}, id="another name"),
        pytest.param([op("replace", "/permissions", {"read": {"x": 1}})], {"read": {"x"}}, id="those that are named"),
        pytest.param(
            [op("remove", "/permissions/read"), op("add", "/permissions/write/x")],
            {"write": {"account:me", "x"}},
            id="what is removed whole is kept",
        ),
    ],
)
def test_principals_are_keys_of_a_permission(operations: Any, changes: Any) -> None:
    assert permissions_after(*operations) == {**PERMISSIONS, **changes}


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([op("test", "/permissions/read/account:bob")], id="test"),
        pytest.param([op("test", "/permissions/read/account:bob", "any value")], id="test a value"),
        pytest.param([op("add", "/permissions/read/account:bob")], id="add who is there"),
        pytest.param([op("add", "/permissions/read/x"), op("remove", "/permissions/read/x")], id="add and remove"),
        pytest.param([op("remove", "/permissions/read")], id="remove whole"),
        pytest.param([op("replace", "/permissions", {})], id="replace by none"),
        pytest.param([op("add", "/permissions/record:create", {})], id="another name without anybody"),
        pytest.param([op("add", "/data/n", 2)], id="data"),
    ],
)
def test_permissions_that_stay_as_they_are_are_not_given(operations: Any) -> None:
    assert permissions_after(*operations) is None


def test_read_and_write_are_there_without_anybody() -> None:
    patched = apply_json_patch({}, {}, [op("add", "/permissions/read/x"), op("add", "/permissions/write/y")])

    assert patched.permissions == {"read": {"x"}, "write": {"y"}}


def test_permissions_can_be_copied_into_the_data() -> None:
    patched = apply_json_patch({}, {"read": ["x"]}, [op("copy", "/data/who", origin="/permissions")])

    assert patched.data == {"who": {"read": {"x": "x"}, "write": {}}} and patched.permissions is None


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        pytest.param(op("remove", "/permissions/read/x"), "there is no 'x'", id="who is not there"),
        pytest.param(op("test", "/permissions/read/x"), "there is no 'x'", id="test who is not there"),
        pytest.param(op("test", f"/permissions/read/{ESCAPED_GROUP}"), "the value is", id="as Kinto compares"),
        pytest.param(op("add", "/permissions/record:create/x", 1), "no 'record:create'", id="name without anybody"),
        pytest.param(op("remove", "/permissions"), "must stay an object", id="remove them all"),
        pytest.param(op("replace", "/permissions", []), "must stay an object", id="no object"),
        pytest.param(op("replace", "/permissions/read", "x"), "keys are principals", id="text"),
        pytest.param(op("replace", "/permissions/read", None), "keys are principals", id="null"),
        pytest.param(op("replace", "/permissions/read", [1]), "keys are principals", id="number for a principal"),
    ],
)
def test_permissions_that_cannot_be_are_refused(operation: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"^operations\[1\], .*{reason}"):
        permissions_after(op("test", "/data/n", 1), operation)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(op("add", "/permissions/read/x"), id="add"),
        pytest.param(op("replace", "/permissions", {}), id="replace"),
        pytest.param(op("test", "/permissions/read/x"), id="test"),
        pytest.param(op("copy", "/data/n", origin="/permissions/read"), id="copy"),
    ],
)
def test_unknown_permissions_are_not_guessed(operation: Any) -> None:
    with pytest.raises(PermissionsUnknownError, match=r"^operations\[0\], .*refresh\(\)"):
        apply(operation)

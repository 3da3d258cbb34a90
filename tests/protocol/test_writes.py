"""One write, and what it is on the wire: alone, and inside a batch, where Kinto's rules differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_orm import (
    BasicPatch,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    KintoError,
    MergePatch,
    NotStageableError,
)
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.patches import apply_basic_patch, apply_merge_patch, is_plain, merge_patch
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.writes import UNCONDITIONAL, Action, Precondition, Write, encode_entry, encode_request

PATH = ObjectPath(Kind.RECORD, ("b", "c", "x"))
URL = "/buckets/b/collections/c/records/x"
PLAIN = "application/json"
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
SEEN = Precondition(last_modified=5)


def alone(write: Write) -> tuple[str, str | None, Any]:
    """Return method, content type and body of the write's own request."""
    request = encode_request(write)
    assert request.path == URL
    return request.method, request.headers.get("Content-Type"), json.loads(request.body) if request.body else None


def in_batch(write: Write) -> tuple[str, Any]:
    """Return method and body of the write's entry."""
    entry = encode_entry(write)
    assert entry["path"] == URL
    return entry["method"], entry.get("body")


def update(old: dict[str, Any], new: dict[str, Any], **others: Any) -> Write:
    return Write(PATH, Action.UPDATE, SEEN, old=old, new=new, **others)


def patch(change: Any, old: dict[str, Any] | None = None) -> Write:
    return Write(PATH, Action.PATCH, SEEN, old=old, patch=change)


@pytest.mark.parametrize(
    ("precondition", "headers"),
    [
        pytest.param(Precondition(absent=True), {"If-None-Match": "*"}, id="absent"),
        pytest.param(SEEN, {"If-Match": '"5"'}, id="seen"),
        pytest.param(Precondition(last_modified=0), {"If-Match": '"0"'}, id="seen at zero"),
        pytest.param(UNCONDITIONAL, {}, id="none"),
    ],
)
def test_the_precondition_is_a_header_of_the_request_and_of_the_entry(
    precondition: Precondition, headers: dict[str, str]
) -> None:
    write = Write(PATH, Action.DELETE, precondition)
    assert dict(encode_request(write).headers) == headers
    assert encode_entry(write) == {"method": "DELETE", "path": URL} | ({"headers": headers} if headers else {})


def test_an_entry_has_no_content_type() -> None:
    """In a batch Kinto overrides it: a merge-patch would store its nulls."""
    for write in (update({"a": 1}, {"a": 2}), patch(BasicPatch({"a": 1})), Write(PATH, Action.PUT, SEEN, new={})):
        assert "Content-Type" not in encode_entry(write)["headers"]


@pytest.mark.parametrize("id", ["batch", "batch-jobs", "batches"])
def test_an_id_that_begins_with_batch_cannot_be_in_a_batch(id: str) -> None:
    write = Write(ObjectPath(Kind.BUCKET, (id,)), Action.PUT, SEEN, new={})
    assert encode_request(write).path == f"/buckets/{id}"
    with pytest.raises(NotStageableError, match="begin with 'batch'"):
        encode_entry(write)


# -- whole objects ----------------------------------------------------------------------------------------------------


def test_a_put_sends_the_whole_data() -> None:
    write = Write(PATH, Action.PUT, SEEN, new={"a": None})
    assert alone(write) == ("PUT", PLAIN, {"data": {"a": None}})
    assert in_batch(write) == ("PUT", {"data": {"a": None}})


def test_a_put_that_sets_a_permission_sends_them_all() -> None:
    everything = {"read": ["a"], "write": ["b"]}
    write = Write(PATH, Action.PUT, SEEN, new={}, permissions={"read": ["a"]}, all_permissions=everything)
    assert alone(write) == ("PUT", PLAIN, {"data": {}, "permissions": everything})


def test_a_put_that_would_empty_unknown_permissions_is_refused() -> None:
    write = Write(PATH, Action.PUT, SEEN, new={}, permissions={"read": ["a"]})
    with pytest.raises(KintoError, match="only some permissions are known"):
        encode_request(write)


def test_a_delete_has_no_body() -> None:
    assert alone(Write(PATH, Action.DELETE, SEEN)) == ("DELETE", None, None)
    assert in_batch(Write(PATH, Action.DELETE, SEEN)) == ("DELETE", None)


# -- updates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param({"a": 1, "b": 1}, {"a": 2, "b": 1}, ("PATCH", PLAIN, {"data": {"a": 2}}), id="changed"),
        pytest.param({"a": 1}, {"a": 1, "b": None}, ("PATCH", PLAIN, {"data": {"b": None}}), id="added null"),
        pytest.param(
            {"a": {"x": 1}}, {"a": {"y": 1}}, ("PATCH", MERGE, {"data": {"a": {"x": None, "y": 1}}}), id="nested"
        ),
        pytest.param({"a": 1}, {"a": True}, ("PATCH", PLAIN, {"data": {"a": True}}), id="1 is not true"),
        pytest.param({"a": 1}, {"a": 1}, ("PATCH", PLAIN, {"data": {}}), id="nothing"),
        pytest.param({"a": 1, "b": 1}, {"a": 2}, ("PATCH", MERGE, {"data": {"a": 2, "b": None}}), id="removed"),
        pytest.param({"a": 1}, {}, ("PATCH", MERGE, {"data": {"a": None}}), id="all removed"),
        pytest.param({"a": 1, "b": 1}, {"b": None}, ("PUT", PLAIN, {"data": {"b": None}}), id="removed and null"),
        pytest.param({"a": 1}, {"b": {"x": 1}}, ("PUT", PLAIN, {"data": {"b": {"x": 1}}}), id="removed and object"),
    ],
)
def test_an_update_is_the_smallest_patch(old: dict[str, Any], new: dict[str, Any], expected: Any) -> None:
    assert alone(update(old, new)) == expected


def test_in_a_batch_an_update_that_removes_is_a_put() -> None:
    assert in_batch(update({"a": 1, "b": 1}, {"a": 1})) == ("PUT", {"data": {"a": 1}})
    assert in_batch(update({"a": 1}, {"a": 2})) == ("PATCH", {"data": {"a": 2}})


def test_permissions_alone_are_a_patch_without_data() -> None:
    write = update({"a": 1}, {"a": 1}, permissions={"read": []})
    assert alone(write) == ("PATCH", PLAIN, {"permissions": {"read": []}})
    assert in_batch(write) == ("PATCH", {"permissions": {"read": []}})


def test_permissions_go_with_a_merge_patch() -> None:
    body = {"data": {"a": None}, "permissions": {"read": ["x"]}}
    assert alone(update({"a": 1}, {}, permissions={"read": ["x"]})) == ("PATCH", MERGE, body)


_scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab", max_size=2)
_values = st.recursive(
    _scalars, lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from("xy"), below)
)
_data = st.dictionaries(st.sampled_from("abcd"), _values)


@given(_data, _data)
def test_what_an_update_sends_gives_the_new_data(old: dict[str, Any], new: dict[str, Any]) -> None:
    _, content_type, body = alone(update(old, new))
    method, batched = in_batch(update(old, new))
    applied = apply_merge_patch if content_type == MERGE else apply_basic_patch
    assert is_same(new if alone(update(old, new))[0] == "PUT" else applied(old, body["data"]), new)
    assert is_same(batched["data"] if method == "PUT" else apply_basic_patch(old, batched["data"]), new)


@given(_data, _data)
def test_a_merge_patch_gives_the_new_data_or_there_is_none(old: dict[str, Any], new: dict[str, Any]) -> None:
    between = merge_patch(old, new)
    assert between is None or is_same(apply_merge_patch(old, between), new)


# -- patches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "content_type", "body"),
    [
        pytest.param(BasicPatch({"a": None}), PLAIN, {"data": {"a": None}}, id="basic"),
        pytest.param(
            BasicPatch(permissions={"read": {"b", "a"}}), PLAIN, {"permissions": {"read": ["a", "b"]}}, id="set"
        ),
        pytest.param(MergePatch({"a": None}), MERGE, {"data": {"a": None}}, id="merge"),
        pytest.param(MergePatch(permissions={"read": None}), MERGE, {"permissions": {"read": None}}, id="remove"),
        pytest.param(JSONPatch([{"op": "test"}]), JSON, [{"op": "test"}], id="json"),
    ],
)
def test_a_patch_alone_is_sent_as_it_is(change: Any, content_type: str, body: Any) -> None:
    assert alone(patch(change)) == ("PATCH", content_type, body)


@pytest.mark.parametrize(
    ("change", "old", "expected"),
    [
        pytest.param(BasicPatch({"a": None}), None, ("PATCH", {"data": {"a": None}}), id="basic"),
        pytest.param(MergePatch({"a": 1}), None, ("PATCH", {"data": {"a": 1}}), id="merge without nulls"),
        pytest.param(MergePatch({"a": None}), {"a": 1, "b": 2}, ("PUT", {"data": {"b": 2}}), id="merge of known data"),
        pytest.param(
            MergePatch({"a": {"x": 1}}), {"a": {"y": 1}}, ("PUT", {"data": {"a": {"x": 1, "y": 1}}}), id="nested"
        ),
        pytest.param(
            MergePatch(permissions={"read": ["a"]}), None, ("PATCH", {"permissions": {"read": ["a"]}}), id="acl"
        ),
    ],
)
def test_a_patch_in_a_batch_says_the_same_in_the_batch_s_words(change: Any, old: Any, expected: Any) -> None:
    assert in_batch(patch(change, old)) == expected


@pytest.mark.parametrize(
    ("change", "old"),
    [
        pytest.param(JSONPatch([{"op": "remove", "path": "/data/a"}]), None, id="json patch of unknown data"),
        pytest.param(MergePatch({"a": None}), None, id="merge of unknown data"),
        pytest.param(MergePatch({"a": None}, permissions={"read": []}), {"a": 1}, id="merge with permissions"),
        pytest.param(MergePatch(permissions={"read": None}), {"a": 1}, id="merge of permissions"),
    ],
)
def test_a_patch_that_a_batch_cannot_carry_is_refused(change: Any, old: Any) -> None:
    with pytest.raises(NotStageableError):
        encode_entry(patch(change, old))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(lambda: BasicPatch().body, InvalidValueError, id="empty basic"),
        pytest.param(lambda: MergePatch(permissions={}).body, InvalidValueError, id="empty merge"),
        pytest.param(lambda: JSONPatch([]), InvalidValueError, id="empty json"),
        pytest.param(lambda: JSONPatch({"op": "test"}), InvalidTypeError, id="one operation"),  # type: ignore[dict-item]
        pytest.param(lambda: BasicPatch({"a": float("nan")}).body, InvalidValueError, id="nan"),
        pytest.param(lambda: BasicPatch([1]).body, InvalidValueError, id="no mapping"),  # type: ignore[arg-type]
        pytest.param(lambda: BasicPatch(permissions={"read": "bob"}).body, KintoError, id="text"),
    ],
)
def test_a_patch_that_makes_no_sense_is_refused(make: Any, error: Any) -> None:
    with pytest.raises(error):
        make()


def test_operations_may_come_from_a_generator() -> None:
    change = JSONPatch(operation for operation in [{"op": "test"}])
    assert change.body == change.body == [{"op": "test"}]


@pytest.mark.parametrize(
    ("change", "plain"), [({}, True), ({"a": [None]}, True), ({"a": None}, False), ({"a": {}}, False)]
)
def test_a_merge_patch_is_plain_without_nulls_and_objects(change: dict[str, Any], plain: bool) -> None:
    assert is_plain(change) is plain


@pytest.mark.parametrize(
    ("data", "change", "merged"),
    [
        pytest.param({"a": "b"}, {"a": "c"}, {"a": "c"}, id="replace"),
        pytest.param({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}, id="add"),
        pytest.param({"a": "b"}, {"a": None}, {}, id="remove"),
        pytest.param({"a": ["b"]}, {"a": "c"}, {"a": "c"}, id="list to text"),
        pytest.param({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}, id="nested"),
        pytest.param({"a": "foo"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}, id="text to object"),
    ],
)
def test_merging_follows_the_examples_of_rfc_7396(data: Any, change: Any, merged: Any) -> None:
    assert apply_merge_patch(data, change) == merged

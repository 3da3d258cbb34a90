"""Entries of a history and of a list of permissions, and rows that are none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kinto_orm import ProtocolError
from kinto_orm.protocol.entries import history_entry, permission_entry

CHANGE: dict[str, Any] = {
    "id": "e1",
    "last_modified": 5,
    "date": "2030-01-01T00:00:00+00:00",
    "action": "delete",
    "user_id": "account:bob",
    "resource_name": "record",
    "uri": "/buckets/b/collections/c/records/r",
    "record_id": "r",
    "target": {"data": {"id": "r", "last_modified": 4, "deleted": True}, "permissions": {}},
}
PERMITTED = {"uri": "/buckets/b", "resource_name": "bucket", "permissions": ["read"], "id": "b", "bucket_id": "b"}


def test_an_entry_says_what_was_done_to_what() -> None:
    entry = history_entry(CHANGE)

    assert (entry.action, entry.user_id, entry.record_id, entry.last_modified) == ("delete", "account:bob", "r", 5)
    assert (entry.bucket_id, entry.collection_id) == ("b", None)
    assert entry.date == datetime(2030, 1, 1, tzinfo=UTC)
    assert entry.target.is_deleted and entry.target.data == {}


@pytest.mark.parametrize(
    "other",
    [
        *({"target": None}, {"target": []}, {"target": {}}, {"target": {"data": None}}, {"target": {"data": []}}),
        *({"last_modified": None}, {"last_modified": "5"}, {"last_modified": True}, {"last_modified": 5.0}),
        *({"id": None}, {"uri": 5}, {"action": None}, {"resource_name": None}, {"user_id": 5}, {"record_id": []}),
        *({"date": None}, {"date": "yesterday"}, {"date": "2030-01-01T00:00:00"}),
    ],
    ids=str,
)
def test_a_row_that_is_no_change_is_a_protocol_error(other: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        history_entry({**CHANGE, **other})


def test_an_entry_says_what_is_permitted() -> None:
    entry = permission_entry(PERMITTED)

    assert (entry.uri, entry.permissions, entry.bucket_id, entry.record_id) == ("/buckets/b", {"read"}, "b", None)


@pytest.mark.parametrize(
    "other", [{"permissions": None}, {"permissions": "read"}, {"permissions": ["read", 5]}, {"uri": None}], ids=str
)
def test_a_row_that_permits_nothing_is_a_protocol_error(other: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        permission_entry({**PERMITTED, **other})

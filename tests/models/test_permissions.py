"""Permissions: unknown until the server shows them, and never sent unless the caller set them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from wiretap import Wiretap

from kinto_orm import (
    BasicPatch,
    Bucket,
    Client,
    Collection,
    Group,
    InvalidPermissionError,
    InvalidValueError,
    JSONPatch,
    MergePatch,
    PermissionsUnknownError,
    Record,
)

BOB, EVE = "account:bob", "account:eve"


@pytest.fixture
def me(kinto_client: Client) -> str:
    """The principal of the client's user."""
    return kinto_client.server_info()["user"]["id"]


@pytest.fixture
def record(todos: Collection) -> Record:
    """Saved, so its permissions are known."""
    return Record(collection=todos, id="x", data={"n": 1}, permissions={"read": [BOB]}).save()


@pytest.fixture
def listed(record: Record, todos: Collection) -> Record:
    """The same, out of a list: its permissions are unknown."""
    return todos.records.filter(id="x").first()


# -- unknown --------------------------------------------------------------------------------------------------------


def test_lists_do_not_show_permissions(listed: Record) -> None:
    assert not listed.permissions.is_known
    assert "unknown" in repr(listed.permissions)


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda permissions: permissions["read"], id="item"),
        pytest.param(lambda permissions: permissions.read, id="attribute"),
        pytest.param(lambda permissions: permissions.get("read"), id="get"),
        pytest.param(lambda permissions: permissions.add("read", EVE), id="add"),
        pytest.param(lambda permissions: permissions.remove("read", BOB), id="remove"),
        pytest.param(lambda permissions: dict(permissions), id="all"),
        pytest.param(lambda permissions: len(permissions), id="len"),
    ],
)
def test_unknown_permissions_are_not_guessed(listed: Record, read: Any) -> None:
    with pytest.raises(PermissionsUnknownError, match="refresh"):
        read(listed.permissions)

    assert not listed.is_dirty


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_unknown_permissions_are_never_sent(listed: Record, wire: Wiretap, me: str, verb: str) -> None:
    listed.data["n"] = 2

    getattr(listed, verb)()

    assert wire.bodies[-1] == {"data": {"n": 2}}
    assert listed.permissions == {"read": {BOB}, "write": {me}}


def test_unknown_permissions_can_be_set_one_by_one(listed: Record, wire: Wiretap, me: str) -> None:
    listed.permissions["read"] = [EVE]

    listed.save()

    assert wire.bodies[-1] == {"permissions": {"read": [EVE]}}
    assert listed.permissions == {"read": {EVE}, "write": {me}}


def test_unknown_permissions_can_be_set_all_at_once(listed: Record, wire: Wiretap) -> None:
    listed.permissions = {"read": [EVE]}

    assert listed.permissions.is_known
    listed.replace()

    assert wire.bodies[-1]["permissions"] == {"read": [EVE]}


@pytest.mark.parametrize("in_batch", [False, True], ids=["alone", "in a batch"])
def test_a_put_that_would_empty_unknown_permissions_is_refused(
    kinto_client: Client, listed: Record, wire: Wiretap, in_batch: bool
) -> None:
    listed.permissions["read"] = [EVE]
    sent = len(wire.said)

    with (
        pytest.raises(PermissionsUnknownError, match="refresh"),
        kinto_client.unit_of_work() if in_batch else nullcontext(),
    ):
        listed.replace()

    assert len(wire.said) == sent


def test_refresh_shows_them(listed: Record, me: str) -> None:
    assert listed.refresh().permissions == {"read": {BOB}, "write": {me}}


def test_an_object_of_somebody_else_does_not_show_them(kinto_client: Client, record: Record) -> None:
    record.permissions["read"] = ["system.Authenticated"]
    record.save()
    other = kinto_client.clone(auth=("somebody", "else"))

    seen = Record(bucket="payments", collection="todos", id="x", client=other).refresh()

    assert not seen.permissions.is_known and not seen.is_dirty


# -- known ----------------------------------------------------------------------------------------------------------


def test_the_creator_may_write(record: Record, me: str) -> None:
    assert record.permissions.write == {me}


def test_a_new_object_has_none(todos: Collection) -> None:
    permissions = Record(collection=todos).permissions

    assert permissions.is_known and dict(permissions) == {} and permissions["read"] == frozenset()


def test_they_are_shown(record: Record, listed: Record, me: str) -> None:
    listed.permissions["read"] = [EVE]

    assert BOB in repr(record.permissions) and me in repr(record.permissions)
    assert EVE in repr(listed.permissions)


def test_they_are_sets(record: Record) -> None:
    record.permissions["read"] = [BOB, BOB]

    assert not record.is_dirty


def test_adding_and_removing_is_saved(record: Record, wire: Wiretap) -> None:
    record.permissions.add("read", EVE)
    record.permissions.remove("read", BOB)

    record.save()

    assert wire.bodies[-1] == {"permissions": {"read": [EVE]}}
    assert record.refresh().permissions.read == {EVE}


def test_a_change_taken_back_is_none(record: Record, wire: Wiretap) -> None:
    record.permissions.add("read", EVE)
    record.permissions.remove("read", EVE)
    sent = len(wire.said)

    record.save()

    assert not record.is_dirty and len(wire.said) == sent


def test_the_permissions_that_were_held_before_a_save_are_still_the_ones(record: Record) -> None:
    held = record.permissions
    held.add("read", EVE)
    record.save()

    held.remove("read", BOB)

    assert record.save().permissions.read == {EVE}


def test_data_and_permissions_go_together(record: Record, wire: Wiretap) -> None:
    record.data["n"] = 2
    record.permissions.add("read", EVE)

    record.save()

    assert wire.bodies[-1] == {"data": {"n": 2}, "permissions": {"read": [BOB, EVE]}}


def test_a_patch_leaves_other_permissions_unsaved(record: Record, me: str) -> None:
    record.permissions.add("read", EVE)

    record.patch(BasicPatch(permissions={"write": [me, EVE]}))

    assert record.is_dirty and record.permissions == {"read": {BOB, EVE}, "write": {me, EVE}}
    assert record.save().refresh().permissions.read == {BOB, EVE}


def test_a_patch_of_a_changed_permission_settles_it(record: Record) -> None:
    record.permissions.add("read", EVE)

    record.patch(BasicPatch(permissions={"read": []}))

    assert not record.is_dirty and record.permissions.read == frozenset()


# -- PUT and PATCH --------------------------------------------------------------------------------------------------


def test_a_replace_sends_all_as_soon_as_one_changed(record: Record, wire: Wiretap, me: str) -> None:
    record.permissions.add("write", EVE)

    record.replace()

    assert wire.bodies[-1]["permissions"] == {"read": [BOB], "write": sorted([me, EVE])}
    assert record.refresh().permissions == {"read": {BOB}, "write": {me, EVE}}


def test_a_replace_without_a_change_leaves_them_to_the_server(record: Record, wire: Wiretap) -> None:
    record.replace()

    assert wire.bodies[-1] == {"data": {"n": 1}}
    assert record.refresh().permissions.read == {BOB}


def test_a_replace_empties_what_was_emptied(record: Record, me: str) -> None:
    record.permissions["read"] = []

    record.replace()

    assert record.refresh().permissions == {"write": {me}}


def test_assigning_all_empties_the_others(record: Record, wire: Wiretap, me: str) -> None:
    record.permissions = {"write": [me]}

    record.save()

    assert wire.bodies[-1] == {"permissions": {"read": []}}
    assert record.refresh().permissions == {"write": {me}}


def test_the_server_gives_the_writer_his_permission_back(record: Record, me: str) -> None:
    record.permissions = {}

    record.save()

    assert record.permissions == {"write": {me}} and not record.is_dirty


# -- names and principals -------------------------------------------------------------------------------------------


def test_a_name_with_a_colon_is_an_attribute_with_an_underscore(payments: Bucket) -> None:
    todos = Collection(bucket=payments, id="todos", permissions={"record_create": [BOB]}).save()

    todos.permissions.record_create = [BOB, EVE]

    assert todos.save().permissions["record:create"] == {BOB, EVE}
    assert todos.permissions["record_create"] == todos.permissions.record_create == {BOB, EVE}


@pytest.mark.parametrize("name", ["record:create", "reed", "", 5])
def test_a_name_that_records_do_not_have_is_refused(record: Record, name: Any) -> None:
    with pytest.raises(InvalidPermissionError, match="read, write"):
        record.permissions[name] = [BOB]
    with pytest.raises(InvalidPermissionError, match="read, write"):
        record.patch(BasicPatch(permissions={name: [BOB]}))


def test_an_attribute_that_is_no_permission_is_an_attribute_error(record: Record) -> None:
    with pytest.raises(AttributeError, match="read, write"):
        record.permissions.reed  # noqa: B018


@pytest.mark.parametrize("principals", [BOB, BOB.encode(), None, 5, [5], [None], [""], [" "], [[BOB]]], ids=repr)
def test_what_is_no_list_of_principals_is_refused(record: Record, principals: Any) -> None:
    with pytest.raises(InvalidPermissionError):
        record.permissions["read"] = principals
    with pytest.raises(InvalidPermissionError):
        Record(permissions={"read": principals})


@pytest.mark.parametrize("patch", [BasicPatch, MergePatch])
def test_a_bare_string_is_no_list_of_letters(record: Record, patch: Any) -> None:
    with pytest.raises(InvalidPermissionError, match="write"):
        record.patch(patch(permissions={"read": BOB}))
    with pytest.raises(InvalidPermissionError):
        patch(permissions={"read": BOB}).body  # noqa: B018


@pytest.mark.parametrize("permissions", [[BOB], "read", None, 5], ids=repr)
def test_what_is_no_mapping_is_refused(record: Record, permissions: Any) -> None:
    with pytest.raises(InvalidPermissionError, match="mapping"):
        record.permissions = permissions


def test_a_group_stands_for_its_members(kinto_client: Client, payments: Bucket, record: Record) -> None:
    other = kinto_client.clone(auth=("somebody", "else"))
    staff = Group(bucket=payments, id="staff", members=[other.server_info()["user"]["id"]]).save()

    record.permissions.add("read", staff)
    record.save()

    assert record.permissions.read == {BOB, "/buckets/payments/groups/staff"}
    assert Record(bucket="payments", collection="todos", id="x", client=other).refresh().data == {"n": 1}


def test_a_group_may_stand_in_a_patch(payments: Bucket, record: Record) -> None:
    staff = Group(bucket=payments, id="staff")

    record.patch(BasicPatch(permissions={"read": [staff, BOB]}))

    assert record.permissions.read == {BOB, "/buckets/payments/groups/staff"}


def test_a_group_of_the_default_bucket_would_match_nobody(kinto_client: Client, record: Record) -> None:
    with pytest.raises(InvalidPermissionError, match="real id"):
        record.permissions["read"] = [kinto_client.bucket("default").group("staff")]


def test_a_merge_patch_removes_a_permission(record: Record, me: str) -> None:
    record.patch(MergePatch(permissions={"read": None}))

    assert record.permissions == {"write": {me}}


def test_a_json_patch_adds_a_principal(record: Record) -> None:
    record.patch(JSONPatch([{"op": "add", "path": f"/permissions/read/{EVE}"}]))

    assert record.permissions.read == {BOB, EVE}


def test_permissions_have_no_hash(record: Record) -> None:
    with pytest.raises(TypeError):
        hash(record.permissions)


def test_l05_accounts_stand_for_their_principals_among_the_members(kinto_client: Client, payments: Bucket) -> None:
    rita, staff = kinto_client.account("rita"), Group(bucket=payments, id="staff")

    staff.members = [rita]
    group = Group(bucket=payments, id="all", members=[rita, "account:bob"]).save()

    assert staff.members == ["account:rita"]
    assert payments.groups.get("all").members == group.members == ["account:rita", "account:bob"]
    for no_user in (payments, staff):  # the server takes no group in a group
        with pytest.raises(InvalidValueError, match=r"members\.0: Input should be a valid string"):
            Group(bucket=payments, id="x", members=[no_user])  # type: ignore[list-item]

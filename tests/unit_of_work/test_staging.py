"""Coalescing: several calls on one object in a unit of work become one operation, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

from kinto_orm import BasicPatch, Bucket, Client, Collection, MergePatch, NotStageableError, Record
from kinto_orm.unit_of_work.unit_of_work import UnitOfWork


@pytest.fixture
def record(todos: Collection[Record]) -> Record:
    return todos.records.create(id="one", data={"title": "one", "done": False})


def on_server(client: Client, id: str = "one") -> dict[str, Any]:
    return dict(client.bucket("payments").collection("todos").records.get(id).data)


def planned(uow: UnitOfWork) -> list[tuple[str, Any]]:
    return [(one.request["method"], one.request.get("body")) for one in uow.plan().writes]


def test_two_saves_become_one(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.data["title"] = "x"
        record.save()
        record.data["done"] = True
        record.save()

        assert planned(uow) == [("PATCH", {"data": {"title": "x", "done": True}})]
    assert not record.is_dirty


def test_a_save_and_a_patch_become_one(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.data["title"] = "x"
        record.save()
        record.patch(done=True)

        assert planned(uow) == [("PATCH", {"data": {"title": "x", "done": True}})]
    assert (record.data, record.is_dirty) == ({"title": "x", "done": True}, False)


def test_a_creation_and_a_patch_become_a_creation(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work() as uow:
        record = Record(collection=todos, id="x", data={"n": 1}).save()
        record.patch(BasicPatch({"m": 2}, permissions={"read": ["account:bob"]}))

        assert planned(uow) == [("PUT", {"data": {"n": 1, "m": 2}, "permissions": {"read": ["account:bob"]}})]
    assert (record.data, record.is_dirty) == ({"n": 1, "m": 2}, False)
    assert record.permissions.read == {"account:bob"}


def test_a_patch_and_a_save_become_one(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(done=True)
        record.data["title"] = "x"
        record.save()

        assert planned(uow) == [("PATCH", {"data": {"title": "x", "done": True}})]
    assert (record.data, record.is_dirty) == ({"title": "x", "done": True}, False)


def test_an_edit_between_two_calls_is_sent_by_a_save_and_kept_by_a_patch(
    kinto_client: Client, todos: Collection[Record]
) -> None:
    saved, patched = (todos.records.create(id=id, data={"n": 0}) for id in "ab")

    with kinto_client.unit_of_work():
        for one in (saved, patched):
            one.patch(n=1)
            one.data["n"] = 2
        saved.save()
        patched.patch(m=1)

    assert [on_server(kinto_client, "a")["n"], on_server(kinto_client, "b")["n"]] == [2, 1]
    assert [saved.is_dirty, patched.is_dirty, patched.data["n"]] == [False, True, 2]


def test_two_patches_become_one_and_the_later_value_wins(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(title="x", done=True)
        record.patch(BasicPatch({"title": "y"}, permissions={"read": ["account:bob"]}))

        assert planned(uow) == [
            ("PATCH", {"data": {"title": "y", "done": True}, "permissions": {"read": ["account:bob"]}})
        ]
    assert on_server(kinto_client) == {"title": "y", "done": True}


def test_a_patch_and_a_replace_become_a_put_of_both(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(done=True)
        record.replace()
        record.save()

        assert planned(uow) == [("PUT", {"data": {"title": "one", "done": True}})]


def test_a_patch_and_a_deletion_become_a_deletion(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(done=True)
        record.delete()

        assert planned(uow) == [("DELETE", None)]
    assert record.is_deleted


def test_a_creation_and_a_deletion_become_nothing(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work() as uow:
        gone, kept = (Record(collection=todos, id=id).save() for id in "ab")
        gone.delete()

    assert [(one.object.id, one.status) for one in uow.outcomes] == [("a", "unchanged"), ("b", "created")]
    assert [gone.is_new, kept.is_new] == [True, False]


def test_deleting_twice_what_was_never_stored_deletes_nothing_of_somebody_else(
    kinto_client: Client, todos: Collection[Record], record: Record
) -> None:
    with kinto_client.unit_of_work() as uow:
        mine = Record(collection=todos, id="one").save().delete().delete()
        with pytest.raises(NotStageableError, match="cannot be patched"):
            mine.patch(n=1)

    assert [one.status for one in uow.outcomes] == ["unchanged"]
    assert on_server(kinto_client) == record.data


def test_what_was_created_and_deleted_can_be_created_again(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work() as uow:
        Record(collection=todos, id="x", data={"n": 1}).save().delete()
        Record(collection=todos, id="x", data={"n": 2}).save()

    assert [one.status for one in uow.outcomes] == ["created"]
    assert on_server(kinto_client, "x") == {"n": 2}


def test_an_upsert_and_a_deletion_delete_what_was_there(
    kinto_client: Client, todos: Collection[Record], record: Record
) -> None:
    with kinto_client.unit_of_work() as uow:
        for id in ("one", "never-there"):
            Record(collection=todos, id=id).replace(safe=False).delete()

    assert [one.status for one in uow.outcomes] == ["deleted", "deleted"]
    assert not todos.records.exists()


def test_a_deletion_and_a_save_become_a_put(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.delete()
        record.data = {"title": "again"}
        record.save()

        assert planned(uow) == [("PUT", {"data": {"title": "again"}})]
    assert on_server(kinto_client) == {"title": "again"}


def test_a_deletion_by_id_and_a_save_replace_what_is_there(
    kinto_client: Client, todos: Collection[Record], record: Record
) -> None:
    with kinto_client.unit_of_work():
        Record(collection=todos, id="one", data={"n": 1}).delete().save()

    assert on_server(kinto_client) == {"n": 1}


def test_two_deletions_become_one(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.delete().delete()

    assert [one.status for one in uow.outcomes] == ["deleted"]


def test_a_deleted_object_cannot_be_patched(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match="cannot be patched"):
        record.delete().patch(done=True)


@pytest.mark.parametrize("kind", ["bucket", "collection"])
def test_a_bucket_or_collection_cannot_be_deleted_and_created_in_one_unit(
    kind: str, kinto_client: Client, payments: Bucket, todos: Collection[Record]
) -> None:
    one = payments if kind == "bucket" else todos

    with kinto_client.unit_of_work() as uow:
        with pytest.raises(NotStageableError, match="would empty the new one"):
            one.delete().save()
        uow.rollback()


def test_a_patch_of_what_exists_and_its_creation_are_no_one_operation(
    kinto_client: Client, todos: Collection[Record]
) -> None:
    with kinto_client.unit_of_work() as uow:
        with pytest.raises(NotStageableError, match="commit in between"):
            Record(collection=todos, id="x").patch(n=1).save()
        uow.rollback()


def test_the_precondition_of_the_first_call_still_holds_unless_the_second_says_another(
    kinto_client: Client, record: Record
) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(done=True, if_match=5)
        record.patch(n=1)
        kept = uow.plan().writes[0].request["headers"]
        record.patch(n=2, safe=False)
        dropped = uow.plan().writes[0].request.get("headers")
        uow.rollback()

    assert (kept, dropped) == ({"If-Match": '"5"'}, None)


def test_permissions_of_a_patch_and_a_save_become_one(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(BasicPatch(permissions={"read": ["account:bob"]}))
        record.permissions.add("write", "account:eve")
        record.save()
        ((_, body),) = planned(uow)

    assert body["permissions"]["read"] == ["account:bob"]
    assert "account:eve" in body["permissions"]["write"]
    assert not record.is_dirty


# -- merge-patches ------------------------------------------------------------------------------------------------


def test_a_merge_patch_that_removes_is_sent_as_a_put_of_the_whole(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(MergePatch({"done": None, "n": {"deep": 1}}))

        assert planned(uow) == [("PUT", {"data": {"title": "one", "n": {"deep": 1}}})]
    assert on_server(kinto_client) == record.data == {"title": "one", "n": {"deep": 1}}


def test_a_merge_patch_that_only_sets_is_sent_as_a_patch(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(MergePatch({"done": True}))

        assert planned(uow) == [("PATCH", {"data": {"done": True}})]


def test_a_merge_patch_of_data_that_was_never_read_is_refused(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match="stores the nulls"):
        Record(collection=todos, id="x").patch(MergePatch({"done": None}))


def test_a_save_and_a_merge_patch_become_one(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.data["title"] = "x"
        record.save()
        record.patch(MergePatch({"done": None}))

        assert planned(uow) == [("PUT", {"data": {"title": "x"}})]
    assert (record.data, record.is_dirty) == ({"title": "x"}, False)


def test_a_removed_key_is_sent_as_a_put_of_the_whole(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        del record.data["done"]
        record.save()

        assert planned(uow) == [("PUT", {"data": {"title": "one"}})]


def test_merge_patches_that_cannot_become_one_operation_are_refused(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(MergePatch({"n": {"a": 1}}))
        with pytest.raises(NotStageableError, match="not both plain"):
            record.patch(done=True)
        uow.rollback()
        record.data["title"] = "x"
        record.save()
        with pytest.raises(NotStageableError, match="merge-patch of permissions"):
            record.patch(MergePatch(permissions={"read": None}))
        uow.rollback()

"""Rows A: ids that are not ids."""

from __future__ import annotations

from kinto_orm import Record

from .scene import LOST, WRONG, Cases, Scene, Verdict, plural

CASES = Cases()
case = CASES.case


@case("A02", "Delete the record `!!!`, in a collection of 5 others")
def delete_a_record_without_letters(scene: Scene) -> Verdict:
    scene.make()
    scene.fill(*"abcde")
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().delete_record(id="!!!"),
            lambda: Record(id="!!!", client=scene.orm()).delete(),
        )
    deleted = 5 - len(scene.rows())
    return attempt.verdict(f"{deleted} of 5 records deleted", LOST if deleted else "")


@case("A08", "Delete the bucket `!!!`, of a user with 3 others")
def delete_a_bucket_without_letters(scene: Scene) -> Verdict:
    for id in ("one", "two", "three"):
        scene.make(id)
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().delete_bucket(id="!!!"),
            lambda: scene.orm().bucket("!!!").delete(),
        )
    deleted = 3 - len(scene.rows("/buckets"))
    return attempt.verdict(f"{deleted} of 3 buckets deleted", LOST if deleted else "")


@case("A10", "Delete the bucket whose id is an empty text")
def delete_a_bucket_without_an_id(scene: Scene) -> Verdict:
    scene.make()
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().delete_bucket(id=""),
            lambda: scene.orm().bucket("").delete(),
        )
    deleted = 1 - len(scene.rows("/buckets"))
    return attempt.verdict(f"{plural(deleted, 'other bucket')} deleted", LOST if deleted else "")


@case("A12", "Read the record `../../x`, beside a record `x`")
def read_a_path(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("x")
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().get_record(id="../../x")["data"]["id"],
            lambda: scene.records().get("../../x").id,
        )
    facts = f"record `{attempt.result}` returned" if attempt.is_success else "no record returned"
    return attempt.verdict(facts, WRONG if attempt.is_success else "")


@case("A13", "Delete the record `a.b`, beside a record `ab`")
def delete_a_record_with_a_dot(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("ab")
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().delete_record(id="a.b"),
            lambda: Record(id="a.b", client=scene.orm()).delete(),
        )
    is_there = scene.get("ab") is not None
    return attempt.verdict(f"record `ab` {'kept' if is_there else 'deleted'}", "" if is_there else LOST)


@case("A14", "Store the record `Foo Bar`, beside a record `foo-bar`")
def write_a_record_with_a_space(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("foo-bar", of="somebody else")
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().update_record(id="Foo Bar", data={"of": "us"}),
            lambda: Record(id="Foo Bar", data={"of": "us"}, client=scene.orm()).save(),
        )
    is_kept = scene.get("foo-bar")["of"] == "somebody else"
    return attempt.verdict(f"record `foo-bar` {'kept' if is_kept else 'overwritten'}", "" if is_kept else LOST)


@case("A32", "Delete the collections of the bucket `v1` in a batch, beside a bucket `collections`")
def delete_collections_in_a_batch(scene: Scene) -> Verdict:
    scene.make("v1")
    scene.make("collections")

    def with_http() -> None:
        with scene.http().batch() as batch:
            batch.delete_collections(bucket="v1")

    def with_orm() -> None:
        client = scene.orm()
        found = list(client.bucket("v1").collections)
        with client.unit_of_work():
            for one in found:
                one.delete()

    with scene.serve():
        attempt = scene.attempt(with_http, with_orm)
    is_kept = "collections" in [one["id"] for one in scene.rows("/buckets")]
    left = len(scene.rows("/buckets/v1/collections"))
    facts = f"bucket `collections` {'kept' if is_kept else 'deleted'}, {1 - left} of 1 collections of `v1` deleted"
    return attempt.verdict(facts, "" if is_kept else LOST)

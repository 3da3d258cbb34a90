"""Rows E, with G11: batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kinto_http.patch_type import MergePatch as HttpMergePatch

from kinto_orm import CommitError, MergePatch, Record

from .front import Request, answer, row, said
from .scene import LOST, RECORDS, WRONG, Attempt, Cases, Scene, Verdict

CASES = Cases()
case = CASES.case


def create_all(scene: Scene, ids: Sequence[str]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Create these records in batches, with each client."""

    def with_http() -> None:
        with scene.http().batch() as batch:
            for id in ids:
                batch.create_record(id=id, data={"n": 1})

    def with_orm() -> None:
        client = scene.orm()
        with client.unit_of_work(chunked=True):
            for id in ids:
                Record(id=id, data={"n": 1}, client=client).save()

    return with_http, with_orm


def stored(id: str, status: int = 201) -> dict[str, Any]:
    return {"status": status, "path": f"/v1{RECORDS}/{id}", "headers": {}, "body": {"data": row(id, n=1)}}


def batch_answered(content: Any) -> Callable[[Request], bytes]:
    """Return a server that answers batches like that."""
    info = {"settings": {"batch_max_requests": 25}}
    return lambda request: said(content if request.is_write else info)


def told(attempt: Attempt) -> int:
    """Return the number of writes of which the error tells the result: kinto-http's has ``results``, or not."""
    if isinstance(attempt.error, CommitError):
        return len(attempt.error.outcomes)
    return len(getattr(attempt.error, "results", ()))


@case("E02", "Create 3 records in a batch; the second answer in it is a 503")
def commit_with_one_failure(scene: Scene) -> Verdict:
    failed = {"status": 503, "path": "/v1", "headers": {}, "body": {"errno": 201}}
    with scene.serve(batch_answered({"responses": [stored("a"), failed, stored("c")]})):
        attempt = scene.attempt(*create_all(scene, "abc"))
    count = told(attempt)
    return attempt.verdict(f"outcome told for {count} of 3 records", "" if count == 3 else WRONG)


@case("E03", "Create 3 records in a batch; something on the way cuts the last one off, and 2 answers come")
def commit_and_get_too_few_answers(scene: Scene) -> Verdict:
    scene.make()

    def script(request: Request) -> bytes:
        if not request.is_write:
            return scene.forward(request)
        body = json.dumps({"requests": json.loads(request.body)["requests"][:2]}).encode()
        return scene.forward(replace(request, body=body, headers={**request.headers, "content-length": str(len(body))}))

    with scene.serve(script):
        attempt = scene.attempt(*create_all(scene, "abc"))
    return attempt.verdict(f"{len(scene.rows())} of 3 records stored", LOST if attempt.is_success else "")


@case("E06", "Create 75 records in batches of 25; the connection is lost at the second")
def lose_the_second_batch(scene: Scene) -> Verdict:
    scene.make()
    ids = [f"r{number:02}" for number in range(75)]
    writes: list[Request] = []

    def script(request: Request) -> bytes | None:
        if request.is_write:
            writes.append(request)
        return scene.forward(request) if len(writes) < 2 else None

    with scene.serve(script):
        attempt = scene.attempt(*create_all(scene, ids))
    count = told(attempt)
    facts = f"{len(scene.rows())} of 75 records stored, outcome told for {count}"
    return attempt.verdict(facts, "" if count == 75 else WRONG)


@case("E21", "Create 3 records in a batch from one dict that is changed in between")
def change_a_dict_in_between(scene: Scene) -> Verdict:
    scene.make()

    def with_http() -> None:
        data: dict[str, Any] = {}
        with scene.http().batch() as batch:
            for number, id in enumerate("abc"):
                data["n"] = number
                batch.create_record(id=id, data=data)

    def with_orm() -> None:
        data: dict[str, Any] = {}
        client = scene.orm()
        with client.unit_of_work():
            for number, id in enumerate("abc"):
                data["n"] = number
                Record(id=id, data=data, client=client).save()

    with scene.serve():
        attempt = scene.attempt(with_http, with_orm)
    values = sorted(one["n"] for one in scene.rows())
    return attempt.verdict(f"{values} stored", "" if values == [0, 1, 2] else LOST)


@case("E23", "Remove a key with a merge-patch in a batch")
def merge_in_a_batch(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("x", gone=1, kept=1)

    def with_http() -> None:
        with scene.http().batch() as batch:
            batch.patch_record(id="x", changes=HttpMergePatch({"gone": None}))

    def with_orm() -> None:
        client = scene.orm()
        record = client.bucket("b").collection("c").records.get("x")
        with client.unit_of_work():
            record.patch(MergePatch({"gone": None}))

    with scene.serve():
        attempt = scene.attempt(with_http, with_orm)
    stored_now = scene.get("x")
    has_null = "gone" in stored_now and stored_now["gone"] is None
    facts = "null stored" if has_null else "key kept" if "gone" in stored_now else "key removed"
    return attempt.verdict(facts, LOST if has_null else "")


@case("G11", "Create 3 records in a batch; a redirect (301) leads to an empty batch answer")
def commit_and_be_redirected(scene: Scene) -> Verdict:
    scene.make()

    def script(request: Request) -> bytes:
        if request.target.endswith("/batch"):
            return answer(b"", ("Location", "/v1/elsewhere"), status="301 Moved Permanently")
        return said({"responses": []}) if request.target.endswith("/elsewhere") else scene.forward(request)

    with scene.serve(script):
        attempt = scene.attempt(*create_all(scene, "abc"))
    return attempt.verdict(f"{len(scene.rows())} of 3 records stored", LOST if attempt.is_success else "")

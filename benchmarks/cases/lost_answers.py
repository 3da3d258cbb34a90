"""Rows B: answers that are lost, late, or ask for a pause."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kinto_http.patch_type import JSONPatch as HttpJSONPatch

from kinto_orm import JSONPatch, Record

from .front import Request, answer, row, said
from .scene import CRASHED, HUNG, LOST, RECORDS, STORMED, WRONG, Cases, Scene, Verdict, drop_answer, plural

CASES = Cases()
case = CASES.case

A_YEAR = 365 * 86400
APPENDED: list[dict[str, Any]] = [{"op": "add", "path": "/data/tags/-", "value": "new"}]


@case("B01", "Create a record; Kinto stores it, the answer is lost")
def create_and_lose_the_answer(scene: Scene) -> Verdict:
    scene.make()
    with scene.serve(drop_answer(scene)):
        attempt = scene.attempt(
            lambda: scene.http().create_record(data={"n": 1}),
            lambda: scene.records().create(data={"n": 1}),
        )
    stored = len(scene.rows())
    return attempt.verdict(f"{plural(stored, 'record')} stored", LOST if stored != 1 else "")


@case("B02", "Create the record `x`; Kinto stores it, the answer is lost")
def create_by_id_and_lose_the_answer(scene: Scene) -> Verdict:
    scene.make()
    with scene.serve(drop_answer(scene)):
        attempt = scene.attempt(
            lambda: scene.http().create_record(id="x", data={"n": 1}),
            lambda: scene.records().create(id="x", data={"n": 1}),
        )
    stored = len(scene.rows())
    return attempt.verdict(f"{plural(stored, 'record')} stored", "" if attempt.is_success else WRONG)


@case("B05", "Append to a list with a JSON-Patch; Kinto does it, the answer is lost")
def append_and_lose_the_answer(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("x", tags=[])
    with scene.serve(drop_answer(scene)):
        attempt = scene.attempt(
            lambda: scene.http().patch_record(id="x", changes=HttpJSONPatch(APPENDED)),
            lambda: scene.records().get("x").patch(JSONPatch(APPENDED)),
        )
    appended = len(scene.get("x")["tags"])
    return attempt.verdict(f"{plural(appended, 'item')} appended", LOST if appended != 1 else "")


@case("B07", "Create 3 records in a batch; Kinto stores them, the answer is lost")
def commit_and_lose_the_answer(scene: Scene) -> Verdict:
    scene.make()

    def with_http() -> None:
        with scene.http().batch() as batch:
            for id in "abc":
                batch.create_record(id=id, data={"n": 1})

    def with_orm() -> None:
        client = scene.orm()
        with client.unit_of_work():
            for id in "abc":
                Record(id=id, data={"n": 1}, client=client).save()

    with scene.serve(drop_answer(scene)):
        attempt = scene.attempt(with_http, with_orm)
    return attempt.verdict(f"{len(scene.rows())} of 3 records stored")


def busy(*headers: tuple[str, str]) -> bytes:
    return said({"code": 503, "errno": 201, "error": "Service Unavailable"}, *headers, status="503 Service Unavailable")


@case("B12", "Read with 3 retries; Kinto is busy and asks to come back in 10^9 seconds")
def be_asked_to_wait_for_years(scene: Scene) -> Verdict:
    with scene.serve(lambda _: busy(("Retry-After", "1000000000"))) as front:
        attempt = scene.attempt(
            lambda: scene.http(retry=3).get_record(id="x"),
            lambda: scene.records(retry=3).get("x"),
        )
    years = int(sum(attempt.waits) // A_YEAR)
    facts = f"{plural(len(front.requests), 'request')}, {plural(years, 'year')} of waiting"
    return attempt.verdict(facts, HUNG if years else "")


@case("B14", "Read with 5 retries; Kinto is busy and does not say for how long")
def be_told_that_kinto_is_busy(scene: Scene) -> Verdict:
    with scene.serve(lambda _: busy()) as front:
        attempt = scene.attempt(
            lambda: scene.http(retry=5).get_record(id="x"),
            lambda: scene.records(retry=5).get("x"),
        )
    count = len(front.requests)
    pauses = len([wait for wait in attempt.waits if wait])
    facts = f"{plural(count, 'request')}, {plural(pauses, 'pause')} between them"
    return attempt.verdict(facts, STORMED if pauses < count - 1 else "")


@case("B21", "Create a record; the answer says `Backoff: 10^400`")
def be_asked_to_back_off_for_ever(scene: Scene) -> Verdict:
    scene.make()

    def script(request: Request) -> bytes:
        head, _, body = scene.forward(request).partition(b"\r\n\r\n")
        return head + b"\r\nBackoff: 1" + b"0" * 400 + b"\r\n\r\n" + body

    with scene.serve(script):
        attempt = scene.attempt(
            lambda: scene.http().create_record(data={"n": 1}),
            lambda: scene.records().create(data={"n": 1}),
        )
    stored = len(scene.rows())
    return attempt.verdict(f"{plural(stored, 'record')} stored", "" if attempt.is_success else CRASHED)


def drip(request: Request) -> None:
    """Send one byte now and then, more often than any timeout."""
    whole = answer(b" " * 1000)
    for number in range(len(whole)):
        request.connection.sendall(whole[number : number + 1])
        time.sleep(0.05)


@case("B24", "Read, for at most half a second (`timeout=0.5`, `deadline=0.5`); the answer drips in")
def read_what_drips(scene: Scene) -> Verdict:
    with scene.serve(drip):
        attempt = scene.attempt(
            lambda: scene.http(timeout=0.5).get_record(id="x"),
            lambda: scene.records(timeout=0.5, deadline=0.5).get("x"),
        )
    return attempt.verdict("")


def pages(count: int, last: Callable[[], bytes | None]) -> Callable[[Request], bytes | None]:
    """Return a list of so many pages of one record."""

    def script(request: Request) -> bytes | None:
        number = int(request.target.partition("_token=")[2] or 0)
        if number == count - 1:
            return last()
        following = f"http://{request.headers['host']}/v1{RECORDS}?_token={number + 1}"
        return said({"data": [row(f"r{number}")]}, ("Next-Page", following), ("ETag", '"5"'))

    return script


@case("B25", "Read a list of 6 pages; the connection is lost at the last one, each time")
def lose_the_last_page(scene: Scene) -> Verdict:
    with scene.serve(pages(6, lambda: None)) as front:
        attempt = scene.attempt(
            lambda: scene.http().get_records(),
            lambda: scene.records().all(),
        )
    count = len(front.requests)
    return attempt.verdict(plural(count, "request"), STORMED if count > 2 * 6 else "")

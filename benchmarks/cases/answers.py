"""Rows C and D: malformed answers and pages."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from math import inf
from typing import Any

from .front import Request, answer, row, said, serving
from .lost_answers import pages
from .scene import CRASHED, FINE, HUNG, LEAKED, RECORDS, STORMED, WRONG, Attempt, Cases, Scene, Verdict, plural

CASES = Cases()
case = CASES.case

MIB = 2**20
LIMIT = 64 * MIB
"""What kinto_orm takes by default."""


def read_one(scene: Scene, answered: bytes | None) -> Attempt:
    """Read the record ``x``, answered like that, with each client, and return the data."""
    with scene.serve(lambda _: answered):
        return scene.attempt(
            lambda: scene.http().get_record(id="x")["data"],
            lambda: dict(scene.records().get("x").data),
        )


@case("C02", "Read a record; a login page in HTML comes with status 200")
def read_html(scene: Scene) -> Verdict:
    return read_one(scene, answer(b"<html>Log in</html>", ("Content-Type", "text/html"))).verdict("")


@case("C04", "Read a record; a list comes instead")
def read_a_list_for_a_record(scene: Scene) -> Verdict:
    attempt = read_one(scene, said({"data": [row("x"), row("y")]}))
    facts = f"a {type(attempt.result).__name__} returned as the record" if attempt.is_success else ""
    return attempt.verdict(facts, WRONG if attempt.is_success else "")


@case("C08", "Ask whether a list of 2 records has changed since it was read; it has not")
def ask_for_what_is_unchanged(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("x", "y")
    known = max(one["last_modified"] for one in scene.rows())
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().get_records(if_none_match=known),
            lambda: scene.records().timestamp() != known,
        )
    if attempt.result == []:
        return attempt.verdict("`[]` returned, as for a list that was emptied", WRONG)
    return attempt.verdict(f"changed: {attempt.result}", "" if attempt.result is False else WRONG)


@case("C09", "Read a record; half of the answer arrives")
def read_half_an_answer(scene: Scene) -> Verdict:
    whole = said({"data": row("x", text="a" * 100)})

    def script(request: Request) -> None:
        request.connection.sendall(whole[:-50])

    with scene.serve(script):
        attempt = scene.attempt(
            lambda: scene.http().get_record(id="x"),
            lambda: scene.records().get("x"),
        )
    return attempt.verdict("")


@case("C13", "Read a record; a small answer unpacks to 80 MiB")
def read_a_bomb(scene: Scene) -> Verdict:
    packed = gzip.compress(b'{"data": {"id": "x", "last_modified": 5, "text": "' + b"a" * (80 * MIB) + b'"}}', 1)
    attempt = read_one(scene, said(packed, ("Content-Encoding", "gzip")))
    if not attempt.is_success:
        return attempt.verdict("")
    size = len(attempt.result["text"])
    return attempt.verdict(f"{size // MIB} MiB unpacked into memory", HUNG if size > LIMIT else "")


@case("C14", "Read a record; a text in it is not UTF-8")
def read_what_is_not_utf8(scene: Scene) -> Verdict:
    attempt = read_one(scene, said(b'{"data": {"id": "x", "last_modified": 5, "text": "caf\xe9"}}'))
    if not attempt.is_success:
        return attempt.verdict("")
    text = attempt.result["text"]
    return attempt.verdict(f"`{text!a}` returned", WRONG)


@case("C24", "Read a bucket; Kinto is busy (503)")
def read_a_bucket_of_a_busy_server(scene: Scene) -> Verdict:
    busy = said({"code": 503, "errno": 201, "error": "Service Unavailable"}, status="503 Service Unavailable")
    with scene.serve(lambda _: busy):
        attempt = scene.attempt(
            lambda: scene.http().get_bucket(id="b"),
            lambda: scene.orm().buckets.get("b"),
        )
    says_missing = "notfound" in type(attempt.error).__name__.lower()
    return attempt.verdict("", WRONG if says_missing else "")


@case("C30", "Read the record `x`; the record `y` comes")
def read_another_record(scene: Scene) -> Verdict:
    with scene.serve(lambda _: said({"data": row("y")})):
        attempt = scene.attempt(
            lambda: scene.http().get_record(id="x")["data"]["id"],
            lambda: scene.records().get("x").id,
        )
    facts = f"record `{attempt.result}` returned" if attempt.is_success else ""
    return attempt.verdict(facts, WRONG if attempt.is_success else "")


def read_all(scene: Scene, **options: Any) -> tuple[Callable[[], int], Callable[[], int]]:
    """Count all records of the list, with each client."""
    return (
        lambda: len(scene.http(**options).get_records(pages=inf)),
        lambda: len(scene.records(**options).all()),
    )


@case("D01", "Read a list; its `Next-Page` is on another host")
def follow_a_page_elsewhere(scene: Scene) -> Verdict:
    with serving(lambda _: said({"data": [row("evil")]}, ("ETag", '"5"'))) as other:
        answers = [said({"data": [row("good")]}, ("ETag", '"5"'), ("Next-Page", f"{other.url}{RECORDS}?_token=1"))]
        last = said({"data": [row("last")]}, ("ETag", '"5"'))
        with scene.serve(lambda _: answers.pop() if answers else last):
            attempt = scene.attempt(*read_all(scene, auth="Bearer t0k3n", headers={"X-Api-Key": "k3y"}))
    leaked = [name for name in ("authorization", "x-api-key") for request in other.requests if name in request.headers]
    facts = f"{' and '.join(leaked) or 'nothing'} sent to the other host"
    return attempt.verdict(facts, LEAKED if leaked else "")


@case("D02", "Read a list; its `Next-Page` leads back to the same page, for ever")
def follow_pages_in_a_circle(scene: Scene) -> Verdict:
    def script(request: Request) -> bytes:
        following = f"http://{request.headers['host']}/v1{RECORDS}?_token=1"
        return said({"data": [row("x")]}, ("ETag", '"5"'), ("Next-Page", following))

    with scene.serve(script) as front:
        attempt = scene.attempt(*read_all(scene))
    is_short = len(front.requests) < 10
    facts = f"{plural(len(front.requests), 'request')}" if is_short else "hundreds of requests"
    return attempt.verdict(facts, "" if is_short else STORMED)


@case("D05", "Read a list of 600 pages")
def read_many_pages(scene: Scene) -> Verdict:
    last = said({"data": [row("last")]}, ("ETag", '"5"'))
    with scene.serve(pages(600, lambda: last)):
        attempt = scene.attempt(*read_all(scene))
    return attempt.verdict(f"{attempt.result or 0} of 600 records read", FINE if attempt.result == 600 else CRASHED)

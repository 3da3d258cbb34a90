"""Rows F, G, H and I: values, secrets, redirects, lifetime, and the meaning of verbs."""

from __future__ import annotations

import pickle
from typing import Any

from kinto_orm import Record

from .front import Request, answer
from .scene import LEAKED, LOST, USER, WRONG, Cases, Scene, Verdict, plural

CASES = Cases()
case = CASES.case


@case("F13", "Store the integer 2^64 + 1")
def store_a_large_integer(scene: Scene) -> Verdict:
    scene.make()
    number = 2**64 + 1
    with scene.serve():
        attempt = scene.attempt(
            lambda: scene.http().create_record(id="x", data={"n": number}),
            lambda: scene.records().create(id="x", data={"n": number}),
        )
    record = scene.get("x")
    is_rounded = record is not None and record["n"] != number
    facts = "nothing stored" if record is None else f"{record['n']!r} stored"
    return attempt.verdict(facts, LOST if is_rounded else "")


@case("F41", 'Find the record whose code is the text `"123"`; another one has the number 123')
def filter_by_a_text_of_digits(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("text", code="123")
    scene.fill("number", code=123)
    with scene.serve():
        attempt = scene.attempt(
            lambda: [one["id"] for one in scene.http().get_records(code="123")],
            lambda: [one.id for one in scene.records().filter(code="123")],
        )
    return attempt.verdict(
        f"{' and '.join(attempt.result or ['nothing'])} found", "" if attempt.result == ["text"] else WRONG
    )


@case("G01", "Print a client that was given a password in its URL")
def print_a_client(scene: Scene) -> Verdict:
    with scene.serve() as front:
        url = f"http://user:{USER[1]}@{front.host}/v1"
        attempt = scene.attempt(
            lambda: repr(scene.http(server_url=url, auth=None)),
            lambda: repr(scene.orm(server_url=url, auth=None)),
        )
    is_shown = USER[1] in str(attempt.result)
    return attempt.verdict(f"password {'' if is_shown else 'not '}printed", LEAKED if is_shown else "")


@case("G10", "Replace a record; something in front of Kinto answers with a redirect (302)")
def replace_and_be_redirected(scene: Scene) -> Verdict:
    def script(request: Request) -> bytes:
        if request.is_write:
            return answer(b"", ("Location", request.target), status="302 Found")
        return scene.forward(request)

    scene.make()
    scene.fill("x", n="old")

    def with_orm() -> Any:
        record = scene.records().get("x")
        record.data["n"] = "new"
        return record.replace().data["n"]

    with scene.serve(script):
        attempt = scene.attempt(
            lambda: scene.http().update_record(id="x", data={"n": "new"})["data"]["n"],
            with_orm,
        )
    has_new = scene.get("x")["n"] == "new"
    facts = f"{'the new value' if has_new else 'nothing'} stored"
    return attempt.verdict(facts, LOST if attempt.is_success and not has_new else "")


@case("H01", "Pickle a client, for another process")
def pickle_a_client(scene: Scene) -> Verdict:
    with scene.serve():
        attempt = scene.attempt(
            lambda: pickle.dumps(scene.http()),
            lambda: pickle.dumps(scene.orm()),
        )
    holds_secret = attempt.is_success and USER[1].encode() in attempt.result
    facts = "" if not attempt.is_success else f"password {'' if holds_secret else 'not '}in it"
    return attempt.verdict(facts, LEAKED if holds_secret else "")


@case("I02", "Two clients read a record, then each adds 1 to its counter with a patch")
def count_together(scene: Scene) -> Verdict:
    scene.make()
    scene.fill("x", n=0)

    def with_http() -> None:
        both = [scene.http(), scene.http()]
        read = [one.get_record(id="x")["data"]["n"] for one in both]
        for client, n in zip(both, read, strict=True):
            client.patch_record(id="x", data={"n": n + 1})

    def with_orm() -> None:
        both = [scene.records().get("x"), scene.records().get("x")]
        for record in both:
            record.patch(n=record.data["n"] + 1)

    with scene.serve():
        attempt = scene.attempt(with_http, with_orm)
    n = scene.get("x")["n"]
    facts = f"{plural(n, 'increment')} stored"
    return attempt.verdict(facts, LOST if attempt.is_success and n != 2 else "")


@case("I04", "Write with a clone, for another user, of a client in dry mode")
def write_with_a_clone(scene: Scene) -> Verdict:
    scene.make()
    with scene.serve() as front:
        attempt = scene.attempt(
            lambda: scene.http(dry_mode=True).clone(auth=USER).create_record(id="x", data={"n": 1}),
            lambda: Record(id="x", data={"n": 1}, client=scene.orm(dry_mode=True).clone(auth=USER)).save(),
        )
    count = len(front.writes)
    return attempt.verdict(f"{plural(count, 'write')} sent", WRONG if count else "")

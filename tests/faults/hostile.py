"""A table of hostile answers, and how each public verb is called against them."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripted_server import Script, Server, answer, chunked, drip, hang, hang_up, page, reset, row, said, send_and_close
from test_public_api import TWINS

from kinto_orm import Account, Bucket, Client, Collection, EntryQuery, Group, History, Manager, Query, Record
from kinto_orm.jobs.plans import SyncPlan
from kinto_orm.models.managers import RecordManager
from kinto_orm.plugins.history import Snapshot
from kinto_orm.query.cached import CachedQuery
from kinto_orm.query.query import Partition
from kinto_orm.unit_of_work.unit_of_work import UnitOfWork

LARGEST = 1_000_000
"""Bytes: the ``max_response_bytes`` of the client."""

INFO = {
    "settings": {"batch_max_requests": 25},
    "capabilities": {
        name: {"base_url": "http://127.0.0.1:9/", "version": "1"}
        for name in (
            "attachments",
            "history",
            "signer",
            "changes",
            "accounts",
            "flush_endpoint",
            "permissions_endpoint",
        )
    },
}

QUICK: dict[str, Script] = {
    "nothing": hang_up,
    "reset": reset,
    "no-http": send_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "cut-headers": send_and_close(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "cut-body": send_and_close(answer(b'{"data": {"id": "x"}}')[:-5]),
    "cut-chunk": send_and_close(chunked(b'{"data":')[:-4]),
    "endless-header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    "bomb": answer(gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip"),
    "large": answer(b"[" + b" " * (LARGEST + 1) + b"]"),
    "broken-gzip": answer(b"[1]", "Content-Encoding: gzip"),
    "brotli": answer(b"[1]", "Content-Encoding: br"),
    "html": answer(b"<html>", "Content-Type: text/html"),
    "empty": answer(b""),
    "null": said(None),
    "text": said("text"),
    "number": said(5),
    "list": said([[], {}]),
    "deep": answer(b"[" * 100_000),
    "half-a-character": answer(b'{"data": {"id": "x", "last_modified": 5, "t": "\\ud800"}}'),
    "nan": answer(b'{"data": [NaN], "responses": [NaN]}'),
    "infinite": answer(
        b'{"data": {"id": "x", "last_modified": 5, "n": 1e999}, "responses": [{"status": 1e999, "body": 1e999}],'
        b'"settings": {"batch_max_requests": 1e999, "paginate_by": 1e999}, "code": 1e999, "errno": 1e999}'
    ),
    "no-id": said({"data": {}, "responses": [{}]}),
    "wrong-id": said({"data": row("another"), "permissions": {"write": [1]}}),
    "wrong-types": said({"data": [5, None, {"id": 7}], "responses": 5, "capabilities": 5, "settings": 5}),
    "other-count": said({"responses": [{"status": 200, "path": "/", "headers": {}, "body": {}}] * 3}),
    "status-599": said({"errno": 999}, "599 What"),
    "status-200-with-error": said({"errno": 105, "message": "\x1b[31m", "code": 403}),
    "errors-of-wrong-types": said({"errno": "x", "message": 5, "details": 7, "code": []}, "400 Bad"),
    "unauthorized": said({"errno": 104}, "401 No"),
    "conflict": said({"errno": 114, "details": {"existing": 5}}, "412 No"),
    "conflict-with-a-list": said({"errno": 114, "details": {"existing": [[]]}}, "412 No"),
    "redirect": answer(b"", "Location: http://[", status="302 Found"),
    "not-modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "interim-without-end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200,
    "next-page-elsewhere": said({"data": []}, "200 OK", "Next-Page: http://evil.test/v1/other?x=1"),
    "pages-in-a-circle": page("x", token=1),
    "headers-of-wrong-types": said({"data": []}, "200 OK", "ETag: x", "Total-Objects: -1", "Backoff: x", "Alert: ["),
    "endless-backoff": said({"errno": 201}, "503 Busy", "Retry-After: 9999999999", "Backoff: 9999999999"),
}
"""Answers that come at once."""

SLOW: dict[str, Script] = {
    "silence": hang,
    "dripping-head": drip(b"HTTP/1.1 200 " + b"O" * 900),
    "dripping-body": lambda connection: (
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"),
        drip(b" " * 900)(connection),
    )[0],
}
"""Answers that end by the deadline alone."""

VERBS = [one for one in TWINS if one != (Client, "close")]
"""Every public verb that has a twin; a new one is called, too."""


class Scene:
    """A client of a server that answers well while objects are made, and then as the table says."""

    def __init__(self, server: Server, folder: Path, **options: Any) -> None:
        self.server = server
        self.folder = folder
        limits: dict[str, Any] = {"timeout": (0.5, 0.4), "deadline": 0.5, "max_response_bytes": LARGEST}
        self.client = Client(server.url, auth="u:p", retry=1, **limits, **options)
        self.bucket = self.client.bucket("b")
        self.records: RecordManager[Record] = self.bucket.collection("c").records
        self.client._connection.server_info = json.loads(json.dumps(INFO))

    def loaded(self, one: Any, **data: Any) -> Any:
        """Return the object as it is after a good answer."""
        self.server.script = [said({"data": {**row(one.id), **data}, "permissions": {"write": ["account:u"]}})]
        return one.refresh()

    def record(self) -> Record:
        found: Record = self.loaded(
            Record(collection=self.bucket.collection("c"), id="x", client=self.client),
            attachment={"location": "a.txt", "filename": "a.txt", "size": 3, "hash": "0" * 64},
        )
        return found

    def target(self, surface: type[Any]) -> Any:
        """Return what the verbs of the surface are called on."""
        makers: dict[type[Any], Callable[[], Any]] = {
            Client: lambda: self.client,
            Account: lambda: self.loaded(Account(id="x", client=self.client)),
            Bucket: lambda: self.loaded(Bucket(id="x", client=self.client)),
            Group: lambda: self.loaded(Group(bucket=self.bucket, id="x", members=[], client=self.client), members=[]),
            Collection: lambda: self.loaded(
                Collection(bucket=self.bucket, id="x", client=self.client), status="to-review"
            ),
            Record: self.record,
            Query: lambda: self.records.filter(n=1),
            CachedQuery: lambda: self.records.filter(n=1).cached(),
            Manager: lambda: self.bucket.collections,
            RecordManager: lambda: self.records,
            UnitOfWork: self.unit,
            EntryQuery: lambda: self.client.permissions,
            History: lambda: self.bucket.history,
            Partition: lambda: Partition(self.records.filter().__kinto_reading__(), "a", "z", 5),
            Snapshot: lambda: self.records.as_of(1),
            SyncPlan: self.plan,
        }
        return makers[surface]()

    def collection(self) -> Any:
        return self.loaded(Collection(bucket=self.bucket, id="x", client=self.client), status="to-review")

    def unit(self) -> UnitOfWork:
        unit = self.client.unit_of_work()
        unit.save(Record(collection=self.bucket.collection("c"), id="x", data={"n": 1}, client=self.client))
        return unit

    def plan(self) -> Any:
        self.server.script = [page("x")]
        return self.records.plan([{"id": "y", "n": 1}])

    def saved_plan(self) -> tuple[Path]:
        self.plan().save(self.folder / "plan")
        return (self.folder / "plan",)

    def arguments(self, verb: str, surface: type[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call of the verb."""
        collection = self.bucket.collection("c")
        rows = [{"id": "x", "n": 1}, {"id": "y", "n": 2}]
        several = surface is Client
        given: dict[str, Callable[[], tuple[Any, ...]]] = {
            "get": lambda: (Record, "x") if surface is UnitOfWork else ("x",),
            "get_or_none": lambda: ("x",),
            "get_many": lambda: (["x", "y"],),
            "get_or_create": lambda: ("x",),
            "update_or_create": lambda: ("x", {"n": 1}),
            "partitions": lambda: (2,),
            "update": lambda: ({"n": 5},),
            "values": lambda: ("n",),
            "revert": lambda: (self.record(),) if surface is RecordManager else ("x",),
            "attach": lambda: (self.record(), b"abc"),
            "detach": lambda: (self.record(),),
            "download": lambda: (self.record(), self.folder / "f"),
            "ensure": lambda: (Bucket(id="new", client=self.client),),
            "decline": lambda: ("no",),
            "request_review": lambda: ("please",),
            "rollback": lambda: ("back",),
            "run": lambda: (self.client.__kinto_describe_server__(refresh=True),),
            "load_plan": self.saved_plan,
            "dump": lambda: (self.folder / "dump",),
            "load": lambda: (self.folder,),
            "copy_to": lambda: (self.client,),
            "schema_diff": lambda: (Record,),
        }
        if verb in ("bulk_create", "stream_create"):
            found: tuple[Any, ...] = ({collection: rows},) if several else (rows,)
        elif verb.startswith(("bulk_", "stream_")):
            changed = self.changed(surface)
            found = ({collection: [changed]},) if several else ([changed],)
        elif verb in ("sync", "plan", "diff"):
            found = (rows,)
        elif verb == "save" and surface is SyncPlan:
            found = (self.folder / "saved",)
        else:
            found = given[verb]() if verb in given else ()
        return found, self.keywords(verb, surface)

    def changed(self, surface: type[Any]) -> Any:
        one = self.target(Collection) if surface is Manager else self.record()
        one.data["n"] = 7
        return one

    @staticmethod
    def keywords(verb: str, surface: type[Any]) -> dict[str, Any]:
        keywords: dict[str, dict[str, Any]] = {
            "delete": {"everything": True} if hasattr(surface, "count") else {},
            "flush": {"everything": True},
            "purge": {"everything": True},
            "revert": {"to": 1},
            "server_info": {"refresh": True},
            "patch": {"n": 5},
            "dump": {"horizon": 0.5},
        }
        return keywords.get(verb, {})


def call(scene: Scene, surface: type[Any], verb: str, script: Script, *, awaited: bool) -> Any:
    """Call the verb while the server answers by the script; iterate what it returns."""
    target = scene.target(surface)
    arguments, keywords = scene.arguments(verb, surface)
    if verb == "save" and surface in (Account, Bucket, Collection, Group, Record):
        target.data["n"] = 7
    scene.server.script = [script]
    if not awaited:
        result = getattr(target, verb)(*arguments, **keywords)
        return list(result) if isinstance(result, Iterator) else result

    async def run() -> Any:
        name = "async_" if verb == "sync" else f"a{verb}"
        result = getattr(target, name)(*arguments, **keywords)
        if inspect.isawaitable(result):
            return await result
        return [one async for one in result]

    return asyncio.run(run())

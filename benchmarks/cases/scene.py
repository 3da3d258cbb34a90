"""One case for one client: the server, the attempt, and the verdict."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import kinto_http
import requests

import kinto_orm
from kinto_orm.models.managers import Manager

from . import pauses
from .front import Front, Request, Script, forwarder, serving

USER = ("user", "s3cr3t")
HTTP = "kinto-http"
ORM = "kinto_orm"
CLIENTS = (HTTP, ORM)
SECONDS_FOR_A_CASE = {HTTP: 4, ORM: 60}
"""What runs longer hangs. That kinto-http does is known; ours is tested for it, on busy machines too."""

LOST, LEAKED, WRONG, CRASHED, STORMED, HUNG, FINE = (
    "data lost", "leaked", "wrong", "crashed", "stormed", "hung", "fine",
)  # fmt: skip

RECORDS = "/buckets/b/collections/c/records"


@dataclass(frozen=True)
class Verdict:
    """The facts of a case, and one word for them."""

    facts: str
    word: str


@dataclass
class Attempt:
    """The actions of a client during one attempt."""

    seconds: int
    """How long it was waited for."""
    result: Any = None
    error: BaseException | None = None
    is_hanging: bool = False
    waits: list[float] = field(default_factory=list)
    """The pauses that it asked for, in seconds; none was really made."""

    @property
    def is_success(self) -> bool:
        return self.error is None and not self.is_hanging

    @property
    def is_foreign(self) -> bool:
        """Whether it failed with another error than the client's."""
        own = (kinto_orm.KintoError, kinto_http.KintoException)
        return self.error is not None and not isinstance(self.error, own)

    @property
    def end(self) -> str:
        """The result, in words."""
        if self.is_hanging:
            return f"still busy after {self.seconds} s"
        return "no error" if self.error is None else type(self.error).__name__

    def verdict(self, facts: str, worse: str = "") -> Verdict:
        """Return these facts and the result; ``worse`` is the word for them, if they are bad."""
        word = worse or (HUNG if self.is_hanging else CRASHED if self.is_foreign else FINE)
        return Verdict(", ".join(filter(None, (facts, self.end))), word)


class Scene:
    """A client and its server: an empty Kinto, behind a front that may misbehave."""

    def __init__(self, client: str, kinto: str) -> None:
        self.client = client
        self.kinto = kinto
        self.forward = forwarder(kinto)
        self.front: Front | None = None

    # -- the server -------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, data: Any = None) -> Any:
        """Return Kinto's answer to the case itself, past both clients."""
        body = None if data is None else {"data": data}
        answered = requests.request(method, self.kinto + path, json=body, auth=USER, timeout=5)
        if answered.status_code == 404:
            return None
        answered.raise_for_status()
        return answered.json()["data"]

    def fill(self, *ids: str, path: str = RECORDS, **data: Any) -> None:
        """Store objects with these ids."""
        for id in ids:
            self.ask("PUT", f"{path}/{id}", data)

    def make(self, bucket: str = "b", collection: str = "c") -> None:
        """Create an empty collection."""
        self.ask("PUT", f"/buckets/{bucket}", {})
        self.ask("PUT", f"/buckets/{bucket}/collections/{collection}", {})

    def rows(self, path: str = RECORDS) -> list[Any]:
        """Return all objects of that list."""
        found: list[Any] = self.ask("GET", path)
        return found

    def get(self, id: str) -> Any:
        """Return the record of that id, or ``None``."""
        return self.ask("GET", f"{RECORDS}/{id}")

    @contextmanager
    def serve(self, script: Script | None = None) -> Generator[Front]:
        """Return the front, with this script; without one it only forwards."""
        with serving(script or self.forward) as self.front:
            yield self.front

    # -- the client -------------------------------------------------------------------------------------------------

    def http(self, **options: Any) -> kinto_http.Client:
        """Return a client of kinto-http, with its defaults."""
        assert self.front
        defaults = {"server_url": self.front.url, "auth": USER, "bucket": "b", "collection": "c"}
        return kinto_http.Client(**{**defaults, **options})

    def orm(self, **options: Any) -> kinto_orm.Client:
        """Return a client of kinto_orm, with its defaults."""
        assert self.front
        defaults: dict[str, Any] = {"server_url": self.front.url, "auth": USER, "bucket": "b", "collection": "c"}
        return kinto_orm.Client(**{**defaults, **options})

    def records(self, **options: Any) -> Manager[kinto_orm.Record]:
        """Return the records of the collection, of kinto_orm."""
        return self.orm(**options).bucket("b").collection("c").records

    def attempt(self, with_http: Callable[[], Any], with_orm: Callable[[], Any]) -> Attempt:
        """Run the function in a thread, because it may hang, and return the attempt."""
        attempt = Attempt(seconds=SECONDS_FOR_A_CASE[self.client])
        act = with_http if self.client == HTTP else with_orm

        def run() -> None:
            with pauses.noted_in(attempt.waits):
                try:
                    attempt.result = act()
                except Exception as error:  # noqa: BLE001  # whatever it is: it is what the case is about
                    attempt.error = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(attempt.seconds)
        attempt.is_hanging = thread.is_alive()
        return attempt


Play: TypeAlias = Callable[[Scene], Verdict]


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    id: str
    """That of the fault matrix, as in ``tests/faults``."""
    tried: str
    play: Play


class Cases(list[Case]):
    """Cases, in their order."""

    def case(self, id: str, tried: str) -> Callable[[Play], Play]:
        """Add the function as this case."""

        def add(play: Play) -> Play:
            self.append(Case(id, tried, play))
            return play

        return add


def losing(scene: Scene, *, first: Callable[[Request], bytes | None]) -> Script:
    """Return a script that forwards, but does this instead with the first write."""
    left = [first]

    def script(request: Request) -> bytes | None:
        return left.pop()(request) if request.is_write and left else scene.forward(request)

    return script


def drop_answer(scene: Scene) -> Script:
    """Let Kinto apply the first write, then close the connection without an answer."""

    def drop(request: Request) -> None:
        scene.forward(request)

    return losing(scene, first=drop)


def plural(count: int, noun: str) -> str:
    """Return the number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

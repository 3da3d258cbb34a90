"""``demo``: a tour of kinto_orm on a real Kinto, with the characters of Unicode 3.2, which every Python has."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from unicodedata import ucd_3_2_0 as unicode

from pydantic import ConfigDict

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    ConflictError,
    F,
    Group,
    Outcome,
    Record,
    ResponseEvent,
    UnauthorizedError,
    UsageError,
    VerificationError,
)
from kinto_orm.cli.options import Command, SeenAuthAction
from kinto_orm.cli.screen import Exit, Screen, counted

BUCKET = "unicode"
EMBEDDED_USERS = ("alice:wonderland", "bob:builder")


class Character(Record, bucket=BUCKET, collection="characters"):
    """A character; its id is its code, such as ``0041``.

    ``upper`` is our name: the source says ``uppercase``, and the demo renames it on the server.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    category: str
    script: str
    upper: str | None = None
    likes: int = 0


class Word(Record, bucket=BUCKET, collection="words"):
    """The subject of the unit of work."""

    title: str
    letters: list[str]


def read_characters() -> Iterator[dict[str, str]]:
    """Yield the characters that have a name, without the 32,000 of East Asia whose name is their number."""
    for code in range(0x20, 0x10000):
        letter = chr(code)
        name = unicode.name(letter, "")
        if name and not name.startswith(("CJK", "HANGUL")):
            row = {"id": f"{code:04X}", "name": name, "category": unicode.category(letter), "script": name.split()[0]}
            upper = letter.upper()
            yield row if upper == letter else {**row, "uppercase": upper}


@dataclass
class Step:
    """One step of the tour, and its result."""

    name: str
    done: str = ""
    seconds: float = 0.0
    requests: int = 0


@dataclass
class Tour:
    """The tools of every step: two clients of the same server, the screen, the number of records to load."""

    screen: Screen
    limit: int | None
    steps: list[Step] = field(default_factory=list)
    requests: int = 0

    def count_request(self, sent: ResponseEvent) -> None:
        """Count a response; the client's ``on_response``."""
        self.requests += 1

    @contextmanager
    def step(self, name: str) -> Generator[Step]:
        """Time a step, which stores its result in ``done``."""
        step = Step(name)
        self.screen.say(f"\n{len(self.steps) + 1}. {name}", "bold")
        self.screen.flush()
        requests, started = self.requests, time.perf_counter()
        try:
            yield step
        except Exception:
            self.screen.complain(f"the demo failed at “{name}”:")
            raise
        step.seconds, step.requests = time.perf_counter() - started, self.requests - requests
        self.say(f"{step.done} ({step.seconds:.2f} s, {counted(step.requests, 'request')})")
        self.steps.append(step)

    def say(self, text: str) -> None:
        """Print text below the title of the step."""
        for line in text.splitlines():
            self.screen.hang(f"   {line}", 5)

    def summary(self) -> str:
        """Return the table of all steps."""
        rows = [(one.name, f"{one.requests:,}", f"{one.seconds:.2f} s") for one in self.steps]
        seconds = f"{sum(one.seconds for one in self.steps):.2f} s"
        rows = [("Step", "Requests", "Time"), *rows, ("Total", f"{self.requests:,}", seconds)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


# -- the verb ---------------------------------------------------------------------------------------------------------


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demo``."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="keep the data there, in PostgreSQL; without it, in memory")
    where.add_argument("-s", "--server", metavar="URL", help="a running server (the environment's is left alone)")
    parser.add_argument("-a", "--auth", action=SeenAuthAction, help="who takes the tour, user:password")
    parser.add_argument("--second-auth", action=SeenAuthAction, help="a colleague; without it the same user again")
    parser.add_argument("--limit", type=int, metavar="N", help="load at most so many records")


def run_demo(options: argparse.Namespace, screen: Screen) -> Exit:
    """Take the tour: each step on the server says what was done."""
    if options.server is not None and options.auth is None:
        raise UsageError("--server needs --auth: who takes the tour there?")
    tour = Tour(screen, options.limit)
    with ExitStack() as closing:
        first = closing.enter_context(_start(options, tour, closing))
        second_auth = options.second_auth or (EMBEDDED_USERS[1] if options.server is None else None)
        second = first.clone(auth=second_auth) if second_auth else first.clone()
        closing.callback(second.close)
        set_up(tour, first, second)
        load(tour)
        ask(tour)
        meet_conflict(tour, second)
        commit_unit(tour, first)
        sync_again(tour)
        rename_field(tour)
    screen.say(f"\n{tour.summary()}")
    screen.say("\nNext: https://kinto-orm.readthedocs.io, or kinto-orm serve and kinto-orm --help.")
    return Exit.DONE


def _start(options: argparse.Namespace, tour: Tour, closing: ExitStack) -> Client:
    with tour.step("Reach a server") as step:
        auth = options.auth or EMBEDDED_USERS[0]
        if options.server is not None:
            client = Client(options.server, auth=auth, on_response=tour.count_request)
        else:
            client = Client.embedded(options.data, auth=auth, on_response=tour.count_request)
        closing.callback(client.close)
        info = client.server_info()
        where = options.server or (f"PostgreSQL in {options.data}" if options.data else "in memory")
        step.done = f"{info['project_name']} {info['project_version']}, {where}"
    return client


# -- the steps --------------------------------------------------------------------------------------------------------


def set_up(tour: Tour, first: Client, second: Client) -> None:
    """Make sure that a bucket, a group that may write, and two collections exist, in one batch."""
    with tour.step("Set up") as step:
        bucket = Bucket(id=BUCKET, data={"description": "Unicode 3.2"}, permissions={"read": ["system.Everyone"]})
        editors = Group(bucket=bucket, id="editors", members=[_user_of(first), _user_of(second)])
        collections = [
            Collection(bucket=bucket, id=name, permissions={"write": [editors]}, sort="name")
            for name in ("characters", "words")
        ]
        outcomes = first.ensure(bucket, editors, *collections)
        step.done = f"{len(outcomes)} objects: {_by_status(outcomes)}"


def load(tour: Tour) -> None:
    """Create the missing records, in full batches."""
    with tour.step("Load the characters") as step, tour.screen.progress() as progress:
        there = {row["id"] for row in Character.records.values("id")}
        wanted = list(islice(read_characters(), tour.limit))
        missing = [one for one in wanted if one["id"] not in there]
        report = Character.records.bulk_create(missing, progress=progress)
        _check(Character.records.count() == len(there) + len(missing), "not all characters are on the server")
        step.done = f"{report.created:,} created, {len(wanted) - len(missing):,} there already"


def ask(tour: Tour) -> None:
    """Run typed queries; each is answered by the server."""
    with tour.step("Ask questions") as step:
        for question, answer in QUESTIONS:
            started = time.perf_counter()
            found = answer()
            tour.say(f"{1000 * (time.perf_counter() - started):7.1f} ms  {question}: {found}")
        step.done = f"{len(QUESTIONS)} questions answered"


def meet_conflict(tour: Tour, second: Client) -> None:
    """Let two users like one character at the same time: neither like may get lost."""
    with tour.step("Meet a conflict") as step:
        mine = _first_character()
        theirs = second.bucket(BUCKET).collection(Character).records.get(mine.id)
        before = mine.likes
        theirs.likes += 2
        theirs.save()
        mine.likes += 1
        try:
            mine.save()
        except ConflictError as conflict:
            tour.say(f"{mine.name}: the other user was faster.")
            for name in ("base", "mine", "theirs"):
                tour.say(f"  {name:<6}  likes = {getattr(conflict, name).get('likes', 'not there yet')}")
            conflict.reload()
            mine.likes += 1
            mine.save()
        else:
            raise VerificationError("a stale save was accepted")
        stored = Character.records.get(mine.id).likes
        _check(stored == before + 3, f"likes are lost: {before} + 2 + 1 gave {stored}")
        step.done = f"noticed and resolved: {before} + 2 + 1 = {stored} likes"


def commit_unit(tour: Tour, first: Client) -> None:
    """Send four writes that belong together as one batch."""
    with tour.step("Commit a unit of work") as step:
        draft = Word(title="A draft, not needed any more", letters=[]).save()
        letters = Character.records.order_by(Character.name).limit(2).all()
        with first.unit_of_work() as uow:
            Word(title="A word", letters=[one.id for one in letters]).save()
            for one in letters:
                one.likes += 1
                one.save()
            draft.delete()
            tour.say("The plan:")
            for write in uow.plan().writes:
                tour.say(f"  {_in_short(write.request)}")
        tour.say("What the server made of it:")
        for outcome in uow.outcomes:
            tour.say(f"  {outcome.status:<7}  {outcome.object!r}")
        step.done = f"{len(uow.outcomes)} writes in one batch: {_by_status(uow.outcomes)}"


def sync_again(tour: Tour) -> None:
    """Make the collection equal to the source, which it is: nothing is written."""
    with tour.step("Sync with the source") as step, tour.screen.progress() as progress:
        rows = islice(read_characters(), tour.limit)
        report = Character.records.sync(rows, fields=["name", "category", "script"], progress=progress)
        _check(report.unchanged == report.stored, "a sync of equal records wrote something")
        step.done = f"{report.unchanged:,} compared, nothing to write"


def rename_field(tour: Tour) -> None:
    """Rename ``uppercase``, the source's name, to our model's ``upper``: only records that have it are sent."""
    with tour.step("Rename a field") as step, tour.screen.progress() as progress:

        def rename(one: Character) -> None:
            if "uppercase" in one.data:
                one.upper = one.data.pop("uppercase")

        report = Character.records.update(rename, progress=progress)
        left = Character.records.filter(F("uppercase").has()).count()
        _check(left == 0, f"{left} records still have the old name")
        step.done = f"{report.updated:,} changed and sent, {report.unchanged:,} left alone"


# -- the questions ----------------------------------------------------------------------------------------------------


def _pages() -> str:
    sizes = [len(page.objects) for page in Character.records.page_size(1000).pages()]
    return f"{sum(sizes):,} in {counted(len(sizes), 'page')}"


def _names(found: Iterable[Character]) -> str:
    return ", ".join(one.name for one in found) or "none"


def _scripts() -> str:
    counts = Counter(one.script for one in Character.records.filter(Character.category == "Lu"))
    return ", ".join(f"{count} {script}" for script, count in counts.most_common(3))


QUESTIONS: tuple[tuple[str, Callable[[], object]], ...] = (
    ("How many characters", lambda: f"{Character.records.count():,}"),
    ("Greek letters called …MEGA", lambda: _names(Character.records.filter(F(Character.name).like("greek*mega")))),
    ("Capital letters by script", _scripts),
    ("The last three by name", lambda: _names(Character.records.order_by("-name").limit(3))),
    ("A, B and C in one request", lambda: _names(Character.records.get_many(["0041", "0042", "0043"]))),
    ("Names alone, of two", lambda: Character.records.limit(2).values(Character.name)),
    ("Page by page", _pages),
    ("A character that there is not", lambda: Character.records.get_or_none("XXXX")),
)


# -- small things -----------------------------------------------------------------------------------------------------


def _first_character() -> Character:
    found = Character.records.first()
    if found is None:
        raise VerificationError("there is no character")
    return found


def _user_of(client: Client) -> str:
    user = client.server_info(refresh=True).get("user")
    if not isinstance(user, dict):
        raise UnauthorizedError("the server does not accept the credentials: see --auth and --second-auth", status=401)
    return str(user["id"])


def _by_status(outcomes: Iterable[Outcome[Any]]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _in_short(request: Mapping[str, Any]) -> str:
    path = request["path"].removeprefix(f"/buckets/{BUCKET}/collections/").replace("/records/", "/")
    preconditions = ", ".join(f"{name}: {value}" for name, value in request["headers"].items())
    return f"{request['method']:<6}  {path}  {preconditions}  {request.get('body', {}).get('data', '')}".rstrip()


def _check(is_right: bool, complaint: str) -> None:  # noqa: FBT001 - an assertion that -O does not remove
    if not is_right:
        raise VerificationError(complaint)


COMMANDS = (
    Command(
        "demo",
        "Servers",
        "take a tour on a real Kinto inside this process",
        "kinto-orm demo --limit 1000",
        add_demo_options,
        run_demo,
        "A server in memory has forgotten it; with --data or --server, run it again.",
    ),
)

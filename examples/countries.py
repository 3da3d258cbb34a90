"""The tour that ``make demo`` runs: ISO countries, subdivisions and languages, on a real Kinto.

    python examples/countries.py                                   in memory, inside this process
    python examples/countries.py --data DIR                        on PostgreSQL, kept in DIR: run it twice
    python examples/countries.py --server URL --auth user:pass     on a server that is running

It needs ``pip install 'kinto-orm[server-postgres,cli]' pycountry``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from iso import (
    BUCKET,
    Country,
    Language,
    Subdivision,
    Trip,
    read_countries,
    read_languages,
    read_subdivisions,
)
from screen import Screen, progress

from kinto_orm import Bucket, Client, Collection, ConflictError, F, Group, KintoError, Outcome, Record

EMBEDDED_USERS = ("alice:wonderland", "bob:builder")


class DemoError(Exception):
    """A step of the demo had a wrong result."""


@dataclass(frozen=True)
class Tour:
    """The tools of every step: two clients of the same server, the screen, and the number of records to load."""

    first: Client
    second: Client
    screen: Screen
    limit: int | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 0 where every step succeeded."""
    options = parse(argv)
    screen = Screen()
    try:
        with closing(start(options, screen)) as client, client:
            second = client.clone(auth=options.second_auth) if options.second_auth else client.clone()
            take(Tour(client, second, screen, options.limit))
    except (KintoError, DemoError) as error:
        where = f" at “{screen.current.name}”" if screen.current is not None else ""
        print(f"\nThe demo failed{where}: {error}", file=sys.stderr)
        return 1
    print(f"\n{screen.summary()}")
    print("\nNext: read examples/countries.py and docs/index.md, try `make serve`, check it all with `make tests`.")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="A tour of kinto_orm on real data, on a real Kinto.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="keep the data there, in PostgreSQL; without it, in memory")
    where.add_argument("--server", metavar="URL", help="a running server, such as http://localhost:8888/v1")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="who runs the demo")
    parser.add_argument("--second-auth", metavar="USER:PASSWORD", help="the colleague; without it the same user again")
    parser.add_argument("--limit", type=positive, metavar="N", help="load at most N records into each collection")
    options = parser.parse_args(argv)
    if options.server is None:
        options.auth = options.auth or EMBEDDED_USERS[0]
        options.second_auth = options.second_auth or EMBEDDED_USERS[1]
    elif options.auth is None:
        parser.error("--server needs --auth")
    return options


def positive(text: str) -> int:
    """Return a number of records."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def start(options: argparse.Namespace, screen: Screen) -> Client:
    """Return a client of the chosen server."""
    with screen.step("Reach a server") as step:
        if options.server is not None:
            client = Client(options.server, auth=options.auth, on_response=screen.count_request)
        else:
            client = Client.embedded(options.data, auth=options.auth, on_response=screen.count_request)
        where = options.server or (f"PostgreSQL in {options.data}" if options.data else "in memory")
        step.done = f"{client.server_info()['project_name']} {client.server_info()['project_version']}, {where}"
    return client


def take(tour: Tour) -> None:
    """Run all the steps, in their order."""
    set_up(tour)
    load(tour, "countries", Country, read_countries())
    load(tour, "subdivisions", Subdivision, read_subdivisions())
    load(tour, "languages", Language, read_languages())
    ask(tour)
    meet_conflict(tour)
    commit_unit(tour)
    rename_field(tour)


# -- the steps ----------------------------------------------------------------------------------------------------


def set_up(tour: Tour) -> None:
    """Make sure that a bucket, a group that may write, and four collections exist, in one batch."""
    with tour.screen.step("Set up") as step:
        bucket = Bucket(
            id=BUCKET, data={"description": "ISO 3166 and ISO 639-3"}, permissions={"read": ["system.Everyone"]}
        )
        editors = Group(bucket=bucket, id="editors", members=[user_of(tour.first), user_of(tour.second)])
        collections = [
            Collection(bucket=bucket, id=name, permissions={"write": [editors]}, sort="name")
            for name in ("countries", "subdivisions", "languages", "trips")
        ]
        outcomes = tour.first.ensure(bucket, editors, *collections)
        step.done = f"{len(outcomes)} objects: {count_by_status(outcomes)}"


def load(tour: Tour, name: str, model: type[Record], source: Iterable[Mapping[str, str]]) -> None:
    """Create the missing records, in full batches."""
    with tour.screen.step(f"Load the {name}") as step:
        there = {row["id"] for row in model.records.values("id")}
        wanted = list(islice(source, tour.limit))
        missing = [one for one in wanted if one["id"] not in there]
        with progress(name, len(missing)) as advance:
            report = model.records.bulk_create(missing, on_outcome=advance)
        check(model.records.count() == len(there) + len(missing), f"not all {name} are on the server")
        step.done = f"{report.created:,} created, {len(wanted) - len(missing):,} there already"


def ask(tour: Tour) -> None:
    """Run typed queries; each is answered by the server."""
    with tour.screen.step("Ask questions") as step:
        for question, answer in QUESTIONS:
            started = time.perf_counter()
            found = answer()
            tour.screen.say(f"{1000 * (time.perf_counter() - started):7.1f} ms  {question}: {found}")
        step.done = f"{len(QUESTIONS)} questions answered"


def meet_conflict(tour: Tour) -> None:
    """Let two users count their visits to one country at the same time: neither visit may get lost."""
    with tour.screen.step("Meet a conflict") as step:
        mine = any_country()
        theirs = tour.second.bucket(BUCKET).collection(Country).records.get(mine.id)
        before = mine.visits
        theirs.visits += 2
        theirs.save()
        mine.visits += 1
        try:
            mine.save()
        except ConflictError as conflict:
            tour.screen.say(f"{mine.name}: the other user was faster.")
            for name in ("base", "mine", "theirs"):
                data = getattr(conflict, name)
                tour.screen.say(f"  {name:<6}  visits = {data.get('visits', 'not there yet')}")
            conflict.reload()
            mine.visits += 1
            mine.save()
        else:
            raise DemoError("a stale save was accepted")
        stored = Country.records.get(mine.id).visits
        check(stored == before + 3, f"visits are lost: {before} + 2 + 1 gave {stored}")
        step.done = f"noticed and resolved: {before} + 2 + 1 = {stored} visits"


def commit_unit(tour: Tour) -> None:
    """Send four writes that belong together as one batch."""
    with tour.screen.step("Commit a unit of work") as step:
        draft = Trip(title="A draft, not needed any more", stops=[]).save()
        stops = Country.records.order_by(Country.name).limit(2).all()
        with tour.first.unit_of_work() as uow:
            Trip(title="From A to Å", stops=[country.id for country in stops]).save()
            for country in stops:
                country.visits += 1
                country.save()
            draft.delete()
            tour.screen.say("The plan:")
            for write in uow.plan().writes:
                tour.screen.say(f"  {in_short(write.request)}")
        tour.screen.say("What the server made of it:")
        for outcome in uow.outcomes:
            tour.screen.say(f"  {outcome.status:<7}  {outcome.object!r}")
        step.done = f"{len(uow.outcomes)} writes in one batch: {count_by_status(uow.outcomes)}"


def rename_field(tour: Tour) -> None:
    """Rename ``parent_code``, the source's name, to our model's ``part_of``: only records that have it are sent."""
    with tour.screen.step("Rename a field") as step:

        def rename(one: Subdivision) -> None:
            if "parent_code" in one.data:
                one.part_of = one.data.pop("parent_code")

        report = Subdivision.records.update(rename)
        left = Subdivision.records.filter(F("parent_code").has()).count()
        check(left == 0, f"{left} records still have the old name")
        renamed = Subdivision.records.filter(F(Subdivision.part_of).has()).count()
        tour.screen.say(f"{renamed:,} subdivisions are part of another one.")
        step.done = f"{report.updated:,} changed and sent, {report.unchanged:,} left alone"


# -- the questions ------------------------------------------------------------------------------------------------


def named(objects: Iterable[Country | Language]) -> str:
    """Return their names, in one line."""
    return ", ".join(one.name for one in objects) or "none"


def kinds_of_parts() -> str:
    """Count the subdivisions of one country by kind: a query for the records, Python for the rest."""
    kinds = Counter(one.kind for one in Subdivision.records.filter(Subdivision.country == "BE"))
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"


def pages() -> str:
    """Return the number of pages of 1,000 languages."""
    sizes = [len(page.objects) for page in Language.records.page_size(1000).pages()]
    return f"{sum(sizes):,} in {len(sizes)} pages"


QUESTIONS: tuple[tuple[str, Callable[[], object]], ...] = (
    ("How many languages", lambda: f"{Language.records.count():,}"),
    ("Countries called United …", lambda: named(Country.records.filter(F(Country.name).like("united*")))),
    ("Without an official name", lambda: Country.records.filter(F(Country.official_name).has(present=False)).count()),
    (
        "Living languages with a two-letter code",
        lambda: Language.records.filter(F(Language.alpha_2).has(), Language.kind == "L").count(),
    ),
    ("The last three languages by name", lambda: named(Language.records.order_by("-name").limit(3))),
    ("JP, BR and FR in one request", lambda: named(Country.records.get_many(["JP", "BR", "FR"]))),
    ("Codes alone, of three", lambda: Country.records.limit(3).values(Country.alpha_2, Country.alpha_3)),
    ("Subdivisions of Belgium", kinds_of_parts),
    ("Page by page", pages),
    ("A country that there is not", lambda: Country.records.get_or_none("XX")),
)


# -- small things -------------------------------------------------------------------------------------------------


def any_country() -> Country:
    """Return the first country."""
    found = Country.records.first()
    if found is None:
        raise DemoError("there is no country")
    return found


def user_of(client: Client) -> str:
    """Return the client's user, as a principal."""
    user = client.server_info().get("user")
    if not isinstance(user, dict):
        raise DemoError("the server does not accept the credentials: see --auth and --second-auth")
    return str(user["id"])


def count_by_status(outcomes: Iterable[Outcome[Any]]) -> str:
    """Return a text such as: 1 created, 2 updated."""
    counts = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def in_short(request: Mapping[str, Any]) -> str:
    """Return a request of a plan, on one line."""
    path = request["path"].removeprefix(f"/buckets/{BUCKET}/collections/").replace("/records/", "/")
    preconditions = ", ".join(f"{name}: {value}" for name, value in request["headers"].items())
    return f"{request['method']:<6}  {path}  {preconditions}  {request.get('body', {}).get('data', '')}".rstrip()


def check(is_right: bool, complaint: str) -> None:  # noqa: FBT001 - an assertion that -O does not remove
    """Raise ``DemoError`` with the complaint where the condition does not hold."""
    if not is_right:
        raise DemoError(complaint)


if __name__ == "__main__":
    sys.exit(main())

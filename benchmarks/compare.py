"""``make comparison``: kinto-http and kinto_orm when something goes wrong, in ``docs/comparison.md``.

Each case is the same wish, once with each client, against a real Kinto in memory or a server that misbehaves. The table
shows the objects found on the server afterwards, and the client's answer.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from cases import ALL, CLIENTS, Case, Scene, Verdict

from kinto_orm.server import EmbeddedServer, listening

PAGE = Path(__file__).parents[1] / "docs" / "comparison.md"

HEAD = """\
# Beside kinto-http

{count} cases in which something goes wrong, with kinto-http {kinto_http} and kinto_orm {kinto_orm} on Kinto {kinto}.
`make comparison` runs each one with both clients and writes this page:
every cell is what was then found on the server, and how the call ended.

The numbers are those of the tests in `tests/faults`.
The cases were chosen because they tell; where both clients are right, there is nothing to show.
Both run with their defaults, unless a cell says otherwise; pauses between retries are counted, not made.

The last word of a cell sums it up:

- *data lost*: destroyed, doubled, or reported as stored when it is not;
- *leaked*: credentials went where they should not go;
- *wrong*: an answer that is not true or hides what happened, or an act that was not asked for;
- *crashed*: an error that is not one of the client's own;
- *stormed*: requests that do not help;
- *hung*: time or memory without a bound;
- *fine*.

Sums:

{sums}

| | What was tried | kinto-http | kinto_orm |
|---|---|---|---|
"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    logging.disable()
    warnings.simplefilter("ignore")
    rows: list[tuple[Case, Mapping[str, Verdict]]] = []
    with EmbeddedServer.memory(flush=True) as server, listening(server) as kinto:
        for case in ALL:
            verdicts = {}
            for client in CLIENTS:
                server.flush()
                verdicts[client] = case.play(Scene(client, kinto))
            rows.append((case, verdicts))
            print(_line(case, verdicts), flush=True)
        options.output.write_text(_page(rows), "utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, help="the page (default: %(default)s)")
    return parser.parse_args(arguments)


def _page(rows: Sequence[tuple[Case, Mapping[str, Verdict]]]) -> str:
    head = HEAD.format(
        count=len(rows),
        kinto_http=metadata.version("kinto-http"),
        kinto_orm=metadata.version("kinto-orm"),
        kinto=metadata.version("kinto"),
        sums="\n".join(_sum(client, (verdicts[client].word for _, verdicts in rows)) for client in CLIENTS),
    )
    return head + "".join(f"{_line(case, verdicts)}\n" for case, verdicts in rows)


def _sum(client: str, words: Iterable[str]) -> str:
    counted = ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
    return f"- {client}: {counted}."


def _line(case: Case, verdicts: Mapping[str, Verdict]) -> str:
    cells = [f"{verdicts[client].facts}: **{verdicts[client].word}**" for client in CLIENTS]
    return f"| {case.id} | {case.tried} | {cells[0]} | {cells[1]} |"


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a client that hangs has a thread that would be waited for

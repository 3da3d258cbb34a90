"""The figures of README.md, from ``docs/performance.md`` and ``docs/comparison.md``: the last step of both makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
BEGIN, END = "<!-- written by make bench and make comparison -->", "<!-- up to here -->"
STUB = "stub"
SHOWN = {
    "Read 100,000 records, typed": ("read records, 5000 a page (100,000)", STUB, "kinto_orm, typed"),
    "Write 10,000 new records, typed": ("write new records (10,000)", STUB, "kinto_orm, typed models"),
    "Save 1,000 changed records, one by one": ("save one changed record (1,000)", STUB, "kinto_orm"),
    "Save 10,000 loaded records of which 1 % changed": ("save loaded records, 1 % changed (10,000)", STUB, "kinto_orm"),
    "`import kinto_orm`": ("import (1)", STUB, "import kinto_orm"),
}
"""What the README calls a row of the page, and its work, server and contestant there."""


def main() -> None:
    """Write the figures into the README."""
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{block()}{after}", "utf-8")


def block() -> str:
    """Return the lines between the marks, and the marks."""
    performance, comparison = ((DOCS / name).read_text("utf-8") for name in ("performance.md", "comparison.md"))
    rows = [*verdict_rows(comparison), *processor_rows(performance)]
    return "\n".join([BEGIN, "", "| Measured | kinto-http | kinto_orm |", "| --- | --- | --- |", *rows, "", END])


def verdict_rows(page: str) -> Iterator[str]:
    """Yield how often each client did what, of the cases in which something goes wrong."""
    found = dict(re.findall(r"^- (kinto-http|kinto_orm): (.*)\.$", page, re.MULTILINE))
    (cases,) = re.findall(r"^(\d+) cases", page, re.MULTILINE)
    yield f"| {cases} cases in which something goes wrong | {found['kinto-http']} | {found['kinto_orm']} |"


def processor_rows(page: str) -> Iterator[str]:
    """Yield the processor time of the client, where that of kinto-http is 1."""
    ratios: dict[tuple[str, str, str], str] = {}
    work = ""
    for line in re.findall(r"^\|(.*)\|$", page, re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        work = cells[0] or work
        ratios.setdefault((work, cells[1], cells[2]), cells[3])
    for title, key in SHOWN.items():
        yield f"| {title}: processor time | 1 | {ratios[key]} |"


if __name__ == "__main__":
    main()

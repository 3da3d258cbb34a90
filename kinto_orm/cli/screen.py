"""What a verb shows: JSON Lines for programs, tables and coloured differences for people.

No text of a server reaches a terminal raw: characters that command it are escaped.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import sys
import textwrap
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from enum import IntEnum
from itertools import chain, islice
from typing import IO, Any

from kinto_orm import MISSING, BulkReport, GuardError, Outcome, Plan, PlannedChange, ProtocolError, ResponseError
from kinto_orm.cli_options import progress_bar
from kinto_orm.protocol.json_values import JSON, JSONObject
from kinto_orm.repository.state import Progress


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    DIFFERS = 1
    """The two sides differ, or a part failed."""
    USAGE = 2
    SERVER = 3
    """The server, or the way to it."""
    REFUSED = 4
    """A guard, or a person, said no; nothing was written."""
    INTERRUPTED = 130


ROWS_FOR_WIDTHS = 200
"""The rows that a table reads ahead, to choose its columns."""
NARROWEST = 6
"""The characters of a column to which others may leave it."""
COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
COLOUR_OF_KIND = {"create": "green", "update": "yellow", "delete": "red"}
MARKS = {"create": "+", "update": "~", "delete": "-"}


class Screen:
    """The output of one run of the command."""

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False) -> None:
        self.is_for_people = is_terminal(sys.stdout) and not as_json
        self.is_closed = False
        """Whether the reader of a pipe has gone: what writes goes on, what only reads may stop."""
        self.stored = 0
        """How many changes the server has confirmed, one by one."""
        self.written = 0
        """How many changes the steps of a job have told."""
        self.is_quiet = is_quiet
        self._has_colours = self.is_for_people and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # where the terminal knows ASCII only
        self._is_utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"

    # -- lines ----------------------------------------------------------------------------------------------------

    def say(self, text: str, colour: str = "") -> None:
        """Print a line; lines within the text are kept, other control characters are escaped."""
        lines = [self.coloured(escaped(line), colour) for line in text.split("\n")]
        self._write("\n".join(lines) + "\n")

    def hang(self, text: str, indent: int, colour: str = "") -> None:
        """Print a line; what does not fit into the terminal goes on below, with this indentation."""
        width = max(shutil.get_terminal_size().columns - indent, 1)
        lines = textwrap.wrap(text[indent:], width, break_on_hyphens=False)
        self.say(text[:indent] + f"\n{' ' * indent}".join(lines), colour)

    def show(self, value: JSON, *, indent: int | None = None) -> None:
        """Print a JSON value: one line, or several with ``indent``."""
        text = json.dumps(value, ensure_ascii=not self._is_utf8, indent=indent)
        self._write("\n".join(escaped_json(line) for line in text.split("\n")) + "\n")

    def note(self, text: str) -> None:
        """Print a line to stderr, unless the user wants silence."""
        if not self.is_quiet:
            self._write_beside(escaped(text))

    def complain(self, problem: BaseException | str) -> None:
        """Print what went wrong to stderr; the message of an error may quote a server."""
        # A server's words shall not look like lines of this program.
        is_quoting = isinstance(problem, ResponseError | ProtocolError)
        lines = [escaped(line) for line in message_of(problem).splitlines()]
        self._write_beside(f"kinto-orm: {(' ' if is_quoting else chr(10)).join(lines)}")

    def _write_beside(self, text: str) -> None:
        """Write a line to stderr, after what stdout has, and at once: another program may write there, too."""
        self.flush()
        sys.stderr.write(f"{text}\n")

    @staticmethod
    def said(value: JSON) -> str:
        """Return the text of a value within a difference."""
        return "(none)" if value is MISSING else json.dumps(value, ensure_ascii=False)

    def coloured(self, text: str, colour: str) -> str:
        """Return the text in a colour, where the terminal shows some."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if colour and self._has_colours else text

    def _write(self, text: str) -> None:
        if self.is_closed:
            return
        try:
            sys.stdout.write(text)
        except BrokenPipeError:
            self._close()

    def flush(self) -> None:
        """Print what is buffered."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            self._close()

    def _close(self) -> None:
        self.is_closed = True
        # Else the interpreter complains at its end, when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # -- objects --------------------------------------------------------------------------------------------------

    def show_all(self, rows: Iterable[JSONObject]) -> None:
        """Print each row: a line of JSON, or in a terminal the line of a table."""
        if self.is_for_people:
            found = False
            for line in table(rows, shutil.get_terminal_size().columns, self):
                found = True
                self._write(line)
            if not found:
                self.note("kinto-orm: nothing found")
            return
        for row in rows:
            self.show(row)
            if self.is_closed:
                return

    def show_change(self, change: PlannedChange) -> None:
        """Print a change: a line of JSON, or in a terminal each field that differs."""
        if not self.is_for_people:
            self.show(change.as_json())
            return
        key = f" ({change.key})" if change.key else ""
        self.say(f"{MARKS[change.kind]} {change.id}{key}", COLOUR_OF_KIND[change.kind])
        for path, old, new in change.differences():
            if change.kind == "create":
                self._write(f"    {escaped(path)}: {self.coloured(escaped(self.said(new)), 'green')}\n")
            else:
                self.show_difference(path, old, new)

    def show_difference(self, path: str, old: JSON, new: JSON) -> None:
        """Print the old and the new value of a field."""
        before, after = self.coloured(escaped(self.said(old)), "red"), self.coloured(escaped(self.said(new)), "green")
        self._write(f"    {escaped(path)}: {before} -> {after}\n")

    def show_outcome(self, outcome: Outcome[Any]) -> None:
        """Count the outcome of a write; print it in a pipe, unless nothing was written."""
        self.stored += outcome.status in ("created", "updated", "deleted")
        if outcome.status != "unchanged" and not self.is_for_people:
            error = {} if outcome.error is None else {"error": str(outcome.error)}
            self.show({"id": outcome.object.id, "status": outcome.status, **error})

    def show_report(self, report: BulkReport) -> None:
        """Print how many objects a job wrote, and why others were not stored."""
        for outcome in report.failed if self.is_for_people else ():
            self.say(f"{outcome.status}: {outcome.object.__kinto_path__().id}: {one_line(outcome.error)}", "red")
        counts = {name: getattr(report, name) for name in ("created", "updated", "deleted", "unchanged")}
        counts["failed"] = len(report.failed)
        self.sum_up(", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to do")

    def sum_up(self, text: str) -> None:
        """Print the last line; in a pipe that goes to stderr, beside the lines for each object."""
        if self.is_for_people:
            self.say(text)
        else:
            self.note(f"kinto-orm: {text}")

    def show_requests(self, plan: Plan) -> Exit:
        """Print the requests that a dry run would send."""
        for request in plan.as_json():
            if self.is_for_people:
                self.say(f"{request['method']} {request['path']}", "yellow")
                self._write(f"    {escaped_json(json.dumps(request.get('body'), ensure_ascii=False))}\n")
            else:
                self.show(request)
        return Exit.DIFFERS if plan.writes else Exit.DONE

    # -- people ---------------------------------------------------------------------------------------------------

    @contextmanager
    def progress(self, *, beside_output: bool = False) -> Generator[Progress]:
        """Yield a function that draws how far a long call is, where no output comes between.

        ``beside_output`` says that rows are printed all the time, in a terminal too.
        """
        is_free = is_file(sys.stdout) or (is_terminal(sys.stdout) and self.is_for_people and not beside_output)
        with nullcontext(_draw_nothing) if self.is_quiet or not is_free else progress_bar() as draw:
            last = 0

            def tell(done: int, total: int | None, what: str) -> None:
                nonlocal last
                if what in WRITING_STEPS:  # of a load, each collection begins with 0
                    self.written += done - last if done > last else done
                    last = done
                draw(done, total, what)

            yield tell

    def confirm(self, question: str, *, is_confirmed: bool) -> None:
        """Ask before something that cannot be undone; raise ``GuardError`` for any answer but yes.

        Without a terminal nothing is asked: ``--yes`` has to be said.
        """
        if is_confirmed:
            return
        if not can_ask():
            raise GuardError(f"{question} Nothing was done: there is no terminal to ask in, so say --yes.")
        print(f"{escaped(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise GuardError("Nothing was done.")


WRITING_STEPS = ("write records", "delete records")


def _draw_nothing(done: int, total: int | None, what: str) -> None: ...


def can_ask() -> bool:
    """Return whether there is a terminal in which a question can be asked and answered."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def is_terminal(stream: IO[str] | None) -> bool:
    """Return whether a person looks at the stream."""
    return stream is not None and stream.isatty()


def is_file(stream: IO[str]) -> bool:
    """Return whether the stream goes into a file, so that nothing of it is seen."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def escaped(text: str) -> str:
    """Return the text with each character that could command a terminal as an escape sequence of Python."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def escaped_json(text: str) -> str:
    """Return a line of JSON with the characters escaped that could command a terminal; it is the same JSON."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def one_line(error: object) -> str:
    """Return the message of an error as one line."""
    return " ".join(message_of(error).split())


IN_SHELL = {
    " (see client.server_info(refresh=True)['user'])": " (kinto-orm info shows it)",
    "A bucket that is missing is created by client.ensure()": (
        "kinto-orm put BUCKET/COLLECTION --parents creates what is missing"
    ),
    "client.ensure(Model), or ensure(Bucket(…), Collection(…)), creates": (
        "kinto-orm put BUCKET/COLLECTION --parents creates"
    ),
    "Check the credentials of the client (auth=…)": (
        "Check KINTO_AUTH, or --auth; for --from-server KINTO_FROM_AUTH, for --to-server KINTO_TO_AUTH"
    ),
    "See .violations, mend them, or push(force=True)": "kinto-orm schema check lists them: mend them, or add --force",
    " or the bucket refused it: .errors has the fields.": " or the bucket refused it.",
    "error.reconcile(known={id: last_modified}) gives the difference to the records that you have": (
        "without its token, kinto-orm changes prints every record"
    ),
    " refresh() it where that may have changed.": "",
    "Check server_url": "Check the URL of the server",
    "Is server_url": "Is that URL",
    "server_url is": "The URL of the server is",
    "allow_insecure=True": "--allow-insecure",
    "timestamps=True": "--timestamps",
}
"""Words of the library's messages that name Python, and what a shell says for them."""


def message_of(error: object) -> str:
    """Return the message of an error in the words of the command."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    for python, shell in IN_SHELL.items():
        text = text.replace(python, shell)
    return re.sub(r"max_deletes=(\d\.\d+|\d+)", lambda found: f"--max-deletes {_share(found[1])}", text)


def _share(text: str) -> str:
    return f"{float(text) * 100:g}%" if "." in text else text


def counted(count: int, noun: str) -> str:
    """Return a number of things: ``1 record``, ``2,000 records``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# -- tables -----------------------------------------------------------------------------------------------------------


def table(rows: Iterable[JSONObject], width: int, screen: Screen) -> Iterator[str]:
    """Yield the lines of a table; its columns are chosen by the first rows, the others are read as they come."""
    rows = iter(rows)
    first = list(islice(rows, ROWS_FOR_WIDTHS))
    if not first:
        return
    names = _columns(first)
    cells = [[cell(name, row.get(name, MISSING)) for name in names] for row in first]
    header = [escaped(name) for name in names]
    widths = _fitting([max(map(cells_of, column)) for column in zip(header, *cells, strict=True)], width)
    names = names[: len(widths)]
    yield screen.coloured(_line(header[: len(widths)], widths), "bold") + "\n"
    for row in chain(first, rows):
        yield _line([cell(name, row.get(name, MISSING)) for name in names], widths) + "\n"


def _columns(rows: Sequence[JSONObject]) -> list[str]:
    found = dict.fromkeys(chain.from_iterable(rows))
    ends = [name for name in ("last_modified",) if found.pop(name, 0) is None]
    starts = [name for name in ("id",) if found.pop(name, 0) is None]
    return [*starts, *found, *ends]


def _fitting(wanted: Sequence[int], width: int) -> list[int]:
    """Return the widths of the columns that fit into the terminal: the widest are cut first, then the last left out."""
    widths = [min(one, width) for one in wanted]
    while widths and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] > NARROWEST:
            widths[widest] -= 1
        elif len(widths) > 1:
            widths.pop()
        else:
            break
    return widths


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    padded = [_cut(text, width) for text, width in zip(texts, widths, strict=True)]
    return "  ".join(padded).rstrip()


def _cut(text: str, width: int) -> str:
    missing = width - cells_of(text)
    if missing >= 0:
        return text + " " * missing
    while cells_of(text) > width - 1:
        text = text[: max(0, min(len(text) - 1, width - 1))]
    return text + "…" + " " * (width - 1 - cells_of(text))


def cell(name: str, value: JSON) -> str:
    """Return the text of a value in a table."""
    if value is MISSING:
        return ""
    if name == "last_modified" and isinstance(value, int):
        return moment(value)
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def moment(timestamp: int) -> str:
    """Return a timestamp of Kinto as text, in UTC."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(timestamp)


_WIDE = re.compile(r"[^\x20-\x7e]")


def cells_of(text: str) -> int:
    """Return how many columns of a terminal the text takes: two for a wide character, none for a combining one."""
    if not _WIDE.search(text):
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )

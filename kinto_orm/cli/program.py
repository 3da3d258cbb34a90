"""The program: its verbs and their help, what a misspelled word meant, and the exit code of each error."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from kinto_orm import (
    CapabilityMissingError,
    CommitError,
    ConflictError,
    FeedLostError,
    GuardError,
    HistoryIncompleteError,
    KintoError,
    PermissionsUnknownError,
    ProtocolError,
    ResponseError,
    ReviewError,
    SchemaDiffersError,
    SchemaViolationsError,
    TransportError,
    VerificationError,
)
from kinto_orm.cli import backup, completion, demo, editing, jobs, manage, models, objects, server
from kinto_orm.cli.options import Command
from kinto_orm.cli.screen import Exit, Screen, counted

PROGRAM = "kinto-orm"


def add_completion_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``completion``."""
    parser.add_argument("shell", choices=list(completion.SHELLS), help="let it evaluate the output when it starts")


def run_completion(options: argparse.Namespace, screen: Screen) -> Exit:
    """Print the script that makes a shell complete verbs and options."""
    parsers = dict(_parsers(build_parser()))
    words = {name: completion.Words(one.summary, parsers[name].options) for name, one in COMMANDS.items()}
    screen.say(completion.script(options.shell, words).rstrip("\n"))
    return Exit.DONE


_COMPLETION = Command(
    "completion",
    "Models and shells",
    "print what makes bash, zsh or fish complete verbs and options",
    "kinto-orm completion bash >> ~/.bashrc",
    add_completion_options,
    run_completion,
)

COMMANDS = {
    one.name: one
    for one in (
        *server.COMMANDS,
        *demo.COMMANDS,
        *objects.COMMANDS,
        *editing.COMMANDS,
        *jobs.COMMANDS,
        *backup.COMMANDS,
        *manage.COMMANDS,
        *models.COMMANDS,
        _COMPLETION,
    )
}
"""The verbs, in the order of the help page."""

EXIT_CODES: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
    ((GuardError, SchemaViolationsError, ReviewError), Exit.REFUSED),
    ((CommitError, VerificationError, ConflictError, FeedLostError, SchemaDiffersError), Exit.DIFFERS),
    ((ResponseError, TransportError, ProtocolError), Exit.SERVER),
    ((CapabilityMissingError, HistoryIncompleteError, PermissionsUnknownError), Exit.SERVER),
    ((KintoError, OSError), Exit.USAGE),
)
"""The exit code of each error: that of the first row that has its class."""

END_OF_HELP = {
    "Where:": "PATH is bucket, bucket/collection or bucket/collection/record; -b and -c name what it is below. "
    "/buckets/main/groups/staff and /accounts/alexis, as Kinto writes them, name the other kinds.",
    "Server:": '--server and --auth, or KINTO_SERVER and KINTO_AUTH (user:password, or "Bearer token").',
    "Output:": "tables in a terminal, JSON Lines in a pipe; - is stdin.",
    "Exit:": "0 done or equal, 1 differs or partly failed, 2 usage, 3 server or network, 4 refused by a guard, "
    "130 interrupted.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = build_parser()
    if not (sys.argv[1:] if argv is None else argv):
        show_help()
        return Exit.USAGE
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        options.parser.refuse_unknown(unknown)
    command: Command = options.command
    screen = Screen(as_json=getattr(options, "json", False), is_quiet=_is_quiet(options))
    try:
        return command.run(options, screen)
    except (KintoError, OSError) as error:
        if isinstance(error, CommitError) and error.report is not None:
            screen.show_report(error.report)
            for outcome in error.report.failed if command.name in ("load", "copy") else ():
                screen.show_outcome(outcome)
            screen.flush()
            screen.complain("not all is stored: see above. Mend it, and run the same command again.")
            return Exit.DIFFERS
        screen.flush()
        screen.complain(error)
        return next(code for errors, code in EXIT_CODES if isinstance(error, errors))
    except KeyboardInterrupt:
        screen.flush()
        screen.complain(f"interrupted. {said_of_interrupt(command, screen)}".rstrip())
        return Exit.INTERRUPTED
    finally:
        screen.flush()


def _is_quiet(options: argparse.Namespace) -> bool:
    return (getattr(options, "verbosity", None) or 0) >= 50  # logging.CRITICAL


def said_of_interrupt(command: Command, screen: Screen) -> str:
    """Return what Ctrl-C left behind, and how to go on."""
    count = screen.stored or screen.written
    stored = f"The server has confirmed {counted(count, 'change')}. " if count else ""
    return f"{stored}{command.after_interrupt}"


# -- the parser -------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """A parser that says which word was meant, and takes no abbreviations: a script shall not change its meaning."""

    def __init__(self, **options: Any) -> None:
        given: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**given | options)
        self._is_parsing = False

    # Else "update main/cfg --dry-run title=Hello" leaves the last word over: options may stand between words.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # typeshed has overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Return the options, and the arguments that are left over."""
        if self._is_parsing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_parsing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_parsing = False

    @property
    def options(self) -> list[str]:
        """The options that it takes."""
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Print one line for what is wrong and one for where to look, and exit with 2."""
        if message.endswith("required: VERB"):
            message = f"a verb is missing: {', '.join(name for name, _ in _parsers(self))}"
        self.exit(Exit.USAGE, f"{self.prog}: {with_suggestion(message)}\nSee {self.prog} --help.\n")

    def refuse_unknown(self, arguments: Sequence[str]) -> NoReturn:
        """Exit because of arguments that the verb does not take."""
        first = arguments[0].partition("=")[0]
        known = self.options if first.startswith("-") else ()
        self.error(f"there is no {first!r} here{suggestion(first, known)}")


def with_suggestion(message: str) -> str:
    """Return a message of argparse, with the word that a wrong one may have meant."""
    found = re.search(r"^(.*?): invalid choice: '(.*?)' \(choose from (.*)\)$", message, re.DOTALL)
    if found is None:
        hint = r"\g<0> (one that begins with - is written \g<1>=-…)"
        return re.sub(r"^argument (?:-\w/)?(--[\w-]+).*: expected one argument$", hint, message)
    what, given, listed = found.groups()
    known = [one.strip().strip("'") for one in listed.split(",")]
    if what == "argument VERB":
        return f"there is no verb {given!r}{suggestion(given, [*known, '--help'])}"
    return f"{what}: it is {', '.join(known)}, not {given!r}{suggestion(given, known)}"


MIN_LIKENESS = 0.65
"""The likeness of a word and the one that it may have meant: 0 for none, 1 for the same."""


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return the question for the word that is nearest to the given one; nothing where none is near."""
    words = {one.strip("-"): one for one in known if len(one) > 2}  # dashes would make all options alike
    near = difflib.get_close_matches(given.strip("-"), words, 1, MIN_LIKENESS)
    return f": did you mean {words[near[0]]}?" if near else ""


def build_parser() -> Parser:
    """Return the parser of all verbs."""
    parser = Parser(prog=PROGRAM, add_help=False)
    parser.add_argument("-h", "--help", action=HelpPage, nargs=0)
    parser.add_argument("--version", action="version", version=f"%(prog)s {installed_version()}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    families: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        family, _, step = name.partition(" ")
        if step and family not in families:
            summary = ", ".join(one.partition(" ")[2] for one in COMMANDS if one.startswith(f"{family} "))
            families[family] = verbs.add_parser(family, description=summary).add_subparsers(
                required=True, metavar="VERB"
            )
        own = (families[family] if step else verbs).add_parser(
            step or name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}",
        )
        command.add_options(own)
        own.set_defaults(command=command, parser=own)
    return parser


def _parsers(parser: Parser, name: str = "") -> Iterator[tuple[str, Parser]]:
    """Yield the parser of each verb, with its name."""
    found = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    if not found:
        yield name, parser
    for step, below in found[0].items() if found else ():
        yield from _parsers(below, f"{name} {step}".strip())


class HelpPage(argparse.Action):
    """``--help`` of the program itself."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        """Print the page and exit."""
        show_help()
        parser.exit()


def show_help() -> None:
    """Print the page of the program: the verbs in groups, an example each."""
    screen = Screen()
    screen.say(f"usage: {PROGRAM} VERB [PATH] [options]")
    group = ""
    for command in COMMANDS.values():
        if command.group != group:
            group = command.group
            screen.say(f"\n{group}", "bold")
        screen.hang(f"  {command.name:<{NAME_WIDTH}}{command.summary}", NAME_WIDTH + 2)
        screen.hang(f"      $ {command.example}", 8, "dim")
    screen.say("")
    for name, text in END_OF_HELP.items():
        screen.hang(f"{name:<9}{text}", 9)
    screen.say(f"\n{PROGRAM} VERB --help shows the options of a verb.")
    screen.flush()


NAME_WIDTH = max(map(len, COMMANDS)) + 2


def installed_version() -> str:
    """Return the version of this distribution."""
    try:
        return version("kinto-orm")
    except PackageNotFoundError:
        return "(not installed)"

"""The program: its help, what a misspelled word meant, exit codes, and where its credentials come from."""

from __future__ import annotations

import io
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from command_line import Command
from scripted_server import Serve, said

from kinto_orm import (
    AlertWarning,
    CommitError,
    ConflictError,
    InvalidIdError,
    NotFoundError,
    PrincipalWarning,
    StalePlanError,
    errors,
)
from kinto_orm.cli import COMMANDS, program
from kinto_orm.cli.program import EXIT_CODES, build_parser, main
from kinto_orm.cli_options import client_from_args


class TestHelp:
    @pytest.mark.parametrize("width", [80, 120])
    def test_the_page_shows_each_verb_with_an_example(
        self, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as caught:
            main(["--help"])

        page = capsys.readouterr().out
        assert caught.value.code == 0
        said = " ".join(page.split())
        for command in COMMANDS.values():
            assert f"{command.name} {command.summary} $ {command.example}" in said
        assert max(map(len, page.splitlines())) <= width

    def test_without_a_verb_the_page_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert capsys.readouterr().out.startswith("usage: kinto-orm VERB")

    @pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
    def test_each_example_is_one_that_the_command_takes(
        self, command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("cfg.json").write_text("{}")
        (name, example) = next((name, one.example) for name, one in COMMANDS.items() if one is command)
        words = shlex.split(example.partition(" | ")[0].partition(" >")[0])

        options = build_parser().parse_args(words[1:])

        assert words[0] == "kinto-orm"
        assert options.command.name == name

    def test_the_help_of_a_verb_has_its_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["list", "--help"])

        assert COMMANDS["list"].example in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["schema"], "kinto-orm schema: a verb is missing: show, diff, check, push, pending\n"),
            (["help"], "kinto-orm: there is no verb 'help': did you mean --help?\n"),
            (["update", "a/b", "--unset", "n"], "kinto-orm update: there is no '--unset' here\n"),
            (["lst"], "kinto-orm: there is no verb 'lst': did you mean list?\nSee kinto-orm --help.\n"),
            (["xyzzy"], "kinto-orm: there is no verb 'xyzzy'\nSee kinto-orm --help.\n"),
            (["list", "--limt", "3"], "kinto-orm list: there is no '--limt' here: did you mean --limit?\n"),
            (["list", "--lim", "3"], "kinto-orm list: there is no '--lim' here: did you mean --limit?\n"),
            (["list", "a", "b"], "kinto-orm list: there is no 'b' here\n"),
            (["update", "a/b", "x=1", "--on-conflict", "merg"], "not 'merg': did you mean merge?\n"),
            (["list", "--sort", "-n"], "expected one argument (one that begins with - is written --sort=-…)\n"),
            (["serve", "--port", "many"], "invalid int value: 'many'\nSee kinto-orm serve --help.\n"),
        ],
    )
    def test_wrong_usage_is_one_line_that_says_the_near_word(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)

        assert caught.value.code == 2
        assert message in capsys.readouterr().err

    def test_credentials_in_clear_have_to_be_meant(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KINTO_AUTH", "alexis:p4ssw0rd")
        arguments = ["list", "-s", "http://kinto.example/v1"]

        assert main(arguments) == 2
        assert "or --allow-insecure where you trust the whole network" in capsys.readouterr().err
        with client_from_args(build_parser().parse_args([*arguments, "--allow-insecure"])) as client:
            assert client.server_url == "http://kinto.example/v1"
            client.close()

    def test_options_may_stand_between_words(self) -> None:
        options = build_parser().parse_args(["update", "main/cfg/a", "--dry-run", "title=Hello", "-q", "n=1"])

        assert options.values == [("title", "Hello"), ("n", 1)]

    def test_version_is_that_of_the_distribution(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(program, "version", lambda name: f"1.2.3 of {name}")

        with pytest.raises(SystemExit) as caught:
            main(["--version"])

        assert caught.value.code == 0
        assert capsys.readouterr().out == "kinto-orm 1.2.3 of kinto-orm\n"

    def test_version_is_unknown_where_nothing_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(program, "version", missing)

        assert program.installed_version() == "(not installed)"


class TestExitCodes:
    def test_every_error_has_one(self) -> None:
        raised = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BaseException)]

        codes = {one: next((code for bases, code in EXIT_CODES if issubclass(one, bases)), None) for one in raised}

        assert {one for one, code in codes.items() if code is None} == {AlertWarning, PrincipalWarning}
        assert codes[CommitError] == codes[ConflictError] == 1
        assert codes[InvalidIdError] == 2
        assert codes[NotFoundError] == 3
        assert codes[StalePlanError] == 4

    def test_ctrl_c_is_one_line_and_says_how_to_go_on(self, kinto: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("kinto_orm.cli.objects.connect", interrupted)

        run = kinto("put", "main/cfg/a", "n=1")

        assert run.code == 130
        assert run.err == "kinto-orm: interrupted. Run the same command again: it compares, and writes what is left.\n"


class TestCredentials:
    def test_a_password_on_the_command_line_is_taken_and_warned_of(self, kinto: Command) -> None:
        run = kinto("list", "-a", "alexis:p4ssw0rd")

        assert run.code == 0
        assert run.err == "kinto-orm: the list of processes shows what --auth says: KINTO_AUTH hides it.\n"
        assert kinto("list", "-q", "-a", "alexis:p4ssw0rd").err == ""
        assert kinto("list").err == ""

    def test_a_terminal_is_asked_for_the_password(self, kinto: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "p4ssw0rd")

        run = kinto.in_terminal("info", "-a", "alexis")

        assert run.code == 0
        assert asked == ["Please enter a password for alexis: "]
        assert "p4ssw0rd" not in run.out + run.err

    def test_nothing_is_asked_where_there_is_no_terminal(self, kinto: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        run = kinto("info", "-a", "alexis", stdin="p4ssw0rd\n")
        monkeypatch.setenv("KINTO_AUTH", "alexis")

        assert run.code == 2
        assert "no terminal to ask for the password of 'alexis'" in run.err
        assert kinto("info").code == 2

    def test_the_environment_of_a_job_is_read_only_where_that_is_said(
        self, kinto: Command, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = serve(said({"project_name": "kinto", "user": {"id": "x"}}))
        monkeypatch.setenv("SERVER", job.url)
        monkeypatch.setenv("AUTHORIZATION", "Bearer of-the-job")

        assert kinto("info").code == 0
        assert job.requests == []
        monkeypatch.delenv("KINTO_SERVER")
        assert kinto("info").code == 2
        monkeypatch.delenv("AUTHORIZATION")
        assert kinto("info", "--job-env").code == 2  # KINTO_AUTH is of another server
        assert job.requests == []
        monkeypatch.setenv("AUTHORIZATION", "Bearer of-the-job")
        assert kinto("info", "--job-env").code == 0
        assert "Bearer of-the-job" in str(job.requests)

    def test_the_environment_of_a_job_says_that_nothing_is_written(
        self, kinto: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DRY_RUN", "1")

        run = kinto("put", "main", "title=Main", "--job-env")

        assert (run.code, run.lines) == (1, [{"kind": "create", "id": "main", "new": {"title": "Main"}}])
        assert kinto("list").lines == []


class TestQuestions:
    @pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 4), ("\n", 4), ("", 4)])
    def test_a_terminal_is_asked_before_much_is_lost(self, answer: str, code: int, kinto: Command) -> None:
        kinto("put", "main")

        run = kinto.in_terminal("delete", "main", answers=answer)

        assert run.code == code
        assert "Delete /buckets/main and all that is in it? [y/N] " in run.err
        assert len(kinto("list").lines) == (code != 0)

    def test_without_a_terminal_it_has_to_be_said(self, kinto: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        kinto("put", "main")
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))

        run = kinto("delete", "main")

        assert run.code == 4
        assert "say --yes" in run.err
        assert kinto("delete", "main", "--yes").code == 0
        assert kinto("list").lines == []

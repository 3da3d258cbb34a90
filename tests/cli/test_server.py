"""The verbs about servers, as a user sees them."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from scripted_server import Serve, said

from kinto_orm import cli
from kinto_orm.cli.server import CLOSING
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.data_folder import read_pid_file

ROOT = Path(__file__).parents[2]
AUTH = ("alexis", "p4ssw0rd")
EVIL = "\x1b[2J\x1b]0;owned\x07"
"""Clears a terminal and sets its title."""


INTERRUPTED_WHILE_IT_CLOSES_A_CONNECTION = """
import os, signal, sys, threading

def interrupt(frame, event, argument):
    code = frame.f_code
    if event == "return" and code.co_name == "del_channel" and code.co_filename.endswith("channel.py"):
        os.kill(os.getpid(), signal.SIGINT)

threading.setprofile(interrupt)
sys.setprofile(interrupt)
"""


@contextmanager
def served(*arguments: str | Path, prelude: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``kinto-orm serve`` in another process; yield that and its URL."""
    program = f"{prelude}\nimport sys\nfrom kinto_orm.cli import main\nsys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, "serve", "--port", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        try:
            yield process, found.group()
        except BaseException:
            process.kill()
            raise


class TestServe:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_ends_it_quietly(self, number: signal.Signals) -> None:
        with served() as (process, url):
            assert requests.put(f"{url}/buckets/b", auth=AUTH, timeout=60).status_code == 201

            process.send_signal(number)

            assert process.wait(timeout=60) == 0
            assert process.communicate()[1] == ""

    def test_signal_in_the_middle_of_closing_a_connection_leaves_no_socket_open(self) -> None:
        with served(prelude=INTERRUPTED_WHILE_IT_CLOSES_A_CONNECTION) as (process, url):
            requests.get(f"{url}/", timeout=60)

            assert process.wait(timeout=60) == 0
            assert process.communicate()[1] == ""

    def test_data_is_kept_and_postgres_stopped(self, tmp_path: Path) -> None:
        with served("--data", tmp_path) as (process, url):
            assert requests.put(f"{url}/buckets/b", auth=AUTH, timeout=60).status_code == 201
            process.terminate()
            assert process.wait(timeout=60) == 0
        assert not (tmp_path / "postgresql" / "postmaster.pid").exists()

        with EmbeddedServer.postgres(tmp_path) as server, listening(server) as url:
            assert requests.get(f"{url}/buckets/b", auth=AUTH, timeout=60).status_code == 200

    def test_it_says_where_it_runs_and_how_to_stop_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Screen(io.StringIO):
            def flush(self) -> None:
                if signal.getsignal(signal.SIGTERM) not in before:
                    os.kill(os.getpid(), signal.SIGTERM)

        screen = Screen()
        monkeypatch.setattr("sys.stdout", screen)
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

        assert cli.main(["serve", "--port", "0"]) == 0

        said = screen.getvalue()
        assert re.search(r"running at http://127\.0\.0\.1:\d+/v1 \(in memory: nothing is kept\)", said)
        assert "Ctrl-C" in said
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "no-such-host.invalid"])
    def test_o13_a_host_that_others_reach_has_to_be_meant(self, host: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["serve", "--port", "0", "--host", host]) == 4

        said = capsys.readouterr().err
        assert "nothing is encrypted; any name:password is a user" in said
        assert "anybody may create accounts; the pages of every web site may call it" in said
        assert "Add --open" in said
        assert "--set multiauth.policies=account --set account_create_principals= --set cors_origins=" in said

    def test_o13_a_server_that_is_open_says_so(self) -> None:
        with served("--host", "0.0.0.0", "--open") as (process, url):
            assert process.stdout is not None
            assert "Open to other machines: nothing is encrypted; any name" in process.stdout.readline()
            headers = {"Origin": "https://evil.example"}
            assert requests.get(f"{url}/", headers=headers, timeout=60).headers["Access-Control-Allow-Origin"] == "*"
            process.terminate()

    def test_o13_the_settings_that_close_a_server_close_it(self, tmp_path: Path) -> None:
        with served("--data", tmp_path) as (process, url):
            requests.put(f"{url}/accounts/alexis", json={"data": {"password": "p4ssw0rd"}}, timeout=60)
            process.terminate()

        with served("--data", tmp_path, "--host", "0.0.0.0", "--open", *" ".join(CLOSING).split()) as found:
            process, url = found
            assert process.stdout is not None
            assert "Open to other machines: nothing is encrypted. Stop" in process.stdout.readline()
            assert requests.put(f"{url}/accounts/eve", json={"data": {"password": "x"}}, timeout=60).status_code == 401
            assert requests.put(f"{url}/buckets/b", auth=("eve", "x"), timeout=60).status_code == 401
            assert requests.put(f"{url}/buckets/b", auth=AUTH, timeout=60).status_code == 201
            headers = {"Origin": "https://evil.example"}
            assert "Access-Control-Allow-Origin" not in requests.get(f"{url}/", headers=headers, timeout=60).headers
            process.terminate()

    @pytest.mark.parametrize(
        ("setting", "message"),
        [("x", "a setting is NAME=VALUE"), ("=x", "a setting is NAME=VALUE"), ("flush=x", ""), ("data_dir=x", "")],
    )
    def test_a_setting_is_a_name_and_a_value(
        self, setting: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if message:
            with pytest.raises(SystemExit):
                cli.main(["serve", "--set", setting])
        else:  # names of arguments are settings like any other
            assert cli.main(["serve", "--set", setting, "--port", "-1"]) == 2
            message = "0 to 65535"

        assert message in capsys.readouterr().err

    def test_settings_that_kinto_refuses_are_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["serve", "--set", "kinto.storage_backend=no_such_backend"]) == 2

        assert re.fullmatch(r"kinto-orm: Kinto does not start with these settings: .*\n", capsys.readouterr().err)

    def test_o12_it_ends_with_the_reason_where_postgres_does(self, tmp_path: Path) -> None:
        with served("--data", tmp_path) as (process, url):
            (tmp_path / "postgresql" / "postgresql.conf").unlink()
            os.kill(read_pid_file(tmp_path / "postgresql" / "postmaster.pid")[0], signal.SIGKILL)
            time.sleep(0.2)

            assert requests.get(f"{url}/buckets", auth=AUTH, timeout=30).json()["message"] == "This server has ended."
            assert process.wait(timeout=60) == 3

            said = process.communicate()[1]
        assert said.startswith(f"kinto-orm: PostgreSQL's pg_ctl failed on {tmp_path}")
        assert "postgresql.conf" in said
        assert "Traceback" not in said

    def test_port_in_use_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with EmbeddedServer.memory() as server, listening(server) as url:
            code = cli.main(["serve", "--port", url.split(":")[2].removesuffix("/v1")])

        assert code == 2
        assert re.fullmatch(r"kinto-orm: Cannot listen on .*already in use: stop .*\n", capsys.readouterr().err)

    @pytest.mark.parametrize(("data", "message"), [("", "is empty"), (__file__, "not a directory")])
    def test_data_that_is_no_folder_is_one_line(
        self, data: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["serve", "--data", data]) == 2
        assert re.fullmatch(f"kinto-orm: .*{message}.*\n", capsys.readouterr().err)

    def test_it_runs_in_other_threads_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(cli.main(["serve", "--port", "-1"])))

        thread.start()
        thread.join()

        assert codes == [2]
        assert "0 to 65535" in capsys.readouterr().err

    def test_missing_extra_shows_the_line_that_installs_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "waitress.server", None)

        assert cli.main(["serve"]) == 2
        assert "pip install 'kinto-orm[server]'" in capsys.readouterr().err


@pytest.fixture
def url(kinto_server: EmbeddedServer) -> Iterator[str]:
    with listening(kinto_server) as url:
        yield url


class TestInfo:
    def test_it_shows_the_server_and_who_asks(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["info", "-s", url, "-a", "alexis:p4ssw0rd"]) == 0

        shown = capsys.readouterr()
        rows = dict(re.findall(r"^(\w[\w ]*\w) {2,}(.*)$", shown.out, re.MULTILINE))
        assert rows["Server"] == url
        assert re.fullmatch(r"\d+\.\d+\.\d+ \(API \d+\.\d+\)", rows["Version"])
        assert rows["User"].startswith("basicauth:")
        assert rows["Read only"] == "no"
        assert "25 requests in a batch" in rows["Limits"]
        assert {"accounts", "default_bucket", "history"} <= set(rows["Capabilities"].split(", "))
        assert "p4ssw0rd" not in shown.out + shown.err

    def test_it_prints_all_of_it_as_json(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["info", "-s", url, "--json"]) == 0

        assert json.loads(capsys.readouterr().out)["project_name"] == "kinto"

    def test_the_environment_names_server_and_credentials(
        self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KINTO_SERVER", url)
        monkeypatch.setenv("KINTO_AUTH", "alexis:p4ssw0rd")

        assert cli.main(["info"]) == 0
        by_environment = capsys.readouterr().out
        assert cli.main(["info", "-a", "bob:secret"]) == 0

        assert "basicauth:" in by_environment
        assert by_environment != capsys.readouterr().out

    def test_nobody_is_told_apart_from_somebody_unknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        with EmbeddedServer.memory(**{"multiauth.policies": "account"}) as server, listening(server) as url:
            assert cli.main(["info", "-s", url]) == 0
            assert "nobody" in capsys.readouterr().out
            assert cli.main(["info", "-s", url, "-a", "alexis:p4ssw0rd", "-q"]) == 3

        shown = capsys.readouterr()
        assert "Version" in shown.out
        assert shown.err == "kinto-orm: The server does not know these credentials: check --auth, or KINTO_AUTH.\n"

    def test_without_a_server_it_says_how_to_name_one(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("KINTO_SERVER", raising=False)

        assert cli.main(["info"]) == 2
        assert "use --server" in capsys.readouterr().err

    def test_a_server_that_is_not_there_is_one_line(self, dead_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["info", "-s", dead_url, "--retry", "0"]) == 3
        assert re.fullmatch(r"kinto-orm: GET / .*nothing was sent.*\n", capsys.readouterr().err)

    def test_credentials_that_are_none_are_wrong_usage_and_not_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["info", "-a", "Bearer s3cr3t\u00e9"])

        shown = capsys.readouterr().err
        assert caught.value.code == 2
        assert "argument -a/--auth: A token is made of visible ASCII" in shown
        assert "s3cr3t" not in shown

    def test_debug_shows_what_is_sent_without_secrets(self, url: str, capfd: pytest.CaptureFixture[str]) -> None:
        program = "import sys; from kinto_orm.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, "info", "-s", url, "-a", "alexis:p4ssw0rd", "-D"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

        assert "GET /: 200" in done.stderr
        assert "p4ssw0rd" not in done.stdout + done.stderr

    def test_what_a_server_says_does_not_command_the_terminal(
        self, serve: Serve, capsys: pytest.CaptureFixture[str]
    ) -> None:
        evil = serve(said({"project_version": "\x1b[2J", "settings": {"readonly": True}, "eos": "2030-01-01"}))

        assert cli.main(["info", "-s", evil.url]) == 0

        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert re.search(r"Version +\\x1b\[2J \(API unknown\)", shown)
        assert re.search(r"Read only +yes", shown) and re.search(r"End of life +2030-01-01", shown)

    @pytest.mark.parametrize(
        "answer",
        [
            {"settings": 5, "user": "x", "capabilities": 3},
            {"user": {"id": {"a": EVIL}, "principals": 5, "bucket": [EVIL]}, "settings": {"paginate_by": {"a": EVIL}}},
            {"capabilities": {EVIL: 1, "b\nc": 2}, "eos": ["\nkinto-orm: all is well"]},
            {"project_version": EVIL * 100_000},
        ],
    )
    @pytest.mark.parametrize("option", ["-q", "-D"])
    def test_o07_a_root_that_is_none_is_shown_as_far_as_it_goes(
        self, answer: Any, option: str, serve: Serve, capsys: pytest.CaptureFixture[str]
    ) -> None:
        evil = serve(said(answer))

        assert cli.main(["info", "-s", evil.url, option]) == 0

        shown = capsys.readouterr()
        assert "Server" in shown.out
        assert len(shown.out) < 2000
        assert not {"\x1b", "\x07", "\r"} & set(shown.out + shown.err)
        assert all(re.match(r"\w[\w ]{13}\S", line) for line in shown.out.splitlines())

    @pytest.mark.parametrize("status", ["401 No", "404 No", "500 No"])
    @pytest.mark.parametrize("option", ["-q", "-D"])
    def test_o07_an_error_is_one_line_of_visible_characters(
        self, status: str, option: str, serve: Serve, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = f"no\nkinto-orm: all is well\r{EVIL}" + "x" * 100_000
        evil = serve(*[said({"code": 1, "errno": 1, "error": words, "message": words}, status)] * 5)

        assert cli.main(["info", "-s", evil.url, option, "--retry", "0"]) == 3

        shown = capsys.readouterr().err
        assert not {"\x1b", "\x07", "\r"} & set(shown)
        (line,) = [line for line in shown.splitlines() if line.startswith("kinto-orm")]
        assert line.startswith("kinto-orm: GET /: ") and len(line) < 1000

"""The embedded server: what a real Kinto answers, on memory and on PostgreSQL, without a socket and with one."""

import gc
import io
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
import requests

from kinto_orm import Bucket, Client, Collection
from kinto_orm.errors import MissingExtraError, UsageError
from kinto_orm.server import EmbeddedServer, ServerThread, listening, serve
from kinto_orm.server.adapter import WSGIAdapter
from kinto_orm.server.application import import_extra

pytest_plugins = ["pytester"]
# Python 3.12 warns of a fork beside threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

COLLECTION = "/buckets/payments/collections/receipts"
RECORDS = f"{COLLECTION}/records"

Call = Callable[..., requests.Response]


def caller(server: EmbeddedServer, user: str = "alexis", password: str = "p4ssw0rd") -> Call:
    """Send a request as that user: ``call("PUT", "/buckets/b", {"data": {}}, If_Match='"1"')``."""
    session = requests.Session()
    session.mount(server.url, server.adapter())
    session.auth = (user, password)

    def call(method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if path.startswith("http") else server.url + path
        return session.request(method, url, json=body, headers=named)

    return call


def create_collection(call: Call, **data: Any) -> None:
    assert call("PUT", "/buckets/payments").status_code == 201
    assert call("PUT", COLLECTION, {"data": data}).status_code == 201


def create_account(server: EmbeddedServer, name: str, password: str) -> None:
    with requests.Session() as anonymous:
        anonymous.mount(server.url, server.adapter())
        answer = anonymous.put(f"{server.url}/accounts/{name}", json={"data": {"password": password}})
    assert answer.status_code == 201


def user_id(call: Call) -> str:
    return str(call("GET", "/").json()["user"]["id"])


@pytest.fixture(scope="module", params=["memory", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    if request.param == "memory":
        server = EmbeddedServer.memory()
    else:
        server = EmbeddedServer.postgres(tmp_path_factory.mktemp("data"))
    with server:
        yield server


@pytest.fixture
def server(shared: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """An empty server, of either kind."""
    yield shared
    shared.flush()


@pytest.fixture
def call(server: EmbeddedServer) -> Call:
    return caller(server)


@pytest.fixture(scope="module")
def memory() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory() as server:
        yield server


class TestEitherKind:
    def test_record_is_read_as_it_was_written(self, call: Call) -> None:
        create_collection(call)

        created = call("PUT", f"{RECORDS}/r1", {"data": {"title": "Café ☕", "amount": 2**53 + 1}})
        read = call("GET", f"{RECORDS}/r1")

        assert created.status_code == 201
        assert read.json() == created.json()
        assert read.json()["data"]["title"] == "Café ☕"
        assert read.json()["data"]["amount"] == 2**53 + 1
        assert read.headers["ETag"] == f'"{read.json()["data"]["last_modified"]}"'

    def test_batch_answers_each_request(self, call: Call) -> None:
        create_collection(call)
        put, get = {"method": "PUT", "path": f"{RECORDS}/r1"}, {"path": f"{RECORDS}/r2"}

        answer = call("POST", "/batch", {"requests": [put | {"body": {"data": {"n": 1}}}, get]})

        assert [each["status"] for each in answer.json()["responses"]] == [201, 404]
        assert call("GET", f"{RECORDS}/r1").json()["data"]["n"] == 1

    def test_another_password_is_another_user(self, server: EmbeddedServer) -> None:
        mine, same, other = (caller(server, password=password) for password in ("a", "a", "b"))

        create_collection(mine)

        assert user_id(mine) == user_id(same) != user_id(other)
        assert same("GET", "/buckets/payments").status_code == 200
        assert other("GET", "/buckets/payments").status_code == 403

    def test_anybody_can_create_an_account(self, server: EmbeddedServer) -> None:
        create_account(server, "bob", "s3cret")

        assert user_id(caller(server, "bob", "s3cret")) == "account:bob"

    def test_history_has_an_entry_for_each_write(self, call: Call) -> None:
        create_collection(call)
        call("PUT", f"{RECORDS}/r1", {"data": {"n": 1}})
        call("PATCH", f"{RECORDS}/r1", {"data": {"n": 2}})

        entries = call("GET", "/buckets/payments/history?record_id=r1&_sort=last_modified").json()["data"]

        assert [(entry["action"], entry["target"]["data"]["n"]) for entry in entries] == [("create", 1), ("update", 2)]

    def test_record_that_breaks_the_schema_is_refused(self, call: Call) -> None:
        create_collection(call, schema={"type": "object", "properties": {"n": {"type": "integer"}}})

        assert call("PUT", f"{RECORDS}/r1", {"data": {"n": "one"}}).status_code == 400
        assert call("PUT", f"{RECORDS}/r1", {"data": {"n": 1}}).status_code == 201

    def test_permissions_endpoint_lists_what_the_user_may_write(self, call: Call) -> None:
        create_collection(call)

        entries = {entry["uri"]: entry["permissions"] for entry in call("GET", "/permissions").json()["data"]}

        assert "write" in entries[COLLECTION]

    def test_default_bucket_is_made_at_first_use(self, call: Call) -> None:
        answer = call("PUT", "/buckets/default/collections/notes/records/n1", {"data": {"text": "hi"}})

        assert answer.status_code == 201
        assert call("GET", f"/buckets/{call('GET', '/').json()['user']['bucket']}").status_code == 200

    def test_flush_removes_objects_permissions_and_accounts(self, server: EmbeddedServer, call: Call) -> None:
        create_collection(call)
        create_account(server, "alexis", "p4ssw0rd")
        assert user_id(call) == "account:alexis"

        server.flush()

        assert call("GET", "/buckets").json()["data"] == []
        assert call("GET", "/permissions?resource_name=bucket").json()["data"] == []
        assert user_id(call).startswith("basicauth:")

    def test_writes_of_eight_threads_are_all_there(self, server: EmbeddedServer, call: Call) -> None:
        create_collection(call)
        writes = 10

        def write(number: int) -> list[int]:
            own = caller(server)
            return [own("PUT", f"{RECORDS}/r{number}-{n}", {"data": {}}).status_code for n in range(writes)]

        with ThreadPoolExecutor(8) as pool:
            statuses = [status for written in pool.map(write, range(8)) for status in written]

        assert statuses == [201] * 8 * writes
        assert call("HEAD", RECORDS).headers["Total-Objects"] == str(8 * writes)

    def test_one_of_six_simultaneous_writers_wins(self, server: EmbeddedServer, call: Call) -> None:
        create_collection(call)
        seen = call("PUT", f"{RECORDS}/r1", {"data": {"n": 0}}).headers["ETag"]
        start = threading.Barrier(6)

        def write(number: int) -> int:
            own = caller(server)
            start.wait()
            return own("PUT", f"{RECORDS}/r1", {"data": {"n": number}}, If_Match=seen).status_code

        with ThreadPoolExecutor(6) as pool:
            statuses = sorted(pool.map(write, range(1, 7)))

        assert statuses == [200, 412, 412, 412, 412, 412]

    def test_pages_are_followed_by_their_links(self, call: Call, server: EmbeddedServer) -> None:
        create_collection(call)
        for number in range(5):
            call("PUT", f"{RECORDS}/r{number}", {"data": {}})

        sizes, next_page = [], f"{RECORDS}?_limit=2&_sort=id"
        while next_page:
            page = call("GET", next_page)
            sizes.append(len(page.json()["data"]))
            next_page = page.headers.get("Next-Page", "")
            assert next_page.startswith(server.url) or not next_page

        assert sizes == [2, 2, 1]

    @pytest.mark.parametrize("body", [b'{"data": {"n": NaN}}', b'{"data": {"n": "\xff"}}', b'{"data"'])
    def test_body_that_is_no_json_is_refused(self, server: EmbeddedServer, call: Call, body: bytes) -> None:
        create_collection(call)
        session = requests.Session()
        session.mount(server.url, server.adapter())

        answer = session.put(f"{server.url}{RECORDS}/r1", data=body, auth=("alexis", "p4ssw0rd"))

        assert answer.status_code == 400
        assert answer.json()["message"].startswith("Invalid JSON")

    def test_heartbeat_says_that_all_is_well(self, call: Call) -> None:
        answer = call("GET", "/__heartbeat__")

        assert answer.status_code == 200
        assert all(answer.json().values())

    def test_forked_child_can_call_the_server_while_threads_use_it(self, server: EmbeddedServer, call: Call) -> None:
        create_collection(call)
        stopped = threading.Event()

        def keep_busy() -> None:
            own = caller(server)
            while not stopped.is_set():
                own("GET", RECORDS)
                time.sleep(0.001)  # or the other threads hardly get a turn

        busy = threading.Thread(target=keep_busy)
        busy.start()
        exit_codes = [exit_code_of_child(lambda: caller(server)("GET", RECORDS).status_code - 200) for _ in range(5)]
        stopped.set()
        busy.join()

        assert exit_codes == [0] * 5
        assert call("GET", RECORDS).status_code == 200


class TestSettings:
    def test_batches_are_limited_as_by_kinto(self, memory: EmbeddedServer) -> None:
        assert caller(memory)("GET", "/").json()["settings"]["batch_max_requests"] == 25

    def test_settings_of_the_caller_win(self) -> None:
        with EmbeddedServer.memory(paginate_by=3, **{"kinto.batch_max_requests": 10}) as server:
            call = caller(server)
            create_collection(call)
            for number in range(4):
                call("PUT", f"{RECORDS}/r{number}", {"data": {}})

            page = call("GET", RECORDS)

            assert len(page.json()["data"]) == 3
            assert page.headers["Next-Page"].startswith(server.url)
            assert call("GET", "/").json()["settings"]["batch_max_requests"] == 10
            assert server.settings["paginate_by"] == 3

    def test_environment_counts_for_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_STORAGE_BACKEND", "kinto.core.storage.postgresql")
        monkeypatch.setenv("KINTO_STORAGE_URL", "postgresql://production.example.com/kinto")
        monkeypatch.setenv("BATCH_MAX_REQUESTS", "7")

        with EmbeddedServer.memory() as server:
            info = caller(server)("GET", "/").json()

        assert info["settings"]["batch_max_requests"] == 25

    def test_flush_endpoint_is_there_on_request_only(self, memory: EmbeddedServer) -> None:
        with EmbeddedServer.memory(flush=True) as server:
            assert caller(server)("POST", "/__flush__").status_code == 202

        assert caller(memory)("POST", "/__flush__").status_code == 404

    def test_other_plugins_can_be_chosen(self) -> None:
        with EmbeddedServer.memory(includes="kinto.plugins.accounts") as server:
            capabilities = caller(server)("GET", "/").json()["capabilities"]

        assert "accounts" in capabilities
        assert not {"default_bucket", "history"} & set(capabilities)

    def test_secret_is_not_shown(self, memory: EmbeddedServer) -> None:
        assert "secret" not in " ".join(memory.settings)
        assert repr(memory) == f"<EmbeddedServer {memory.url} (memory)>"


class TestLife:
    def test_servers_share_nothing(self, memory: EmbeddedServer) -> None:
        with EmbeddedServer.memory() as other:
            caller(other)("PUT", "/buckets/payments")

            assert other.url != memory.url
            assert caller(memory)("GET", "/buckets/payments").status_code == 403

    def test_closed_server_says_so(self) -> None:
        server = EmbeddedServer.memory()
        call = caller(server)

        server.close()
        server.close()

        assert server.is_closed
        assert repr(server).endswith("(memory, closed)>")
        with pytest.raises(UsageError, match="closed"):
            call("GET", "/")
        with pytest.raises(UsageError, match="closed"):
            server.flush()

    def test_servers_that_have_ended_leave_nothing_in_memory(self) -> None:
        services = import_extra("kinto.core.cornice.service").SERVICES
        EmbeddedServer.memory().close()
        before = list(services)

        with EmbeddedServer.memory() as server:
            during = len(services)
            call = caller(server)
            EmbeddedServer.memory().close()
            paths = call("GET", "/__api__").json()["paths"]
        EmbeddedServer.memory()
        gc.collect()

        assert during > len(before)
        assert services == before
        assert {"/buckets/{bucket_id}/collections/{id}", "/batch", "/__heartbeat__"} <= paths.keys()

    def test_closed_server_does_not_mind_a_fork(self) -> None:
        server = EmbeddedServer.memory()
        server.close()

        assert exit_code_of_child(lambda: 0) == 0
        server.after_fork_in_child()

    def test_forgotten_memory_server_needs_no_warning(self) -> None:
        EmbeddedServer.memory()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()

    def test_nothing_is_printed_warned_or_logged(self) -> None:
        script = """
            import logging, requests
            from kinto_orm.server import EmbeddedServer

            with EmbeddedServer.memory() as server:
                session = requests.Session()
                session.mount(server.url, server.adapter())
                assert session.get(server.url + "/").json()["config"] is None
                assert session.put(server.url + "/buckets/b").status_code == 401
            assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
        """

        done = run_python(script)

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_json_of_other_users_of_webob_and_requests_is_left_alone(self) -> None:
        before = {name: vars(import_extra(name)).get("json") for name in ("webob.request", "requests.models")}

        EmbeddedServer.memory().close()

        assert before == {name: vars(import_extra(name)).get("json") for name in before}

    def test_json_module_of_an_older_requests_is_put_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = object()
        monkeypatch.setattr("requests.models.json", own, raising=False)

        EmbeddedServer.memory().close()

        assert vars(import_extra("requests.models"))["json"] is own

    def test_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kinto", None)

        with pytest.raises(MissingExtraError, match=r"pip install 'kinto-orm\[server\]'") as caught:
            EmbeddedServer.memory()

        assert caught.value.name == "kinto"


class TestSocket:
    def test_stopping_does_not_use_what_the_loop_has_closed(self, memory: EmbeddedServer) -> None:
        thread = ServerThread(memory)
        trigger: Any = thread._waitress.trigger
        pull = trigger._physical_pull

        def pull_late() -> None:
            os.write(trigger.trigger, b"x")  # as a worker does that has just answered
            time.sleep(0.2)
            pull()

        trigger._physical_pull = pull_late
        thread.stop()
        thread.stop()

        assert thread._has_ended.is_set()

    def test_server_is_reached_by_its_real_url(self, memory: EmbeddedServer) -> None:
        with listening(memory) as url:
            answer = requests.get(f"{url}/", timeout=60)

            assert answer.json()["url"] == f"{url}/"

        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/", timeout=60)

    def test_a_large_body_leaves_no_file_open(self, memory: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        left: list[object] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda raised: left.append(raised.exc_value))
        with listening(memory) as url, warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            created = requests.put(
                f"{url}/buckets/b", auth=("me", "secret"), json={"data": {"text": "x" * 20_000}}, timeout=5
            )
            gc.collect()

        assert (created.status_code, left) == (201, [])

    def test_idle_connections_do_not_starve_others(self, memory: EmbeddedServer) -> None:
        with listening(memory) as url:
            sessions = [requests.Session() for _ in range(20)]

            statuses = [session.get(f"{url}/", timeout=60).status_code for _ in range(2) for session in sessions]

            for session in sessions:
                session.close()
        assert statuses == [200] * 40

    def test_large_answer_that_nobody_reads_does_not_hold_up_others(self, memory: EmbeddedServer) -> None:
        call = caller(memory)
        create_collection(call)
        call("PUT", f"{RECORDS}/large", {"data": {"text": "x" * 20_000_000}})

        with listening(memory) as url, requests.Session() as slow:
            slow.get(f"{url}{RECORDS}/large", auth=("alexis", "p4ssw0rd"), stream=True, timeout=60)

            assert requests.get(f"{url}/", timeout=60).status_code == 200
        memory.flush()

    def test_thread_stops_twice(self, memory: EmbeddedServer) -> None:
        thread = ServerThread(memory)

        thread.stop()
        thread.stop()

        assert caller(memory)("GET", "/").status_code == 200

    def test_port_in_use_is_said(self, memory: EmbeddedServer) -> None:
        with listening(memory) as url, pytest.raises(UsageError, match="already in use: stop"):
            serve(memory, port=int(url.split(":")[2].partition("/")[0]))

    def test_impossible_port_is_said(self, memory: EmbeddedServer) -> None:
        with pytest.raises(UsageError, match="0 to 65535"):
            ServerThread(memory, port=65536)

    def test_ipv6_address_is_bracketed(self, memory: EmbeddedServer) -> None:
        try:
            thread = ServerThread(memory, host="::1")
        except UsageError:
            pytest.skip("no IPv6 here")

        with thread:
            assert thread.url.startswith("http://[::1]:")
            assert requests.get(f"{thread.url}/", timeout=60).status_code == 200

    def test_serving_ends_with_the_interruption(self, memory: EmbeddedServer) -> None:
        seen = []

        def interrupt(url: str) -> None:
            seen.append(url)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            serve(memory, port=0, on_ready=interrupt)

        with pytest.raises(requests.ConnectionError):
            requests.get(seen[0], timeout=60)


class TestAdapter:
    def test_headers_status_and_reason_arrive(self) -> None:
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Type", "text/plain; charset=latin-1")]

        answer = send(scripted("418 I'm a Teapot", headers, [b"caf", b"\xe9"]))

        assert (answer.status_code, answer.reason, answer.text) == (418, "I'm a Teapot", "café")
        assert answer.raw.headers.getlist("Set-Cookie") == ["a=1", "b=2"]

    def test_body_can_be_read_in_pieces(self) -> None:
        answer = send(scripted("200 OK", [], [b"0123456789"]), stream=True)

        assert [answer.raw.read(4), answer.raw.read(4), answer.raw.read(4)] == [b"0123", b"4567", b"89"]

    def test_head_has_length_but_no_body(self) -> None:
        answer = send(scripted("200 OK", [("Content-Length", "12")], []), method="HEAD")

        assert (answer.headers["Content-Length"], answer.content) == ("12", b"")

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param(None, b"", id="none"),
            pytest.param("é", "é".encode(), id="text"),
            pytest.param(b"abc", b"abc", id="bytes"),
            pytest.param(io.BytesIO(b"abc"), b"abc", id="file"),
            pytest.param((chunk for chunk in (b"a", b"bc")), b"abc", id="chunks"),
        ],
    )
    def test_body_of_any_form_arrives_whole(self, body: Any, expected: bytes) -> None:
        environ = send(environ_echo, method="PUT", data=body).json()

        assert environ["body"] == expected.decode()
        assert environ["CONTENT_LENGTH"] == str(len(expected))
        assert "HTTP_TRANSFER_ENCODING" not in environ

    def test_path_and_query_arrive_as_by_a_socket(self) -> None:
        environ = send(
            environ_echo, url="http://example.test:8888/v1/a%20%C3%A9?b=%22c%22&d", headers={"X-A": b"1"}
        ).json()

        assert environ["PATH_INFO"].encode("latin-1").decode() == "/v1/a é"
        assert environ["QUERY_STRING"] == "b=%22c%22&d"
        assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == ("example.test:8888", "8888")
        assert environ["HTTP_X_A"] == "1"

    def test_port_is_that_of_the_scheme(self) -> None:
        environ = send(environ_echo, url="https://example.test").json()

        assert (environ["SERVER_PORT"], environ["PATH_INFO"], environ["wsgi.url_scheme"]) == ("443", "/", "https")

    def test_written_bytes_come_first_and_the_body_is_closed(self) -> None:
        closed = []

        class Body(list[bytes]):
            def close(self) -> None:
                closed.append(True)

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])(b"first ")
            return Body([b"then"])

        assert send(app).content == b"first then"
        assert closed == [True]

    def test_application_that_raises_gives_no_answer(self) -> None:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            raise ZeroDivisionError

        with pytest.raises(requests.ConnectionError, match="ZeroDivisionError"):
            send(app)


class TestPlugin:
    def test_server_is_shared_but_empty_for_each_test(self, pytester: pytest.Pytester) -> None:
        pytester.makeconftest("""
            import pytest

            @pytest.fixture(scope="session")
            def kinto_server_settings():
                return {"batch_max_requests": 7}
        """)
        pytester.makepyfile("""
            import pytest, requests

            servers = set()

            @pytest.fixture
            def call(kinto_server):
                servers.add(kinto_server.url)
                with requests.Session() as session:
                    session.mount(kinto_server.url, kinto_server.adapter())
                    session.auth = ("a", "b")
                    yield lambda method, path: session.request(method, kinto_server.url + path)
                    assert session.get(kinto_server.url + "/buckets/mine").status_code == 200  # not emptied yet

            @pytest.mark.parametrize("turn", [1, 2])
            def test_bucket_is_new(call, turn):
                assert call("PUT", "/buckets/mine").status_code == 201
                assert call("GET", "/").json()["settings"]["batch_max_requests"] == 7
                assert len(servers) == 1
        """)

        result = pytester.runpytest_inprocess("-p", "no:kinto_orm", "-p", "kinto_orm.pytest_plugin")

        result.assert_outcomes(passed=2)

    def test_settings_are_the_usual_ones_and_the_client_is_one_of_the_server(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile("""
            def test_batches_are_limited_as_usual(kinto_server):
                assert "batch_max_requests" not in kinto_server.settings

            def test_client_and_server_belong_together(kinto_client, kinto_server):
                assert kinto_client.server_info()["url"] == kinto_server.url + "/"
        """)

        result = pytester.runpytest_inprocess("-p", "no:kinto_orm", "-p", "kinto_orm.pytest_plugin")

        result.assert_outcomes(passed=2)

    def test_sessions_that_do_not_use_it_do_not_pay_for_it(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile("""
            import sys

            def test_kinto_is_not_imported():
                assert not {"kinto", "pyramid"} & set(sys.modules)
        """)

        result = pytester.runpytest_subprocess("-p", "no:kinto_orm", "-p", "kinto_orm.pytest_plugin")

        result.assert_outcomes(passed=1)


def scripted(status: str, headers: list[tuple[str, str]], body: list[bytes]) -> Any:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers)
        return body

    return app


def environ_echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read().decode()
    texts = {key: value for key, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [requests.compat.json.dumps(texts | {"body": body}).encode()]


def send(app: Any, *, method: str = "GET", url: str = "http://example.test/", **options: Any) -> requests.Response:
    with requests.Session() as session:
        session.mount("http://", WSGIAdapter(app))
        session.mount("https://", WSGIAdapter(app))
        return session.request(method, url, **options)


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    lines = script.splitlines()
    indent = len(lines[1]) - len(lines[1].lstrip())
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(line[indent:] for line in lines), *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )


def exit_code_of_child(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:  # pragma: no cover - this process is not the one that counts
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_memory_permissions_are_those_of_kintos_own_backend() -> None:
    def answers(**settings: str) -> list[object]:
        with EmbeddedServer.memory(userid_hmac_secret="same", **settings) as server:
            client = Client.embedded(server=server)
            bucket = Bucket(id="b", permissions={"read": ["system.Everyone"]}, client=client).save()
            collection = Collection(bucket=bucket, id="c", permissions={"record:create": ["account:bob"]}).save()
            collection.permissions = {"write": ["account:eve"]}
            collection.save()
            collection.records.create(id="r", permissions={"read": ["account:bob"]}).delete()
            return [dict(one.refresh().permissions) for one in (bucket, collection, collection.records.create(id="r"))]

    assert answers() == answers(permission_backend="kinto.core.permission.memory")

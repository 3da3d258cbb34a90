"""The folder of an embedded PostgreSQL: for one process at a time, checked before use.

It holds the cluster in ``postgresql``, the secret by which users are known again, and a lock. Nothing is removed that
this library did not make.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from kinto_orm.errors import InvalidTypeError, UsageError
from kinto_orm.protocol.json_values import say_value

SECRET = "userid_hmac_secret"
CLUSTER = "postgresql"
GOOD_SECRET = re.compile(r"[!-~]{32,}")
VERSION = re.compile(rb"\d{1,4}\s*")
LARGEST_PID = 2**31 - 1

SOCKETS = re.compile(r"kinto-orm-[a-z0-9_]{8}")
SHORT_PLAIN_PATH = re.compile(r"[\w./-]{1,60}")
"""A path that leaves room for a socket (103 bytes everywhere) and means nothing to a shell or to PostgreSQL."""
BELONGS_TO = "belongs-to"
"""The file in a folder of sockets that names its data folder."""

MADE_BY_INITDB = (
    *("PG_VERSION", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf", "postgresql.conf"),
    *("base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_multixact", "pg_notify", "pg_replslot"),
    *("pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc", "pg_twophase", "pg_wal"),
    "pg_xact",
)


class DataFolder:
    """A folder with data, locked for this process until :meth:`close`.

    Raises ``UsageError`` where another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cluster = path / CLUSTER
        path.mkdir(parents=True, exist_ok=True)
        if (path / "PG_VERSION").exists():
            raise UsageError(f"{path} is the data of another PostgreSQL: name a folder for Kinto alone.")
        self._lock = lock_folder(path)

    def close(self) -> None:
        """Free the folder for other processes."""
        os.close(self._lock)

    @property
    def has_cluster(self) -> bool:
        """Whether there is data."""
        return os.path.lexists(self.cluster)

    def version(self) -> int | None:
        """Return the major version of the PostgreSQL that made the data, or ``None`` where there is no data yet.

        Raises ``UsageError`` where the data is damaged.
        """
        if not self.has_cluster:
            return None
        path = self.cluster / "PG_VERSION"
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            content = b""
        if VERSION.fullmatch(content) is None:
            raise UsageError(
                f"{self.cluster} is damaged: its file PG_VERSION is missing or holds no version. "
                "Restore the folder from a backup, or name another one."
            )
        return int(content)

    def secret(self) -> str:
        """Return the random text by which the same credentials are the same user after a restart.

        Raises ``UsageError`` where there is data and its secret is lost.
        """
        path = self.path / SECRET
        if os.path.lexists(path):
            secret = path.read_bytes().decode("utf-8", "replace").strip()
            if GOOD_SECRET.fullmatch(secret):
                return secret
        elif not self.has_cluster:
            secret = secrets.token_hex(32)
            write_durably(path, secret)
            return secret
        raise UsageError(
            f"{path} is missing or damaged. Without it, everybody who logs in by name:password is another user than "
            "before, who cannot reach their own buckets. Restore the file from a backup. If there is none, write a "
            "random text of 32 characters or more into it: accounts then keep their objects, other users lose theirs."
        )

    def draft(self) -> Path:
        """Return an empty folder for a cluster in the making, in the place of one that was never completed.

        Raises ``UsageError`` where something else is in the place.
        """
        draft = self.path / f"{CLUSTER}.new"
        if os.path.lexists(draft):
            is_ours = draft.is_dir() and not draft.is_symlink()
            if not is_ours or any(entry.name not in MADE_BY_INITDB for entry in draft.iterdir()):
                raise UsageError(f"{draft} is in the way of a new cluster: move it away.")
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        return draft

    def accept(self, draft: Path) -> None:
        """Make the draft the cluster of this folder."""
        draft.rename(self.cluster)
        sync_folder(self.path)


@contextmanager
def usage_errors(folder: Path) -> Generator[None]:
    """Raise ``UsageError`` where the file system refuses something."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"An embedded PostgreSQL cannot run on {folder}: {error}") from error


def data_path(data_dir: str | os.PathLike[str]) -> Path:
    """Return the path of a folder to keep data in.

    Raises ``UsageError`` or ``InvalidTypeError`` for anything else.
    """
    if not isinstance(cast(object, data_dir), (str, os.PathLike)):
        raise InvalidTypeError(f"data_dir is a path, not {say_value(data_dir)}.")
    name = os.fsdecode(data_dir)
    if not name:
        # As from a variable that is not set: the current folder would fill up unseen.
        raise UsageError("data_dir is empty: name a folder to keep the data in ('.' is the current one).")
    try:
        path = Path(name).expanduser().resolve()
        is_other = path.exists() and not path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL or a loop, an unknown user
        raise UsageError(f"data_dir cannot be a folder: {error}.") from error
    if is_other:
        raise UsageError(f"data_dir is a folder to keep the data in, and {path} is not a directory.")
    return path


def lock_folder(folder: Path) -> int:
    """Return a lock that ends with the process, however it ends.

    Raises ``UsageError`` if another process has it.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl = posix_module("fcntl")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = re.match(rb"\d+", os.read(lock, 20))
        os.close(lock)
        pid = holder.group().decode() if holder else "unknown"
        message = f"{folder} is in use by an embedded server in process {pid}: close that one, or share it."
        raise UsageError(message) from error
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def posix_module(name: str) -> Any:
    """Return a module that only POSIX systems have."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"The embedded PostgreSQL needs Linux or macOS ({error}).") from error


def write_durably(path: Path, text: str) -> None:
    """Write a file for this user alone, so that a crash leaves all of it or nothing."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_pid_file(path: Path) -> tuple[int, Path]:
    """Return the process id, 0 where it is none, and the folder of the sockets.

    https://www.postgresql.org/docs/current/storage-file-layout.html
    """
    lines = [*path.read_bytes().decode("utf-8", "replace").splitlines(), "", "", "", "", ""]
    pid = int(lines[0]) if re.fullmatch(r"[0-9]{1,10}", lines[0]) else 0
    return (pid if pid <= LARGEST_PID else 0), Path(lines[4])


def make_sockets_folder(parents: list[str], data: Path) -> Path:
    """Return a private temporary folder with a short path, marked as belonging to the data folder."""
    for parent in parents:
        if SHORT_PLAIN_PATH.fullmatch(parent):
            folder = Path(tempfile.mkdtemp(prefix="kinto-orm-", dir=parent))
            (folder / BELONGS_TO).write_bytes(os.fsencode(data))
            return folder
    raise UsageError(
        f"No temporary folder will do for PostgreSQL's socket, of {', '.join(parents) or 'none'}: set TMPDIR to one "
        "with a path of at most 60 plain characters."
    )


def remove_sockets_folder(folder: Path, data: Path) -> None:
    """Remove a folder that :func:`make_sockets_folder` made for this data folder; leave anything else alone."""
    if SOCKETS.fullmatch(folder.name) is None or "\0" in str(folder):
        return
    try:
        is_ours = stat.S_ISDIR(folder.lstat().st_mode) and (folder / BELONGS_TO).read_bytes() == os.fsencode(data)
    except OSError:
        return
    if is_ours:
        shutil.rmtree(folder, ignore_errors=True)

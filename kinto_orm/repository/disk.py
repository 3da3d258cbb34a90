"""The disk of this machine, as flows use it: text files, and sorted lists in SQLite that may be larger than memory.

Everything here blocks: flows call it through ``call_blocking``.
https://www.sqlite.org/tempfiles.html
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, NoReturn, TypeAlias, cast

from kinto_orm.errors import InvalidTypeError, InvalidValueError, UsageError
from kinto_orm.protocol.attachments import PART, part_of
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.messages import Content

FilePath: TypeAlias = str | os.PathLike[str]

_AT_ONCE = 500
"""The number of keys that one SQLite statement looks for."""

_APPLICATION_ID = 0x6B696E74
"""The mark of our files in SQLite's header: a file of another program is never written to."""


def check_path(path: FilePath, what: str = "A file") -> str:
    """Return the path as text; raise ``InvalidTypeError`` for what is no path, such as the number of an open file."""
    if not isinstance(cast(object, path), (str, os.PathLike)):
        raise InvalidTypeError(f"{what} is given by its path, not by {say_value(path)}.")
    return os.fspath(path)


def read_lines(path: FilePath) -> Iterator[str]:
    """Read the lines of a UTF-8 file one by one, each with its end; a byte order mark is left out.

    Raises ``InvalidValueError`` for text that is not UTF-8, ``OSError`` where the file cannot be read.
    """
    # Without translation of line ends: the cells of a CSV file may hold them.
    with open(check_path(path), encoding="utf-8-sig", newline="") as file:
        try:
            yield from file
        except UnicodeDecodeError as error:
            raise InvalidValueError(f"{os.fspath(path)} is not UTF-8 text: {error}.") from error


def write_text(path: FilePath, pieces: Iterable[str]) -> None:
    """Write a UTF-8 file; it takes its place only when it is whole. Raises ``OSError``."""
    new = NewFile(Path(check_path(path)))
    try:
        for piece in pieces:
            new.write(piece.encode())
        new.close()
    finally:
        new.discard()


def read_content(file: Content) -> bytes:
    """Return the whole content of the file; an open file is read from its position and, where it can, set back to it.

    So the same file may be given once more: to another record, or after an error. It would be sent empty otherwise.
    Raises ``OSError`` where it cannot be read, ``InvalidTypeError`` for other objects and for files in text mode.
    """
    if isinstance(file, (str, os.PathLike)):
        return Path(file).read_bytes()
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    content = _read_open(file) if callable(getattr(file, "read", None)) else None
    if not isinstance(content, bytes):
        raise InvalidTypeError(f"A file is a path, bytes, or a file opened in binary mode, not {say_value(file)}.")
    return content


def _read_open(file: IO[bytes]) -> object:
    seekable = getattr(file, "seekable", None)
    start = file.tell() if callable(seekable) and seekable() else None
    content = cast(object, file.read())
    if start is not None:
        file.seek(start)
    return content


def open_folder(path: FilePath) -> Folder:
    """Return the folder, which need not be there. Raises ``InvalidTypeError`` for what is no path."""
    return Folder(Path(check_path(path, "A folder")))


def open_temporary_folder() -> TemporaryFolder:
    """Make a folder that only this process knows."""
    return TemporaryFolder(Path(tempfile.mkdtemp(prefix="kinto-orm-")))


def open_lists(path: FilePath | None = None) -> SortedLists:
    """Open sorted lists: temporary ones, or those kept in a file, where each change is on the disk when it returns.

    Raises ``UsageError`` where the file is no such file, ``OSError`` where it cannot be opened.
    """
    return SortedLists() if path is None else _LastingLists(path)


class FileDigest(NamedTuple):
    """The size of a file in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class NewFile:
    """A file that is written piece by piece, under another name until it is whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = part_of(target)
        self._file = self._part.open("xb")
        self._hasher = hashlib.sha256()
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Write the next piece."""
        self._file.write(piece)
        self._hasher.update(piece)
        self._size += len(piece)

    def close(self) -> FileDigest:
        """Put the file in its place, on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._target)
        return FileDigest(self._size, self._hasher.hexdigest())

    def discard(self) -> None:
        """Delete the file, unless it is in its place; it may be called twice."""
        self._file.close()
        self._part.unlink(missing_ok=True)


class Folder:
    """The files below one folder, by names such as ``groups/staff.json``.

    Raises ``InvalidValueError`` for a name that leads out of the folder, ``OSError`` where the disk refuses.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def location(self) -> str:
        """The path of the folder."""
        return str(self._root)

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self._inside(name))

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        files = (path for path in self._root.rglob("*") if path.is_file())
        return sorted(path.relative_to(self._root).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return self._inside(name).read_bytes()

    def digest(self, name: str) -> FileDigest | None:
        """Return the digest of a file; ``None`` where there is none."""
        path = self._inside(name)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return FileDigest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def create(self, name: str) -> NewFile:
        """Begin a file; what has the name keeps it until the new one is closed."""
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return NewFile(path)

    def remove(self, name: str) -> None:
        """Delete a file, and the folders that are empty without it."""
        path = self._inside(name)
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._root or (folder.is_dir() and any(folder.iterdir())):
                return
            if folder.is_dir():
                folder.rmdir()

    def sweep(self) -> None:
        """Delete the beginnings of files that a process left which was killed."""
        for name in self.names():
            if PART.search(name):
                self.remove(name)

    def _inside(self, name: str) -> Path:
        # Windows knows drives and backslashes, too, and a dump may be read on another system.
        pieces = PurePosixPath(name).parts
        if not pieces or name.startswith("/") or ".." in pieces or not set("\\:\0").isdisjoint(name):
            raise InvalidValueError(f"{say_value(name, 200)} is no name of a file below {self._root}.")
        return self._root.joinpath(*pieces)


class TemporaryFolder(Folder):
    """A folder that is deleted when it is closed."""

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._root, ignore_errors=True)


class Entry(NamedTuple):
    """One entry of a sorted list."""

    key: str
    position: int
    body: bytes


class SortedLists:
    """Named lists of entries, each sorted by key (by code points), then by position.

    SQLite holds these, which are temporary, in memory while they are small, else in a file without a name.
    """

    _columns = "key TEXT, position INTEGER, body BLOB"

    def __init__(self, path: FilePath = "") -> None:
        # Flows that are awaited use it in several threads, one after the other.
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._names: set[str] = set()
        self._indexed: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("BEGIN")

    def add(self, name: str, entries: Iterable[Entry]) -> None:
        """Add entries to a list; one of the same key and position is replaced where the lists are kept in a file."""
        self._database.executemany(f"INSERT OR REPLACE INTO {self._table(name)} VALUES (?, ?, ?)", entries)

    def read(self, name: str) -> Iterator[Entry]:
        """Read a list in its order; entries may be added to other lists while it is read."""
        rows = self._database.execute(f"SELECT key, position, body FROM {self._table(name)} ORDER BY key, position")
        return map(Entry._make, rows)

    def find_repeated(self, name: str) -> tuple[Entry, Entry] | None:
        """Return the first two entries of a list that have the same key."""
        table = self._index(name)
        twice = f"SELECT key FROM {table} GROUP BY key HAVING count(*) > 1 LIMIT 1"
        rows = self._database.execute(
            f"SELECT key, position, body FROM {table} WHERE key = ({twice}) ORDER BY position LIMIT 2"
        ).fetchall()
        return (Entry(*rows[0]), Entry(*rows[1])) if rows else None

    def find(self, name: str, keys: Iterable[str]) -> Mapping[str, bytes]:
        """Return the bodies of these keys that the list has."""
        table = self._index(name)
        found: dict[str, bytes] = {}
        rest = iter(keys)
        while chunk := list(islice(rest, _AT_ONCE)):
            marks = ", ".join("?" * len(chunk))
            found.update(self._database.execute(f"SELECT key, body FROM {table} WHERE key IN ({marks})", chunk))
        return found

    def remove(self, name: str, keys: Iterable[str]) -> None:
        """Remove the entries of these keys."""
        self._database.executemany(f"DELETE FROM {self._table(name)} WHERE key = ?", ((key,) for key in keys))

    def close(self) -> None:
        """Close the lists; temporary ones are deleted."""
        self._database.close()

    def __del__(self) -> None:
        # A plan that its user drops has lists that no block closes; there is no database where it could not be opened.
        if hasattr(self, "_database"):
            self._database.close()

    def _index(self, name: str) -> str:
        table = self._table(name)
        if name not in self._indexed:
            self._database.execute(f"CREATE INDEX IF NOT EXISTS {table}_keys ON {table} (key, position)")
            self._indexed.add(name)
        return table

    def _table(self, name: str) -> str:
        if name not in self._names:
            self._database.execute(f"CREATE TABLE IF NOT EXISTS list_{name} ({self._columns})")
            self._names.add(name)
        return f"list_{name}"


class _LastingLists(SortedLists):
    """Lists in a file, which one job uses at a time: each change is one transaction, on the disk when it returns."""

    _columns = "key TEXT, position INTEGER, body BLOB, PRIMARY KEY (key, position)"

    def __init__(self, path: FilePath) -> None:
        self._path = check_path(path)
        try:
            super().__init__(path)
        except sqlite3.Error as error:
            self._refuse(error)

    def _begin(self) -> None:
        # Two runs of one job would each take the other's writes for those of an interrupted one. The lock ends with
        # its process. https://www.sqlite.org/pragma.html#pragma_locking_mode
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA busy_timeout = 500")
        found = self._database.execute("PRAGMA application_id").fetchone()[0]
        if found != _APPLICATION_ID:
            if self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._database.close()
                self._refuse(None)
            self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._database.execute("PRAGMA synchronous = FULL")
        with self._database:
            self._database.execute("BEGIN EXCLUSIVE")

    def add(self, name: str, entries: Iterable[Entry]) -> None:
        table = self._table(name)
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", entries)

    def remove(self, name: str, keys: Iterable[str]) -> None:
        table = self._table(name)
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(f"DELETE FROM {table} WHERE key = ?", ((key,) for key in keys))

    def _refuse(self, error: sqlite3.Error | None) -> NoReturn:
        if error is not None and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise UsageError(
                f"{self._path} is in use: another run of the job is at work. Wait for its end, then run it again."
            ) from error
        raise UsageError(
            f"{self._path} cannot be used as a state file of kinto_orm ({error or 'it belongs to another program'}): "
            "give the path of a new file."
        ) from error

"""The disk of this machine, as flows use it: text files, and sorted lists in SQLite.

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
from typing import NoReturn, cast

from kinto_orm.errors import InvalidTypeError, InvalidValueError, UsageError
from kinto_orm.protocol.json_values import say_value
from kinto_orm.repository.disk import Entry, FileDigest, FilePath, Folder, NewFile, SortedLists, TemporaryFolder
from kinto_orm.transport.files import PART, part_of, read_content

_AT_ONCE = 500
"""The number of keys that one SQLite statement looks for."""

_APPLICATION_ID = 0x6B696E74
"""The mark of our files in SQLite's header: a file of another program is never written to."""


class LocalDisk:
    """Files and SQLite on this machine."""

    def read_lines(self, path: FilePath) -> Iterator[str]:
        """Read the lines of a UTF-8 file, each with its end."""
        # Without translation of line ends: the cells of a CSV file may hold them.
        with open(path, encoding="utf-8-sig", newline="") as file:
            try:
                yield from file
            except UnicodeDecodeError as error:
                raise InvalidValueError(f"{os.fspath(path)} is not UTF-8 text: {error}.") from error

    def write_text(self, path: FilePath, pieces: Iterable[str]) -> None:
        """Write a UTF-8 file, which takes its place only when it is whole."""
        new = _NewFile(Path(path))
        try:
            for piece in pieces:
                new.write(piece.encode())
            new.close()
        finally:
            new.discard()

    read_content = staticmethod(read_content)

    def open_folder(self, path: FilePath) -> Folder:
        """Return the folder, which need not be there."""
        if not isinstance(cast(object, path), (str, os.PathLike)):
            raise InvalidTypeError(f"A folder is given by its path, not by {say_value(path)}.")
        return _LocalFolder(Path(path))

    def open_temporary_folder(self) -> TemporaryFolder:
        """Make a folder that only this process knows."""
        return _LocalTemporaryFolder(Path(tempfile.mkdtemp(prefix="kinto-orm-")))

    def open_lists(self, path: FilePath | None = None) -> SortedLists:
        """Open sorted lists, temporary ones or those of a file."""
        return _Lists() if path is None else _LastingLists(path)


class _NewFile:
    """A file under another name until it is whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = part_of(target)
        self._file = self._part.open("xb")
        self._hasher = hashlib.sha256()
        self._size = 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._hasher.update(piece)
        self._size += len(piece)

    def close(self) -> FileDigest:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._target)
        return FileDigest(self._size, self._hasher.hexdigest())

    def discard(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


class _LocalFolder:
    """A folder on this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def location(self) -> str:
        return str(self._root)

    def path(self, name: str) -> str:
        return str(self._inside(name))

    def names(self) -> Sequence[str]:
        files = (path for path in self._root.rglob("*") if path.is_file())
        return sorted(path.relative_to(self._root).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        return self._inside(name).read_bytes()

    def digest(self, name: str) -> FileDigest | None:
        path = self._inside(name)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return FileDigest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def create(self, name: str) -> NewFile:
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return _NewFile(path)

    def remove(self, name: str) -> None:
        path = self._inside(name)
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._root or (folder.is_dir() and any(folder.iterdir())):
                return
            if folder.is_dir():
                folder.rmdir()

    def sweep(self) -> None:
        for name in self.names():
            if PART.search(name):
                self.remove(name)

    def _inside(self, name: str) -> Path:
        # Windows knows drives and backslashes, too, and a dump may be read on another system.
        pieces = PurePosixPath(name).parts
        if not pieces or name.startswith("/") or ".." in pieces or not set("\\:\0").isdisjoint(name):
            raise InvalidValueError(f"{say_value(name, 200)} is no name of a file below {self._root}.")
        return self._root.joinpath(*pieces)


class _LocalTemporaryFolder(_LocalFolder):
    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


class _Lists:
    """Temporary lists: SQLite holds them in memory while they are small, else in a file without a name."""

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
        self._database.executemany(f"INSERT OR REPLACE INTO {self._table(name)} VALUES (?, ?, ?)", entries)

    def read(self, name: str) -> Iterator[Entry]:
        rows = self._database.execute(f"SELECT key, position, body FROM {self._table(name)} ORDER BY key, position")
        return map(Entry._make, rows)

    def find_repeated(self, name: str) -> tuple[Entry, Entry] | None:
        table = self._index(name)
        twice = f"SELECT key FROM {table} GROUP BY key HAVING count(*) > 1 LIMIT 1"
        rows = self._database.execute(
            f"SELECT key, position, body FROM {table} WHERE key = ({twice}) ORDER BY position LIMIT 2"
        ).fetchall()
        return (Entry(*rows[0]), Entry(*rows[1])) if rows else None

    def find(self, name: str, keys: Iterable[str]) -> Mapping[str, bytes]:
        table = self._index(name)
        found: dict[str, bytes] = {}
        rest = iter(keys)
        while chunk := list(islice(rest, _AT_ONCE)):
            marks = ", ".join("?" * len(chunk))
            found.update(self._database.execute(f"SELECT key, body FROM {table} WHERE key IN ({marks})", chunk))
        return found

    def remove(self, name: str, keys: Iterable[str]) -> None:
        self._database.executemany(f"DELETE FROM {self._table(name)} WHERE key = ?", ((key,) for key in keys))

    def close(self) -> None:
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


class _LastingLists(_Lists):
    """Lists in a file, which one job uses at a time: each change is one transaction, on the disk when it returns."""

    _columns = "key TEXT, position INTEGER, body BLOB, PRIMARY KEY (key, position)"

    def __init__(self, path: FilePath) -> None:
        self._path = os.fspath(path)
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

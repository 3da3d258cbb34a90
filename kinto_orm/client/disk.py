"""The disk of this machine, as flows use it: text files, and sorted lists in SQLite.

https://www.sqlite.org/tempfiles.html
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NoReturn

from kinto_orm.errors import InvalidValueError, UsageError
from kinto_orm.repository.disk import Entry, FilePath, SortedLists

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
        target = Path(path)
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("x", encoding="utf-8", newline="") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def open_lists(self, path: FilePath | None = None) -> SortedLists:
        """Open sorted lists, temporary ones or those of a file."""
        return _Lists() if path is None else _LastingLists(path)


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
    """Lists in a file: each change is one transaction, on the disk when it returns."""

    _columns = "key TEXT, position INTEGER, body BLOB, PRIMARY KEY (key, position)"

    def __init__(self, path: FilePath) -> None:
        self._path = os.fspath(path)
        try:
            super().__init__(path)
        except sqlite3.Error as error:
            self._refuse(error)

    def _begin(self) -> None:
        found = self._database.execute("PRAGMA application_id").fetchone()[0]
        if found != _APPLICATION_ID:
            if self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._database.close()
                self._refuse(None)
            self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._database.execute("PRAGMA synchronous = FULL")

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

    def _refuse(self, error: Exception | None) -> NoReturn:
        raise UsageError(
            f"{self._path} cannot be used as a state file of kinto_orm ({error or 'it belongs to another program'}): "
            "give the path of a new file."
        ) from error

"""The file of a mirror: the only place that speaks SQLite.

Each record is one row: *mine* is its data here, *theirs* the data that the server has, as far as it is known. Where
they differ, something is to be pushed, and no flag can lie about it.
https://www.sqlite.org/lang.html
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeAlias

from kinto_orm.errors import MirrorFileError
from kinto_orm.forks import fork_lock
from kinto_orm.repository.disk import check_path

APPLICATION_ID = 0x4B4D4952
"""The number by which SQLite files of a program are known: KMIR."""
FILE_VERSION = 1
BUSY_SECONDS = 30

UNPUSHED = "mine IS NOT theirs"
TO_PUSH = f"{UNPUSHED} AND NOT is_parked AND refused IS NOT version"
PARKED = "is_parked"
ON_SERVER = "theirs IS NOT NULL"

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS collections (
    number INTEGER PRIMARY KEY, version INTEGER NOT NULL,
    path TEXT NOT NULL UNIQUE CHECK (path GLOB '/buckets/?*/collections/?*'),
    cursor INTEGER NOT NULL DEFAULT 0, timestamp INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS records (
    collection INTEGER NOT NULL REFERENCES collections (number), id TEXT NOT NULL, version INTEGER NOT NULL,
    mine TEXT, theirs TEXT, modified INTEGER, base TEXT, is_parked INTEGER NOT NULL DEFAULT 0,
    sent TEXT, refused INTEGER, error TEXT, PRIMARY KEY (collection, id)
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS records_by_version ON records (collection, version);
CREATE INDEX IF NOT EXISTS records_on_server ON records (collection, modified) WHERE {ON_SERVER};
CREATE INDEX IF NOT EXISTS records_to_push ON records (collection, id) WHERE {UNPUSHED};
CREATE INDEX IF NOT EXISTS records_in_conflict ON records (collection, id) WHERE {PARKED};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FILE_VERSION};
"""


@dataclass(slots=True)
class Row:
    """One record of the file; data is JSON text."""

    id: str
    version: int = 0
    """The mirror's own timestamp of the record, in milliseconds: it changes when ``mine`` does."""
    mine: str | None = None
    """The data here; ``None`` for a record that was deleted here."""
    theirs: str | None = None
    """The data that the server had last; ``None`` where it has none."""
    modified: int | None = None
    """The server's timestamp of the record or its tombstone; ``None`` where it never had any."""
    base: str | None = None
    """The data that both sides had in common last, where that is not ``theirs``; ``null`` where there was none."""
    is_parked: bool = False
    """Whether both sides changed the record, and the conflict is not resolved."""
    sent: str | None = None
    """A list of what was sent and not answered: data, or null for a deletion."""
    refused: int | None = None
    """The version that the server refused: it is not sent again before it is edited."""
    error: str | None = None
    """The server's reason."""


_NAMES = [one.name for one in fields(Row)]
_COLUMNS, _SHOWN = ", ".join(_NAMES), ", ".join(_NAMES[:3])
_UPSERT = (
    f"INSERT INTO records (collection, {_COLUMNS}) VALUES (?{', ?' * len(_NAMES)}) "
    f"ON CONFLICT (collection, id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])}"
)
_values_of = attrgetter(*_NAMES)

StoredRow: TypeAlias = tuple[str, int, str | None]
"""Id, version and data of a record."""

Lease: TypeAlias = sqlite3.Connection
"""The right to sync the file, until it is closed."""

_ADVICE = {
    sqlite3.SQLITE_NOTADB: " It is no SQLite file: give another path.",
    sqlite3.SQLITE_CORRUPT: " It is damaged: move it away, and the next sync() makes another one.",
    sqlite3.SQLITE_FULL: " Nothing of this call was stored: make room on the disk, and repeat it.",
    sqlite3.SQLITE_IOERR: " Nothing of this call was stored: is there room on the disk, and is the disk well?",
    sqlite3.SQLITE_READONLY: " The file, or its folder, may not be written.",
    sqlite3.SQLITE_CANTOPEN: " Does its folder exist, and may it be written?",
    sqlite3.SQLITE_BUSY: " Another process is writing it for a long time: try again.",
}

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process, kept so that Python does not close them."""


class Store:
    """An open file. Safe in threads, and after a fork.

    Raises ``MirrorFileError`` for a file that is no mirror, of a newer version or of another server, and wherever
    SQLite fails.
    """

    def __init__(self, path: str | os.PathLike[str], server_url: str) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lease: Lease | None = None
        self._lock = fork_lock(self.enter_process)
        self.path = os.path.abspath(check_path(path))
        # The URL of an embedded server changes with each start.
        self.server_url = "embedded" if server_url.endswith(".embedded/v1") else server_url.rstrip("/")
        with self.transaction():
            pass  # a bad file is refused now

    # -- the connection -------------------------------------------------------------------------------------------

    def enter_process(self) -> None:
        """Begin anew, as after a fork: SQLite forbids to use, and to close, what another process opened."""
        if self._connection is not None:
            _inherited.append(self._connection)
        if self._lease is not None:
            # It is the parent's; open, SQLite would take it for a sync of this process. There is nothing in its file.
            self._lease.close()
        self._connection = self._lease = None

    def release(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    __del__ = release

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Generator[sqlite3.Connection]:
        """Run the block as one transaction: all of it is stored when the block ends cleanly, else nothing."""
        with self._lock:
            try:
                connection = self._connection or self._open()
                if connection.in_transaction:
                    yield connection
                    return
                connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _read(self, query: str, *values: Any) -> list[Any]:
        """Return what a query finds; by itself, it is a transaction."""
        with self._lock:
            try:
                return (self._connection or self._open()).execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> MirrorFileError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return MirrorFileError(f"The mirror {self.path} cannot be used: {error}.{_ADVICE.get(code, '')}")

    def _open(self) -> sqlite3.Connection:
        _create(self.path)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        application = _number(connection, "PRAGMA application_id")
        if not application and not _number(connection, "SELECT count(*) FROM sqlite_master"):
            connection.executescript("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL;")
            (server,) = connection.execute("SELECT quote(?)", (self.server_url,)).fetchone()
            # Another process may do the same now.
            connection.executescript(f"{_SCHEMA} INSERT OR IGNORE INTO meta VALUES ('server', {server}); COMMIT;")
            application = APPLICATION_ID
        if application != APPLICATION_ID:
            raise MirrorFileError(f"{self.path} is a file of another program, not a mirror: give another path.")
        version = _number(connection, "PRAGMA user_version")
        if version != FILE_VERSION:
            raise MirrorFileError(
                f"{self.path} is a mirror of version {version}, and this kinto_orm writes version {FILE_VERSION}: "
                "install the newer one, or give another path."
            )
        (server,) = connection.execute("SELECT value FROM meta WHERE name = 'server'").fetchone() or ("",)
        if server != self.server_url:
            raise MirrorFileError(
                f"{self.path} is a mirror of {server}, not of {self.server_url}: give each server a file."
            )

    # -- notes ----------------------------------------------------------------------------------------------------

    def note(self, name: str) -> str | None:
        """Return what :meth:`set_note` wrote; ``None`` where there is nothing."""
        found = self._read("SELECT value FROM meta WHERE name = ?", name)
        return found[0][0] if found else None

    def set_note(self, name: str, value: str) -> None:
        """Write a text."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def check_user(self, user: str) -> None:
        """Remember whose mirror this is; raise ``MirrorFileError`` where it is another user's."""
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('user', ?)", (user,))
            owner = self.note("user")
        if owner != user:
            raise MirrorFileError(
                f"{self.path} is the mirror of {owner or 'anonymous'}, and the client is "
                f"{user or 'anonymous'}: give each user a file."
            )

    # -- collections ----------------------------------------------------------------------------------------------

    def add_collection(self, path: str, indexes: Iterable[str]) -> None:
        """Add the collection where it is new. ``indexes`` are fields to be indexed."""
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO collections (path, version) VALUES (?, ?)", (path, _now()))
            for field in indexes:
                connection.execute(
                    f'CREATE INDEX IF NOT EXISTS "records_by_field_{field}" '
                    f"ON records (collection, json_extract(mine, {json_path(field)}))"
                )

    def collections(self) -> dict[str, int]:
        """Return the number of each collection, by its path."""
        return dict(self._read("SELECT path, number FROM collections ORDER BY number"))

    def timestamp(self, collection: int) -> int:
        """Return the mirror's own timestamp of the list."""
        return int(self._read("SELECT version FROM collections WHERE number = ?", collection)[0][0])

    def place(self, collection: int) -> tuple[int, int]:
        """Return the place that the pulls have reached, in the server's milliseconds.

        All changes up to the *cursor* were taken, and none is added there any more; *timestamp* is that of the list at
        the last complete pull.
        """
        cursor, timestamp = self._read("SELECT cursor, timestamp FROM collections WHERE number = ?", collection)[0]
        return int(cursor), int(timestamp)

    def set_place(self, collection: int, cursor: int, timestamp: int) -> None:
        """Remember the place that the pulls have reached."""
        with self.transaction() as connection:
            query = "UPDATE collections SET cursor = ?, timestamp = ? WHERE number = ?"
            connection.execute(query, (cursor, timestamp, collection))

    # -- records --------------------------------------------------------------------------------------------------

    def next_version(self, collection: int, count: int = 1) -> int:
        """Return the last one of so many new timestamps of the list, later than all before them."""
        with self.transaction() as connection:
            query = "UPDATE collections SET version = max(version + 1, ?) + ? WHERE number = ? RETURNING version"
            return _number(connection, query, _now(), count - 1, collection)

    def get(self, collection: int, id: str, *, is_shown: bool = False) -> Row | None:
        """Return the row of that id; to be shown only, without what is known of the server."""
        columns = _SHOWN if is_shown else _COLUMNS
        found = self._read(f"SELECT {columns} FROM records WHERE collection = ? AND id = ?", collection, id)
        return Row(*found[0]) if found else None

    def put(self, collection: int, *rows: Row) -> None:
        """Write the rows."""
        with self.transaction() as connection:
            connection.executemany(_UPSERT, [(collection, *_values_of(row)) for row in rows])

    def add(self, collection: int, rows: Sequence[tuple[str, str, int]]) -> None:
        """Add records that the file does not have, as the server has them: id, data and timestamp of each."""
        with self.transaction() as connection:
            version = self.next_version(collection, len(rows)) - len(rows)
            connection.executemany(
                "INSERT INTO records (collection, id, version, mine, theirs, modified) VALUES (?, ?, ?, ?, ?, ?)",
                [(collection, id, version + at, text, text, time) for at, (id, text, time) in enumerate(rows, 1)],
            )

    def forget_server(self, collection: int, *, keeps_all: bool) -> list[str]:
        """Let the server have nothing, so that what is here is new there; return the ids of those that go.

        These are the records that are as the server had them, unless all are kept.
        """
        clean = "SELECT id FROM records WHERE collection = ? AND mine IS theirs AND mine IS NOT NULL ORDER BY id DESC"
        with self.transaction() as connection:
            gone = [] if keeps_all else [id for (id,) in self._read(clean, collection)]
            last = self.next_version(collection, len(gone))
            connection.executemany(
                "UPDATE records SET mine = NULL, version = ? WHERE collection = ? AND id = ?",
                [(last - at, collection, id) for at, id in enumerate(gone)],
            )
            connection.execute(
                "UPDATE records SET base = iif(mine IS NULL, NULL, coalesce(base, theirs)), theirs = NULL, "
                "modified = 0, is_parked = 0, sent = NULL, refused = NULL, error = NULL WHERE collection = ?",
                (collection,),
            )
            self.set_place(collection, 0, 0)
        return gone

    def select(self, collection: int, where: str, values: Sequence[Any], order: str = "id") -> Iterator[StoredRow]:
        """Return id, version and data of the rows that meet a condition in SQL; read them inside of a transaction."""
        assert self._connection is not None and self._connection.in_transaction, "a transaction of the caller"
        query = f"SELECT {_SHOWN} FROM records WHERE collection = ? AND {where} ORDER BY {order}"
        return self._connection.execute(query, (collection, *values))

    def count(self, collection: int, where: str, values: Sequence[Any] = ()) -> int:
        """Return the number of rows that meet a condition in SQL."""
        query = f"SELECT count(*) FROM records WHERE collection = ? AND {where}"
        return int(self._read(query, collection, *values)[0][0])

    def rows(self, collection: int, where: str, *values: Any, after: str = "", limit: int = -1) -> list[Row]:
        """Return the rows that meet a condition in SQL, by id."""
        query = f"SELECT {_COLUMNS} FROM records WHERE collection = ? AND {where} AND id > ? ORDER BY id LIMIT ?"
        return [Row(*found) for found in self._read(query, collection, *values, after, limit)]

    def of_ids(self, collection: int, ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of these ids that there are."""
        found = self.rows(collection, "id IN (SELECT value FROM json_each(?))", json.dumps(list(ids)))
        return {row.id: row for row in found}

    def anchor(self, collection: int, cursor: int) -> tuple[str, int] | None:
        """Return id and server's timestamp of the newest record that the server had at the cursor, else of the oldest.

        It is there still, or has a newer version or a tombstone, unless it is another list.
        """
        query = f"SELECT id, modified FROM records WHERE collection = ? AND {ON_SERVER} AND modified"
        found = self._read(f"{query} <= ? ORDER BY modified DESC LIMIT 1", collection, cursor)
        found = found or self._read(f"{query} > ? ORDER BY modified LIMIT 1", collection, cursor)
        return found[0] if found else None

    def lease(self) -> Lease | None:
        """Return the right to sync the file until it is closed, or the process ends; ``None`` where another has it."""
        # A second file, because a lock on the first one would keep others from editing.
        _create(f"{self.path}-sync")
        connection = sqlite3.connect(f"{self.path}-sync", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise self._error(error) from error
            return None
        self._lease = connection
        return connection


def json_path(field: str) -> str:
    """Return the path of a field of the data as SQL text: as it is indexed, so it is asked for."""
    return "'$." + ".".join([f'"{key}"' for key in field.split(".")]) + "'"


def _create(path: str) -> None:
    """Create the file where there is none, for its owner alone."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise MirrorFileError(f"The mirror {path} cannot be made: {error.strerror}.") from error


def _number(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    return int(connection.execute(query, values).fetchone()[0])


def _now() -> int:
    return time.time_ns() // 1_000_000

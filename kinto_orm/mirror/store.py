"""The file of a mirror: the only place that speaks SQLite.

Each record is one row with three versions of its data: *base*, as the server last had it; *mine*, as it is here;
*sent*, not answered yet. What has to be pushed is computed from them, and no flag can lie about it.
https://www.sqlite.org/lang.html
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from typing import Any

from kinto_orm.errors import MirrorFileError

APPLICATION_ID = 0x4B4D4952
"""The number by which SQLite files of a program are known: KMIR."""
FILE_VERSION = 1
BUSY_SECONDS = 30

_UNPUSHED = "(base IS NOT mine OR (gone IS NOT NULL AND mine IS NOT NULL))"
_ON_SERVER = "((theirs_modified IS NULL AND base IS NOT NULL AND gone IS NULL) OR theirs IS NOT NULL)"

_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE collections (
    number INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0, timestamp INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE records (
    collection INTEGER NOT NULL REFERENCES collections (number), id TEXT NOT NULL, version INTEGER NOT NULL,
    mine TEXT, base TEXT, base_modified INTEGER, gone INTEGER, sent TEXT,
    theirs TEXT, theirs_modified INTEGER, refused INTEGER, error TEXT,
    PRIMARY KEY (collection, id)
);
CREATE UNIQUE INDEX records_by_version ON records (collection, version);
CREATE INDEX records_on_server ON records (collection, base_modified) WHERE {_ON_SERVER};
CREATE INDEX records_to_push ON records (collection, id) WHERE {_UNPUSHED};
CREATE INDEX records_in_conflict ON records (collection, id) WHERE theirs_modified IS NOT NULL;
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
    base: str | None = None
    """The data that the server had last; ``None`` where it never had any."""
    base_modified: int | None = None
    """The server's timestamp of ``base``."""
    gone: int | None = None
    """The server's timestamp of the deletion, where the server has the record no more."""
    sent: str | None = None
    """A list of what was sent and not answered: data, or null for a deletion."""
    theirs: str | None = None
    """The server's side of a conflict; ``None`` where the record was deleted there."""
    theirs_modified: int | None = None
    """The server's timestamp of ``theirs``; ``None`` where there is no conflict."""
    refused: int | None = None
    """The version that the server refused: it is not sent again before it is edited."""
    error: str | None = None
    """The server's reason."""

    @property
    def is_unpushed(self) -> bool:
        """Whether the server lacks what was done here."""
        return self.base != self.mine or (self.gone is not None and self.mine is not None)

    @property
    def is_on_server(self) -> bool:
        """Whether the server has the record, as far as it is known here."""
        return self.theirs is not None if self.is_parked else self.base is not None and self.gone is None

    @property
    def server_modified(self) -> int | None:
        """The server's timestamp of the record, as far as it is known here."""
        return self.theirs_modified if self.is_parked else self.base_modified

    @property
    def is_parked(self) -> bool:
        """Whether both sides changed the record, and the conflict is not resolved."""
        return self.theirs_modified is not None

    @property
    def is_refused(self) -> bool:
        """Whether the server refused the record as it is here."""
        return self.is_unpushed and self.refused == self.version


_COLUMNS = ", ".join(one.name for one in fields(Row))
_UPSERT = (
    f"INSERT INTO records (collection, {_COLUMNS}) VALUES ({', '.join('?' * (1 + len(fields(Row))))}) "
    f"ON CONFLICT (collection, id) DO UPDATE SET "
    + ", ".join(f"{one.name} = excluded.{one.name}" for one in fields(Row)[1:])
)


@dataclass(frozen=True, slots=True)
class Position:
    """The place that the pulls of a collection have reached; timestamps are the server's, in milliseconds."""

    cursor: int
    """All changes up to here were taken, and none is added there any more."""
    timestamp: int
    """The timestamp that the list had at the last complete pull."""


class Store:
    """An open file. Safe in threads, and after a fork.

    Raises ``MirrorFileError`` for a file that is no mirror, of a newer version or of another server, and wherever
    SQLite fails.
    """

    def __init__(self, path: str | os.PathLike[str], server_url: str) -> None:
        self.path = os.path.abspath(path)
        self.server_url = server_url
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._held: list[sqlite3.Connection] = []
        """The connection, where there is one: shared with what closes it."""
        self._is_in_transaction = False
        weakref.finalize(self, _close_all, self._held, self._process)
        with self.transaction():
            pass  # a bad file is refused now

    # -- the connection -------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Close the file; the next call opens it again."""
        with self._of_this_process():
            _close_all(self._held, self._process)

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Generator[sqlite3.Connection]:
        """Run the block as one transaction: all of it is stored when the block ends cleanly, else nothing."""
        with self._of_this_process(), self._translated():
            connection = self._connection()
            if self._is_in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            self._is_in_transaction = True
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                self._is_in_transaction = False
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _of_this_process(self) -> Generator[None]:
        if self._process != os.getpid():
            # SQLite forbids to use, and to close, a connection that another process opened.
            _inherited.extend(self._held)
            self._held, self._lock, self._is_in_transaction = [], threading.RLock(), False
            self._process = os.getpid()
            weakref.finalize(self, _close_all, self._held, self._process)
        with self._lock:
            yield

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise MirrorFileError(f"The mirror {self.path} cannot be used: {error}.{_advice(error)}") from error

    def _connection(self) -> sqlite3.Connection:
        if not self._held:
            _create(self.path)
            self._held.append(
                sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            )
            try:
                self._set_up(self._held[0])
            except BaseException:
                self._held.pop().close()
                raise
        return self._held[0]

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if _is_empty(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            if _is_empty(connection):  # no other process was faster
                for statement in _SCHEMA.strip().split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('server', ?)", (self.server_url,))
            connection.execute("COMMIT")
        if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
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

    def check_user(self, user: str) -> None:
        """Remember whose mirror this is; raise ``MirrorFileError`` where it is another user's."""
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('user', ?)", (user,))
            (owner,) = connection.execute("SELECT value FROM meta WHERE name = 'user'").fetchone()
        if owner != user:
            raise MirrorFileError(
                f"{self.path} is the mirror of {owner or 'anonymous'}, and the client is "
                f"{user or 'anonymous'}: give each user a file."
            )

    def number(self, name: str) -> float:
        """Return a number that :meth:`set_number` wrote; 0 where there is none."""
        with self.transaction(writes=False) as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return float(row[0]) if row else 0

    def set_number(self, name: str, value: float) -> None:
        """Write a number."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value)))

    # -- collections ----------------------------------------------------------------------------------------------

    def add_collection(self, path: str, indexes: Iterable[str] = ()) -> int:
        """Return the number of the collection; add it where it is new. ``indexes`` are fields to be indexed."""
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO collections (path, version) VALUES (?, ?)", (path, _now()))
            for field in indexes:
                connection.execute(
                    f'CREATE INDEX IF NOT EXISTS "records_by_field_{field}" '
                    f"ON records (collection, {json_field(field)})"
                )
            (number,) = connection.execute("SELECT number FROM collections WHERE path = ?", (path,)).fetchone()
        return int(number)

    def collections(self) -> list[tuple[int, str]]:
        """Return number and path of each collection."""
        with self.transaction(writes=False) as connection:
            return connection.execute("SELECT number, path FROM collections ORDER BY number").fetchall()

    def timestamp(self, collection: int) -> int:
        """Return the mirror's own timestamp of the list."""
        with self.transaction(writes=False) as connection:
            return _number(connection, "SELECT version FROM collections WHERE number = ?", collection)

    def position(self, collection: int) -> Position:
        """Return the place that the pulls have reached."""
        with self.transaction(writes=False) as connection:
            query = "SELECT cursor, timestamp FROM collections WHERE number = ?"
            return Position(*connection.execute(query, (collection,)).fetchone())

    def set_position(self, collection: int, position: Position) -> None:
        """Remember the place that the pulls have reached."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE collections SET cursor = ?, timestamp = ? WHERE number = ?",
                (position.cursor, position.timestamp, collection),
            )

    # -- records --------------------------------------------------------------------------------------------------

    def next_version(self, collection: int) -> int:
        """Return a new timestamp of the list, later than all before it."""
        with self.transaction() as connection:
            return _number(
                connection,
                "UPDATE collections SET version = max(version + 1, ?) WHERE number = ? RETURNING version",
                _now(),
                collection,
            )

    def get(self, collection: int, id: str) -> Row | None:
        """Return the row of that id."""
        with self.transaction(writes=False) as connection:
            query = f"SELECT {_COLUMNS} FROM records WHERE collection = ? AND id = ?"
            found = connection.execute(query, (collection, id)).fetchone()
        return Row(*found) if found else None

    def put(self, collection: int, row: Row) -> None:
        """Write the row."""
        with self.transaction() as connection:
            connection.execute(_UPSERT, (collection, *astuple(row)))

    def add_synced(self, collection: int, rows: Sequence[tuple[str, int, str]]) -> None:
        """Add records that the file does not have, as the server has them: id, timestamp and data of each."""
        with self.transaction() as connection:
            version = self.next_version(collection)
            connection.executemany(
                "INSERT INTO records (collection, id, version, mine, base, base_modified) VALUES (?, ?, ?, ?, ?, ?)",
                [(collection, id, version + at, text, text, modified) for at, (id, modified, text) in enumerate(rows)],
            )
            connection.execute("UPDATE collections SET version = ? WHERE number = ?", (version + len(rows), collection))

    def select(
        self, collection: int, where: str = "1", values: Sequence[Any] = (), order: str = "id", limit: int = -1
    ) -> list[tuple[str, int, str | None]]:
        """Return id, version and data of the rows that meet a condition in SQL."""
        with self.transaction(writes=False) as connection:
            return connection.execute(
                f"SELECT id, version, mine FROM records WHERE collection = ? AND {where} ORDER BY {order} LIMIT ?",
                (collection, *values, limit),
            ).fetchall()

    def count(self, collection: int, where: str = "mine IS NOT NULL", values: Sequence[Any] = ()) -> int:
        """Return the number of rows that meet a condition in SQL."""
        with self.transaction(writes=False) as connection:
            query = f"SELECT count(*) FROM records WHERE collection = ? AND {where}"
            return _number(connection, query, collection, *values)

    def count_on_server(self, collection: int) -> int:
        """Return how many records the server has, as far as it is known here."""
        return self.count(collection, _ON_SERVER)

    def anchor(self, collection: int, cursor: int) -> tuple[str, int] | None:
        """Return id and server's timestamp of the newest record that the server had at the cursor, else of the oldest.

        It is there still, or has a newer version or a tombstone, unless it is another list.
        """
        query = f"SELECT id, base_modified FROM records WHERE collection = ? AND {_ON_SERVER} AND base_modified"
        with self.transaction(writes=False) as connection:
            found: tuple[str, int] | None = connection.execute(
                f"{query} <= ? ORDER BY base_modified DESC LIMIT 1", (collection, cursor)
            ).fetchone()
            return (
                found
                or connection.execute(f"{query} > ? ORDER BY base_modified LIMIT 1", (collection, cursor)).fetchone()
            )

    def unpushed(self, collection: int, after: str = "", limit: int = -1) -> list[Row]:
        """Return the rows that the server lacks, by id."""
        return self._rows(collection, _UNPUSHED, after, limit)

    def to_push(self, collection: int, after: str, limit: int) -> list[Row]:
        """Return the rows to be pushed: without those in conflict, and those that the server refused."""
        where = f"{_UNPUSHED} AND theirs_modified IS NULL AND refused IS NOT version"
        return self._rows(collection, where, after, limit)

    def parked(self, collection: int) -> list[Row]:
        """Return the rows in conflict."""
        return self._rows(collection, "theirs_modified IS NOT NULL", "", -1)

    def of_ids(self, collection: int, ids: Iterable[str]) -> dict[str, Row]:
        """Return the rows of these ids that there are."""
        with self.transaction(writes=False) as connection:
            query = f"SELECT {_COLUMNS} FROM records WHERE collection = ? AND id IN (SELECT value FROM json_each(?))"
            found = connection.execute(query, (collection, json.dumps(list(ids)))).fetchall()
        return {one[0]: Row(*one) for one in found}

    def between(self, collection: int, after: str, up_to: str | None) -> list[Row]:
        """Return the rows in a range of ids."""
        return self._rows(collection, "id <= ?", after, -1, "\U0010ffff" if up_to is None else up_to)

    def rows(self, collection: int) -> Iterator[Row]:
        """Yield all rows by id, a thousand at a time."""
        after = ""
        while found := self._rows(collection, "1", after, 1000):
            yield from found
            after = found[-1].id

    def _rows(self, collection: int, where: str, after: str, limit: int, *values: Any) -> list[Row]:
        with self.transaction(writes=False) as connection:
            query = f"SELECT {_COLUMNS} FROM records WHERE collection = ? AND {where} AND id > ? ORDER BY id LIMIT ?"
            return [Row(*found) for found in connection.execute(query, (collection, *values, after, limit))]

    def check(self) -> list[str]:
        """Return what SQLite finds wrong with the file."""
        with self.transaction(writes=False) as connection:
            found = [str(line) for (line,) in connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    @contextmanager
    def lease(self) -> Generator[bool]:
        """Yield whether this is the only sync of the file now, in all processes; it ends with the process, too."""
        # A second file, because a lock on the first one would keep others from editing.
        _create(f"{self.path}-sync")
        with closing(sqlite3.connect(f"{self.path}-sync", timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise MirrorFileError(f"{self.path}-sync cannot be used: {error}.") from error
                yield False
                return
            yield True


_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process, kept so that Python does not close them."""


def json_field(field: str) -> str:
    """Return the SQL expression of a field of the data: as it is indexed, so it is asked for."""
    steps = ".".join([f'"{key}"' for key in field.split(".")])
    return f"json_extract(mine, '$.{steps}')"


def _create(path: str) -> bool:
    """Create the file where there is none, for its owner alone; return whether it was created."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise MirrorFileError(f"The mirror {path} cannot be made: {error.strerror}.") from error
    return True


def _is_empty(connection: sqlite3.Connection) -> bool:
    is_of_any_program = _number(connection, "PRAGMA application_id") != 0
    return not is_of_any_program and _number(connection, "SELECT count(*) FROM sqlite_master") == 0


def _close_all(connections: list[sqlite3.Connection], process: int) -> None:
    while connections:
        connection = connections.pop()
        if process == os.getpid():
            connection.close()
        else:
            _inherited.append(connection)


def _number(connection: sqlite3.Connection, query: str, *values: Any) -> int:
    return int(connection.execute(query, values).fetchone()[0])


def _now() -> int:
    return time.time_ns() // 1_000_000


def _advice(error: sqlite3.Error) -> str:
    return {
        sqlite3.SQLITE_NOTADB: " It is no SQLite file: give another path.",
        sqlite3.SQLITE_CORRUPT: " It is damaged: move it away, and the next sync() makes another one.",
        sqlite3.SQLITE_FULL: " Nothing of this call was stored: make room on the disk, and repeat it.",
        sqlite3.SQLITE_READONLY: " The file, or its folder, may not be written.",
        sqlite3.SQLITE_CANTOPEN: " Does its folder exist, and may it be written?",
        sqlite3.SQLITE_BUSY: " Another process is writing it for a long time: try again.",
    }.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")

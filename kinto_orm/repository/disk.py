"""The port to the disk of this machine: text files, and sorted lists in SQLite that may be larger than memory.

Flows call it through ``call_blocking``; the client passes the implementation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from kinto_orm.protocol.messages import Content

FilePath: TypeAlias = str | os.PathLike[str]


class Entry(NamedTuple):
    """One entry of a sorted list."""

    key: str
    position: int
    body: bytes


class SortedLists(Protocol):
    """Named lists of entries, each sorted by key (by code points), then by position.

    They live in SQLite, so that they may be larger than memory. Every method blocks.
    """

    def add(self, name: str, entries: Iterable[Entry]) -> None:
        """Add entries to a list; one of the same key and position is replaced where the lists are kept in a file."""
        ...

    def read(self, name: str) -> Iterator[Entry]:
        """Read a list in its order; entries may be added to other lists while it is read."""
        ...

    def find_repeated(self, name: str) -> tuple[Entry, Entry] | None:
        """Return the first two entries of a list that have the same key."""
        ...

    def find(self, name: str, keys: Iterable[str]) -> Mapping[str, bytes]:
        """Return the bodies of these keys that the list has."""
        ...

    def remove(self, name: str, keys: Iterable[str]) -> None:
        """Remove the entries of these keys."""
        ...

    def close(self) -> None:
        """Close the lists; temporary ones are deleted."""
        ...


class FileDigest(NamedTuple):
    """The size of a file in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class NewFile(Protocol):
    """A file that is written piece by piece, and takes its place only when it is whole. Every method blocks."""

    def write(self, piece: bytes) -> None:
        """Write the next piece."""
        ...

    def close(self) -> FileDigest:
        """Put the file in its place, on the disk."""
        ...

    def discard(self) -> None:
        """Delete the file, unless it is in its place; it may be called twice."""
        ...


class Folder(Protocol):
    """The files below one folder, by names such as ``groups/staff.json``. Every method blocks.

    Raises ``InvalidValueError`` for a name that leads out of the folder, ``OSError`` where the disk refuses.
    """

    @property
    def location(self) -> str:
        """The path of the folder."""
        ...

    def path(self, name: str) -> str:
        """Return the path of a file."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of all files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Read a file."""
        ...

    def digest(self, name: str) -> FileDigest | None:
        """Return the digest of a file; ``None`` where there is none."""
        ...

    def create(self, name: str) -> NewFile:
        """Begin a file; what has the name keeps it until the new one is closed."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, and the folders that are empty without it."""
        ...

    def sweep(self) -> None:
        """Delete the beginnings of files that a process left which was killed."""
        ...


class TemporaryFolder(Folder, Protocol):
    """A folder that is deleted when it is closed."""

    def close(self) -> None:
        """Delete the folder."""
        ...


class Disk(Protocol):
    """Files and SQLite on this machine. Every method blocks: flows use ``call_blocking``."""

    def read_lines(self, path: FilePath) -> Iterator[str]:
        """Read the lines of a UTF-8 file one by one, each with its end; a byte order mark is left out.

        Raises ``InvalidValueError`` for text that is not UTF-8, ``OSError`` where the file cannot be read.
        """
        ...

    def write_text(self, path: FilePath, pieces: Iterable[str]) -> None:
        """Write a UTF-8 file; it takes its place only when it is whole. Raises ``OSError``."""
        ...

    def read_content(self, file: Content) -> bytes:
        """Return the whole content of the file. Raises ``InvalidTypeError`` for other objects, ``OSError``."""
        ...

    def open_folder(self, path: FilePath) -> Folder:
        """Return the folder, which need not be there. Raises ``InvalidTypeError`` for what is no path."""
        ...

    def open_temporary_folder(self) -> TemporaryFolder:
        """Make a folder that only this process knows."""
        ...

    def open_lists(self, path: FilePath | None = None) -> SortedLists:
        """Open sorted lists: temporary ones, or those kept in a file, where each change is on the disk when it returns.

        Raises ``UsageError`` where the file is no such file, ``OSError`` where it cannot be opened.
        """
        ...

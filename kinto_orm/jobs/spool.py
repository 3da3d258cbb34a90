"""Entries in the order of their keys: in memory while they are few, in SQLite once they are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Generic, TypeAlias, TypeVar

from kinto_orm.repository.disk import Entry, SortedLists, open_lists

T = TypeVar("T")

MOST_IN_MEMORY = 10_000
"""The number of entries that one spool keeps in memory."""

_PIECE = 1000
"""The number of entries that go to SQLite at a time."""

_by_key = itemgetter(0)
"""Sort by key alone: entries are added in the order of their positions, and stay in it."""


Spooled: TypeAlias = tuple[str, int, T]
"""One entry of a spool: key, position, value. A plain tuple, because there are as many as rows."""


class Spool(Generic[T]):
    """Entries sorted by key, then by position. Methods that may reach SQLite block: flows call them in a thread."""

    def __init__(
        self,
        encode: Callable[[int, T], bytes],
        decode: Callable[[bytes], T],
    ) -> None:
        """``encode`` is given the position, too, for what it raises."""
        self._encode = encode
        self._decode = decode
        self._entries: list[Spooled[T]] = []
        self._lists: SortedLists | None = None
        self._count = 0

    def add(self, entries: Iterable[Spooled[T]]) -> None:
        """Add entries, whose positions ascend; not while the spool is read."""
        before = len(self._entries)
        self._entries += entries
        self._count += len(self._entries) - before
        if self._lists is None and len(self._entries) > MOST_IN_MEMORY:
            self._lists = open_lists()
        if self._lists is not None and len(self._entries) >= _PIECE:
            self._flush(self._lists)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Spooled[T]]:
        """Read the entries in their order."""
        if self._lists is None:
            self._entries.sort(key=_by_key)
            return iter(self._entries)
        self._flush(self._lists)
        return map(self._spooled, self._lists.read("entries"))

    def find_repeated(self) -> tuple[Spooled[T], Spooled[T]] | None:
        """Return the first two entries that have the same key."""
        if self._lists is not None:
            self._flush(self._lists)
            found = self._lists.find_repeated("entries")
            return None if found is None else (self._spooled(found[0]), self._spooled(found[1]))
        before: Spooled[T] | None = None
        for entry in self:
            if before is not None and entry[0] == before[0]:
                return before, entry
            before = entry
        return None

    def find(self, keys: Iterable[str]) -> Mapping[str, T]:
        """Return the values of these keys that the spool has."""
        if self._lists is None:
            wanted = frozenset(keys)
            return {key: value for key, _, value in self._entries if key in wanted}
        self._flush(self._lists)
        return {key: self._decode(body) for key, body in self._lists.find("entries", keys).items()}

    def close(self) -> None:
        """Free what the spool holds."""
        self._entries = []
        self._count = 0
        if self._lists is not None:
            self._lists.close()
            self._lists = None

    def _spooled(self, entry: Entry) -> Spooled[T]:
        return entry.key, entry.position, self._decode(entry.body)

    def _flush(self, lists: SortedLists) -> None:
        if self._entries:
            lists.add(
                "entries",
                (Entry(key, position, self._encode(position, value)) for key, position, value in self._entries),
            )
            self._entries = []

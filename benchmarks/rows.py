"""The records that are written and read: the same for every contestant, and for the stub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

AUTHORS = ("Ada Lovelace", "Grace Hopper", "Barbara Liskov", "Margaret Hamilton")
SUMMARY = "A short text about the subject, long enough to look like what people keep in a field of this name."
ID_PREFIX = "article-"
FIRST_TIMESTAMP = 1_700_000_000_000


def new_todo(number: int) -> dict[str, Any]:
    """Return a small new record, without an id."""
    return {"title": f"Todo number {number}", "done": number % 3 == 0, "priority": number % 10, "tags": ["a", "b"]}


def stored_id(number: int) -> str:
    """Return the id of the stored record of that number; in their order."""
    return f"{ID_PREFIX}{number:08}"


def stored_article(number: int) -> dict[str, Any]:
    """Return a stored record of about 300 bytes."""
    return {
        "id": stored_id(number),
        "last_modified": FIRST_TIMESTAMP + number,
        "title": f"Article number {number}",
        "author": AUTHORS[number % 4],
        "summary": SUMMARY,
        "published": number % 2 == 0,
        "priority": number % 10,
        "score": number / 7,
        "tags": ["news", "kinto"],
    }


def wanted_articles(count: int, changed_every: int | None) -> list[dict[str, Any]]:
    """Return the stored records as a source has them; every so many is changed."""
    rows = [{key: value for key, value in row.items() if key != "last_modified"} for row in stored_articles(count)]
    for row in rows[::changed_every] if changed_every else ():
        row["priority"] += 1
    return rows


def stored_articles(count: int) -> Iterator[dict[str, Any]]:
    """Return all of them."""
    return map(stored_article, range(count))

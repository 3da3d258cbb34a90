"""Small functions that users of the reference client import."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from os import PathLike
from typing import Any

from kinto_orm.kinto_http.constants import VALID_SLUG_REGEXP
from kinto_orm.protocol.json_values import is_same, say_value
from kinto_orm.protocol.paths import Kind
from kinto_orm.repository.verbs import without_schema_timestamp
from kinto_orm.server.jsonb import look_up, order


def slugify(value: Any) -> str:
    """Return the text as an id: lower case, without accents, hyphens for spaces; valid ids stay as they are.

    No call of this package rewrites ids. Raises ``ValueError`` where nothing of the text is left.
    """
    text = str(value)
    if VALID_SLUG_REGEXP.fullmatch(text):
        return text
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip())
    if not VALID_SLUG_REGEXP.fullmatch(slug):
        raise ValueError(f"Nothing of {say_value(value, 80)} is left that could be an id.")
    return slug


def urljoin(server_url: str, path: str) -> str:
    """Return the two, joined by one slash."""
    return f"{server_url.rstrip('/')}/{path.lstrip('/')}"


def quote(text: Any) -> str:
    """Return the text in double quotes, as in an ETag; existing quotes are not doubled."""
    stripped = text.strip('"') if isinstance(text, str) else text
    return f'"{stripped}"'


def chunks(lst: Sequence[Any], n: int) -> Iterator[Sequence[Any]]:
    """Yield the list in pieces of ``n``; with 0, in one."""
    yield from (lst[start : start + n] for start in range(0, len(lst), n)) if n > 0 else [lst]


def json_iso_datetime(obj: Any) -> str:
    """Return a date in ISO format, for ``json.dumps``; raise ``TypeError`` for other values."""
    if isinstance(obj, date):
        return obj.isoformat()
    raise TypeError(f"Type {type(obj)} is not serializable")


json_dumps = functools.partial(json.dumps, default=json_iso_datetime)


def sort_records(records: Iterable[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Return the records in the server's order for this ``_sort``: ``"name,-last_modified"``."""
    ordered = list(records)
    for field in reversed([field.strip() for field in sort.split(",")]):
        name = field.removeprefix("-")
        ordered.sort(key=lambda record: order(look_up(record, name)), reverse=field.startswith("-"))
    return ordered


def records_equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether they are equal but for the keys that the server sets."""
    return is_same(*(without_schema_timestamp(Kind.RECORD, without_timestamp(one)) for one in (a, b)))


def without_timestamp(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record without ``last_modified``."""
    return {key: value for key, value in record.items() if key != "last_modified"}


def collection_diff(
    src: Iterable[dict[str, Any]], dest: Iterable[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], dict[str, Any]]], list[dict[str, Any]]]:
    """Return the records to create, to update (old and new) and to delete, to make ``dest`` equal to ``src``.

    Changes neither.
    """
    left = {record["id"]: record for record in dest}
    to_create: list[dict[str, Any]] = []
    to_update: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for record in src:
        old = left.pop(record["id"], None)
        if old is None:
            to_create.append(record)
        elif not records_equal(record, old):
            to_update.append((old, without_timestamp(record)))
    return to_create, to_update, list(left.values())


def compute_sha256(filepath: str | PathLike[str]) -> str:
    """Return the SHA-256 of the file, in hexadecimal; reads it piece by piece."""
    with open(filepath, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

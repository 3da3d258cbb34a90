"""The folder of a dump: its files, and the manifest that names each with its SHA-256.

::

    MANIFEST.json bucket.json groups/<id>.json collections/<id>/{collection.json,records.jsonl}
    attachments/<collection>/<record>/<file>

It is made for git: objects are indented, records are one a line, sorted by id, keys are sorted, and nothing in it
changes where nothing changed on the server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kinto_orm.errors import InvalidValueError, KintoError, ProtocolError, UsageError
from kinto_orm.protocol.attachments import Attachment
from kinto_orm.protocol.json_values import JSON, JSONObject, decode, encode, say_value
from kinto_orm.protocol.paths import Kind, check_id
from kinto_orm.repository.disk import FileDigest, Folder

FORMAT = "kinto_orm dump, version 1"

MANIFEST = "MANIFEST.json"
BUCKET = "bucket.json"

_OWN = (BUCKET, "groups", "collections", "attachments")
"""The files of a dump beside its manifest."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DumpedCollection:
    """A collection in a dump."""

    folder: str
    """The folder of its files."""
    count: int
    """The number of its records."""
    timestamp: int
    """The timestamp of the list of its records when they were read, in milliseconds."""
    is_settled: bool
    """Whether the records are one state of the collection; else it was written to while they were read."""
    attachments: Mapping[str, str | None] | None = None
    """The files of its records, by record; ``None`` for a file that the server had lost. No mapping: it has no plugin
    for files, so that a key ``attachment`` is data as any other."""

    @property
    def records(self) -> str:
        """The name of the file with its records."""
        return f"{self.folder}/records.jsonl"

    @property
    def document(self) -> str:
        """The name of the file with the collection itself."""
        return f"{self.folder}/collection.json"


@dataclass(slots=True)
class Manifest:
    """The table of contents of a dump."""

    bucket: str
    groups: dict[str, str] = field(default_factory=dict)
    """The files of the groups, by id."""
    collections: dict[str, DumpedCollection] = field(default_factory=dict)
    files: dict[str, FileDigest] = field(default_factory=dict)
    is_complete: bool = False
    """Whether the dump reached its end."""

    def encode(self) -> bytes:
        """Return the content of the file."""
        return write_document(
            {
                "format": FORMAT,
                "bucket": self.bucket,
                "is_complete": self.is_complete,
                "groups": self.groups,
                "collections": {id: asdict(one) for id, one in self.collections.items()},
                "files": {name: digest._asdict() for name, digest in self.files.items()},
            }
        )


def write_document(value: JSON) -> bytes:
    """Return the content of a file that holds one JSON value."""
    return f"{json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2)}\n".encode()


def write_row(row: JSONObject) -> bytes:
    """Return the line of a record: its keys are sorted, at every depth."""
    return encode(_sorted(row)) + b"\n"


def _sorted(value: Any) -> Any:
    # Faster than to sort in the standard library's writer, which most of a dump's time would be spent in.
    if type(value) is dict:
        return {key: _sorted(one) if type(one := value[key]) in _CONTAINERS else one for key in sorted(value)}
    return [_sorted(one) if type(one) in _CONTAINERS else one for one in value]


_CONTAINERS = frozenset({dict, list})


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """Return the name of each id in a file system that may not tell ``a`` from ``A``."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id in ids:
        name, number = id, 2
        while name.lower() in taken:
            name, number = f"{id}~{number}", number + 1
        taken.add(name.lower())
        names[id] = name
    return names


def attachment_name(folder: str, record: str, attachment: Attachment) -> str:
    """Return the name of the file of a record, whose records are dumped under the name ``folder``."""
    try:
        filename = attachment.safe_filename
    except ProtocolError:
        filename = "file"
    return f"attachments/{folder}/{record}/{filename}"


def find_manifest(folder: Folder, bucket: str) -> Manifest | None:
    """Return the manifest of an earlier dump of the bucket; ``None`` in an empty folder.

    Raises ``UsageError`` for a folder that holds something else, which a dump would overwrite.
    """
    if folder.digest(MANIFEST) is None:
        taken = [name for name in folder.names() if name.partition("/")[0] in _OWN]
        if taken:
            raise UsageError(
                f"{folder.location} holds {taken[0]} and no {MANIFEST}, so it is no dump: give another folder."
            )
        return None
    found = read_manifest(folder)
    if found.bucket != bucket:
        raise UsageError(f"{folder.location} is a dump of the bucket {found.bucket}, not of {bucket}.")
    return found


def read_manifest(folder: Folder) -> Manifest:
    """Read the manifest. Raises ``InvalidValueError`` where there is none that this version can read."""
    if folder.digest(MANIFEST) is None:
        raise InvalidValueError(f"{folder.location} is no dump: it has no {MANIFEST}.")
    try:
        found: Any = decode(folder.read(MANIFEST), MANIFEST)
        if found["format"] != FORMAT:
            raise InvalidValueError(f"its format is {say_value(found['format'])}, and not {FORMAT!r}")
        return Manifest(
            check_id(found["bucket"]),
            {check_id(id): str(name) for id, name in found["groups"].items()},
            {check_id(id): _collection_of(one) for id, one in found["collections"].items()},
            {str(name): _digest_of(one) for name, one in found["files"].items()},
            found["is_complete"] is True,
        )
    except (KintoError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidValueError(f"{folder.path(MANIFEST)} cannot be read as a manifest: {error!r:.200}.") from error


def _collection_of(found: JSONObject) -> DumpedCollection:
    made = DumpedCollection(**found)
    numbers = (made.count, made.timestamp)
    names = {} if made.attachments is None else dict(made.attachments)
    is_named = all(name is None or isinstance(name, str) for name in names.values())
    if not isinstance(made.folder, str) or any(type(one) is not int for one in numbers) or not is_named:
        raise InvalidValueError(f"{say_value(found, 100)} is no collection")
    return made


def _digest_of(found: JSONObject) -> FileDigest:
    made = FileDigest(**found)
    if type(made.size) is not int or not _HASH.fullmatch(made.sha256):
        raise InvalidValueError(f"{say_value(found, 100)} is no digest")
    return made


def check_files(folder: Folder, manifest: Manifest) -> None:
    """Raise ``InvalidValueError`` unless the dump is complete, and each file is as the manifest says."""
    where = folder.location
    if not manifest.is_complete:
        raise InvalidValueError(f"The dump in {where} is not complete: dump again, it goes on from there.")
    wanted = {BUCKET, *manifest.groups.values()}
    for one in manifest.collections.values():
        wanted |= {one.document, one.records, *(name for name in (one.attachments or {}).values() if name)}
    for name in sorted(wanted):
        if name not in manifest.files:
            raise InvalidValueError(f"The dump in {where} is damaged: its manifest has no digest of {name}.")
    for name, digest in manifest.files.items():
        found = folder.digest(name)
        if found != digest:
            what = "is missing" if found is None else "is not the file that was dumped: its SHA-256 is another"
            raise InvalidValueError(f"The dump in {where} is damaged: {name} {what}. Nothing was sent.")


def read_document(folder: Folder, name: str, kind: Kind) -> tuple[str, JSONObject, Mapping[str, list[str]] | None]:
    """Return the id, the data and the permissions of an object; no permissions where they are unknown."""
    found: Any = decode(folder.read(name), name)
    try:
        data, permissions = dict(found["data"]), found["permissions"]
        id = check_id(data.pop("id"), kind.value)
        data.pop("last_modified", None)
        if permissions is not None:
            permissions = {str(key): [str(one) for one in principals] for key, principals in permissions.items()}
    except (KintoError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidValueError(f"{folder.path(name)} is no {kind.value} of a dump: {error!r:.200}.") from error
    return id, data, permissions

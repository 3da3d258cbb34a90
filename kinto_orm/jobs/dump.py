"""Dump a bucket: its groups, collections, records and files, into a folder that can be read in git."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from kinto_orm.errors import ConflictError, NotFoundError, ProtocolError, ResponseError
from kinto_orm.jobs.manifest import (
    BUCKET,
    MANIFEST,
    DumpedCollection,
    Manifest,
    attachment_name,
    file_names,
    find_manifest,
    write_document,
    write_row,
)
from kinto_orm.protocol.attachments import attachment_of
from kinto_orm.protocol.json_values import JSONObject, decode, pause_collector
from kinto_orm.protocol.messages import Download, DownloadOptions
from kinto_orm.protocol.paging import (
    ListState,
    RawPage,
    RawPages,
    check_finite,
    encode_query,
    read_state,
    rows_of,
    settled_until,
)
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Flow, call_blocking, pause
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.disk import FileDigest, FilePath, Folder, NewFile, open_folder
from kinto_orm.repository.history import read_permissions
from kinto_orm.repository.reads import get
from kinto_orm.repository.state import FlowRunner, ObjectState, Progress
from kinto_orm.unit_of_work.batches import gather_reads

MOST_ATTEMPTS = 2
"""The number of reads of a collection that others write to, before the last one is dumped."""

PAGE_SIZE = 10_000
"""The number of records on each page: the most that Kinto gives in one answer."""


@dataclass
class DumpReport:
    """What a dump holds."""

    collections: dict[str, int] = field(default_factory=dict)
    """The number of records, by collection."""
    groups: int = 0
    files: int = 0
    """The number of files that belong to records."""
    reused: list[str] = field(default_factory=list)
    """The collections that an earlier dump in the same folder has as they are, so that they were not read."""
    unsettled: list[str] = field(default_factory=list)
    """The collections that were written to while they were read: their records are of no one moment."""
    unknown_permissions: list[str] = field(default_factory=list)
    """The paths of the objects whose permissions the server shows neither itself nor in the history."""
    lost_files: list[str] = field(default_factory=list)
    """The paths of the records whose files the server has lost."""


def dump(
    path: ObjectPath, target: FilePath, runner: FlowRunner, *, horizon: float, progress: Progress | None
) -> Flow[DumpReport]:
    """Dump the bucket at the path into a folder, which is made where it is missing.

    Raises ``UsageError`` for a folder that holds something else, ``OSError`` where it cannot be written.
    """
    check_callbacks(progress=progress)
    folder = open_folder(target)
    return (yield from _Dump(path, folder, runner, check_finite("horizon", horizon), progress).run())


_REPLACE_OTHERS = DownloadOptions(overwrite=True, keeps_same=True)


class _Dump:
    """A dump at work."""

    def __init__(
        self, path: ObjectPath, folder: Folder, runner: FlowRunner, horizon: float, progress: Progress | None
    ) -> None:
        self._path = path
        self._folder = folder
        self._runner = runner
        self._horizon = horizon
        self._progress = progress
        self._report = DumpReport()
        self._done = 0
        self._base_url: str | None = None
        """The URL of the files of records; ``None`` where the server has no plugin for them."""

    def run(self) -> Flow[DumpReport]:
        info = yield from self._runner.__kinto_describe_server__()
        attachments = info.get("capabilities", {}).get("attachments")
        self._base_url = attachments.get("base_url") if isinstance(attachments, dict) else None
        bucket = yield from get(self._path)
        id = yield from self._real_id()
        before = yield from call_blocking("a dump", partial(find_manifest, self._folder, id))
        manifest = Manifest(id, collections=dict(before.collections if before else {}))
        manifest.files = dict(before.files if before else {})
        yield from call_blocking("a dump", self._folder.sweep)
        yield from self._save(manifest)  # from now on it is not complete
        yield from self._write_object(manifest, BUCKET, bucket, id)
        yield from self._dump_groups(manifest)
        yield from self._dump_collections(manifest)
        yield from self._finish(manifest)
        return self._report

    def _real_id(self) -> Flow[str]:
        """Return the id of the bucket, which has another one than its path where that says ``default``."""
        if self._path.id != "default":
            return self._path.id
        info = yield from self._runner.__kinto_describe_server__()
        id = info.get("user", {}).get("bucket")
        if not isinstance(id, str):
            raise ProtocolError("The server does not say which bucket is the default one.")
        return id

    def _save(self, manifest: Manifest) -> Flow[None]:
        yield from self._write(None, MANIFEST, manifest.encode())

    def _write(self, manifest: Manifest | None, name: str, content: bytes) -> Flow[None]:
        def write() -> FileDigest:
            new = self._folder.create(name)
            try:
                new.write(content)
                return new.close()
            finally:
                new.discard()

        digest = yield from call_blocking(name, write)
        if manifest is not None:
            manifest.files[name] = digest

    # -- objects --------------------------------------------------------------------------------------------------

    def _write_object(self, manifest: Manifest, name: str, state: ObjectState, id: str) -> Flow[None]:
        permissions = state.permissions
        if permissions is None:
            permissions = yield from read_permissions(state.path, self._runner)
        if permissions is None:
            self._report.unknown_permissions.append(str(state.path))
        lists = None if permissions is None else {key: sorted(one) for key, one in permissions.items() if one}
        data = {**(state.data or {}), "id": id, "last_modified": state.last_modified}
        yield from self._write(manifest, name, write_document({"data": data, "permissions": lists}))

    def _read_all(self, kind: Kind) -> Flow[Sequence[ObjectState]]:
        """Read the objects of a kind with their permissions, sorted by id."""
        path = PluralPath(kind, self._path.ids)
        ids: list[str] = []
        pages = RawPages(path, encode_query([("_sort", "id"), ("_fields", "id"), ("_limit", str(PAGE_SIZE))]))
        while (flow := pages.next()) is not None:
            page = yield from flow
            ids += [row["id"] for row in rows_of(decode(page.body, str(path)), path)]
        found: list[ObjectState] = []
        for state, error in (yield from gather_reads([get(path.object(id)) for id in ids], self._runner)):
            if error is None:
                found.append(state)
            elif not isinstance(error, NotFoundError):  # another client deleted it since the list was read
                raise error
        return found

    def _dump_groups(self, manifest: Manifest) -> Flow[None]:
        states = yield from self._read_all(Kind.GROUP)
        for id, name in file_names(state.path.id for state in states).items():
            manifest.groups[id] = f"groups/{name}.json"
        for state in states:
            yield from self._write_object(manifest, manifest.groups[state.path.id], state, state.path.id)
        self._report.groups = len(states)

    def _dump_collections(self, manifest: Manifest) -> Flow[None]:
        states = yield from self._read_all(Kind.COLLECTION)
        names = file_names(state.path.id for state in states)
        before, manifest.collections = manifest.collections, {}
        for state in states:
            id = state.path.id
            folder = f"collections/{names[id]}"
            yield from self._write_object(manifest, f"{folder}/collection.json", state, id)
            path = PluralPath(Kind.RECORD, state.path.ids)
            dumped = yield from self._reuse(path, before.get(id), folder, manifest)
            if dumped is None:
                dumped = yield from self._dump_records(path, folder, manifest)
            manifest.collections[id] = dumped
            self._report.collections[id] = dumped.count
            if not dumped.is_settled:
                self._report.unsettled.append(id)
            # A dump that is killed after this one need not read it again.
            kept = {**before, **manifest.collections}
            yield from self._save(Manifest(manifest.bucket, manifest.groups, kept, manifest.files))

    # -- records --------------------------------------------------------------------------------------------------

    def _reuse(
        self, path: PluralPath, before: DumpedCollection | None, folder: str, manifest: Manifest
    ) -> Flow[DumpedCollection | None]:
        """Return the collection of an earlier dump, where nothing was changed since; ``None`` elsewhere."""
        if before is None or not before.is_settled or before.folder != folder or before.records not in manifest.files:
            return None
        state = yield from read_state(path)
        limit = yield from settled_until(state.date, self._horizon)
        if (state.timestamp, state.count) != (before.timestamp, before.count) or before.timestamp > limit:
            return None
        if (before.attachments is None) != (self._base_url is None) or None in (before.attachments or {}).values():
            return None
        names = [before.records, *(name for name in (before.attachments or {}).values() if name)]
        if not (yield from call_blocking("a dump", lambda: self._are_there(names, manifest.files))):
            return None
        self._report.reused.append(path.parent_ids[-1])
        self._report.files += len(before.attachments or {})
        self._tell(before.count, path)
        return before

    def _are_there(self, names: Sequence[str], files: Mapping[str, FileDigest]) -> bool:
        return all(name in files and self._folder.digest(name) == files[name] for name in names)

    def _dump_records(self, path: PluralPath, folder: str, manifest: Manifest) -> Flow[DumpedCollection]:
        done = self._done
        has_files = self._base_url is not None
        for _ in range(MOST_ATTEMPTS):
            state = yield from self._settle(path)
            reading = _Reading(path, folder, state.timestamp, has_files)
            if (yield from self._read_settled(reading, manifest)):
                files = yield from self._fetch_files(reading, manifest)
                return DumpedCollection(folder, reading.count, state.timestamp or 0, is_settled=True, attachments=files)
            self._done = done
        state = yield from read_state(path)
        reading = _Reading(path, folder, None, has_files)
        yield from self._read_records(reading, manifest)
        files = yield from self._fetch_files(reading, manifest)
        return DumpedCollection(folder, reading.count, state.timestamp or 0, is_settled=False, attachments=files)

    def _read_settled(self, reading: _Reading, manifest: Manifest) -> Flow[bool]:
        try:
            return (yield from self._read_records(reading, manifest))
        except ConflictError:  # the list has another timestamp by now
            return False

    def _settle(self, path: PluralPath) -> Flow[ListState]:
        """Wait until no transaction adds anything to the list as it is now; then return its state."""
        state = yield from read_state(path)
        limit = yield from settled_until(state.date, self._horizon)
        if state.timestamp is not None and state.timestamp > limit:
            yield from pause((state.timestamp - limit) / 1000)
            state = yield from read_state(path)
        return state

    def _read_records(self, reading: _Reading, manifest: Manifest) -> Flow[bool]:
        """Write the records to their file; return whether they are one state of the list."""
        path = reading.path
        new = yield from call_blocking(reading.name, lambda: self._folder.create(reading.name))
        try:
            query = encode_query([("_sort", "id"), ("_limit", str(PAGE_SIZE))])
            pages = RawPages(path, query, if_match=reading.if_match)
            while (flow := pages.next()) is not None:
                page = yield from flow
                count = yield from call_blocking(reading.name, partial(reading.write, page, new))
                self._tell(count, path)
            if reading.if_match is not None:
                after = yield from read_state(path, if_match=reading.if_match)
                if after.count != reading.count:
                    return False
            manifest.files[reading.name] = yield from call_blocking(reading.name, new.close)
        finally:
            new.discard()
        return True

    def _tell(self, count: int, path: PluralPath) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, None, f"dump {path.parent_ids[-1]}")

    # -- files ----------------------------------------------------------------------------------------------------

    def _fetch_files(self, reading: _Reading, manifest: Manifest) -> Flow[Mapping[str, str | None] | None]:
        if self._base_url is None:
            return None
        found: dict[str, str | None] = {}
        folder = reading.folder.removeprefix("collections/")
        records = file_names(row["id"] for row in reading.attached)
        for row in reading.attached:
            attachment = attachment_of(row)
            assert attachment is not None
            name = attachment_name(folder, records[row["id"]], attachment)
            target = self._folder.path(name)
            url = attachment.url(self._base_url)
            wanted = Download(url, target, attachment.size, attachment.hash, _REPLACE_OTHERS)
            try:
                yield from self._runner.__kinto_fetch_file__(wanted)
            except ResponseError as error:
                if error.status != 404:
                    raise
                self._report.lost_files.append(str(reading.path.object(row["id"])))
                found[row["id"]] = None
                continue
            digest = yield from call_blocking(name, partial(self._folder.digest, name))
            assert digest is not None
            manifest.files[name], found[row["id"]] = digest, name
            self._report.files += 1
        return found

    def _finish(self, manifest: Manifest) -> Flow[None]:
        """Remove what an earlier dump has and this one has not, and say that it is complete."""
        kept = {BUCKET, *manifest.groups.values()}
        for one in manifest.collections.values():
            kept |= {one.document, one.records, *(name for name in (one.attachments or {}).values() if name)}
        for name in set(manifest.files) - kept:
            yield from call_blocking(name, partial(self._folder.remove, name))
            del manifest.files[name]
        manifest.is_complete = True
        yield from self._save(manifest)


@dataclass(eq=False, repr=False)
class _Reading:
    """The records of one collection on their way into a file."""

    path: PluralPath
    folder: str
    if_match: int | None
    has_files: bool
    count: int = 0
    attached: list[JSONObject] = field(default_factory=list)
    """The id and the attachment of each record that has a file."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.folder}/records.jsonl"

    def write(self, page: RawPage, new: NewFile) -> int:
        """Write the records of a page; return their number."""
        with pause_collector():
            rows = rows_of(decode(page.body, str(self.path)), self.path)
            if rows:
                new.write(b"".join(map(write_row, rows)))
        if self.has_files:
            self.attached += [_attached(row) for row in rows if _has_file(row)]
        self.count += len(rows)
        return len(rows)


def _has_file(row: JSONObject) -> bool:
    try:
        return attachment_of(row) is not None
    except ProtocolError:  # data that happens to have this key
        return False


def _attached(row: JSONObject) -> JSONObject:
    return {"id": row["id"], "attachment": row["attachment"]}

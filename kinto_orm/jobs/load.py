"""Load a dump: into a new bucket, or into what exists, where a second run writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args

from kinto_orm.errors import (
    CommitError,
    ForbiddenError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    MissingExtraError,
    NotFoundError,
    TooManyDeletesError,
    UsageError,
    VerificationError,
)
from kinto_orm.jobs.applying import Applying
from kinto_orm.jobs.comparing import FieldRules
from kinto_orm.jobs.dump import dump
from kinto_orm.jobs.manifest import (
    BUCKET,
    DumpedCollection,
    Manifest,
    check_files,
    read_document,
    read_manifest,
)
from kinto_orm.jobs.planning import Planned, Planning, SyncOptions
from kinto_orm.jobs.schemas import Violation, violation_checker
from kinto_orm.jobs.sources import RowCodec
from kinto_orm.jobs.spool import Spool
from kinto_orm.protocol.attachments import Attachment, attachment_of
from kinto_orm.protocol.json_values import JSONObject, decode, is_same, is_stored_as, say_value
from kinto_orm.protocol.messages import Content
from kinto_orm.protocol.paging import RawPages, check_flags, encode_query, read_state, rows_of
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, check_id
from kinto_orm.protocol.writes import Flow, call_blocking, pause
from kinto_orm.query.execution import PageWalk, Place, RawRows, Selection
from kinto_orm.query.writing import allowed_deletes
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.disk import FilePath, Folder, open_folder, open_temporary_folder, read_lines
from kinto_orm.repository.reads import get, require_capability
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, Outcome, Progress, Stateful, Status, Verb
from kinto_orm.repository.verbs import encode_change
from kinto_orm.unit_of_work.batches import full_batch, gather_reads
from kinto_orm.unit_of_work.bulk import Bulk, BulkReport, raise_for_report, report_of
from kinto_orm.unit_of_work.engine import CommitOptions, commit, raise_unless_stored
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

PermissionMode: TypeAlias = Literal["exact", "add", "skip"]
"""The permissions of a load: as dumped, or added to those that are there, or left alone."""

Principals: TypeAlias = Mapping[str, str | None] | Callable[[str], str | None]
"""The principal for each one of the dump; ``None`` leaves it out. A mapping leaves those that it lacks as they are."""

_OF_SIGNER = ("status", "signature", "signatures", "last_editor_comment", "last_reviewer_comment")
_DAY = 24 * 60 * 60 * 1000


@dataclass
class LoadReport(BulkReport):
    """How many records a load created, updated, deleted and left unchanged; the failed ones are kept whole."""

    objects: BulkReport = field(default_factory=BulkReport)
    """The same of the bucket, its groups and its collections."""
    files: int = 0
    """The number of files that were uploaded."""
    lost_files: list[str] = field(default_factory=list)
    """The paths of the records whose files were lost when the dump was made."""
    added_principals: dict[str, str] = field(default_factory=dict)
    """The principal of the loader, by the path of each object that Kinto made it a writer of; the dump did not."""
    unknown_permissions: list[str] = field(default_factory=list)
    """The paths of objects that exist, whose permissions the server does not show: they were left alone."""
    violations: list[Violation] | None = field(default_factory=list)
    """The records that violate the schema of their collection; ``None`` without the extra ``schemas``."""


class LoadOptions(NamedTuple):
    """The options of a load."""

    bucket: str | None = None
    permissions: PermissionMode = "exact"
    principals: Principals | None = None
    delete: bool = False
    max_deletes: int | float = 0.5
    timestamps: bool = False
    progress: Progress | None = None

    def check(self) -> SyncOptions:
        """Return the options for the records; raise ``InvalidTypeError`` or ``InvalidValueError``."""
        check_callbacks(progress=self.progress)
        check_flags(delete=self.delete, timestamps=self.timestamps)
        if self.bucket is not None:
            check_id(self.bucket, "bucket")
        if self.permissions not in get_args(PermissionMode):
            raise InvalidValueError(f"permissions is 'exact', 'add' or 'skip', not {say_value(self.permissions)}.")
        if self.principals is not None and not isinstance(self.principals, Mapping) and not callable(self.principals):
            raise InvalidTypeError(
                f"principals is a mapping or a function of a principal, not {say_value(self.principals)}."
            )
        if self.timestamps and self.delete:
            raise InvalidValueError("timestamps=True loads into empty collections, so that delete=True has no meaning.")
        return SyncOptions.check("id", "exact", delete=self.delete, max_deletes=self.max_deletes)


class Attach(Protocol):
    """Uploads the file of a record: the flow belongs to a room above this one."""

    def __call__(
        self, holder: Any, file: Content, filename: str | None, mimetype: str | None, runner: FlowRunner, *, safe: bool
    ) -> Flow[Outcome[Any]]:
        """Send the file."""
        ...


class Target(NamedTuple):
    """The server of a load, as the rooms above see it."""

    runner: FlowRunner
    holder_of: Callable[[ObjectPath], Stateful]
    records_of: Callable[[str, str], tuple[Place, RowCodec]]
    attach: Attach


class Document(NamedTuple):
    """A bucket, group or collection of the dump, for its new place."""

    path: ObjectPath
    data: JSONObject
    permissions: Mapping[str, list[str]] | None
    """``None``: unknown, or to be left alone."""


def load(source: FilePath, target: Target, options: LoadOptions) -> Flow[LoadReport]:
    """Load the dump of a folder.

    Raises ``InvalidValueError`` for a damaged dump, ``TooManyDeletesError``, ``UsageError`` where records are in the
    way of ``timestamps``: all before anything is sent. Raises ``CommitError`` (with ``.report``) where something was
    not stored, ``VerificationError`` where the server has something else in the end.
    """
    refuse_staging(target.runner, "load()")
    records = options.check()
    folder = open_folder(source)
    manifest = yield from call_blocking("a dump", partial(_read_checked, folder))
    return (yield from _Load(folder, manifest, target, options, records).run())


def copy(
    path: ObjectPath, runner: FlowRunner, target: Target, options: LoadOptions, *, horizon: float
) -> Flow[LoadReport]:
    """Load what is dumped of a bucket into a folder that is temporary."""
    options.check()
    refuse_staging(target.runner, "copy_to()")
    folder = yield from call_blocking("a copy", open_temporary_folder)
    try:
        yield from dump(path, folder.location, runner, horizon=horizon, progress=options.progress)
        flow = load(folder.location, target, options)
        if target.runner is runner:
            return (yield from flow)
        return (yield from call_blocking("a copy", lambda: target.runner.run(flow)))
    finally:
        folder.close()


def _read_checked(folder: Folder) -> Manifest:
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest


class _Load:
    """A load at work."""

    def __init__(
        self, folder: Folder, manifest: Manifest, target: Target, options: LoadOptions, records: SyncOptions
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._target = target
        self._runner = target.runner
        self._options = options
        self._records = records
        self._report = LoadReport()
        self._bucket = options.bucket or manifest.bucket
        self._user: str | None = None
        self._is_reviewed = False
        self._states: dict[ObjectPath, ObjectState] = {}
        """The objects that exist."""
        self._planned: dict[str, Planned] = {}
        """The plans for the records of collections that exist."""

    def run(self) -> Flow[LoadReport]:
        info = yield from self._runner.__kinto_describe_server__()
        user = info.get("user") or {}
        self._user, self._is_reviewed = user.get("id"), "signer" in info.get("capabilities", {})
        if self._bucket == "default":
            self._bucket = str(user.get("bucket", self._bucket))  # its schemas are not enforced through that name
        yield from self._check_files()
        documents = yield from call_blocking("a dump", self._read_documents)
        yield from self._find(documents)
        extra = yield from self._find_extra(documents)
        try:
            yield from self._plan_records()
            if not (yield from self._write_objects(documents)):
                return self._report  # a dry client: what is below what it planned cannot be looked at
            for id, dumped in self._manifest.collections.items():
                yield from self._load_collection(id, dumped)
                if not self._report.is_complete:
                    raise_for_report(self._report, "load")
        finally:
            for planned in self._planned.values():
                planned.changes.close()
        for one in documents:
            if one.path.kind is Kind.COLLECTION:
                yield from self._set_schema(one)
        deletions = [self._change(path, Verb.DELETE, self._states[path], {}) for path in extra]
        yield from self._commit(deletions)
        raise_unless_stored(deletions)
        raise_for_report(self._report, "load")
        return self._report

    def _check_files(self) -> Flow[None]:
        files = [name for one in self._manifest.collections.values() for name in (one.attachments or {}).values()]
        if not any(files):
            return
        if self._options.timestamps:
            raise UsageError("timestamps=True cannot keep the timestamps of records with files: load them without it.")
        yield from require_capability("attachments", "load() of a dump with files", self._runner)

    # -- objects --------------------------------------------------------------------------------------------------

    def _read_documents(self) -> list[Document]:
        manifest = self._manifest
        names = [(BUCKET, Kind.BUCKET)]
        names += [(name, Kind.GROUP) for name in manifest.groups.values()]
        names += [(one.document, Kind.COLLECTION) for one in manifest.collections.values()]
        return [self._document(*read_document(self._folder, name, kind), kind) for name, kind in names]

    def _document(self, id: str, data: JSONObject, permissions: Mapping[str, list[str]] | None, kind: Kind) -> Document:
        path = ObjectPath(kind, (self._bucket,) if kind is Kind.BUCKET else (self._bucket, id))
        if kind is Kind.GROUP and isinstance(data.get("members"), list):
            data["members"] = list(self._mapped(data["members"]))
        if kind is Kind.COLLECTION and self._is_reviewed:
            data = {key: one for key, one in data.items() if key not in _OF_SIGNER and not _is_tracked(key)}
        if permissions is None or self._options.permissions == "skip":
            return Document(path, data, None)
        return Document(path, data, {name: sorted(set(self._mapped(one))) for name, one in permissions.items()})

    def _mapped(self, principals: Iterable[str]) -> Iterator[str]:
        mapping, own = self._options.principals, f"/buckets/{self._manifest.bucket}/groups/"
        for one in principals:
            found: str | None = one
            if isinstance(mapping, Mapping):
                found = mapping.get(one, one)
            elif mapping is not None:
                found = mapping(one)
            if found is not None and found.startswith(own):
                found = f"/buckets/{self._bucket}/groups/{found.removeprefix(own)}"
            if found is not None:
                yield found

    def _find(self, documents: Sequence[Document]) -> Flow[None]:
        bucket, *rest = documents
        try:
            self._states[bucket.path] = yield from get(bucket.path)
        except (NotFoundError, ForbiddenError):
            return  # Kinto says 403 for a bucket that does not exist; if it does, creating it says so
        for state, error in (yield from gather_reads([get(one.path) for one in rest], self._runner)):
            if error is None:
                self._states[state.path] = state
            elif not isinstance(error, NotFoundError):
                raise error

    def _find_extra(self, documents: Sequence[Document]) -> Flow[list[ObjectPath]]:
        """Return the groups and collections that the dump lacks, where they are to be deleted."""
        if not self._options.delete or documents[0].path not in self._states:
            return []
        known = {one.path for one in documents}
        found: list[ObjectPath] = []
        for kind in (Kind.GROUP, Kind.COLLECTION):
            path = PluralPath(kind, (self._bucket,))
            walk = PageWalk(RawRows(), Place(self._runner, path), Selection(fields=("id",)), "raise")
            paths = [path.object(row["id"]) for row in (yield from walk.rest())]
            found += [one for one in paths if one not in known]
        for one in found:
            self._states[one] = yield from get(one)
            if one.kind is Kind.COLLECTION:
                yield from self._check_deletes(one)
        return found

    def _check_deletes(self, path: ObjectPath) -> Flow[None]:
        limit = self._options.max_deletes
        count = (yield from read_state(PluralPath(Kind.RECORD, path.ids))).count
        if count > allowed_deletes(limit, count):
            raise TooManyDeletesError(
                f"{path} is not in the dump, and max_deletes={limit} does not allow its {count} records to be deleted. "
                "Nothing was written."
            )

    def _write_objects(self, documents: Sequence[Document]) -> Flow[bool]:
        """Write bucket, groups and collections; return whether they are there, and not only planned."""
        changes = [self._write_of(one) for one in documents]
        yield from self._commit(changes)
        raise_unless_stored(changes)
        return all(one.status != "planned" for one in changes)

    def _write_of(self, document: Document) -> Change[Stateful]:
        path, wanted = document.path, document.permissions
        # The schema comes last: records that are older than it are legal.
        data = {key: one for key, one in document.data.items() if path.kind is not Kind.COLLECTION or key != "schema"}
        if wanted is not None and self._user is not None and self._user not in wanted.get("write", ()):
            self._report.added_principals[str(path)] = self._user
        state = self._states.get(path)
        if state is None:
            return self._change(path, Verb.SAVE, ObjectState(path, Status.NEW), data, wanted, wanted or {})
        whole = {**(state.data or {}), **data}
        if wanted is None or state.permissions is None:
            if wanted is not None:
                self._report.unknown_permissions.append(str(path))
            return self._change(path, Verb.SAVE, state, whole)
        changes = self._changed_permissions(wanted, state.permissions)
        complete = {**{name: sorted(one) for name, one in state.permissions.items()}, **changes}
        return self._change(path, Verb.SAVE, state, whole, changes or None, complete)

    def _changed_permissions(
        self, wanted: Mapping[str, list[str]], had: Mapping[str, frozenset[str]]
    ) -> dict[str, list[str]]:
        changes: dict[str, list[str]] = {}
        for name in dict.fromkeys((*wanted, *had)):
            before, after = had.get(name, frozenset()), frozenset(wanted.get(name, ()))
            if self._options.permissions == "add":
                after |= before
            # Kinto makes each writer of an object one for good.
            own = {self._user} if name == "write" and self._user is not None else set[str]()
            if after - own != before - own:
                changes[name] = sorted(after)
        return changes

    def _change(
        self,
        path: ObjectPath,
        verb: Verb,
        state: ObjectState,
        data: JSONObject,
        permissions: Mapping[str, Sequence[str]] | None = None,
        complete: Mapping[str, Sequence[str]] | None = None,
    ) -> Change[Stateful]:
        return Change(self._target.holder_of(path), verb, state, data, permissions, complete)

    def _commit(self, changes: Sequence[Change[Stateful]]) -> Flow[None]:
        if changes:
            yield from commit(changes, self._runner, CommitOptions(chunked=True))
            for one in changes:
                self._report.objects.add(one)

    def _set_schema(self, document: Document) -> Flow[None]:
        schema = document.data.get("schema")
        if schema is None:
            return
        state = yield from get(document.path)
        if not is_same((state.data or {}).get("schema"), schema):
            change = self._change(document.path, Verb.SAVE, state, {**(state.data or {}), "schema": schema})
            yield from self._commit([change])
            raise_unless_stored([change])
        yield from self._find_violations(self._manifest.collections[document.path.id], schema)

    def _find_violations(self, dumped: DumpedCollection, schema: JSONObject) -> Flow[None]:
        try:
            check = violation_checker(schema)
        except MissingExtraError:
            self._report.violations = None
            return

        def find() -> list[Violation]:
            return [one for row in _read_rows(self._runner, self._folder, dumped) for one in check(row)]

        found = yield from call_blocking(dumped.records, find)
        if self._report.violations is not None:
            self._report.violations += found

    # -- records --------------------------------------------------------------------------------------------------

    def _plan_records(self) -> Flow[None]:
        """Compare the records of each collection that exists, so that all guards are asked before the first write."""
        now = (yield from pause()) if self._options.timestamps else 0
        for id, dumped in self._manifest.collections.items():
            if self._options.timestamps:
                yield from call_blocking(dumped.records, partial(self._check_timestamps, dumped, now))
            if ObjectPath(Kind.COLLECTION, (self._bucket, id)) not in self._states:
                continue
            if self._options.timestamps:
                yield from self._require_own(id, dumped)
            else:
                self._planned[id] = yield from self._plan(id, dumped)

    def _plan(self, id: str, dumped: DumpedCollection) -> Flow[Planned]:
        place, codec = self._target.records_of(self._bucket, id)
        planning = Planning(place, codec, self._records, self._options.progress)
        return (yield from planning.plan(self._folder.path(dumped.records)))

    def _load_collection(self, id: str, dumped: DumpedCollection) -> Flow[None]:
        if self._options.timestamps:
            yield from self._load_with_timestamps(id, dumped)
            return
        planned = self._planned.get(id)
        if planned is None:
            planned = self._planned[id] = yield from self._plan(id, dumped)
        try:
            report: BulkReport = yield from Applying(planned, progress=self._options.progress).write("load")
        except CommitError as error:
            report = error.report
        self._count(report)
        if report.planned:
            return
        yield from self._upload_files(id, dumped)
        if not report.failed and planned.counts.changes:
            yield from self._verify(id, dumped)

    def _count(self, report: BulkReport) -> None:
        mine = self._report
        mine.created, mine.updated = mine.created + report.created, mine.updated + report.updated
        mine.deleted, mine.unchanged = mine.deleted + report.deleted, mine.unchanged + report.unchanged
        mine.planned += report.planned
        mine.failed += report.failed
        mine.is_complete = mine.is_complete and report.is_complete

    def _verify(self, id: str, dumped: DumpedCollection) -> Flow[None]:
        planned = yield from self._plan(id, dumped)
        try:
            if planned.counts.changes:
                first = next(iter(planned.changes))
                raise VerificationError(
                    f"{planned.place.path} is not as it was loaded: {planned.counts.changes} records differ, the first "
                    f"one is {first.id}. Another client may have changed them: load again, or compare by plan()."
                )
        finally:
            planned.changes.close()

    # -- files ----------------------------------------------------------------------------------------------------

    def _upload_files(self, id: str, dumped: DumpedCollection) -> Flow[None]:
        place, codec = self._target.records_of(self._bucket, id)
        self._report.lost_files += [
            str(place.path.object(one)) for one, name in (dumped.attachments or {}).items() if name is None
        ]
        files = {one: name for one, name in (dumped.attachments or {}).items() if name is not None}
        if not files:
            return
        wanted = yield from call_blocking(dumped.records, partial(self._attachments_of, dumped, files))
        for record, name in files.items():
            state = yield from get(place.path.object(record))
            attachment = wanted[record]
            stored = attachment_of(state.data or {})
            is_there = stored is not None and (stored.hash, stored.filename) == (attachment.hash, attachment.filename)
            if is_there and attachment.hash is not None:
                continue
            file = self._folder.path(name)
            holder = codec.make(state, place)
            yield from self._target.attach(
                holder, file, attachment.filename, attachment.mimetype, self._runner, safe=True
            )
            self._report.files += 1

    def _attachments_of(self, dumped: DumpedCollection, files: Mapping[str, str]) -> dict[str, Attachment]:
        found: dict[str, Attachment] = {}
        for row in _read_rows(self._runner, self._folder, dumped):
            attachment = attachment_of(row) if row["id"] in files else None
            if attachment is not None:
                found[row["id"]] = attachment
        return found

    # -- timestamps -----------------------------------------------------------------------------------------------

    def _check_timestamps(self, dumped: DumpedCollection, now: int) -> None:
        """Raise ``InvalidValueError`` where the records cannot be stored with the timestamps that they have."""
        seen: Spool[str] = Spool(lambda _, id: id.encode(), bytes.decode)
        before = ""
        try:
            for row in _read_rows(self._runner, self._folder, dumped):
                id, timestamp = row["id"], row.get("last_modified")
                if id <= before:
                    raise InvalidValueError(f"{dumped.records}: {id} comes after {before}; records are sorted by id.")
                if type(timestamp) is not int or not 0 <= timestamp < now + _DAY:
                    raise InvalidValueError(
                        f"{dumped.records}: {id} has the timestamp {timestamp}, with which Kinto cannot store it."
                    )
                seen.add([(f"{timestamp:020}", 0, id)])
                before = id
            repeated = seen.find_repeated()
            if repeated is not None:
                ids = " and ".join(sorted(one[2] for one in repeated))
                raise InvalidValueError(
                    f"{dumped.records}: {ids} have the same timestamp, which PostgreSQL refuses: load without "
                    "timestamps=True. Nothing was sent."
                )
        finally:
            seen.close()

    def _require_own(self, id: str, dumped: DumpedCollection) -> Flow[frozenset[str]]:
        """Return the records that an interrupted load has written; raise ``UsageError`` where there are others."""
        found, other = yield from self._find_loaded(id, dumped)
        if other is not None:
            place, _ = self._target.records_of(self._bucket, id)
            raise UsageError(
                f"{place.path} is not empty: it has {other}, which is not the record of the dump. timestamps=True "
                "loads into an empty collection only."
            )
        return found

    def _find_loaded(self, id: str, dumped: DumpedCollection) -> Flow[tuple[frozenset[str], str | None]]:
        """Return the records that are there as dumped, and the first one that is not; none after that is looked at."""
        place, _ = self._target.records_of(self._bucket, id)
        rows = yield from call_blocking(dumped.records, lambda: iter(_read_rows(self._runner, self._folder, dumped)))
        pages = RawPages(place.path, encode_query([("_sort", "id"), ("_limit", "5000")]))
        found: set[str] = set()
        wanted: JSONObject | None = None
        while (flow := pages.next()) is not None:
            page = yield from flow
            for row in rows_of(decode(page.body, str(place.path)), place.path):
                while wanted is None or wanted["id"] < row["id"]:
                    wanted = next(rows, None)
                    if wanted is None:
                        break
                if wanted is None or not _is_same_version(wanted, row):
                    return frozenset(found), row["id"]
                found.add(row["id"])
        return frozenset(found), None

    def _load_with_timestamps(self, id: str, dumped: DumpedCollection) -> Flow[None]:
        place, codec = self._target.records_of(self._bucket, id)
        there = yield from self._require_own(id, dumped)
        self._report.unchanged += len(there)
        rows = yield from call_blocking(dumped.records, lambda: iter(_read_rows(self._runner, self._folder, dumped)))
        limit = yield from full_batch(self._runner)
        while chunk := (yield from call_blocking(dumped.records, lambda: list(islice(rows, limit)))):
            changes = [_dated(codec, place, row) for row in chunk if row["id"] not in there]
            yield from report_of(Bulk(changes, self._runner), None, report=self._report)
            if not self._report.is_complete:
                return
        if self._report.failed or self._report.planned:
            return
        found, other = yield from self._find_loaded(id, dumped)
        if other is not None:
            raise VerificationError(
                f"{place.path} is not as it was loaded: it has {other}, which is not the record of the dump. Another "
                "client may have written it: compare by plan()."
            )
        if len(found) != dumped.count:
            raise VerificationError(f"{place.path} has {len(found)} of the {dumped.count} records that were loaded.")


def _read_rows(runner: FlowRunner, folder: Folder, dumped: DumpedCollection) -> Iterator[JSONObject]:
    """Read the records of a collection."""
    name = folder.path(dumped.records)
    for number, line in enumerate(read_lines(name), 1):
        row: Any = decode(line.encode(), f"line {number} of {dumped.records}")
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise InvalidValueError(f"line {number} of {name} is no record.")
        yield row


def _is_tracked(key: str) -> bool:
    return key.startswith("last_") and key.endswith(("_by", "_date"))


def _is_same_version(wanted: JSONObject, row: JSONObject) -> bool:
    rules = FieldRules(dict)
    is_same_time = wanted["id"] == row["id"] and wanted.get("last_modified") == row.get("last_modified")
    return is_same_time and is_stored_as(rules.own(wanted), rules.own(row))


def _dated(codec: RowCodec, place: Place, row: JSONObject) -> Change[Stateful]:
    """Return the creation of a record with the timestamp that it had."""
    path = place.path.object(check_id(row["id"], kind=Kind.RECORD))
    data = FieldRules(dict).own(row)
    state = ObjectState(path, Status.NEW)
    change = codec.change(Verb.SAVE, state, data, place)
    try:
        encode_change(change)
        assert change.entry is not None
        dated = {**data, "last_modified": row["last_modified"]}
        change.entry = {**change.entry, "body": {"data": dated}}
    except KintoError as error:
        change.status, change.error = "rejected", error
    return change

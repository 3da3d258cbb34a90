"""Flows for the file of a record: attach, detach, download.

The endpoint of kinto-attachment ignores preconditions. So each flow reads the record first, with the precondition that
a write of the record would have. After a lost answer it reads the record again before it sends anything else.
https://github.com/Kinto/kinto-attachment
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from kinto_orm.errors import (
    AmbiguousWriteError,
    ConflictError,
    DryRunError,
    ForbiddenError,
    InvalidTypeError,
    KintoError,
    NotLoadedError,
    ProtocolError,
    ResponseError,
    UnsavedChangesError,
    UsageError,
)
from kinto_orm.protocol.attachments import KEY, Attachment, Upload, attachment_of, check_target, name_of, upload_request
from kinto_orm.protocol.json_values import JSONObject, encode, is_same, is_stored_as, say_value
from kinto_orm.protocol.messages import Content, Download, DownloadOptions, Request, Response, Target
from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.responses import StoredObject, error_of, existing_object, raise_for_status, read_object
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.repository.conflicts import IN_DOUBT, conflict_over, is_abort
from kinto_orm.repository.disk import read_content
from kinto_orm.repository.reads import get, or_none, require_capability
from kinto_orm.repository.state import (
    Change,
    FlowRunner,
    ObjectState,
    Outcome,
    OutcomeStatus,
    Stateful,
    Status,
    Verb,
    WriteOptions,
)
from kinto_orm.repository.verbs import plan, without_schema_timestamp
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

H = TypeVar("H", bound=Stateful)

CAPABILITY = "attachments"

_OLD_FILE = (
    "kinto-attachment removes the old file first: it may be gone, although the record names it still. "
    "Then detach() it before you attach() it again."
)


def attach(
    holder: H, file: Content, filename: str | None, mimetype: str | None, runner: FlowRunner, *, safe: bool
) -> Flow[Outcome[H]]:
    """Send the file, with the record where the record is new; send nothing where the record already has this file.

    Raises ``ConflictError`` where another client changed the record, or created one with that id. Raises
    ``UnsavedChangesError`` for a record with changes. Raises ``AmbiguousWriteError`` where the record does not show
    whether the file was stored.
    """
    refuse_staging(runner, "attach()")
    name = name_of(file, filename)
    yield from require_capability(CAPABILITY, "attach()", runner)
    content = yield from call_blocking("a file", partial(read_content, file))
    upload = Upload(content, name, mimetype)
    change = FileChange(holder.__kinto_change__(Verb.SAVE), Verb.ATTACH, runner, safe)
    change.check()
    if _has_already(change.state, upload, filename, mimetype):
        return change.unchanged()
    before = yield from change.look(may_be_new=True)
    is_new = change.state.status is Status.NEW
    is_as_it_was = before is not None and (not is_new or _is_as_wanted(before, change.record))
    if before is not None and is_as_it_was and _has_already(before, upload, filename, mimetype):
        return change.unchanged(before, reconciled=is_new)
    request = upload_request(
        f"{change.state.path}/attachment",
        upload,
        data=encode(change.record.data) if is_new and change.record.data else None,
        permissions=encode(_lists(change.record)) if is_new and change.record.permissions else None,
    )
    return (yield from change.carry_out(request, before, lambda now: _is_result(now, before, change, upload)))


def detach(holder: H, runner: FlowRunner, *, safe: bool) -> Flow[Outcome[H]]:
    """Remove the file from the record and from the server; send nothing where the record has none.

    Raises the errors of :func:`attach`, and ``NotFoundError`` where there is no record.
    """
    refuse_staging(runner, "detach()")
    yield from require_capability(CAPABILITY, "detach()", runner)
    change = FileChange(holder.__kinto_change__(Verb.SAVE), Verb.DETACH, runner, safe)
    change.check()
    if change.state.status is Status.LOADED and not change.state.is_partial and not _has_file(change.state):
        return change.unchanged()
    before = yield from change.look(may_be_new=False)
    assert before is not None  # else NotFoundError
    if not _has_file(before):
        return change.unchanged(before)
    request = Request("DELETE", f"{change.state.path}/attachment")
    return (yield from change.carry_out(request, before, lambda now: _is_newer(now, before) and not _has_file(now)))


def download(holder: Stateful, target: Target, runner: FlowRunner, options: DownloadOptions) -> Flow[Path | None]:
    """Write the record's file to the target, check it and return its path; ``None`` for an open file."""
    check_target(target)
    _check_options(options)
    found = attachment(holder)
    if found is None:
        raise UsageError(f"{holder.__kinto_path__()} has no attachment.")
    place: Target = target
    if isinstance(target, (str, os.PathLike)):
        is_folder = os.path.isdir(target) or os.fspath(target).endswith(("/", os.sep))
        place = Path(target, found.safe_filename) if is_folder else Path(target)
    capability = yield from require_capability(CAPABILITY, "download()", runner)
    base_url = capability.get("base_url")
    if not isinstance(base_url, str):
        raise ProtocolError("The server does not say where its attachments are: base_url is missing in its settings.")
    yield from runner.__kinto_fetch_file__(Download(found.url(base_url), place, found.size, found.hash, options))
    return place if isinstance(place, Path) else None


def _check_options(options: DownloadOptions) -> None:
    size, hosts = cast(object, options.max_bytes), cast(object, options.allow_hosts)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise InvalidTypeError(f"max_bytes is a whole number above 0, not {say_value(size)}.")
    if isinstance(hosts, str) or not isinstance(hosts, Collection):
        raise InvalidTypeError(f'allow_hosts is a list of hosts, as in ["files.example.com"], not {say_value(hosts)}.')


def attachment(holder: Stateful) -> Attachment | None:
    """Return the record's attachment, as it was last read; ``None`` where it has none.

    Raises ``NotLoadedError`` for a record that was never read.
    """
    state = holder.__kinto_state__()
    if state.data is None:
        raise NotLoadedError(f"{state.path} was never read, so its attachment is not known: refresh() it.")
    return attachment_of(state.data)


class FileChange(NamedTuple, Generic[H]):
    """A change of a record's file."""

    record: Change[H]
    """The record as it was at the call, and as a save would store it."""
    verb: Verb
    runner: FlowRunner
    safe: bool

    @property
    def holder(self) -> H:
        """The record's object."""
        return self.record.holder

    @property
    def state(self) -> ObjectState:
        """The server's last word about the record."""
        return self.record.state

    def check(self) -> None:
        """Raise ``UsageError`` where the state of the record forbids the change."""
        # The endpoint takes no precondition, so the data of an existing record is not sent: it could undo other writes.
        is_dirty = self.record.permissions or not is_same(self.state.data or {}, self.record.data)
        if self.state.status in (Status.LOADED, Status.REFERENCE) and not self.state.is_partial and is_dirty:
            raise UnsavedChangesError(f"{self.state.path} has unsaved changes: save() before {self.verb.value}().")

    def look(self, *, may_be_new: bool) -> Flow[ObjectState | None]:
        """Return the record's current state on the server; ``None`` where there is no record and none is needed.

        Raises ``ConflictError`` where it is not the version that was last read.
        """
        # Every change needs the precondition that a deletion of the record would have.
        planned = plan(Change(self.holder, Verb.DELETE, self.state, {}, options=WriteOptions(safe=self.safe)))
        assert planned is not None
        path = self.state.path
        if self.state.status is not Status.NEW or not may_be_new:
            response = yield Request("GET", str(path), headers=planned.precondition.headers)
            if response.status == 412:
                raise self._conflict(error_of(response, "GET", str(path)), existing_object(response, str(path)))
            return self.state.after(read_object(response, path, "GET"))
        found = yield from self._find()
        if found is not None and self.safe and not self.state.has_drawn_id:
            text = f"{path}: there is such a record already. refresh() it, or attach(safe=False)."
            raise self._conflict(ConflictError(text, method="POST", path=str(path)), found)
        return found

    def _find(self) -> Flow[ObjectState | None]:
        try:
            return (yield from or_none(get(self.state.path)))
        except ForbiddenError:  # a caller who may only create cannot read
            return None

    def _conflict(self, error: ResponseError, theirs: StoredObject | ObjectState | None) -> ResponseError:
        return conflict_over(error, theirs, self.record, self.runner)

    def carry_out(
        self, request: Request, before: ObjectState | None, is_done: Callable[[ObjectState | None], bool]
    ) -> Flow[Outcome[H]]:
        """Send the request and give the record its new state."""
        try:
            response = yield from self._send(request, before, is_done)
        except DryRunError:
            return Outcome(self.holder, self.verb, "planned")
        what = f"{request.method} {request.path}"
        try:
            after = yield from get(self.state.path)
        except KintoError as error:
            error.add_note(f"{what} was applied, but the record could not be read afterwards: refresh() it.")
            raise
        if response is not None and not _is_newer(after, before):
            raise ProtocolError(f"{what} was answered by {response.status}, but the record is as it was before.")
        if before is not None and _is_made_anew(after, before, response):
            text = f"{what}: another client deleted this record just then, so the server made an empty one."
            raise self._conflict(ConflictError(text, method=request.method, path=request.path), after)
        # A record as we sent it is no conflict: an earlier attempt of ours may have been applied late.
        if response is not None and before is None and response.status == 200 and not is_done(after):
            text = f"{what}: another client created this record at that moment, and the server merged yours into it."
            raise self._conflict(ConflictError(text, status=200, method=request.method, path=request.path), after)
        self.holder.__kinto_apply_state__(after, None)
        status: OutcomeStatus = "created" if before is None else "updated"
        return Outcome(self.holder, self.verb, status, reconciled=response is None)

    def _send(
        self, request: Request, before: ObjectState | None, is_done: Callable[[ObjectState | None], bool]
    ) -> Flow[Response | None]:
        """Return the answer; ``None`` where it was lost and the record shows that the request was applied."""
        failure: KintoError | None = None
        for attempt in range(1, self.runner.retry + 2):
            try:
                response = yield replace(request, attempt=attempt)
                raise_for_status(response, request.method, request.path)
                return response
            except (*IN_DOUBT, ResponseError) as error:
                if _has_file(before):
                    error.add_note(_OLD_FILE)
                if is_abort(error) or not isinstance(error, IN_DOUBT):
                    raise
                failure = error
            now = yield from self._look_again(failure)
            if is_done(now):
                self._check_strictness(request)
                return None
            if _version(now) != _version(before):
                raise AmbiguousWriteError(
                    f"{request.method} {request.path}: the answer was lost and the record was changed since, "
                    "so it is unknown whether the request was applied: refresh() the record and look."
                ) from failure
            # It is not applied yet. If the server applies it after the next attempt, the effect is the same.
        assert failure is not None
        raise failure

    def _look_again(self, failure: KintoError) -> Flow[ObjectState | None]:
        try:
            return (yield from self._find())
        except KintoError as error:
            raise failure from error

    def _check_strictness(self, request: Request) -> None:
        if self.runner.strict_retry and not (self.state.status is Status.NEW and self.state.has_drawn_id):
            raise AmbiguousWriteError(
                f"{request.method} {request.path}: the answer was lost. The record has the wanted content, written by "
                "this client or by another one that wrote the same (strict_retry). refresh() it and decide."
            )

    def unchanged(self, now: ObjectState | None = None, *, reconciled: bool = False) -> Outcome[H]:
        """Return the outcome of a change that needs no request; the record takes the state that was read."""
        if now is not None:
            self.holder.__kinto_apply_state__(now, None)
        return Outcome(self.holder, self.verb, "unchanged", reconciled=reconciled)


def _lists(record: Change[Any]) -> JSONObject:
    return {name: list(principals) for name, principals in (record.permissions or {}).items()}


def _has_file(state: ObjectState | None) -> bool:
    return state is not None and attachment_of(state.data or {}) is not None


def _version(state: ObjectState | None) -> int | None:
    return None if state is None else state.last_modified


def _is_newer(now: ObjectState | None, before: ObjectState | None) -> bool:
    return now is not None and _version(now) != _version(before)


def _is_made_anew(after: ObjectState, before: ObjectState, response: Response | None) -> bool:
    """Return whether the record had been deleted, and kinto-attachment made a new one with its keys only."""
    is_created = response is not None and response.status == 201
    return is_created or (bool(_own(before.data or {})) and not _own(after.data or {}))


def _has_already(state: ObjectState, upload: Upload, filename: str | None, mimetype: str | None) -> bool:
    """Return whether the record has a file of this content, and of this name and type where they were given."""
    found = attachment_of(state.data or {})
    is_asked = found is not None and filename in (None, found.filename) and mimetype in (None, found.mimetype)
    return is_asked and found is not None and found.hash == upload.sha256


def _is_result(now: ObjectState | None, before: ObjectState | None, change: FileChange[H], upload: Upload) -> bool:
    """Return whether the record has the file that was sent and, where it was new, also its data."""
    if now is None or not _is_newer(now, before) or not upload.is_stored_as(attachment_of(now.data or {})):
        return False
    return change.state.status is not Status.NEW or _is_as_wanted(now, change.record)


def _is_as_wanted(now: ObjectState, record: Change[Any]) -> bool:
    return is_stored_as(_own(record.data), _own(now.data or {}))


def _own(data: JSONObject) -> JSONObject:
    """Return the data without the keys that the server adds."""
    return {key: value for key, value in without_schema_timestamp(Kind.RECORD, data).items() if key != KEY}

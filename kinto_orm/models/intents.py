"""What a verb asks for, frozen; and what is left of the user's edits when the answer has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kinto_orm.errors import InvalidTypeError, InvalidValueError
from kinto_orm.models.data import current_data, declared_fields, set_key
from kinto_orm.models.envelope import Envelope, put_in_envelope
from kinto_orm.protocol.patches import BasicPatch, JSONPatch, MergePatch, Patch, changed_keys, removed_keys
from kinto_orm.protocol.timestamps import TimestampInput, parse_timestamp
from kinto_orm.protocol.values import JSONObject, is_same
from kinto_orm.state import Intent, Status, Verb, WriteOptions

PatchInput: TypeAlias = Patch | Mapping[str, Any]


def intent_of(
    model: Any,
    verb: Verb,
    patch: Patch | None = None,
    *,
    safe: bool,
    if_match: TimestampInput | None = None,
    if_not_exists: bool = False,
    if_exists: bool = False,
) -> Intent:
    """The verb on the object as it is now, with these options; what happens to the object later changes nothing."""
    timestamp = None if if_match is None else parse_timestamp(if_match, "if_match")
    options = WriteOptions(safe, timestamp, if_not_exists, if_exists)
    if verb in (Verb.PATCH, Verb.DELETE):
        model.__kinto_path__()  # these need an id: none is drawn for them
    state, draft = model.__kinto_describe__()
    return Intent(verb, state, draft, options, patch)


def patch_of(model: Any, changes: PatchInput | None, values: Mapping[str, Any]) -> Patch:
    """The patch that the arguments of ``patch()`` make. Raises ``InvalidTypeError`` and ``InvalidValueError``."""
    if isinstance(changes, (BasicPatch, MergePatch, JSONPatch)):
        if values:
            raise InvalidTypeError("patch() takes a patch or values, not both.")
        patch: Patch = changes
    elif changes is None or isinstance(changes, Mapping):
        patch = BasicPatch({**(changes or {}), **values})
    else:
        raise InvalidTypeError(f"patch() takes a mapping, a BasicPatch, MergePatch or JSONPatch, not {changes!r:.60}.")
    if isinstance(patch, BasicPatch):
        _check_patch(model, patch)
    if not isinstance(patch, JSONPatch) and not patch.permissions and not patch.data:
        raise InvalidValueError("patch() needs at least one change.")
    return patch


def _check_patch(model: Any, patch: BasicPatch) -> None:
    fields = declared_fields(type(model))
    scratch = type(model).model_construct()
    put_in_envelope(scratch, Envelope(Status.NEW))
    for key, value in (patch.data or {}).items():
        if key in fields:
            set_key(scratch, key, value)


Edits: TypeAlias = tuple[JSONObject, tuple[str, ...], Mapping[str, list[str]]]
NO_EDITS: Edits = ({}, (), {})


def unsent_edits(model: Any, intent: Intent) -> Edits:
    """What the object holds and the intent did not send: edits after the call, and for a patch those before it."""
    sent = {} if intent.verb is Verb.PATCH else dict(intent.draft.permissions or {})
    permissions = {name: value for name, value in model.permissions.changes().items() if sent.get(name) != value}
    if intent.state.status is Status.REFERENCE or intent.state.is_partial:
        return {}, (), permissions
    now = current_data(model)
    changed = dict(changed_keys(intent.draft.data, now))
    removed = removed_keys(intent.draft.data, now)
    if intent.verb is Verb.PATCH and intent.state.data is not None:
        patched = _patched_keys(intent)
        before = changed_keys(intent.state.data, now)
        changed |= {key: value for key, value in before.items() if key not in patched}
        removed += tuple(key for key in removed_keys(intent.state.data, now) if key not in patched)
    return changed, removed, permissions


def _patched_keys(intent: Intent) -> set[str]:
    patch = intent.patch
    if isinstance(patch, JSONPatch):
        return {
            str(one.get("path", "")).split("/")[2] for one in patch.operations if str(one.get("path")).count("/") > 1
        }
    return set(patch.body.get("data", {})) if patch is not None else set()


def redo(model: Any, edits: Edits) -> None:
    """Makes the edits again, on the state that the server gave."""
    changed, removed, permissions = edits
    for key, value in changed.items():
        if key not in model.data or not is_same(model.data[key], value):
            set_key(model, key, value)
    for key in removed:
        model.data.pop(key, None)
    for name, principals in permissions.items():
        model.permissions[name] = principals

"""The change of a verb, frozen, and the user's edits that remain after its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from kinto_orm.errors import InvalidTypeError, InvalidValueError, UsageError
from kinto_orm.models.codec import codec_of
from kinto_orm.models.data import (
    Mark,
    check_settable,
    current_data,
    freeze,
    has_data,
    json_copy,
    new_data,
    own_extra,
    remove_key,
    restore_fields,
    text_of,
    undeclared,
)
from kinto_orm.models.envelope import FRESH, NewObjects, bare, envelope_in, put_in_envelope
from kinto_orm.models.loading import become_loaded
from kinto_orm.models.permissions import permission_lists
from kinto_orm.protocol.accounts import SECRETS
from kinto_orm.protocol.json_values import JSON, JSONObject, TimestampInput, is_same, parse_timestamp, say_value
from kinto_orm.protocol.paging import without_envelope
from kinto_orm.protocol.patches import (
    BasicPatch,
    JSONPatch,
    MergePatch,
    Patch,
    apply_basic_patch,
    apply_merge_patch,
    changed_keys,
    removed_keys,
    written_places,
)
from kinto_orm.protocol.responses import ShownPermissions
from kinto_orm.protocol.writes import PermissionLists
from kinto_orm.repository.conflicts import check_policy
from kinto_orm.repository.state import NO_OPTIONS, Change, OnConflict, Status, StoredRows, Verb, WriteOptions

H = TypeVar("H")

PatchInput: TypeAlias = Patch | Mapping[str, Any]


def change_of(
    holder: H,
    verb: Verb,
    patch: Patch | None = None,
    *,
    safe: bool = True,
    if_match: TimestampInput | None = None,
    if_not_exists: bool = False,
    if_exists: bool = False,
    on_conflict: OnConflict | None = None,
) -> Change[H]:
    """Return the verb on the object as it is now, with these options: later edits of the object leave it as it is."""
    options = NO_OPTIONS
    if not safe or if_match is not None or on_conflict is not None or if_not_exists or if_exists:
        timestamp = None if if_match is None else parse_timestamp(if_match, "if_match")
        if timestamp is not None and not safe:
            raise UsageError("safe=False writes whatever is there, if_match= only over one version: give one of both.")
        if on_conflict is not None:
            check_policy(on_conflict)
        options = WriteOptions(safe, timestamp, if_not_exists, if_exists, on_conflict)
    model: Any = holder
    if verb is Verb.DELETE:  # whatever its data has become
        return Change(holder, verb, model.__kinto_state__(), {}, options=options)
    if verb is Verb.PATCH:
        model.__kinto_path__()  # it needs an id: none is drawn for it
    state, envelope, codec = model.__kinto_state__(draw=True), model.__kinto_envelope__(), codec_of(type(model))
    if codec.secrets:
        SECRETS[str(state.path.plural)].update(codec.secrets)
    data: JSONObject = {}
    mark: Mark | None = None
    if state.status is Status.NEW or (state.status is Status.LOADED and not state.is_partial) or has_data(model):
        data, mark = freeze(model, envelope, codec)
    permissions = envelope.permissions
    changed: PermissionLists | None = None
    complete: PermissionLists | None = {} if state.status is Status.NEW else None
    if permissions is not None:
        changed, complete = permissions.__kinto_changes__() or None, permissions.__kinto_complete__()
    change = Change(holder, verb, state, data, changed, complete, options, patch)
    change.mark = mark
    return change


def creation_of(given: Any, model: type[Any], new: NewObjects) -> Change[Any] | None:
    """Return the encoded change that creates the record; ``None`` where that takes a closer look."""
    one, data = given, None
    if isinstance(given, model):
        codec = codec_of(type(given))
        if envelope_in(given) is FRESH and codec.is_surely_written and not codec.secrets:
            data = new_data(given, codec)
    elif type(given) is dict and "id" not in given and codec_of(model).is_surely_plain:
        data = json_copy(given)
        if data is not None:
            data.pop("last_modified", None)  # as in a dump of another list
            one = bare(model, {"id": None, "last_modified": None}, new)
    change = None if data is None else new.creations.encode(one, data, new)
    if change is not None:
        id = vars(one)["id"] = change.state.path.id
        put_in_envelope(one, new)
        if one is not given:
            new.undeclared[id] = change.data
    return change


def patch_of(model: Any, changes: PatchInput | None, values: Mapping[str, Any]) -> Patch:
    """Return the patch of these arguments. Raises ``InvalidTypeError`` and ``InvalidValueError``."""
    if isinstance(changes, (BasicPatch, MergePatch, JSONPatch)):
        if values:
            raise InvalidTypeError("patch() takes a patch or values, not both.")
        patch: Patch = changes
    elif changes is None or isinstance(changes, Mapping):
        patch = BasicPatch(codec_of(type(model)).by_wire({**(changes or {}), **values}, "patch()"))
    else:
        raise InvalidTypeError(
            f"patch() takes a mapping, a BasicPatch, MergePatch or JSONPatch, not {say_value(changes)}."
        )
    if isinstance(patch, JSONPatch):
        _check_settable(model, _patched(patch, "data"))
        return patch
    if not all(isinstance(part or {}, Mapping) for part in (patch.data, patch.permissions)):
        raise InvalidTypeError("The data and the permissions of a patch are mappings of names to values.")
    if not patch.permissions and not patch.data:
        raise InvalidValueError("patch() needs at least one change.")
    if patch.permissions:
        patch = replace(patch, permissions=permission_lists(model.__kinto_kind__, patch.permissions))
    if "id" in (patch.data or {}):
        raise InvalidValueError(
            "data['id'] cannot be patched: an object keeps its id. Create another one, and delete this."
        )
    if isinstance(patch, BasicPatch) and patch.data:
        patch = replace(patch, data=codec_of(type(model)).encode(patch.data))
    _check_patch(model, patch)
    return patch


def _check_settable(model: Any, keys: Collection[str]) -> None:
    if keys:  # permissions alone are no data of a frozen class
        check_settable(type(model), keys)


def _check_patch(model: Any, patch: BasicPatch | MergePatch) -> None:
    """Raise ``InvalidValueError`` for a value that would not be read: it does not fit the model, or is hidden."""
    cls, codec = type(model), codec_of(type(model))
    changes = patch.body.get("data", {})
    _check_settable(model, changes)
    names = [codec.fields[key] for key in changes if key in codec.fields]
    known = has_data(model)
    before = current_data(model) if known and names else {}
    for name in names:
        for key in codec.read_before[name]:
            if key not in changes and (not known or key in before):
                raise InvalidValueError(
                    f"patch(): the server may have {key!r}, which {cls.__name__}.{name} is read from before "
                    f"{codec.wires[name]!r}: save() a loaded object, or give a MergePatch that removes {key!r}, too."
                )
    if names and (known or not any(field.is_required() for field in cls.__pydantic_fields__.values())):
        apply = apply_merge_patch if isinstance(patch, MergePatch) else apply_basic_patch
        codec.load(apply(before, changes))


@dataclass(frozen=True, eq=False, repr=False)
class Edits:
    """The values of the object that the server does not get yet: the very objects, which the user may hold, too."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    extra: JSONObject = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    permissions: Mapping[str, list[str]] = field(default_factory=dict)


NO_EDITS = Edits()


def unsent_edits(model: Any, change: Change[Any]) -> Edits:
    """Return the edits that the change does not send: those after the call, and for a patch those before it."""
    seen = change.shown
    is_patch = change.verb is Verb.PATCH
    permissions = _unsent_permissions(model, change, {} if is_patch else seen.permissions or {})
    if not has_data(model):
        return Edits(permissions=permissions)
    now = current_data(model)
    if not is_patch and is_same(seen.data, now):
        return Edits(permissions=permissions) if permissions else NO_EDITS
    changed = set(changed_keys(seen.data, now))
    removed = set(removed_keys(seen.data, now))
    if is_patch:
        patched = _patched(change.patch, "data")
        changed |= _edited_keys(model, now) - patched
        removed |= set(removed_keys(model.__kinto_envelope__().data or {}, now)) - patched
    fields, others = codec_of(type(model)).fields, undeclared(model)
    return Edits(
        {fields[key]: model.__dict__[fields[key]] for key in changed if key in fields},
        {key: others[key] for key in changed if key not in fields},
        tuple(removed),
        permissions,
    )


def _unsent_permissions(model: Any, change: Change[Any], sent: PermissionLists) -> dict[str, list[str]]:
    permissions = model.__kinto_envelope__().permissions
    if permissions is None:  # none were set
        return {}
    patched = _patched(change.patch, "permissions")
    changes = permissions.__kinto_changes__().items()
    return {name: value for name, value in changes if sent.get(name) != value and name not in patched}


def _edited_keys(model: Any, now: Mapping[str, JSON]) -> set[str]:
    """Return the keys that the user set or changed; for a new object without the defaults."""
    snapshot = model.__kinto_envelope__().data
    if snapshot is not None:
        return set(changed_keys(snapshot, now))
    fields = codec_of(type(model)).fields
    return {key for key in now if key not in fields or fields[key] in model.__pydantic_fields_set__}


def _patched(patch: Patch | None, part: str) -> set[str]:
    """Return the keys of the data, or the permissions, that the patch touches."""
    if not isinstance(patch, JSONPatch):
        return set() if patch is None else set(patch.body.get(part, {}))
    paths = [place.split("/") for place in written_places(patch)]
    return {path[2].replace("~1", "/").replace("~0", "~") for path in paths if len(path) > 2 and path[1] == part}


def redo(model: Any, edits: Edits) -> None:
    """Make the unsent edits again, on the server's answer."""
    restore_fields(model, edits.fields)
    if edits.extra:
        own_extra(model).update(edits.extra)
    for key in edits.removed:
        if key in current_data(model):
            remove_key(model, key)
    for name, principals in edits.permissions.items():
        model.permissions[name] = principals


def accept(model: Any, change: Change[Any], row: JSONObject, shown: ShownPermissions, rows: StoredRows) -> bool:
    """Take the row of the answer to a change that was stored as it was sent, unless the object was edited since."""
    mark = change.mark
    if not isinstance(mark, NewObjects):
        return accept_stored(model, change, without_envelope(row), row["last_modified"], shown)
    if not mark.accept(model, row, shown, rows):
        return False
    if wires := codec_of(type(model)).wires:
        model.__pydantic_fields_set__.update(wires)
    return True


def accept_stored(
    model: Any, change: Change[Any], stored: JSONObject, last_modified: int | None, shown: ShownPermissions
) -> bool:
    """Take the state after a change that was stored as it was sent, without validation; return whether it was taken.

    It is not where the object was edited since the change was made, or where a field is called ``schema`` and the
    server has set that key.
    """
    codec, envelope, mark = codec_of(type(model)), model.__kinto_envelope__(), change.mark
    has_more = len(stored) != len(change.data)  # the timestamp of the collection's schema
    if not isinstance(mark, Mark) or (has_more and "schema" in codec.fields):
        return False
    # Both are replaced, never changed.
    is_untouched = envelope.touched is mark.touched and envelope.absent is mark.absent
    if not is_untouched or (envelope.extra if mark.extra is None else text_of(envelope.extra) != mark.extra):
        return False
    set_ones = None if envelope.permissions is None else envelope.permissions.__kinto_changes__()
    if set_ones and _unsent_permissions(model, change, change.permissions or {}):
        return False
    if envelope.data is None or envelope.data.keys() != stored.keys():
        object.__setattr__(model, "__pydantic_fields_set__", codec.names_in(stored))
    # Untouched fields are as they were; the others come back as they were written.
    is_known = codec.varies or (envelope.before and mark.now)
    envelope.before = {**(envelope.before or {}), **mark.now} if is_known else None
    envelope.data, envelope.absent, envelope.touched = stored, {}, frozenset()
    become_loaded(model, envelope, last_modified, shown)
    extra = envelope.extra or {}
    for key in extra.keys() - stored.keys():
        del extra[key]  # another name of a field that was written
    if has_more and envelope.extra is not None:
        envelope.extra["schema"] = stored["schema"]
    return True

"""What becomes of one record of the file when the server has something new, or has answered a push: pure decisions.

Both sides are merged field by field, with the version that the server had last as their base. What both changed is
parked on the row, until the conflict is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from kinto_orm.mirror.store import Row
from kinto_orm.protocol.json_values import JSON, JSONObject, decode, encode, is_same, is_stored_as
from kinto_orm.protocol.merge import Merged, merge_data
from kinto_orm.protocol.paths import Kind
from kinto_orm.repository import is_schema_timestamp, without_schema_timestamp

Effect: TypeAlias = Literal["none", "pulled", "merged", "parked"]
"""The effect of a change of the server: nothing to see here, taken, merged with changes of here, or in conflict."""

Side: TypeAlias = Literal["mine", "theirs"]


def text_of(data: Mapping[str, JSON]) -> str:
    """Return the data as it is stored in the file."""
    return encode(data).decode()


def data_of(text: str | None) -> JSONObject | None:
    """Return stored data; ``None`` for a deletion."""
    if text is None:
        return None
    found: JSONObject = decode(text.encode(), "a record of the mirror's file")
    return found


def edited(row: Row, data: JSONObject | None, version: int) -> Row:
    """Return the row after an edit of here; ``None`` deletes the record."""
    base = data_of(row.base)
    # What is as it was is stored as it was: the order of keys, or 1 and 1.0, are no changes.
    is_back = data is not None and base is not None and is_same(base, data)
    mine = row.base if is_back else None if data is None else text_of(data)
    return replace(row, version=version, mine=mine, refused=None, error=None)


def incoming(row: Row, data: JSONObject, modified: int, version: int) -> tuple[Row, Effect]:
    """Return the row when the server has this data, and the effect; ``version`` is for the row where ``mine`` changes.

    ``modified`` is the server's timestamp.
    """
    base, mine = _base_of(row, data), data_of(row.mine)
    known = replace(row, base=text_of(data), base_modified=modified, gone=None, sent=None)
    known = replace(known, theirs=None, theirs_modified=None)
    if mine is None:
        if base is None:
            return replace(known, mine=known.base, version=version), "pulled"
        if is_same(_plain(base), _plain(data)):
            return known, "none"  # the deletion is to be pushed
        return _parked(row, data, modified)
    if is_same(_plain(mine), _plain(data)):
        return replace(known, mine=known.base), "none"
    merged = _merge(base, mine, data)
    if merged.conflicts:
        return _parked(row, data, modified)
    effect: Effect = "pulled" if base is not None and is_same(_plain(base), _plain(mine)) else "merged"
    return _with_mine(known, merged.data, data, version), effect


def deleted(row: Row, modified: int, version: int) -> tuple[Row, Effect]:
    """Return the row when the server has a tombstone with that timestamp, and the effect."""
    if row.gone is not None and modified <= row.gone:
        return row, "none"
    if row.mine is None:
        return _tombstone(row, modified, row.version), "none"
    if row.base is None:
        return row, "none"  # a record of here; the tombstone is of an earlier one with its id
    if row.mine == row.base and row.gone is None:
        return _tombstone(row, modified, version), "pulled"
    return replace(row, theirs=None, theirs_modified=modified), "parked"


def pushed(row: Row, data: JSONObject, modified: int, version: int) -> Row:
    """Return the row after the server stored what was sent last, and answered with this data."""
    sent = sent_of(row)[-1]
    assert sent is not None
    mine, stored = data_of(row.mine), text_of(data)
    done = replace(row, base=stored, base_modified=modified, gone=None, sent=None, refused=None, error=None)
    done = replace(done, theirs=None, theirs_modified=None)
    if mine is None:
        return done
    if is_stored_as(_plain(sent), _plain(data)):
        # What was stored as sent keeps its version here: an object that was saved before can be saved again.
        if is_same(_plain(mine), _plain(sent)):
            return replace(done, mine=stored)
        return replace(done, mine=text_of(_stamped(mine, data)))
    merged = _merge(sent, mine, data)  # the server changed it on the way
    return _with_mine(done, merged.data, data, version)


def push_deleted(row: Row, modified: int) -> Row:
    """Return the row after the server deleted the record."""
    done = replace(row, gone=modified, sent=None, base_modified=None, theirs=None, theirs_modified=None)
    return replace(done, base=None, refused=None, error=None)


def lost(row: Row, version: int) -> Row:
    """Return the row on a server that was emptied, where what was changed here is kept and all else goes."""
    if row.is_unpushed:
        return remade(row) if row.mine is not None else _tombstone(row, 0, row.version)
    return row if row.mine is None else _tombstone(row, 0, version)


def remade(row: Row) -> Row:
    """Return the row on a server that was emptied, where it is to be created again."""
    kept = replace(row, base_modified=None, sent=None, theirs=None, theirs_modified=None, refused=None, error=None)
    return replace(kept, gone=0) if row.mine is not None else replace(kept, base=None, gone=0)


def preferring(row: Row, side: Side) -> JSONObject | None:
    """Return both sides of a conflict in one, with this side where they clash; ``None`` for a deletion."""
    base, mine, theirs = data_of(row.base), data_of(row.mine), data_of(row.theirs)
    if mine is None or theirs is None:
        return mine if side == "mine" else theirs
    merged = _merge(base, mine, theirs) if side == "mine" else _merge(base, theirs, mine)
    return merged.data


def clashing(row: Row) -> tuple[str, ...]:
    """Return the paths that both sides of a conflict changed; none where one side deleted the record."""
    mine, theirs = data_of(row.mine), data_of(row.theirs)
    return () if mine is None or theirs is None else _merge(data_of(row.base), mine, theirs).conflicts


def resolved(row: Row, data: JSONObject | None, version: int) -> Row:
    """Return the row with this data in the place of its conflict; ``None`` deletes the record."""
    modified, theirs = row.theirs_modified, data_of(row.theirs)
    settled = replace(row, theirs=None, theirs_modified=None, sent=None, refused=None, error=None)
    if theirs is None:
        if data is None:
            return _tombstone(settled, modified or 0, row.version if row.mine is None else version)
        # The base stays, for another mirror that brings the record back, too.
        return _with_mine(replace(settled, gone=modified), data, {}, version)
    settled = replace(settled, base=row.theirs, base_modified=modified, gone=None)
    if data is None:
        return replace(settled, mine=None, version=row.version if row.mine is None else version)
    return _with_mine(settled, data, theirs, version)


def sent_of(row: Row) -> list[JSONObject | None]:
    """Return what was sent and not answered, the last one at the end."""
    return [] if row.sent is None else decode(row.sent.encode(), "a record of the mirror's file")


def sending(row: Row) -> Row:
    """Return the row about to be sent as it is here."""
    sent, mine = sent_of(row), data_of(row.mine)
    return row if sent[-1:] == [mine] else replace(row, sent=encode([*sent, mine]).decode())


def refused(row: Row, reason: str, version: int) -> Row:
    """Return the row after the server refused what was sent, which was of that version here."""
    rest = sent_of(row)[:-1]
    return replace(row, sent=encode(rest).decode() if rest else None, refused=version, error=reason)


def _base_of(row: Row, theirs: JSONObject) -> JSONObject | None:
    """Return the base of a merge: of what was sent and not answered, the fields that the server has by now count."""
    base = data_of(row.base)
    for sent in sent_of(row):
        if sent is not None:
            base = base or {}
            arrived = {key: sent[key] for key in sent if key in theirs and is_stored_as(sent[key], theirs[key])}
            base = {key: value for key, value in base.items() if key in sent or key in theirs} | arrived
    return base


def _merge(base: JSONObject | None, mine: JSONObject, theirs: JSONObject) -> Merged:
    return merge_data(None if base is None else _plain(base), _plain(mine), _plain(theirs))


def _with_mine(row: Row, data: JSONObject, theirs: JSONObject, version: int) -> Row:
    mine, base, before = _stamped(data, theirs), data_of(row.base), data_of(row.mine)
    text = row.base if base is not None and is_same(base, mine) else text_of(mine)
    is_as_before = before is not None and is_same(_plain(before), _plain(mine))
    return replace(row, mine=text, version=row.version if is_as_before else version)


def _parked(row: Row, theirs: JSONObject, modified: int) -> tuple[Row, Effect]:
    return replace(row, theirs=text_of(theirs), theirs_modified=modified), "parked"


def _tombstone(row: Row, modified: int, version: int) -> Row:
    return Row(row.id, version, gone=modified)


def _plain(data: JSONObject) -> JSONObject:
    """Return the data without the timestamp that the server of a collection with a schema writes into it."""
    return without_schema_timestamp(Kind.RECORD, data)


def _stamped(data: JSONObject, theirs: Mapping[str, Any]) -> JSONObject:
    """Return the data with the server's timestamp of the schema, which is none of our changes."""
    if is_schema_timestamp(Kind.RECORD, theirs.get("schema")):
        return {**data, "schema": theirs["schema"]}
    return _plain(data)

"""What becomes of one record of the file when the server has something new, or has answered a push: pure decisions.

Both sides are merged field by field, with what they had in common last as their base. What both changed is parked on
the row, until the conflict is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from kinto_orm.errors import ProtocolError
from kinto_orm.mirror.store import Row
from kinto_orm.protocol.json_values import JSON, JSONObject, decode, encode, is_same, is_stored_as, say_value
from kinto_orm.protocol.merge import Merged, merge_data
from kinto_orm.protocol.paths import Kind
from kinto_orm.repository.verbs import is_schema_timestamp, without_schema_timestamp

Effect: TypeAlias = Literal["none", "pulled", "merged", "parked"]
"""The effect of a change of the server: nothing to see here, taken, merged with changes of here, or in conflict."""


def text_of(data: Mapping[str, JSON]) -> str:
    """Return the data as it is stored in the file."""
    return encode(data).decode()


def data_of(text: str | None) -> JSONObject | None:
    """Return stored data; ``None`` for a deletion."""
    if text is None:
        return None
    found: JSONObject = decode(text.encode(), "a record of the mirror's file")
    if not isinstance(found, dict):
        raise ProtocolError(f"A record of the mirror's file is no JSON object: {say_value(text)}.")
    return found


def base_of(row: Row) -> JSONObject | None:
    """Return the data that both sides had in common last; ``None`` where there was none."""
    return None if row.base == "null" else data_of(row.theirs if row.base is None else row.base)


def edited(row: Row, data: JSONObject | None, version: int) -> Row:
    """Return the row after an edit of here; ``None`` deletes the record."""
    theirs = data_of(row.theirs)
    changed = replace(row, version=version, mine=None, refused=None, error=None)
    if data is not None and theirs is not None and is_same(theirs, data):
        # Stored as it is there: the order of keys, or 1 and 1.0, are no changes. Both sides agree.
        return replace(changed, mine=row.theirs, base=None, is_parked=False)
    return changed if data is None else replace(changed, mine=text_of(data))


def incoming(row: Row, data: JSONObject, modified: int, version: int) -> tuple[Row, Effect]:
    """Return the row when the server has this data, and the effect; ``version`` is for the row where ``mine`` changes.

    ``modified`` is the server's timestamp.
    """
    base, mine = _arrived(row, data), data_of(row.mine)
    known = settled(row, text_of(data), modified)
    if mine is None:
        if base is None:
            return replace(known, mine=known.theirs, version=version), "pulled"
        # The deletion is to be pushed where nothing was changed there.
        return (known, "none") if is_same(_plain(base), _plain(data)) else _parked(row, known)
    if is_same(_plain(mine), _plain(data)):
        return replace(known, mine=known.theirs), "none"
    merged = _merge(base, mine, data)
    if merged.conflicts:
        return _parked(row, known)
    effect: Effect = "pulled" if base is not None and is_same(_plain(base), _plain(mine)) else "merged"
    return _with_mine(known, merged.data, data, version), effect


def deleted(row: Row, modified: int, version: int) -> tuple[Row, Effect]:
    """Return the row when the server has a tombstone with that timestamp, and the effect."""
    if row.mine is None:
        return Row(row.id, row.version, modified=modified), "none"
    if None in sent_of(row):
        return settled(row, None, modified), "none"  # it was deleted here, too, and made anew since
    if row.theirs is None and (row.base is None or modified <= (row.modified or 0)):
        return row, "none"  # a record of here, where the tombstone is of an earlier one; or a tombstone that is known
    if row.mine == row.theirs:
        return Row(row.id, version, modified=modified), "pulled"
    return _parked(row, replace(row, theirs=None, modified=modified))


def pushed(row: Row, data: JSONObject, modified: int, version: int) -> Row:
    """Return the row after the server stored what was sent last, and answered with this data."""
    sent = sent_of(row)[-1]
    assert sent is not None
    mine, done = data_of(row.mine), settled(row, text_of(data), modified)
    if mine is None:
        return done
    if is_stored_as(_plain(sent), _plain(data)):
        # What was stored as sent keeps its version here: an object that was saved before can be saved again.
        is_as_sent = is_same(_plain(mine), _plain(sent))
        return replace(done, mine=done.theirs if is_as_sent else text_of(_stamped(mine, data)))
    merged = _merge(sent, mine, data)  # the server changed it on the way
    return _with_mine(done, merged.data, data, version)


def settled(row: Row, theirs: str | None, modified: int) -> Row:
    """Return the row on a server that has this, where nothing is sent, refused or in conflict."""
    known = replace(row, theirs=theirs, modified=modified, base=None, is_parked=False)
    return replace(known, sent=None, refused=None, error=None)


def preferring(row: Row, side: Literal["mine", "theirs"]) -> JSONObject | None:
    """Return both sides of a conflict in one, with this side where they clash; ``None`` for a deletion."""
    mine, theirs = data_of(row.mine), data_of(row.theirs)
    if mine is None or theirs is None:
        return mine if side == "mine" else theirs
    return (_merge(base_of(row), mine, theirs) if side == "mine" else _merge(base_of(row), theirs, mine)).data


def clashing(row: Row) -> tuple[str, ...]:
    """Return the paths that both sides of a conflict changed; none where one side deleted the record."""
    mine, theirs = data_of(row.mine), data_of(row.theirs)
    return () if mine is None or theirs is None else _merge(base_of(row), mine, theirs).conflicts


def resolved(row: Row, data: JSONObject | None, version: int) -> Row:
    """Return the row with this data in the place of its conflict; ``None`` deletes the record."""
    done = settled(row, row.theirs, row.modified or 0)
    if data is None:
        return replace(done, mine=None, version=row.version if row.mine is None else version)
    if row.theirs is None:
        done = replace(done, base=row.base)  # it stays, for another mirror that brings the record back, too
    return _with_mine(done, data, data_of(row.theirs) or {}, version)


def sent_of(row: Row) -> list[JSONObject | None]:
    """Return what was sent and not answered, the last one at the end."""
    return [] if row.sent is None else decode(row.sent.encode(), "a record of the mirror's file")


def sending(row: Row) -> Row:
    """Return the row about to be sent as it is here."""
    sent, mine = sent_of(row), data_of(row.mine)
    return row if sent[-1:] == [mine] else replace(row, sent=encode([*sent, mine]).decode())


def refused(row: Row, reason: str | None, version: int | None) -> Row:
    """Return the row after the server did not store what was sent; with a version, it is sent again when edited."""
    rest = sent_of(row)[:-1]
    return replace(row, sent=encode(rest).decode() if rest else None, refused=version or row.refused, error=reason)


def _arrived(row: Row, theirs: JSONObject) -> JSONObject | None:
    """Return the base of a merge: of what was sent and not answered, the fields that the server has by now count."""
    base = base_of(row)
    for sent in sent_of(row):
        if sent is not None:
            base = base or {}
            arrived = {key: sent[key] for key in sent if key in theirs and is_stored_as(sent[key], theirs[key])}
            base = {key: value for key, value in base.items() if key in sent or key in theirs} | arrived
    return base


def _merge(base: JSONObject | None, mine: JSONObject, theirs: JSONObject) -> Merged:
    return merge_data(None if base is None else _plain(base), _plain(mine), _plain(theirs))


def _with_mine(row: Row, data: JSONObject, theirs: JSONObject, version: int) -> Row:
    mine, before = _stamped(data, theirs), data_of(row.mine)
    text = row.theirs if row.theirs is not None and is_same(theirs, mine) else text_of(mine)
    is_as_before = before is not None and is_same(_plain(before), _plain(mine))
    return replace(row, mine=text, version=row.version if is_as_before else version)


def _parked(row: Row, known: Row) -> tuple[Row, Effect]:
    """Return the row in conflict with what is known of the server; "null" is the base where there is none."""
    base = row.base or row.theirs or "null"
    return replace(row, theirs=known.theirs, modified=known.modified, base=base, is_parked=True), "parked"


def _plain(data: JSONObject) -> JSONObject:
    """Return the data without the timestamp that the server of a collection with a schema writes into it."""
    return without_schema_timestamp(Kind.RECORD, data)


def _stamped(data: JSONObject, theirs: Mapping[str, Any]) -> JSONObject:
    """Return the data with the server's timestamp of the schema, which is none of our changes."""
    if is_schema_timestamp(Kind.RECORD, theirs.get("schema")):
        return {**data, "schema": theirs["schema"]}
    return _plain(data)

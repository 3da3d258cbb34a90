"""Every type of field, by all ways of writing and of reading (``faults_found.md`` J01 to J25, the kind of them).

A value is written in one spelling by every way, or refused by every way before anything is sent; what was written is
read as the same value by every way, and is clean; a condition finds it, or is refused.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable, Collection
from typing import Any

import pytest
from field_kinds import KINDS
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import create_model
from readings import WAYS, readings
from wiretap import Wiretap, tap

from kinto_orm import Client, F, InvalidFilterError, InvalidValueError, KintoError, Record
from kinto_orm import Collection as KintoCollection
from kinto_orm.protocol.json_values import is_same, to_json_value

IN_DEPTH = bool(os.environ.get("KINTO_ORM_EVERYTHING"))
"""In ``tox -e slow``: several values by all ways; else each type goes one value and some of the ways, in turn."""
EXAMPLES = 3 if IN_DEPTH else 1


class Item(Record, bucket="payments", collection="todos"):
    """What the models here have in common: where they are."""


def model_of(number: int, kind: str) -> Any:
    """Return a class with one field of that type, and one that tells whether others were left alone."""
    name = f"Holder{number}"
    model: Any = create_model(name, __base__=Item, __module__=__name__, f=(KINDS[kind].annotation, ...), note=(str, ""))
    globals()[name] = model  # where a pickle looks for it
    return model


MODELS = {kind: model_of(number, kind) for number, kind in enumerate(KINDS)}

Write = Callable[[Any, Any, str, Any], object]
"""A way of writing: takes the model, a stored object of another value, its id, and the value."""


def assigned(one: Any, value: Any) -> Any:
    one.f = value
    return one


def merged(model: Any, one: Any, id: str, value: Any) -> None:
    Item.records.get(id).patch(note="theirs")
    assigned(one, value).save(on_conflict="merge")


def in_a_unit(model: Any, one: Any, id: str, value: Any) -> None:
    client: Client = one.client
    with client.unit_of_work():
        assigned(one, value).save()


CREATING: dict[str, Write] = {
    "save": lambda model, one, id, value: model(id=id, f=value).save(),
    "replace": lambda model, one, id, value: model(id=id, f=value).replace(),
    "create": lambda model, one, id, value: model.records.create(id=id, f=value),
    "bulk of objects": lambda model, one, id, value: model.records.bulk_create([model(id=id, f=value)]),
    "bulk of dictionaries": lambda model, one, id, value: model.records.bulk_create([{"id": id, "f": value}]),
    "get_or_create": lambda model, one, id, value: model.records.get_or_create(id, {"f": value}),
    "update_or_create": lambda model, one, id, value: model.records.update_or_create(id, {"f": value}),
    "sync": lambda model, one, id, value: model.records.sync([model(id=id, f=value)]),
    "plan": lambda model, one, id, value: model.records.plan([model(id=id, f=value)]).apply(),
}
CHANGING: dict[str, Write] = {
    "save": lambda model, one, id, value: assigned(one, value).save(),
    "replace": lambda model, one, id, value: assigned(one, value).replace(),
    "patch": lambda model, one, id, value: one.patch(f=value),
    "patch of a mapping": lambda model, one, id, value: one.patch({"f": value}),
    "bulk_update": lambda model, one, id, value: model.records.bulk_update([assigned(one, value)]),
    "update": lambda model, one, id, value: model.records.filter(id=id).update(f=value),
    "update by a function": lambda model, one, id, value: model.records.filter(id=id).update(lambda _: {"f": value}),
    "update_or_create": lambda model, one, id, value: model.records.update_or_create(id, {"f": value}),
    "unit": in_a_unit,
    "merge": merged,
    "data": lambda model, one, id, value: (one.data.update(f=model(f=value).data["f"]), one.save()),
}


def some(ways: Collection[str], kind: str, count: int) -> list[str]:
    """Return all ways in depth, else as many; the next type has the next ones."""
    number = list(KINDS).index(kind) * count
    return [way for at, way in enumerate(ways) if IN_DEPTH or (at - number) % len(ways) < count]


def outcome(wire: Wiretap, write: Write, model: Any, one: Any, id: str, value: Any) -> str | None:
    """Return why the write was refused before anything was sent; ``None`` where it was sent."""
    wire.requests.clear()
    refused: KintoError | None = None
    try:
        write(model, one, id, value)
    except KintoError as error:
        refused = error
    assert refused is None or not [request for request in wire.requests if request.is_write], f"sent, then {refused!r}"
    return None if refused is None else f"{type(refused).__name__}: {refused}"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, derandomize=True, phases=[Phase.generate])  # to shrink takes minutes
@given(st.data())
def test_every_way_of_writing_spells_a_value_alike_and_every_way_of_reading_gives_it(
    kinto_client: Client, todos: KintoCollection[Record], kind: str, data: st.DataObject
) -> None:
    model, value = MODELS[kind], data.draw(KINDS[kind].values)
    wire = kinto_client._connection.transport
    wire = wire if isinstance(wire, Wiretap) else tap(kinto_client)
    todos.records.delete(everything=True)
    refused = outcome(wire, CREATING["save"], model, None, "save", value)
    creating = [name for name in some(CREATING, kind, 2) if name != "save"]
    for name in creating:
        again = outcome(wire, CREATING[name], model, None, name.replace(" ", "-"), value)
        assert (again is None) == (refused is None), f"{name}: {again}, but save: {refused}"
    if refused is not None:
        assert todos.records.count() == 0
        return
    (spelt,) = [one.data["f"] for one in todos.records.filter(id="save")]
    assert_alike(todos, spelt)
    find_by_conditions(model, value, 1 + len(creating))
    for way, one in readings(model, "save", kinto_client, some(WAYS, kind, 4)).items():
        assert_reads(one, model(f=value).f, spelt, way)

    other, changing = data.draw(KINDS[kind].values), some(CHANGING, kind, 2)
    if outcome(wire, CREATING["save"], model, None, "other", other) is not None:
        return
    stored = todos.records.get("other").delete().data["f"]
    ids = {f"changed-by-{name}".replace(" ", "-"): name for name in changing}
    todos.records.bulk_create({"id": id, "f": stored, "theirs": 1} for id in ids)
    for one in model.records.get_many(list(ids)):
        assert outcome(wire, CHANGING[ids[one.id]], model, one, one.id, value) is None, ids[one.id]
    assert_alike(todos, spelt)


def assert_alike(todos: KintoCollection[Record], spelt: Any) -> None:
    for one in todos.records:
        stored = one.data["f"]
        # As text, for True is not 1; the order of the keys does not count.
        spellings = [json.dumps(value, sort_keys=True) for value in (stored, spelt)]
        assert spellings[0] == spellings[1], f"{one.id}: {stored!r}, but save: {spelt!r}"


def assert_reads(one: Any, value: Any, spelt: Any, way: str) -> None:
    assert type(one.f) is type(value) and is_equal(one.f, value), f"{way}: {one.f!r}, not {value!r}"
    assert one.data["f"] == spelt and not one.is_dirty, way
    for duplicate in (copy.copy(one), pickle.loads(pickle.dumps(one))):
        assert duplicate == one and not duplicate.is_dirty, way


def is_equal(one: Any, other: Any) -> bool:
    return bool(one == other) or repr(one) == repr(other)


@pytest.mark.skipif(not IN_DEPTH, reason="each type by each kind of table: in tox -e slow")
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, derandomize=True, phases=[Phase.generate])
@given(st.data())
def test_a_table_holds_what_every_way_of_writing_wrote(
    kinto_client: Client, todos: KintoCollection[Record], kind: str, data: st.DataObject
) -> None:
    model, value = MODELS[kind], data.draw(KINDS[kind].values)
    wire = tap(kinto_client)
    todos.records.delete(everything=True)
    if outcome(wire, CREATING["save"], model, None, "save", value) is not None:
        return
    spelt = todos.records.get("save").data["f"]
    try:
        table = model.records.to_arrow()
    except InvalidValueError:  # a number that no column of Arrow holds
        return
    cell = table.to_pylist()[0]["f"]
    assert_cell(cell, spelt)
    assert_cell(model.records.to_polars().to_dicts()[0]["f"], spelt)
    assert model.records.to_pandas()["f"].isna()[0] == (spelt is None)
    if is_same(to_json_value(cell, "f"), spelt):  # no text of JSON
        assert model.records.sync([{"id": "save", "f": cell}], fields=["f"]).unchanged == 1


def assert_cell(cell: Any, spelt: Any) -> None:
    """Compare a cell with the JSON value: a time is a time there, what has no one type is JSON text, and an object has
    all keys of its type.
    """
    if isinstance(cell, dict):
        cell = {key: value for key, value in cell.items() if value is not None or key in spelt}
    assert is_same(to_json_value(cell, "f"), spelt) or (isinstance(cell, str) and is_same(json.loads(cell), spelt))


def find_by_conditions(model: Any, value: Any, written: int) -> None:
    read = model(f=value).f
    for make in (lambda: model.records.filter(F(model.f) == read), lambda: model.records.filter(f=read)):
        try:
            query = make()
        except InvalidFilterError:
            continue
        assert query.count() == written, f"{query!r} finds {query.count()} of {written}"

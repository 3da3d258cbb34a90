"""One row, one reading: every way of reading gives equal objects, equally clean (``faults_found.md`` J01 to J06)."""

# ruff: noqa: RUF012  # pydantic copies the defaults of its models

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel, to_pascal
from readings import WAYS, readings
from typing_extensions import TypedDict
from wiretap import tap

from kinto_orm import Client, Collection, InvalidTypeError, InvalidValueError, MergePatch, Record


class Item(Record, bucket="payments", collection="todos"):
    """What all the models here have in common: where they are."""


class Renamed(Item):
    name: str = Field("", validation_alias=AliasChoices("name", "title"), serialization_alias="name")


class OldName(Item):
    name: str = Field("", validation_alias=AliasChoices("title", "name"), serialization_alias="name")


class FirstOfMany(Item):
    name: str = Field("", validation_alias=AliasChoices("name", AliasPath("names", 0)), serialization_alias="name")


class Migrated(Item):
    name: str

    @model_validator(mode="before")
    @classmethod
    def take_the_title(cls, data: Any) -> Any:
        return {"name": data["title"], **data} if isinstance(data, dict) and "title" in data else data


class Wrapped(Migrated):
    @model_validator(mode="wrap")
    @classmethod
    def shout(cls, data: Any, handler: Any) -> Any:
        made = handler(data)
        made.name = made.name.upper()
        return made


class Posted(Item):
    title: str
    names: list[str] = []
    _seen: int = PrivateAttr(default=0)

    def model_post_init(self, context: Any, /) -> None:
        self._seen = len(self.title)
        self.names.append(self.title)


class Inner(BaseModel):
    key: int = Field(default_factory=itertools.count().__next__)


class Varying(Item):
    number: int = Field(default_factory=itertools.count().__next__)
    inner: Inner = Field(default_factory=Inner)
    inners: list[Inner] = []


class Validated(Item):
    title: str = ""
    length: int = 0

    @field_validator("title")
    @classmethod
    def strip(cls, value: str) -> str:
        return value.strip()

    @field_validator("*", mode="before")
    @classmethod
    def stays(cls, value: Any) -> Any:
        return value


class Leaf(BaseModel):
    x: int = 0
    below: list[Leaf] = []


class Twice(Item):
    one: Leaf = Leaf()
    many: list[Leaf] = []
    _seen: int = 1


class TwiceValidated(Item):
    one: Leaf = Leaf()
    many: list[Leaf] = []

    @model_validator(mode="after")
    def stays(self) -> TwiceValidated:
        return self


@pytest.fixture
def row(todos: Collection[Record]) -> Any:
    """Return a function that stores a row of raw data."""

    def store(**data: Any) -> str:
        return todos.records.create(id="x", data=data).id or ""

    return store


MODELS = [
    (Renamed, {"title": "old"}),
    (Renamed, {"title": "old", "name": "new"}),
    (OldName, {"title": "old", "name": "new"}),
    (FirstOfMany, {"names": ["old"]}),
    (Migrated, {"title": "old", "other": {"deep": 1}}),
    (Wrapped, {"title": "old"}),
    (Posted, {"title": "old"}),
    (Varying, {}),
    (Varying, {"inners": [{}, {"key": 5}]}),
    (Validated, {"title": " x "}),
    (Twice, {"many": [{"x": 1, "below": [{}]}]}),
    (TwiceValidated, {"one": {"below": [{"x": 2}]}}),
]
each_model = pytest.mark.parametrize(
    ("model", "data"), MODELS, ids=[f"{model.__name__} of {', '.join(data) or 'nothing'}" for model, data in MODELS]
)


def fields(one: Any) -> dict[str, Any]:
    """Return the declared fields of an object, without those whose defaults differ each time."""
    return {} if isinstance(one, Varying) else {name: getattr(one, name) for name in type(one).model_fields}


@each_model
def test_j01_every_way_of_reading_gives_equal_objects(
    kinto_client: Client, row: Any, model: Any, data: dict[str, Any]
) -> None:
    found = readings(model, row(**data), kinto_client)

    assert set(found) == set(WAYS)
    first = found["get"]
    for way, one in found.items():
        assert fields(one) == fields(first), way
        assert one == first and one.data == first.data, way
        assert one.model_fields_set == first.model_fields_set, way
        assert not one.is_dirty, way


@each_model
def test_j01_a_row_that_was_read_is_saved_without_a_request(
    kinto_client: Client, row: Any, model: Any, data: dict[str, Any]
) -> None:
    found = readings(model, row(**data), kinto_client)
    wire = tap(kinto_client)

    for one in found.values():
        one.save()

    assert not wire.requests


@pytest.mark.parametrize("model", [Renamed, OldName])
def test_j01_a_field_that_was_read_by_an_old_name_is_saved_by_its_own(row: Any, model: Any) -> None:
    one = model.records.get(row(title="old"))
    one.name = "new"
    one.save()

    for again in (model.records.get("x"), model.records.all()[0]):
        assert again.name == "new" and not again.is_dirty


@pytest.mark.parametrize("own_keys", ["set", "edited", "get_or_create"])
def test_j01_an_old_name_goes_although_the_undeclared_keys_are_the_object_s_own(row: Any, own_keys: str) -> None:
    one = OldName.records.get(row(title="old", list=[1]))
    if own_keys == "get_or_create":
        one, _ = OldName.records.get_or_create("x", {})
    elif own_keys == "set":
        one.data["note"] = 1
    else:
        one.data["list"].append(2)
    one.name = "new"
    one.save()
    assert "title" not in one.data and not one.is_dirty
    one.data["note"] = 2
    one.save()

    stored = dict(Item.records.get("x").data)
    assert stored == {"list": [1, 2] if own_keys == "edited" else [1], "note": 2, "name": "new"}
    assert OldName.records.get("x") == one and not one.is_dirty


def test_j01_a_patch_that_an_old_name_would_hide_is_refused(kinto_client: Client, row: Any) -> None:
    one, wire = OldName.records.get(row(title="old")), tap(kinto_client)

    for patched in (one, OldName.records.ref("x")):
        with pytest.raises(InvalidValueError, match=r"'title', which OldName\.name is read from before 'name'"):
            patched.patch(name="new")
    assert not wire.requests

    OldName.records.ref("x").patch(MergePatch({"name": "new", "title": None}))
    one.refresh().patch(name="newer")
    assert OldName.records.get("x") == one and dict(one.data) == {"name": "newer"}


def test_j02_what_a_validator_of_the_class_reads_can_be_changed_and_saved(row: Any) -> None:
    (one,) = Migrated.records.filter(id=row(title="old"))
    one.name = "new"
    one.data["note"] = 1
    one.save()
    one.patch(name="newer")

    assert dict(Migrated.records.get("x").data) == {"title": "old", "name": "newer", "note": 1}


def test_j02_a_row_without_the_key_is_refused_by_every_way(kinto_client: Client, row: Any) -> None:
    row(other=1)
    ways: list[Any] = [
        lambda: Migrated.records.get("x"),
        Migrated.records.all,
        Migrated.records.first,
        lambda: Migrated.records.get_many(["x"]),
        lambda: Item.records.get("x") and kinto_client.bind(Migrated) and Migrated.records.one(),
    ]

    for way in ways:
        with pytest.raises(InvalidValueError, match="name: Field required"):
            way()


def test_j02_a_validator_of_a_class_without_fields_is_asked_by_every_way(row: Any) -> None:
    class Checked(Item):
        @model_validator(mode="before")
        @classmethod
        def check(cls, data: Any) -> Any:
            if "bad" in data:
                raise ValueError("it is bad")
            return data

    row(bad=1)
    ways: list[Any] = [lambda: Checked.records.get("x"), Checked.records.all, lambda: Checked(data={"bad": 1})]

    for way in ways:
        with pytest.raises(InvalidValueError, match="it is bad"):
            way()


# -- undeclared keys, at every depth ----------------------------------------------------------------------------------


class In(BaseModel):
    x: int
    y: int = 0


@dataclass
class Data:
    x: int


class Typed(TypedDict):
    x: int


class Tree(BaseModel):
    name: str
    below: list[Tree] = []


class Nested(Item):
    one: In = In(x=0)
    many: list[In] = []
    by_key: dict[str, In] = {}
    lists: list[list[In]] = []
    pair: tuple[In, In] | None = None
    datum: Data = Data(0)
    typed: Typed = {"x": 0}
    tree: Tree = Tree(name="")


THEIRS = {"x": 1, "theirs": {"k": ["v"]}}
STORED: dict[str, Any] = {
    "one": THEIRS,
    "many": [THEIRS, {"x": 5, "theirs": 2}],
    "by_key": {"a": THEIRS},
    "lists": [[THEIRS], [{"x": 3}]],
    "pair": [THEIRS, {"x": 2, "theirs": 3}],
    "datum": THEIRS,
    "typed": THEIRS,
    "tree": {"name": "root", "theirs": 1, "below": [{"name": "leaf", "theirs": 2}]},
}
EDITS: dict[str, Any] = {
    "one": lambda n: setattr(n.one, "x", 9),
    "one assigned": lambda n: setattr(n, "one", In(x=9)),
    "many": lambda n: setattr(n.many[0], "x", 9),
    "many appended": lambda n: n.many.append(In(x=9)),
    "many inserted": lambda n: n.many.insert(0, In(x=9)),
    "many turned around": lambda n: n.many.reverse(),
    "by_key": lambda n: setattr(n.by_key["a"], "x", 9),
    "by_key set": lambda n: n.by_key.update(b=In(x=9)),
    "lists": lambda n: setattr(n.lists[0][0], "x", 9),
    "pair": lambda n: setattr(n.pair[1], "x", 9),
    "datum": lambda n: setattr(n.datum, "x", 9),
    "typed": lambda n: n.typed.update(x=9),
    "tree": lambda n: setattr(n.tree.below[0], "name", "other"),
}


def undeclared_values(value: Any) -> list[str]:
    """Return the values below all keys ``theirs``, sorted."""
    if isinstance(value, list):
        return sorted(text for item in value for text in undeclared_values(item))
    if not isinstance(value, dict):
        return []
    inside = [text for key, item in value.items() for text in undeclared_values(item) if key != "theirs"]
    return sorted([*inside, *([repr(value["theirs"])] if "theirs" in value else [])])


WRITES: dict[str, Any] = {
    "save": lambda client, edit: edit(Nested.records.get("x")).save(),
    "save of a row": lambda client, edit: edit(Nested.records.all()[0]).save(),
    "replace": lambda client, edit: edit(Nested.records.get("x")).replace(),
    "update": lambda client, edit: Nested.records.update(edit),
    "bulk_update": lambda client, edit: Nested.records.bulk_update([edit(Nested.records.all()[0])]),
    "unit": lambda client, edit: _save_in_a_unit(client, edit),
    "merge": lambda client, edit: _merge(edit),
}


def _save_in_a_unit(client: Client, edit: Any) -> None:
    with client.unit_of_work() as uow:
        edit(uow.get(Nested, "x"))


def _merge(edit: Any) -> None:
    one = edit(Nested.records.get("x"))
    Item.records.get("x").patch(note="theirs")
    one.save(on_conflict="merge")


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("edit", EDITS)
def test_j03_undeclared_keys_inside_of_fields_are_kept(kinto_client: Client, row: Any, write: str, edit: str) -> None:
    row(**STORED)

    def change(one: Any) -> Any:
        EDITS[edit](one)
        return one

    WRITES[write](kinto_client, change)

    stored = dict(Item.records.get("x").data)
    assert undeclared_values(stored) == undeclared_values(STORED)
    assert "9" in repr(stored) or "other" in repr(stored) or "turned" in edit
    assert not Nested.records.get("x").is_dirty


@pytest.mark.parametrize("way", ["constructor", "bulk_create", "get_or_create", "sync", "copy", "edited"])
def test_j03_undeclared_keys_inside_of_fields_are_kept_in_new_records(row: Any, way: str) -> None:
    if way == "bulk_create":
        Nested.records.bulk_create([{"id": "new", **STORED}])
    elif way == "get_or_create":
        Nested.records.get_or_create("new", STORED)
    elif way == "sync":
        Nested.records.sync([{"id": "new", **STORED}])
    elif way == "copy":
        Nested.records.get(row(**STORED)).model_copy(update={"id": "new"}).save()
    else:
        made = Nested(id="new", data=STORED)
        if way == "edited":
            made.one.x = made.many[1].x = 9
            made.by_key["b"] = In(x=9)
        made.save()
        assert not made.is_dirty and made == Nested.records.get("new")

    stored = dict(Item.records.get("new").data)
    assert undeclared_values(stored) == undeclared_values(STORED)
    assert repr(stored).count("9") == (3 if way == "edited" else 0)


def test_j03_the_smallest_example(row: Any) -> None:
    row(one={"x": 1, "theirs": "K"}, many=[{"x": 1, "theirs": "K"}])
    one = Nested.records.get("x")
    one.one.x = 2
    one.many.append(In(x=2))
    one.save()

    assert dict(Item.records.get("x").data) == {
        "one": {"x": 2, "theirs": "K"},
        "many": [{"x": 1, "theirs": "K"}, {"x": 2, "y": 0}],
    }


def test_j03_undeclared_keys_in_the_json_of_a_text_stay(row: Any) -> None:
    class Packed(Item):
        many: Json[list[In]] | None = None
        title: str = ""

    row(many='[{"x": 1, "theirs": "K"}, {"x": 2}]')
    for read in (lambda: Packed.records.get("x"), lambda: Packed.records.all()[0]):
        one = read()
        one.many[0].x += 4
        one.title += "t"
        one.save()

    data = Item.records.get("x").data
    assert json.loads(data.pop("many")) == [{"x": 9, "theirs": "K"}, {"x": 2}] and data == {"title": "tt"}
    one.many = '[{"x": 7}]'
    with pytest.raises(InvalidValueError, match=r"data\.many.*several items changed"):
        one.save()


class Number(BaseModel):
    x: int


class Wrapped(BaseModel):
    packed: Json[Number] | None = None


class Texts(Item):
    many: list[Json[Number]] = []
    named: dict[str, Json[Number]] = {}
    inner: Wrapped | None = None
    pair: tuple[Json[Number], int] | None = None


TEXT = '{"x":1,"theirs":"K"}'
TEXTS: dict[str, tuple[Any, Callable[[Any], Number], Callable[[Any], str]]] = {
    "many": ([TEXT, TEXT], lambda one: one.many[1], lambda data: data["many"][1]),
    "named": ({"a": TEXT, "b": TEXT}, lambda one: one.named["b"], lambda data: data["named"]["b"]),
    "inner": ({"packed": TEXT, "more": 1}, lambda one: one.inner.packed, lambda data: data["inner"]["packed"]),
    "pair": ([TEXT, 1], lambda one: one.pair[0], lambda data: data["pair"][0]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_j03_undeclared_keys_in_json_texts_inside_of_a_field_stay(row: Any, name: str) -> None:
    value, part_of, text_of = TEXTS[name]
    row(**{name: value})
    new = Texts(id="y", data={name: value}).save()
    assert Item.records.get("y").data[name] == value

    for read in (lambda: Texts.records.get("x"), lambda: Texts.records.filter(id="x").one(), lambda: new):
        one = read()
        part_of(one).x = part_of(one).x + 1
        one.save()
        stored = Item.records.get(one.id).data[name]
        assert json.loads(text_of({name: stored})) == {"x": part_of(one).x, "theirs": "K"}
        text = text_of({name: stored})
        assert str(stored).replace(text, TEXT) == str(value)


class Outer(BaseModel):
    inner: Json[Number] | None = None


class Loose(Item):
    either: int | Json[Number] = 0
    deep: Json[Outer] | None = None
    all_: list[Json[Number] | int] = []


@pytest.mark.parametrize(
    ("name", "value", "edit"),
    [
        ("either", TEXT, lambda one: setattr(one.either, "x", 2)),
        ("deep", json.dumps({"inner": TEXT}), lambda one: setattr(one.deep.inner, "x", 2)),
        ("all_", [TEXT, TEXT], lambda one: setattr(one.all_[0], "x", 2)),
    ],
)
def test_j03_undeclared_keys_in_a_text_that_the_type_does_not_tell_are_not_lost_unseen(
    row: Any, name: str, value: Any, edit: Callable[[Any], object]
) -> None:
    row(**{name: value})
    one = Loose.records.get("x")
    one.save()
    edit(one)
    with pytest.raises(InvalidValueError, match=rf"data\.{name}.*does not declare"):
        one.save()
    assert Item.records.get("x").data == {name: value}


class Tagged(Item):
    tags: set[str] = set()
    inner: dict[str, Any] = {}

    @field_serializer("inner")
    def _without_hidden(self, value: dict[str, Any]) -> dict[str, Any]:
        return {key: one for key, one in value.items() if one != {"hidden": 1}}


def test_j03_what_is_no_text_of_json_is_edited_as_before(row: Any) -> None:
    row(tags=["a", "a"], inner={"x": {"hidden": 1}})
    one = Tagged.records.get("x")
    one.tags.add("b")
    one.inner["x"] = {"shown": 1}
    one.save()

    data = Item.records.get("x").data
    assert sorted(data["tags"]) == ["a", "b"] and data["inner"] == {"x": {"shown": 1}}


@pytest.mark.parametrize("key", STORED)
def test_j03_an_undeclared_key_inside_of_a_field_counts_for_equality(row: Any, key: str) -> None:
    def read(of: Any) -> Nested:
        Item(id="x", data={key: of}).replace(safe=False)
        return Nested.records.get("x")

    one, same, other = read(STORED[key]), read(STORED[key]), read(_changed(STORED[key]))

    assert one == same and one != other and getattr(one, key) == getattr(other, key)


def _changed(value: Any) -> Any:
    """Return the value with others below all keys ``theirs``."""
    if isinstance(value, list):
        return list(map(_changed, value))
    if not isinstance(value, dict):
        return value
    return {key: "changed" if key == "theirs" else _changed(item) for key, item in value.items()}


@pytest.mark.parametrize("edit", ["several", "shorter and changed"])
def test_j03_items_that_cannot_be_told_apart_are_refused(kinto_client: Client, row: Any, edit: str) -> None:
    row(many=[{"x": 1, "theirs": 1}, {"x": 2, "theirs": 2}, {"x": 3}])
    one = Nested.records.get("x")
    one.many = [In(x=7), In(x=8), In(x=3)] if edit == "several" else [In(x=7)]
    wire = tap(kinto_client)

    with pytest.raises(InvalidValueError, match=r"data\.many.* or give the whole list to patch\(\)"):
        one.save()

    assert not wire.requests
    fresh = Nested.records.get("x").patch(many=[{"x": 7}])
    assert not fresh.is_dirty and Nested.records.get("x") == fresh


def test_j03_an_item_beside_one_with_a_random_default_can_be_changed(row: Any) -> None:
    class Keyed(In):
        key: int = Field(default_factory=itertools.count(100).__next__)
        parts: list[int] = []

    class Holder(Item):
        many: list[Keyed]
        lists: list[list[Keyed]] = []

    stored = [{"x": 1, "theirs": 1, "parts": ["1"]}, {"x": 2, "key": 5, "parts": ["2"]}]
    row(many=stored, lists=[stored])
    one = Holder.records.get("x")
    assert not one.is_dirty
    one.many[1].x = one.lists[0][1].x = 9
    one.save()

    def expected(first: Keyed) -> list[Any]:
        return [stored[0] | {"y": 0, "key": first.key}, stored[1] | {"x": 9, "y": 0}]

    assert dict(Item.records.get("x").data) == {"many": expected(one.many[0]), "lists": [expected(one.lists[0][0])]}
    assert Holder.records.get("x") == one and not one.is_dirty


def test_j03_an_item_that_was_removed_goes_with_its_keys(row: Any) -> None:
    row(many=[{"x": 1, "theirs": 1}, {"x": 2, "theirs": 2}])
    one = Nested.records.get("x")
    del one.many[0]
    one.save()

    assert Item.records.get("x").data["many"] == [{"x": 2, "theirs": 2}]


class Old(BaseModel):
    name: str = Field("", validation_alias=AliasChoices("title", "name"), serialization_alias="name")
    z: int = 0


class Both(BaseModel):
    title: str = ""
    name: str = Field("", validation_alias=AliasChoices("name", "title"), serialization_alias="name")
    first: str = Field("", validation_alias=AliasPath("names", 0))
    last: str = Field("", validation_alias=AliasChoices(AliasPath("names", 1), "last"), serialization_alias="last")


class Titled(BaseModel):
    name: str
    z: int = 0

    @model_validator(mode="before")
    @classmethod
    def take_the_title(cls, data: Any) -> Any:
        return {"name": data["title"], **data} if isinstance(data, dict) and "title" in data else data


class Spelt(Item):
    by_id: dict[UUID, int] = {}
    by_number: dict[int, In] = {}
    old: Old = Old()
    olds: list[Old] = []
    pairs: list[tuple[Old, Old]] | None = None
    both: Both = Both()
    titled: dict[str, Titled] = {}


A, B = UUID(int=0xA), UUID(int=0xB)


@pytest.mark.parametrize(
    ("field", "stored", "edit", "expected"),
    [
        ("by_id", {A.hex.upper(): 1, str(B): 2}, lambda one: one.by_id.pop(A), {str(B): 2}),
        ("by_id", {A.hex.upper(): 1}, lambda one: one.by_id.clear(), {}),
        ("by_id", {A.hex: 1, B.hex: 2}, lambda one: one.by_id.update({A: 3}), {str(A): 3, str(B): 2}),
        ("by_id", {A.hex: 1, str(A): 2}, lambda one: one.by_id.pop(A), {}),
        (
            "by_number",
            {"01": {"x": 1, "theirs": 1}, "2": {"x": 2, "theirs": 2}},
            lambda one: one.by_number.pop(2),
            {"1": {"x": 1, "theirs": 1}},
        ),
        ("old", {"title": "a", "theirs": 1}, lambda one: setattr(one.old, "name", "b"), {"name": "b", "theirs": 1}),
        (
            "old",
            {"title": "a", "theirs": 1},
            lambda one: setattr(one, "old", Old(title="b")),
            {"name": "b", "theirs": 1},
        ),
        (
            "olds",
            [{"title": "a", "theirs": 1}, {"title": "b", "theirs": 2}],
            lambda one: setattr(one.olds[1], "name", "c"),
            [{"name": "a", "theirs": 1}, {"name": "c", "theirs": 2}],
        ),
        (
            "pairs",
            [[{"title": "a", "theirs": 1}, {"title": "b"}]],
            lambda one: setattr(one.pairs[0][1], "name", "c"),
            [[{"name": "a", "theirs": 1}, {"name": "c"}]],
        ),
        (
            "both",
            {"title": "a", "names": ["b", "c"]},
            lambda one: setattr(one.both, "name", "d"),
            {"title": "a", "names": ["b", "c"], "name": "d"},
        ),
        (
            "titled",
            {"k": {"title": "a", "theirs": 1}},
            lambda one: setattr(one.titled["k"], "name", "b"),
            {"k": {"title": "a", "theirs": 1, "name": "b"}},
        ),
    ],
)
def test_j03_a_key_that_the_model_spells_otherwise_is_declared(
    row: Any, field: str, stored: Any, edit: Any, expected: Any
) -> None:
    row(**{field: stored})
    one = Spelt.records.get("x")
    edit(one)
    assert one.is_dirty
    one.save()

    assert Item.records.get("x").data[field] == expected
    assert Spelt.records.get("x") == one and not one.is_dirty


def test_j03_a_key_of_plain_json_that_was_removed_stays_removed(row: Any) -> None:
    class Loose(Item):
        anything: dict[str, Any] = {}

    row(anything={"a": 1, "b": {"c": 2, "d": 3}})
    one = Loose.records.get("x")
    del one.anything["a"], one.anything["b"]["c"]
    one.save()

    assert Item.records.get("x").data["anything"] == {"b": {"d": 3}}


# -- the envelope is out of reach -------------------------------------------------------------------------------------


def starred() -> Any:
    class Starred(Item):
        title: str = ""

        @field_validator("*", mode="before")
        @classmethod
        def shout(cls, value: Any) -> Any:
            return value.upper()

    return Starred


def configured(**settings: Any) -> Any:
    class Configured(Item):
        model_config = ConfigDict(**settings)  # type: ignore[typeddict-item]

        title: str = ""

    return Configured


SETTINGS: dict[str, Any] = {
    "to_camel": {"alias_generator": to_camel},
    "to_pascal": {"alias_generator": to_pascal},
    "a function": {"alias_generator": lambda name: f"_{name}"},
    "str_to_lower": {"str_to_lower": True},
    "str_to_upper": {"str_to_upper": True},
    "str_strip_whitespace": {"str_strip_whitespace": True},
    "str_max_length": {"str_max_length": 3},
    "str_min_length": {"str_min_length": 50},
    "strict": {"strict": True},
    "coerce_numbers_to_str": {"coerce_numbers_to_str": True},
    "validate_default": {"validate_default": True, "str_to_upper": True},
    "validate_assignment": {"validate_assignment": True},
    "frozen": {"frozen": True},
}


@pytest.mark.parametrize("settings", [*SETTINGS, "validator of all"])
def test_j06_no_setting_reaches_the_envelope(kinto_client: Client, todos: Collection[Record], settings: str) -> None:
    model: Any = starred() if settings == "validator of all" else configured(**SETTINGS[settings])
    id, last_modified = (lambda one: (one.id, one.last_modified))(todos.records.create(id="Mixed-Case_1", data={}))

    for way, one in readings(model, id, kinto_client).items():
        assert (one.id, one.last_modified) == (id, last_modified), way
        assert one.__kinto_path__() == todos.records.get(id).__kinto_path__(), way
    assert model.records.bulk_delete(model.records).deleted == 1
    assert not todos.records.exists()


def lower(data: Any) -> Any:
    return {key: value.lower() if isinstance(value, str) else value for key, value in data.items()}


REWRITES: dict[str, Any] = {
    "lower every text": lower,
    "a new dictionary": lambda data: {"title": data.get("title", "")},
    "take the timestamp out": lambda data: {key: value for key, value in data.items() if key != "last_modified"},
    "an id of its own": lambda data: {**data, "id": "hacked", "last_modified": 5},
}


@pytest.mark.parametrize("way", REWRITES)
def test_j06_no_validator_of_the_class_reaches_the_envelope(
    kinto_client: Client, todos: Collection[Record], way: str
) -> None:
    class Rewritten(Item):
        title: str = ""

        @model_validator(mode="before")
        @classmethod
        def rewrite(cls, data: Any) -> Any:
            return REWRITES[way](data)

    stored = todos.records.create(id="Mixed-Case_1", data={"title": "x", "theirs": "K"})
    for read, one in readings(Rewritten, "Mixed-Case_1", kinto_client).items():
        assert (one.id, one.last_modified) == ("Mixed-Case_1", stored.last_modified), read
        assert dict(one.data) == stored.data and not one.is_dirty, read

    assert Rewritten.records.bulk_delete(Rewritten.records).deleted == 1


RETURNED: dict[str, Any] = {
    "nothing": lambda one: None,
    "another object": lambda one: type(one).model_construct(title="other"),
    "an object of another class": lambda one: Renamed.model_construct(name="other"),
}


@pytest.mark.parametrize("returned", RETURNED)
@pytest.mark.parametrize("mode", ["after", "wrap"])
def test_j07_a_validator_that_returns_another_object_is_refused(row: Any, mode: str, returned: str) -> None:
    class Strange(Item):
        title: str = ""

        if mode == "after":

            @model_validator(mode="after")
            def after(self) -> Any:
                return RETURNED[returned](self)

        else:

            @model_validator(mode="wrap")
            @classmethod
            def wrap(cls, data: Any, handler: Any) -> Any:
                return RETURNED[returned](handler(data))

    ways: list[Any] = [lambda: Strange(title="x"), lambda: Strange(id="y", data={"title": "x"})]
    if returned != "another object":  # of its class: a list takes what it is given
        row(title="x")
        ways += [lambda: Strange.records.get("x"), Strange.records.all]

    for way in ways:
        with pytest.raises(InvalidTypeError, match="Strange: a model_validator returned"):
            way()


@pytest.mark.parametrize("settings", ["to_camel", "to_pascal", "str_to_lower"])
def test_j06_objects_are_written_where_they_are(todos: Collection[Record], settings: str) -> None:
    model = configured(**SETTINGS[settings])

    model(id="Mixed-Case_1", title="x").save()
    assert model.records.bulk_create({"id": f"Id{n}"} for n in range(3)).created == 3

    assert {one.id for one in todos.records} == {"Mixed-Case_1", "Id0", "Id1", "Id2"}
    assert [getattr(model, "id") == "a", getattr(model, "last_modified") > 3]  # noqa: B009  # as expressions


def test_j06_the_envelope_is_in_no_dump_and_no_schema() -> None:
    one = Validated.model_validate({"id": "x", "title": "y"})

    assert one.id == "x" and one.model_dump() == {"title": "y", "length": 0}
    assert set(Validated.model_json_schema()["properties"]) == {"title", "length"}
    assert set(Validated.model_fields) == {"title", "length"}


def test_a_cached_property_is_made_again_of_a_new_state(row: Any) -> None:
    class Cached(Item):
        title: str = ""

        @cached_property
        def shouted(self) -> str:
            return self.title.upper()

    one = Cached.records.get(row(title="a"))
    assert one.shouted == "A"
    Item.records.get("x").patch(title="b")

    assert one.refresh().shouted == "B" and not one.is_dirty


def test_a_type_that_is_defined_nowhere_is_named() -> None:
    class Open(Item):
        later: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InvalidTypeError, match="Missing, which is not defined"):
        Open.records.filter(Open.later == 3)  # type: ignore[attr-defined]
    with pytest.raises(InvalidTypeError, match="Missing"):
        Open(later=3)

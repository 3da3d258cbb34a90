"""One value, one spelling: what every way of writing sends (``faults_found.md`` J04 to J25)."""

# ruff: noqa: RUF012  # pydantic copies the defaults of its models

from __future__ import annotations

import copy
import json
import pickle
import pprint
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from lossy import lossy
from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    Secret,
    SecretBytes,
    SecretStr,
    field_serializer,
    field_validator,
)
from wiretap import Wiretap

from kinto_orm import (
    BasicPatch,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConnectionLostError,
    DuplicateKeyError,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    MergeConflict,
    MergePatch,
    PartialObjectError,
    ReadOnlyError,
    Record,
    UnsavedChangesError,
    UsageError,
)
from kinto_orm.server import EmbeddedServer

REFUSED = (InvalidValueError, CommitError)
"""A bulk verb refuses each item alone, and says so at its end."""


class Item(Record, bucket="payments", collection="todos"):
    """What all the models here have in common: where they are."""


def writes(wire: Wiretap) -> int:
    return len([one for one in wire.requests if one.method != "GET"])


def raw(id: str = "x") -> dict[str, Any]:
    """Return the data as the server has it."""
    return dict(Item.records.get(id).data)


def theirs(data: dict[str, Any], id: str = "x") -> None:
    """Write as another program does."""
    Item(id=id, data=data).replace(safe=False)


# -- J04: secrets -----------------------------------------------------------------------------------------------------


class Inner(BaseModel):
    key: SecretStr


class Safe(Item):
    token: SecretStr
    raw: SecretBytes = SecretBytes(b"r4w-s3cret")
    day: Secret[date] | None = None
    inner: Inner | None = None
    many: list[Inner] = []
    note: str = ""


def safe() -> Safe:
    return Safe(
        id="x",
        token=SecretStr("t0p-s3cret"),
        day=Secret(date(2031, 5, 7)),
        inner=Inner(key=SecretStr("1nner-s3cret")),
        many=[Inner(key=SecretStr("l1st-s3cret"))],
    )


SECRETS = ("t0p-s3cret", "r4w-s3cret", "2031-05-07", "1nner-s3cret", "l1st-s3cret")
STORED = {
    "token": "t0p-s3cret",
    "raw": "r4w-s3cret",
    "day": "2031-05-07",
    "inner": {"key": "1nner-s3cret"},
    "many": [{"key": "l1st-s3cret"}],
    "note": "",
}


def test_j04_a_secret_is_stored_and_compared_by_its_value(wire: Wiretap) -> None:
    one = safe().save()

    assert raw() == STORED and not one.is_dirty
    again = Safe.records.get("x")
    assert again.token.get_secret_value() == "t0p-s3cret" and again.many[0].key.get_secret_value() == "l1st-s3cret"
    again.note = "edited"
    again.save()
    assert raw() == {**STORED, "note": "edited"}
    again.token = SecretStr("0ther")
    assert again.is_dirty
    again.save()
    assert wire.bodies[-1] == {"data": {"token": "0ther"}}


def test_j04_secrets_are_masked_wherever_people_look(
    kinto_client: Client, wire: Wiretap, caplog: pytest.LogCaptureFixture
) -> None:
    one = safe()
    with kinto_client.unit_of_work() as uow:
        one.save()
        seen = [
            str(uow.plan()),
            repr(uow.plan()),
            json.dumps(uow.plan().as_json()),
            repr(one),
            str(one),
            repr(one.data),
        ]
        assert "**********" in seen[0] and one.data["token"] == "t0p-s3cret"
    with kinto_client.clone(dry_mode=True) as dry:
        Safe.records.get("x").patch(token=SecretStr("t0p-s3cret"))
        Safe.records.get("x").patch(JSONPatch([{"op": "replace", "path": "/data/token", "value": "t0p-s3cret"}]))
        seen += [str(dry.plan()), json.dumps(dry.plan().as_json())]
    for refused in ({"token": ["t0p-s3cret"]}, {"many": [{"key": {"t0p-s3cret": 1}}]}):
        with pytest.raises(InvalidValueError) as error:
            Safe(id="y", **refused)
        seen += [str(error.value), repr(error.value), str(error.value.__cause__)]

    assert not [(secret, text) for text in [*seen, caplog.text] for secret in SECRETS if secret in text]


def test_j04_secrets_are_masked_in_plans_and_reports_of_many_records(kinto_client: Client, wire: Wiretap) -> None:
    safe().save()
    new = {"token": "0ther", "raw": "0ther", "inner": {"key": "0ther"}, "many": [{"key": "0ther"}], "note": "shown"}
    records = Safe.records
    plans = [records.plan([{"id": "x", **new}]), records.plan([new], key="token"), records.diff([new], key="token")]
    seen = [text for plan in plans for text in (str(plan), repr(list(plan)))]

    assert 'token: "**********" -> "**********"' in seen[0] and '"shown"' in seen[0]
    with pytest.raises(DuplicateKeyError) as repeated:
        records.plan([new, new], key="token")
    Safe(id="y", token=SecretStr("t0p-s3cret")).save()
    with pytest.raises(DuplicateKeyError) as stored:
        records.plan([new], key="token")
    seen += [str(repeated.value), str(stored.value)]
    for refused in (
        lambda: records.bulk_create(new),
        lambda: records.update(MergePatch(new)),
        lambda: records.bulk_update([{"id": "x", **new}]),
        lambda: records.bulk_create([{**new, "token": ["0ther"]}]),
    ):
        with pytest.raises((InvalidTypeError, CommitError)) as error:
            refused()
        seen += [str(error.value), repr(getattr(error.value, "report", None))]

    assert not [(secret, text) for text in seen for secret in (*SECRETS, "0ther") if secret in text]


def test_j04_a_key_of_another_collection_is_no_secret(kinto_client: Client, wire: Wiretap) -> None:
    safe().save()
    others = kinto_client.bucket("payments").collection("others").replace(safe=False)
    with kinto_client.unit_of_work() as uow:
        Record(collection=others, data={"token": "shown", "password": "shown, too"}).save()
        seen = str(uow.plan())

    assert "'token': 'shown'" in seen and "shown, too" in seen


def test_j04_data_and_dictionaries_hold_the_value(wire: Wiretap) -> None:
    one = safe().save()

    assert one.to_dict() == {"id": "x", "last_modified": one.last_modified, **STORED}
    assert dict(one.data) == STORED
    assert Safe.records.to_arrow().column("token").to_pylist() == ["t0p-s3cret"]


# -- J05, J14, J25: what would come back as something else -------------------------------------------------------------


class Pair(Enum):
    A = (1, 2)


class Base(BaseModel):
    a: int = 0


class Derived(Base):
    b: int = 1


class Odd(Item):
    shouted: str = "a"
    pair: Pair | None = None
    blob: bytes = b""
    when: date | str = ""
    pattern: re.Pattern[str] | None = None
    base: Base = Base()
    short: list[int] = Field(default=[], max_length=2)
    hidden: int = Field(default=0, exclude_if=lambda value: value > 5)
    clock: time = time()
    anything: Any = None
    twice: int = 0
    keyed: dict[str | None, int] = {}

    @field_validator("twice", mode="before")
    @classmethod
    def double(cls, value: int) -> int:
        return value * 2 if value else value

    @field_serializer("shouted")
    def shout(self, value: str) -> str:
        return value if value == "a" else f"{value}!"


ODD: dict[str, Any] = {
    "own serializer": ("shouted", "b"),
    "enum of tuples": ("pair", Pair.A),
    "bytes that are no text": ("blob", b"\xff\xfe"),
    "text that is a date": ("when", "2030-01-02"),
    "flags of a pattern": ("pattern", re.compile("a", re.IGNORECASE)),
    "an object of a subclass": ("base", Derived()),
    "left out": ("hidden", 6),
    "an offset with seconds": ("clock", time(1, tzinfo=timezone(timedelta(hours=1, seconds=21)))),
    "validator that changes": ("twice", 3),
    "a key that is None": ("keyed", {None: 1}),
    "keys that are one text": ("keyed", {None: 1, "None": 2}),
}


@pytest.mark.parametrize("write", ["save", "new", "unit", "bulk_update", "bulk_create"])
@pytest.mark.parametrize("kind", ODD)
def test_j05_what_would_not_come_back_equal_is_refused(
    kinto_client: Client, wire: Wiretap, kind: str, write: str
) -> None:
    name, value = ODD[kind]
    Odd(id="x").save()
    wire.requests.clear()
    one = Odd(id="y", **{name: value}) if write in ("new", "bulk_create") else Odd.records.get("x")
    sent = writes(wire)

    def run() -> None:
        if write in ("save", "unit", "bulk_update"):
            setattr(one, name, value)
        if write == "unit":
            with kinto_client.unit_of_work():
                one.save()
        else:
            one.save() if write in ("save", "new") else getattr(Odd.records, write)([one])

    with pytest.raises(REFUSED, match=name):
        run()

    assert writes(wire) == sent


@dataclass
class Dated:
    at: datetime


class Timed(Item):
    at: datetime | None = None
    step: Dated | None = None
    many: list[datetime] = []
    line: deque[datetime] = deque()
    some: set[datetime] = set()
    keys: dict[datetime, int] = {}
    secret: Secret[Dated] | None = None
    secrets: list[Secret[list[datetime]]] = []


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize(
    "given",
    [
        *({"at": NAIVE}, {"at": "2030-01-01T00:00:00"}, {"step": Dated(NAIVE)}, {"many": [NAIVE]}),
        *({"line": deque([NAIVE])}, {"some": {NAIVE}}, {"keys": {NAIVE: 1}}),
        *({"secret": Secret(Dated(NAIVE))}, {"secrets": [Secret([NAIVE])]}),
    ],
    ids=str,
)
def test_a_datetime_without_timezone_is_refused_wherever_it_is(wire: Wiretap, given: dict[str, Any]) -> None:
    stored, (name, value) = Timed(id="x").save(), *given.items()
    sent = writes(wire)
    ways: list[Callable[[], Any]] = [
        lambda: Timed(**given).save(),
        lambda: (setattr(stored, name, value), stored.save()),
        lambda: Timed.records.get("x").patch(given),
        lambda: Timed.records.ref("x").patch(given),
        lambda: Timed.records.update(given),
        lambda: Timed.records.update(lambda one: given),
        lambda: Timed.records.update_or_create("x", given),
        lambda: Timed.records.get_or_create("y", given),
    ]

    for write in ways:
        with pytest.raises(InvalidValueError, match=f"data.{name}.*has no timezone") as caught:
            write()
        assert "secret" not in name or "2030" not in str(caught.value)

    assert writes(wire) == sent


class Keeper(Item):
    codes: Secret[list[int]] | None = None


def test_the_value_of_a_secret_is_saved_when_it_was_edited_in_place(wire: Wiretap) -> None:
    one = Keeper(id="x", codes=Secret([1])).save()

    assert one.codes is not None
    one.codes.get_secret_value().append(2)
    one.save()

    assert Keeper.records.get("x").codes == Secret([1, 2])


class Holder(Item):
    inner: Timed | None = None
    many: list[Timed] = []


@pytest.mark.parametrize(
    "given",
    [
        {"inner": Timed(id="lost")},
        {"many": [Timed(), Timed(id="lost")]},
        {"inner": Timed(data={"undeclared": "lost"})},
    ],
    ids=["id", "id in a list", "undeclared key"],
)
def test_j05_a_record_in_a_field_keeps_all_that_it_has_or_is_refused(wire: Wiretap, given: dict[str, Any]) -> None:
    Holder(id="x", inner=Timed(data={"many": []})).save()
    sent = writes(wire)

    for write in (Holder(**given).save, lambda: Holder.records.get("x").patch(given)):
        with pytest.raises(InvalidValueError, match="would not come back equal"):
            write()

    assert writes(wire) == sent


class Hiding(Item):
    """Its one field is of a plain type, so that its text alone seems to tell all."""

    hidden: int = Field(default=0, exclude_if=lambda value: value > 5)


def test_j05_a_value_that_is_left_out_is_refused_in_a_new_record(wire: Wiretap) -> None:
    sent = writes(wire)

    for write in (Hiding(id="x", hidden=6).save, lambda: Hiding.records.bulk_create([Hiding(id="x", hidden=6)])):
        with pytest.raises(REFUSED, match="hidden"):
            write()

    assert writes(wire) == sent


class Titled(Item):
    title: str = ""


def test_a_lone_surrogate_in_a_field_is_refused_by_its_name(wire: Wiretap) -> None:
    stored = Titled(id="x").save()
    stored.title = "\ud800"
    sent = writes(wire)

    for write in (
        stored.save,
        Titled(id="y", title="\ud800").save,
        lambda: Titled.records.bulk_create([Titled(id="y", title="\ud800")]),
    ):
        with pytest.raises(REFUSED, match=r"data\.title: text with a lone surrogate"):
            write()

    assert writes(wire) == sent


@pytest.mark.parametrize("name", ["pattern", "anything"])
@pytest.mark.parametrize(
    "write",
    [
        lambda given: Odd.records.bulk_create([{"id": "y", **given}]),
        lambda given: Odd.records.get_or_create("y", given),
        lambda given: Odd.records.get("x").patch(given),
        lambda given: Odd.records.update(given),
    ],
    ids=["bulk_create", "get_or_create", "patch", "update"],
)
def test_j05_what_would_not_come_back_equal_is_refused_in_dictionaries(wire: Wiretap, name: str, write: Any) -> None:
    Odd(id="x").save()
    sent = writes(wire)

    with pytest.raises(REFUSED, match=name):
        write({name: re.compile("a", re.IGNORECASE) if name == "pattern" else {"set": {1}}})
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(REFUSED, match=name):
        write({name: cycle})

    assert writes(wire) == sent


def test_j25_what_comes_back_equal_is_written(wire: Wiretap) -> None:
    values: dict[str, Any] = {
        "when": date(2030, 1, 2),
        "pattern": re.compile("a"),
        "base": Base(a=3),
        "short": [1, 2],
        "hidden": 5,
        "clock": time(1, tzinfo=timezone(timedelta(hours=1))),
    }
    one = Odd(id="x", **values).save()

    again = Odd.records.get("x")
    assert {name: getattr(again, name) for name in values} == values
    assert not one.is_dirty and not again.is_dirty


def test_j14_a_list_that_was_made_too_long_in_place_is_refused(wire: Wiretap) -> None:
    one = Odd(id="x", short=[1, 2]).save()
    one.short.append(3)
    sent = writes(wire)

    for write in (one.save, one.replace, lambda: Odd.records.bulk_update([one])):
        with pytest.raises(REFUSED, match="short"):
            write()

    assert writes(wire) == sent


# -- J09: one spelling ------------------------------------------------------------------------------------------------

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
EPOCH = 1893456000


class Spelt(Item):
    at: datetime = MOMENT
    day: datetime = MOMENT
    payload: Json[list[int]] = Field(default_factory=list)
    blob: Base64Bytes = b"hi"

    @field_serializer("at")
    def as_seconds(self, value: datetime) -> int:
        return int(value.timestamp())


WRITES: dict[str, Any] = {
    "save": lambda: Spelt(id="x", at=MOMENT).save(),
    "assigned": lambda: _assigned(at=MOMENT),
    "replace": lambda: Spelt(id="x", at=MOMENT).replace(),
    "patch": lambda: Spelt(id="x", at=MOMENT - timedelta(1)).save().patch(at=MOMENT),
    "patch of text": lambda: Spelt(id="x", at=MOMENT - timedelta(1)).save().patch({"at": "2030-01-01T00:00:00Z"}),
    "update": lambda: (Spelt(id="x", at=MOMENT - timedelta(1)).save(), Spelt.records.update(at=MOMENT)),
    "update by a function": lambda: (
        Spelt(id="x", at=MOMENT - timedelta(1)).save(),
        Spelt.records.update(lambda one: {"at": one.at + timedelta(1)}),
    ),
    "data": lambda: _by_key("at", "2030-01-01T01:00:00+01:00"),
    "bulk of objects": lambda: Spelt.records.bulk_create([Spelt(id="x", at=MOMENT)]),
    "bulk of dictionaries": lambda: Spelt.records.bulk_create([{"id": "x", "at": MOMENT}]),
    "get_or_create": lambda: Spelt.records.get_or_create("x", {"at": MOMENT}),
    "update_or_create": lambda: Spelt.records.update_or_create("x", {"at": MOMENT}),
    "create": lambda: Spelt.records.create(id="x", at=MOMENT),
    "another time zone": lambda: Spelt(id="x", at=MOMENT.astimezone(timezone(timedelta(hours=5)))).save(),
}


def _assigned(**values: Any) -> None:
    one = Spelt(id="x", at=MOMENT - timedelta(1)).save()
    for name, value in values.items():
        setattr(one, name, value)
    one.save()


def _by_key(key: str, value: Any) -> None:
    one = Spelt(id="x", at=MOMENT - timedelta(1)).save()
    one.data[key] = value
    one.save()


@pytest.mark.parametrize("write", WRITES)
def test_j09_every_way_of_writing_spells_a_value_alike(wire: Wiretap, write: str) -> None:
    WRITES[write]()

    assert raw()["at"] == EPOCH
    assert raw()["day"] == "2030-01-01T00:00:00.000000Z"
    assert Spelt.records.filter(Spelt.at == MOMENT).count() == 1
    assert Spelt.records.filter(at=MOMENT).count() == 1
    assert Spelt.records.filter(Spelt.blob == b"hi").count() == 1
    assert not Spelt.records.get("x").is_dirty


def test_j09_merges_and_frames_spell_alike(wire: Wiretap) -> None:
    one = Spelt(id="x", at=MOMENT).save()
    theirs({**raw(), "day": "2031-01-01T00:00:00Z"})
    one.at += timedelta(1)
    one.save(on_conflict="merge")

    assert (raw()["at"], one.day.year) == (EPOCH + 86400, 2031)
    assert Spelt.records.only("at").to_arrow().column("at").to_pylist() == [EPOCH + 86400]


# -- J10, J23: sets ---------------------------------------------------------------------------------------------------


class Labelled(Item):
    labels: set[int] = set()
    words: frozenset[str] = frozenset()
    note: str = ""


def test_j10_sets_have_one_order_and_are_compared_as_sets(wire: Wiretap) -> None:
    theirs({"labels": [8, 0], "words": ["b", "a"]})
    one = Labelled.records.get("x")

    assert not one.is_dirty and not Labelled.records.all()[0].is_dirty
    one.labels = {0, 8}
    assert not one.is_dirty
    one.labels.add(4)
    one.save()
    assert wire.bodies[-1] == {"data": {"labels": [0, 4, 8]}}
    assert Labelled.records.filter(Labelled.labels == {8, 4, 0}).count() == 1


def test_j10_both_sides_may_add_the_same_element(wire: Wiretap) -> None:
    one = Labelled(id="x", labels={1}, words=frozenset("a")).save()
    theirs({**raw(), "labels": [9, 1]})
    one.labels.add(9)
    one.note = "mine"

    one.save(on_conflict="merge")

    assert raw()["note"] == "mine" and set(raw()["labels"]) == {1, 9}


class Deep(BaseModel):
    labels: set[int] = set()
    lists: list[set[int]] = []
    below: Deep | None = None


class DeepSets(Item):
    one: Deep = Deep()
    by_key: dict[str, set[int]] = {}
    either: list[int] | set[int] = Field(default=[], union_mode="left_to_right")
    spelt: set[int] = set()

    @field_serializer("spelt")
    def as_text(self, value: set[int]) -> str:
        return ",".join(map(str, sorted(value)))

    @field_validator("spelt", mode="before")
    @classmethod
    def of_text(cls, value: Any) -> Any:
        return set(filter(None, value.split(","))) if isinstance(value, str) else value


def test_j10_sets_inside_of_models_and_mappings_are_merged_as_sets(wire: Wiretap) -> None:
    one = DeepSets(id="x", one=Deep(labels={1}, below=Deep(labels={2})), by_key={"a": {3}}).save()
    other = DeepSets.records.get("x")
    for model, more in ((one, 7), (other, 8)):
        model.one.labels.add(more)
        assert model.one.below is not None
        model.one.below.labels.add(more)
        model.by_key["a"].add(more)
    other.save()

    one.save(on_conflict="merge")

    assert one.one == Deep(labels={1, 7, 8}, below=Deep(labels={2, 7, 8})) and one.by_key == {"a": {3, 7, 8}}


@pytest.mark.parametrize(
    ("name", "mine", "others"),
    [("one", Deep(lists=[{1}]), Deep(lists=[{2}])), ("either", [1, 1], [2, 2]), ("spelt", {1}, {2})],
)
def test_j10_what_is_not_surely_a_set_on_the_wire_conflicts(wire: Wiretap, name: str, mine: Any, others: Any) -> None:
    one = DeepSets(id="x").save()
    DeepSets.records.get("x").patch({name: others})
    setattr(one, name, mine)

    with pytest.raises(MergeConflict, match=name):
        one.save(on_conflict="merge")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), copy.copy])
def test_j23_a_copy_of_an_untouched_object_is_clean(wire: Wiretap, duplicate: Any) -> None:
    theirs({"labels": [8, 0, 33, 1], "words": ["zz", "b", "a"]})

    for one in (Labelled.records.get("x"), Labelled.records.all()[0]):
        assert not duplicate(one).is_dirty


# -- J11, J12: names of fields ----------------------------------------------------------------------------------------


class Aliased(Item):
    due: str = Field("", validation_alias="dueDate", serialization_alias="dueDate")
    priority: int = 0


ALIASED: dict[str, Any] = {
    "patch": lambda: Aliased(id="x").save().patch(due="2"),
    "patch of a mapping": lambda: Aliased(id="x").save().patch({"due": "2"}),
    "update": lambda: (Aliased(id="x").save(), Aliased.records.update(due="2")),
    "get_or_create": lambda: Aliased.records.get_or_create("x", {"due": "2"}),
    "update_or_create": lambda: (Aliased(id="x").save(), Aliased.records.update_or_create("x", {"due": "2"})),
    "bulk_create": lambda: Aliased.records.bulk_create([{"id": "x", "due": "2"}]),
    "constructor": lambda: Aliased(id="x", due="2").save(),
    "filter": lambda: Aliased(id="x", due="2").save() and Aliased.records.filter(due="2").one(),
}


@pytest.mark.parametrize("way", ALIASED)
def test_j11_a_field_is_named_by_its_name_wherever_fields_are_meant(wire: Wiretap, way: str) -> None:
    ALIASED[way]()

    assert raw()["dueDate"] == "2" and "due" not in raw()


@pytest.mark.parametrize(
    "way",
    [
        lambda: Aliased(id="x").save().patch(priorty=6),
        lambda: (Aliased(id="x").save(), Aliased.records.update(priorty=6)),
        lambda: Aliased.records.get_or_create("x", {"priorty": 6}),
        lambda: Aliased.records.bulk_create([{"priorty": 6}]),
    ],
)
def test_j11_an_unknown_key_is_refused_with_the_near_name(wire: Wiretap, way: Any) -> None:
    with pytest.raises(REFUSED, match=r"priorty.*did you mean 'priority'\? Undeclared"):
        way()


def test_j11_an_open_model_takes_any_key(wire: Wiretap) -> None:
    class Open(Item):
        model_config = ConfigDict(extra="allow")

        due: str = ""

    one: Any = Open(id="x", due="1", other={"n": 1}).save()
    one.patch(more=2)
    one.third = 3
    one.save()

    assert raw() == {"due": "1", "other": {"n": 1}, "more": 2, "third": 3}
    assert (one.other, one.more, Open.records.get("x").third) == ({"n": 1}, 2, 3)  # type: ignore[attr-defined]


def test_j12_what_the_function_of_update_returns_is_applied(wire: Wiretap) -> None:
    Aliased(id="x", priority=1).save()

    report = Aliased.records.update(lambda one: {"priority": one.priority + 1, "due": "now"})

    assert report.updated == 1 and raw() == {"dueDate": "now", "priority": 2}


def test_j12_a_copy_that_the_function_of_update_returns_is_refused(wire: Wiretap) -> None:
    Aliased(id="x", priority=1).save()

    with pytest.raises(InvalidTypeError, match="returned another object"):
        Aliased.records.update(lambda one: one.model_copy(update={"priority": 5}))

    assert raw() == {"dueDate": "", "priority": 1}
    assert Aliased.records.update(lambda one: one).unchanged == 1


# -- J13, J22: copies -------------------------------------------------------------------------------------------------


def test_j13_a_copy_to_another_id_is_a_new_object(wire: Wiretap) -> None:
    one = Labelled(id="a", labels={1}, note="n").save()
    other = one.model_copy(update={"id": "b", "note": "m"})

    assert other.is_new and other.save().id == "b"
    assert raw("b") == {**raw("a"), "note": "m"}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: one.model_copy()])
@pytest.mark.parametrize("model", [Record, Labelled])
def test_j13_copies_are_independent(todos: Collection[Record], model: Any, duplicate: Any) -> None:
    todos.records.create(id="x", data={"labels": [1], "nested": {"list": [1]}})
    one = (
        (todos if model is Record else Item.records.get("x").collection).records.get("x")
        if model is Record
        else model.records.get("x")
    )
    other = duplicate(one)

    other.data["nested"]["list"].append(2)
    if model is Labelled:
        other.labels.add(2)

    assert other.is_dirty and not one.is_dirty


def test_j22_a_write_in_doubt_is_not_forgotten_by_a_pickle(kinto_server: EmbeddedServer) -> None:
    client, adapter = lossy(kinto_server, retry=0)
    with client:
        client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))
        one = Item(id="x", data={"n": 1}, client=client)
        adapter.plan.append("lost after")
        with pytest.raises(ConnectionLostError):
            one.save()
        with pytest.raises(UsageError, match="pickle"):
            pickle.dumps(one)
        one.save()
        assert pickle.loads(pickle.dumps(one)) == one
    client.close()


# -- J15, J16, J19, J20 -----------------------------------------------------------------------------------------------


class Made(Item):
    x: int
    z: int = Field(default_factory=lambda data: data["x"] + 1)


def test_j15_conditions_run_no_defaults(wire: Wiretap) -> None:
    Made(id="x", x=2).save()

    assert Made.records.filter(Made.z == 3).count() == 1


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/data/last_modified", "value": 9},
        {"op": "add", "path": "/data/id", "value": "y"},
        {"op": "remove", "path": "/data/id"},
        {"op": "move", "from": "/data/last_modified", "path": "/data/n"},
        {"op": "add", "path": "/other", "value": 1},
        {"op": "add", "path": "", "value": {}},
        {"op": "add", "path": "data/n", "value": 1},
    ],
)
def test_j16_a_json_patch_of_what_the_server_sets_is_refused(wire: Wiretap, operation: dict[str, Any]) -> None:
    one = Item(id="x", data={"n": 1}).save()
    sent = writes(wire)

    with pytest.raises(InvalidValueError, match="JSON-Patch"):
        one.patch(JSONPatch([operation]))

    assert writes(wire) == sent


def test_j19_one_function_says_what_is_equal() -> None:
    def of(value: Any) -> Record:
        return Record(id="x", bucket="b", collection="c", data={"v": value})

    assert of(1) != of(True) and of([1]) != of([True]) and of({"a": 0}) != of({"a": False})
    assert of(1) == of(1.0) and of({"a": 1, "b": 2}) == of({"b": 2, "a": 1})


def test_j20_only_the_leaf_that_changed_is_sent(kinto_client: Client, wire: Wiretap) -> None:
    nested = {"a": {"big": ["x" * 100] * 50, "leaf": 1, "gone": 2}}
    one = Item(id="x", data=nested).save()
    one.data["a"]["leaf"] = 2
    del one.data["a"]["gone"]
    one.save()

    assert wire.bodies[-1] == {"data": {"a": {"leaf": 2, "gone": None}}}
    assert raw() == {"a": {"big": ["x" * 100] * 50, "leaf": 2}}
    one.data["a"]["leaf"] = 3
    with kinto_client.unit_of_work():
        one.save()
    assert raw()["a"]["leaf"] == 3


# -- J18: the data as a dictionary ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Item, Labelled])
def test_j18_data_does_what_a_dictionary_does(wire: Wiretap, model: Any) -> None:
    theirs({"note": "n", "labels": [1]})
    for one in (model.records.get("x"), model.records.all()[0]):
        assert one.data | {"more": 1} == {"note": "n", "labels": [1], "more": 1}
        assert {"more": 1} | one.data == {"more": 1, "note": "n", "labels": [1]}
        assert one.data == one.data and one.data.copy() == one.data and "note" in one.data and "x" not in one.data
        one.data |= {"note": "m"}
        assert one.is_dirty and one.data["note"] == "m"
        assert json.loads(json.dumps(one.to_dict()))["id"] == "x"


@pytest.mark.parametrize("read", [lambda: Item.records.get("x"), lambda: Item.records.all()[0]], ids=["get", "list"])
def test_j18_data_of_a_plain_record_is_a_dictionary(wire: Wiretap, read: Callable[[], Item]) -> None:
    stored = {"n": 1, "deep": {"list": [1]}}
    theirs(stored)
    one = read()
    data: dict[str, Any] = one.data  # type: ignore[assignment]  # a mapping for typed records

    assert type(data) is dict and data == stored and json.loads(json.dumps(data)) == stored
    for copied in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data)), data | {}):
        assert copied == data and copied is not data
    assert pprint.pformat(data) == pprint.pformat(stored)
    assert one.data is data and not one.is_dirty


@pytest.mark.parametrize("read", [lambda: Item.records.get("x"), lambda: Item.records.all()[0]], ids=["get", "list"])
def test_j18_whatever_changes_the_dictionary_changes_the_record(wire: Wiretap, read: Callable[[], Item]) -> None:
    theirs({"n": 1, "deep": {"list": [1]}})
    one = read()
    data = one.data
    data["deep"]["list"].append(MOMENT)
    assert one.is_dirty
    one.save()

    assert raw() == data == {"n": 1, "deep": {"list": [1, "2030-01-01T00:00:00.000000Z"]}}
    assert one.data is data and not one.is_dirty
    theirs({"n": 2})
    assert one.refresh().data is data and data == {"n": 2}
    one.data = {"m": 3}
    assert data == {"m": 3} and one.save().data is data


def test_j18_what_was_staged_stays_as_it_was(kinto_client: Client, wire: Wiretap) -> None:
    with kinto_client.unit_of_work():
        one = Item(id="x", data={"at": [MOMENT]}).save()
        one.data["at"].append(1)

    assert raw() == {"at": ["2030-01-01T00:00:00.000000Z"]}
    assert one.is_dirty and one.data == {"at": ["2030-01-01T00:00:00.000000Z", 1]}


@pytest.mark.parametrize(
    "edit",
    [{5: 1}, {"id": "y"}, {"last_modified": 4}, {"n": object()}, {"n": {1}}, {"m": float("nan")}, {"m": "\ud800"}],
)
def test_j18_what_cannot_be_sent_is_refused_when_the_record_is_saved(
    kinto_client: Client, wire: Wiretap, edit: dict[Any, Any]
) -> None:
    theirs({"n": 1})
    ones = [Item.records.get("x"), Item.records.all()[0], Item(id="y", data={"n": 1})]
    sent = writes(wire)

    for one in ones:
        bulk = Item.records.bulk_create if one.is_new else Item.records.bulk_update
        one.data.update(edit)
        for write in (one.save, one.replace, lambda bulk=bulk, one=one: bulk([one])):
            with pytest.raises((*REFUSED, ReadOnlyError), match="|".join(map(str, edit))):
                write()

    assert writes(wire) == sent


def test_j18_the_dictionary_of_a_frozen_or_partial_record_is_not_saved(wire: Wiretap) -> None:
    class Frozen(Item):
        model_config = ConfigDict(frozen=True)

    theirs({"n": 1})
    frozen, partial = Frozen.records.get("x"), Item.records.only("n").all()[0]
    frozen.data["n"] = partial.data["n"] = 2

    with pytest.raises(ReadOnlyError, match="frozen"):
        frozen.save()
    with pytest.raises(PartialObjectError):
        partial.save()
    for one in (frozen, partial):
        with pytest.raises(UnsavedChangesError):
            one.refresh()


def test_a_frozen_model_is_changed_by_nothing(wire: Wiretap) -> None:
    class Frozen(Item):
        model_config = ConfigDict(frozen=True)

        note: str = ""

    one = Frozen(id="x", note="a").save()
    for edit in (
        lambda: setattr(one, "note", "b"),
        lambda: one.data.update(note="b"),
        lambda: one.data.pop("note"),
        lambda: setattr(one, "data", {}),
        lambda: one.patch(note="b"),
        lambda: Frozen.records.ref("x").patch(note="b"),
        lambda: one.patch(MergePatch({"other": "b"})),
        lambda: one.patch(JSONPatch([{"op": "remove", "path": "/data/note"}])),
    ):
        with pytest.raises(ReadOnlyError, match="frozen"):
            edit()
    one.patch(BasicPatch(permissions={"read": ["system.Everyone"]}))
    one.patch(JSONPatch([{"op": "test", "path": "/data/note", "value": "a"}]))
    assert raw() == {"note": "a"} and not one.is_dirty


def test_a_frozen_field_is_changed_by_nothing(wire: Wiretap) -> None:
    class Coin(Item):
        value: int = Field(default=1, frozen=True, alias="worth")
        note: str = ""

    coin = Coin(id="x", worth=2).save()
    for edit in (
        lambda: setattr(coin, "value", 3),
        lambda: coin.data.update(worth=3),
        lambda: coin.data.pop("worth"),
        lambda: setattr(coin, "data", {"worth": 3}),
        lambda: coin.patch(value=3),
        lambda: Coin.records.ref("x").patch(worth=3),
        lambda: coin.patch(MergePatch({"worth": None})),
        lambda: coin.patch(JSONPatch([{"op": "move", "from": "/data/worth", "path": "/data/other"}])),
        lambda: Coin.records.update(value=3),
    ):
        with pytest.raises(InvalidValueError, match="frozen"):
            edit()
    coin.patch(JSONPatch([{"op": "copy", "from": "/data/worth", "path": "/data/other"}]))
    coin.data = {"worth": 2, "note": "b"}
    coin.save()
    assert raw() == {"worth": 2, "note": "b"}


class Whole(Item):
    """All of it is written in the quick way."""

    model_config = ConfigDict(frozen=True)

    note: str = ""
    tags: list[str] = []


class Holding(Whole):
    day: date | str | None = None
    inner: Inner | None = None


@pytest.mark.parametrize("model", [Whole, Holding])
def test_a_copy_of_a_frozen_object_may_be_changed_and_saved(wire: Wiretap, model: Any) -> None:
    Item(id="x", data={"note": "a", "tags": ["1"], "theirs": 1}).save()
    one = model.records.get("x")
    other = one.model_copy(update={"note": "b"})
    assert (one.note, one.is_dirty, other.note, other.is_dirty) == ("a", False, "b", True)
    other.save()
    assert raw() == {"note": "b", "tags": ["1"], "theirs": 1} and not other.is_dirty
    other.model_copy(update={"id": "y", "tags": ["2"]}).save()
    assert dict(Item.records.get("y").data) == {"note": "b", "tags": ["2"], "theirs": 1}

    with pytest.raises(InvalidValueError, match="note"):
        other.model_copy(update={"note": 5})
    other.tags.append("3")
    with pytest.raises(ReadOnlyError, match="frozen"):
        other.save()


def test_a_decimal_keeps_its_digits(wire: Wiretap) -> None:
    class Priced(Item):
        price: Decimal = Decimal(0)

    Priced(id="x", price=Decimal("1.50")).save()

    assert raw() == {"price": "1.50"} and str(Priced.records.get("x").price) == "1.50"


def test_both_sides_that_change_one_field_differently_conflict(wire: Wiretap) -> None:
    one = Labelled(id="x", note="a").save()
    theirs({**raw(), "note": "b"})
    one.note = "c"

    with pytest.raises(MergeConflict):
        one.save(on_conflict="merge")


def test_j17_a_patch_in_a_unit_leaves_no_other_edit_behind(kinto_client: Client, wire: Wiretap) -> None:
    Item(id="x", data={"m": 0, "n": 0}).save()
    with kinto_client.unit_of_work() as uow:
        one = uow.get(Item, "x")
        one.data["n"] = 2
        one.patch(m=1)

    assert [outcome.status for outcome in uow.outcomes] == ["updated"] and raw() == {"m": 1, "n": 2}
    assert not one.is_dirty

"""``record.data``: the live mapping."""

# ruff: noqa: RUF012  # pydantic copies the defaults of its models

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, Field
from wiretap import tap

from kinto_orm import Client, Collection, InvalidTypeError, InvalidValueError, ReadOnlyError, Record
from kinto_orm.protocol.messages import Request


class Address(BaseModel):
    city: str


class Person(Record, bucket="payments", collection="todos"):
    name: str
    age: int = 0
    address: Address | None = None
    nicknames: list[str] = []
    langs: set[str] = set()
    born: str | None = Field(default=None, validation_alias="bornIn", serialization_alias="bornIn")


@pytest.fixture
def person(todos: Collection) -> Person:
    """Loaded, with a key that its model does not declare."""
    data = {"name": "Ann", "age": 3, "address": {"city": "Bonn"}, "nicknames": ["A"], "eyes": {"left": "blue"}}
    Record(collection=todos, id="ann", data=data).save()
    return Person.records.get("ann")


def test_it_is_a_mapping_in_the_server_s_order(person: Person, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--kinto-postgres"):
        pytest.skip("PostgreSQL's jsonb has an order of its own")

    assert list(person.data) == ["name", "age", "address", "nicknames", "eyes"]
    assert len(person.data) == 5 and "eyes" in person.data and "born" not in person.data
    assert "'city': 'Bonn'" in repr(person.data)


def test_a_declared_key_sets_the_field(person: Person) -> None:
    person.data["age"] = "4"

    assert person.age == 4 and person.data["age"] == 4


def test_a_field_sets_the_key(person: Person) -> None:
    person.born = "Bonn"

    assert person.data["bornIn"] == "Bonn"


def test_a_declared_key_goes_by_its_wire_name(person: Person) -> None:
    person.data["bornIn"] = "Bonn"
    person.data["born"] = "undeclared"

    assert person.born == "Bonn"
    assert person.data["born"] == "undeclared"


def test_a_value_that_does_not_fit_is_refused(person: Person) -> None:
    with pytest.raises(InvalidValueError, match="age"):
        person.data["age"] = "old"

    assert person.age == 3 and not person.is_dirty


def test_a_declared_key_takes_what_its_field_takes(person: Person) -> None:
    person.data["langs"] = {"de"}
    person.data["address"] = Address(city="Köln")

    assert person.langs == {"de"} and person.address == Address(city="Köln")


def test_an_undeclared_key_takes_json_only(person: Person) -> None:
    with pytest.raises(InvalidValueError, match=r"data\.eyes\.left"):
        person.data["eyes"] = {"left": object()}


@pytest.mark.parametrize("key", [5, None, ("a", "b")])
def test_a_key_is_text(person: Person, key: Any) -> None:
    with pytest.raises(InvalidTypeError):
        person.data[key] = 1


def test_a_missing_key_is_a_key_error(person: Person) -> None:
    for key in ("bornIn", "nothing"):
        with pytest.raises(KeyError):
            person.data[key]
        with pytest.raises(KeyError):
            del person.data[key]


def test_a_required_key_cannot_be_removed(person: Person) -> None:
    with pytest.raises(InvalidValueError, match="required"):
        del person.data["name"]


def test_keys_can_be_removed(person: Person) -> None:
    del person.data["age"]
    eyes = person.data.pop("eyes")

    assert eyes == {"left": "blue"}
    assert list(person.save().data) == ["name", "address", "nicknames"]


def test_all_of_it_can_be_replaced(person: Person) -> None:
    person.data = {"name": "Bea", "hair": "red"}

    assert (person.name, person.age, person.nicknames) == ("Bea", 0, [])
    assert dict(person.save().data) == {"name": "Bea", "hair": "red"}
    assert dict(Person.records.get("ann").data) == {"name": "Bea", "hair": "red"}


def test_what_was_replaced_can_be_edited(person: Person) -> None:
    person.data = {"name": "Bea"}

    person.nicknames.append("B")

    assert dict(person.data) == {"name": "Bea", "nicknames": ["B"]}


def test_a_replacement_that_does_not_fit_changes_nothing(person: Person) -> None:
    with pytest.raises(InvalidValueError, match="name"):
        person.data = {"hair": "red"}

    assert person.name == "Ann" and not person.is_dirty


def test_a_replacement_is_copied(person: Person) -> None:
    data: dict[str, Any] = {"name": "Bea", "eyes": {"left": "green"}}
    person.data = data

    data["eyes"]["left"] = "brown"

    assert person.data["eyes"] == {"left": "green"}


def test_the_data_of_another_object_can_be_assigned(person: Person) -> None:
    other = Record(data=person.data)

    other.data["eyes"]["left"] = "green"

    assert person.data["eyes"] == {"left": "blue"}
    assert json.loads(json.dumps(dict(other.data)))["address"] == {"city": "Bonn"}


def test_nested_json_is_live_declared_or_not(person: Person) -> None:
    person.data["nicknames"].append("Annie")
    person.data["eyes"]["right"] = "green"

    assert person.nicknames == ["A", "Annie"]
    assert Person.records.get(person.save().id).data["eyes"] == {"left": "blue", "right": "green"}


def test_nested_values_that_are_no_json_in_the_object_are_read_only(person: Person) -> None:
    person.langs = {"de"}

    with pytest.raises(ReadOnlyError):
        person.data["address"]["city"] = "Köln"
    with pytest.raises(ReadOnlyError):
        person.data["langs"].append("fr")

    assert person.address == Address(city="Bonn")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_of_a_read_only_value_is_anybody_s(person: Person, duplicate: Any) -> None:
    person.langs = {"de"}

    address, langs = duplicate(person.data["address"]), duplicate(person.data["langs"])
    address["city"] = "Köln"
    langs.append("fr")

    assert (address, langs) == ({"city": "Köln"}, ["de", "fr"])


def test_all_of_it_is_json(person: Person) -> None:
    person.langs = {"de"}

    assert json.loads(json.dumps(dict(person.data))) == person.data


def test_what_setdefault_gives_is_live(person: Person) -> None:
    person.data.setdefault("seen", []).append("us")
    person.data.setdefault("langs", [])
    person.data.setdefault("age", 99)

    assert person.data["seen"] == ["us"] and person.data["langs"] == [] and person.age == 3


def test_a_frozen_field_is_not_set_by_its_key(todos: Collection) -> None:
    class Coin(Record):
        value: int = Field(frozen=True)

    coin = Coin(collection=todos, value=1)

    with pytest.raises(InvalidValueError, match="frozen"):
        coin.data["value"] = 2


def test_the_mapping_that_was_held_sees_what_comes_later(person: Person) -> None:
    data = person.data
    Person.records.get("ann").patch(age=9)

    person.refresh()

    assert data["age"] == 9


def test_values_put_in_by_hand_are_checked_when_saved(person: Person) -> None:
    person.data["eyes"]["left"] = float("nan")

    with pytest.raises(InvalidValueError, match=r"data\.eyes\.left"):
        person.save()


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_what_another_program_nested_too_deep_for_us_stays_as_it_is(
    kinto_client: Client, todos: Collection, verb: str
) -> None:
    deep: Any = 1
    for _ in range(250):
        deep = [deep]
    body = json.dumps({"data": {"n": 1, "deep": deep}}).encode()
    request = Request("PUT", f"{todos.__kinto_path__()}/records/deep", "", {"Content-Type": "application/json"}, body)
    tap(kinto_client).send(request)
    (record,) = todos.records

    record.data["n"] = 2
    getattr(record, verb)()

    assert dict(todos.records.get("deep").data) == {"n": 2, "deep": deep}


def test_a_new_value_too_deep_for_kinto_is_refused(todos: Collection) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)

    with pytest.raises(InvalidValueError, match="deeper"):
        Record(collection=todos, data={"x": cycle})

"""What happens when a model is declared, and what its objects are without any server."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field, create_model, field_validator

from kinto_orm import (
    Account,
    Bucket,
    Client,
    Collection,
    Group,
    InvalidIdError,
    InvalidTypeError,
    NotLoadedError,
    ReadOnlyError,
    Record,
)
from kinto_orm.protocol.filters import Condition

T = TypeVar("T")

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

RESERVED = {
    *("bucket", "client", "collection", "data", "is_deleted", "is_dirty", "is_new", "permissions", "records"),
    *("delete", "patch", "refresh", "replace", "save"),
    "to_dict",
    *("adelete", "apatch", "arefresh", "areplace", "asave"),
}
"""Frozen: one more name here takes it away from users' fields. New verbs go to managers and collections."""


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    tags: list[str] = []  # noqa: RUF012  # pydantic copies it
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


class Urgent(Todo, collection="urgent"):
    level: int


class Measurement(Record, Generic[T], collection="measurements"):
    value: T


class Temperature(Measurement[float]):
    unit: str = "C"


class Stamped(BaseModel):
    created: int = 0


class Letter(Stamped, Record, collection="letters"):
    text: str


class Node(Record, collection="nodes"):
    parent: Node | None = None
    leaf: Leaf | None = None


class Leaf(BaseModel):
    color: str


Node.model_rebuild()


class Counter(Record):
    model_config: ClassVar[ConfigDict] = ConfigDict(title="A counter")
    limit: ClassVar[int] = 9

    count: int = 0
    _seen: int = PrivateAttr(default=1)

    @field_validator("count")
    @classmethod
    def not_above_the_limit(cls, value: int) -> int:
        return min(value, cls.limit)

    @computed_field
    def twice(self) -> int:
        return self.count * 2


def declare(name: str, *bases: type, **annotations: Any) -> Any:
    return type(name, bases or (Record,), {"__annotations__": annotations, "__module__": __name__})


# -- names --------------------------------------------------------------------------------------------------------


def test_the_names_that_are_taken_from_fields_are_frozen() -> None:
    public = {name for name in set(dir(Record)) - set(dir(BaseModel)) if not name.startswith("_")}

    assert public == RESERVED


@pytest.mark.parametrize("name", sorted(RESERVED | {"id", "last_modified", "schema", "json", "copy"}))
def test_field_with_a_reserved_name_is_refused_with_the_alias_to_write(name: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"{name}_: .*validation_alias='{name}', serialization_alias='{name}'"):
        declare("Wrong", **{name: str})


def test_field_with_a_reserved_name_is_refused_in_a_mixin_too() -> None:
    mixin = create_model("Mixin", save=(int, 3))

    with pytest.raises(InvalidTypeError, match=r"Wrong\.save: .* every Record"):
        declare("Wrong", mixin, Record)


def test_reserved_name_is_reached_by_its_alias() -> None:
    alias = Field(default="", validation_alias="collection", serialization_alias="collection")
    shop = create_model("Shop", __base__=Record, collection_=(str, alias))

    assert shop(data={"collection": "spring"}).collection_ == "spring"
    assert shop(collection_="spring").data == {"collection": "spring"}


def test_name_of_an_argument_of_collections_is_free_for_records() -> None:
    car = declare("Car", model=str, sort=str)

    assert car(model="T", sort="red").data == {"model": "T", "sort": "red"}


# -- class keywords -----------------------------------------------------------------------------------------------


def test_subclass_keeps_the_place_of_its_base_unless_it_says_another() -> None:
    first, second = Todo(title="x", id="a"), Urgent(title="x", level=1, id="a")

    assert [repr(first), repr(second)] == ["<Todo payments/todos/a (new)>", "<Urgent payments/urgent/a (new)>"]


def test_misspelled_class_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="colection"):
        type(Record)("Wrong", (Record,), {"__module__": __name__}, colection="x")


@pytest.mark.parametrize("keyword", ["bucket", "collection"])
def test_place_that_can_not_be_is_refused_at_the_class(keyword: str) -> None:
    with pytest.raises(InvalidIdError, match="a b"):
        type(Record)("Wrong", (Record,), {"__module__": __name__}, **{keyword: "a b"})


# -- inheritance, generics, forward references --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(Urgent.title == "x", Condition("title", "", "x"), id="inherited"),
        pytest.param(Letter.created > 3, Condition("created", "gt", 3, True), id="of a mixin"),
        pytest.param(Measurement[int].value == 3, Condition("value", "", 3), id="of a generic"),
        pytest.param(Temperature.value == 3.5, Condition("value", "", 3.5), id="inherited from a generic"),
        pytest.param(Node.leaf == Leaf(color="red"), Condition("leaf", "", {"color": "red"}), id="forward reference"),
    ],
)
def test_field_of_a_class_is_an_expression(made: Any, expected: Condition) -> None:
    assert made == expected


@pytest.mark.parametrize("model", [Urgent, declare("Later", Urgent, more=int)])
def test_required_field_stays_required_in_subclasses(model: type[Todo]) -> None:
    assert model.model_fields["title"].is_required()


def test_subclass_may_narrow_a_field() -> None:
    narrowed = declare("Narrowed", Todo, title=int)

    assert narrowed(title="3").title == 3


def test_generic_model_validates_its_parameter() -> None:
    assert [Measurement[int](value="3").value, Temperature(value="3.5").value] == [3, 3.5]


def test_model_may_refer_to_itself_and_to_what_comes_later() -> None:
    node = Node(parent=Node(leaf=Leaf(color="red")))

    assert node.data["parent"]["leaf"] == {"color": "red"}


def test_what_pydantic_offers_works() -> None:
    counter = Counter(count=12)
    counter._seen = 7

    assert (counter.count, counter.twice, counter._seen) == (9, 18, 7)
    assert counter.data == {"count": 9}


def test_private_attribute_of_a_partial_object_has_its_default(todos: Collection) -> None:
    Record(collection=todos, data={"count": 3}).save()

    counter = Collection(bucket="payments", id="todos", model=Counter).records.only(Counter.count).one()

    assert (counter.count, counter._seen) == (3, 1)


def test_class_has_no_attribute_that_is_misspelled() -> None:
    with pytest.raises(AttributeError, match="titel"):
        Todo.titel  # noqa: B018


# -- the envelope is no data --------------------------------------------------------------------------------------


@pytest.fixture
def todo() -> Todo:
    client = Client("http://localhost:8888/v1", auth=("alexis", "p4ssw0rd"))
    todos = Collection(id="todos", bucket="payments", client=client)
    return Todo(title="x", id="a", collection=todos, client=client, permissions={"read": ["account:bob"]})


@pytest.mark.parametrize("by_alias", [True, False])
def test_envelope_is_in_no_dump(todo: Todo, by_alias: bool) -> None:
    dumped = todo.model_dump(by_alias=by_alias)

    assert dumped == {"title": "x", "done": False, "tags": [], "dueDate" if by_alias else "due": None}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_envelope_is_in_no_json_schema(mode: Any) -> None:
    assert set(Todo.model_json_schema(mode=mode)["properties"]) == {"title", "done", "tags", "dueDate"}


def test_envelope_of_an_object_inside_a_model_is_in_no_dump(todo: Todo) -> None:
    outer = create_model("Outer", todo=(Todo, ...))

    assert set(outer(todo=todo).model_dump()["todo"]) == {"title", "done", "tags", "due"}


def test_validated_data_makes_a_new_object_without_a_place_of_its_own() -> None:
    todo = Todo.model_validate({"title": "x", "id": "a"})

    assert (todo.id, todo.is_new, todo.data) == ("a", True, {"title": "x", "done": False, "tags": []})


# -- what an object refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["id", "last_modified", "collection", "client", "is_new", "save", "records", "titel"])
def test_attribute_that_is_no_field_is_not_set(todo: Todo, name: str) -> None:
    with pytest.raises(ReadOnlyError, match=name):
        setattr(todo, name, "x")


def test_field_is_not_deleted(todo: Todo) -> None:
    with pytest.raises(ReadOnlyError, match=r"del \.data\['title'\]"):
        del todo.title


def test_records_of_an_object_says_where_they_are(todo: Todo) -> None:
    with pytest.raises(AttributeError, match=r"Todo\.records"):
        todo.records  # noqa: B018


def test_unknown_attribute_points_to_the_data(todo: Todo) -> None:
    with pytest.raises(AttributeError, match=r"\.data\['titel'\]"):
        todo.titel  # noqa: B018


def test_field_of_a_reference_is_not_invented(kinto_client: Client) -> None:
    staff = kinto_client.bucket("payments").group("staff")

    with pytest.raises(NotLoadedError, match="members"):
        staff.members  # noqa: B018


# -- collections with a model -------------------------------------------------------------------------------------


def test_collection_with_a_model_gives_such_records(kinto_client: Client) -> None:
    todos = Collection(bucket=Bucket(id="payments").save(), id="todos", model=Todo).save()
    Record(collection=todos, id="a", data={"title": "x"}).save()

    assert [type(one) for one in todos.records] == [Todo]


def test_model_of_a_collection_is_no_data() -> None:
    todos = Collection(bucket="payments", id="todos", model=Todo, sort="title")

    assert (todos.model, todos.data) == (Todo, {"sort": "title"})


def test_collection_without_a_model_has_plain_records() -> None:
    assert Collection(bucket="payments", id="todos").model is Record


@pytest.mark.parametrize("model", [Group, int, "Todo", Todo(title="x")])
def test_model_of_a_collection_is_a_class_of_records(model: Any) -> None:
    with pytest.raises(InvalidTypeError, match="model="):
        Collection(bucket="payments", id="todos", model=model)


def test_collection_takes_its_parameter_at_run_time_too() -> None:
    assert Collection[Todo] is not None


# -- equality, hash, repr -----------------------------------------------------------------------------------------


def test_objects_of_the_same_place_and_data_are_equal() -> None:
    assert Todo(title="x", id="a") == Todo(title="x", id="a")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(partial(Todo, title="y", id="a"), id="data"),
        pytest.param(partial(Todo, title="x", id="b"), id="id"),
        pytest.param(partial(Todo, title="x", id="a", collection="other"), id="collection"),
        pytest.param(partial(Todo, title="x", id="a", bucket="other"), id="bucket"),
        pytest.param(partial(dict, title="x"), id="kind"),
    ],
)
def test_objects_that_differ_in_one_thing_are_not_equal(other: Callable[[], object]) -> None:
    assert Todo(title="x", id="a") != other()


def test_hash_stays_when_the_data_changes_and_needs_no_client() -> None:
    todo = Record(id="a", data={"title": "x"})
    known = {todo}

    todo.data["title"] = "y"

    assert todo in known


def test_object_without_an_id_has_no_hash() -> None:
    with pytest.raises(TypeError, match="no id yet"):
        hash(Todo(title="x"))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(Todo(title="x"), "<Todo payments/todos (new)>", id="no id"),
        pytest.param(Record(data={}), "<Record no id yet (new)>", id="nothing known"),
        pytest.param(Record(id="a", collection="c", bucket="b"), "<Record b/c/a (new)>", id="all known"),
        pytest.param(Group(id="staff", bucket="b"), "<Group b/staff (new)>", id="group"),
    ],
)
def test_repr_says_which_object_without_asking_anybody(made: object, expected: str) -> None:
    assert repr(made) == str(made) == expected


# -- copies and pickles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, Todo.model_copy, lambda todo: pickle.loads(pickle.dumps(todo))]
)
def test_duplicate_is_equal_and_has_permissions_of_its_own(todo: Todo, duplicate: Callable[[Todo], Todo]) -> None:
    other = duplicate(todo)
    other.permissions.add("read", "account:eve")

    assert other == todo
    assert todo.permissions.read == {"account:bob"}


def test_deep_copy_shares_no_data(todo: Todo) -> None:
    todo.data["undeclared"] = {"deep": 1}
    other = copy.deepcopy(todo)

    other.tags.append("z")
    other.data["undeclared"]["deep"] = 2

    assert (todo.tags, todo.data["undeclared"]) == ([], {"deep": 1})


def test_pickle_holds_no_client_and_no_secret(todo: Todo) -> None:
    pickled = pickle.dumps(todo)

    assert pickle.loads(pickled).client is None
    assert not any(secret in pickled for secret in (b"p4ssw0rd", b"alexis", b"localhost"))


def test_pickled_collection_keeps_its_model() -> None:
    todos = pickle.loads(pickle.dumps(Collection(bucket="payments", id="todos", model=Todo)))

    assert todos.model is Todo


def test_pickled_loaded_object_is_clean_and_can_be_saved_elsewhere(todos: Collection) -> None:
    record = Record(collection=todos, id="a", data={"n": 1}).save()
    other = pickle.loads(pickle.dumps(record))

    other.data["n"] = 2
    other.save()

    assert record.refresh().data == {"n": 2}


def test_pickled_row_of_a_page_carries_its_own_data_only(todos: Collection) -> None:
    todos.records.bulk_create({"n": f"number {n}"} for n in range(20))

    pickled = pickle.dumps(todos.records.filter(n="number 3").one())

    assert pickled.count(b"number ") == 1


def test_types_of_the_function_around_a_class_are_found() -> None:
    class Inner(BaseModel):
        n: int

    class Outer(Record):
        inner: Inner
        later: Later | None = None

    class Later(BaseModel):
        m: int

    Outer.model_rebuild()  # for the type that was not there yet

    assert Outer(inner=Inner(n=1), later=Later(m=2)).data == {"inner": {"n": 1}, "later": {"m": 2}}


def test_l07_a_signature_has_the_real_arguments() -> None:
    class Todo(Record):
        title: str
        due: str = Field(default="", validation_alias="dueDate", serialization_alias="dueDate")

    def arguments(cls: type[Any]) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        assert {one.kind for one in parameters} == {inspect.Parameter.KEYWORD_ONLY}
        return [one.name for one in parameters]

    envelope = ["id", "data", "permissions", "client"]
    assert arguments(Bucket) == envelope
    assert arguments(Account) == ["password", *envelope]
    assert arguments(Group) == ["members", *envelope, "bucket"]
    assert arguments(Collection)[-6:] == [*envelope, "bucket", "model"]
    assert arguments(Record) == [*envelope, "collection", "bucket"]
    assert arguments(Todo)[0] == "title"
    assert inspect.signature(Todo).parameters["title"].default is inspect.Parameter.empty
    for cls in (Bucket, Account, Group, Collection, Record, Todo):
        for name in arguments(cls)[-4:]:
            cls(**{name: None}) if cls is not Todo else cls(title="x", **{name: None})

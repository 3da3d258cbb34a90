"""The page ``docs/pydantic.md``: each setting, option, decorator and type does what its row says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    TypeAdapter,
    WrapSerializer,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from readings import readings

from kinto_orm import (
    Client,
    Collection,
    CommitError,
    F,
    InvalidFilterError,
    InvalidTypeError,
    InvalidValueError,
    Record,
)

PAGE = (Path(__file__).parents[2] / "docs" / "pydantic.md").read_text("utf-8")

VALUES: dict[str, Any] = {
    "alias_generator": to_camel,
    "extra": "allow",
    "json_schema_extra": {"examples": []},
    "model_title_generator": lambda model: model.__name__.upper(),
    "protected_namespaces": ("model_",),
    "regex_engine": "python-re",
    "revalidate_instances": "always",
    "ser_json_bytes": "base64",
    "val_json_bytes": "base64",
    "ser_json_inf_nan": "constants",
    "ser_json_temporal": "seconds",
    "ser_json_timedelta": "float",
    "str_max_length": 50,
    "str_min_length": 0,
    "title": "A title",
    "validate_by_alias": True,
    "cache_strings": "keys",
}
"""A value of each setting that is no switch."""

NOT_ON_THE_PAGE = {
    *("json_encoders", "schema_generator", "val_temporal_unit", "validate_by_name", "field_title_generator"),
    *("ignored_types", "plugin_settings", "json_schema_serialization_defaults_required", "json_schema_mode_override"),
    *(
        "loc_by_alias",
        "validation_error_cause",
        "validate_return",
        "ser_json_decimal",
        "url_preserve_empty_path",
        "polymorphic_serialization",
        "experimental_defer_build_mode",
    ),
}
"""Settings for JSON schemas and for pydantic's own machinery, deprecated ones, and those of later versions."""


class Placed(Record, bucket="payments", collection="todos"):
    """What models have in common that are made in a test."""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


def settings_of_the_page() -> Iterator[str]:
    part = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (`[^|]*) \|", part, re.MULTILINE):
        yield from (name.partition("=")[0] for name in re.findall(r"`([^`]+)`", row))


def test_j07_every_setting_of_pydantic_is_on_the_page() -> None:
    assert set(ConfigDict.__annotations__) - set(settings_of_the_page()) - NOT_ON_THE_PAGE == set()


@pytest.mark.parametrize("setting", sorted(set(settings_of_the_page()) & ConfigDict.__annotations__.keys()))
def test_j07_a_model_with_any_setting_is_written_and_read_alike(
    kinto_client: Client, todos: Collection[Record], setting: str
) -> None:
    both = ("ser_json_bytes", "val_json_bytes")
    settings: Any = {name: VALUES.get(name, True) for name in (both if setting in both else (setting,))}

    class Item(Record, bucket="payments", collection="todos"):
        model_config = ConfigDict(**settings)

        some_text: str = "A b"
        moment: datetime = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
        span: timedelta = timedelta(seconds=90)
        blob: bytes = b"blob"

    made = Item(id="Mixed-Case", some_text="C d").save()

    for way, one in readings(Item, "Mixed-Case", kinto_client).items():
        assert (one.some_text, one.moment, one.span, one.blob) == (made.some_text, made.moment, made.span, made.blob), (
            way
        )
        assert not one.is_dirty, way


@pytest.mark.parametrize(
    "settings",
    [{"extra": "forbid"}, {"validate_by_alias": False, "validate_by_name": True}]
    + [{"ser_json_inf_nan": value} for value in ("null", "strings")],
    ids=str,
)
def test_j07_what_cannot_be_honoured_is_refused_when_the_class_is_made(settings: Any) -> None:
    with pytest.raises(InvalidTypeError, match="is not possible"):

        class Item(Record):
            model_config = ConfigDict(**settings)


def test_j07_an_own_init_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="model_validator"):

        class Item(Record):
            n: int = 0

            def __init__(self, **values: Any) -> None: ...


def test_two_fields_of_one_name_on_the_wire_are_refused() -> None:
    with pytest.raises(InvalidTypeError, match=r"Item\.first and Item\.n are both 'n'"):

        class Item(Record):
            first: int = Field(default=0, alias="n")
            n: int = 0


def test_j07_a_type_of_undeclared_keys_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="undeclared keys are any JSON"):

        class Item(Record):
            model_config = ConfigDict(extra="allow")

            __pydantic_extra__: dict[str, int]


def test_j07_a_property_with_a_setter_is_set(todos: Collection[Record]) -> None:
    class Item(Record, bucket="payments", collection="todos"):
        n: int = 0

        @property
        def twice(self) -> int:
            return self.n * 2

        @twice.setter
        def twice(self, value: int) -> None:
            self.n = value // 2

    one = Item(id="x").save()
    one.twice = 8

    assert one.is_dirty and one.save().data == {"n": 4}


def test_j07_fields_that_are_not_written(todos: Collection[Record]) -> None:
    class Item(Record, bucket="payments", collection="todos"):
        n: int = 1
        local: int = Field(default=0, exclude=True)

        @computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return self.n * 2

        @model_serializer(mode="wrap")
        def add(self, handler: Any) -> Any:
            return {**handler(self), "more": 1}

    one = Item(id="x", local=5).save()

    assert dict(todos.records.get("x").data) == {"n": 1} and not Item.records.get("x").is_dirty
    one.n = 2
    assert one.save().data == {"n": 2}


class Dropping(Record, bucket="payments", collection="todos"):
    a: int = 0
    b: int = 0
    text: str = ""

    @model_serializer(mode="wrap")
    def write(self, handler: Any) -> Any:
        written = handler(self)
        return {"a": written.get("a", 0), "text": written.get("text", "")}


@pytest.mark.parametrize(
    "write",
    [
        lambda: Dropping(id="y", b=2).save(),
        lambda: Dropping(id="y", b=2).replace(),
        lambda: Dropping.records.create(id="y", b=2),
        lambda: Dropping.records.bulk_create([Dropping(id="y", b=2)]),
        lambda: Dropping.records.bulk_create([{"id": "y", "b": 2}]),
        lambda: Dropping.records.sync([{"id": "y", "b": 2}]),
        lambda: Dropping.records.update(b=2),
        lambda: (one := Dropping.records.get("x"), setattr(one, "b", 2), one.save()),
    ],
)
def test_j05_what_a_serializer_of_the_class_leaves_out_is_refused(todos: Collection[Record], write: Any) -> None:
    Dropping(id="x", a=1).save()

    with pytest.raises((InvalidValueError, CommitError), match=r"data\.b: this int would not come back equal"):
        write()

    assert [dict(one.data) for one in todos.records] == [{"a": 1, "text": ""}]


def test_j09_a_patch_writes_its_keys_alone_whatever_a_serializer_of_the_class_adds(todos: Collection[Record]) -> None:
    Dropping(id="x", a=1).save().patch(text="new")

    assert dict(todos.records.get("x").data) == {"a": 1, "text": "new"}


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Dropping.records.filter(text="x"),
        lambda: Dropping.records.filter(F(Dropping.a) > 3),
        lambda: Dropping.records.order_by("a"),
    ],
)
def test_j08_no_condition_on_what_a_serializer_of_the_class_writes(ask: Any) -> None:
    with pytest.raises(InvalidFilterError, match="text"):
        ask()


def test_j07_a_field_that_is_never_written_stays_as_others_stored_it(todos: Collection[Record]) -> None:
    class Item(Record, bucket="payments", collection="todos"):
        kept: int = Field(default=0, exclude=True)
        many: list[int] = Field(default=[], exclude=True)
        title: str = ""

    todos.records.create(id="x", data={"kept": 5, "many": [1]})
    for read in (lambda: Item.records.get("x"), lambda: Item.records.all()[0]):
        one = read()
        one.kept = 6
        one.many.append(2)
        assert not one.is_dirty
        one.title += "t"
        one.save()

    assert dict(todos.records.get("x").data) == {"kept": 5, "many": [1], "title": "tt"}


def test_j07_use_enum_values_holds_for_defaults(todos: Collection[Record]) -> None:
    class Item(Record, bucket="payments", collection="todos"):
        model_config = ConfigDict(use_enum_values=True)

        color: Color = Color.RED

    made = Item(id="x").save()

    assert made.color == Item.records.get("x").color == "red"


def rows_of_the_page(part: str) -> dict[str, str]:
    """Return what the first column of a table says, and whether that is honoured."""
    found = PAGE.partition(f"## {part}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ((?!option |feature |---).*?) \| (.*?) \|", found, re.MULTILINE))


counted = itertools.count()
OPTIONS: dict[str, dict[str, Any]] = {
    "`alias`": {"field": (int, Field(default=1, alias="wire"))},
    "`validation_alias`, `serialization_alias`": {
        "field": (int, Field(default=1, validation_alias="wire", serialization_alias="wire"))
    },
    "`AliasChoices`": {"field": (int, Field(default=1, validation_alias=AliasChoices("field", "old")))},
    "`AliasPath` alone": {"field": (int, Field(default=1, validation_alias=AliasPath("others", 0)))},
    "`default`, `default_factory`": {"field": (int, 1), "many": (list[int], Field(default_factory=list))},
    "`default_factory` of random values": {"field": (int, Field(default_factory=counted.__next__))},
    "`exclude=True`": {"field": (int, Field(default=2, exclude=True))},
    "`exclude_if`": {"field": (int, Field(default=2, exclude_if=lambda value: value == 2))},
    "`frozen`": {"field": (int, Field(default=1, frozen=True))},
    "constraints (`gt`, `max_length`, `pattern`, …)": {"field": (int, Field(default=1, gt=0, multiple_of=2))},
    "`strict`": {"field": (int, Field(default=1, strict=True)), "day": (date, Field(default=date.min, strict=True))},
    "`discriminator`": {"field": (int, 1), "pet": (Cat | Dog, Field(default=Cat(), discriminator="kind"))},
    "`deprecated`, `description`, `examples`, `title`": {
        "field": (int, Field(default=1, description="A number", examples=[1], title="Number", deprecated=False))
    },
    "`repr`": {"field": (int, Field(default=1, repr=False))},
    "a reserved name (`data`, `save`, …)": {"save": (int, 1)},
}


def test_every_option_of_a_field_on_the_page_is_here() -> None:
    assert list(rows_of_the_page("Options of a field")) == list(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_field_is_honoured_or_refused_as_the_page_says(
    kinto_client: Client, todos: Collection[Record], option: str
) -> None:
    def make() -> Any:
        return create_model("Item", __base__=Placed, **OPTIONS[option])

    if rows_of_the_page("Options of a field")[option] == "refused":
        with pytest.raises(InvalidTypeError):
            make()
        return
    model = make()
    field = model.model_fields["field"]
    model(id="x", data={field.serialization_alias or field.alias or "field": 2}).save()

    for way, one in readings(model, "x", kinto_client).items():
        assert (one.field, one.is_dirty) == (2, False), way


def class_with(**members: Any) -> Any:
    """Return a class with the field that the test sets, and with these members."""
    annotations = {"field": int, **members.pop("__annotations__", {})}
    return type("Item", (Placed,), {"field": 1, "__annotations__": annotations, "__module__": __name__, **members})


V = TypeVar("V")


class Holding(Placed, Generic[V]):
    field: V


class Mixin(BaseModel):
    field: int = 1
    later: Later | None = None


class Mixed(Mixin, Placed):
    pass


class Later(BaseModel):
    n: int = 0


def same(value: Any) -> Any:
    return value


def twice(one: Any) -> int:
    return int(one.field) * 2


FEATURES: dict[str, list[Callable[[], Any]]] = {
    "`field_validator`, in all modes": [
        lambda: class_with(check=field_validator("field", mode="before")(classmethod(lambda cls, value: value))),
        lambda: class_with(check=field_validator("*", mode="after")(classmethod(lambda cls, value: value))),
        lambda: class_with(check=field_validator("field", mode="plain")(classmethod(lambda cls, value: value))),
        lambda: class_with(
            check=field_validator("field", mode="wrap")(classmethod(lambda cls, value, handler: handler(value)))
        ),
    ],
    "`model_validator`, in all modes": [
        lambda: class_with(check=model_validator(mode="before")(classmethod(lambda cls, value: value))),
        lambda: class_with(check=model_validator(mode="after")(same)),
        lambda: class_with(check=model_validator(mode="wrap")(classmethod(lambda cls, value, handler: handler(value)))),
    ],
    "`field_serializer`, `PlainSerializer`, `WrapSerializer`": [
        lambda: class_with(write=field_serializer("field")(lambda self, value: value)),
        lambda: class_with(__annotations__={"field": Annotated[int, PlainSerializer(str)]}),
        lambda: class_with(
            __annotations__={"field": Annotated[int, WrapSerializer(lambda value, handler: handler(value))]}
        ),
    ],
    "`model_serializer`": [
        lambda: class_with(write=model_serializer(mode="wrap")(lambda self, handler: {**handler(self), "more": 1})),
        lambda: class_with(write=model_serializer(mode="plain")(lambda self: {"field": self.field})),
    ],
    "`computed_field`": [lambda: class_with(twice=computed_field(return_type=int)(property(twice)))],
    "`model_post_init`, private attributes": [
        lambda: class_with(
            model_post_init=lambda one, context: setattr(one, "_seen", 2),
            _seen=PrivateAttr(0),
            __annotations__={"_seen": int},
        )
    ],
    "`cached_property`": [lambda: with_cached_property()],
    "a property with a setter": [lambda: class_with(twice=property(twice, lambda one, value: None))],
    "`__init__` of your own": [lambda: class_with(__init__=lambda one, **values: None)],
    "a type of `__pydantic_extra__`": [
        lambda: class_with(
            model_config=ConfigDict(extra="allow"), __annotations__={"__pydantic_extra__": dict[str, int]}
        )
    ],
    "generic models, inheritance, mixins, forward references": [lambda: Holding[int], lambda: Mixed],
}


def with_cached_property() -> Any:
    class Item(Placed):
        field: int = 1

        @cached_property
        def twice(self) -> int:
            return self.field * 2

    return Item


def test_every_decorator_and_method_on_the_page_is_here() -> None:
    assert list(rows_of_the_page("Decorators and methods")) == list(FEATURES)


@pytest.mark.parametrize(
    ("feature", "make"), [(feature, make) for feature, makers in FEATURES.items() for make in makers]
)
def test_a_decorator_or_method_is_honoured_or_refused_as_the_page_says(
    kinto_client: Client, todos: Collection[Record], feature: str, make: Callable[[], Any]
) -> None:
    if rows_of_the_page("Decorators and methods")[feature] == "refused":
        with pytest.raises(InvalidTypeError):
            make()
        return
    model = make()
    model(id="x", field=2).save()

    for way, one in readings(model, "x", kinto_client).items():
        assert (one.field, one.is_dirty) == (2, False), way
        assert getattr(one, "twice", 4) == 4 and getattr(one, "_seen", 2) == 2, way
    assert todos.records.get("x").data.keys() - {"later"} == {"field"}


class Color(Enum):
    RED = "red"


class Inside(BaseModel):
    n: int = 0


TYPES: dict[str, tuple[Any, Any, bool, bool]] = {
    "str": (str, "a", True, True),
    "int": (int, 3, True, True),
    "float": (float, 0.5, True, True),
    "bool": (bool, True, True, True),
    "UUID": (UUID, UUID(int=7), True, True),
    "date": (date, date(2030, 1, 2), True, True),
    "datetime": (datetime, datetime(2030, 1, 2, tzinfo=UTC), True, True),
    "time": (time, time(3, 4), True, True),
    "timedelta": (timedelta, timedelta(1), True, False),
    "Decimal": (Decimal, Decimal("1.5"), False, False),
    "bytes": (bytes, b"a", True, True),
    "IP address": (IPv4Address, IPv4Address("10.0.0.1"), True, False),
    "Path": (Path, Path("/a"), True, False),
    "pattern": (re.Pattern[str], re.compile("a"), False, False),
    "secret": (SecretStr, SecretStr("hunter3"), False, False),
    "list": (list[int], [1], True, False),
    "dict": (dict[str, int], {"a": 1}, True, False),
    "model": (Inside, Inside(n=3), True, False),
    "set": (set[int], {1, 2}, True, False),
    "Json": (Json[list[int]], [1], False, False),
    "union": (int | str, "a", True, False),
    "Any": (Any, "a", True, True),
}


@pytest.mark.parametrize("kind", TYPES)
def test_conditions_take_the_types_that_the_page_says(kind: str) -> None:
    annotation, value, has_equality, has_order = TYPES[kind]
    model: Any = type(Record)(
        "Typed", (Record,), {"__annotations__": {"v": annotation}, "__module__": __name__, "__qualname__": "Typed"}
    )

    def takes(make: Any) -> bool:
        try:
            make()
        except InvalidFilterError:
            return False
        return True

    assert takes(lambda: model.v == value) is has_equality
    assert takes(lambda: model.v > value) is has_order
    assert takes(lambda: model.records.order_by("v")) is has_order
    assert takes(lambda: model.records.filter(v=value)) is has_equality
    assert TypeAdapter(annotation) is not None

"""Types of fields, each with values as a constructor takes them: for tests over all types.

The first value is the one that most easily goes wrong; hypothesis draws the others in depth.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    Base64Str,
    Base64UrlStr,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    FiniteFloat,
    HttpUrl,
    Json,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    WrapSerializer,
)
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import TypedDict

from kinto_orm import OrderedText


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(Enum):
    S = 1
    L = 10


class Level(IntEnum):
    LOW = 2
    HIGH = 10


class Tone(StrEnum):
    DARK = "dark"
    LIGHT = "light"


class Rights(IntFlag):
    READ = 1
    WRITE = 2


class Pair(Enum):
    A = (1, 2)


class Point(NamedTuple):
    x: int
    y: float


class Address(TypedDict, total=False):
    city: str
    since: datetime


@dataclass
class Step:
    name: str
    at: datetime


@checked_dataclass
class Checked:
    n: int
    tags: set[str]


class Inner(BaseModel):
    x: int
    at: datetime | None = None


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    x: int


class Tree(BaseModel):
    name: str
    below: list[Tree] = []


class Renamed(BaseModel):
    due: date = Field(validation_alias="dueDate", serialization_alias="dueDate")

    model_config = ConfigDict(validate_by_name=True)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Ids(RootModel[list[UUID]]):
    pass


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    held: T


NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
integers = st.integers(-(2**63), 2**64 - 1)
# Kinto stores one float in eight with another last digit; those of few digits it does not touch.
floats = st.floats(-1e9, 1e9).map(lambda number: round(number, 3))
moments = st.datetimes(datetime(1902, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
zoned = st.builds(datetime.astimezone, moments, st.sampled_from([UTC, INDIA, timezone(timedelta(hours=-11))]))
uuids = st.uuids()
inners = st.builds(Inner, x=st.integers(-5, 5), at=st.none() | zoned)
json_values = st.recursive(
    st.none() | st.booleans() | integers | floats | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=4,
)


class Kind(NamedTuple):
    """A type, and values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


def of(annotation: Any, *values: Any, more: st.SearchStrategy[Any] | None = None) -> Kind:
    given = st.sampled_from(values)
    return Kind(annotation, given if more is None else given | more)


KINDS: dict[str, Kind] = {
    # scalars
    "str": of(str, "é,1\n", "", "2030-01-01", more=text),
    "int": of(int, 2**63, 0, -1, more=integers),
    "float": of(float, 0.1, -0.0, 1e16, 1.5e-7, 1.5e308, more=floats),
    "bool": of(bool, True, False),
    "None": of(None, None),
    "bytes": of(bytes, "é".encode(), b"", b"\xff", more=st.binary(max_size=4)),
    "Decimal": of(Decimal, Decimal("1.50"), Decimal("-1E+3"), more=st.decimals(allow_nan=False, allow_infinity=False)),
    "date": of(date, date(2030, 1, 2), more=st.dates()),
    "datetime": of(datetime, datetime(2030, 1, 1, 1, 2, 3, 45, INDIA), NOON, more=zoned),
    "naive datetime": of(datetime, datetime(2030, 1, 1)),  # noqa: DTZ001  # to be refused
    "AwareDatetime": of(AwareDatetime, NOON.astimezone(INDIA), more=zoned),
    "time": of(time, time(1, 2, 3, 45), time(), time(1, tzinfo=INDIA), more=st.times()),
    "timedelta": of(timedelta, timedelta(days=-1, microseconds=1), more=st.timedeltas(-timedelta(999), timedelta(999))),
    "UUID": of(UUID, UUID(int=0xABC), more=uuids),
    "Fraction": of(Fraction, Fraction(1, 3), more=st.fractions(max_denominator=9)),
    "complex": of(complex, 1 + 2j, 3j),
    "ZoneInfo": of(ZoneInfo, ZoneInfo("UTC")),
    "Path": of(Path, Path("a/é.txt"), Path()),
    "PurePosixPath": of(PurePosixPath, PurePosixPath("/a/b")),
    "Pattern": of(re.Pattern[str], re.compile("a+"), re.compile("a", re.IGNORECASE)),
    "ByteSize": of(ByteSize, ByteSize(2048)),
    "IPv4Address": of(IPv4Address, IPv4Address("10.0.0.9"), more=st.ip_addresses(v=4)),
    "IPv6Address": of(IPv6Address, IPv6Address("::1"), more=st.ip_addresses(v=6)),
    "IPv4Interface": of(IPv4Interface, IPv4Interface("10.0.0.9/24")),
    "IPv4Network": of(IPv4Network, IPv4Network("10.0.0.0/8")),
    "AnyUrl": of(AnyUrl, AnyUrl("ftp://a.b/c?d=é")),
    "HttpUrl": of(HttpUrl, HttpUrl("https://a.b")),
    # constraints
    "constrained str": of(Annotated[str, StringConstraints(max_length=3, pattern="^[a-z]*$")], "abc", ""),
    "stripped str": of(Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True)], " A ", "b"),
    "NonNegativeInt": of(NonNegativeInt, 0, 5, more=st.integers(0, 99)),
    "PositiveFloat": of(PositiveFloat, 0.5, 1e300),
    "FiniteFloat": of(FiniteFloat, -0.5, more=floats),
    "StrictInt": of(StrictInt, 5),
    "StrictStr": of(StrictStr, "5"),
    "StrictBool": of(StrictBool, True),
    "limited Decimal": of(Annotated[Decimal, Field(max_digits=5, decimal_places=2)], Decimal("9.50")),
    # choices
    "Literal of texts": of(Literal["a", "b"], "a", "b"),
    "Literal of numbers": of(Literal[1, 2], 2),
    "Enum of texts": of(Color, *Color),
    "Enum of numbers": of(Size, *Size),
    "IntEnum": of(Level, *Level),
    "StrEnum": of(Tone, *Tone),
    "IntFlag": of(Rights, Rights.READ | Rights.WRITE, Rights.READ),
    "Enum of tuples": of(Pair, Pair.A),
    "int | str": of(int | str, "5", 5, more=integers | text),
    "date | str": of(date | str, date(2030, 1, 2), "a"),  # a text of a date is refused as text, and taken as JSON
    "float | int": of(float | int, 5, 0.5),
    "discriminated": of(Annotated[Cat | Dog, Field(discriminator="kind")], Dog(name="a"), Cat(lives=9)),
    # secrets and encodings
    "SecretStr": of(SecretStr, SecretStr("s3cret-in-a-field")),
    "SecretBytes": of(SecretBytes, SecretBytes("é".encode()), SecretBytes(b"\xff")),
    "Secret": of(Secret[date], Secret(date(2030, 1, 2))),
    "Json": of(Json[list[int]], "[1, 2]", "[]"),
    "Json of anything": of(Json, '{"a": 1.0}', "null", '"text"'),
    "Base64Bytes": of(Base64Bytes, "aGk=", "/+8="),
    "Base64Str": of(Base64Str, "aGk="),
    "Base64UrlStr": of(Base64UrlStr, "aGk_"),
    # containers
    "list of int": of(list[int], [2**63, 1], [], more=st.lists(integers, max_size=3)),
    "list of datetime": of(list[datetime], [NOON.astimezone(INDIA)], [], more=st.lists(zoned, max_size=2)),
    "list of anything": of(list[Any], [1, True, None, {"a": [1.5]}], [NOON], more=st.lists(json_values, max_size=2)),
    "limited list": of(Annotated[list[int], Field(max_length=2)], [1, 2], []),
    "tuple": of(tuple[int, date], (1, date(2030, 1, 2))),
    "tuple of any length": of(tuple[float, ...], (0.5, 1.0), ()),
    "set": of(set[int], {8, 0}, set(), more=st.sets(st.integers(-9, 99), max_size=4)),
    "set of models": of(set[Color], {Color.RED, Color.BLUE}),
    "frozenset": of(frozenset[str], frozenset({"b", "a"}), more=st.frozensets(text, max_size=3)),
    "deque": of(deque[int], deque([1, 2])),
    "dict": of(dict[str, int], {"b": 1, "a": 2}, {}, more=st.dictionaries(text, integers, max_size=3)),
    "dict by int": of(dict[int, str], {5: "a", -1: "b"}),
    "dict by UUID": of(dict[UUID, date], {UUID(int=5): date(2030, 1, 2)}),
    "dict of models": of(dict[str, Inner], {"a": Inner(x=1, at=NOON)}, more=st.dictionaries(text, inners, max_size=2)),
    "dict of anything": of(dict[str, Any], {"a": {"b": [1, None]}}, {"t": NOON}, {"s": {1}}),
    "OrderedDict": of(OrderedDict[str, int], OrderedDict(b=1, a=2)),
    "defaultdict": of(defaultdict[str, list[int]], defaultdict(list, a=[1])),
    "Counter": of(Counter[str], Counter("aab")),
    "Mapping": of(Mapping[str, float], {"a": 0.5}),
    "Sequence": of(Sequence[int], [1, 2], (1, 2)),
    # objects
    "NamedTuple": of(Point, Point(1, 0.5)),
    "TypedDict": of(Address, {"city": "Köln", "since": NOON}, {}),
    "dataclass": of(Step, Step("a", NOON.astimezone(INDIA))),
    "dataclass of pydantic": of(Checked, Checked(1, {"b", "a"})),
    "model": of(Inner, Inner(x=1, at=NOON), Inner(x=1), more=inners),
    "frozen model": of(Frozen, Frozen(x=1)),
    "list of models": of(list[Inner], [Inner(x=1, at=NOON), Inner(x=2)], more=st.lists(inners, max_size=3)),
    "tree": of(Tree, Tree(name="a", below=[Tree(name="b")])),
    "model with an alias": of(Renamed, Renamed(due=date(2030, 1, 2))),
    "RootModel": of(Ids, Ids([UUID(int=5)])),
    "generic model": of(Box[set[int]], Box[set[int]](held={8, 0})),
    "SerializeAsAny": of(SerializeAsAny[Inner], Inner(x=1)),
    # code of the user
    "AfterValidator": of(Annotated[str, AfterValidator(str.strip)], " a ", "b"),
    "BeforeValidator": of(Annotated[int, BeforeValidator(lambda value: value)], 5),
    "validator that changes": of(Annotated[int, AfterValidator(lambda value: value * 2)], 3, 0),
    "serializer to a number": of(Annotated[datetime, PlainSerializer(datetime.timestamp, return_type=float)], NOON),
    "serializer to ordered text": of(
        Annotated[int, PlainSerializer(lambda value: f"{value:09d}", return_type=str), OrderedText()], 9, 10
    ),
    "serializer that loses": of(Annotated[int, PlainSerializer(lambda value: value % 10, return_type=int)], 11, 5),
    "wrapping serializer": of(Annotated[int, WrapSerializer(lambda value, write: str(write(value)))], 7),
    # any
    "Any": of(Any, {"a": [1, True]}, NOON, {1}, 0.5, "text", Inner(x=1), more=json_values),
    "object": of(object, {"a": 1}),
}
"""Name to type and values."""

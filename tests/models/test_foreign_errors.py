"""No input brings a foreign error to a caller: what the codec refuses, it refuses by an error of ours."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kinto_orm import F, KintoError
from kinto_orm.models.codec import codec_of
from models.test_conditions import VALUES, Row

EXAMPLES = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 60

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
odd_values = [object(), Decimal("NaN"), datetime.max.replace(tzinfo=UTC), time.max, {1}, Row]
anything = json_values | st.binary() | st.sampled_from(odd_values)
names = st.sampled_from(sorted(VALUES))


@settings(max_examples=EXAMPLES, derandomize=True)
@given(st.dictionaries(names | st.text(max_size=3), json_values, max_size=4))
def test_a_row_is_read_or_refused_by_an_error_of_ours(row: dict[str, Any]) -> None:
    codec = codec_of(Row)
    with contextlib.suppress(KintoError):
        one = codec.load({**row, "id": "x", "last_modified": 1})
        codec.dump(one)


@settings(max_examples=EXAMPLES, derandomize=True)
@given(names | st.text(max_size=3), anything)
def test_a_value_is_taken_or_refused_by_an_error_of_ours(name: str, value: Any) -> None:
    one = Row(id="x")
    for change in (
        lambda: one.data.__setitem__(name, value),
        lambda: setattr(one, name, value),
        lambda: Row(id="y", **{name or "s": value}),
        lambda: Row(id="z", data={name: value}),
        lambda: codec_of(Row).encode(codec_of(Row).by_wire({name: value}, "patch()")),
    ):
        with contextlib.suppress(KintoError):
            change()


@settings(max_examples=EXAMPLES, derandomize=True)
@given(names, anything)
def test_a_condition_is_made_or_refused_by_an_error_of_ours(name: str, value: Any) -> None:
    field = F(getattr(Row, name))
    for make in (field.__eq__, field.gt, field.max, field.not_, field.in_, field.exclude, field.contains):
        with contextlib.suppress(KintoError):
            make(value)
    with contextlib.suppress(KintoError):
        Row.records.filter(**{name: value})

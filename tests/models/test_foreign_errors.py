"""No input brings a foreign error to a caller: what cannot be honoured is refused by an error of ours.

The classes are made by hypothesis, of fields of all types; all verbs run on a real server.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import copy, deepcopy
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from field_kinds import KINDS
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model
from wiretap import Wiretap, tap

from kinto_orm import (
    BasicPatch,
    Client,
    Collection,
    F,
    InvalidFilterError,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    KintoError,
    MergePatch,
    OfflineError,
    Record,
    UsageError,
)
from kinto_orm.mirror import Mirror, follow

EXAMPLES = 50 if os.environ.get("KINTO_ORM_EVERYTHING") else 10
"""In depth in ``tox -e slow``."""


class Item(Record, bucket="payments", collection="todos"):
    """What the models here have in common: where they are."""


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else []


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
ODD: list[Any] = [
    *(object(), Record, len, Decimal("NaN"), Decimal("sNaN"), datetime.max.replace(tzinfo=UTC), time.max, {1}),
    *({1: 2}, {"id": "y"}, {"last_modified": "soon"}, (1, {2}), 10**400, -(2**64), float("nan"), float("inf")),
    *("\ud800", "\0", "a,b", b"\xff", "9" * 5000, deep(150), deep(300), CYCLE, [{1}], {"k": {"\ud800": object()}}),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
odd_values = json_values | st.binary(max_size=3) | st.sampled_from(ODD)


class Trial(NamedTuple):
    """A class, the name of one of its fields (or of none), and two values for it."""

    model: Any
    name: str
    good: Any
    odd: Any


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    fields: dict[str, Any] = {}
    for number, kind in enumerate(kinds):
        option = draw(st.sampled_from(["required", "none", "alias"]))
        annotation: Any = KINDS[kind].annotation if option == "required" else KINDS[kind].annotation | type(None)
        alias = {"validation_alias": f"wire-{number}", "serialization_alias": f"wire-{number}"}
        default = ... if option == "required" else Field(default=None, **(alias if option == "alias" else {}))
        fields[f"f{number}"] = (annotation, default)
    name = draw(st.sampled_from([*fields, "wire-0", "other", ""]))
    values = [draw(KINDS[kinds[int(name[1:])]].values)] if name in fields else [1]
    return Trial(create_model("Made", __base__=Item, **fields), name, values[0], draw(odd_values))


def ways(trial: Trial) -> dict[str, Callable[[], object]]:
    """Return everything that a caller may do with a value."""
    model, name, good, odd = trial
    records, field = model.records, F(getattr(model, name) if name in model.model_fields else name or "f0")
    given = {name: odd}

    def loaded() -> Any:
        return records.get("stored")

    return {
        "constructor": lambda: model(id="a", **given).save(),
        "constructor, data": lambda: model(id="b", data=given).save(),
        "constructor, good": lambda: model(id="c", **{name: good}).save(),
        "create": lambda: records.create(id="d", **given),
        "bulk of dictionaries": lambda: records.bulk_create([{"id": "e", **given}]),
        "get_or_create": lambda: records.get_or_create("f", given),
        "update_or_create": lambda: records.update_or_create("stored", given),
        "sync": lambda: records.sync([{"id": "g", **given}]),
        "set": lambda: (one := loaded(), setattr(one, name, odd), one.save()),
        "data": lambda: (one := loaded(), one.data.update(given), one.save()),
        "data replaced": lambda: (one := loaded(), setattr(one, "data", given), one.replace()),
        "edited": lambda: [(one.data.setdefault("list", []).append(odd), one.is_dirty, one.save()) for one in records],
        "patch": lambda: loaded().patch(given),
        "patch of a reference": lambda: records.ref("stored").patch(given),
        "update": lambda: records.update(given),
        "update by a function": lambda: records.update(lambda one: given),
        "bulk_update": lambda: records.bulk_update([loaded()]),
        "equal": lambda: loaded() == model(id="stored", **given),
        "plan": lambda: str(records.plan([{"id": "h", **given}])),
        "filter": lambda: records.filter(**given).all(),
        "conditions": lambda: [
            records.filter(make(odd)).count()
            for make in (field.__eq__, field.gt, field.max, field.not_, field.like, field.in_, field.contains)
        ],
        "order_by": lambda: records.order_by(name).all(),
        "only": lambda: records.only(name).to_arrow(),
        "to_arrow": lambda: records.filter(on_invalid="keep").to_arrow(),
        "get_many": lambda: records.get_many(["stored", odd]),
        "get": lambda: records.get(odd),
        "dump": lambda: [(one.to_dict(), repr(one), str(one.data)) for one in records.filter(on_invalid="keep")],
    }


@settings(max_examples=EXAMPLES, derandomize=True, phases=[Phase.generate])
@given(trials(), st.dictionaries(st.sampled_from(["f0", "f1", "wire-0", "other"]), json_values, max_size=3))
def test_whatever_a_caller_gives_and_the_server_holds_only_errors_of_ours_come_out(
    kinto_client: Client, todos: Collection[Record], trial: Trial, row: dict[str, Any]
) -> None:
    transport = kinto_client._connection.transport
    wire = transport if isinstance(transport, Wiretap) else tap(kinto_client)
    # With the collection its tombstones go, which would make each example slower than the one before.
    todos.bucket.collection("todos").delete(safe=False)
    todos = todos.bucket.collection("todos").replace(safe=False)
    for way, run in ways(trial).items():
        todos.records.delete(everything=True)
        for data in (row, {}):
            if not todos.records.exists():
                attempt(wire, "store", lambda data=data: todos.records.create(id="stored", data=data))
        attempt(wire, way, run)


def nested(container: type) -> Any:
    value: Any = container()
    for _ in range(2000):
        value = [value] if container is list else {"k": value}
    return value


@pytest.mark.parametrize("container", [list, dict])
@pytest.mark.parametrize("kind", ["Any", "list of anything", "model"])
def test_what_is_nested_too_deep_for_python_is_refused(
    kinto_client: Client, todos: Collection[Record], kind: str, container: type
) -> None:
    deepest = nested(container)
    fields: dict[str, Any] = {"f0": (KINDS[kind].annotation | None, None)}
    trial = Trial(create_model("Made", __base__=Item, **fields), "f0", None, deepest)
    trial.model(id="stored").save()
    wire = tap(kinto_client)

    for way, run in {**ways(trial), **ways_of_the_deep(trial)}.items():
        attempt(wire, way, run)


ARGUMENTS: dict[str, Callable[[Collection[Record], Any], object]] = {
    "bulk_create of the client": lambda todos, odd: todos.client.bulk_create(odd),
    "cached": lambda todos, odd: todos.records.cached(max_age=odd),
    "cert": lambda _, odd: Client("http://127.0.0.1:1/v1", cert=odd),
    "changes": lambda todos, odd: list(todos.records.changes(since=odd)),
    "copy_to": lambda todos, odd: todos.bucket.copy_to(odd),
    "dump": lambda todos, odd: todos.bucket.dump(odd),
    "embedded": lambda _, odd: Client.embedded(odd),
    "hook": lambda _, odd: Client("http://127.0.0.1:1/v1", on_request=[odd]),
    "load": lambda todos, odd: todos.client.load(odd),
    "max_response_bytes": lambda _, odd: Client("http://127.0.0.1:1/v1", max_response_bytes=odd),
    "on_invalid": lambda _, odd: Client("http://127.0.0.1:1/v1", on_invalid=odd),
    "permissions of a copy": lambda todos, odd: todos.bucket.copy_to(todos.client, bucket="b", permissions=odd),
    "publication": lambda todos, odd: todos.publication(odd),
    "request_review": lambda todos, odd: todos.request_review(odd),
    "retry": lambda _, odd: Client("http://127.0.0.1:1/v1", retry=odd),
    "schema_diff": lambda todos, odd: todos.schema_diff({"properties": odd}),
    "sync": lambda todos, odd: todos.records.sync(odd),
    "timeout": lambda _, odd: Client("http://127.0.0.1:1/v1", timeout=odd),
    "verify": lambda _, odd: Client("http://127.0.0.1:1/v1", verify=odd),
    "watch": lambda todos, odd: todos.records.watch(every=odd),
}


@pytest.mark.parametrize("container", [list, dict])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_that_is_nested_too_deep_to_be_shown_is_refused(
    todos: Collection[Record], name: str, container: type
) -> None:
    with pytest.raises(KintoError) as refused:
        ARGUMENTS[name](todos, nested(container))

    assert len(str(refused.value)) < 500


REFUSED: dict[str, tuple[Callable[[Any], object], type[KintoError]]] = {
    "flag of delete": (lambda todos: todos.records.delete(everything="no"), InvalidTypeError),
    "flag of purge": (lambda todos: todos.bucket.history.purge(everything="no"), InvalidTypeError),
    "flag of flush": (lambda todos: todos.client.flush(everything="no"), InvalidTypeError),
    "flag of sync": (lambda todos: todos.records.sync([], delete="no"), InvalidTypeError),
    "flag of load": (lambda todos: todos.client.load(".", timestamps="no"), InvalidTypeError),
    "atomic": (lambda todos: todos.client.unit_of_work(atomic=1), InvalidTypeError),
    "chunked": (lambda todos: todos.client.unit_of_work(chunked="no"), InvalidTypeError),
    "count of a gathering": (lambda todos: todos.client.gather().count(5), InvalidTypeError),
    "history of nothing": (lambda todos: todos.records.history(None), InvalidTypeError),
    "history of a class": (lambda todos: todos.records.history(Record), InvalidTypeError),
    "ids that are none": (lambda todos: todos.records.get_many(None), InvalidTypeError),
    "key of sync": (lambda todos: todos.records.sync([], key=5), InvalidTypeError),
    "fields of sync": (lambda todos: todos.records.sync([], fields=5), InvalidTypeError),
    "field that is no text": (lambda todos: todos.records.filter(F("\ud800") == 1).count(), InvalidFilterError),
    "overlap, text": (lambda todos: todos.records.since(0, overlap="x"), InvalidTypeError),
    "overlap, no number": (lambda todos: todos.records.since(0, overlap=float("nan")), InvalidFilterError),
    "overlap, infinite": (lambda todos: todos.records.since(0, overlap=float("inf")), InvalidFilterError),
    "slice of texts": (lambda todos: todos.records["a":"b"], InvalidTypeError),
    "slice of fractions": (lambda todos: todos.records[1.0:2], InvalidTypeError),
    "client of a model": (lambda todos: Record(client="x", bucket="a", collection="b").save(), InvalidTypeError),
    "client of a record to follow": (lambda todos: follow(None, Item, id="a", path="x"), InvalidTypeError),
    "model of a record to follow": (lambda todos: follow(todos.client, 5, id="a", path="x"), InvalidTypeError),
    "collections of a mirror": (lambda todos: Mirror("m.sqlite", todos.client).sync(5), OfflineError),
    "file of a mirror": (lambda todos: Mirror(5, todos.client), InvalidTypeError),
    "file of a plan, read": (lambda todos: todos.client.load_plan(5), InvalidTypeError),
    "file of a state": (lambda todos: todos.records.update({"n": 1}, state=5), InvalidTypeError),
    "every of watch": (lambda todos: todos.records.watch(every=1e10), InvalidValueError),
    "on_error of watch": (lambda todos: todos.records.watch(on_error="x"), InvalidTypeError),
    "every of follow": (lambda todos: follow(todos.client, Item, id="a", path="x", every=0), InvalidValueError),
    "stale_ok": (lambda todos: todos.records.cached(stale_ok=None), InvalidTypeError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_means_nothing_is_refused_before_anything_is_sent(
    kinto_client: Client, todos: Collection[Record], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, error = REFUSED[name]
    wire = tap(kinto_client)

    with pytest.raises(error):
        call(todos)

    assert wire.requests == []


def ways_of_the_deep(trial: Trial) -> dict[str, Callable[[], object]]:
    """Return more that a caller may do with a value: give it where none belongs, and copy what has it."""
    model, records, odd = trial.model, trial.model.records, trial.odd

    def edited() -> Any:
        one = records.get("stored")
        one.data["other"] = [1]
        one.data["other"].append(odd)
        return one

    return {
        "contains": lambda: F("f0").contains(odd),
        "contains_any": lambda: F("f0").contains_any([odd]),
        "has": lambda: records.filter(has_f0=odd).all(),
        "in": lambda: records.filter(in_f0=odd).all(),
        "field": lambda: F(odd),
        "ref": lambda: records.ref(odd),
        "filter": lambda: records.filter(odd),
        "order_by": lambda: records.order_by(odd),
        "limit": lambda: records.limit(odd),
        "positional": lambda: model(odd),
        "permissions": lambda: model(id="x", permissions={"read": [odd]}),
        "permissions, set": lambda: setattr(records.get("stored"), "permissions", odd),
        "permissions, added": lambda: records.get("stored").permissions.add("read", odd),
        "permissions, named": lambda: records.get("stored").permissions.add(odd, "account:bob"),
        "permissions, patched": lambda: records.get("stored").patch(BasicPatch(permissions=odd)),
        "patch": lambda: records.get("stored").patch(odd),
        "BasicPatch": lambda: records.get("stored").patch(BasicPatch(odd)),
        "MergePatch": lambda: records.get("stored").patch(MergePatch({"f0": odd})),
        "JSONPatch": lambda: records.get("stored").patch(JSONPatch([odd])),
        "JSONPatch, path": lambda: records.get("stored").patch(JSONPatch([{"op": "add", "path": odd}])),
        "on_conflict": lambda: records.get("stored").save(on_conflict=odd),
        "copy": lambda: copy(model(id="x", data={"f0": odd})),
        "deepcopy": lambda: deepcopy(edited()),
        "edited": lambda: (repr(edited().data), edited().is_dirty, edited().to_dict()),
    }


@pytest.mark.parametrize("one", [BasicPatch, JSONPatch, lambda _: BasicPatch(permissions=["read"])])
def test_a_patch_of_another_form_is_refused(todos: Collection[Record], one: Any) -> None:
    with pytest.raises(InvalidTypeError, match="mapping"):
        todos.records.ref("x").patch(one(["title"]))


def attempt(wire: Wiretap, way: str, run: Callable[[], object]) -> None:
    """Run the way; fail for an error that is not ours, and for one of usage after something was sent."""
    wire.requests.clear()
    refused: Exception | None = None
    try:
        run()
    except KintoError as error:
        refused = error
    except Exception as error:
        raise AssertionError(f"{way}: {type(error).__name__}: {error}") from error
    is_sent = isinstance(refused, UsageError) and any(one.is_write for one in wire.requests)
    assert not is_sent, f"{way}: sent, then {refused!r}"

"""Models that are made of the schema of a collection: they load every record, and hold no code of the server's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kinto_orm import Bucket, Client, Collection, Record, UsageError

PULLED = Path(__file__).parents[1] / "typing" / "pulled.py"
"""What is made of this schema; mypy and pyright check it there."""

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "description": "What is\nto be done"},
        "n": {"type": "integer"},
        "done": {"type": "boolean", "default": False},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "due-date": {"type": "string", "format": "date"},
        "save": {"type": "string"},
        "class": {"type": ["string", "null"]},
        "str": {"type": "string"},
        "a_b": {"const": 1},
        "a-b": {},
        "größe": {"type": "number", "default": 1.5},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}]},
        "limits": {"type": "object", "additionalProperties": {"type": "number"}},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "all": {"allOf": [{"$ref": "#/$defs/Name"}]},
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip code": {"type": "string"}},
            "required": ["city"],
        },
        "tree": {"$ref": "#/$defs/Node"},
        "id": {"type": "string"},
        "": {"type": "string"},
    },
    "required": ["title", "n"],
    "$defs": {
        "Name": {"type": "string"},
        "Node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}},
    },
}

RECORDS = [
    {"id": "full", "title": "x", "n": 1, "done": True, "kind": "a", "tags": ["t"], "due-date": "today", "save": "s"}
    | {"class": None, "str": "s", "a_b": 1, "a-b": {"x": 1}, "größe": 2, "pair": ["x", 1], "limits": {"x": 1}}
    | {"either": "x", "all": "y", "address": {"city": "R", "more": 1}, "tree": {"children": [{"children": []}]}}
    | {"": "empty", "undeclared": True},
    {"id": "small", "title": "y", "n": 2},
]


@pytest.fixture
def cfg(kinto_client: Client) -> Collection[Record]:
    bucket = Bucket(id="main", client=kinto_client).save()
    collection = Collection(bucket=bucket, id="iso-codes").save()
    collection.records.bulk_create(RECORDS)
    collection.data["schema"] = SCHEMA
    return collection.save()


def imported(source: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("pulled_model")
    monkeypatch.setitem(sys.modules, "pulled_model", module)
    exec(compile(source, "pulled_model.py", "exec"), module.__dict__)
    return module


def test_a_model_is_written_as_a_person_would(cfg: Collection[Record]) -> None:
    assert cfg.model_source() == PULLED.read_text("utf-8")


def test_it_loads_every_record_and_keeps_each_key(cfg: Collection[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = imported(cfg.model_source(), monkeypatch).IsoCodes

    for record in Collection(bucket=cfg.bucket, id=cfg.id, model=model).records:
        assert type(record) is model
        assert not record.is_dirty
        record.n += 1
        record.save()

    assert cfg.records.get("full").data["address"] == {"city": "R", "more": 1}
    assert [record.data["n"] for record in cfg.records] == [2, 3]


def test_what_a_record_does_not_fit_takes_any_value(cfg: Collection[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    del cfg.data["schema"]
    cfg.save()
    cfg.records.bulk_create(
        [{"id": "old", "n": "many"}, {"id": "older", "title": "z", "n": 1, "done": None, "address": {}}]
    )
    cfg.data["schema"] = SCHEMA
    cfg.save()

    source = cfg.model_source()

    assert "    # required, and the record old lacks it\n    title: str | None = None\n" in source
    assert "    # int by the schema; the record old differs\n    n: Any\n" in source
    assert "    # bool by the schema; the record older differs\n    done: Any = False\n" in source
    model: Any = imported(source, monkeypatch).IsoCodes
    assert all(type(one) is model for one in Collection(bucket=cfg.bucket, id=cfg.id, model=model).records)


EVIL = '"""\nraise SystemExit("evil")\n\'\'\'\x1b]0;'


def test_nothing_of_a_schema_becomes_code(kinto_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = {"description": EVIL, "default": EVIL, "type": "string"}
    nested = {"type": "object", "properties": {EVIL: evil}, "description": EVIL}
    properties = {EVIL: evil, "nested": nested, "choice": {"enum": [EVIL]}, "ref": {"$ref": f"#/$defs/{EVIL}"}}
    schema = {"type": "object", "properties": properties, "$defs": {EVIL: nested}, "required": [EVIL]}
    bucket = Bucket(id="main", client=kinto_client).save()
    cfg = Collection(bucket=bucket, id="class").save()
    cfg.records.create(id="x", data={"choice": EVIL})
    cfg.data["schema"] = schema
    cfg.save()

    source = cfg.model_source()

    imported(source, monkeypatch)
    assert source.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"$ref": "#/$defs/None"}}},
        {"properties": {"x": {"$ref": "#/properties/x"}}},
        {"$ref": "#"},
        {"properties": {"Record": {"type": "string"}, "Any": {}}, "required": ["other"]},
        {"type": "object"},
    ],
)
def test_a_schema_that_says_little_is_a_model_with_little(
    schema: dict[str, Any], kinto_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(id="main", client=kinto_client).save()
    cfg = Collection(bucket=bucket, id="9lives", data={"schema": schema}).save()

    assert issubclass(imported(cfg.model_source(), monkeypatch).Model9lives, Record)


def test_where_there_is_no_schema_it_says_how_to_make_one(todos: Collection[Record]) -> None:
    with pytest.raises(UsageError, match=r"has no schema.*schema_diff\(Model\)\.push\(\)"):
        todos.model_source()

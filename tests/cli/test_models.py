"""The verbs that make and check models."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command

from kinto_orm import Collection, Record


@pytest.fixture
def typed(cfg: Collection[Record]) -> Collection[Record]:
    """The collection with a schema."""
    cfg.data["schema"] = {"type": "object", "properties": {"title": {"type": "string"}, "n": {"type": "integer"}}}
    return cfg.save()


def test_a_model_is_pulled_and_checked(kinto: Command, typed: Collection[Record], tmp_path: Path) -> None:
    file = tmp_path / "cfg.py"
    pulled = kinto("models", "pull", "main/cfg")
    file.write_text(pulled.out)

    same = kinto("models", "check", "main/cfg", file)
    typed.data["schema"] = {"type": "object", "properties": {"title": {"type": "string"}, "m": {}}}
    typed.save()
    other = kinto("models", "check", "main/cfg", file)

    assert pulled.code == 0
    assert 'class Cfg(Record, bucket="main", collection="cfg"):\n' in pulled.out
    assert (same.code, same.out, same.err) == (0, "", f"kinto-orm: {file} is as models pull would write it\n")
    assert other.code == 1
    assert "-    n: int | None = None\n+    m: Any = None\n" in other.out


def test_records_that_do_not_fit_a_model_are_listed(kinto: Command, typed: Collection[Record], tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text("from kinto_orm import Record\n\nclass Cfg(Record):\n    n: int\n    title: str\n")
    model = f"{file}:Cfg"

    assert kinto("models", "check", "main/cfg", model).err == "kinto-orm: every record fits\n"
    typed.records.create(id="d", data={"n": 4})
    run = kinto("models", "check", "main/cfg", model)

    assert run.code == 1
    assert run.lines[0]["id"] == "d" and "title" in run.lines[0]["problem"]


def test_without_a_schema_it_says_how_to_make_one(kinto: Command, cfg: Collection[Record]) -> None:
    run = kinto("models", "pull", "main/cfg")

    assert (run.code, run.out) == (2, "")
    assert "kinto-orm schema push PATH FILE.py:CLASS" in run.err

"""Imports, measured in a process that has imported none of the modules."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from job import Job, Work


def kinto_http(job: Job) -> Work:
    return _importing("kinto_http")


def kinto_orm(job: Job) -> Work:
    return _importing("kinto_orm")


def requests_and_pydantic(job: Job) -> Work:
    """Import them, and make a small model: pydantic loads most of itself only then."""

    def work() -> int:
        import_module("requests")
        pydantic: Any = import_module("pydantic")
        pydantic.create_model("Todo", __base__=pydantic.BaseModel, title=(str, ...), priority=(int, 1))
        return 1

    return work


def _importing(*names: str) -> Work:
    return lambda: len([import_module(name) for name in names]) // len(names)

"""Imports, measured in a process that has imported none of the modules."""

from __future__ import annotations

from importlib import import_module

from job import Job, Work


def kinto_http(job: Job) -> Work:
    return _importing("kinto_http")


def kinto_orm(job: Job) -> Work:
    return _importing("kinto_orm")


def requests_and_pydantic(job: Job) -> Work:
    return _importing("requests", "pydantic")


def _importing(*names: str) -> Work:
    return lambda: len([import_module(name) for name in names]) // len(names)

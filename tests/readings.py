"""Every way of reading one record, for tests that compare them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from kinto_orm import Client

WAYS = (
    *("get", "get of a filter", "first", "one", "all", "iteration", "pages", "get_many", "since", "refresh"),
    *("uow.get", "get_or_create", "as_of", "as_of get", "partitions", "parallel", "changed since"),
)


def readings(model: Any, id: str, client: Client, ways: Collection[str] = WAYS) -> dict[str, Any]:
    """Return the record as each of these ways of reading gives it: none shares anything with another."""
    records = model.records
    by_id = records.filter(id=id)
    now = records.get(id).last_modified

    def of_unit() -> Any:
        with client.unit_of_work() as uow:
            return uow.get(model, id)

    found: dict[str, Callable[[], Any]] = {
        "get": lambda: records.get(id),
        "get of a filter": lambda: by_id.get(id),
        "first": lambda: by_id.first(),
        "one": lambda: by_id.one(),
        "all": lambda: by_id.all()[0],
        "iteration": lambda: next(iter(by_id)),
        "pages": lambda: next(by_id.pages()).objects[0],
        "get_many": lambda: records.get_many([id])[0],
        "since": lambda: next(one for one in records.since(now - 1) if one.id == id),
        "refresh": lambda: by_id.one().refresh(),
        "uow.get": of_unit,
        "get_or_create": lambda: records.get_or_create(id, {})[0] if _needs_nothing(model) else records.get(id),
        "as_of": lambda: next(one for one in records.as_of(now).all() if one.id == id),
        "as_of get": lambda: records.as_of(now).get(id),
        "partitions": lambda: next(one for part in records.partitions(2) for one in part if one.id == id),
        "parallel": lambda: next(one for one in records.parallel(2) if one.id == id),
        "changed since": lambda: records.filter(gt_last_modified=now - 1, id=id).all()[0],
    }
    assert set(found) == set(WAYS)
    return {way: found[way]() for way in ways}


def _needs_nothing(model: Any) -> bool:
    return not any(field.is_required() for field in model.model_fields.values())

"""Every way of reading one record, for tests that compare them."""

from __future__ import annotations

from typing import Any

from kinto_orm import Client

WAYS = (
    *("get", "get of a filter", "first", "one", "all", "iteration", "pages", "get_many", "since", "refresh"),
    *("uow.get", "get_or_create", "as_of", "as_of get", "partitions", "parallel", "changed since"),
)


def readings(model: Any, id: str, client: Client) -> dict[str, Any]:
    """Return the record as each way of reading gives it: none shares anything with another."""
    records = model.records
    by_id = records.filter(id=id)
    now = records.get(id).last_modified
    with client.unit_of_work() as uow:
        of_unit = uow.get(model, id)
    return {
        "get": records.get(id),
        "get of a filter": by_id.get(id),
        "first": by_id.first(),
        "one": by_id.one(),
        "all": by_id.all()[0],
        "iteration": next(iter(by_id)),
        "pages": next(by_id.pages()).objects[0],
        "get_many": records.get_many([id])[0],
        "since": next(one for one in records.since(now - 1) if one.id == id),
        "refresh": by_id.one().refresh(),
        "uow.get": of_unit,
        "get_or_create": records.get_or_create(id, {})[0] if _needs_nothing(model) else records.get(id),
        "as_of": next(one for one in records.as_of(now).all() if one.id == id),
        "as_of get": records.as_of(now).get(id),
        "partitions": next(one for part in records.partitions(2) for one in part if one.id == id),
        "parallel": next(one for one in records.parallel(2) if one.id == id),
        "changed since": records.filter(gt_last_modified=now - 1, id=id).all()[0],
    }


def _needs_nothing(model: Any) -> bool:
    return not any(field.is_required() for field in model.model_fields.values())

"""What a query asks for, as a value: conditions, order, fields, how many."""

from __future__ import annotations

from dataclasses import dataclass

from kinto_orm.errors import UsageError
from kinto_orm.protocol.filters import Condition, encode_conditions
from kinto_orm.protocol.json_values import etag


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for: a value, without the place."""

    conditions: tuple[Condition, ...] = ()
    order: tuple[str, ...] | None = None
    fields: tuple[str, ...] = ()
    limit: int | None = None
    skip: int = 0
    page_size: int | None = None
    since: int | None = None
    before: int | None = None
    is_newest_first: bool = False
    """Kinto's own order, for the native ``_limit`` only: while others write, its pages may miss updated records."""

    def parameters(self, page_size: int | None = None) -> list[tuple[str, str]]:
        """The query parameters."""
        params = encode_conditions(self.conditions)
        if self.since is not None:
            params.append(("_since", etag(self.since)))
        if self.before is not None:
            params.append(("_before", etag(self.before)))
        if self.order:
            params.append(("_sort", ",".join(self.order)))
        elif page_size is not None and not self.is_newest_first:
            params.append(("_sort", "id"))
        if self.fields:
            params.append(("_fields", ",".join(self.fields)))
        if page_size is not None:
            params.append(("_limit", str(page_size)))
        return params

    @property
    def is_filtered(self) -> bool:
        """Whether it asks for less than the whole list; ``exclude()`` without values does not."""
        return bool(encode_conditions(self.conditions)) or self.since is not None or self.before is not None

    def check_deletion(self, verb: str, *, everything: bool) -> None:
        """Raises ``UsageError`` where it is more, or less, than a deletion on the server would delete."""
        if self.limit is not None or self.skip or self.fields:
            raise UsageError(
                f"{verb}() deletes all that matches: it cannot be combined with limit(), slices or only()."
            )
        if not self.is_filtered and not everything:
            raise UsageError(f"{verb}() without a filter would delete everything: say {verb}(everything=True).")

    @property
    def may_hold_tombstones(self) -> bool:
        """Whether Kinto adds tombstones: it does as soon as the time of change is asked for."""
        asks_time = any(one.field == "last_modified" for one in self.conditions)
        return asks_time or self.since is not None or self.before is not None or self._asks_deleted

    @property
    def _asks_deleted(self) -> bool:
        return any(one.field == "deleted" for one in self.conditions)


EVERYTHING = Selection()
"""The whole list."""

"""The three forms of PATCH, which are those of ``kinto_orm``."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any

from kinto_orm.protocol.patches import (
    JSON_PATCH_TYPE,
    JSON_TYPE,
    MERGE_PATCH_TYPE,
    BasicPatch,
    JSONPatch,
    MergePatch,
    Patch,
)

__all__ = ["BasicPatch", "JSONPatch", "MergePatch", "PatchType"]


class PatchType(ABC):  # noqa: B024  nothing is abstract: subclasses set two attributes
    """The type of every patch, with ``content_type`` and ``body``. The three of ``kinto_orm`` are registered."""

    content_type: str = ""
    body: Any = None


for _kind in (BasicPatch, MergePatch, JSONPatch):
    PatchType.register(_kind)

_BY_CONTENT_TYPE: dict[str, Callable[[Any], Patch]] = {
    JSON_TYPE: lambda body: BasicPatch(**body),
    MERGE_PATCH_TYPE: lambda body: MergePatch(**body),
    JSON_PATCH_TYPE: JSONPatch,
}


def as_patch(changes: object) -> Patch:
    """Return the patch; raise ``TypeError`` for an object that is not one."""
    if isinstance(changes, (BasicPatch, MergePatch, JSONPatch)):
        return changes
    if isinstance(changes, PatchType) and changes.content_type in _BY_CONTENT_TYPE:
        return _BY_CONTENT_TYPE[changes.content_type](changes.body)
    raise TypeError(f"couldn't understand patch body {changes}")

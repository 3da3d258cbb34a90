"""The review of a collection's changes before they are published: the steps, and what each one writes.

https://remote-settings.readthedocs.io/en/latest/case-studies.html, and the plugin ``kinto_remote_settings.signer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from kinto_orm.protocol.json_values import JSONObject


class ReviewStatus(StrEnum):
    """Where a collection is on its way to publication: its ``status``.

    Only the first three stay; the others are requests, which the server answers by one of those.
    """

    WORK_IN_PROGRESS = "work-in-progress"
    """Its records were changed since they were published."""
    TO_REVIEW = "to-review"
    """Somebody asked for a review, and nothing was changed since."""
    SIGNED = "signed"
    """It is as published."""
    TO_SIGN = "to-sign"
    TO_ROLLBACK = "to-rollback"
    TO_RESIGN = "to-resign"


_BY_VALUE = {one.value: one for one in ReviewStatus}
_WORK, _REVIEW, _SIGNED = ReviewStatus.WORK_IN_PROGRESS, ReviewStatus.TO_REVIEW, ReviewStatus.SIGNED


@dataclass(frozen=True, slots=True)
class StepDescription:
    """What a step writes, where it leads to, and where it comes from."""

    writes: ReviewStatus
    leads_to: ReviewStatus | None
    """``None``: where it was."""
    comes_from: frozenset[ReviewStatus | None]
    comment: str | None = None
    """The key of the message."""
    actor: str | None = None
    """The key in which the server keeps who did it last."""
    moment: str | None = None
    """The key in which the server keeps when it was done last, of a step that shows nowhere else."""
    is_done_at: frozenset[ReviewStatus | None] = frozenset()
    """Where there is nothing left to do."""


class ReviewStep(Enum):
    """What is done in a review."""

    REQUEST = StepDescription(
        _REVIEW,
        _REVIEW,
        frozenset({_WORK, None}),
        "last_editor_comment",
        "last_review_request_by",
        is_done_at=frozenset({_REVIEW, _SIGNED}),
    )
    APPROVE = StepDescription(ReviewStatus.TO_SIGN, _SIGNED, frozenset({_REVIEW}), actor="last_review_by")
    DECLINE = StepDescription(_WORK, _WORK, frozenset({_REVIEW}), "last_reviewer_comment")
    ROLLBACK = StepDescription(
        ReviewStatus.TO_ROLLBACK,
        _SIGNED,
        frozenset({_WORK, _REVIEW, None}),
        "last_editor_comment",
        "last_edit_by",
        is_done_at=frozenset({_SIGNED}),
    )
    REFRESH = StepDescription(
        ReviewStatus.TO_RESIGN,
        None,
        frozenset({_WORK, _REVIEW, _SIGNED}),
        actor="last_signature_by",
        moment="last_signature_date",
    )

    @property
    def what(self) -> StepDescription:
        """What it does."""
        description: StepDescription = self.value
        return description

    def data(self, message: str | None = None) -> JSONObject:
        """What is written into the collection."""
        what = self.what
        comment = {} if what.comment is None or message is None else {what.comment: message}
        return {"status": what.writes.value, **comment}


def status_of(data: Mapping[str, Any] | None) -> ReviewStatus | None:
    """The status of a collection with that data; ``None`` where it has none of these."""
    said = (data or {}).get("status")
    return _BY_VALUE.get(said) if isinstance(said, str) else None


@dataclass(frozen=True, slots=True)
class ReviewRules:
    """What the server says of the review of one collection."""

    is_enabled: bool
    """Whether somebody else must approve."""

    def sources(self, step: ReviewStep) -> frozenset[ReviewStatus | None]:
        """The statuses in which the step is possible."""
        if step is ReviewStep.APPROVE and not self.is_enabled:
            return step.what.comes_from | {_WORK}
        return step.what.comes_from


def rules_of(capability: Mapping[str, Any], bucket: str, collection: str) -> ReviewRules | None:
    """The rules for that collection, out of the capability ``signer``; ``None`` where it is not under review."""
    resources = capability.get("resources")
    enabled = capability.get("to_review_enabled", False)
    found: ReviewRules | None = None
    for resource in resources if isinstance(resources, list) else ():
        source = resource.get("source") if isinstance(resource, Mapping) else None
        if not isinstance(source, Mapping) or source.get("bucket") != bucket:
            continue
        rules = ReviewRules(bool(resource.get("to_review_enabled", enabled)))
        if source.get("collection") == collection:
            return rules  # said of this very collection, which counts more
        if source.get("collection") is None:
            found = rules
    return found

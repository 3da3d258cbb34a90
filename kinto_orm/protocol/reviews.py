"""Reviews of a collection's changes before their publication: the steps, and the data that each one writes.

https://remote-settings.readthedocs.io/en/latest/case-studies.html, and the plugin ``kinto_remote_settings.signer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from kinto_orm.protocol.json_values import JSONObject


class ReviewStatus(StrEnum):
    """The ``status`` of a collection on its way to publication.

    A collection stays in one of the first three. The others are requests, which the server answers with one of the
    three.
    """

    WORK_IN_PROGRESS = "work-in-progress"
    """Its records were changed since its publication."""
    TO_REVIEW = "to-review"
    """An editor asked for a review, and nothing was changed since."""
    SIGNED = "signed"
    """It is as published."""
    TO_SIGN = "to-sign"
    TO_ROLLBACK = "to-rollback"
    TO_RESIGN = "to-resign"


_BY_VALUE = {one.value: one for one in ReviewStatus}
_WORK, _REVIEW, _SIGNED = ReviewStatus.WORK_IN_PROGRESS, ReviewStatus.TO_REVIEW, ReviewStatus.SIGNED


class StepDescription(NamedTuple):
    """The status that a step writes, the one that it leads to, and those that it starts from."""

    writes: ReviewStatus
    leads_to: ReviewStatus | None
    """The status after the step; ``None`` where it stays the same."""
    comes_from: frozenset[ReviewStatus | None]
    comment: str | None = None
    """The key of the message."""
    actor: str | None = None
    """The key in which the server stores the last user of the step."""
    moment: str | None = None
    """The key in which the server stores the time of the last step, where only that shows it."""
    is_done_at: frozenset[ReviewStatus | None] = frozenset()
    """The statuses in which nothing is left to do."""


class ReviewStep(Enum):
    """A step of a review."""

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
        """The description of the step."""
        description: StepDescription = self.value
        return description

    def data(self, message: str | None = None) -> JSONObject:
        """Return the data that the step writes into the collection."""
        what = self.what
        comment = {} if what.comment is None or message is None else {what.comment: message}
        return {"status": what.writes.value, **comment}


def status_of(data: Mapping[str, Any] | None) -> ReviewStatus | None:
    """Return the status of a collection with that data; ``None`` where it has none of these."""
    stated = (data or {}).get("status")
    return _BY_VALUE.get(stated) if isinstance(stated, str) else None


class ReviewRules(NamedTuple):
    """The server's rules for the review of one collection."""

    is_enabled: bool
    """Whether another user must approve."""

    def sources(self, step: ReviewStep) -> frozenset[ReviewStatus | None]:
        """Return the statuses in which the step is possible."""
        if step is ReviewStep.APPROVE and not self.is_enabled:
            return step.what.comes_from | {_WORK}
        return step.what.comes_from


def rules_of(capability: Mapping[str, Any], bucket: str, collection: str) -> ReviewRules | None:
    """Return the rules for the collection, from the capability ``signer``; ``None`` where it is under no review."""
    resources = capability.get("resources")
    enabled = capability.get("to_review_enabled", False)
    found: ReviewRules | None = None
    for resource in resources if isinstance(resources, list) else ():
        source = resource.get("source") if isinstance(resource, Mapping) else None
        if not isinstance(source, Mapping) or source.get("bucket") != bucket:
            continue
        rules = ReviewRules(bool(resource.get("to_review_enabled", enabled)))
        if source.get("collection") == collection:
            return rules  # a rule for the collection overrides one for its bucket
        if source.get("collection") is None:
            found = rules
    return found

"""What a server says of its reviews."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_server import Serve, said

from kinto_orm import Client, ConflictError, ReviewError, ReviewStatus
from kinto_orm.protocol.reviews import ReviewRules, ReviewStep, rules_of, status_of


def resource(bucket: str = "b", collection: str | None = None, **more: Any) -> dict[str, Any]:
    return {"source": {"bucket": bucket, "collection": collection}, **more}


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ({}, None),
        ({"resources": []}, None),
        ({"resources": 5}, None),
        ({"resources": [3, {}, {"source": "b"}]}, None),
        ({"resources": [resource("other")]}, None),
        ({"resources": [resource(collection="other")]}, None),
        ({"resources": [resource()]}, ReviewRules(is_enabled=False)),
        ({"resources": [resource()], "to_review_enabled": True}, ReviewRules(is_enabled=True)),
        ({"resources": [resource(to_review_enabled=False)], "to_review_enabled": True}, ReviewRules(is_enabled=False)),
        (
            {"resources": [resource(collection="c", to_review_enabled=True), resource(to_review_enabled=False)]},
            ReviewRules(is_enabled=True),
        ),
        (
            {"resources": [resource(to_review_enabled=False), resource(collection="c", to_review_enabled=True)]},
            ReviewRules(is_enabled=True),
        ),
    ],
)
def test_the_rules_of_the_collection_itself_count_more_than_those_of_its_bucket(
    capability: Any, expected: ReviewRules | None
) -> None:
    assert rules_of(capability, "b", "c") == expected


def test_without_reviews_a_work_in_progress_is_approved_at_once() -> None:
    work, review = ReviewStatus.WORK_IN_PROGRESS, ReviewStatus.TO_REVIEW

    assert ReviewRules(is_enabled=False).sources(ReviewStep.APPROVE) == {work, review}
    assert ReviewRules(is_enabled=True).sources(ReviewStep.APPROVE) == {review}
    assert ReviewRules(is_enabled=False).sources(ReviewStep.DECLINE) == {review}


@pytest.mark.parametrize("data", [None, {}, {"status": None}, {"status": 3}, {"status": "x"}, {"status": ["signed"]}])
def test_another_status_is_none(data: Any) -> None:
    assert status_of(data) is None


def test_a_refusal_that_does_not_show_the_collection_is_a_conflict_too(serve: Serve) -> None:
    info = {"capabilities": {"signer": {"resources": [resource()]}}}
    there = {"data": {"id": "c", "last_modified": 5, "status": "work-in-progress"}}
    server = serve(said(there), said(info), said({"errno": 114}, "412 Precondition Failed"))

    with Client(server.url, auth=("user", "secret"), retry=0) as client:
        collection = client.bucket("b").collections.get("c")
        with pytest.raises(ReviewError, match="is work-in-progress"):
            collection.decline("no")
        with pytest.raises(ConflictError) as caught:
            collection.rollback("no")

    assert (caught.value.base, caught.value.theirs) == ({"status": "work-in-progress"}, None)
    client.close()

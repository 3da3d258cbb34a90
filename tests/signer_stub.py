"""A stand-in for the signer of kinto-remote-settings, which is on no package index: a plugin for a real Kinto.

It makes the documented transitions, by listeners, as the original does: a write of a record makes its collection a work
in progress, a member of the editors asks for a review, a reviewer who is another user approves it, which publishes the
records. It signs nothing, and knows no preview.
https://github.com/mozilla/remote-settings/tree/main/kinto-remote-settings
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NoReturn

from kinto.core import errors
from kinto.core.events import ACTIONS, ResourceChanged
from pyramid import httpexceptions
from pyramid.settings import asbool

SOURCE, DESTINATION = "workspace", "main"
OWN = ("last_edit_by", "last_review_request_by", "last_review_by", "last_signature_by", "last_signature_date")


def includeme(config: Any) -> None:
    """Kinto's way to load a plugin. Setting: ``signer.to_review_enabled``."""
    resource = {
        "source": {"bucket": SOURCE, "collection": None},
        "destination": {"bucket": DESTINATION, "collection": None},
    }
    config.add_api_capability(
        "signer",
        description="Reviews",
        version="stub",
        resources=[resource],
        to_review_enabled=asbool(config.get_settings().get("signer.to_review_enabled")),
        editors_group="{collection_id}-editors",
        reviewers_group="{collection_id}-reviewers",
    )
    config.add_subscriber(on_records, ResourceChanged, for_resources=("record",))
    config.add_subscriber(
        on_collections, ResourceChanged, for_resources=("collection",), for_actions=(ACTIONS.CREATE, ACTIONS.UPDATE)
    )


def on_records(event: Any) -> None:
    """Make the collection of a written record a work in progress."""
    if event.payload["bucket_id"] == SOURCE:
        update(event, event.payload["collection_id"], status="work-in-progress", last_edit_by=user(event))


def on_collections(event: Any) -> None:
    """Carry out the step of a review that a write of the collection's status stands for."""
    if event.payload["bucket_id"] != SOURCE:
        return
    for change in list(event.impacted_objects):
        old, new = change.get("old", {}), change["new"]
        if event.payload["action"] == ACTIONS.CREATE.value:
            update(event, new["id"], status="signed", **signature(event))
            continue
        if any(old.get(key) != new.get(key) for key in OWN):
            refuse("Cannot change what the server tracks")
        if old.get("status") != new.get("status"):
            STEPS.get(new.get("status"), unknown)(event, old, new)


def work_in_progress(event: Any, old: Any, new: Any) -> None:
    """Accept a change, in every status."""


def to_review(event: Any, old: Any, new: Any) -> None:
    if is_enabled(event):
        check_group(event, f"{new['id']}-editors")
    update(event, new["id"], last_review_request_by=user(event))


def to_sign(event: Any, old: Any, new: Any) -> None:
    if old.get("status") == "signed":
        refuse("Collection already signed")
    if is_enabled(event):
        check_group(event, f"{new['id']}-reviewers")
        if old.get("status") != "to-review":
            refuse("Collection not under review")
        if old.get("last_review_request_by") == user(event):
            forbid("Last editor cannot review")
    copy(event, new["id"], SOURCE, DESTINATION)
    update(event, new["id"], status="signed", last_review_by=user(event), **signature(event))


def to_rollback(event: Any, old: Any, new: Any) -> None:
    if old.get("status") == "signed":
        refuse("Collection has no work-in-progress")
    copy(event, new["id"], DESTINATION, SOURCE)
    update(event, new["id"], status="signed", last_edit_by=user(event), last_editor_comment="")


def to_resign(event: Any, old: Any, new: Any) -> None:
    update(event, new["id"], status=old.get("status"), **signature(event))


def unknown(event: Any, old: Any, new: Any) -> None:
    refuse(f"Invalid status {new.get('status')!r}")


STEPS = {
    "work-in-progress": work_in_progress,
    "to-review": to_review,
    "to-sign": to_sign,
    "to-rollback": to_rollback,
    "to-resign": to_resign,
}


def user(event: Any) -> str:
    return str(event.request.prefixed_userid)


def signature(event: Any) -> dict[str, str]:
    """Who signed, and when."""
    return {"last_signature_by": user(event), "last_signature_date": datetime.now(UTC).isoformat()}


def is_enabled(event: Any) -> bool:
    return asbool(event.request.registry.settings.get("signer.to_review_enabled"))


def check_group(event: Any, group: str) -> None:
    if f"/buckets/{SOURCE}/groups/{group}" not in event.request.prefixed_principals:
        forbid(f"Not in {group} group")


def refuse(message: str) -> NoReturn:
    raise errors.http_error(httpexceptions.HTTPBadRequest(), errno=errors.ERRORS.INVALID_POSTED_DATA, message=message)


def forbid(message: str) -> NoReturn:
    raise errors.http_error(httpexceptions.HTTPForbidden(), errno=errors.ERRORS.FORBIDDEN, message=message)


def update(event: Any, collection: str, **attributes: Any) -> None:
    """Change the collection outside the request: its timestamp moves on."""
    storage = event.request.registry.storage
    where = {"resource_name": "collection", "parent_id": f"/buckets/{SOURCE}", "object_id": collection}
    stored = {**storage.get(**where), **attributes}
    del stored["last_modified"]
    storage.update(obj=stored, **where)


def copy(event: Any, collection: str, source: str, destination: str) -> None:
    """Make the records of one bucket those of the other."""
    storage = event.request.registry.storage
    here, there = (
        {"resource_name": "record", "parent_id": f"/buckets/{bucket}/collections/{collection}"}
        for bucket in (source, destination)
    )
    wanted = {record["id"]: record for record in storage.list_all(**here)}
    for record in storage.list_all(**there):
        if record["id"] not in wanted:
            storage.delete(object_id=record["id"], **there)
    for id, record in wanted.items():
        storage.update(object_id=id, obj=record, **there)

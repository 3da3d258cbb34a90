"""A stand-in for kinto-attachment 9 where that is not installed (it needs Python 3.12): a plugin for a real Kinto.

It behaves as ``tests/plugins`` sees the original behave: preconditions are ignored, the old file is removed before the
new one is looked at, a removal makes a missing record, the answer to a removal is a 204 with a body.
https://github.com/Kinto/kinto-attachment
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from kinto.core import Service, errors, utils
from kinto.core.events import ACTIONS, ResourceChanged
from pyramid import httpexceptions
from pyramid.security import NO_PERMISSION_REQUIRED

RECORD = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}"
EXTENSIONS = ("txt", "json", "png", "csv")


def includeme(config: Any) -> None:
    """Kinto's way to load a plugin. Settings: ``attachment.base_path`` and ``attachment.base_url``."""
    settings = config.get_settings()
    config.registry.files = Path(settings["attachment.base_path"])
    config.add_api_capability(
        "attachments", version="stub", description="Files of records", base_url=settings["attachment.base_url"]
    )
    attachment = Service(name="attachment", description="A file of a record", path=f"{RECORD}/attachment")
    attachment.add_view("POST", post, permission=NO_PERMISSION_REQUIRED)
    attachment.add_view("DELETE", delete, permission=NO_PERMISSION_REQUIRED)
    config.add_cornice_service(attachment)
    config.add_subscriber(refuse_edits, ResourceChanged, for_resources=("record",), for_actions=(ACTIONS.UPDATE,))


def post(request: Any) -> Any:
    """Store the file, then the record with it, which is created where it was missing."""
    existing = read(request)
    remove_file(request, existing)
    fields = form(request)
    name, content, mimetype = fields.pop("attachment")
    if name.rpartition(".")[2].lower() not in EXTENSIONS:
        errors.raise_invalid(request, location="body", description="File extension is not allowed.")
    location = f"{uuid.uuid4()}.{name.rpartition('.')[2]}"
    (request.registry.files / location).write_bytes(content)
    metadata = {
        "filename": name,
        "location": urljoin(request.registry.settings["attachment.base_url"], location),
        "hash": hashlib.sha256(content).hexdigest(),
        "mimetype": mimetype,
        "size": len(content),
    }
    body = {field: json.loads(text) for field, (_, text, _) in fields.items()}
    body["data"] = {**body.get("data", {}), "attachment": metadata}
    stored = write(request, body, is_new=existing is None)
    request.response.status = stored.status_code
    request.response.headers["ETag"] = stored.headers["ETag"]
    return metadata


def delete(request: Any) -> None:
    """Remove the file."""
    existing = read(request)
    remove_file(request, existing)
    write(request, {"data": {"attachment": None}}, is_new=existing is None)
    request.response.status = 204


def read(request: Any) -> Any:
    """Return the record, with the rights of the caller; ``None`` where there is none that they may see."""
    try:
        return ask(request, "GET", None).json["data"]
    except (httpexceptions.HTTPNotFound, httpexceptions.HTTPForbidden):
        return None


def write(request: Any, body: Any, *, is_new: bool) -> Any:
    """Store the record."""
    return ask(request, "PUT" if is_new else "PATCH", body)


def ask(request: Any, method: str, body: Any) -> Any:
    path = f"/{request.registry.route_prefix}{RECORD.format(**request.matchdict)}"
    asked = utils.build_request(request, {"method": method, "path": path, "body": body or {}, "headers": {}})
    asked._is_attaching = request._is_attaching = True
    answer, _ = utils.follow_subrequest(request, asked, use_tweens=False)
    return answer


def remove_file(request: Any, existing: Any) -> None:
    """Remove the record's file."""
    metadata = (existing or {}).get("attachment")
    if metadata:
        (request.registry.files / metadata["location"].rpartition("/")[2]).unlink(missing_ok=True)


def form(request: Any) -> dict[str, tuple[str, bytes, str]]:
    """File name, content and type of each part, by its name."""
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = [part[2:-2].split(b"\r\n\r\n", 1) for part in request.body.split(b"--" + boundary)[1:-1]]
    return {said(head.decode(), "; name"): part_of(head.decode(), content) for head, content in parts}


def part_of(head: str, content: bytes) -> tuple[str, bytes, str]:
    return said(head, "; filename"), content, head.partition("Content-Type: ")[2].partition("\r\n")[0]


def said(head: str, name: str) -> str:
    """Return the parameter as WebOb reads it: a backslash escapes a quote or another backslash."""
    found = re.search(rf'{name}="((?:[^"\\]|\\.)*)"', head)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


def refuse_edits(event: Any) -> None:
    """Only this endpoint changes what a record says of its file; it may be left out."""
    if getattr(event.request, "_is_attaching", False):
        return
    for change in event.impacted_objects:
        before, after = change["old"].get("attachment"), change["new"].get("attachment")
        if before and after and before != after:
            raise errors.http_error(httpexceptions.HTTPBadRequest(), message="Attachment metadata cannot be modified.")

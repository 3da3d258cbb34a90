"""A stand-in for the ``changes`` part of kinto-remote-settings, to be included into the embedded Kinto.

The plugin itself is not on PyPI. This does what a client sees of it: the capability, the two endpoints, ``_expected``
which is mandatory, 204 where that is older than ``_since``, the redirect of the monitor where ``_since`` is too old.
It checks no permissions, signs nothing and sends no headers for caches.
https://github.com/mozilla/remote-settings/tree/main/kinto-remote-settings
"""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.errors import ERRORS, http_error, raise_invalid
from kinto.core.storage import Filter, Sort
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import COMPARISON
from pyramid.httpexceptions import HTTPNoContent, HTTPNotFound, HTTPTemporaryRedirect
from pyramid.security import NO_PERMISSION_REQUIRED

OLDEST = 1_000
"""Before this timestamp, the monitor does not go back."""

monitor = Service(name="monitor", path="/buckets/monitor/collections/changes/changeset", description="What changed")
changeset = Service(
    name="changeset", path="/buckets/{bucket_id}/collections/{collection_id}/changeset", description="A collection"
)


def includeme(config: Any) -> None:
    config.add_api_capability("changes", description="Track modifications", url="", collections=[], version="stub")
    config.add_cornice_service(monitor)
    config.add_cornice_service(changeset)


def asked(request: Any) -> tuple[int, int | None]:
    """Return the expected timestamp, and the one after which changes are wanted."""
    if "_expected" not in request.GET:
        raise_invalid(request, location="querystring", name="_expected", description="Required")
    expected, since = int(request.GET["_expected"]), request.GET.get("_since")
    since = None if since is None else int(since.strip('"'))
    if since is not None and expected < since:
        raise HTTPNoContent
    return expected, since


def read(request: Any, uri: str, since: int | None) -> tuple[int, list[dict[str, Any]]]:
    """Return the timestamp of the records, and the records that changed."""
    storage, place = request.registry.storage, {"resource_name": "record", "parent_id": uri}
    filters = [] if since is None else [Filter("last_modified", since, COMPARISON.GT)]
    objects = storage.list_all(
        **place, filters=filters, sorting=[Sort("last_modified", -1)], include_deleted=since is not None
    )
    return storage.resource_timestamp(**place), objects


@monitor.get(permission=NO_PERMISSION_REQUIRED)
def get_monitor(request: Any) -> dict[str, Any]:
    _, since = asked(request)
    if since is not None and since < OLDEST:
        without = {name: value for name, value in request.GET.items() if name != "_since"}
        raise HTTPTemporaryRedirect(request.current_route_url(_query=without))
    storage, entries = request.registry.storage, []
    for bucket in storage.list_all(resource_name="bucket", parent_id=""):
        for one in storage.list_all(resource_name="collection", parent_id=f"/buckets/{bucket['id']}"):
            names = {"bucket": bucket["id"], "collection": one["id"]}
            timestamp, _ = read(request, "/buckets/{bucket}/collections/{collection}".format(**names), None)
            if all(request.GET.get(name, value) == value for name, value in names.items()):
                id = "{bucket}-{collection}".format(**names)
                entries.append({"id": id, "last_modified": timestamp, "host": request.host, **names})
    changes = [one for one in entries if since is None or one["last_modified"] > since]
    changes.sort(key=lambda one: -one["last_modified"])
    timestamp = max((one["last_modified"] for one in entries), default=0)
    return {"metadata": {"bucket": "monitor"}, "timestamp": timestamp, "changes": changes}


@changeset.get(permission=NO_PERMISSION_REQUIRED)
def get_changeset(request: Any) -> dict[str, Any]:
    _, since = asked(request)
    ids = request.matchdict
    bucket = f"/buckets/{ids['bucket_id']}"
    try:
        found = request.registry.storage.get("collection", bucket, ids["collection_id"])
    except ObjectNotFoundError as error:
        raise http_error(HTTPNotFound(), errno=ERRORS.MISSING_RESOURCE) from error
    timestamp, changes = read(request, f"{bucket}/collections/{found['id']}", since)
    return {"metadata": {**found, "bucket": ids["bucket_id"]}, "timestamp": timestamp, "changes": changes}

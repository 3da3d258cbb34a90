"""The floor: the same requests by hand, with ``requests`` and ``json``; no models, no retries, no error handling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any
from uuid import uuid4

import requests
from job import AUTH, BATCH, BUCKET, CHANGED_EVERY, Job, Work
from rows import new_todo, stored_id, wanted_articles

JSON = {"Content-Type": "application/json"}


@cache
def session() -> requests.Session:
    made = requests.Session()
    made.auth = AUTH
    return made


def records_path(job: Job) -> str:
    return f"/buckets/{BUCKET}/collections/{job.collection}/records"


def send_batches(job: Job, entries: Iterable[dict[str, Any]]) -> int:
    stored = 0
    source = iter(entries)
    while chunk := list(islice(source, BATCH)):
        answer = session().post(f"{job.url}/batch", data=json.dumps({"requests": chunk}), headers=JSON)
        stored += sum(part["status"] < 300 for part in answer.json()["responses"])
    return stored


def creations(job: Job, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    path, headers = records_path(job), {"If-None-Match": "*"}
    for number in numbers:
        body = {"data": new_todo(number)}
        yield {"method": "PUT", "path": f"{path}/{uuid4()}", "headers": headers, "body": body}


def write_dicts(job: Job) -> Work:
    return lambda: send_batches(job, creations(job, range(job.count)))


def write_four(job: Job) -> Work:
    """Write one collection after the other."""
    for id in job.collections():
        session().put(f"{job.url}/buckets/{BUCKET}/collections/{id}", json={"data": {}})

    def work() -> int:
        each = (creations(replace(job, collection=id), numbers) for id, numbers in job.collections().items())
        return sum(send_batches(job, entries) for entries in each)

    return work


def read_list(job: Job) -> Work:
    def work() -> int:
        found = 0
        limit = "" if job.page_size is None else f"&_limit={job.page_size}"
        url: str | None = f"{job.url}{records_path(job)}?_sort=id{limit}"
        while url:
            answer = session().get(url)
            found += sum(bool(row["title"]) for row in answer.json()["data"])
            url = answer.headers.get("Next-Page")
        return found

    return work


def read_first(job: Job) -> Work:
    url = f"{job.url}{records_path(job)}?_sort=id&_limit=1"
    return lambda: sum(bool(row["title"]) for row in session().get(url).json()["data"])


def get(job: Job) -> Work:
    url = f"{job.url}{records_path(job)}"

    def title(number: int) -> str:
        return str(session().get(f"{url}/{stored_id(number)}").json()["data"]["title"])

    return lambda: sum(bool(title(number)) for number in range(job.count))


def save(job: Job) -> Work:
    url = f"{job.url}{records_path(job)}/{stored_id(0)}"

    def work() -> int:
        for number in range(job.count):
            body = json.dumps({"data": {"title": f"Another title {number}"}})
            session().patch(url, data=body, headers=JSON).json()
        return job.count

    return work


def save_changed(job: Job) -> Work:
    """Send the changed ones, which the caller names."""
    path = records_path(job)
    entries = [
        {"method": "PATCH", "path": f"{path}/{stored_id(number)}", "body": {"data": {"priority": 1}}}
        for number in range(0, job.count, CHANGED_EVERY)
    ]
    return lambda: send_batches(job, entries) and job.count


def commit(job: Job) -> Work:
    """Send the changes, which the caller names."""
    path = records_path(job)
    entries = [
        {"method": "PATCH", "path": f"{path}/{stored_id(number % BATCH)}", "body": {"data": {"title": f"A {number}"}}}
        for number in range(job.count)
    ]
    return lambda: send_batches(job, entries) and job.count


def get_many(job: Job) -> Work:
    url = f"{job.url}{records_path(job)}?in_id={','.join(map(stored_id, range(job.count)))}"
    return lambda: len(session().get(url).json()["data"])


def delete(job: Job) -> Work:
    ids = map(stored_id, job.numbers())
    url = f"{job.url}{records_path(job)}?in_id={','.join(ids)}"
    return lambda: len(session().delete(url).json()["data"])


def sync_equal(job: Job) -> Work:
    return sync(job, None)


def sync_changed(job: Job) -> Work:
    return sync(job, CHANGED_EVERY)


def sync(job: Job, changed_every: int | None) -> Work:
    rows = {row["id"]: row for row in wanted_articles(job.count, changed_every)}

    def work() -> int:
        url = f"{job.url}{records_path(job)}"
        entries = []
        for row in session().get(url).json()["data"]:
            etag = f'"{row.pop("last_modified")}"'
            if rows[row["id"]] != row:
                path = f"{records_path(job)}/{row['id']}"
                body = {"data": rows[row["id"]]}
                entries.append({"method": "PUT", "path": path, "headers": {"If-Match": etag}, "body": body})
        send_batches(job, entries)
        return job.count

    return work

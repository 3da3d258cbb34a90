"""The work done with kinto-http, as its documentation shows it."""

from __future__ import annotations

import logging
from functools import cache
from itertools import islice
from math import inf
from typing import Any

import kinto_http
from job import AUTH, BATCH, BUCKET, CHANGED_EVERY, Job, Work
from kinto_http.utils import collection_diff
from rows import new_todo, stored_id, wanted_articles

# It warns of every stored record. What that costs on a terminal is not measured: here it is only formatted.
logging.getLogger("kinto_http").addHandler(logging.NullHandler())
logging.getLogger("kinto_http").propagate = False


@cache
def client_of(url: str) -> kinto_http.Client:
    return kinto_http.Client(server_url=url, auth=AUTH, bucket=BUCKET)


def write_dicts(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)

    def work() -> int:
        with client.batch() as batch:
            for number in range(job.count):
                batch.create_record(data=new_todo(number))
        return len(batch.results())

    return work


def whole(job: Job) -> dict[str, Any]:
    return {"pages": inf} if job.page_size is None else {"_limit": job.page_size, "pages": inf}


def write_four(job: Job) -> Work:
    client = client_of(job.url)
    for id in job.collections():
        client.create_collection(id=id, if_not_exists=True)

    def work() -> int:
        stored = 0
        for id, numbers in job.collections().items():
            with client.batch(collection=id) as batch:
                for number in numbers:
                    batch.create_record(data=new_todo(number))
            stored += len(batch.results())
        return stored

    return work


def read_list(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    return lambda: sum(bool(row["title"]) for row in client.get_records(**whole(job)))


def read_generator(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    return lambda: sum(
        bool(row["title"]) for page in client.get_paginated_records(_limit=job.page_size) for row in page["data"]
    )


def read_first(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    return lambda: sum(bool(page["data"][0]["title"]) for page in islice(client.get_paginated_records(), 1))


def get(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    return lambda: sum(bool(client.get_record(id=stored_id(number))["data"]["title"]) for number in range(job.count))


def save(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    data = client.get_record(id=stored_id(0))["data"]

    def work() -> int:
        row = data
        for number in range(job.count):
            row = client.update_record(data={**row, "title": f"Another title {number}"})["data"]
        return job.count

    return work


def save_changed(job: Job) -> Work:
    """Save all: it cannot tell which ones were changed."""
    client = client_of(job.url).clone(collection=job.collection)
    loaded = client.get_records(**whole(job))[: job.count]
    for row in loaded[::CHANGED_EVERY]:
        row["priority"] += 1

    def work() -> int:
        with client.batch() as batch:
            for row in loaded:
                batch.update_record(data=row)
        return len(batch.results())

    return work


def commit(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    rows = client.get_records(_limit=BATCH, pages=1)

    def work() -> int:
        for number in range(job.count // BATCH):
            with client.batch() as batch:
                for row in rows:
                    batch.update_record(data={**row, "title": f"Another title {number}"})
        return job.count

    return work


def get_many(job: Job) -> Work:
    """Read by hand: its batches cannot read."""
    client = client_of(job.url)
    path = f"/buckets/{BUCKET}/collections/{job.collection}/records"

    def work() -> int:
        found = 0
        for start in range(0, job.count, BATCH):
            ids = map(stored_id, range(start, start + BATCH))
            entries = [{"method": "GET", "path": f"{path}/{id}"} for id in ids]
            answer, _ = client.session.request("post", "/batch", payload={"requests": entries})
            found += sum(bool(one["body"]["data"]["title"]) for one in answer["responses"])
        return found

    return work


def delete(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)

    def work() -> int:
        with client.batch() as batch:
            for number in job.numbers():
                batch.delete_record(id=stored_id(number))
        return len(batch.results())

    return work


def sync_equal(job: Job) -> Work:
    return sync(job, None)


def sync_changed(job: Job) -> Work:
    return sync(job, CHANGED_EVERY)


def sync(job: Job, changed_every: int | None) -> Work:
    """Read all, compare, write the difference: as public programs do it."""
    client = client_of(job.url).clone(collection=job.collection)
    rows = wanted_articles(job.count, changed_every)

    def work() -> int:
        missing, changed, others = collection_diff(rows, client.get_records(**whole(job)))
        if missing or changed or others:
            with client.batch() as batch:
                for row in missing:
                    batch.create_record(data=row)
                for old, row in changed:
                    batch.update_record(data=row, if_match=old["last_modified"])
                for row in others:
                    batch.delete_record(id=row["id"], if_match=row["last_modified"])
        return job.count

    return work

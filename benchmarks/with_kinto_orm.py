"""The work done with kinto_orm."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from job import AUTH, BATCH, BUCKET, CHANGED_EVERY, Job, Work
from rows import new_todo, stored_id

from kinto_orm import Client, Manager, Record

R = TypeVar("R", bound=Record)


class Todo(Record):
    title: str
    done: bool
    priority: int
    tags: list[str]


class Article(Record):
    title: str
    author: str
    summary: str
    published: bool
    priority: int
    score: float
    tags: list[str]


@cache
def client_of(url: str) -> Client:
    return Client(url, auth=AUTH, bucket=BUCKET)


def records_of(model: type[R], job: Job) -> Manager[R]:
    client = client_of(job.url)
    return client.clone(collection=job.collection).bind(model).records


def write_models(job: Job) -> Work:
    todos = records_of(Todo, job)
    return lambda: todos.bulk_create(Todo(**new_todo(number)) for number in range(job.count)).created


def write_dicts(job: Job) -> Work:
    todos = records_of(Record, job)
    return lambda: todos.bulk_create(new_todo(number) for number in range(job.count)).created


def read_typed(job: Job) -> Work:
    articles = records_of(Article, job)
    return lambda: sum(bool(article.title) for article in articles.page_size(job.page_size))


def read_untyped(job: Job) -> Work:
    articles = records_of(Record, job)
    return lambda: sum(bool(article.data["title"]) for article in articles.page_size(job.page_size))


def read_typed_kept(job: Job) -> Work:
    articles = records_of(Article, job)
    return lambda: len(articles.page_size(job.page_size).all())


def get(job: Job) -> Work:
    articles = records_of(Article, job)
    return lambda: sum(bool(articles.get(stored_id(number)).title) for number in range(job.count))


def save(job: Job) -> Work:
    article = records_of(Article, job).get(stored_id(0))

    def work() -> int:
        for number in range(job.count):
            article.title = f"Another title {number}"
            article.save()
        return job.count

    return work


def save_changed(job: Job) -> Work:
    articles = records_of(Article, job)
    loaded = articles.page_size(job.page_size).all()
    for article in loaded[::CHANGED_EVERY]:
        article.priority += 1
    return lambda: articles.bulk_update(loaded).stored


def commit(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    loaded = client.bind(Article).records.page_size(job.page_size)[:BATCH].all()

    def work() -> int:
        for number in range(job.count // BATCH):
            with client.unit_of_work():
                for article in loaded:
                    article.title = f"Another title {number}"
                    article.save()
        return job.count

    return work


def get_many(job: Job) -> Work:
    articles = records_of(Article, job)
    return lambda: len(articles.get_many(map(stored_id, range(job.count))))

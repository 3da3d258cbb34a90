"""The work done with kinto_orm."""

from __future__ import annotations

from functools import cache
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TypeVar

from job import AUTH, BATCH, BUCKET, CHANGED_EVERY, Job, Work
from rows import new_todo, stored_id, wanted_articles

from kinto_orm import Client, Collection, Manager, Query, Record

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


def in_pages(query: Query[R], job: Job) -> Query[R]:
    return query if job.page_size is None else query.page_size(job.page_size)


def articles_of(job: Job) -> Query[Article]:
    return in_pages(records_of(Article, job), job)


def write_models(job: Job) -> Work:
    todos = records_of(Todo, job)
    return lambda: todos.bulk_create(Todo(**new_todo(number)) for number in range(job.count)).created


def write_dicts(job: Job) -> Work:
    todos = records_of(Record, job)
    return lambda: todos.bulk_create(new_todo(number) for number in range(job.count)).created


def write_four(job: Job) -> Work:
    client = client_of(job.url)
    collections = {id: Collection(bucket=BUCKET, id=id, client=client) for id in job.collections()}
    client.ensure(*collections.values())

    def work() -> int:
        todos = {collections[id]: (Todo(**new_todo(n)) for n in numbers) for id, numbers in job.collections().items()}
        return sum(report.created for report in client.bulk_create(todos).values())

    return work


def read_typed(job: Job) -> Work:
    articles = articles_of(job)
    return lambda: sum(bool(article.title) for article in articles)


def read_untyped(job: Job) -> Work:
    articles = in_pages(records_of(Record, job), job)
    return lambda: sum(bool(article.data["title"]) for article in articles)


def read_typed_kept(job: Job) -> Work:
    articles = articles_of(job)
    return lambda: len(articles.all())


def read_first(job: Job) -> Work:
    articles = articles_of(job)
    return lambda: sum(bool(article.title) for article in islice(articles, 1))


def read_parallel(job: Job) -> Work:
    articles = articles_of(job).parallel(4)
    return lambda: sum(bool(article.title) for article in articles)


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
    loaded = articles_of(job)[: job.count].all()
    for article in loaded[::CHANGED_EVERY]:
        article.priority += 1
    return lambda: articles.bulk_update(loaded).stored


def commit(job: Job) -> Work:
    client = client_of(job.url).clone(collection=job.collection)
    loaded = client.bind(Article).records[:BATCH].all()

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


def delete(job: Job) -> Work:
    articles = records_of(Article, job)
    return lambda: articles.filter(in_id=list(map(stored_id, job.numbers()))).delete()


def sync_equal(job: Job) -> Work:
    return sync(job, None)


def sync_changed(job: Job) -> Work:
    return sync(job, CHANGED_EVERY)


def sync(job: Job, changed_every: int | None) -> Work:
    records = client_of(job.url).bucket().collection(job.collection).records
    rows = wanted_articles(job.count, changed_every)
    return lambda: records.sync(rows).stored


def dump(job: Job) -> Work:
    """Dump a bucket whose one collection has the records: in the stub it has the same id."""
    bucket = client_of(job.url).bucket(job.collection)

    def work() -> int:
        with TemporaryDirectory() as folder:
            return sum(bucket.dump(folder).collections.values())

    return work

"""Four jobs that programs do with whole collections, each safe to run twice.

Call them with a client: ``Client("https://settings.example.com/v1", auth=("me", "secret"))``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kinto_orm import Client, Record, SyncReport


def publish_domains(client: Client, domains: Iterable[str]) -> SyncReport:
    """Make the list of domains equal to this one, and ask for a review if that changed anything."""
    collection = client.bucket("workspace").collection("domains")
    with collection.publication("r? new domains"):
        return collection.records.sync(({"domain": name} for name in domains), key="domain", delete=True)


def upload_models(client: Client, folder: Path) -> int:
    """Attach each file of the folder to the record of its name; return how many were new or had another content."""
    collection = client.bucket("workspace").collection("models")
    known = {record.id: record for record in collection.records}
    outcomes = []
    for file in sorted(folder.glob("*.txt")):
        record = known.get(file.stem) or Record(collection=collection, id=file.stem)
        outcomes.append(collection.records.attach(record, file))
    return sum(outcome.status != "unchanged" for outcome in outcomes)


def migrate(client: Client, folder: Path) -> None:
    """Do the numbered migrations that were not done yet: each once, also if the process is killed in the middle."""
    records = client.bucket("workspace").collection("prices").records

    def to_cents(record: Record) -> None:
        record.data["price"] *= 100

    def add_currency(record: Record) -> None:
        record.data["currency"] = "EUR"

    for number, migration in enumerate((to_cents, add_currency), 1):
        done = folder / f"migration-{number}.done"
        if not done.exists():
            records.update(migration, state=folder / f"migration-{number}.sqlite")
            done.touch()  # records that are added later are not migrated


def load_countries(client: Client, table: Path) -> SyncReport:
    """Make a collection equal to a table (CSV); show the differences first."""
    records = client.bucket("workspace").collection("countries").records
    plan = records.plan(table, delete=True)
    print(plan)
    return plan.apply()

"""The programs of ``examples/updaters.py``: each does its job, and nothing the second time."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_host import serve_files
from wiretap import tap

from kinto_orm import Bucket, Client, Collection, Group
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import DEFAULT_SETTINGS

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import updaters


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket on a server with files and reviews, whose collections are under review."""
    with serve_files(tmp_path_factory.mktemp("files")) as host:
        settings = {
            "includes": f"{DEFAULT_SETTINGS['includes']} attachment_stub signer_stub",
            "attachment.base_path": str(host.folder),
            "attachment.base_url": host.url,
            "signer.to_review_enabled": "true",
        }
        with EmbeddedServer.memory(**settings) as server, Client.embedded(server=server) as client:
            bucket = Bucket(id="workspace", client=client).save()
            me = client.server_info(refresh=True)["user"]["id"]
            for id in ("domains", "models", "prices", "countries"):
                Collection(bucket=bucket, id=id).save()
                for role in ("editors", "reviewers"):
                    Group(bucket=bucket, id=f"{id}-{role}", members=[me]).replace(safe=False)
            yield bucket


def test_domains_are_published_once(workspace: Bucket) -> None:
    client = workspace.client
    assert isinstance(client, Client)

    assert updaters.publish_domains(client, ["example.com", "example.org"]).created == 2
    collection = workspace.collection("domains").refresh()
    assert collection.data["status"] == "to-review"
    asked = collection.last_modified

    assert updaters.publish_domains(client, ["example.com", "example.org"]).unchanged == 2
    assert workspace.collection("domains").refresh().last_modified == asked


def test_files_are_sent_where_they_are_new(workspace: Bucket, tmp_path: Path) -> None:
    client = workspace.client
    assert isinstance(client, Client)
    (tmp_path / "de.txt").write_bytes(b"1")
    (tmp_path / "fr.txt").write_bytes(b"2")

    assert updaters.upload_models(client, tmp_path) == 2
    (tmp_path / "fr.txt").write_bytes(b"3")
    assert updaters.upload_models(client, tmp_path) == 1
    assert updaters.upload_models(client, tmp_path) == 0


def test_migrations_are_done_once(workspace: Bucket, tmp_path: Path) -> None:
    client = workspace.client
    assert isinstance(client, Client)
    records = workspace.collection("prices").records
    records.sync([{"id": "tea", "price": 4}])

    updaters.migrate(client, tmp_path)
    records.create(id="milk", data={"price": 90, "currency": "EUR"})
    updaters.migrate(client, tmp_path)

    assert dict(records.get("tea").data) == {"price": 400, "currency": "EUR"}
    assert dict(records.get("milk").data) == {"price": 90, "currency": "EUR"}


def test_a_migration_that_is_interrupted_goes_on_where_it_stopped(workspace: Bucket, tmp_path: Path) -> None:
    client = workspace.client
    assert isinstance(client, Client)
    records = workspace.collection("prices").records
    records.sync({"id": f"r{number:02}", "price": number} for number in range(60))
    wire = tap(client)
    send, writes = wire.transport.send, iter([False, True])

    def interrupt(request: Any) -> Any:
        if request.is_write and next(writes, False):
            raise KeyboardInterrupt
        return send(request)

    wire.transport.send = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        updaters.migrate(client, tmp_path)

    updaters.migrate(client, tmp_path)

    assert [one.data["price"] for one in records] == [100 * number for number in range(60)]


@pytest.mark.parametrize("job", ["publish_domains", "upload_models", "migrate", "load_countries"])
def test_each_job_is_short(job: str) -> None:
    assert len(inspect.getsource(getattr(updaters, job)).splitlines()) <= 15


def test_a_table_is_loaded_and_shown(workspace: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = workspace.client
    assert isinstance(client, Client)
    (tmp_path / "countries.csv").write_text("id,name\nde,Germany\nfr,France\n")

    assert updaters.load_countries(client, tmp_path / "countries.csv").created == 2
    assert "+ de" in capsys.readouterr().out
    assert updaters.load_countries(client, tmp_path / "countries.csv").unchanged == 2

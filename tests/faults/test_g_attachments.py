"""Rows G18 to G20: a file from a server goes nowhere but where it was meant to, and only if it is the right one."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from canary import CANARY
from scripted_server import Serve, Server, Talk, answer, drip, one, said

from kinto_orm import (
    CapabilityMissingError,
    ConnectionFailedError,
    InvalidTypeError,
    KintoError,
    ProtocolError,
    Record,
    ResponseError,
)

CONTENT = b"hello, world"
HASH = hashlib.sha256(CONTENT).hexdigest()

Fetch: TypeAlias = Callable[..., Any]
Load: TypeAlias = Callable[..., Record]


@pytest.fixture
def host(serve: Serve) -> Server:
    """The host of the files, which is another one."""
    return serve(answer(CONTENT))


@pytest.fixture
def loaded(talk: Talk, host: Server) -> Load:
    """Gives a record that says this of its file, of a server that says that of its attachments."""

    def load(capabilities: Any = None, **said_of_file: Any) -> Record:
        ours = {"attachments": {"base_url": f"http://{host.host}/files/"}}
        file = {"location": "x/a.txt", "filename": "a.txt", "size": len(CONTENT), "hash": HASH, **said_of_file}
        info = said({"capabilities": ours if capabilities is None else capabilities})
        client, _ = talk(one("r", attachment=file), info)
        record: Record = client.bucket("b").collection("c").records.get("r")
        return record

    return load


@pytest.fixture
def fetch(loaded: Load) -> Fetch:
    """Fetches the file of a record that says this of it."""

    def download(to: Any, **said_of_file: Any) -> Any:
        record = loaded(**said_of_file)
        return record.collection.records.download(record, to)

    return download


NAMES = [
    "../../../pwned",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "CON",
    "nul .txt",
    "com1",
    "C:a.txt",
    "\ud800",
]


@pytest.mark.parametrize("name", NAMES)
def test_g18_a_name_cannot_lead_out_of_the_folder(fetch: Fetch, host: Server, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    with pytest.raises(ProtocolError, match="out of its folder"):
        fetch(folder, filename=name)

    assert (host.requests, list(tmp_path.rglob("*"))) == ([], [folder])
    assert fetch(folder / "mine", filename=name) == folder / "mine"


@pytest.mark.parametrize(
    "location", ["http://evil.example/a", "../secret", "/../secret", "x/../../secret", "%2e%2e/secret", "file:///a"]
)
def test_g18_a_file_is_asked_for_below_the_url_that_the_server_gives(
    fetch: Fetch, host: Server, tmp_path: Path, location: str
) -> None:
    with pytest.raises(KintoError):
        fetch(tmp_path, location=location)

    assert all(request.startswith(b"GET /files/") for request in host.requests)
    assert list(tmp_path.iterdir()) == []


def test_g18_no_credentials_go_to_another_host(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    fetch(tmp_path)

    assert CANARY.encode() not in host.requests[0]
    assert host.header("Authorization") is None


ELSEWHERE = (
    one("r", attachment={"location": "a.txt", "filename": "a.txt", "hash": HASH}),
    said({"capabilities": {"attachments": {"base_url": "http://files.example/"}}}),
)


def test_a_file_comes_by_the_proxy_that_was_given(talk: Talk, serve: Serve, tmp_path: Path) -> None:
    proxy = serve(*ELSEWHERE, answer(CONTENT))
    client, _ = talk(server_url="http://kinto.example/v1", proxies={"http": f"http://{proxy.host}"})
    records = client.bucket("b").collection("c").records

    records.download(records.get("r"), tmp_path)

    assert proxy.requests[-1].startswith(b"GET http://files.example/a.txt ")


def test_a_file_comes_by_the_proxy_of_the_environment_where_that_is_trusted(
    talk: Talk, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(answer(CONTENT))
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client, _ = talk(*ELSEWHERE, trust_env=True)
    records = client.bucket("b").collection("c").records

    records.download(records.get("r"), tmp_path)

    assert proxy.requests[0].startswith(b"GET http://files.example/a.txt ")
    assert CANARY.encode() not in proxy.requests[0]


@pytest.mark.parametrize("content", [b"hello, w0rld", b"hello", b"hello, world, and more"])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_g19_a_file_is_what_its_record_says(
    fetch: Fetch, host: Server, tmp_path: Path, content: bytes, size: int | None
) -> None:
    (tmp_path / "a.txt").write_bytes(b"good")
    host.script = [answer(content)]

    with pytest.raises(ProtocolError, match="the file"):
        fetch(tmp_path, size=size)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"good"]


@pytest.mark.parametrize("content", [b"hello, w0rld", b"hello"])
def test_g19_nothing_of_a_wrong_file_is_written_to_a_stream(fetch: Fetch, host: Server, content: bytes) -> None:
    host.script = [answer(content)]
    stream = io.BytesIO()

    with pytest.raises(ProtocolError, match="the file"):
        fetch(stream)

    assert stream.getvalue() == b""


@pytest.mark.parametrize("target", [b"a.txt", None, 5, io.StringIO()])
def test_what_is_no_place_for_a_file_is_refused_before_it_is_asked_for(fetch: Fetch, host: Server, target: Any) -> None:
    with pytest.raises(InvalidTypeError, match="binary mode"):
        fetch(target)

    assert host.requests == []


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "500 Internal Server Error"])
def test_g20_a_good_file_outlives_a_missing_one(fetch: Fetch, host: Server, tmp_path: Path, status: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"good")
    host.script = [answer(status=status)]

    with pytest.raises(ResponseError, match=status[:3]):
        fetch(tmp_path)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"good"]


def test_g20_a_host_that_is_not_there_is_an_error(loaded: Load, dead_url: str, tmp_path: Path) -> None:
    record = loaded({"attachments": {"base_url": dead_url}})

    with pytest.raises(ConnectionFailedError):
        record.collection.records.download(record, tmp_path)


def test_g20_a_file_that_nobody_waits_for_any_more_is_left(loaded: Load, host: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good")
    host.script = [drip(answer(CONTENT))]
    record = loaded()

    async def impatient() -> None:
        async with asyncio.timeout(0.3):
            await record.collection.records.adownload(record, tmp_path)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())  # waits for its threads

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"good"]


@pytest.mark.parametrize("capability", [{}, {"base_url": None}])
def test_a_server_that_does_not_say_where_its_files_are(loaded: Load, tmp_path: Path, capability: Any) -> None:
    record = loaded({"attachments": capability})

    with pytest.raises(ProtocolError, match="base_url"):
        record.collection.records.download(record, tmp_path)


def test_a_server_without_the_plugin_is_sent_nothing(loaded: Load, tmp_path: Path) -> None:
    record = loaded({})
    records = record.collection.records

    for call in (
        lambda: records.attach(record, CONTENT, filename="b.txt"),
        lambda: records.detach(record),
        lambda: records.download(record, tmp_path),
    ):
        with pytest.raises(CapabilityMissingError, match="kinto-attachment"):
            call()

"""Rows G18 to G20: a file from a server goes nowhere but where it was meant to, and only if it is the right one."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import io
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from canary import CANARY
from scripted_server import Serve, Server, Talk, answer, chunked, drip, hang, one, said, send_and_close

from kinto_orm import (
    CapabilityMissingError,
    ConnectionFailedError,
    ConnectionLostError,
    InvalidTypeError,
    KintoError,
    ProtocolError,
    Record,
    ResponseError,
    UsageError,
)
from kinto_orm.transport import files

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

    def download(to: Any, options: Any = None, **said_of_file: Any) -> Any:
        record = loaded(**said_of_file)
        return record.collection.records.download(record, to, **(options or {}))

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
        fetch(tmp_path, {"overwrite": True}, size=size)

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
        fetch(tmp_path, {"overwrite": True})

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
            await record.collection.records.adownload(record, tmp_path, overwrite=True)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())  # waits for its threads

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"good"]


# -- O02: the deadline holds to the last byte, and a part of a file is an error ---------------------------------------


UNKNOWN = {"size": None, "hash": None}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(drip(answer(b"x" * 500)), id="dripping-head"),
        pytest.param(lambda it: (it.sendall(answer(b"x" * 500)[:40]), drip(b"x" * 500)(it)), id="dripping-body"),
        pytest.param(hang, id="silent"),
    ],
)
def test_o02_the_deadline_holds_to_the_last_byte(talk: Talk, host: Server, tmp_path: Path, script: Any) -> None:
    host.script = [script]
    info = said({"capabilities": {"attachments": {"base_url": f"http://{host.host}/"}}})
    client, _ = talk(one("r", attachment={"location": "a.txt", "filename": "a.txt"}), info, deadline=0.4)
    records = client.bucket("b").collection("c").records
    record = records.get("r")
    started = time.monotonic()

    with pytest.raises(KintoError):
        records.download(record, tmp_path)

    assert time.monotonic() - started < 9  # to read all of it takes longer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(answer(CONTENT)[:-3], id="shorter-than-its-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Cut", id="cut-in-its-headers"),
        pytest.param(chunked(b"hello"), id="last-chunk-missing"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", id="of-no-known-length"),
    ],
)
def test_o02_a_part_of_a_file_is_an_error(fetch: Fetch, host: Server, tmp_path: Path, part: bytes) -> None:
    host.script = [send_and_close(part)]

    with pytest.raises((ConnectionLostError, ProtocolError)):
        fetch(tmp_path, **UNKNOWN)

    assert list(tmp_path.iterdir()) == []


def test_o02_a_file_is_asked_for_again_where_its_answer_got_lost(talk: Talk, host: Server, tmp_path: Path) -> None:
    host.script = [send_and_close(answer(CONTENT)[:-3]), answer(status="503 Busy"), answer(CONTENT)]
    info = said({"capabilities": {"attachments": {"base_url": f"http://{host.host}/"}}})
    client, _ = talk(one("r", attachment={"location": "a.txt", "filename": "a.txt", "hash": HASH}), info, retry=2)
    records = client.bucket("b").collection("c").records

    assert records.download(records.get("r"), tmp_path).read_bytes() == CONTENT


# -- O03: from where, and how much ------------------------------------------------------------------------------------


def redirect(url: str, body: bytes = b"", *headers: str) -> bytes:
    return answer(body, f"Location: {url}", *headers, status="302 Found")


def test_o03_a_redirect_to_another_host_is_not_followed(
    fetch: Fetch, host: Server, serve: Serve, tmp_path: Path
) -> None:
    other = serve(answer(CONTENT))
    host.script = [redirect(f"http://{other.host}/a.txt")]

    with pytest.raises(ProtocolError, match=r"another host.*allow_hosts"):
        fetch(tmp_path)

    assert other.requests == []
    assert fetch(tmp_path, {"allow_hosts": [other.host]}).read_bytes() == CONTENT


@pytest.mark.parametrize("location", ["/b.txt", "b.txt", "?again"])
def test_o03_a_redirect_on_the_same_host_is_followed(fetch: Fetch, host: Server, tmp_path: Path, location: str) -> None:
    host.script = [redirect(location), answer(CONTENT)]

    assert fetch(tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[::1", "http://a@127.0.0.1/"])
def test_o03_a_redirect_to_what_is_no_file_of_http_is_refused(
    fetch: Fetch, host: Server, tmp_path: Path, location: str
) -> None:
    host.script = [redirect(location)]

    with pytest.raises(ProtocolError, match="redirected to"):
        fetch(tmp_path)


def test_o03_redirects_have_an_end(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    host.script = [redirect("/again")]

    with pytest.raises(ProtocolError, match="for ever"):
        fetch(tmp_path)

    assert len(host.requests) == 5


@pytest.mark.parametrize("base", ["127.0.0.1:1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[fe80::1]"])
def test_o03_a_public_server_cannot_name_a_file_on_a_private_network(
    talk: Talk, serve: Serve, tmp_path: Path, base: str
) -> None:
    info = said({"capabilities": {"attachments": {"base_url": f"http://{base}/"}}})
    proxy = serve(one("r", attachment={"location": "a.txt", "filename": "a.txt", "hash": HASH}), info, answer(CONTENT))
    client, _ = talk(server_url="http://kinto.example/v1", proxies={"http": f"http://{proxy.host}"})
    records = client.bucket("b").collection("c").records
    record = records.get("r")

    with pytest.raises(ProtocolError, match="private network"):
        records.download(record, tmp_path)

    assert len(proxy.requests) == 2


def test_o03_a_file_has_the_size_that_its_record_says(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    host.script = [answer(bomb, "Content-Encoding: gzip")]
    tracemalloc.start()

    with pytest.raises(ProtocolError, match="larger than the 12 bytes"):
        fetch(tmp_path)

    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_o03_a_file_of_no_known_size_is_bounded(
    fetch: Fetch, host: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 5)

    with pytest.raises(ProtocolError, match="larger than the 5 bytes allowed"):
        fetch(tmp_path, size=None)
    with pytest.raises(ProtocolError, match="larger than the 8 bytes allowed"):
        fetch(tmp_path, {"max_bytes": 8}, size=None)
    with pytest.raises(UsageError, match="more than max_bytes=8"):
        fetch(tmp_path, {"max_bytes": 8})
    assert fetch(tmp_path, {"max_bytes": 12}, size=None).read_bytes() == CONTENT


def test_o03_the_body_of_a_redirect_is_not_read(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    host.script = [redirect("/b", bomb, "Content-Encoding: gzip"), answer(CONTENT)]
    tracemalloc.start()

    fetch(tmp_path)

    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_bytes": "1"}, {"max_bytes": True}, {"allow_hosts": "a"}, {"allow_hosts": 5}]
)
def test_options_of_a_download_that_cannot_work_are_refused(
    fetch: Fetch, host: Server, tmp_path: Path, options: Any
) -> None:
    with pytest.raises(InvalidTypeError, match=r"max_bytes|allow_hosts"):
        fetch(tmp_path, options)

    assert host.requests == []


# -- O04: local files -------------------------------------------------------------------------------------------------


def test_o04_another_file_that_is_there_is_kept(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"mine")

    with pytest.raises(UsageError, match="overwrite=True"):
        fetch(tmp_path)

    assert (tmp_path / "a.txt").read_bytes() == b"mine"
    assert host.requests == []
    assert fetch(tmp_path, {"overwrite": True}).read_bytes() == CONTENT


def test_o04_the_same_file_is_not_fetched_again(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(CONTENT)

    assert fetch(tmp_path) == tmp_path / "a.txt"
    assert host.requests == []


def test_o04_a_file_that_appears_meanwhile_is_kept(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    def appear(connection: socket.socket) -> None:
        (tmp_path / "a.txt").write_bytes(b"mine")
        connection.sendall(answer(CONTENT))

    host.script = [appear]

    with pytest.raises(UsageError, match="is there already"):
        fetch(tmp_path)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_o04_a_name_of_the_server_hides_no_file(fetch: Fetch, host: Server, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="hides the file"):
        fetch(tmp_path, filename=".bashrc")

    assert fetch(tmp_path / ".bashrc", filename=".bashrc").read_bytes() == CONTENT


def test_o04_a_full_disk_is_no_error_of_the_network(loaded: Load) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    record = loaded()

    with pytest.raises(OSError, match="No space left"):
        record.collection.records.download(record, Full())


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

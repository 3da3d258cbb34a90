"""Attachments, against a server that speaks as kinto-attachment 9 does (which needs Python 3.12)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from small_server import AUTH

from kinto_orm import kinto_http
from kinto_orm.kinto_http import KintoException

CONTENT = b"hello, world"
HASH = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Files:
    """A stub of a Kinto with kinto-attachment, and of the host of its files."""

    url: str = ""
    uploads: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    served: list[tuple[int, bytes]] = field(default_factory=lambda: [(200, CONTENT)])
    has_attachments: bool = True

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        if path == "/v1/":
            there = {"attachments": {"base_url": f"{self.url}/files/"}} if self.has_attachments else {}
            return 200, json.dumps({"capabilities": there, "settings": {}}).encode()
        if path.startswith("/files/"):
            return self.served.pop(0) if len(self.served) > 1 else self.served[0]
        return (204, b"") if method == "DELETE" else (201, b'{"filename": "a.txt"}')


@pytest.fixture
def files() -> Iterator[Files]:
    stub = Files()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stub.asked.append((self.path, dict(self.headers)))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command != "GET":
                stub.uploads.append((f"{self.command} {self.path}", dict(self.headers), body))
            status, content = stub.answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_DELETE = do_GET  # noqa: N815  the names that http.server looks for

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield stub
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(files: Files) -> Iterator[kinto_http.Client]:
    url = f"{files.url}/v1"
    with kinto_http.Client(server_url=url, auth=AUTH, bucket="b", collection="c", timeout=60) as client:
        yield client


def record(**changes: Any) -> dict[str, Any]:
    attachment = {"location": "x/a.txt", "filename": "a.txt", "size": len(CONTENT), "hash": HASH, **changes}
    return {"id": "r", "attachment": attachment}


def fields(upload: tuple[str, dict[str, str], bytes]) -> dict[str, tuple[str, bytes]]:
    """Return the head and the content of each part, by name."""
    _, headers, body = upload
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    parts = [part.strip(b"\r\n").split(b"\r\n\r\n", 1) for part in body.split(b"--" + boundary)[1:-1]]
    return {re.findall('name="(.*?)"', head.decode())[0]: (head.decode(), content) for head, content in parts}


# -- up ---------------------------------------------------------------------------------------------------------------


def test_a_file_is_sent_with_data_and_permissions_of_its_record(
    client: kinto_http.Client, files: Files, tmp_path: Path
) -> None:
    path = tmp_path / 'a "quoted" name.txt'
    path.write_bytes(CONTENT)

    said = client.add_attachment("r", path, data={"n": 1}, permissions={"read": ["bob"]}, mimetype="text/custom")

    assert said == {"filename": "a.txt"}
    assert files.uploads[0][0] == "POST /v1/buckets/b/collections/c/records/r/attachment"
    parts = fields(files.uploads[0])
    assert json.loads(parts["data"][1]) == {"n": 1}
    assert json.loads(parts["permissions"][1]) == {"read": ["bob"]}
    head, content = parts["attachment"]
    assert 'filename="a \\"quoted\\" name.txt"\r\nContent-Type: text/custom' in head
    assert content == CONTENT


@pytest.mark.parametrize("given", [CONTENT, io.BytesIO(CONTENT)])
def test_a_file_may_be_given_by_its_content(client: kinto_http.Client, files: Files, given: Any) -> None:
    client.add_attachment("r", given, filename="a.json", bucket="x", collection="y")

    assert files.uploads[0][0] == "POST /v1/buckets/x/collections/y/records/r/attachment"
    assert set(fields(files.uploads[0])) == {"attachment"}
    assert "Content-Type: application/json" in fields(files.uploads[0])["attachment"][0]


def test_an_open_file_has_a_name(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a.unknown"
    path.write_bytes(CONTENT)

    with path.open("rb") as file:
        client.add_attachment("r", file)

    head, _ = fields(files.uploads[0])["attachment"]
    assert 'filename="a.unknown"\r\nContent-Type: application/octet-stream' in head


def test_a_content_without_a_name_is_refused(client: kinto_http.Client, files: Files) -> None:
    with pytest.raises(TypeError, match="filename="):
        client.add_attachment("r", CONTENT)
    with pytest.raises(KintoException, match="content type"):
        client.add_attachment("r", CONTENT, "a.txt", mimetype="text/\n")

    assert files.uploads == []


def test_q50_the_whole_file_is_sent_again(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    refusals = [(503, b'{"errno": 201}'), (201, b"{}")]
    files.answer = lambda method, path: refusals.pop(0)  # type: ignore[method-assign]  # a server that is busy at first

    client.clone(retry=1, retry_after=0).add_attachment("r", path)

    assert [fields(upload)["attachment"][1] for upload in files.uploads] == [CONTENT, CONTENT]


def test_an_attachment_is_removed(client: kinto_http.Client, files: Files) -> None:
    assert client.remove_attachment("r") is None

    assert files.uploads[0][0] == "DELETE /v1/buckets/b/collections/c/records/r/attachment"


def test_files_go_through_the_session_too(client: kinto_http.Client, files: Files) -> None:
    client.session.request(
        "post",
        client.get_endpoint("attachment", id="r"),
        data='{"n": 1}',
        files=[("attachment", ("a.txt", io.BytesIO(CONTENT), None)), ("more", ("b.txt", CONTENT, "text/plain"))],
    )

    parts = fields(files.uploads[0])
    assert [parts[name][1] for name in ("data", "attachment", "more")] == [b'{"n": 1}', CONTENT, CONTENT]


# -- down -------------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_into_a_folder(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    path = client.download_attachment(record(), str(tmp_path), save_metadata=True)

    assert path == str(tmp_path / "a.txt")
    assert Path(path).read_bytes() == CONTENT
    assert json.loads((tmp_path / "a.txt.meta.json").read_text()) == record()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "a.txt.meta.json"]


def test_a_double_of_a_session_is_asked_where_the_files_are(files: Files, tmp_path: Path) -> None:
    class Double:
        def request(self, method: str, endpoint: str, **_: object) -> tuple[object, object]:
            return {"capabilities": {"attachments": {"base_url": f"{files.url}/files/"}}}, {}

    client = kinto_http.Client(session=Double())

    assert Path(client.download_attachment(record(), tmp_path)).read_bytes() == CONTENT


def test_q71_a_file_is_asked_for_without_credentials(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    client.download_attachment(record(), tmp_path / "new" / "b.txt")

    path, headers = files.asked[-1]
    assert path == "/files/x/a.txt"
    assert "Authorization" not in headers
    assert headers["User-Agent"].startswith("kinto_orm/")


def test_a_file_goes_by_its_own_name(
    client: kinto_http.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert client.download_attachment(record()) == "a.txt"
    assert (tmp_path / "a.txt").read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched_again(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    for _ in range(2):
        client.download_attachment(record(), tmp_path)
    client.download_attachment(record(), tmp_path, overwrite=True)

    assert [path for path, _ in files.asked].count("/files/x/a.txt") == 2


def test_q73_a_record_may_say_less_of_its_file(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    for _ in range(2):
        client.download_attachment(record(size=None, hash=None), tmp_path)

    assert [path for path, _ in files.asked].count("/files/x/a.txt") == 2


@pytest.mark.parametrize("content", [b"hello, w0rld", b"hello", b"hello, world, and more"])
def test_q68_q69_a_wrong_file_does_not_replace_the_good_one(
    client: kinto_http.Client, files: Files, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good")
    files.served = [(200, content)]

    with pytest.raises(KintoException, match="the file"):
        client.download_attachment(record(), path)

    assert path.read_bytes() == b"good"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["../escaped.bin", "a/b", "..", "", "a\\b", "/etc/passwd"])
def test_q70_a_name_cannot_leave_the_folder(client: kinto_http.Client, files: Files, tmp_path: Path, name: str) -> None:
    with pytest.raises(KintoException, match="leads out of its folder"):
        client.download_attachment(record(filename=name), tmp_path)

    assert files.asked == []
    assert client.download_attachment(record(filename=name), tmp_path / "mine") == str(tmp_path / "mine")


@pytest.mark.parametrize("location", ["http://evil.example/a", "../secret", "//evil.example/a/../../.."])
def test_a_file_is_asked_for_at_its_host_only(
    client: kinto_http.Client, files: Files, tmp_path: Path, location: str
) -> None:
    with pytest.raises(KintoException):
        client.download_attachment(record(location=location), tmp_path)

    assert {path for path, _ in files.asked} <= {"/v1/", "/files/evil.example/a/../../.."}


def test_a_missing_file_is_an_error(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    files.served = [(404, b"")]

    with pytest.raises(KintoException, match="404"):
        client.download_attachment(record(), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_busy_host_is_asked_again(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    files.served = [(503, b""), (200, CONTENT)]

    path = client.clone(retry=1).download_attachment(record(), tmp_path)

    assert Path(path).read_bytes() == CONTENT


def test_a_record_without_a_file_is_refused(client: kinto_http.Client) -> None:
    for data in ({}, {"attachment": None}):
        with pytest.raises(ValueError, match="no attachment"):
            client.download_attachment(data)
    with pytest.raises(KintoException, match="no location"):
        client.download_attachment({"attachment": "a.txt"})


def test_a_server_without_the_plugin_says_so(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    files.has_attachments = False

    with pytest.raises(KintoException, match="kinto-attachment"):
        client.download_attachment(record(), tmp_path)


def test_a_host_that_is_not_there_is_an_error(client: kinto_http.Client, files: Files, tmp_path: Path) -> None:
    client.server_info()
    files.url = "http://127.0.0.1:9"
    client.server_info(refresh=True)

    with pytest.raises(kinto_http.ConnectionException):
        client.download_attachment(record(), tmp_path)


def test_a_path_that_cannot_be_written_is_an_error_of_the_file(client: kinto_http.Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OSError, match="file"):
        client.download_attachment(record(), tmp_path / "file" / "a.txt")


def test_q82_the_async_client_fetches_in_a_thread(files: Files, tmp_path: Path) -> None:
    async def fetch() -> str:
        async with kinto_http.AsyncClient(server_url=f"{files.url}/v1", auth=AUTH) as client:
            return await client.download_attachment(record(), tmp_path)

    assert Path(asyncio.run(fetch())).read_bytes() == CONTENT

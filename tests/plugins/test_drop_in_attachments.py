"""Files of records, by the names of the reference client."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from file_host import FileHost

from kinto_orm import Client, kinto_http

CONTENT = b"hello, world"


@pytest.fixture
def face(client: Client) -> kinto_http.Client:
    return kinto_http.Client(session=client, bucket="b", collection="c")


def test_a_file_goes_up_and_comes_down(face: kinto_http.Client, file_host: FileHost, tmp_path: Path) -> None:
    (tmp_path / "é.txt").write_bytes(CONTENT)

    said = face.add_attachment("r", tmp_path / "é.txt", data={"n": 1}, permissions={"read": ["system.Everyone"]})
    record = face.get_record(id="r")
    path = face.download_attachment(record["data"], tmp_path / "down" / "b.txt", save_metadata=True)

    assert (said["filename"], said["hash"]) == ("é.txt", hashlib.sha256(CONTENT).hexdigest())
    assert (record["data"]["n"], record["data"]["attachment"]) == (1, said)
    assert record["permissions"]["read"] == ["system.Everyone"]
    assert Path(path).read_bytes() == CONTENT
    assert "Authorization" not in file_host.asked[0][1]


def test_a_file_is_removed(face: kinto_http.Client, file_host: FileHost) -> None:
    face.add_attachment("r", CONTENT, "a.txt")

    assert face.remove_attachment("r") is None

    assert face.get_record(id="r")["data"]["attachment"] is None
    assert file_host.files() == []


def test_a_refused_file_makes_no_record(face: kinto_http.Client) -> None:
    with pytest.raises(kinto_http.KintoException, match="extension"):
        face.add_attachment("r", CONTENT, "a.exe", data={"n": 1})

    assert face.get_records() == []


def test_the_async_client_does_the_same(face: kinto_http.Client, client: Client, tmp_path: Path) -> None:
    other = kinto_http.AsyncClient(session=client, bucket="b", collection="c")

    async def there_and_back() -> str:
        await other.add_attachment("r", CONTENT, "a.txt")
        record = await other.get_record(id="r")
        return await other.download_attachment(record["data"], tmp_path)

    assert Path(asyncio.run(there_and_back())).read_bytes() == CONTENT

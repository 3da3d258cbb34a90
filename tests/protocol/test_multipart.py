"""Bodies of several parts, and what takes a file."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kinto_orm.errors import InvalidTypeError, InvalidValueError
from kinto_orm.protocol.attachments import Part, check_target, encode_multipart


def test_fields_and_files_are_written_as_kinto_reads_them() -> None:
    parts = [Part("data", b"{}"), Part("attachment", b"\0\1", 'a"\r\n.bin', "image/png")]

    content_type, body = encode_multipart(parts, boundary="B")

    assert content_type == "multipart/form-data; boundary=B"
    assert body == (
        b'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n{}\r\n'
        b'--B\r\nContent-Disposition: form-data; name="attachment"; filename="a\\"%0D%0A.bin"\r\n'
        b"Content-Type: image/png\r\n\r\n\0\1\r\n--B--\r\n"
    )


def test_a_file_of_no_known_type_is_binary() -> None:
    _, body = encode_multipart([Part("attachment", b"", "é.x")])

    assert 'filename="é.x"\r\nContent-Type: application/octet-stream\r\n' in body.decode()


def test_boundaries_are_drawn() -> None:
    assert encode_multipart([])[0] != encode_multipart([])[0]


@pytest.mark.parametrize("content_type", ["text/plain\r\nX: y", "téxt/plain"])
def test_a_content_type_cannot_break_out_of_its_header(content_type: str) -> None:
    with pytest.raises(InvalidValueError, match="content type"):
        encode_multipart([Part("a", b"", "a", content_type)])


@pytest.mark.parametrize(
    "target", ["a.bin", Path("a.bin"), io.BytesIO(), sys.stdout.buffer], ids=lambda value: type(value).__name__
)
def test_a_path_or_a_binary_file_takes_a_file(target: object) -> None:
    check_target(target)


@pytest.mark.parametrize(
    "target", [None, 5, b"a.bin", io.StringIO(), SimpleNamespace(write=None)], ids=lambda value: type(value).__name__
)
def test_what_takes_no_bytes_is_refused(target: object) -> None:
    with pytest.raises(InvalidTypeError, match="binary mode"):
        check_target(target)

"""The verbs of attachments."""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from kinto_orm.errors import ProtocolError
from kinto_orm.kinto_http import objects
from kinto_orm.kinto_http.endpoints import path_of
from kinto_orm.kinto_http.session import described
from kinto_orm.kinto_http.utils import compute_sha256, json_dumps
from kinto_orm.kinto_http.verbs import Data, Document, Face, Grants, Id, verb
from kinto_orm.messages import Request
from kinto_orm.protocol.attachments import attachment_of
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.multipart import Part, encode_multipart
from kinto_orm.transport.downloads import download

Content: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]
"""A file by its path, its content, or an open file."""


class Attachments(Face):
    """The verbs of attachments."""

    @verb
    def add_attachment(
        self,
        id: Id,
        filepath: Content,
        filename: str | None = None,
        bucket: Id | None = None,
        collection: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        mimetype: str | None = None,
    ) -> Flow[Document]:
        """Attaches the file to the record, which is made if missing; what the server then says of the file.

        ``filepath`` may also be the content or an open file; then ``filename`` says what it is called.
        """
        content, name = _read(filepath, filename)
        parts = [
            Part(key, json_dumps(value).encode())
            for key, value in (("data", data), ("permissions", objects.as_permissions(permissions)))
            if value is not None
        ]
        file = Part("attachment", content, name, mimetype or mimetypes.guess_type(name)[0])
        content_type, body = encode_multipart([*parts, file])
        headers = {"Content-Type": content_type}
        return objects.post(Request("POST", self._attachment(id, bucket, collection), headers=headers, body=body))

    @verb
    def remove_attachment(self, id: Id, bucket: Id | None = None, collection: Id | None = None) -> Flow[Any]:
        """Removes the file from the record, and from the server."""
        return objects.post(Request("DELETE", self._attachment(id, bucket, collection)))

    def _attachment(self, id: Id, bucket: Id | None, collection: Id | None) -> str:
        return path_of(
            "attachment",
            {
                "id": id,
                "bucket": self.bucket_name if bucket is None else bucket,
                "collection": self.collection_name if collection is None else collection,
            },
        )


class Download:
    """One download: of which file, and where to."""

    def __init__(self, record: Mapping[str, Any], filepath: str | os.PathLike[str] | None) -> None:
        found = attachment_of(record)
        if found is None:
            raise ValueError("Specified record has no attachment")
        self.record = record
        self.attachment = found
        if filepath is None:
            self.path = found.safe_filename
        elif os.path.isdir(filepath):
            self.path = os.path.join(filepath, found.safe_filename)
        else:
            self.path = os.fspath(filepath)

    def located(self, session: Any) -> Flow[str]:
        """Where the file is: the server says on which host."""
        info = yield from described(session)
        try:
            base_url = info["capabilities"]["attachments"]["base_url"]
        except KeyError as error:
            raise ProtocolError("This server has no attachments: its plugin kinto-attachment is not there.") from error
        return self.attachment.url(base_url)

    def fetch(self, url: str, session: Any, *, save_metadata: bool, overwrite: bool) -> str:
        """The path, where the file now is; it is not asked for where it is there already."""
        if overwrite or not self._is_there():
            timeout = getattr(session, "timeout", None) or None
            retries = getattr(session, "nb_retry", 0)
            wanted = self.attachment
            path = Path(self.path)
            download(url, path, size=wanted.size, sha256=wanted.sha256, timeout=timeout, retries=retries)
        if save_metadata:
            with open(f"{self.path}.meta.json", "w", encoding="utf-8") as file:
                json.dump(self.record, file)
        return self.path

    def _is_there(self) -> bool:
        wanted = self.attachment
        if wanted.sha256 is None or not os.path.isfile(self.path):
            return False
        is_as_large = wanted.size in (None, os.path.getsize(self.path))
        return is_as_large and compute_sha256(self.path) == wanted.sha256


def _read(given: Content, filename: str | None) -> tuple[bytes, str]:
    """The content of the file, and its name."""
    if isinstance(given, (str, os.PathLike)):
        return Path(given).read_bytes(), filename or os.path.basename(given)
    name = filename or os.path.basename(str(getattr(given, "name", "")))
    if not name:
        raise TypeError("The content of a file has no name: give filename=.")
    return given if isinstance(given, bytes) else given.read(), name

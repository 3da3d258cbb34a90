"""Cassettes: conversations over real HTTP, kept in ``cassettes/`` and replayed without a server.

``tox -e cassettes`` (``KINTO_ORM_RECORD=1``) records them from real servers on real sockets. What differs from one
recording to the next, or is secret, is replaced on write, so a new recording of the same server changes no file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import vcr
import yaml

from kinto_orm import Client
from kinto_orm.server import EmbeddedServer, listening

CASSETTES = Path(__file__).parents[2] / "cassettes"
USER, PASSWORD = "alexis", "p4ssw0rd"
REPLAYED_HOST = "kinto.invalid"  # does not exist: a replay that asked the network would fail
REPLAYED_URL = f"http://{REPLAYED_HOST}/v1"

PLACEHOLDERS = {"authorization": "<CREDENTIALS>", "cookie": "<COOKIE>", "set-cookie": "<COOKIE>"}
# They change with every recording, or with every release of a library.
VOLATILE = {
    "access-control-expose-headers",
    "connection",
    "content-length",
    "date",
    "last-modified",
    "server",
    "user-agent",
    "via",
}
COMPARED_HEADERS = ("Content-Type", "If-Match", "If-None-Match")

_USER_ID = re.compile(r"\b(basicauth|account|fxa):[0-9a-f]{32,}\b")
_STUB = re.compile(r"\b127\.0\.0\.1:\d+\b")
_DEFAULT_BUCKET = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")  # the tests give all other ids
_HTTP_DATE = re.compile(r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\b")
_TIMESTAMP = re.compile(r"\b1[0-9]{12}\b")
_PAGE_TOKEN = re.compile(r"(?<=_token=)[^&\\\"]+")
_FIRST_TIMESTAMP = 1_600_000_000_000


def is_recording() -> bool:
    """Return whether real servers are asked."""
    return bool(os.environ.get("KINTO_ORM_RECORD"))


@dataclass
class Wire:
    """The cassette of one test."""

    name: str
    data_dir: Path
    """Where a PostgreSQL may put its data."""
    cassette: Any = field(default=None, init=False)

    @contextmanager
    def client(self, *, postgres: bool = False, auth: Any = (USER, PASSWORD), **settings: Any) -> Generator[Client]:
        """Return a client of a server with these settings of Kinto; of its recording, unless we record."""
        with self._server_url(postgres=postgres, **settings) as url, self._playing(urlsplit(url).netloc):
            client = Client(url, auth=auth, retry=0, allow_insecure=True)
            try:
                with client:
                    yield client
            finally:
                client.close()
        assert len(self.cassette) > 0, "the cassette plays nothing"
        assert is_recording() or self.cassette.all_played, "the cassette was not fully played"

    @contextmanager
    def _server_url(self, *, postgres: bool, **settings: Any) -> Generator[str]:
        if not is_recording():
            yield REPLAYED_URL
            return
        # The data directory is a server's only difference that no answer shows.
        server = EmbeddedServer.postgres(self.data_dir, **settings) if postgres else EmbeddedServer.memory(**settings)
        with server, listening(server) as url:
            yield url

    @contextmanager
    def _playing(self, host: str) -> Generator[None]:
        path = CASSETTES / f"{self.name}.yaml"
        if is_recording():
            path.unlink(missing_ok=True)
        with _recorder(host).use_cassette(str(path)) as self.cassette:
            yield

    @property
    def conversation(self) -> list[str]:
        """One line an exchange: ``PUT /buckets/b If-None-Match: * -> 201``."""
        return [_line(request, response) for request, response in self.cassette.data]

    def answers(self, header: str) -> list[str | None]:
        """Return that header of each answer."""
        return [_header(response, header) for response in self.cassette.responses]


def _line(request: Any, response: Any) -> str:
    headers = "".join(f" {name}: {request.headers[name]}" for name in COMPARED_HEADERS if name in request.headers)
    query = f"?{urlsplit(request.uri).query}" if urlsplit(request.uri).query else ""
    path = urlsplit(request.uri).path.removeprefix("/v1")
    return f"{request.method} {path}{query}{headers} -> {response['status']['code']}"


def _header(response: Any, name: str) -> str | None:
    for key, values in response["headers"].items():
        if key.lower() == name.lower():
            return ", ".join(values)
    return None


def _recorder(host: str) -> Any:
    recorder = vcr.VCR(
        # A provider of logins is a stub on this machine, when we replay, too.
        before_record_request=lambda request: request if urlsplit(request.uri).netloc == host else None,
        record_mode="all" if is_recording() else "none",
        serializer="readable",
        match_on=["method", "path", "query", "json_body", "compared_headers"],
        decode_compressed_response=True,
        record_on_exception=False,
    )
    recorder.register_serializer("readable", _Readable)
    recorder.register_matcher("json_body", _same_body)
    recorder.register_matcher("compared_headers", _same_headers)
    return recorder


def _same_body(one: Any, other: Any) -> None:
    assert _compact(one.body or b"") == _compact(other.body or b"")


def _same_headers(one: Any, other: Any) -> None:
    for name in COMPARED_HEADERS:
        assert one.headers.get(name) == other.headers.get(name), name


class _Readable:
    """Cassettes as YAML, with bodies as indented JSON; the serializer that vcrpy asks for."""

    @staticmethod
    def serialize(cassette: dict[str, Any]) -> str:
        interactions = [
            {"request": _shown(one["request"]), "response": _shown(one["response"])} for one in cassette["interactions"]
        ]
        scrubbed = scrub({**cassette, "interactions": interactions})
        return str(yaml.dump(scrubbed, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10_000))

    @staticmethod
    def deserialize(text: str) -> dict[str, Any]:
        cassette: dict[str, Any] = yaml.safe_load(text)
        for one in cassette["interactions"]:
            one["request"]["body"] = _compact(one["request"]["body"])
            one["response"]["body"] = {"string": _compact(one["response"]["body"]["string"])}
        return cassette


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message without volatile or secret parts, its body as indented JSON."""
    headers = {
        name: [PLACEHOLDERS[name.lower()]] if name.lower() in PLACEHOLDERS else list(values)
        for name, values in sorted(message["headers"].items())
        if name.lower() not in VOLATILE
    }
    body = message["body"]
    shown = {"string": _indented(body["string"])} if isinstance(body, dict) else _indented(body)
    return {**message, "headers": headers, "body": shown}


def scrub(cassette: dict[str, Any]) -> dict[str, Any]:
    """Return the cassette with names in place of hosts, users, the default bucket, page tokens and times."""
    text = json.dumps(cassette, ensure_ascii=False)
    for host in {urlsplit(one["request"]["uri"]).netloc for one in cassette["interactions"]}:
        text = text.replace(host, REPLAYED_HOST)
    text = _STUB.sub("stub.invalid", text)
    text = _USER_ID.sub(r"\1:USER-ID", text)
    text = _DEFAULT_BUCKET.sub("DEFAULT-BUCKET-ID", text)
    text = _HTTP_DATE.sub("Thu, 01 Jan 1970 00:00:00 GMT", text)
    tokens = list(dict.fromkeys(_PAGE_TOKEN.findall(text)))
    text = _PAGE_TOKEN.sub(lambda found: f"PAGE-{tokens.index(found[0]) + 2}", text)
    times = sorted(set(_TIMESTAMP.findall(text)))  # what is older stays older
    text = _TIMESTAMP.sub(lambda found: str(_FIRST_TIMESTAMP + times.index(found[0])), text)
    scrubbed: dict[str, Any] = json.loads(text)
    return scrubbed


def _indented(body: str | None) -> str | None:
    return _canonical(body, indent=2) if body else body


def _compact(body: str | bytes | None) -> bytes:
    text = body.decode() if isinstance(body, bytes) else body
    return _canonical(text, separators=(",", ":")).encode() if text else b""


def _canonical(body: str, **layout: Any) -> str:
    try:
        content = json.loads(body, object_hook=_without_chance)
    except ValueError:
        return body
    return json.dumps(content, sort_keys=True, ensure_ascii=False, **layout)


def _without_chance(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content without the volatile headers of a batch's answers, with sets in one order, and without
    passwords and their hashes.
    """
    if isinstance(headers := content.get("headers"), dict):
        content["headers"] = {name: value for name, value in headers.items() if name.lower() not in VOLATILE}
    if "password" in content:
        content["password"] = "<PASSWORD>"
    if isinstance(principals := content.get("principals"), list):
        content["principals"] = sorted(principals)
    return content


class _Dumper(yaml.SafeDumper):
    """YAML that shows texts of several lines as they are."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)

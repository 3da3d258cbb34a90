"""Files from a server: checked while they arrive, and put in place only once they are complete."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast
from urllib.parse import urljoin, urlsplit

import requests
from requests.utils import get_environ_proxies

from kinto_orm.errors import KintoError, ProtocolError, ResponseError, TransportError, UsageError
from kinto_orm.protocol.attachments import part_of
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.messages import Download, Request, Response, run_blocking
from kinto_orm.transport.options import WireOptions, parse_timeout
from kinto_orm.transport.reporting import Result
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, translate
from kinto_orm.transport.retry import CLOCK, LENGTH, Attempt, RetryLoop
from kinto_orm.transport.sessions import Answer, Limits, ManagedSession

MAX_FILE_BYTES = 256 * 1024 * 1024
"""The largest file that is downloaded where neither the caller nor the record says a size."""

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_IN_MEMORY = 8 * 1024 * 1024
"""Bytes of a file that wait in memory for the rest of it; more of them wait on the disk."""


def download(wanted: Download, options: WireOptions, is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Download the file to its target, a path or an open file.

    Its size and SHA-256 are compared where they are known. An existing file stays until the
    new one is complete, and nothing is written to an open file before. Unless ``overwrite`` is chosen it stays for
    good, and is a ``UsageError`` where it is another file. The download ends early once ``is_stopped()``.

    The files of Kinto are public, so their host gets no credentials and no headers of the options: only their limits
    and the way to the network count. The server that named the file is that of the options: a public one cannot name a
    file on a private network, on this machine or at a link-local address.
    Raises ``ProtocolError`` for another file than the expected one, too large a file, or a redirect elsewhere,
    ``ResponseError`` where the server refuses, ``TransportError`` where no answer arrives, or only a part of it.
    """
    target, size, chosen = wanted.target, wanted.size, wanted.options
    path = Path(target) if isinstance(target, (str, os.PathLike)) else None
    if path is not None and (not chosen.overwrite or chosen.keeps_same) and _holds(path, size, wanted.sha256):
        return
    if chosen.max_bytes is not None and size is not None and size > chosen.max_bytes:
        raise UsageError(f"The file has {size} bytes, more than max_bytes={chosen.max_bytes}: it was not fetched.")
    place = _spooled(cast(IO[bytes], target)) if path is None else _replacing(path, overwrite=chosen.overwrite)
    with place as file:
        _Download(file, wanted, options, is_stopped).run()


class _Download:
    """One file on its way: redirects, attempts, and the checks of its content."""

    def __init__(self, file: IO[bytes], wanted: Download, options: WireOptions, is_stopped: Callable[[], bool]) -> None:
        self._file = file
        self._first, _, self._size, self._sha256, chosen = wanted
        self._options = options
        self._allow_hosts = chosen.allow_hosts
        self._is_stopped = is_stopped
        self._end = time.monotonic() + options.deadline
        self._timeout = parse_timeout(options.timeout)
        limit = MAX_FILE_BYTES if chosen.max_bytes is None else chosen.max_bytes
        size = self._size
        self._limit = limit if size is None or (chosen.max_bytes is not None and limit < size) else size

    def run(self) -> None:
        """Fetch the file, from where the redirects lead."""
        url = self._first
        found = get_environ_proxies(url) if self._options.trust_env else {}
        self._proxies = {**found, **(self._options.proxies or {})}
        for _ in range(_MAX_REDIRECTS):
            self._check_host(url)
            answer = self._ask(url)
            if answer.status == 200:
                return
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                hint = ". The record may have another file by now: refresh() it" if answer.status == 404 else ""
                raise ResponseError(f"GET {url}: {answer.status}{hint}.", status=answer.status, method="GET", path=url)
            url = self._redirected(url, location)
        raise ProtocolError(f"GET {self._first}: the host redirects for ever.")

    def _redirected(self, url: str, location: str) -> str:
        first = self._first
        try:
            target = urljoin(url, location)
            origins = [_origin(one) for one in (first, target)]
            host, netloc = urlsplit(target).hostname, urlsplit(target).netloc
        except ValueError as error:
            raise ProtocolError(f"GET {first}: redirected to what is no URL.") from error
        is_allowed = host in self._allow_hosts or netloc in self._allow_hosts
        is_downgraded = first.startswith("https:") and not target.startswith("https:")
        if origins[0] != origins[1] and (not is_allowed or is_downgraded or "@" in netloc):
            raise ProtocolError(
                f"GET {first}: redirected to {say_value(origins[1], 200)}, another host. Where you trust it, give "
                f"download(allow_hosts=[{say_value(host, 200)}])."
            )
        return target

    def _check_host(self, url: str) -> None:
        """Raise ``ProtocolError`` for a host that a public server cannot know, and for what is no URL of HTTP."""
        options = self._options
        host = urlsplit(url).hostname
        if not url.startswith(("http://", "https://")) or not host:
            raise ProtocolError(f"{say_value(url, 200)} is no http:// or https:// URL of a file.")
        if not options.server_url or _is_private(urlsplit(options.server_url).hostname or ""):
            return
        is_proxied = bool(requests.utils.select_proxy(url, self._proxies))
        if _is_private(host, resolve=not is_proxied):
            raise ProtocolError(
                f"GET {url}: {options.server_url} is a public server, and the file would come from a private network "
                "or from this machine, so it was not asked for."
            )

    def _ask(self, url: str) -> Response:
        """Return the answer; the file is in its place where the status is 200."""
        origin = _origin(url)
        parts = urlsplit(url)
        left = max(self._end - time.monotonic(), 0.001)
        options = WireOptions(
            origin,
            retry=self._options.retry,
            deadline=left,
            headers={"Accept": "*/*"},
            verify=self._options.verify,
            proxies=self._proxies,
            allow_insecure=True,
        )
        wire = ManagedSession(options, None)
        request = Request("GET", parts.path or "/", parts.query)
        loop = RetryLoop(options, CLOCK)

        async def attempt(request: Request, _: Attempt) -> Result:
            return self._attempt(wire, request, url)

        async def sleep(seconds: float) -> None:
            CLOCK.sleep(seconds)

        try:
            return run_blocking(loop.run(request, attempt, sleep))
        finally:
            wire.release()

    def _attempt(self, wire: ManagedSession, request: Request, url: str) -> Result:
        left = max(self._end - time.monotonic(), 0.001)
        connect, read = self._timeout
        try:
            answer = wire.send(request, Limits(min(connect, left), min(read, left), left))
            try:
                if answer.status == 200:
                    self._copy(answer, url)
            finally:
                answer.close()
        except KintoError as error:
            return error
        except _LocalError as error:
            raise error.error from None
        except FOREIGN_ERRORS as error:
            return translate(error, f"GET {url}", is_read=True)
        return Response(answer.status, answer.headers)

    def _copy(self, answer: Answer, url: str) -> None:
        is_measured = not LENGTH.isdisjoint(answer.headers) or self._size is not None or self._sha256 is not None
        if not is_measured:
            raise ProtocolError(f"GET {url}: neither the host nor the record says how long the file is.")
        self._to_file(self._file.seek, 0)
        self._to_file(self._file.truncate)
        hasher = hashlib.sha256()
        count = 0
        for piece in answer.body:
            count += len(piece)
            if self._is_stopped():
                raise TransportError(f"GET {url}: the call was cancelled, so the file is left.")
            if count > self._limit:
                says = "that its record says" if count > (self._size or math.inf) else "allowed: see max_bytes"
                raise ProtocolError(f"GET {url}: the file is larger than the {self._limit} bytes {says}.")
            if time.monotonic() > self._end:
                raise TimeoutError
            hasher.update(piece)
            self._to_file(self._file.write, piece)
        if self._size is not None and count != self._size:
            raise ProtocolError(f"GET {url}: the file has {count} bytes, its record says {self._size}.")
        if self._sha256 is not None and hasher.hexdigest() != self._sha256.lower():
            raise ProtocolError(f"GET {url}: the file is not the one that its record says: its SHA-256 is another.")

    @staticmethod
    def _to_file(do: Callable[..., object], *arguments: object) -> None:
        try:
            do(*arguments)
        except OSError as error:
            raise _LocalError(error) from error


class _LocalError(Exception):
    """An error of the local disk, which is none of the network."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_private(host: str, *, resolve: bool = True) -> bool:
    """Return whether the host is this machine, or in a network that is not public."""
    if host == "localhost" or host.endswith((".localhost", ".embedded")):
        return True
    try:
        return not _public(host)
    except ValueError:
        pass
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)} if resolve else set()
    except (OSError, UnicodeError):
        return False  # there is no such host, or a proxy knows it
    return not all(_public(address.partition("%")[0]) for address in found)


def _public(address: str) -> bool:
    ip = ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global


def _holds(path: Path, size: int | None, sha256: str | None) -> bool:
    """Return whether the file at ``path`` is that one already; ``False`` where its SHA-256 is not known."""
    if sha256 is None or not os.path.isfile(path) or size not in (None, os.path.getsize(path)):
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()


@contextmanager
def _spooled(target: IO[bytes]) -> Generator[IO[bytes]]:
    """Yield a file that is written to ``target`` when the block ends without an exception."""
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, target)


@contextmanager
def _replacing(target: Path, *, overwrite: bool) -> Generator[IO[bytes]]:
    """Yield a file that replaces ``target`` when the block ends without an exception."""
    if not overwrite:
        _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    try:
        with open(part, "xb") as file:
            yield file
        if not overwrite:
            _refuse_existing(target)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(
            f"{str(target)!r} is there already, and is not known to be the file: it was kept. Give overwrite=True, or "
            "another place."
        )

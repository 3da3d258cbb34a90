"""The servers of these tests are what they are said to be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from servers import STOCK, Servers, hold_row, serve_kinto

from kinto_orm.server.cluster import Cluster

RECORD = "/buckets/b/collections/c/records/one"
ME = ("me", "secret")


def put(url: str, path: str, data: Any = None, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.put(url + path, json={"data": data or {}}, headers=named, auth=ME, timeout=30)


def capabilities(url: str) -> set[str]:
    return set(requests.get(f"{url}/", timeout=30).json()["capabilities"])


def race(servers: Servers) -> list[int]:
    """Return the answers of two servers to two writers who saw the same version of a record."""
    first, second = servers.urls
    for path in ("/buckets/b", "/buckets/b/collections/c"):
        put(first, path)
    seen = put(first, RECORD, {"n": 0}).headers["ETag"]
    with ThreadPoolExecutor(2) as threads:
        with hold_row(servers.database, "one", waiting=2):
            answers = [threads.submit(put, url, RECORD, {"n": 1}, If_Match=seen) for url in (first, second)]
        return sorted(answer.result().status_code for answer in answers)


@pytest.mark.parametrize("kind", ["stock_servers", "our_servers"])
def test_servers_see_each_others_writes(kind: str, request: pytest.FixtureRequest) -> None:
    first, second = request.getfixturevalue(kind).urls

    assert first != second
    assert put(first, "/buckets/seen").ok
    assert requests.get(f"{second}/buckets/seen", auth=ME, timeout=30).status_code == 200


def test_only_ours_advertise_atomic_batches(stock_servers: Servers, our_servers: Servers) -> None:
    assert all("atomic_batch" not in capabilities(url) for url in stock_servers.urls)
    assert all("atomic_batch" in capabilities(url) for url in our_servers.urls)


def test_only_ours_roll_a_refused_batch_back(stock_servers: Servers, our_servers: Servers) -> None:
    refused = {"path": "/buckets/missing"}
    requests_ = [{"method": "PUT", "path": "/buckets/half"}, refused]

    stored = {}
    for kind, servers in (("stock", stock_servers), ("ours", our_servers)):
        url, other = servers.urls
        requests.post(
            f"{url}/batch", json={"requests": requests_}, headers={"X-Batch-Atomic": "true"}, auth=ME, timeout=30
        ).raise_for_status()
        stored[kind] = requests.get(f"{other}/buckets/half", auth=ME, timeout=30).ok

    assert stored == {"stock": True, "ours": False}


def test_stock_servers_are_at_read_committed(stock_servers: Servers) -> None:
    assert race(stock_servers) == [200, 200]


def test_ours_are_at_repeatable_read(our_servers: Servers) -> None:
    assert race(our_servers) == [200, 503]


PARENT = """
import time
from servers import STOCK, root_url, start_process

with start_process(STOCK, 1) as started:
    print(root_url(*started), flush=True)
    time.sleep(60)
"""


def test_servers_end_with_their_parent() -> None:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().decode().strip()
        assert is_up(url)
        parent.kill()

    assert goes_down(url)


def test_process_that_does_not_start_says_why(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = types.ModuleType("only_in_this_process")
    plugin.__dict__["includeme"] = lambda config: None
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
    settings = {**STOCK, "includes": plugin.__name__}

    with (
        pytest.raises(RuntimeError, match=f"(?s)did not start.*{plugin.__name__}"),
        serve_kinto(cluster, settings, database="broken"),
    ):
        raise AssertionError("it did start")


def test_writers_that_do_not_come_are_not_waited_for_in_vain(
    our_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servers.SECONDS_TO_WAIT", 0.1)
    put(our_servers.urls[0], "/buckets/alone")

    with pytest.raises(TimeoutError, match="No 1 writers wait"), hold_row(our_servers.database, "alone", waiting=1):
        pass


def is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/__lbheartbeat__", timeout=30).ok
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):  # also in the middle of an answer
        return False


def goes_down(url: str) -> bool:
    deadline = time.monotonic() + 10
    while is_up(url) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_up(url)

"""The watcher over the suite's secrets can see."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from canary import CANARY, Canary, files_in

from kinto_orm import Client, KintoError


@pytest.fixture
def canary() -> Canary:
    return Canary("s3cr3t")


def test_it_sees_the_secret_and_its_encoding_in_the_log(canary: Canary) -> None:
    lines = [("password %s", "s3cr3t"), ("Authorization: Basic %s", "Y2FuYXJ5OnMzY3IzdA=="), ("nothing %s", "here")]

    for line, word in lines:
        canary.handle(logging.LogRecord("a test", logging.DEBUG, __file__, 1, line, (word,), None))

    assert canary.seen == ["log of a test: password %s", "log of a test: Authorization: Basic %s"]


def test_it_sees_it_in_files_but_not_in_those_of_a_database(canary: Canary, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("it is s3cr3t")
    (tmp_path / "b.txt").write_text("it is not")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("15 s3cr3t")

    canary.look_at_files(files_in(tmp_path))

    assert canary.seen == [f"file {tmp_path / 'a.txt'}"]


def test_the_clients_of_the_suite_hold_it(kinto_client: Client, pytestconfig: pytest.Config) -> None:
    watching = pytestconfig.pluginmanager.get_plugin("canary")

    assert isinstance(watching, Canary)
    assert CANARY in str(dict(kinto_client._options.headers or {}))
    assert CANARY in watching.forms


def test_it_hears_of_every_error(pytestconfig: pytest.Config) -> None:
    watching = pytestconfig.pluginmanager.get_plugin("canary")
    assert isinstance(watching, Canary)
    before = watching.looked_at

    KintoError("harmless")

    assert watching.looked_at == before + 1

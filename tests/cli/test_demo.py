"""The tour, on less data."""

from __future__ import annotations

import re

import pytest
from command_line import Command

from kinto_orm import Client


def summary_of(out: str) -> dict[str, str]:
    """Return the result of each step, which its last line says."""
    return dict(re.findall(r"^\d+\. (.*)\n(?:   .*\n)*?   (.*) \(\d+\.\d\d s, [\d,]+ requests?\)$", out, re.MULTILINE))


def test_the_tour_loads_asks_resolves_commits_and_renames_once(kinto: Command, client: Client) -> None:
    users = ("--auth", "alice:wonderland", "--second-auth", "bob:builder")
    first, second = (kinto("demo", "--limit", "120", "-s", client.server_url, *users) for _ in range(2))

    assert (first.code, second.code) == (0, 0)
    found, again = summary_of(first.out), summary_of(second.out)
    assert found["Set up"] == "4 objects: 4 created"
    assert found["Load the characters"] == "120 created, 0 there already"
    assert found["Ask questions"] == "8 questions answered"
    assert found["Meet a conflict"] == "noticed and resolved: 0 + 2 + 1 = 3 likes"
    assert found["Commit a unit of work"] == "4 writes in one batch: 1 created, 2 updated, 1 deleted"
    assert found["Sync with the source"] == "120 compared, nothing to write"
    assert found["Rename a field"] == "27 changed and sent, 93 left alone"
    assert again["Set up"] == "4 objects: 4 unchanged"
    assert again["Load the characters"] == "0 created, 120 there already"
    assert again["Rename a field"] == "0 changed and sent, 120 left alone"


def test_the_tour_needs_no_server_and_leaves_that_of_the_environment_alone(kinto: Command, client: Client) -> None:
    run = kinto("demo", "--limit", "5")

    assert run.code == 0
    assert summary_of(run.out)["Load the characters"] == "5 created, 0 there already"
    assert client.buckets.count() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--server", "http://localhost:1/v1", "--auth", "a:b"], 3, "failed at “Reach a server”:\nkinto-orm: GET / on"),
        (["--server", "http://localhost:1/v1"], 2, "--server needs --auth"),
    ],
)
def test_a_tour_that_fails_says_where(arguments: list[str], code: int, message: str, kinto: Command) -> None:
    run = kinto("demo", *arguments)

    assert (run.code, message in run.err) == (code, True)


def test_credentials_that_the_server_refuses_are_said(kinto: Command, url: str) -> None:
    run = kinto("demo", "--server", url, "--auth", "Bearer nonsense")

    assert run.code == 3
    assert "failed at “Set up”:\nkinto-orm: the server does not accept the credentials" in run.err

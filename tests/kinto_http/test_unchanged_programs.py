"""What unchanged public programs need of the drop-in: one test for each row of section M of the faults."""

from __future__ import annotations

from typing import Any

import pytest
from wiretap import Wiretap

from kinto_orm.kinto_http import Client


@pytest.mark.parametrize(
    ("params", "query"),
    [
        pytest.param({"enabled": "true"}, "enabled=true", id="text"),
        pytest.param({"version": "1.0"}, "version=1.0", id="text-like-a-number"),
        pytest.param({"gt_n": "3"}, "gt_n=3", id="operator"),
        pytest.param({"s": '"3"'}, "s=%223%22", id="quoted"),
        pytest.param({"like_s": "*a*"}, "like_s=%2Aa%2A", id="pattern"),
        pytest.param({"has_s": "false"}, "has_s=false", id="presence"),
        pytest.param({"in_n": ["1", "2"]}, "in_n=1%2C2", id="choices"),
        pytest.param({"exclude_n": "1"}, "exclude_n=1", id="one-choice"),
        pytest.param({"enabled": True}, "enabled=true", id="boolean"),
        pytest.param({"n": None}, "n=null", id="null"),
        pytest.param({"id": "123"}, "id=%22123%22", id="ids-are-text"),
        pytest.param({"in_id": ["123", "r"]}, "in_id=%22123%22%2C%22r%22", id="chosen-ids-are-text"),
        pytest.param({"in_s": ["a,b"]}, "in_s=%22a%5Cu002cb%22", id="choice-with-a-comma"),
    ],
)
def test_m01_the_text_of_a_keyword_is_sent_as_it_is(
    client: Client, wire: Wiretap, params: dict[str, Any], query: str
) -> None:
    client.get_records(**params)
    client.delete_records(**params)

    assert [request.query.startswith(query) for request in wire.requests] == [True, True]


def test_m01_the_history_is_purged_by_raw_text(client: Client, wire: Wiretap) -> None:
    client.purge_history(user_id="account:a", _before='"12"')

    assert [request.query for request in wire.requests] == ["user_id=account%3Aa&_before=%2212%22"]


def test_m01_a_backport_with_a_text_filter_deletes_no_record(client: Client) -> None:
    client.create_record(id="r", data={"enabled": True, "version": 1})

    found = [client.get_records(enabled="true"), client.get_records(version="1"), client.get_records(in_version="1,2")]

    assert [[record["id"] for record in records] for records in found] == [["r"]] * 3

"""What Kinto does with preconditions, patches, batches, permissions and lists, where the code relies on it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from contract.conftest import Send

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STALE = '"1"'


@pytest.fixture
def record(send: Send, records: str) -> str:
    """The path of a record."""
    path = f"{records}/x"
    assert send("PUT", path, {"data": {"n": 1, "below": {"x": 1, "y": 2}}}).status_code == 201
    return path


def batch(send: Send, *entries: dict[str, Any]) -> list[dict[str, Any]]:
    response = send("POST", "/batch", {"requests": list(entries)})
    assert response.status_code == 200, response.text
    responses: list[dict[str, Any]] = response.json()["responses"]
    return responses


def put(path: str, **data: Any) -> dict[str, Any]:
    return {"method": "PUT", "path": path, "body": {"data": data}}


def data_of(send: Send, path: str) -> dict[str, Any]:
    data: dict[str, Any] = send("GET", path).json()["data"]
    return {key: value for key, value in data.items() if key not in ("id", "last_modified")}


# -- preconditions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "exists", "missing"),
    [
        pytest.param("PUT", {"If_Match": STALE}, 412, 412, id="put if-match"),
        pytest.param("PUT", {"If_None_Match": "*"}, 412, 201, id="put if-none-match"),
        pytest.param("PATCH", {"If_Match": STALE}, 412, 404, id="patch if-match"),
        pytest.param("PATCH", {"If_None_Match": "*"}, 412, 404, id="patch if-none-match"),
        pytest.param("DELETE", {"If_Match": STALE}, 412, 404, id="delete if-match"),
        pytest.param("DELETE", {}, 200, 404, id="delete"),
        pytest.param("GET", {"If_Match": STALE}, 412, 404, id="get if-match"),
        pytest.param("GET", {"If_None_Match": STALE}, 200, 404, id="get if-none-match"),
    ],
)
def test_what_a_precondition_is_answered_with(
    send: Send, record: str, records: str, method: str, headers: dict[str, str], exists: int, missing: int
) -> None:
    body = {"data": {"n": 2}} if method in ("PUT", "PATCH") else None
    assert send(method, record, body, **headers).status_code == exists
    assert send(method, f"{records}/unknown", body, **headers).status_code == missing


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_the_current_etag_is_the_right_precondition(send: Send, record: str, method: str) -> None:
    etag = send("GET", record).headers["ETag"]
    body = None if method == "DELETE" else {"data": {"n": 2}}
    assert send(method, record, body, If_Match=etag).status_code == 200


def test_a_412_carries_the_object_without_its_permissions(send: Send, record: str) -> None:
    answer = send("PUT", record, {"data": {}}, If_None_Match="*")
    existing = answer.json()["details"]["existing"]
    assert existing["n"] == 1 and existing["id"] == "x" and "permissions" not in existing
    assert answer.headers["ETag"] == f'"{existing["last_modified"]}"'


def test_a_412_for_a_missing_object_carries_none(send: Send, records: str) -> None:
    answer = send("PUT", f"{records}/unknown", {"data": {}}, If_Match=STALE)
    assert "details" not in answer.json()


def test_a_deleted_object_can_be_created_again(send: Send, record: str) -> None:
    tombstone = send("DELETE", record).json()["data"]
    assert set(tombstone) == {"id", "last_modified", "deleted"}
    assert send("PUT", record, {"data": {}}, If_None_Match="*").status_code == 201


# -- missing objects --------------------------------------------------------------------------------------------------


def test_a_missing_bucket_is_forbidden_and_a_missing_parent_or_record_not_found(send: Send, records: str) -> None:
    assert send("GET", "/buckets/unknown").status_code == 403
    below = send("GET", "/buckets/b/collections/unknown/records/x")
    assert (below.status_code, below.json()["errno"]) == (404, 111)
    record = send("GET", f"{records}/unknown")
    assert (record.status_code, record.json()["errno"]) == (404, 110)
    assert record.json()["details"] == {"id": "unknown", "resource_name": "record"}


def test_the_default_bucket_answers_with_its_real_id(send: Send) -> None:
    real = send("GET", "/").json()["user"]["bucket"]
    assert send("GET", "/buckets/default").json()["data"]["id"] == real


def test_an_id_with_a_newline_at_its_end_is_stored(send: Send, records: str) -> None:
    assert send("PUT", f"{records}/a%0A", {"data": {"n": 1}}).status_code == 201
    assert send("GET", f"{records}/a%0A").json()["data"]["id"] == "a\n"


@pytest.mark.parametrize("id", ["a.b", "a%20b", "-a", "_a", "%C3%A9", "a:b"])
def test_other_ids_than_letters_digits_dashes_and_underscores_are_refused(send: Send, records: str, id: str) -> None:
    assert send("PUT", f"{records}/{id}", {"data": {}}).status_code == 400


def test_a_slash_at_the_end_redirects_to_the_whole_list(send: Send, record: str, records: str) -> None:
    assert urlsplit(send("GET", f"{records}/").url).path.endswith("/records")


# -- patches ----------------------------------------------------------------------------------------------------------


def test_a_plain_patch_replaces_keys_and_stores_null(send: Send, record: str) -> None:
    send("PATCH", record, {"data": {"n": None, "below": {"x": 3}}})
    assert data_of(send, record) == {"n": None, "below": {"x": 3}}


def test_a_merge_patch_merges_and_removes(send: Send, record: str) -> None:
    send("PATCH", record, {"data": {"n": None, "below": {"x": 3, "y": None}}}, Content_Type=MERGE)
    assert data_of(send, record) == {"below": {"x": 3}}


def test_a_merge_patch_with_a_charset_is_a_plain_patch(send: Send, record: str) -> None:
    send("PATCH", record, {"data": {"n": None}}, Content_Type=f"{MERGE}; charset=utf-8")
    assert data_of(send, record)["n"] is None


def test_a_json_patch_works_on_data_and_permissions(send: Send, record: str) -> None:
    operations = [
        {"op": "replace", "path": "/data/n", "value": 2},
        {"op": "add", "path": "/permissions/read/account:bob"},
    ]
    answer = send("PATCH", record, operations, Content_Type=JSON_PATCH).json()
    assert answer["data"]["n"] == 2
    assert answer["permissions"]["read"] == ["account:bob"]


def test_merging_an_object_into_a_plain_value_fails(send: Send, record: str) -> None:
    assert send("PATCH", record, {"data": {"n": {"x": 1}}}, Content_Type=MERGE).status_code == 500


def test_an_empty_patch_is_refused_and_empty_data_moves_the_timestamp(send: Send, record: str) -> None:
    before = send("GET", record).headers["ETag"]
    assert send("PATCH", record, {}).status_code == 400
    assert send("PATCH", record, {"data": {}}).headers["ETag"] != before


def test_a_put_removes_the_keys_that_it_does_not_name(send: Send, record: str) -> None:
    send("PUT", record, {"data": {"m": 2}})
    assert data_of(send, record) == {"m": 2}


# -- batches ----------------------------------------------------------------------------------------------------------


def test_answers_of_a_batch_come_in_order_and_a_refusal_undoes_nothing(send: Send, records: str, record: str) -> None:
    stale = put(record, n=2) | {"headers": {"If-Match": STALE}}
    answers = batch(send, put(f"{records}/a"), stale, put(f"{records}/b"))
    assert [one["status"] for one in answers] == [201, 412, 201]
    assert answers[1]["body"]["details"]["existing"]["n"] == 1
    assert send("GET", f"{records}/a").status_code == send("GET", f"{records}/b").status_code == 200


def test_a_merge_patch_in_a_batch_stores_its_nulls(send: Send, record: str) -> None:
    entry = {"method": "PATCH", "path": record, "headers": {"Content-Type": MERGE}, "body": {"data": {"n": None}}}
    batch(send, entry)
    assert data_of(send, record)["n"] is None


def test_a_json_patch_in_a_batch_is_refused_with_all_of_it(send: Send, records: str, record: str) -> None:
    entry = {"method": "PATCH", "path": record, "headers": {"Content-Type": JSON_PATCH}, "body": []}
    assert send("POST", "/batch", {"requests": [put(f"{records}/a"), entry]}).status_code == 400
    assert send("GET", f"{records}/a").status_code == 404


@pytest.mark.parametrize("path", ["/buckets/batch", "/buckets/batch-jobs", "/buckets/b/collections/batches"])
def test_a_path_with_an_id_that_begins_with_batch_is_refused_in_a_batch(send: Send, records: str, path: str) -> None:
    assert send("POST", "/batch", {"requests": [put(path)]}).status_code == 400
    assert send("PUT", path, {"data": {}}).status_code == 201


def test_a_bucket_named_v1_can_be_in_a_batch(send: Send) -> None:
    answers = batch(send, put("/buckets/v1"), put("/buckets/datav1"), put("/buckets/datav1/collections/c"))
    assert [one["status"] for one in answers] == [201, 201, 201]
    assert send("GET", "/buckets/datav1/collections/c").status_code == 200


def test_a_batch_larger_than_the_limit_is_refused_whole(send: Send, records: str) -> None:
    limit = send("GET", "/").json()["settings"]["batch_max_requests"]
    entries = [put(f"{records}/r{number}") for number in range(limit + 1)]
    assert send("POST", "/batch", {"requests": entries}).status_code == 400
    assert send("HEAD", records).headers["Total-Objects"] == "0"


def test_a_409_in_a_batch_undoes_what_was_answered_before_it(
    send: Send, records: str, record: str, is_memory: bool
) -> None:
    taken = send("GET", record).json()["data"]["last_modified"]
    answers = batch(send, put(f"{records}/a"), put(f"{records}/y", last_modified=taken), put(f"{records}/z"))
    stored = [send("GET", f"{records}/{id}").status_code for id in "ayz"]
    if is_memory:
        assert [one["status"] for one in answers] == [201, 201, 201]
        assert stored == [200, 200, 200]
    else:
        assert [one["status"] for one in answers] == [201, 409, 201]
        assert stored == [404, 404, 200]


def test_headers_of_the_batch_are_inherited_by_its_entries(send: Send, record: str) -> None:
    answer = send("POST", "/batch", {"requests": [put(record, n=2)]}, If_Match=STALE)
    assert [one["status"] for one in answer.json()["responses"]] == [412]


# -- permissions ------------------------------------------------------------------------------------------------------


def test_the_writer_is_added_to_the_writers(send: Send, record: str) -> None:
    me = send("GET", "/").json()["user"]["id"]
    assert send("PATCH", record, {"permissions": {"write": []}}).json()["permissions"] == {"write": [me]}


def test_permissions_are_hidden_from_who_is_no_explicit_writer(send: Send, record: str) -> None:
    send("PATCH", "/buckets/b", {"permissions": {"read": ["system.Everyone"]}})
    assert send("GET", record, user="bob").json()["permissions"] == {}


def test_a_put_without_permissions_keeps_them_and_one_with_a_name_replaces_all(send: Send, record: str) -> None:
    send("PATCH", record, {"permissions": {"read": ["account:bob"], "write": ["account:eve"]}})
    without: list[dict[str, Any]] = [{"data": {}}, {"data": {}, "permissions": {}}]
    for body in without:
        assert send("PUT", record, body).json()["permissions"]["read"] == ["account:bob"]
    answer = send("PUT", record, {"data": {}, "permissions": {"read": ["account:carol"]}}).json()
    assert answer["permissions"]["read"] == ["account:carol"]
    assert "account:eve" not in answer["permissions"]["write"]


def test_a_patch_replaces_the_named_permissions_only(send: Send, record: str) -> None:
    send("PATCH", record, {"permissions": {"read": ["account:bob"], "write": ["account:eve"]}})
    answer = send("PATCH", record, {"permissions": {"read": []}}).json()
    assert "read" not in answer["permissions"]
    assert "account:eve" in answer["permissions"]["write"]


# -- lists ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(send: Send, records: str) -> str:
    """A list of five records."""
    batch(send, *(put(f"{records}/r{number}", n=number) for number in range(5)))
    return records


def test_next_page_is_an_absolute_url_that_keeps_the_query(send: Send, five: str) -> None:
    first = send("GET", f"{five}?_sort=id&_limit=2&min_n=0")
    following = urlsplit(first.headers["Next-Page"])
    asked = parse_qs(following.query)
    assert following.path == f"/v1{five}"
    assert (asked["_sort"], asked["_limit"], asked["min_n"]) == (["id"], ["2"], ["0"])
    assert [row["id"] for row in send("GET", first.headers["Next-Page"]).json()["data"]] == ["r2", "r3"]


def test_next_page_believes_the_host_header(send: Send, five: str) -> None:
    answer = send("GET", f"{five}?_limit=2", Host="elsewhere.example")
    assert urlsplit(answer.headers["Next-Page"]).netloc == "elsewhere.example"


def test_next_page_of_the_default_bucket_names_its_real_id(send: Send) -> None:
    path = "/buckets/default/collections/c/records"
    for number in range(3):
        send("PUT", f"{path}/r{number}", {"data": {}})
    assert "/default/" not in send("GET", f"{path}?_limit=2").headers["Next-Page"]


def test_a_full_last_page_has_no_next(send: Send, five: str) -> None:
    assert "Next-Page" not in send("GET", f"{five}?_limit=5").headers


def test_only_head_tells_how_many_there_are(send: Send, five: str) -> None:
    assert "Total-Objects" not in send("GET", five).headers
    assert send("HEAD", f"{five}?min_n=3&_limit=1").headers["Total-Objects"] == "2"


def test_the_etag_of_a_filtered_list_is_that_of_the_whole_list(send: Send, five: str) -> None:
    assert send("GET", f"{five}?n=1").headers["ETag"] == send("HEAD", five).headers["ETag"]


def test_deleting_a_list_deletes_one_page_and_names_the_next(send: Send, five: str) -> None:
    first = send("DELETE", f"{five}?_limit=3")
    assert [row["deleted"] for row in first.json()["data"]] == [True, True, True]
    send("DELETE", first.headers["Next-Page"])
    assert send("HEAD", five).headers["Total-Objects"] == "0"


def test_tombstones_are_in_the_list_since_a_moment(send: Send, five: str) -> None:
    before = send("HEAD", five).headers["ETag"]
    send("DELETE", f"{five}/r1")
    rows = send("GET", f"{five}?_since={before}").json()["data"]
    assert [(row["id"], row["deleted"]) for row in rows] == [("r1", True)]


def test_in_the_order_of_change_an_updated_record_is_lost_between_pages(send: Send, five: str) -> None:
    found = ids_over_pages(send, f"{five}?_limit=2", then=lambda: send("PUT", f"{five}/r1", {"data": {}}))
    assert found == ["r4", "r3", "r2", "r0"]


def test_in_the_order_of_ids_each_record_comes_once(send: Send, five: str) -> None:
    found = ids_over_pages(send, f"{five}?_limit=2&_sort=id", then=lambda: send("PUT", f"{five}/r1", {"data": {}}))
    assert found == ["r0", "r1", "r2", "r3", "r4"]


def ids_over_pages(send: Send, target: str, then: Any) -> list[str]:
    found: list[str] = []
    following: str | None = target
    while following:
        answer = send("GET", following)
        found += [row["id"] for row in answer.json()["data"]]
        following = answer.headers.get("Next-Page")
        if len(found) == 2:
            then()
    return found


def test_fields_always_bring_id_and_last_modified(send: Send, five: str) -> None:
    rows = send("GET", f"{five}?_fields=n").json()["data"]
    assert all(set(row) == {"id", "last_modified", "n"} for row in rows)


def test_a_dotted_field_brings_the_object_around_it(send: Send, record: str, records: str) -> None:
    (row,) = send("GET", f"{records}?_fields=below.x").json()["data"]
    assert row["below"] == {"x": 1}


@pytest.mark.parametrize("number", [pytest.param(2**64 - 1, id="largest"), pytest.param(-(2**63), id="smallest")])
def test_integers_of_64_bits_are_kept(send: Send, records: str, number: int) -> None:
    assert send("PUT", f"{records}/big", {"data": {"n": number}}).json()["data"]["n"] == number


def test_text_with_nul_is_stored_on_memory_and_fails_on_postgresql(send: Send, records: str, is_memory: bool) -> None:
    answer = send("PUT", f"{records}/nul", {"data": {"t": "a\0b"}})
    assert answer.status_code == (201 if is_memory else 503)

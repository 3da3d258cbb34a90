"""What the reference client does and the side by side does not show: changesets, own patches, odd answers."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import pytest
from small_server import AUTH, PAGE
from wiretap import Script, Wiretap, answer

from kinto_orm import kinto_http
from kinto_orm.errors import ConnectionLostError, InvalidTypeError
from kinto_orm.kinto_http import Client, KintoException, objects
from kinto_orm.kinto_http.patch_type import BasicPatch, JSONPatch, MergePatch, PatchType
from kinto_orm.protocol.messages import Response


def told(*responses: Response) -> tuple[Client, Wiretap]:
    """Return a client whose server gives just this answer, and the list of its requests."""
    client = Client(server_url="http://localhost:8888/v1", auth=AUTH, bucket="b", collection="c")
    wire = Wiretap(Script(list(responses)))
    client.session.client._connection.transport = wire
    return client, wire


CHANGES = {"metadata": {}, "timestamp": 1, "changes": []}


def test_a_changeset_is_what_the_server_sends() -> None:
    client, wire = told(answer(CHANGES), answer(CHANGES), answer(CHANGES))

    assert client.get_changeset() == CHANGES
    client.get_changeset("monitor", "changes", bust_cache=True, _since=42, _limit=5)
    client.get_changeset(collection="d", _expected="7", _since='"43"')

    first, busted, given = wire.requests
    assert first.target == "/buckets/b/collections/c/changeset?_expected=0"
    assert busted.path == "/buckets/monitor/collections/changes/changeset"
    assert busted.query.startswith("_expected=999") and busted.query.endswith("&_since=%2242%22&_limit=5")
    assert given.target == "/buckets/b/collections/d/changeset?_expected=7&_since=%2243%22"


def test_a_changeset_that_is_none_is_an_error() -> None:
    with pytest.raises(KintoException):
        told(answer([]))[0].get_changeset()
    with pytest.raises(KintoException, match="collection is missing"):
        Client(server_url="http://x/v1").get_changeset()
    with pytest.raises(KintoException, match="is no bucket"):
        Client(server_url="http://x/v1").get_changeset("my bucket", "c")


def test_a_patch_may_be_of_a_users_own_class(client: Client, wire: Wiretap) -> None:
    class Mine(PatchType):
        content_type = "application/merge-patch+json"

        def __init__(self) -> None:
            self.body = {"data": {"n": None, "m": 1}}

    client.create_record(id="r", data={"n": 1})

    assert "n" not in client.patch_record(id="r", changes=Mine())["data"]
    assert wire.requests[-1].headers["Content-Type"] == Mine.content_type
    with pytest.raises(TypeError, match="couldn't understand"):
        client.patch_record(id="r", changes=PatchType())


def test_the_patches_of_kinto_orm_are_those_of_the_reference_client() -> None:
    patches = [BasicPatch({"n": 1}), MergePatch({"n": None}), JSONPatch([{"op": "remove", "path": "/data/n"}])]

    assert all(isinstance(patch, PatchType) for patch in patches)


def test_a_bucket_that_takes_credentials_says_so() -> None:
    client, _ = told(answer({"errno": 104}, 401))

    with pytest.raises(KintoException, match=r"401 Unauthorized\. Please authenticate"):
        client.get_bucket()


def test_permissions_may_be_an_object_that_gives_them(client: Client) -> None:
    class Mine:
        def as_dict(self) -> dict[str, list[str]]:
            return {"read": ["bob"]}

    assert client.create_record(permissions=Mine())["permissions"]["read"] == ["bob"]
    assert client.session.request("put", "/buckets/x", permissions=Mine())[0]["permissions"]["read"] == ["bob"]


def test_a_client_without_bucket_or_collection_says_which_is_missing(url: str) -> None:
    client = Client(server_url=url, auth=AUTH, bucket=None)

    assert repr(client) == f"<KintoClient {url}/>"
    with pytest.raises(KintoException, match="bucket is missing"):
        client.get_bucket()
    with pytest.raises(KintoException, match="collection is missing"):
        client.get_records(bucket="b")
    with pytest.raises(KintoException, match="group is missing"):
        client.patch_group(bucket="b", data={"n": 1})


def test_an_unknown_endpoint_is_refused(client: Client) -> None:
    with pytest.raises(KintoException, match="no endpoint"):
        client.get_endpoint("planets")


def test_data_of_another_object_is_refused(client: Client, wire: Wiretap) -> None:
    with pytest.raises(KintoException, match="another object"):
        client.update_record(id="r", data={"id": "s"})

    assert wire.requests == []


def test_fields_of_nothing_are_all_fields(client: Client) -> None:
    client.create_record(id="r", data={"n": 1})

    assert client.get_record(id="r", _fields=None)["data"]["n"] == 1


def test_pages_of_the_servers_own_size_are_counted(client: Client) -> None:
    with client.batch() as batch:
        for n in range(PAGE + 2):
            batch.create_record(id=f"r{n}", data={"n": n})

    assert len(client.get_records(pages=1)) == PAGE
    assert len(client.get_records(pages=9)) == PAGE + 2
    assert len(client.get_records(pages=float("inf"))) == PAGE + 2
    assert [record["n"] for record in client.get_records(pages=1, _sort="n")] == list(range(PAGE))


def test_quoted_text_that_is_no_json_is_that_text(client: Client) -> None:
    client.create_record(id="r", data={"s": '"\\"'})

    assert len(client.get_records(s='"\\"')) == 1


@pytest.mark.parametrize("verb", ["get_records", "get_history"])
def test_a_list_that_leads_elsewhere_is_an_error(verb: str) -> None:
    client, _ = told(answer({}, 307))

    with pytest.raises(KintoException, match="307"):
        getattr(client, verb)()


def test_a_page_that_leads_elsewhere_is_an_error() -> None:
    client, _ = told(answer({}, 307))

    with pytest.raises(KintoException, match="307"):
        list(client.get_paginated_records(if_none_match=3))


def test_a_deletion_takes_no_parameter_for_caches() -> None:
    client, wire = told()

    with pytest.raises(KintoException, match="takes no parameter _expected"):
        client.delete_records(collection="c", _expected=7)

    assert wire.requests == []


def test_an_answer_without_a_timestamp_is_none() -> None:
    assert told(Response(200))[0].get_records_timestamp() == ""


def test_a_deletion_without_an_answer_is_empty() -> None:
    assert told(Response(204))[0].delete_record(id="r") == {}


def test_a_session_is_never_copied_with_its_secrets(client: Client) -> None:
    with pytest.raises(InvalidTypeError, match="credentials"):
        copy.copy(client.session)


def test_a_session_that_was_never_used_can_be_closed() -> None:
    Client(auth=AUTH).clone(retry=3).close()


def test_a_client_that_nobody_closes_leaves_no_open_sockets(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = Client(server_url=url, auth=AUTH)
        clone = client.clone(headers={"X-A": "1"})
        cycle: list[Any] = [client, clone]
        cycle.append(cycle)
        assert client.get_buckets() == clone.get_buckets()

        del client, clone, cycle
        gc.collect()


def test_clones_outlive_the_client_that_they_share_connections_with(url: str) -> None:
    clone = Client(server_url=url, auth=AUTH).clone(dry_mode=True)
    gc.collect()

    assert clone.get_buckets() == []


def test_a_list_may_be_unchanged_for_both_clients() -> None:
    assert isinstance(told(Response(304))[0].get_records(if_none_match=3), objects.Unchanged)


def test_batches_ask_the_server_where_nobody_says_how_much_it_takes() -> None:
    client, wire = told(answer({"settings": {}}))

    with pytest.raises(KintoException, match="inside a batch"), client.batch() as batch:
        batch.session.run(kinto_http.objects.post(kinto_http.session.Request("PUT", "/buckets/b", body=b"{}")))

    assert wire.requests == []


def test_a_batch_may_have_its_size_from_its_maker() -> None:
    client, wire = told(*[answer({"responses": [{"status": 404, "path": "", "headers": {}, "body": {}}]})] * 2)
    session = kinto_http.batch.BatchSession(client, batch_max_requests=1, ignore_4xx_errors=True)

    for id in ("r", "s"):
        session.run(kinto_http.objects.delete(client._ids(kinto_http.verbs.Kind.RECORD, id), **SAFE))
    session.send()

    assert [request.path for request in wire.requests] == ["/batch", "/batch"]
    assert session.results() == [{}, {}]


SAFE: dict[str, Any] = {"safe": True, "if_match": None, "if_exists": False}


def test_what_needs_no_request_is_told_inside_a_batch(client: Client) -> None:
    with client.batch() as batch:
        assert batch.get_endpoint("record", id="r") == "/buckets/b/collections/c/records/r"


def test_what_may_not_be_created_is_said_as_outside_of_a_batch(client: Client) -> None:
    bob = client.clone(auth=("bob", "secret"))

    def create() -> None:
        with bob.batch() as batch:
            batch.create_record(id="r")

    with pytest.raises(kinto_http.KintoBatchException, match=r"403 Unauthorized\. Please check that the collection"):
        create()


def test_what_comes_after_a_batch_may_fail_too() -> None:
    class Lost(Script):
        def send(self, request: Any) -> Response:
            if request.method == "GET" and request.path != "/":
                raise ConnectionLostError("lost")
            return super().send(request)

    existing = {"details": {"existing": {"id": "r", "last_modified": 1}}}
    responses = {"responses": [{"status": 412, "path": "", "headers": {}, "body": existing}]}
    client, wire = told()
    wire.transport = Lost([answer({"settings": {}}), answer(responses)])

    def create() -> None:
        with client.batch() as batch:
            batch.create_record(id="r", if_not_exists=True)

    with pytest.raises(kinto_http.KintoBatchException, match="lost"):
        create()


def test_a_bucket_that_may_not_be_created_is_refused_in_the_servers_words() -> None:
    client, _ = told(answer({"errno": 121}, 403))

    with pytest.raises(KintoException, match=r"403 - \{'errno': 121\}"):
        client.create_bucket()


def test_caches_can_be_gone_past() -> None:
    follow = {"next-page": "http://x/v1/buckets/b/collections/c/records?_token=1&_expected=7"}
    page = answer({"data": []})
    client, wire = told(answer({"data": [{"id": "r"}]}, headers=follow), page, page, answer({"data": {"id": "c"}}))

    client.get_records(_expected=7)
    list(client.get_paginated_records(_expected="8"))
    client.get_collection(_expected=9)

    queries = [request.query for request in wire.requests]
    expected = [[one for one in query.split("&") if one.startswith("_expected")] for query in queries]
    assert expected == [["_expected=7"], ["_expected=7"], ["_expected=8"], ["_expected=9"]]


def test_a_clone_of_a_client_on_a_users_own_session_is_one_for_the_same_server() -> None:
    class Mine:
        server_url = "http://mine/v1"
        auth = AUTH

        def request(self, method: str, endpoint: str, **options: Any) -> Any:
            return {"data": {"id": "b"}}, {}

    client = Client(session=Mine(), bucket="b")

    assert client.clone(bucket="c").session is client.session
    assert client.get_bucket() == {"data": {"id": "b"}}
    for clone in (
        client.clone(retry=2),
        Client(session=Mine(), retry=2),
        client.clone(auth=("bob", "secret"), retry=2),
    ):
        assert (clone.session.server_url, clone.session.nb_retry) == ("http://mine/v1", 2)
    assert clone.session.auth == ("bob", "secret")

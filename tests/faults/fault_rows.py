"""The rows of the fault matrix: 179 cases in which a client of Kinto loses data, shows secrets, lies, crashes or hangs.

Each row is a test of its name in this directory, is asserted by tests that stand elsewhere, or cannot apply.
"""

from __future__ import annotations

import re

ROWS = re.findall(
    r"\w+",
    """
    A01 A02 A03 A04 A05 A06 A07 A08 A09 A10 A11 A12 A13 A14 A15 A19 A20 A23 A24 A31 A32 A33 A34 A35 A36
    B01 B10 B02 B03 B04 B05 B09 B06 B28 B07 B08 B11 B12 B13 B14 B16 B17 B18 B19 B20 B21 B22 B23 B24 B25 B26 B27
    C31 I12 P01 P02
    C01 C02 C03 C04 C05 C06 C07 C08 C09 C10 C11 C12 C13 C14 C15 C16 C17 C18 C19 C20 C21 C22 C23 C24 C25 C27 C29 C30
    D01 G24 D02 D03 D04 D05 D06 D07 D08 D09 D10 D11
    E01 E02 E03 E05 E04 E06 E07 E08 E10 E13 E14 E15 E17 E18 E19 E21 E22 E23 E24 S14 S05
    F01 F03 F04 F05 F06 F11 F12 F13 F62 F15 F20 F21 F30 F33 F41 F42 F52 F46 F45 F44 F48 F49 F53
    G01 G03 G04 G05 G08 G09 G10 G11 G12 G13 G14 G15 G16 G17 G18 G19 G20 G21 G22 G23 G25 V01
    H01 H02 H03 H04 H05 H08 I04 I05
    I01 I02 I03 I06 I08 I09 I11 I13 S15
    """,
)

_BAD_ID = "protocol/test_paths.py::test_a_bad_id_is_refused_before_anything_is_sent"
_FILTERS = "protocol/test_filters.py::test_values_are_compared_exactly"
_FINAL = "transport/test_retry.py::test_what_the_server_means_is_final"

ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["A01", "A02", "A03", "A04", "A05", "A06", "A10", "A12", "A13", "A14", "A15"], (_BAD_ID,)),
    **dict.fromkeys(["A20", "A23", "A35", "A36"], (_BAD_ID,)),
    "A07": (_BAD_ID, "protocol/test_paths.py::test_a_list_in_the_place_of_an_object_is_an_error"),
    "A08": (_BAD_ID, "protocol/test_paths.py::test_a_whole_list_is_deleted_only_on_demand"),
    "A09": (_BAD_ID, "protocol/test_paths.py::test_a_whole_list_is_deleted_only_on_demand"),
    "A11": ("protocol/test_paths.py::test_an_object_without_an_id_has_nothing_to_delete",),
    "A19": (
        _BAD_ID,
        "protocol/test_paths.py::test_an_id_with_a_newline_that_the_server_stored_can_be_read_and_written",
    ),
    "A24": (_BAD_ID, "protocol/test_paths.py::test_a_uuid_is_an_id"),
    "A31": ("protocol/test_paths.py::test_a_bucket_with_the_version_in_its_name_can_be_in_a_unit_of_work",),
    "A32": ("protocol/test_paths.py::test_deleting_collections_of_a_bucket_named_v1_deletes_no_other_bucket",),
    "A33": ("protocol/test_paths.py::test_a_server_url_without_a_version_is_completed_once",),
    "A34": ("protocol/test_paths.py::test_a_server_url_that_is_none_is_refused",),
    "B14": (
        "transport/test_retry.py::test_waits_grow_up_to_the_cap",
        "transport/test_retry.py::test_waits_are_spread_over_the_whole_range",
        "transport/test_retry.py::test_what_was_not_applied_is_sent_again",
    ),
    "B16": ("transport/test_retry.py::test_retry_after_is_seconds_or_a_date",),
    "B17": ("transport/test_retry.py::test_a_race_and_a_failure_of_the_server_are_tried_once_more",),
    "B18": (_FINAL,),
    "B19": (_FINAL,),
    "B20": (
        "transport/test_retry.py::test_while_the_server_wants_a_pause_requests_wait",
        "transport/test_retry.py::test_a_pause_that_the_call_cannot_take_is_an_error",
        "transport/test_retry.py::test_a_pause_can_be_ignored",
    ),
    "B22": ("transport/test_retry.py::test_a_pause_that_the_call_cannot_take_is_an_error",),
    "B24": (
        "transport/test_http.py::test_a_dripping_body_meets_the_deadline",
        "transport/test_http.py::test_a_dripping_head_meets_the_deadline",
    ),
    "C13": ("transport/test_http.py::test_a_gzip_bomb_is_stopped_while_it_unfolds",),
    "D02": ("query/test_query.py::test_pages_in_a_circle_end_with_an_error",),
    "D05": ("query/test_query.py::test_thousands_of_pages_are_read_in_constant_memory_and_without_recursion",),
    "D06": (
        "query/test_query.py::test_objects_updated_while_they_are_read_come_once",
        "query/test_query.py::test_reading_is_complete_and_without_duplicates_while_another_client_writes",
    ),
    "D09": ("query/test_query.py::test_thousands_of_pages_are_read_in_constant_memory_and_without_recursion",),
    "D10": ("query/test_query.py::test_pages_tell_whether_there_are_more_and_the_time_of_the_list",),
    "E06": ("unit_of_work/test_engine.py::test_after_a_lost_chunk_nothing_more_is_sent",),
    "E15": ("unit_of_work/test_unit_of_work.py::test_reads_run_at_once_and_do_not_see_what_is_staged",),
    "E17": ("unit_of_work/test_unit_of_work.py::test_a_block_that_raises_sends_nothing",),
    "E19": ("unit_of_work/test_staging.py::test_two_deletions_become_one",),
    "E21": ("unit_of_work/test_unit_of_work.py::test_a_dictionary_that_is_edited_after_staging_changes_nothing",),
    "E22": ("unit_of_work/test_engine.py::test_a_server_that_takes_fewer_by_now_gets_smaller_batches",),
    "E23": ("unit_of_work/test_staging.py::test_a_merge_patch_that_removes_is_sent_as_a_put_of_the_whole",),
    "E24": ("unit_of_work/test_unit_of_work.py::test_what_a_batch_cannot_carry_is_refused_when_it_is_staged",),
    "S14": (
        "unit_of_work/test_engine.py::test_what_a_409_rolled_back_is_sent_again",
        "unit_of_work/test_engine.py::test_a_409_makes_everything_before_it_void_and_nothing_after_it",
    ),
    "F30": (
        "models/test_permissions.py::test_a_name_that_records_do_not_have_is_refused",
        "models/test_permissions.py::test_what_is_no_list_of_principals_is_refused",
        "models/test_permissions.py::test_a_bare_string_is_no_list_of_letters",
    ),
    **dict.fromkeys(["F41", "F42", "F52", "F46", "F45"], (_FILTERS,)),
    "F44": (_FILTERS, "protocol/test_filters.py::test_in_without_values_sends_nothing"),
    "F48": (
        "protocol/test_filters.py::test_only_takes_names_not_lists_and_keeps_what_was_asked",
        "models/test_loading.py::test_a_partial_object_is_not_written",
    ),
    "F49": ("protocol/test_filters.py::test_names_are_checked_against_the_model",),
    "F53": ("protocol/test_filters.py::test_since_takes_every_form_of_a_timestamp",),
    "G05": (
        "transport/test_auth.py::test_anything_else_is_refused_without_showing_it",
        "transport/test_auth.py::test_a_header_that_cannot_be_sent_is_refused_without_showing_it",
    ),
    "G13": ("transport/test_http.py::test_netrc_is_not_used",),
    "G15": ("transport/test_auth.py::test_every_form_of_auth_gives_its_header",),
    "G16": ("transport/test_auth.py::test_anything_else_is_refused_without_showing_it",),
    "G21": (
        "transport/test_http.py::test_an_unknown_certificate_is_refused_once",
        "transport/test_http.py::test_a_certificate_can_be_trusted",
        "transport/test_http.py::test_a_client_may_have_a_certificate",
    ),
    "G23": ("transport/test_http.py::test_cookies_are_not_replayed",),
    "H02": ("transport/test_http.py::test_a_child_process_does_not_share_sockets",),
    "H05": ("transport/test_retry.py::test_a_cancelled_call_sends_nothing_more",),
    "H08": (
        "client/test_client.py::test_only_the_sending_leaves_the_event_loop_s_thread",
        "transport/test_retry.py::test_waiting_does_not_block_the_event_loop",
    ),
    "I01": ("models/test_kinto_object.py::test_without_its_timestamp_an_object_is_not_written_by_accident",),
    "S15": (
        "concurrency/test_servers.py::test_ours_are_at_repeatable_read",
        "concurrency/test_servers.py::test_stock_servers_are_at_read_committed",
    ),
}
"""The tests that assert the row, below ``tests/``."""

CANNOT_APPLY: dict[str, str] = {
    "I06": "The command line has no command that replicates.",
}
"""The rows that speak of what we do not have. The day that we have it, ``test_rows.py`` asks for their tests."""

PENDING: dict[str, str] = {}
"""The rows whose tests fail so far, and why: strictly, so the one that is mended leaves this list."""


def row_of(name: str) -> str | None:
    """Return the row that a test or a parameter is named after."""
    found = re.search(r"(?:\btest_|\[)([a-zA-Z]\d\d)(?:_|\b)", name)
    return found[1].upper() if found else None

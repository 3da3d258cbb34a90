"""Text files and sorted lists on the disk of this machine."""

from __future__ import annotations

import gc
import hashlib
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinto_orm import InvalidTypeError, InvalidValueError, UsageError
from kinto_orm.repository.disk import (
    Entry,
    FileDigest,
    Folder,
    SortedLists,
    open_folder,
    open_lists,
    read_lines,
    write_text,
)


@pytest.fixture
def lists() -> Iterator[SortedLists]:
    lists = open_lists()
    yield lists
    lists.close()


def test_lists_that_are_dropped_close_their_file() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_lists()
        gc.collect()

    assert [one.message for one in caught] == []


def test_lines_come_with_their_ends_and_without_the_mark(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes('\ufeffid,name\r\n1,"é"\n'.encode())

    assert list(read_lines(file)) == ["id,name\r\n", '1,"é"\n']


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"id\n\xff\n")

    with pytest.raises(InvalidValueError, match=r"rows\.csv is not UTF-8"):
        list(read_lines(file))


def test_a_file_that_is_written_takes_its_place_whole(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("old")

    def pieces() -> list[str]:
        assert file.read_text() == "old"
        return ["ne", "w"]

    write_text(file, (piece for piece in pieces()))
    assert file.read_text() == "new"

    with pytest.raises(ZeroDivisionError):
        write_text(file, (str(1 // number) for number in (1, 0)))
    assert [one.read_text() for one in tmp_path.iterdir()] == ["new"]


def test_lists_are_sorted_by_code_points_then_by_position(lists: SortedLists) -> None:
    keys = ["b", "a", "Z", "é", "\U0001f600", "\uffff", "a"]
    lists.add("rows", (Entry(key, 9 - number, b"") for number, key in enumerate(keys)))

    found = list(lists.read("rows"))
    assert [entry.key for entry in found] == sorted(keys)
    assert [entry.position for entry in found if entry.key == "a"] == [3, 8]


def test_a_list_can_be_added_to_while_another_one_is_read(lists: SortedLists) -> None:
    lists.add("rows", (Entry(str(number), number, b"x") for number in range(100)))

    for entry in lists.read("rows"):
        lists.add("copy", [entry])

    assert list(lists.read("copy")) == list(lists.read("rows"))


def test_entries_are_found_and_removed_by_key(lists: SortedLists) -> None:
    lists.add("rows", (Entry(str(number), number, str(number).encode()) for number in range(1200)))

    lists.remove("rows", ["7"])

    assert lists.find("rows", ["7", "8", "nowhere"]) == {"8": b"8"}
    assert len(lists.find("rows", map(str, range(1200)))) == 1199


def test_lists_in_a_file_are_there_for_the_next_one_at_once(tmp_path: Path) -> None:
    file = tmp_path / "job.sqlite"
    first = open_lists(file)
    first.add("rows", [Entry("a", 0, b"1"), Entry("b", 0, b"1")])
    first.add("rows", [Entry("a", 0, b"2")])
    first.remove("rows", ["b"])

    # The first one is still open, as it is where its process is killed.
    left = shutil.copy(file, tmp_path / "left.sqlite")
    assert open_lists(left).find("rows", ["a", "b"]) == {"a": b"2"}


def test_lists_in_a_file_are_used_by_one_job_at_a_time(tmp_path: Path) -> None:
    first = open_lists(tmp_path / "job.sqlite")

    with pytest.raises(UsageError, match=r"job\.sqlite is in use"):
        open_lists(tmp_path / "job.sqlite")
    first.close()
    open_lists(tmp_path / "job.sqlite").close()


@pytest.mark.parametrize("content", ["text", "tables"])
def test_a_file_of_another_program_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "job.sqlite"
    if content == "text":
        file.write_text("This is a letter to my aunt." * 100)
    else:
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE aunts (name)")
        database.close()
    before = file.read_bytes()

    with pytest.raises(UsageError, match=r"job\.sqlite cannot be used as a state file"):
        open_lists(file)
    assert file.read_bytes() == before


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return open_folder(tmp_path / "backup")


def write(folder: Folder, name: str, content: bytes) -> FileDigest:
    new = folder.create(name)
    new.write(content[:2])
    new.write(content[2:])
    return new.close()


def test_files_of_a_folder_are_written_read_and_removed(folder: Folder, tmp_path: Path) -> None:
    assert (list(folder.names()), folder.digest("a/b.txt")) == ([], None)

    digest = write(folder, "a/b.txt", b"abc")
    write(folder, "c", b"")

    assert digest == folder.digest("a/b.txt") == FileDigest(3, hashlib.sha256(b"abc").hexdigest())
    assert (folder.read("a/b.txt"), list(folder.names())) == (b"abc", ["a/b.txt", "c"])
    assert folder.path("a/b.txt") == str(tmp_path / "backup" / "a" / "b.txt")
    folder.remove("a/b.txt")
    folder.remove("nowhere/d")
    assert (list(folder.names()), (tmp_path / "backup" / "a").exists()) == (["c"], False)


def test_a_new_file_takes_its_place_when_it_is_closed(folder: Folder) -> None:
    write(folder, "c", b"old")
    new = folder.create("c")
    new.write(b"new")

    assert folder.read("c") == b"old"
    new.discard()
    assert list(folder.names()) == ["c"]


def test_what_a_killed_process_left_is_swept_up(folder: Folder, tmp_path: Path) -> None:
    write(folder, "c", b"")
    for name in (".c.0123abcd.part", "d/.e.0123abcd.part", "my.part"):
        write(folder, name, b"half")

    folder.sweep()

    assert list(folder.names()) == ["c", "my.part"]
    assert not (tmp_path / "backup" / "d").exists()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "C:\\a", "a\\b", "a\0"])
def test_no_name_leads_out_of_the_folder(folder: Folder, name: str) -> None:
    for use in (folder.path, folder.read, folder.digest, folder.create, folder.remove):
        with pytest.raises(InvalidValueError, match="no name of a file below"):
            use(name)


def test_a_folder_is_given_by_its_path() -> None:
    with pytest.raises(InvalidTypeError, match="by its path"):
        open_folder(7)  # type: ignore[arg-type]

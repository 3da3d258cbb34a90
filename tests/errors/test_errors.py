"""The tree of errors: drawn in the docstring, caught by the built-in that Python habit expects, and picklable."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from kinto_orm import Bucket, Collection, Group, Record, errors
from kinto_orm.errors import (
    BODY_EXCERPT,
    CommitError,
    ConflictError,
    InvalidTypeError,
    KintoError,
    MissingExtraError,
    NotFoundError,
    ResponseError,
    UsageError,
)

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, KintoError)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda one: one.__name__)
def test_every_error_is_drawn_in_the_tree_below_its_base(error: type[KintoError]) -> None:
    drawn = re.search(rf"^( *(?:│|├|└)?[ │├└─]*){error.__name__}\b(.*)$", errors.__doc__ or "", re.MULTILINE)

    assert drawn is not None
    built_in = [base.__name__ for base in error.__bases__ if not issubclass(base, KintoError)]
    assert all(name in drawn[2] for name in built_in if name != "Exception")


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy], ids=["pickled", "copied"])
def test_a_conflict_keeps_its_three_sides(copied: object) -> None:
    error = ConflictError("stale", base={"n": 1}, mine={"n": 2}, theirs={"n": 3}, theirs_last_modified=4, path="/x")

    again = pickle.loads(pickle.dumps(error)) if copied is pickle.dumps else copy.copy(error)

    assert type(again) is ConflictError
    assert str(again) == "stale"
    assert (again.base, again.mine, again.theirs, again.theirs_last_modified) == ({"n": 1}, {"n": 2}, {"n": 3}, 4)
    assert (again.status, again.path) == (412, "/x")


@pytest.mark.parametrize("verb", ["reload", "overwrite"])
def test_a_conflict_of_another_process_cannot_be_resolved_here(verb: str) -> None:
    again = pickle.loads(pickle.dumps(ConflictError("stale")))

    with pytest.raises(UsageError, match="load the object again"):
        getattr(again, verb)()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy], ids=["pickled", "copied"])
def test_an_error_that_is_an_import_error_keeps_the_name_of_the_module(copied: object) -> None:
    error = MissingExtraError("pandas is not installed", name="pandas")
    error.add_note("pip install pandas")

    again = pickle.loads(pickle.dumps(error)) if copied is pickle.dumps else copy.copy(error)

    assert (str(again), again.name, again.__notes__) == ("pandas is not installed", "pandas", ["pip install pandas"])


def test_a_commit_error_keeps_its_outcomes() -> None:
    error = CommitError("2 of 3 writes failed", outcomes=("created", "conflict"))

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.outcomes) == ("2 of 3 writes failed", ("created", "conflict"))


def test_the_body_is_kept_in_part() -> None:
    error = ResponseError("too much", status=502, body="x" * 10_000)

    assert len(error.body) == BODY_EXCERPT


def test_what_is_missing_is_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        raise NotFoundError("gone", status=404)


def test_a_model_without_a_collection_names_none() -> None:
    with pytest.raises(InvalidTypeError, match="does not say its collection"):
        Bucket(id="b").collection(Record)


@pytest.mark.parametrize("kind", [Group, Collection])
def test_the_parent_is_given_back(kind: type[Group] | type[Collection[Record]]) -> None:
    bucket = Bucket(id="b")

    assert kind(id="x", bucket=bucket).bucket is bucket

"""Every public verb against every hostile answer: a value or a KintoError, within the deadline and the memory bound.

``tox -e tests`` runs a sample, in which each verb and each answer has a turn; ``tox -e slow`` runs each verb with each
answer that comes at once, called and awaited in turn: a twin is one statement.
"""

from __future__ import annotations

import contextlib
import os
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from hostile import QUICK, SLOW, VERBS, Scene, call
from scripted_server import Serve

from kinto_orm import KintoError, Manager

LONGEST = 10
"""Seconds for one call of a few requests, whose deadline is 0.5 each: the machine may be busy."""

MOST_MEMORY = 40_000_000
"""Bytes at the peak of a call; an answer is refused after one million."""

ANSWERS = {**QUICK, **SLOW}
EVERYTHING = bool(os.environ.get("KINTO_ORM_EVERYTHING"))


def chosen() -> list[Any]:
    """Return the cases to run: surface, verb, answer, and whether the verb is awaited."""
    if EVERYTHING:
        cases = [
            (*verb, name, (number + at) % 2 == 0)
            for number, verb in enumerate(VERBS)
            for at, name in enumerate([*QUICK, list(SLOW)[number % len(SLOW)]])
        ]
    else:
        names = list(QUICK)
        cases = [
            (*verb, names[(number + 7 * awaited) % len(names)], awaited)
            for number, verb in enumerate(VERBS)
            for awaited in (False, True)
        ]
        cases += [(Manager, "get", name, awaited) for name in SLOW for awaited in (False, True)]
    return [pytest.param(*case, id=f"{case[0].__name__}-{'a' if case[3] else ''}{case[1]}-{case[2]}") for case in cases]


@pytest.mark.parametrize(("surface", "verb", "name", "awaited"), chosen())
def test_a_hostile_answer_is_a_value_or_one_of_our_errors(
    serve: Serve, tmp_path: Path, surface: type[Any], verb: str, name: str, awaited: bool
) -> None:
    options = {} if name == "endless-backoff" else {"retry_after": 0.001}
    scene = Scene(serve(), tmp_path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # alerts, principals
        with contextlib.closing(scene.client), contextlib.suppress(KintoError):
            if name == "bomb":
                tracemalloc.start()
            started = time.monotonic()
            try:
                call(scene, surface, verb, ANSWERS[name], awaited=awaited)
            finally:
                assert time.monotonic() - started < LONGEST
                if name == "bomb":
                    peak = tracemalloc.get_traced_memory()[1]
                    tracemalloc.stop()
                    assert peak < MOST_MEMORY


def test_every_answer_has_its_turn_in_the_sample() -> None:
    assert len(VERBS) >= len(QUICK)

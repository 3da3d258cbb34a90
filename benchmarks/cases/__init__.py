"""The cases that ``docs/comparison.md`` shows."""

from . import pauses  # isort: skip  # before the clients are imported

from . import answers, batches, identifiers, lost_answers, semantics
from .scene import CLIENTS, Case, Scene, Verdict

ALL: list[Case] = sorted(
    [*identifiers.CASES, *lost_answers.CASES, *answers.CASES, *batches.CASES, *semantics.CASES],
    key=lambda case: case.id,
)

__all__ = ["ALL", "CLIENTS", "Case", "Scene", "Verdict", "pauses"]

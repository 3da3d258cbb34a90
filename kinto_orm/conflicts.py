"""What can be done about a conflict: take theirs, or write over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinto_orm.errors import ConflictError
from kinto_orm.repository import rebase
from kinto_orm.state import Holder, Intent, ObjectState, Runner, Status


@dataclass(frozen=True, slots=True)
class ConflictResolution:
    """The two ways out of one conflict."""

    error: ConflictError
    runner: Runner
    holder: Holder
    intent: Intent
    forget: Callable[[], None] | None = None
    """What drops the write from the unit of work that would send it again."""

    def reload(self) -> Holder:
        """The object, with the server's data."""
        path, error = self.intent.state.path, self.error
        if error.theirs is None:
            state = ObjectState(path, Status.DELETED)
        else:
            # The 412 does not show the permissions: they are unknown again.
            state = ObjectState(path, Status.LOADED, dict(error.theirs), error.theirs_last_modified)
        self.holder.__kinto_adopt__(state, None)
        if self.forget is not None:
            self.forget()
        return self.holder

    def overwrite(self) -> Holder:
        """The object, written over what the server has now."""
        return self.runner.perform(self.holder, rebase(self.intent, self.error))

    async def aoverwrite(self) -> Holder:
        """Like :meth:`overwrite`."""
        return await self.runner.aperform(self.holder, rebase(self.intent, self.error))


def make_resolvable(
    error: Any, runner: Runner, holder: Holder, intent: Intent, forget: Callable[[], None] | None = None
) -> None:
    """Gives a conflict its two ways out; leaves other errors alone."""
    if isinstance(error, ConflictError):
        error.resolution = ConflictResolution(error, runner, holder, intent, forget)

"""Kinto's memory storage, whose objects cannot be changed by those who read them, and which can go back.

Loaded by Kinto, as its setting ``storage_backend``.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

from kinto_orm.server.application import MEMORY_STORAGE, import_extra
from kinto_orm.server.snapshots import Restore, copied

STATE = {"_store": 3, "_cemetery": 3, "_timestamps": 2}
"""Kinto's dicts: by parent, by kind and, of objects, by id."""


def load_from_config(config: object) -> Any:
    """What Kinto calls: the backend."""
    own = import_extra(MEMORY_STORAGE).Storage
    return type("Storage", (OwnCopies, own), {})()


class OwnCopies:
    """Gives copies away, and keeps the objects.

    Kinto's own gives the same nested values that it keeps: a merge patch changes them in place, so that even one that
    is refused afterwards, by a JSON schema for instance, is stored.
    """

    def get(self, *arguments: Any, **keywords: Any) -> Any:
        """A copy of the object."""
        # Not by JSON, as Kinto copies what it stores: its parser changes some floats.
        return pickle.loads(pickle.dumps(self._own().get(*arguments, **keywords)))

    def snapshot(self) -> Restore:
        """What brings back the present state."""
        state = vars(self)
        return partial(state.update, {name: copied(state[name], levels) for name, levels in STATE.items()})

    def _own(self) -> Any:
        """Kinto's class, which is only known when Kinto is there."""
        return super()

"""What ``get_or_create()`` and ``update_or_create()`` come to in a dry client, which sends no write."""

from __future__ import annotations

from collections.abc import Container

from kinto_orm.conflicts import carry_out
from kinto_orm.errors import ForbiddenError, NotFoundError
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.protocol.flows import Flow
from kinto_orm.repository import get
from kinto_orm.state import Intent, Runner, Verb


def plan_creation(new: KintoObject, given: Container[str], runner: Runner) -> Flow[bool]:
    """Whether the object would be created by the planned ``PUT``: a read tells, as the 412 to it would have.

    One that is there is loaded, and the change of its ``given`` keys planned, too; the object keeps it.
    """
    _, draft = new.__kinto_describe__()
    try:
        found = yield from get(new.__kinto_path__())
    except (NotFoundError, ForbiddenError):  # the latter where the bucket is planned as well
        return True
    new.__kinto_adopt__(found, None)
    new.__kinto_edit__({key: value for key, value in draft.data.items() if key in given}, {})
    yield from carry_out(new, Intent(Verb.SAVE, *new.__kinto_describe__()), runner)
    return False

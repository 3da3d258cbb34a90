"""A mirror of collections in one file: read and written offline, synchronised with the server in both ways.

::

    from kinto_orm.mirror import Mirror

    mirror = Mirror("todos.sqlite", client)
    mirror.collection(Todo)
    with mirror:
        Todo(title="Buy milk").save()       # in the file, without network
    mirror.sync()

``mirror`` is the public face, with a client whose server is the file; ``answering`` answers its requests, with
``selecting`` for lists; ``syncing`` moves changes both ways, and ``merging`` decides on each record; ``store`` is the
file. ``follow`` is one record that is always there.
"""

from kinto_orm.mirror.follow import Followed, afollow, follow
from kinto_orm.mirror.mirror import Mirror
from kinto_orm.mirror.reports import Conflict, MirrorResult, Pending, SyncError, VerifyReport

__all__ = ["Conflict", "Followed", "Mirror", "MirrorResult", "Pending", "SyncError", "VerifyReport"]
__all__ += ["afollow", "follow"]

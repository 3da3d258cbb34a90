"""Every public verb that writes, with everything that can happen to its requests on the way."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fault_proxy import FaultProxy, drop_after, is_write, meanwhile
from oracle import Trial, check_convergence, judge
from pending import PENDING
from trials import trials
from verbs import NOT_WRITING, VERBS, Verb, path
from world import SHORT_TIMEOUT, TIMEOUT, USER, World, world_of

import kinto_orm
from kinto_orm import Client, ConflictError, NotFoundError, Record
from kinto_orm.server import EmbeddedServer, ServerThread

OTHER_PARTIES = {"EmbeddedServer"}
"""Public classes that are no part of a client."""


ENCOUNTERS = {"Record.save-new", "Record.save-changed", "Record.save-key-removed", "Record.replace-loaded"}
ENCOUNTERS |= {"Record.patch-values", "Record.patch-merge"}
"""Verbs that meet somebody else."""


@pytest.fixture(scope="module")
def proxy(kinto_server: EmbeddedServer) -> Iterator[FaultProxy]:
    with ServerThread(kinto_server) as thread, FaultProxy(thread.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def direct(kinto_server: EmbeddedServer) -> Iterator[Client]:
    """A client that goes around the proxy."""
    with Client.embedded(server=kinto_server, auth=USER) as client:
        yield client


def as_parameter(trial: Trial) -> Any:
    is_pending = trial.must_succeed and (trial.verb.id, trial.fault) in PENDING
    marks = [pytest.mark.xfail(reason="pending", strict=True)] if is_pending else []
    return pytest.param(trial, id=trial.id, marks=marks)


@pytest.mark.parametrize("trial", [as_parameter(trial) for trial in trials()])
def test_a_write_is_stored_once_or_fails_clearly(trial: Trial, proxy: FaultProxy, direct: Client) -> None:
    timeout = SHORT_TIMEOUT if trial.fault == "hang_after" else TIMEOUT
    with world_of(proxy, direct, retry=trial.retry, timeout=timeout, strict_retry=trial.is_strict) as world:
        judge(trial, world)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.id in ENCOUNTERS], ids=lambda verb: verb.id)
def test_what_somebody_else_writes_before_a_request_is_sent_again_stays(
    verb: Verb, proxy: FaultProxy, direct: Client
) -> None:
    with world_of(proxy, direct) as world:
        call = verb.prepare(world)
        proxy.plan(meanwhile(Somebody(world).write, drop_after), only=is_write)

        with pytest.raises(ConflictError):
            call.now()

        stored = world.stored(path("r"))
        assert stored is not None and stored.data == {"who": "somebody else"}
        check_convergence(world, call, {})


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.id in ENCOUNTERS], ids=lambda verb: verb.id)
def test_what_somebody_else_deletes_before_a_request_is_sent_again_stays_deleted(
    verb: Verb, proxy: FaultProxy, direct: Client
) -> None:
    with world_of(proxy, direct) as world:
        call = verb.prepare(world)
        proxy.plan(meanwhile(Somebody(world).delete, drop_after), only=is_write)

        if verb.id == "Record.save-new":
            call.now()  # Kinto has no precondition that tells "never there" from "not there any more"
        else:
            with pytest.raises((ConflictError, NotFoundError)):
                call.now()

        assert (world.stored(path("r")) is None) == (verb.id != "Record.save-new")


@dataclass(frozen=True)
class Somebody:
    """Another client, which bypasses the proxy and sends no precondition."""

    world: World

    def write(self) -> None:
        self._record().replace(safe=False)

    def delete(self) -> None:
        self._record().delete(safe=False)

    def _record(self) -> Record:
        return Record(collection=self.world.records, id="r", data={"who": "somebody else"})


def test_what_is_pending_exists() -> None:
    assert PENDING - {(trial.verb.id, trial.fault) for trial in trials() if trial.must_succeed} == set()


def public_methods() -> set[str]:
    """All public methods of the public classes, but the twins of others; each by the public class that it is from."""
    public = [getattr(kinto_orm, name) for name in kinto_orm.__all__]
    found: set[str] = set()
    for cls in public:
        if inspect.isclass(cls) and cls.__name__ not in OTHER_PARTIES:
            methods = {name for name in dir(cls) if name[0] != "_" and is_ours(cls, name)}
            twins = {name for name in methods if name == "async_" or (name[0] == "a" and name[1:] in methods)}
            found |= {f"{origin(cls, name)}.{name}" for name in methods - twins}
    return found


def is_ours(cls: type[Any], name: str) -> bool:
    """Return whether it is a method, and neither pydantic's nor Python's."""
    for base in cls.__mro__:
        if name in vars(base):
            method = vars(base)[name]
            return base.__module__.startswith("kinto_orm") and (
                inspect.isfunction(method) or isinstance(method, (classmethod, staticmethod))
            )
    return False


def origin(cls: type[Any], name: str) -> str:
    """Return the first public class that has the method."""
    has_it = [base for base in cls.__mro__ if hasattr(base, name) and base.__name__ in kinto_orm.__all__]
    return has_it[-1].__name__


def test_every_public_method_is_accounted_for() -> None:
    accounted_for = {verb.method for verb in VERBS} | NOT_WRITING.keys()

    assert public_methods() - accounted_for == set(), "say in verbs.py how it is called, or that it does not write"
    assert accounted_for - public_methods() - {"UnitOfWork.__exit__"} == set(), "these are no public methods any more"


def test_no_method_is_said_to_write_and_not_to_write() -> None:
    assert {verb.method for verb in VERBS} & NOT_WRITING.keys() == set()


def test_ids_are_unique() -> None:
    ids = [trial.id for trial in trials()]

    assert sorted(set(ids)) == sorted(ids)

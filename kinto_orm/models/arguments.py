"""How the envelope is declared for type checkers: what an attribute gives, and what the constructor takes for it.

At run time the envelope is made of properties and of arguments of ``__init__``, none of which is a pydantic field.
"""

from __future__ import annotations

from typing import Any, Never, Protocol, TypeVar


def argument(*, default: None, init: bool = True) -> Any:
    """An optional argument of the constructor; read by checkers, never called."""


G_co = TypeVar("G_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Given(Protocol[G_co, T_contra]):
    """Gives a ``G``, and only the constructor takes a ``T`` for it."""

    def __get__(self, instance: object, owner: type[Any] | None = None, /) -> G_co: ...

    # No object is a Never, so checkers refuse to assign; for the constructor they read the type of the value only.
    def __set__(self, instance: Never, value: T_contra, /) -> None: ...


class Settable(Protocol[G_co, T_contra]):
    """Gives a ``G``; the constructor and assignments take a ``T`` for it."""

    def __get__(self, instance: object, owner: type[Any] | None = None, /) -> G_co: ...

    def __set__(self, instance: object, value: T_contra, /) -> None: ...

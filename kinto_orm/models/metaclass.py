"""The metaclass of the models: fields named on the class become expressions, reserved names are refused."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeVar, dataclass_transform

from pydantic import Field
from pydantic._internal._model_construction import ModelMetaclass

from kinto_orm.models.declaration import check_class, refuse_reserved, settings_of, wire_name
from kinto_orm.models.expressions import FieldExpression
from kinto_orm.protocol.paging import ENVELOPE_KEYS


def argument(*, default: None, init: bool = True) -> Any:
    """Declare an optional argument of the constructor; read by checkers, never called."""


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


# pydantic asks every class and its bases for the defaults of fields while a class is built: it must find none.
_building: ContextVar[bool] = ContextVar("kinto_orm_class_being_built", default=False)


class ModelField(FieldExpression):
    """A declared field of a model."""

    __slots__ = ("_model", "_name")

    def __init__(self, model: type[Any], name: str) -> None:
        super().__init__(name if name in ENVELOPE_KEYS else wire_name(model, name))
        self._model = model
        self._name = name

    def to_wire(self, operator: str, value: object) -> object:
        """Return the value as the model writes it."""
        if self._name in ENVELOPE_KEYS:
            return value
        return self._model.__kinto_condition_value__(self._name, operator, value)

    def __copy__(self) -> ModelField:
        return self

    def __deepcopy__(self, memo: object) -> ModelField:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self._model, self._name))

    def __repr__(self) -> str:
        return f"{self._model.__name__}.{self._name}"


@dataclass_transform(kw_only_default=True, field_specifiers=(Field, argument))
class KintoMetaclass(ModelMetaclass):
    """Makes ``Todo.priority`` an expression, and checks names when a class is made."""

    if TYPE_CHECKING:

        def __new__(
            mcs,
            name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            /,
            *,
            bucket: str | None = None,
            collection: str | None = None,
        ) -> type:
            """Declare the class keywords for pyright; mypy checks none where there is a metaclass."""
            ...

        # Else pyright takes this class for a dataclass, as pydantic's metaclass is marked, and replaces __new__.
        def __init__(
            cls,  # noqa: N805  # a metaclass
            name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            /,
            *,
            bucket: str | None = None,
            collection: str | None = None,
        ) -> None: ...
    else:

        def __new__(mcs, name, bases, namespace, **keywords):
            """Return the class; raise ``InvalidTypeError`` for what it cannot honour."""
            is_own = not namespace.get("__module__", "").startswith("kinto_orm.models")  # not one of the kinds
            if is_own:
                refuse_reserved(name, bases, namespace.get("__annotations__", ()))  # before pydantic warns of it
            namespace["model_config"] = settings_of(name, bases, namespace, keywords)
            before = _building.get()
            _building.set(True)
            try:
                made = super().__new__(mcs, name, bases, namespace, **keywords)
            finally:
                _building.set(before)
            if is_own:
                refuse_reserved(name, bases, made.__pydantic_fields__)  # those of mixins too
                check_class(made)
            return made

        def __getattr__(cls, name):  # noqa: N805  # a metaclass
            is_asked = not name.startswith("_") and not _building.get()
            if is_asked and (name in ENVELOPE_KEYS or name in getattr(cls, "__pydantic_fields__", ())):
                return ModelField(cls, name)
            hint = f": write {cls.__name__}.records" if name == "objects" else ""
            raise AttributeError(f"{cls.__name__} has no field or attribute {name!r}{hint}")

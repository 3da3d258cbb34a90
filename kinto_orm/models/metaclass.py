"""The metaclass of the models: fields named on the class become expressions, reserved names are refused."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeVar, dataclass_transform

from pydantic import Field
from pydantic._internal._model_construction import ModelMetaclass
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from kinto_orm.errors import InvalidTypeError
from kinto_orm.models.expressions import FieldExpression


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


# pydantic asks every class and its bases for the defaults of fields while a class is built: it must find none.
_building: ContextVar[bool] = ContextVar("kinto_orm_class_being_built", default=False)

HIDDEN_FIELDS = frozenset({"id", "last_modified"})
"""Declared on every kind so that pydantic reads them together with the rest; in no dump and no schema."""


class ModelField(FieldExpression):
    """A declared field of a model."""

    __slots__ = ("_model", "_name")

    def __init__(self, model: type[Any], name: str) -> None:
        super().__init__(wire_name(model, name))
        self._model = model
        self._name = name

    def to_wire(self, value: object) -> object:
        """The value as the model serializes it."""
        if self._name in HIDDEN_FIELDS or value is None:
            return value
        if isinstance(value, datetime) and value.tzinfo is None:
            return value  # the condition refuses it, where the text made of it would only find nothing
        # The model's own serializer, so that custom ones count; a value of another type goes as it is.
        scratch = self._model.model_construct(**{self._name: value})
        try:
            dumped = scratch.model_dump(mode="json", by_alias=True, include={self._name}, warnings=False)
        except PydanticSerializationError:
            return value  # the condition says what is wrong with it
        return dumped.get(self.__kinto_field__, value)

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
            """What pyright compares class keywords with; mypy looks at none where there is a metaclass."""
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
            """The class; raises ``InvalidTypeError`` where a field has a reserved name."""
            _refuse_reserved(
                name, bases, namespace, namespace.get("__annotations__", ())
            )  # before pydantic warns of it
            before = _building.get()
            _building.set(True)
            try:
                made = super().__new__(mcs, name, bases, namespace, **keywords)
            finally:
                _building.set(before)
            own = [field for field, info in made.__pydantic_fields__.items() if not _is_hidden(field, info)]
            _refuse_reserved(name, bases, namespace, own)  # those of mixins too
            return made

        def __getattr__(cls, name):  # noqa: N805  # a metaclass
            if not name.startswith("_") and not _building.get() and name in getattr(cls, "__pydantic_fields__", ()):
                return ModelField(cls, name)
            raise AttributeError(f"{cls.__name__} has no field or attribute {name!r}")


def wire_name(model: type[Any], name: str) -> str:
    """The name of the field on the wire."""
    field = model.__pydantic_fields__[name]
    alias = field.serialization_alias or field.alias
    return alias if isinstance(alias, str) else name


def _is_hidden(field: str, info: FieldInfo) -> bool:
    return field in HIDDEN_FIELDS and info.exclude is True


def _refuse_reserved(name: str, bases: tuple[type, ...], namespace: dict[str, Any], fields: Iterable[str]) -> None:
    if namespace.get("__module__", "").startswith("kinto_orm.models"):
        return  # the kinds themselves declare what is reserved
    models: list[Any] = [base for base in bases if isinstance(base, KintoMetaclass)]
    reserved = {attribute for base in bases for attribute in dir(base) if not attribute.startswith("_")}
    reserved = (reserved | HIDDEN_FIELDS) - {"model_config"}
    inherited = {field for base in models for field in base.__pydantic_fields__} - HIDDEN_FIELDS
    for field in fields:
        if field in reserved and field not in inherited:
            raise InvalidTypeError(
                f"{name}.{field}: this name is a method or attribute of every {models[0].__name__}. Give the field "
                f"another name and the wire's name as its alias: {field}_: … = Field(…, validation_alias={field!r}, "
                f"serialization_alias={field!r}); plain data needs no field: .data[{field!r}]."
            )

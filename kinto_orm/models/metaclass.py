"""The metaclass of the models: fields named on the class become expressions; names, settings and features are checked.

Each feature of pydantic is honoured, or refused here with the reason; ``docs/pydantic.md`` has them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeVar, dataclass_transform

from pydantic import AliasChoices, ConfigDict, Field
from pydantic._internal._model_construction import ModelMetaclass

from kinto_orm.errors import InvalidTypeError
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


def settings_of(name: str, bases: tuple[type, ...], namespace: dict[str, Any], keywords: dict[str, Any]) -> ConfigDict:
    """Return the settings of a class that is being made, and keep in its namespace whether it is open.

    Raises ``InvalidTypeError`` for those that cannot be honoured.
    """
    own: dict[str, Any] = {**namespace.get("model_config", {})}
    own |= {key: keywords.pop(key) for key in keywords.keys() & ConfigDict.__annotations__.keys()}
    merged: dict[str, Any] = {}
    for base in bases:
        merged |= getattr(base, "model_config", {})
        merged |= {"extra": "allow"} if getattr(base, "__kinto_is_open__", False) else {}
    merged |= own
    for setting, refused in _REFUSED_SETTINGS.items():
        if merged.get(setting) in refused:
            raise InvalidTypeError(f"{name}: {setting}={merged[setting]!r} {refused[merged[setting]]}")
    # pydantic would keep undeclared keys a second time, in a place that no save looks at.
    namespace["__kinto_is_open__"] = merged.get("extra") == "allow"
    if merged.get("use_enum_values"):
        own["validate_default"] = True  # else defaults stay members, and come back as values
    return ConfigDict(**{**own, "extra": "ignore"})  # type: ignore[typeddict-item]  # a mapping of settings


_REFUSED_SETTINGS: Mapping[str, Mapping[Any, str]] = {
    "extra": {
        "forbid": "is not possible: other programs may add keys to a record, and every save keeps them. Leave it out; "
        "an unknown keyword is refused anyway."
    },
    "validate_by_alias": {False: "is not possible: the names on the wire are the aliases. Remove the aliases instead."},
    "ser_json_inf_nan": dict.fromkeys(
        ("null", "strings"), "is not possible: NaN and infinities are no JSON, and are refused when they are saved."
    ),
}


def check_class(model: type[Any]) -> None:
    """Raise ``InvalidTypeError`` for features that pydantic allows and a class of records cannot honour."""
    if not getattr(model.__init__, "__pydantic_base_init__", False):
        raise InvalidTypeError(
            f"{model.__name__}.__init__: rows of the server become objects without it. Write a model_validator, "
            "model_post_init, or a class method that makes the object."
        )
    for name in model.__pydantic_fields__:
        _check_read(model, name)


def wire_name(model: type[Any], name: str) -> str:
    """Return the name of the field on the wire."""
    field = model.__pydantic_fields__[name]
    alias = field.serialization_alias or field.alias
    return alias if isinstance(alias, str) else name


def _check_read(model: type[Any], name: str) -> None:
    """Raise ``InvalidTypeError`` for a field that is written by a name that it is not read by."""
    wire, alias = wire_name(model, name), model.__pydantic_fields__[name].validation_alias
    read = alias.choices if isinstance(alias, AliasChoices) else [name if alias is None else alias]
    if wire not in read:
        raise InvalidTypeError(
            f"{model.__name__}.{name} is written as {wire!r} and read as {', '.join(map(repr, read))}: give the field "
            f"validation_alias={wire!r} and serialization_alias={wire!r}."
        )


def refuse_reserved(name: str, bases: tuple[type, ...], fields: Iterable[str]) -> None:
    """Raise ``InvalidTypeError`` for a field with the name of a method or attribute, which shows what to write."""
    models: list[Any] = [base for base in bases if hasattr(base, "__kinto_is_open__")]
    reserved = {attribute for base in bases for attribute in dir(base) if not attribute.startswith("_")}
    # No field of pydantic has these, so that no setting of a class reaches them.
    reserved = (reserved | ENVELOPE_KEYS) - {"model_config"}
    inherited = {field for base in models for field in base.__pydantic_fields__}
    for field in fields:
        if field in reserved and field not in inherited:
            raise InvalidTypeError(
                f"{name}.{field}: this name is a method or attribute of every {models[0].__name__}. Give the field "
                f"another name and the wire's name as its alias: {field}_: … = Field(…, validation_alias={field!r}, "
                f"serialization_alias={field!r}); plain data needs no field: .data[{field!r}]."
            )

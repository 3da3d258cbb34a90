"""The metaclass of the models: fields named on the class become expressions; names, settings and features are checked.

Each feature of pydantic is honoured, or refused here with the reason; ``docs/pydantic.md`` has them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from inspect import Parameter
from types import UnionType
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic._internal._model_construction import ModelMetaclass, build_lenient_weakvaluedict
from pydantic._internal._typing_extra import parent_frame_namespace

from kinto_orm.errors import InvalidTypeError
from kinto_orm.models.expressions import FieldExpression
from kinto_orm.protocol.paging import ENVELOPE_KEYS
from kinto_orm.protocol.paths import Kind


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
    """A declared field of a model, or of the model in a field."""

    __slots__ = ("_model", "_name", "_outer")

    def __init__(self, model: type[Any], name: str, outer: ModelField | None = None) -> None:
        wire = name if outer is None and name in ENVELOPE_KEYS else wire_name(model, name)
        super().__init__(wire if outer is None else f"{outer.__kinto_field__}.{wire}")
        self._model = model
        self._name = name
        self._outer = outer

    def to_wire(self, operator: str, value: object) -> object:
        """Return the value as the model writes it."""
        if self._is_envelope():
            return value
        outermost = self
        while outermost._outer is not None:
            outermost = outermost._outer
        return outermost._model.__kinto_condition_value__(self.__kinto_field__, operator, value)

    def __getitem__(self, key: str) -> FieldExpression:
        inner = self._inner()
        named = [] if inner is None else [one for one in inner.__pydantic_fields__ if wire_name(inner, one) == key]
        return ModelField(inner, named[0], self) if inner is not None and named else super().__getitem__(key)

    if not TYPE_CHECKING:  # a checker knows the attributes of the field's own type

        def __getattr__(self, name):
            inner = None if name.startswith("_") else self._inner()
            if inner is None:
                raise AttributeError(
                    f"{self!r} holds no model with the field {name!r}; a key: {self!r}[{name!r}]. The operators of a "
                    "field are methods of F(): like, contains, contains_any, in_, exclude, has."
                )
            if name not in inner.__pydantic_fields__:
                names = ", ".join(inner.__pydantic_fields__)
                raise AttributeError(f"{self!r} has no field {name!r}; it has {names}.")
            return ModelField(inner, name, self)

    def _is_envelope(self) -> bool:
        return self._outer is None and self._name in ENVELOPE_KEYS

    def _inner(self) -> type[Any] | None:
        return None if self._is_envelope() else inner_model(self._model, self._name)

    def __copy__(self) -> ModelField:
        return self

    def __deepcopy__(self, memo: object) -> ModelField:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (ModelField, (self._model, self._name, self._outer))

    def __repr__(self) -> str:
        return f"{self._model.__name__ if self._outer is None else repr(self._outer)}.{self._name}"


_ENVELOPE_ARGUMENTS = ("id", "data", "permissions", "client")
_PARENTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.GROUP: ("bucket",),
    Kind.COLLECTION: ("bucket", "model"),
    Kind.RECORD: ("collection", "bucket"),
}


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
            if "__pydantic_reset_parent_namespace__" not in keywords:
                # pydantic would look for the types of a class in a function here, not where the class statement is.
                keywords["__pydantic_reset_parent_namespace__"] = False
                namespace["__pydantic_parent_namespace__"] = build_lenient_weakvaluedict(parent_frame_namespace())
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

        @property
        def __signature__(cls):  # noqa: N805  # a metaclass
            """The arguments of the constructor: the fields, and those of the envelope."""
            generated, kind = cls.__kinto_signature__, getattr(cls, "__kinto_kind__", None)
            fields = [one for one in generated.parameters.values() if one.kind is not Parameter.VAR_POSITIONAL]
            names = [*_ENVELOPE_ARGUMENTS, *_PARENTS.get(kind, ())]
            names = [one for one in names if one not in generated.parameters]
            envelope = [Parameter(one, Parameter.KEYWORD_ONLY, default=None) for one in names]
            return generated.replace(parameters=[*fields, *envelope])

        @__signature__.setter
        def __signature__(cls, generated):  # noqa: N805  # a metaclass
            type.__setattr__(cls, "__kinto_signature__", generated)  # pydantic's, made when it is asked for

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
    if "__pydantic_extra__" in vars(model).get("__annotations__", {}):
        raise InvalidTypeError(
            f"{model.__name__}.__pydantic_extra__: undeclared keys are any JSON. Declare a field for those of one type."
        )
    for name in names_by_wire(model).values():
        _check_read(model, name)


def inner_model(model: type[Any], name: str) -> type[BaseModel] | None:
    """Return the class of the objects in the field; ``None`` where it holds anything else but them and null."""
    annotation = model.__pydantic_fields__[name].annotation
    if get_origin(annotation) not in (None, Union, UnionType):
        return None
    kinds = [one for one in get_args(annotation) or (annotation,) if one is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def wire_name(model: type[Any], name: str) -> str:
    """Return the name of the field on the wire."""
    field = model.__pydantic_fields__[name]
    alias = field.serialization_alias or field.alias
    return alias if isinstance(alias, str) else name


def names_by_wire(model: type[Any]) -> dict[str, str]:
    """Return the names of the fields by wire name; raise ``InvalidTypeError`` where two have the same one."""
    own: dict[str, str] = {}
    for name in model.__pydantic_fields__:
        other = own.setdefault(wire_name(model, name), name)
        if other != name:
            raise InvalidTypeError(
                f"{model.__name__}.{other} and {model.__name__}.{name} are both {wire_name(model, name)!r} on the "
                "wire, which holds one value: give one of them another alias, or remove it."
            )
    return own


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

"""The rules of a class: which names, settings and features of pydantic it may have.

Each feature is honoured, or refused here with the reason; ``docs/pydantic.md`` has them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import AliasChoices, ConfigDict

from kinto_orm.errors import InvalidTypeError
from kinto_orm.protocol.paging import ENVELOPE_KEYS


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

"""Fields named on the class: ``Todo.priority >= 3``, ``F(Todo.title).like("a*")``."""

from __future__ import annotations

from collections.abc import Iterable

from kinto_orm.errors import InvalidFilterError, InvalidTypeError
from kinto_orm.protocol.filters import Condition, condition
from kinto_orm.protocol.json_values import say_value


class FieldExpression:
    """A field of a model, or of plain data, to make conditions of.

    The methods have the names of Kinto's operators.
    https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
    """

    __slots__ = ("__kinto_field__",)

    def __init__(self, name: str) -> None:
        self.__kinto_field__ = name

    def to_wire(self, operator: str, value: object) -> object:
        """Return the value as the field has it on the wire."""
        return value

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]  # a condition, as in every ORM
        return self._condition("", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return self._condition("not", other, needs_field=True)

    def __gt__(self, other: object) -> Condition:
        return self.gt(other)

    def __ge__(self, other: object) -> Condition:
        return self.min(other)

    def __lt__(self, other: object) -> Condition:
        return self.lt(other)

    def __le__(self, other: object) -> Condition:
        return self.max(other)

    __hash__ = None  # type: ignore[assignment]  # two expressions cannot be compared, so neither hashed

    def gt(self, value: object) -> Condition:
        """Match greater values; objects without the field are left out."""
        return self._condition("gt", value, needs_field=True)

    def min(self, value: object) -> Condition:
        """Match the value or more; objects without the field are left out."""
        return self._condition("min", value, needs_field=True)

    def lt(self, value: object) -> Condition:
        """Match smaller values; a null is not smaller."""
        return self._condition("lt", value, needs_field=True)

    def max(self, value: object) -> Condition:
        """Match the value or less; a null is neither."""
        return self._condition("max", value, needs_field=True)

    def not_(self, value: object) -> Condition:
        """Match other values; objects without the field are left out (``exclude()`` keeps them)."""
        return self._condition("not", value, needs_field=True)

    def in_(self, values: Iterable[object]) -> Condition:
        """Match any of the values."""
        return self._condition("in", self._each(values))

    def exclude(self, values: Iterable[object]) -> Condition:
        """Match none of the values; objects without the field stay."""
        return self._condition("exclude", self._each(values))

    def like(self, pattern: str) -> Condition:
        """Match text, ignoring case; ``*`` stands for anything, and without one the text may be anywhere."""
        return condition(self.__kinto_field__, "like", pattern, needs_field=True)

    def has(self, present: bool = True) -> Condition:  # noqa: FBT001, FBT002  # one word, one question
        """Match objects that have the field (null counts), or lack it."""
        return condition(self.__kinto_field__, "has", present)

    def contains(self, *values: object) -> Condition:
        """Match arrays that hold all the values: ``contains("a", "b")``."""
        return self._condition("contains", self._elements("contains", values))

    def contains_any(self, *values: object) -> Condition:
        """Match arrays that hold one of the values: ``contains_any("a", "b")``."""
        return self._condition("contains_any", self._elements("contains_any", values))

    def desc(self) -> Descending:
        """Sort the largest first, in ``order_by()``."""
        return Descending(self.__kinto_field__)

    def __neg__(self) -> Descending:
        raise InvalidFilterError(f"For the largest first write F({self!r}).desc(), or '-{self.__kinto_field__}'.")

    def __getitem__(self, key: str) -> FieldExpression:
        """Name a key of an object in the field."""
        if not isinstance(key, str):
            raise InvalidTypeError(f"Only keys of objects can be named, not {say_value(key)}.")
        return FieldExpression(f"{self.__kinto_field__}.{key}")

    def __bool__(self) -> bool:
        raise InvalidFilterError(f"A field is no condition: write for example {self!r} == True.")

    def __repr__(self) -> str:
        return f"F({self.__kinto_field__!r})"

    def _condition(self, operator: str, value: object, *, needs_field: bool = False) -> Condition:
        if isinstance(value, (FieldExpression, Descending, Condition)):
            raise InvalidFilterError(f"{self!r} can be compared with a value only, not with {say_value(value)}.")
        wire = self.to_wire(operator, value)
        return condition(self.__kinto_field__, operator, wire, needs_field=needs_field)

    def _elements(self, operator: str, values: tuple[object, ...]) -> list[object]:
        for one in values:
            if isinstance(one, (list, tuple, set, frozenset)):
                raise InvalidFilterError(
                    f"{operator}() takes the elements one by one: {operator}({say_value([*one])[1:-1]}). "
                    f"For an array in an array write the keyword {operator}_{self.__kinto_field__}=[[…]]."
                )
        return list(values)

    def _each(self, values: Iterable[object]) -> list[object]:
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise InvalidFilterError(f"{self!r} needs a list of values, not {say_value(values)}.")
        return list(values)


class Descending:
    """A field in ``order_by()``, the largest first."""

    __slots__ = ("__kinto_order__",)

    def __init__(self, name: str) -> None:
        self.__kinto_order__ = f"-{name}"

    def __repr__(self) -> str:
        return f"F({self.__kinto_order__[1:]!r}).desc()"


def F(field: object) -> FieldExpression:  # noqa: N802  # short, as in Django
    """Name a field, for checkers too: ``F(Todo.due) >= now`` where the attribute may be ``None``.

    Takes a field of a class (``Todo.title``) or, for plain data, a name as it is on the wire (``"title"``).
    """
    if isinstance(field, FieldExpression):
        return field
    if isinstance(field, str):
        return FieldExpression(field)
    raise InvalidTypeError(f"F() takes a field of a class (Todo.title) or a name, not {say_value(field)}.")

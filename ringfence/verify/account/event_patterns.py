"""Matching of events by EventBridge rules, with the semantics of EventBridge.

AWS's own operation (TestEventPattern) is not emulated and needs a permission that auditors lack. A
comparison that this module does not know is an error, never a guess.
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
ABSENT = object()


class EventPatternError(ValueError):
    """A pattern uses syntax that this module does not know."""


def matches(pattern: Document, event: Document) -> bool:
    """Return whether each field that the pattern names has one of its values.

    An array matches if one element matches. In an array of objects, one object must match in full.
    """
    return all(_field_matches(wanted, event, key) for key, wanted in pattern.items())


def _field_matches(wanted: Any, event: Document, key: str) -> bool:
    if key == "$or":
        return any(matches(each, event) for each in wanted)
    present = event.get(key, ABSENT)
    if isinstance(wanted, Mapping):
        return any(matches(wanted, each) for each in _objects(present))
    if not isinstance(wanted, list) or not wanted:
        raise EventPatternError(f"{key} is neither an object nor an array with values: {wanted}")
    values = tuple(_values(present))
    return any(_value_matches(each, values) for each in wanted)


def _objects(value: Any) -> Iterator[Document]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, Mapping):
            yield each


def _values(value: Any) -> Iterator[Any]:
    """Yield leaf values. An object is not a leaf, so `exists` is false for it."""
    for each in value if isinstance(value, list) else [value]:
        if each is not ABSENT and not isinstance(each, Mapping):
            yield each


def _value_matches(wanted: Any, values: tuple[Any, ...]) -> bool:
    if not isinstance(wanted, Mapping):
        return any(each == wanted and type(each) is type(wanted) for each in values)
    ((name, given),) = wanted.items()
    if name == "exists":
        return bool(values) == given
    if name not in _COMPARISONS:
        raise EventPatternError(f"the comparison {name} is not known")
    return any(_COMPARISONS[name](given, each) for each in values)


def _numeric(given: list[Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return all(
        _NUMBERS[comparison](value, number)
        for comparison, number in zip(given[::2], given[1::2], strict=True)
    )


def _anything_but(given: Any, value: Any) -> bool:
    if isinstance(given, Mapping):
        return not _value_matches(given, (value,))
    return value not in (given if isinstance(given, list) else [given])


_NUMBERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "anything-but": _anything_but,
    "numeric": _numeric,
    "prefix": lambda given, value: isinstance(value, str) and value.startswith(given),
    "suffix": lambda given, value: isinstance(value, str) and value.endswith(given),
}

"""The JSON Schema validator, with an error for each key or element that is wrong.

jsonschema reports some keywords once for a whole object, and others not as the standard says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from ringfence.manifest import schema
from ringfence.manifest.schema import Schema


@cache
def validator() -> Any:
    return _Validator(schema.root())


def _required(validator: Any, names: list[str], value: Any, described: Schema) -> Iterator[Any]:
    """Reports each missing key at its own path."""
    if validator.is_type(value, "object"):
        for name in names:
            if name not in value:
                yield ValidationError("missing", path=[name])


def _additional(validator: Any, allowed: Any, value: Any, described: Schema) -> Iterator[Any]:
    """Reports each unknown key at its own path, in the order of the file."""
    if not validator.is_type(value, "object"):
        return
    known = described.get("properties", {})
    for name in value:
        if name not in known:
            if allowed is False:
                yield ValidationError("unknown", path=[name])
            else:
                yield from validator.descend(value[name], allowed, path=name)


def _property_names(validator: Any, names: Schema, value: Any, _: Schema) -> Iterator[Any]:
    """Reports a bad key at its own path."""
    if validator.is_type(value, "object"):
        for name in value:
            for error in validator.descend(name, names, path=name):
                error.on_key = True
                yield error


def _unique(validator: Any, unique: bool, value: Any, _: Schema) -> Iterator[Any]:
    """Reports each repetition at its own path, in linear time (jsonschema's is quadratic)."""
    if not (unique and validator.is_type(value, "array")):
        return
    positions: dict[str, int] = {}
    for number, element in enumerate(value):
        first = positions.setdefault(json.dumps(element, sort_keys=True), number)
        if first != number:
            yield ValidationError(f"the same as element {first}", path=[number])


def _pattern(validator: Any, pattern: str, value: Any, _: Schema) -> Iterator[Any]:
    """Matches as ECMA-262 does: Python's `$` and `\\d` accept a line end and other digits."""
    if validator.is_type(value, "string") and not _ecma(pattern).search(value):
        yield ValidationError("pattern")


@cache
def _ecma(pattern: str) -> re.Pattern[str]:
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.compile(pattern, re.ASCII)


_Validator = extend(
    Draft202012Validator,
    {
        "required": _required,
        "additionalProperties": _additional,
        "propertyNames": _property_names,
        "uniqueItems": _unique,
        "pattern": _pattern,
    },
)

"""Matching of log records by metric filters, with the semantics of CloudWatch Logs.

The module knows patterns for space-separated fields. AWS's own operation (TestMetricFilter) is not
emulated and needs a permission that auditors lack. Other syntax, such as regular expressions, is an
error, never a guess.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

_CONDITION = re.compile(r"\w+\s*(?P<comparison>!=|<=|>=|=|<|>)\s*(?P<wanted>[\w.*:/-]+)")
_NAME = re.compile(r"\w+")
Test = Callable[[str], bool]
REST = "..."
"""Any number of fields."""


class LogPatternError(ValueError):
    """A pattern uses syntax that this module does not know."""


def matches(pattern: str, record: str) -> bool:
    """Return whether the fields match the pattern, in order. `&&` binds more tightly than `||`."""
    text, values = pattern.strip(), record.split()
    if not (text.startswith("[") and text.endswith("]")):
        raise LogPatternError(f"no pattern for fields: {pattern}")
    fields = [field.strip() for field in text[1:-1].split(",")]
    if fields.count(REST) > 1:
        raise LogPatternError(f"{REST} stands more than once: {pattern}")
    if REST in fields:
        place = fields.index(REST)
        missing = len(values) - (len(fields) - 1)
        fields[place : place + 1] = ["rest"] * missing
        if missing < 0:
            return False
    tests = [_test(field) for field in fields]
    if len(tests) != len(values):
        return False
    return all(test(value) for test, value in zip(tests, values, strict=True))


def _test(field: str) -> Test:
    if _NAME.fullmatch(field):
        return lambda _: True
    either = [[_condition(each.strip()) for each in both.split("&&")] for both in field.split("||")]
    return lambda value: any(all(test(value) for test in both) for both in either)


def _condition(text: str) -> Test:
    if not (found := _CONDITION.fullmatch(text)):
        raise LogPatternError(f"not known: {text}")
    comparison, wanted = found["comparison"], found["wanted"]
    if comparison in _NUMBERS:
        return lambda value: _compare(comparison, value, wanted)
    parts = re.compile(".*".join(map(re.escape, wanted.split("*"))))
    return lambda value: bool(parts.fullmatch(value)) == (comparison == "=")


def _compare(comparison: str, value: str, wanted: str) -> bool:
    try:
        return _NUMBERS[comparison](float(value), float(wanted))
    except ValueError:
        return False


_NUMBERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
    ">": operator.gt,
}

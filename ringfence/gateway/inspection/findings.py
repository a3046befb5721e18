"""Findings of inspection: a value that looks like personal data or a secret, and its place."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORTEST = 6
"""Characters of the shortest value without a label."""

Candidates = list[tuple[int, int]]
"""Start and end of each place that the engine points at."""


@dataclass(frozen=True, slots=True)
class InspectionFinding:
    start: int
    end: int
    type: str
    value: str
    """The value to mask, without separators that carry nothing."""


def digits_of(text: str) -> str:
    return "".join(filter(str.isdigit, text))


_SEPARATED = frozenset(
    {"ssn", "phone", "credit_card", "national_id", "iban", "passport", "bank_account"}
)
SEPARATORS = re.compile(r"[^A-Za-z0-9]")


def normalised(kind: str, value: str) -> str:
    """Write a value in the one form that is masked."""
    if kind in _SEPARATED:
        return SEPARATORS.sub("", value).upper()
    return value.lower() if kind in ("email", "ip_address") else value

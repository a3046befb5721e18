"""The detector: where personal data and secrets are in a plain text, and of which type.

The Rust engine of cpex-pii-filter points at candidates in linear time. Whether a candidate is a
finding is decided by the expressions of `patterns.yaml` and by check digits. The engine's own
detectors are off: `docs/decisions/detector.md` has the figures.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from cpex_pii_filter.pii_filter_rust import PIIDetectorRust

from ringfence.gateway.inspection import check_digits
from ringfence.gateway.inspection.addresses import find_mailboxes, find_networks
from ringfence.gateway.inspection.encodings import base64_tokens, hexadecimal_tokens, readings
from ringfence.gateway.inspection.findings import (
    Candidates,
    InspectionFinding,
    digits_of,
    normalised,
)
from ringfence.gateway.inspection.numbers import checked, find_ibans, find_numbers

MAX_CANDIDATES = 200_000
"""Limit for one message. One with more is refused: the search would take minutes."""
_DECODED_DEPTH = 2
_ENGINE_BYTES = 100 * 1024 * 1024
_PATTERNS = Path(__file__).with_name("patterns.yaml")
BUILT_IN = (
    "bank_account",
    "bsn",
    "credit_card",
    "date_of_birth",
    "driver_license",
    "email",
    "ip_address",
    "medical_record",
    "passport",
    "phone",
    "ssn",
)
"""Names of the engine's own detectors."""


class Overload(Exception):  # noqa: N818
    """More candidates than `MAX_CANDIDATES`."""


@dataclass(frozen=True, slots=True)
class _Labelled:
    type: str
    expression: re.Pattern[str]
    check: Callable[[str], bool] | None


class Detector:
    """Compiled patterns. Stateless between texts."""

    def __init__(self, patterns: Path = _PATTERNS) -> None:
        document = yaml.safe_load(patterns.read_text())
        self.version: int = document["version"]
        self._scans = {name: _engine(scan) for name, scan in document["scans"].items()}
        self._secrets = [
            (entry["type"], re.compile(entry["expression"]), entry.get("check") == "jwt")
            for entry in document["secrets"]
        ]
        self._labelled = [_labelled(entry) for entry in document["labelled"]]
        self._names = re.compile(
            "|".join(f"(?:{entry['labels']})" for entry in document["labelled"]), re.IGNORECASE
        )
        self._checks: Mapping[str, Callable[[str, Candidates], Iterator[InspectionFinding]]] = {
            "secrets": self._find_secrets,
            "labels": self._find_labelled,
            "addresses": find_mailboxes,
            "numbers": find_numbers,
            "networks": find_networks,
            "ibans": find_ibans,
            "ninos": checked("national_id", check_digits.nino),
            "dnis": checked("national_id", check_digits.dni),
            "codici": checked("national_id", check_digits.codice_fiscale),
        }

    def labels(self, name: str) -> bool:
        """Return whether a name is a label, which says what its value is."""
        return self._names.search(name) is not None

    def find(self, text: str, depth: int = 0) -> list[InspectionFinding]:
        """Findings in a plain text, by position; they may overlap.

        Raises `Overload`, and `ValueError` for a text beyond 100 MiB or not in ASCII.
        """
        if not text.isascii():
            raise ValueError("only the plain reading of a text can be searched")
        findings: list[InspectionFinding] = []
        total = 0
        for name, engine in self._scans.items():
            found = engine.detect(text)
            if not found:
                continue
            candidates = [(each["start"], each["end"]) for each in found["custom"]]
            total += len(candidates)
            if total > MAX_CANDIDATES:
                raise Overload
            if (check := self._checks.get(name)) is not None:
                findings.extend(check(text, candidates))
            elif depth < _DECODED_DEPTH:
                decoder = base64_tokens if name == "base64" else hexadecimal_tokens
                findings.extend(self._find_encoded(text, candidates, decoder, depth))
        findings.sort(key=lambda finding: (finding.start, -finding.end))
        return findings

    def _find_secrets(self, text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
        reached = 0
        for start, _ in candidates:
            if start < reached:
                continue
            for kind, expression, is_jwt in self._secrets:
                match = expression.match(text, start)
                if match is None or (is_jwt and not _jwt(match[0])):
                    continue
                # Characters that touch a token may be the rest of it, or of another token.
                end = _REST.match(text, match.end()).end()  # pyright: ignore[reportOptionalMemberAccess]
                yield InspectionFinding(start, end, kind, match[0])
                reached = end
                break

    def _find_labelled(self, text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
        for start, _ in candidates:
            begin = start + 1 if text[start] == "_" else start
            for entry in self._labelled:
                match = entry.expression.match(text, begin)
                if match is None:
                    continue
                value = match["value"]
                if entry.check is None or entry.check(value):
                    yield InspectionFinding(
                        *match.span("value"), entry.type, normalised(entry.type, value)
                    )

    def _find_encoded(
        self,
        text: str,
        candidates: Candidates,
        tokens: Callable[[str, Candidates], Iterator[tuple[int, int, bytes]]],
        depth: int,
    ) -> Iterator[InspectionFinding]:
        for start, end, decoded in tokens(text, candidates):
            for reading in readings(decoded):
                if inner := self.find(reading, depth + 1):
                    yield InspectionFinding(start, end, inner[0].type, inner[0].value)
                    break


_REST = re.compile(r"[A-Za-z0-9_+/=~-]*")


def _engine(patterns: list[str]) -> PIIDetectorRust:
    return PIIDetectorRust(
        {f"detect_{name}": False for name in BUILT_IN}
        | {
            "max_text_bytes": _ENGINE_BYTES,
            "custom_patterns": [
                {"type": "custom", "pattern": pattern, "description": "candidate"}
                for pattern in patterns
            ],
        }
    )


_BETWEEN = (
    r"""["'`*\s:.=#()>\]|\\-]{0,8}(?:\([^()\n]{1,24}\))?["'`*\s:.=#()>\]|\\-]{1,8}"""
    r"""(?:(?:is|ist|was|number|num|no|nr|on|am|id)\b["'.:=#\s]{1,4}){0,2}"""
)
_QUOTED = r"""["'`]?\s{0,2}(?::|=|=>|:=)\s{0,2}["'`]"""


def _labelled(entry: Mapping[str, Any]) -> _Labelled:
    between = _BETWEEN
    value = entry["value"]
    end = ""
    if entry.get("quoted"):
        # Source code is full of such names; only a value in quotes is one.
        between, end = _QUOTED, r"""(?=["'`])"""
    check: dict[str, Callable[[str], bool]] = {
        "ssn": lambda text: check_digits.ssn(digits_of(text)),
        "bsn": check_digits.bsn,
        "pesel": check_digits.pesel,
        "steuer_id": lambda text: check_digits.steuer_id(digits_of(text)),
        "year": lambda text: not re.search(r"\b1[0-8]\d\d", text),
        "opaque": _opaque,
        "chosen": lambda text: not text.isidentifier() or not text.isupper(),
    }
    return _Labelled(
        entry["type"],
        re.compile(f"(?:{entry['labels']}){between}(?P<value>{value}){end}", re.IGNORECASE),
        check[entry["check"]] if "check" in entry else None,
    )


def _opaque(text: str) -> bool:
    """Return whether a text is not a word: prose has Bearer and Basic too."""
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


def _jwt(token: str) -> bool:
    header = token.partition(".")[0]
    try:
        return isinstance(
            orjson.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))), dict
        )
    except (binascii.Error, ValueError):
        return False

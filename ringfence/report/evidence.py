"""Evidence of a failed check, short enough to read and without secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.report import UnverifiedError

LINES = 12
CHARACTERS = 1200

_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
    re.compile(r"(?<=[?&]secret=)[^&\s'\"]+"),  # otpauth:// URIs
    re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]{8,}"),
    re.compile(r"\$(?:y|7|gy|2[aby]|5|6|1)\$[^\s:'\"]+"),  # crypt(5) hashes
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),  # JSON web tokens
    re.compile(r"(?i)(?<=password=)\S+|(?<=passwd=)\S+|(?<=token=)\S+|(?<=api_key=)\S+"),
)


def of(exception: BaseException) -> str:
    """Return the evidence in an exception."""
    if isinstance(exception, AssertionError):
        text = _message(str(exception)) or "the assertion failed without a message"
    elif isinstance(exception, pytest.fail.Exception | UnverifiedError | TimeoutError):
        text = str(exception)
    else:
        text = f"the check itself broke{_place(exception)}: {type(exception).__name__}: {exception}"
    return limit(redact(text.strip()))


def redact(text: str) -> str:
    for pattern in _SECRETS:
        text = pattern.sub("[redacted]", text)
    return text


def limit(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > LINES:
        text = "\n".join([*lines[:LINES], f"… {len(lines) - LINES} more lines"])
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"


def _message(text: str) -> str:
    """Return the message of the check, without pytest's list of every value in the expression."""
    words, _, _ = text.partition("\nassert ")
    return words.partition("\n")[0] if words.startswith("assert ") else words


def _place(exception: BaseException) -> str:
    """Return the place in the check that failed: the last frame in a test module."""
    place = ""
    frame = exception.__traceback__
    while frame:
        file = Path(frame.tb_frame.f_code.co_filename)
        if file.name.startswith("test_"):
            place = f" at {file.name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place

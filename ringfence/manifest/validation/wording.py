"""Words of the messages: values, lists and likely spellings, safe to print."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
SHOWN = 60
KNOWN = 500
"""Most names to compare for a likely spelling; more would take seconds."""


def quoted(value: object) -> str:
    """Return a value for a message, without control characters that could drive a terminal."""
    shown = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= SHOWN + 2 else f"{shown[:SHOWN]}…{shown[-1]}"


def listed(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    few = shown[:12]
    return ", ".join(few) + (f" and {len(shown) - len(few)} more" if shown[12:] else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'tools-1'?`, or the known names to choose from."""
    names = sorted(known)
    close = get_close_matches(name[:128], names[:KNOWN], n=1, cutoff=0.6)
    if close:
        return f"; did you mean {quoted(close[0])}?"
    return f"; choose from {listed(map(plain_key, names))}" if names else ""


def plain_key(name: str) -> str:
    """Return a key as it stands in a path: in quotes only if it needs them."""
    return name if PLAIN_KEY.fullmatch(name) else quoted(name)

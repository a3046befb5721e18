"""Events that hosts logged, out of a collector's record of them or out of their own files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def lines(files: Iterable[Path]) -> Iterator[str]:
    """Raises `OSError`."""
    for path in files:
        with path.open(encoding="utf-8", errors="replace") as each:
            yield from each


def documents(lines: Iterable[str], key: str) -> Iterator[dict[str, Any]]:
    """Each JSON object that has the key, or that is the message of a record and has it.

    Lines that are anything else are passed over: a record holds the events of a whole host.
    """
    for line in lines:
        if key not in line:
            continue
        document = _object(line)
        if document is not None and key not in document:
            document = _object(document.get("message"))
        if document is not None and key in document:
            yield document


def _object(text: Any) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, TypeError):
        return None
    return document if isinstance(document, dict) else None

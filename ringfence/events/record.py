"""Reads events that hosts logged, from the collector's record or from their own files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def lines(files: Iterable[Path]) -> Iterator[str]:
    """Yield the lines of all files. Raises `OSError`."""
    for path in files:
        with path.open(encoding="utf-8", errors="replace") as each:
            yield from each


def documents(lines: Iterable[str], key: str) -> Iterator[dict[str, Any]]:
    """Yield each JSON object with the key, also from the `message` of the collector's events.

    All other lines are skipped: a record contains all events of a host.
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

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
    """Each JSON object that has the key, or that is the message or the fields of a record and does.

    Lines that are anything else are passed over: a record holds the events of a whole host.
    """
    for line in lines:
        if key not in line:
            continue
        document = _object(line)
        for each in (document, document.get("fields"), _object(document.get("message"))):
            if isinstance(each, dict) and key in each:
                yield each
                break


def _object(text: Any) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return document if isinstance(document, dict) else {}

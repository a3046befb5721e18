"""Programs that checks run on a host, as root and with only the standard library."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def source(name: str) -> str:
    """Return the program `name` of this folder, for `python3 -c`."""
    return Path(__file__).with_name(f"{name}.py").read_text()

"""What is wrong with a document: where in it, what, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

DocumentPath = tuple[str | int, ...]

PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
SHOWN = 60
KNOWN = 500
"""Names among which a likely spelling is looked for; beyond that it would cost seconds."""


@dataclass(frozen=True)
class Finding:
    """A rule's answer; the document knows the line."""

    path: DocumentPath
    message: str
    on_key: bool = False
    """Whether the key is at fault rather than its value."""
    at: tuple[int, int] | None = None
    """Line and column, where the path alone does not give them."""


@dataclass(frozen=True, order=True)
class Problem:
    """A finding with its place in a file. Line 0: the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        if not self.line:
            return f"{self.file}: {self.message}"
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.message}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def dotted(path: DocumentPath) -> str:
    """`flows[0].to.server`; a key that would be ambiguous is quoted."""
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        else:
            shown += f".{_plainly(step)}" if shown else _plainly(step)
    return shown or "document"


def quoted(value: object) -> str:
    """A value for a message: control characters, which could drive a terminal, are escaped."""
    shown = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= SHOWN + 2 else f"{shown[:SHOWN]}…{shown[-1]}"


def listed(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    few = shown[:12]
    return ", ".join(few) + (f" and {len(shown) - len(few)} more" if shown[12:] else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'tools-1'?`, or what there is to choose from."""
    names = sorted(known)
    close = get_close_matches(name[:128], names[:KNOWN], n=1, cutoff=0.6)
    if close:
        return f"; did you mean {quoted(close[0])}?"
    return f"; choose from {listed(map(_plainly, names))}" if names else ""


def _plainly(name: str) -> str:
    """A key as it stands in a path: in quotes only where it needs them."""
    return name if PLAIN_KEY.fullmatch(name) else quoted(name)

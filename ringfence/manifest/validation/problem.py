"""Problems of a manifest: where it is wrong, what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ringfence.manifest.validation.wording import plain_key

DocumentPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Violation:
    """A breach of the schema or a rule; `Document.problem` finds its line."""

    path: DocumentPath
    message: str
    on_key: bool = False
    """The key is wrong, not its value."""
    at: tuple[int, int] | None = None
    """Line and column, if the path alone does not determine them."""


@dataclass(frozen=True, order=True)
class Problem:
    """A violation with its place in a file. Line 0 is the file as a whole."""

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
    """Return a path as `flows[0].to.server`; an ambiguous key is quoted."""
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        else:
            shown += f".{plain_key(step)}" if shown else plain_key(step)
    return shown or "document"

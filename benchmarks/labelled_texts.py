"""Texts labelled with the values to find, and the scores of a detector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MARK = re.compile(r"«(\w+):(.*?)»", re.DOTALL)

Span = tuple[str, int, int]
"""Type, start and end of a value."""


@dataclass(frozen=True)
class Labelled:
    text: str
    spans: frozenset[Span]


@dataclass(frozen=True)
class Score:
    right: int
    extra: int
    missed: int

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.extra) if self.right + self.extra else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


def load(name: str) -> list[Labelled]:
    return list(_read(Path(__file__).with_name(name).read_text()))


def _read(document: str) -> Iterator[Labelled]:
    for line in document.splitlines():
        if not line or line.startswith("#"):
            continue
        written = line.replace("·", "").replace(r"\\n", "\0").replace(r"\n", "\n")
        written = written.replace("\0", r"\n")
        text, spans, last = "", set[Span](), 0
        for mark in _MARK.finditer(written):
            text += written[last : mark.start()]
            spans.add((mark[1], len(text), len(text) + len(mark[2])))
            text += mark[2]
            last = mark.end()
        yield Labelled(text + written[last:], frozenset(spans))


def scores(
    texts: list[Labelled], find: Callable[[str], set[Span]], *, whole: bool = True
) -> dict[str, Score]:
    """Return scores by type. A finding counts if it covers the value (`whole`) or touches it."""
    right, extra, missed = Counter[str](), Counter[str](), Counter[str]()
    for labelled in texts:
        found = find(labelled.text)
        for kind, start, end in labelled.spans:
            covered = any(
                k == kind and (s <= start and e >= end if whole else s < end and e > start)
                for k, s, e in found
            )
            (right if covered else missed)[kind] += 1
        for kind, start, end in found:
            if not any(k == kind and s < end and e > start for k, s, e in labelled.spans):
                extra[kind] += 1
    return {
        kind: Score(right[kind], extra[kind], missed[kind])
        for kind in sorted({*right, *extra, *missed})
    }

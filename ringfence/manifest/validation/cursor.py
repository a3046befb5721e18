"""A reader of a document that may be wrong anywhere.

Rules and the schema report their violations in one run, so rules read documents that the schema
refuses. A cursor therefore never raises: a value that is missing or has another type is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ringfence.manifest.validation.problem import DocumentPath, Violation


@dataclass(frozen=True)
class Cursor:
    value: Any
    path: DocumentPath = ()

    def __getitem__(self, key: str) -> Cursor:
        child = self.value.get(key) if isinstance(self.value, dict) else None
        return Cursor(child, (*self.path, key))

    def at(self, *keys: str) -> Cursor:
        cursor = self
        for key in keys:
            cursor = cursor[key]
        return cursor

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def entries(self) -> Iterator[tuple[str, Cursor]]:
        """Yield keys and values of a mapping; nothing for any other value."""
        if isinstance(self.value, dict):
            for key in self.value:
                yield key, self[key]

    def elements(self) -> Iterator[Cursor]:
        """Yield the elements of a list; nothing for any other value."""
        if isinstance(self.value, list):
            for number, element in enumerate(self.value):
                yield Cursor(element, (*self.path, number))

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def name(self) -> str:
        """The key of this value."""
        return str(self.path[-1])

    @property
    def text(self) -> str | None:
        return self.value if isinstance(self.value, str) else None

    @property
    def number(self) -> int | None:
        is_number = isinstance(self.value, int) and not isinstance(self.value, bool)
        return self.value if is_number else None

    def texts(self) -> list[str]:
        return [element.value for element in self.elements() if element.text is not None]

    def violation(self, message: str, on_key: bool = False) -> Violation:
        return Violation(self.path, message, on_key)

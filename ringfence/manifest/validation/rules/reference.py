"""Names that must be defined elsewhere in the document."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation, dotted
from ringfence.manifest.validation.wording import quoted, suggestion


def exists(reference: Cursor, where: Cursor, what: str) -> Iterator[Violation]:
    """Yield a violation if a name is given and not defined.

    Yield none if the definitions themselves are broken: every name would look undefined.
    """
    name = reference.text
    if name is None or not where.is_mapping or name in where:
        return
    hint = suggestion(name, where.value) or f"; define it under {dotted(where.path)}"
    yield reference.violation(f"there is no {what} {quoted(name)}{hint}")

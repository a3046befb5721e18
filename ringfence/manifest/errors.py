"""The error of an invalid manifest, in a module that imports nothing: every verb catches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.manifest.validation.problem import Problem


class ManifestError(ValueError):
    """The manifest is not valid. As text: every problem on its own line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))

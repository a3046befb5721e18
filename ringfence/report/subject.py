"""What the plugin that selects checks tells the plugin that reports on them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ringfence.report.model import Identity

IDENTITY = pytest.StashKey[Identity]()
"""On an item: which property of what it verifies. An item without is none of ours."""


@dataclass(frozen=True)
class Subject:
    """What is verified in this run."""

    environment: str
    stage: str
    hosts: tuple[str, ...]
    partial: bool


SUBJECT = pytest.StashKey[Subject]()
"""On the configuration of a run that is to be reported."""

"""Facts that the plugin for selection passes to the plugin for reports."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ringfence.report.model import CheckIdentity

IDENTITY = pytest.StashKey[CheckIdentity]()
"""On an item: which property of what it verifies. An item without is none of ours."""


@dataclass(frozen=True)
class Subject:
    """Subject of this run."""

    environment: str
    stage: str
    hosts: tuple[str, ...]
    partial: bool


SUBJECT = pytest.StashKey[Subject]()
"""On the configuration of a run that is to be reported."""

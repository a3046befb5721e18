"""Facts that the verification plugin passes to the report plugin."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ringfence.report.model import CheckIdentity

IDENTITY = pytest.StashKey[CheckIdentity]()
"""Key on a pytest item: the identity of its check. An item without it is not a check."""


@dataclass(frozen=True)
class Subject:
    """Subject of this run."""

    environment: str
    stage: str
    hosts: tuple[str, ...]
    partial: bool


SUBJECT = pytest.StashKey[Subject]()
"""Key on the pytest configuration: the subject of a run that gets a report."""

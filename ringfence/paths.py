"""Locations of the data that the package reads beside its own code."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / "schemas"
ROLES = ROOT / "roles"
STACKS = ROOT / "stacks"

"""Locations of the data that the package reads beside its own code."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
# A wheel has the data inside the package, a checkout beside it.
ROOT = wheel if (wheel := PACKAGE / "data").is_dir() else PACKAGE.parent
SCHEMAS = ROOT / "schemas"
ROLES = ROOT / "roles"
STACKS = ROOT / "stacks"

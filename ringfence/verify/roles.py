"""Default values of roles, which checks expect where the manifest has no value."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from ringfence import ROLES


@cache
def defaults(role: str) -> dict[str, Any]:
    """Return the default variables of a role."""
    return yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())

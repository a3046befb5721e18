"""Ringfence: infrastructure as code and hardening for MCP environments."""

from pathlib import Path as _Path

PACKAGE = _Path(__file__).parent
# A wheel has its data inside the package, a checkout beside it.
ROOT = PACKAGE / "data" if (PACKAGE / "data").is_dir() else PACKAGE.parent
SCHEMAS = ROOT / "schemas"
ROLES = ROOT / "roles"
STACKS = ROOT / "stacks"

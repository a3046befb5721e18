"""Example manifest, whose stacks the tests rehearse."""

from __future__ import annotations

from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "inventories" / "aws-example" / "environment.yaml"

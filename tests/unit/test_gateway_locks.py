"""Hosts install the same versions of the gateway's packages as its tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.packages.wheelhouse import PYTHONS, find_lock

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "roles/mcp_gateway/files/locks"
NOT_TESTED = {"pip"}
"""Packages that only install the others, and are not imported."""
DETECTOR = "cpex-pii-filter"
FRAMEWORK = "cpex"
"""Framework of another gateway: the detector's package depends on it, but the detector does not."""


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("python", sorted(PYTHONS.values()))
def test_hosts_get_the_versions_that_were_tested(python: str) -> None:
    tested = versions(ROOT / "requirements.lock")
    locked = versions(find_lock([LOCKS], "uvicorn", tested["uvicorn"], python))
    others = {
        name: (version, tested.get(name))
        for name, version in locked.items()
        if name not in NOT_TESTED and version != tested.get(name)
    }
    assert others == {}


@pytest.mark.parametrize("python", sorted(PYTHONS.values()))
def test_the_detector_brings_no_framework(python: str) -> None:
    tested = versions(ROOT / "requirements.lock")
    locked = versions(find_lock([LOCKS], "uvicorn", tested["uvicorn"], python))
    assert locked[DETECTOR] == tested[DETECTOR]
    assert FRAMEWORK not in locked

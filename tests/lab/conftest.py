"""Booted labs for tests: each with a name and addresses of its own, so that none meets another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.lab import Lab, unavailable
from ringfence.manifest.model import Environment

DIRECT = Path(__file__).parents[1] / "unit/manifests/direct.yaml"
"""Two hosts without a gateway: enough for whatever does not concern one."""

MakeManifest = Callable[..., Path]


STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lab-minutes",
        type=int,
        default=30,
        help="skip tests of the lab after this time: a slow machine would take hours; 0: never",
    )
    parser.addoption("--lab-release", default="trixie", help="Debian release of the tests' hosts")


LONGEST = ("test_end_to_end.py", "test_nids.py", "test_mcp_gateway.py", "test_firewall.py")
"""They begin first: whatever runs beside them is over when they are."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a lab, its tests are skipped: one line per file says why."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if here and (reason := unavailable()):
        for item in here:
            item.add_marker(pytest.mark.skip(reason=f"no lab here: {reason}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The run of every sabotage takes longest, and has to begin in two thirds of the time."""
    minutes = item.config.option.lab_minutes * (2 / 3 if "can_fail" in item.name else 1)
    if minutes and time.monotonic() - STARTED > minutes * 60:
        pytest.skip(f"{minutes:g} minutes are over on this machine; run it with --lab-minutes 0")


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--lab-release"))


@pytest.fixture(scope="session")
def octets() -> range:
    """Second parts of the IPv4 addresses (10.OCTET.…) that labs of this process may take."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return range(224 + 4 * worker, 228 + 4 * worker)


@pytest.fixture(scope="session")
def make_manifest(tmp_path_factory: pytest.TempPathFactory) -> MakeManifest:
    """Copies a lab's manifest under another name and with addresses 10.OCTET.…"""

    def make(name: str, octet: int, manifest: Path = DIRECT) -> Path:
        path = tmp_path_factory.mktemp(name) / "environment.yaml"
        text = manifest.read_text().replace("\nname: lab\n", f"\nname: {name}\n")
        text = text.replace("10.213.", f"10.{octet}.").replace("fd0d:213:", f"fd0d:{octet}:")
        path.write_text(text)
        return path

    return make


@pytest.fixture(scope="session")
def lab(make_manifest: MakeManifest, release: str, octets: range) -> Iterator[Lab]:
    """Two hosts, fresh: booted, and nothing is hardened."""
    environment = Environment.load(make_manifest(f"test-{octets[0]}", octets[0]))
    lab = Lab(environment, release)
    lab.down()
    try:
        lab.up()
        yield lab
    finally:
        lab.down(purge=True)

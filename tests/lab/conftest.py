"""Labs for tests, booted with distinct names and addresses, so that they do not collide."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.lab import Lab, unavailable
from ringfence.manifest.model import Environment

DIRECT = Path(__file__).parents[1] / "unit/manifests/direct.yaml"
"""Two hosts without a gateway: enough for tests that need no gateway."""

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
"""Longest tests. They start first, so that the others run beside them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of the lab where no lab can run; one line per file gives the reason."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if here and (reason := unavailable()):
        for item in here:
            item.add_marker(pytest.mark.skip(reason=f"no lab here: {reason}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests when the time is over. The run of every sabotage takes longest and must begin
    within two thirds of it."""
    minutes = item.config.option.lab_minutes * (2 / 3 if "can_fail" in item.name else 1)
    if minutes and time.monotonic() - STARTED > minutes * 60:
        pytest.skip(f"{minutes:g} minutes are over on this machine; run it with --lab-minutes 0")


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--lab-release"))


@pytest.fixture(scope="session")
def octets() -> range:
    """Second octets of the IPv4 addresses (10.OCTET.…) that labs of this process may use."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return range(224 + 4 * worker, 228 + 4 * worker)


@pytest.fixture(scope="session")
def make_manifest(tmp_path_factory: pytest.TempPathFactory) -> MakeManifest:
    """Return a function that copies a lab's manifest with another name and with addresses
    10.OCTET.…"""

    def make(name: str, octet: int, manifest: Path = DIRECT) -> Path:
        path = tmp_path_factory.mktemp(name) / "environment.yaml"
        text = manifest.read_text().replace("\nname: lab\n", f"\nname: {name}\n")
        text = text.replace("10.213.", f"10.{octet}.").replace("fd0d:213:", f"fd0d:{octet}:")
        path.write_text(text)
        return path

    return make


@pytest.fixture(scope="session")
def lab(make_manifest: MakeManifest, release: str, octets: range) -> Iterator[Lab]:
    """Boot a lab of two fresh hosts without hardening."""
    environment = Environment.load(make_manifest(f"test-{octets[0]}", octets[0]))
    lab = Lab(environment, release)
    lab.down()
    try:
        lab.up()
        yield lab
    finally:
        lab.down(purge=True)

"""Rehearsed stacks, each shared by all tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from example import EXAMPLE

from ringfence.manifest.model import Environment
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.plugin import MARKERS


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of the product's checks: tests call the checks here as functions."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the test of broken properties once for each that the module declares."""
    if "breakage" in metafunc.fixturenames:
        metafunc.parametrize("breakage", list(vars(metafunc.module)["BROKEN"]))


@pytest.fixture(scope="session")
def environment() -> Environment:
    return Environment.load(EXAMPLE)


@pytest.fixture(scope="session")
def rehearsal(environment: Environment) -> Iterator[Rehearsal]:
    with rehearsed_stack(environment) as rehearsal:
        yield rehearsal


@pytest.fixture(scope="session")
def account(environment: Environment) -> Iterator[Rehearsal]:
    with rehearsed_stack(environment, "account", preview=False) as rehearsal:
        yield rehearsal

"""Call the checks of the cloud as functions, and show that they fail on broken accounts."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ringfence.manifest.model import Environment
from ringfence.rehearsal.record import Rehearsal
from ringfence.report import NotApplicable, UnverifiedError
from ringfence.verify.account.cloud import Cloud

COMPLIANCE = Path(__file__).parents[1] / "compliance/cloud"

Aws = Callable[[str], Any]
"""Function that returns a client of the account for the name of a service."""
Exports = Mapping[str, Any]
Change = Callable[[Aws, Exports], object]
Checks = Mapping[str, Callable[..., None]]


def checks(module: str) -> Checks:
    """Return the checks of `tests/compliance/cloud/test_MODULE.py` by name."""
    name = f"cloud_checks_{module}"
    spec = importlib.util.spec_from_file_location(name, COMPLIANCE / f"test_{module}.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look for theirs there
    spec.loader.exec_module(loaded)
    return {name: f for name, f in vars(loaded).items() if name.startswith("test_")}


def failing(checks: Checks, cloud: Cloud) -> dict[str, str]:
    """Return the checks that fail, with their messages, without those that do not apply."""
    found: dict[str, str] = {}
    for name, check in checks.items():
        for case in _cases(check):
            given = {"cloud": cloud, "environment": cloud.environment, **case}
            wanted = inspect.signature(check).parameters
            try:
                check(**{key: value for key, value in given.items() if key in wanted})
            except NotApplicable:
                continue
            except (AssertionError, UnverifiedError) as error:
                found[name] = str(error).split("\n")[0]
    return found


def failing_once(
    change: Change, checks: Checks, rehearsal: Rehearsal, environment: Environment
) -> dict[str, str]:
    """Return the checks that fail after a change to the account.

    The change runs in a copy of this process, so that the account stays intact and no new one is
    needed for each change.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            change(rehearsal.account.client, rehearsal.exports)
            cloud = Cloud(rehearsal.account.session, environment, emulated=True)
            answer: object = failing(checks, cloud)
        except BaseException:
            answer = traceback.format_exc()
        with os.fdopen(write, "wb") as out:
            pickle.dump(answer, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        raw = answers.read()
    os.waitpid(child, 0)
    answer = pickle.loads(raw)  # noqa: S301 - of our own child
    assert isinstance(answer, dict), answer
    return answer


def inapplicable(checks: Checks, cloud: Cloud) -> set[str]:
    found: set[str] = set()
    for name, check in checks.items():
        try:
            check(cloud)
        except NotApplicable:
            found.add(name)
        except (AssertionError, TypeError):  # needs more arguments: not one of these checks
            continue
    return found


def _cases(check: Callable[..., None]) -> Iterator[dict[str, Any]]:
    marks = [m for m in getattr(check, "pytestmark", []) if m.name == "parametrize"]
    if not marks:
        yield {}
    for mark in marks:
        for value in mark.args[1]:
            yield {mark.args[0]: value}


class Broken(dict[str, tuple[Change, set[str]]]):
    """Changes to a hardened account, and the checks that must fail for each."""

    def by(self, *checks: str) -> Callable[[Change], Change]:
        def register(change: Change) -> Change:
            self[getattr(change, "__name__", repr(change))] = (
                change,
                {f"test_{c}" for c in checks},
            )
            return change

        return register


def test_a_broken_property_turns_exactly_its_checks_red(
    breakage: str, request: pytest.FixtureRequest, rehearsal: Rehearsal, environment: Environment
) -> None:
    """Try one broken property of the importing module; `conftest` supplies the names."""
    change, expected = request.module.BROKEN[breakage]
    failed = failing_once(change, request.module.CHECKS, rehearsal, environment)
    assert failed.keys() == expected, failed


def test_every_check_is_broken_by_something(request: pytest.FixtureRequest) -> None:
    broken = set().union(*(expected for _, expected in request.module.BROKEN.values()))
    assert broken == request.module.CHECKS.keys()

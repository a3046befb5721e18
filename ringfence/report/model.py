"""A compliance report: the checks, their results, and figures computed from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from ringfence.controls import mappings
from ringfence.controls.catalogue import Catalogue, Control, Domain

Outcome = Literal["passed", "failed", "not_applicable"]
Status = Literal["passed", "failed", "not_applicable", "not_verified"]
Measurement = Literal["before", "after"]

ENVIRONMENT = "(environment)"
"""Takes the place of a host's name for checks that concern no single host."""

_WORST_FIRST: tuple[Status, ...] = ("failed", "passed", "not_applicable")


@dataclass(frozen=True)
class CheckIdentity:
    """Identity of a check: its control, its host and the property that it verifies."""

    control: str
    host: str
    check: str
    case: str = ""
    """Difference between runs of one check on one host: a server, a person, a parameter."""
    why: str = ""

    @property
    def title(self) -> str:
        """Property as a sentence: "root is refused" for `test_root_is_refused`."""
        words = self.check.removeprefix("test_").replace("_", " ")
        return f"{words} ({self.case})" if self.case else words


@dataclass(frozen=True)
class Check:
    identity: CheckIdentity
    outcome: Outcome
    message: str = ""
    """Evidence of a failure, or the reason why the check is not applicable."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Counts:
    passed: int = 0
    failed: int = 0
    not_applicable: int = 0
    not_verified: int = 0
    """Controls without a verdict: none of their checks ran."""

    @property
    def rate(self) -> float | None:
        """Share that passed among passed and failed; None if there are neither."""
        decided = self.passed + self.failed
        return self.passed / decided if decided else None


def percent(rate: float | None) -> str:
    """Format a rate, rounded down: 100% means that nothing failed."""
    return "-" if rate is None else f"{math.floor(rate * 1000) / 10:g}%"


def combined(statuses: Iterable[Status]) -> Status:
    """Combine several statuses into one: a single failure is a failure."""
    seen = frozenset(statuses)
    for status in _WORST_FIRST:
        if status in seen:
            return status
    return "not_verified"


@dataclass(frozen=True)
class Report:
    environment: str
    stage: str
    measurement: Measurement
    time: datetime
    seconds: float
    version: str
    hosts: tuple[str, ...]
    partial: bool
    """Whether the run was limited to some hosts, controls or checks."""
    catalogue: Catalogue
    checks: tuple[Check, ...]
    before: Report | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Hosts, and `ENVIRONMENT` if some checks concern no single host."""
        environment = any(check.identity.host == ENVIRONMENT for check in self.checks)
        return (*self.hosts, ENVIRONMENT) if environment else self.hosts

    @cached_property
    def _by_control(self) -> Mapping[str, tuple[Check, ...]]:
        found: dict[str, list[Check]] = {}
        for check in self.checks:
            found.setdefault(check.identity.control, []).append(check)
        return {control: tuple(checks) for control, checks in found.items()}

    def checks_of(self, control: str) -> tuple[Check, ...]:
        return self._by_control.get(control, ())

    def status(self, control: str, host: str | None = None) -> Status:
        """Return the status of a control, on one host or on all."""
        return combined(
            check.outcome
            for check in self.checks_of(control)
            if host is None or check.identity.host == host
        )

    @cached_property
    def matrix(self) -> Mapping[str, Mapping[str, Status]]:
        """Status of every control on the hosts of its checks; on all hosts if no check ran."""
        return {
            control: {
                host: self.status(control, host)
                for host in self.columns
                if not (checks := self.checks_of(control))
                or any(check.identity.host == host for check in checks)
            }
            for control in self.catalogue
        }

    @cached_property
    def coverage(self) -> tuple[mappings.Coverage, ...]:
        """Coverage of each framework by the controls that passed."""
        passed = (id_ for id_ in self.catalogue if self.status(id_) == "passed")
        return mappings.coverage(mappings.load(), passed)

    @cached_property
    def counts(self) -> Counts:
        return self.count(self.catalogue.values())

    def count(self, controls: Iterable[Control]) -> Counts:
        ids = [control.id for control in controls]
        outcomes = Counter(check.outcome for id_ in ids for check in self.checks_of(id_))
        return Counts(
            passed=outcomes["passed"],
            failed=outcomes["failed"],
            not_applicable=outcomes["not_applicable"],
            not_verified=sum(not self.checks_of(id_) for id_ in ids),
        )

    @cached_property
    def domains(self) -> Mapping[Domain, tuple[Control, ...]]:
        found: dict[Domain, list[Control]] = {}
        for control in self.catalogue.values():
            found.setdefault(control.domain, []).append(control)
        return {domain: tuple(controls) for domain, controls in found.items()}

    @property
    def failures(self) -> Mapping[Control, tuple[Check, ...]]:
        """Failed checks by control, in the order of the checklist."""
        return {
            control: failed
            for control in self.catalogue.values()
            if (failed := tuple(c for c in self.checks_of(control.id) if c.outcome == "failed"))
        }

    @property
    def inapplicable(self) -> Mapping[Control, tuple[Check, ...]]:
        return {
            control: found
            for control in self.catalogue.values()
            if (
                found := tuple(
                    c for c in self.checks_of(control.id) if c.outcome == "not_applicable"
                )
            )
        }


def told_once(checks: Iterable[Check]) -> tuple[tuple[Check, tuple[str, ...]], ...]:
    """Merge checks with the same result on several hosts into one, with those hosts."""
    found: dict[tuple[str, str, str], tuple[Check, list[str]]] = {}
    for check in checks:
        outcome = (check.identity.title, check.outcome, check.message)
        found.setdefault(outcome, (check, []))[1].append(check.identity.host)
    return tuple((check, tuple(hosts)) for check, hosts in found.values())


@dataclass(frozen=True)
class Finding:
    """Several failures with the same message."""

    message: str
    titles: tuple[str, ...]
    hosts: tuple[str, ...]


def findings(checks: Iterable[Check]) -> tuple[Finding, ...]:
    """Merge failures with the same message, over hosts and checks."""
    titles: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for check, hosts in told_once(checks):
        titles.setdefault((check.message, hosts), []).append(check.identity.title)
    return tuple(Finding(message, tuple(what), hosts) for (message, hosts), what in titles.items())

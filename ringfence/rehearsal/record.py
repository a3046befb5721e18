"""Record of a rehearsal: every resource as it was declared and as it was created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from ringfence.rehearsal.account import EmulatedAccount

Inputs = Mapping[str, Any]
"""Properties by the names of Pulumi's schema (camelCase)."""
References = Mapping[str, Mapping[str, Any]]
"""Outputs of other stacks, by the name under which a program refers to them."""


class RehearsalError(Exception):
    """The stack cannot be provisioned; the message says where, and what to do."""


class Status(StrEnum):
    """Extent of the emulation of a resource."""

    MOTO = "moto"
    """Created in the emulated account."""
    RECORDED = "recorded"
    """Recorded only: nothing emulates it, and it never counts as verified."""
    NONE = "none"
    """No AWS resource: a component or a provider."""


@dataclass(frozen=True)
class Created:
    """Object that a handler created: its physical id, and the outputs beside the inputs."""

    id: str
    outputs: Inputs


Create = Callable[[EmulatedAccount, str, Inputs], Created]
"""Creates a resource from its logical name and its inputs."""
Look = Callable[[EmulatedAccount, Inputs], Inputs]
"""Answers a function call of the program (`aws.get_caller_identity`)."""


@dataclass(frozen=True)
class RehearsedResource:
    urn: str
    type: str
    name: str
    inputs: Inputs
    id: str
    outputs: Inputs
    parent: str
    status: Status
    protect: bool = False
    dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """URNs of the resources that a property's value comes from, by property."""


@dataclass(frozen=True)
class Rehearsal:
    stack: str
    account: EmulatedAccount
    resources: tuple[RehearsedResource, ...]
    exports: Mapping[str, Any]
    seconds: float

    @cached_property
    def counts(self) -> Mapping[Status, int]:
        counter = Counter(resource.status for resource in self.resources)
        return {status: counter[status] for status in Status}

    def of_type(self, token: str) -> tuple[RehearsedResource, ...]:
        return tuple(r for r in self.resources if r.type == token)

"""Declared flows as arrows."""

from __future__ import annotations

from ringfence.cloud import flows
from ringfence.cloud.flows import Path
from ringfence.drawing.arrows import merged
from ringfence.drawing.picture import Arrow
from ringfence.manifest.model import Environment


def drawn(environment: Environment) -> tuple[Arrow, ...]:
    """Return arrows of every declared flow except those that all hosts have."""
    return merged(environment, flows.declared(environment) - summed(environment))


def summed(environment: Environment) -> frozenset[Path]:
    """Return the flows that one sentence sums up: those of all hosts, and mirrored packets."""
    mirrored = (p for p in flows.declared(environment) if p.source.startswith("mirror of "))
    return flows.common(environment) | frozenset(mirrored)

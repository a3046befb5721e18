"""Rehearses a program, from its first resource to its exports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from ringfence.rehearsal.account import EmulatedAccount, emulated
from ringfence.rehearsal.engine.monitor import Made, Monitor
from ringfence.rehearsal.engine.program import Program, StackSettings, run
from ringfence.rehearsal.record import References, Rehearsal

SECONDS = 90.0
"""Limit of one run."""


@contextmanager
def rehearsed(
    program: Program,
    *,
    project: str,
    stack: str,
    region: str,
    config: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
    preview: bool = True,
    account: EmulatedAccount | None = None,
    references: References | None = None,
) -> Iterator[Rehearsal]:
    """Provision the program and yield the result; the account exists until the block ends.

    Without `account`, create a new one. The program first runs as a preview: only a preview marks a
    missing output as unknown, which is refused. The second run finds the objects of the first.
    """
    begun = time.monotonic()
    settings = StackSettings(project, stack, config or {})
    references = references or {}
    made: Made = {}
    with nullcontext(account) if account else emulated(region) as place:
        if preview:
            first = Monitor(place, references, made)
            run(program, first, settings, seconds=seconds, preview=True)
        monitor = Monitor(place, references, made)
        run(program, monitor, settings, seconds=seconds, preview=False)
        elapsed = time.monotonic() - begun
        # Registrations arrive in any order; a record is to be the same every time.
        resources = tuple(sorted(monitor.records, key=lambda resource: resource.urn))
        yield Rehearsal(stack, place, resources, monitor.exports, elapsed)

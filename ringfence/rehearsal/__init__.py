"""Rehearsal: a Pulumi program run against an emulated AWS, without an account or an engine.

Its resources become objects of moto, with real ids, ARNs and policies, that boto3 (and so
the compliance checks) can look at. What moto cannot emulate is recorded and said so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.rehearsal.account import Account, emulated
from ringfence.rehearsal.engine import Program, run
from ringfence.rehearsal.monitor import Monitor
from ringfence.rehearsal.record import Rehearsal, RehearsalError, Resource, Status

SECONDS = 90.0
"""Limit of one run."""

__all__ = ["Account", "Rehearsal", "RehearsalError", "Resource", "Status", "rehearsed"]


@contextmanager
def rehearsed(
    program: Program, *, stack: str, region: str, seconds: float = SECONDS, preview: bool = True
) -> Iterator[Rehearsal]:
    """The program, provisioned; the account lives until the end of the `with` block.

    It runs as a preview first, in an account of its own: only there a missing output is
    unknown, which is refused, rather than None, which nobody notices.
    """
    begun = time.monotonic()
    if preview:
        with emulated(region) as scratch:
            _run(program, Monitor(scratch), stack, seconds, preview=True)
    with emulated(region) as account:
        monitor = Monitor(account)
        _run(program, monitor, stack, seconds, preview=False)
        elapsed = time.monotonic() - begun
        yield Rehearsal(stack, account, monitor.records, monitor.exports, elapsed)


def _run(program: Program, monitor: Monitor, stack: str, seconds: float, preview: bool) -> None:
    run(program, monitor, project="ringfence", stack=stack, preview=preview, seconds=seconds)

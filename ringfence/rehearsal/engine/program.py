"""Runs a Pulumi program without Pulumi's engine: a thread, an event loop and a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from threading import Thread

from pulumi.runtime import set_mocks
from pulumi.runtime.config import set_all_config
from pulumi.runtime.settings import SETTINGS, set_root_resource
from pulumi.runtime.stack import run_in_stack, wait_for_rpcs

from ringfence.rehearsal.engine.monitor import Monitor
from ringfence.rehearsal.record import RehearsalError

Program = Callable[[], object]


def _call(program: Program) -> None:
    """Run a program and drop its result, which Pulumi would await."""
    program()


@dataclass(frozen=True)
class StackSettings:
    project: str
    stack: str
    config: Mapping[str, str]
    """Configuration by the full name of a key, as in `Pulumi.STACK.yaml`."""


def run(
    program: Program, monitor: Monitor, settings: StackSettings, *, seconds: float, preview: bool
) -> None:
    """Run a program to its end. Raise the program's exception, or `RehearsalError`.

    Pulumi keeps its state in context variables: a separate context leaves nothing to the next
    run. A separate thread can be abandoned, the only way to end a program that blocks its event
    loop.
    """
    raised: list[BaseException] = []

    async def rehearsed() -> None:
        # MockSettings has a new rpc_manager, but not a new set of pending outputs.
        SETTINGS.outputs = set()  # pyright: ignore[reportAttributeAccessIssue]
        set_mocks(monitor.mocks, settings.project, settings.stack, preview, monitor=monitor)
        set_all_config(dict(settings.config))
        await wait_for_rpcs()
        # The stack from set_mocks is complete: exports of the program would be lost.
        set_root_resource(None)  # pyright: ignore[reportArgumentType]
        await run_in_stack(lambda: _call(program))

    def body() -> None:
        try:
            asyncio.run(asyncio.wait_for(rehearsed(), seconds))
        except BaseException as error:
            raised.append(error)

    # set_mocks registers a resource; without a running loop it would create one that nobody runs.
    thread = Thread(target=copy_context().run, args=(body,), name="rehearsal", daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if thread.is_alive() or (raised and isinstance(raised[0], TimeoutError)):
        last = monitor.records[-1].urn if monitor.records else "none"
        raise RehearsalError(
            f"the program did not end within {seconds:g} s; its last resource was {last}; "
            "search for an output that the program awaits and nothing resolves"
        )
    if raised:
        raise raised[0]

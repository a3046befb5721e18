"""The inspection worker: large messages are searched in a process of its own, so no call waits.

A hostile server or caller can send what takes seconds a mebibyte to search. A small message is
searched at once. Any other goes to the worker's process (`search_process`), which is killed when it
takes too long; the message is then refused.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import orjson

from ringfence.gateway.inspection.inspector import (
    INLINE_BYTES,
    Action,
    Inspected,
    Inspector,
    conforming,
)
from ringfence.gateway.inspection.search_process import LENGTH_BYTES
from ringfence.gateway.refusals import Refusal

SEARCH_SECONDS = 5.0
"""Ten times what 8 MiB of ordinary JSON take on a busy core."""
QUEUE_SECONDS = 10.0
START_SECONDS = 10.0
"""To load the patterns; not part of a search."""

_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG")


class InspectionWorker:
    """An inspector, and its process from the first large message until `close`."""

    def __init__(
        self,
        classes: Mapping[str, Action],
        mask: bool,
        key: bytes,
        *,
        arguments: Action = "flag",
        search_seconds: float = SEARCH_SECONDS,
        queue_seconds: float = QUEUE_SECONDS,
    ) -> None:
        self.inspector = Inspector(classes, mask, key, arguments=arguments)
        self._settings = {"classes": dict(classes), "mask": mask, "key": key.hex()}
        self._search_seconds = search_seconds
        self._queue_seconds = queue_seconds
        self._process: Process | None = None
        self._ending: set[asyncio.Task[int]] = set()
        self._free = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Locks by source: nobody waits behind several messages of one source."""

    async def inspect_result(
        self,
        document: dict[str, Any],
        data_class: str,
        output_schema_check: Callable[[Any], bool] | None,
        *,
        size: int,
        source: str,
    ) -> Inspected:
        """Inspect a result as `Inspector` does. `size`: bytes on the wire. `source`: the sender.

        Raises `Refusal` where it could not be searched in time.
        """
        action = self.inspector.action(data_class)
        checks = [output_schema_check]
        done, _ = await self.inspect_together(
            [document], action, checks, "", size=size, source=source
        )
        return done[0]

    async def inspect_arguments(
        self, params: Mapping[str, Any], data_class: str, *, size: int, source: str
    ) -> Inspected:
        """Inspect arguments as `Inspector` does. Raises `Refusal` as `inspect_result` does."""
        if size <= INLINE_BYTES:
            return self.inspector.inspect_arguments(params, data_class)
        action = self.inspector.argument_action(data_class)
        wrapped = [{"params": dict(params)}]
        done, _ = await self.inspect_together(wrapped, action, [None], "", size=size, source=source)
        return self.inspector.as_arguments(done[0])

    async def inspect_together(
        self,
        documents: Sequence[dict[str, Any]],
        action: Action,
        output_schema_checks: Sequence[Callable[[Any], bool] | None],
        before: str,
        *,
        size: int,
        source: str,
    ) -> tuple[list[Inspected], str]:
        """Inspect messages as `Inspector` does; of a large text only the end is returned."""
        if size <= INLINE_BYTES:
            return self.inspector.inspect_together(documents, action, output_schema_checks, before)
        task = {"documents": list(documents), "action": action, "before": before}
        answer = orjson.loads(await self._in_turn(orjson.dumps(task), source))
        done = [
            Inspected(document if masked is None else masked, findings, treated)
            for document, (masked, findings, treated) in zip(documents, answer["done"], strict=True)
        ]
        return conforming(documents, done, output_schema_checks), answer["text"]

    async def close(self) -> None:
        if self._process is not None:
            self._end(self._process)
        if self._ending:
            await asyncio.wait(self._ending)

    def _end(self, process: Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        self._process = None
        task = asyncio.create_task(process.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _in_turn(self, frame: bytes, source: str) -> bytes:
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(self._queue_seconds):
                    await turn.enter_async_context(self._turns[source])
                    await turn.enter_async_context(self._free)
            except TimeoutError:
                raise Refusal("inspection_busy") from None
            return await self._search(frame)

    async def _search(self, frame: bytes) -> bytes:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._start()
        process = self._process
        try:
            async with asyncio.timeout(self._search_seconds):
                await _send(process, frame)
                return await _receive(process)
        except BaseException as error:
            # On cancellation too: the next message would get this one's answer.
            self._end(process)
            raise _refusal(error, Refusal("inspection_timeout")) from None

    async def _start(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-s", "-P", "-m", "ringfence.gateway.inspection.search_process"),
            stdin=PIPE,
            stdout=PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await _send(process, orjson.dumps(self._settings))
                await _receive(process)
        except BaseException as error:
            self._end(process)
            raise _refusal(error, Refusal("inspection_failed")) from None
        return process


def _refusal(error: BaseException, late: Refusal) -> BaseException:
    if isinstance(error, TimeoutError):
        return late
    return (
        Refusal("inspection_failed")
        if isinstance(error, OSError | asyncio.IncompleteReadError)
        else error
    )


async def _send(process: Process, frame: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(len(frame).to_bytes(LENGTH_BYTES, "big"))
    process.stdin.write(frame)
    await process.stdin.drain()


async def _receive(process: Process) -> bytes:
    assert process.stdout is not None
    length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
    return await process.stdout.readexactly(length)

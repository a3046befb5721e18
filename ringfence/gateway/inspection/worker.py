"""Large messages are searched in a process beside the gateway's, so that no other call waits.

What a hostile server or caller sends can take seconds a mebibyte to search. What is small is
searched at once; everything else goes to the searcher, a child process that is killed when it
takes too long, and the message is then refused. It reads frames from its standard input and
answers on its standard output; the masking key is in the first one, and so in no argument and no
environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ringfence.gateway.inspection.inspector import (
    INLINE_BYTES,
    TAIL,
    Action,
    Inspected,
    Inspector,
    conforming,
)
from ringfence.gateway.refusals import Refusal

SEARCH_SECONDS = 5.0
"""Some ten times what 8 MiB of ordinary JSON take on a busy core."""
QUEUE_SECONDS = 10.0
START_SECONDS = 10.0
"""For the patterns to be loaded; no part of a search."""

_LENGTH_BYTES = 8
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG")


class Isolation:
    """An inspector, and its searcher from the first large message until `close`."""

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
        self._searcher: Process | None = None
        self._ending: set[asyncio.Task[int]] = set()
        self._free = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By who keeps the searcher busy: nobody waits behind several messages of one of them."""

    async def inspect_result(
        self,
        document: dict[str, Any],
        data_class: str,
        output_schema_check: Callable[[Any], bool] | None,
        *,
        size: int,
        of: str,
    ) -> Inspected:
        """As the inspector's. `size`: bytes on the wire. `of`: whose message it is.

        Raises `Refusal` where it could not be searched in time.
        """
        action = self.inspector.action(data_class)
        checks = [output_schema_check]
        done, _ = await self.inspect_together([document], action, checks, "", size=size, of=of)
        return done[0]

    async def inspect_arguments(
        self, params: Mapping[str, Any], data_class: str, *, size: int, of: str
    ) -> Inspected:
        """As the inspector's. Raises `Refusal` where it could not be searched in time."""
        if size <= INLINE_BYTES:
            return self.inspector.inspect_arguments(params, data_class)
        action = self.inspector.argument_action(data_class)
        wrapped = [{"params": dict(params)}]
        done, _ = await self.inspect_together(wrapped, action, [None], "", size=size, of=of)
        return self.inspector.as_arguments(done[0])

    async def inspect_together(
        self,
        documents: Sequence[dict[str, Any]],
        action: Action,
        output_schema_checks: Sequence[Callable[[Any], bool] | None],
        before: str,
        *,
        size: int,
        of: str,
    ) -> tuple[list[Inspected], str]:
        """As the inspector's, of whose text only the end is told where it is large."""
        if size <= INLINE_BYTES:
            return self.inspector.inspect_together(documents, action, output_schema_checks, before)
        asked = {"documents": list(documents), "action": action, "before": before}
        answer = orjson.loads(await self._in_turn(orjson.dumps(asked), of))
        done = [
            Inspected(document if masked is None else masked, findings, treated)
            for document, (masked, findings, treated) in zip(documents, answer["done"], strict=True)
        ]
        return conforming(documents, done, output_schema_checks), answer["text"]

    async def close(self) -> None:
        if self._searcher is not None:
            self._dismiss(self._searcher)
        if self._ending:
            await asyncio.wait(self._ending)

    def _dismiss(self, searcher: Process) -> None:
        with suppress(ProcessLookupError):
            searcher.kill()
        self._searcher = None
        task = asyncio.create_task(searcher.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _in_turn(self, frame: bytes, of: str) -> bytes:
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(self._queue_seconds):
                    await turn.enter_async_context(self._turns[of])
                    await turn.enter_async_context(self._free)
            except TimeoutError:
                raise Refusal("inspection_busy") from None
            return await self._search(frame)

    async def _search(self, frame: bytes) -> bytes:
        if self._searcher is None or self._searcher.returncode is not None:
            self._searcher = await self._begin()
        searcher = self._searcher
        try:
            async with asyncio.timeout(self._search_seconds):
                await _send(searcher, frame)
                return await _received(searcher)
        except BaseException as error:
            # Also of who has gone: the answer would be taken for the next one's.
            self._dismiss(searcher)
            raise _told(error, Refusal("inspection_timeout")) from None

    async def _begin(self) -> Process:
        searcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-s", "-P", "-m", "ringfence.gateway.inspection.worker"),
            stdin=PIPE,
            stdout=PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await _send(searcher, orjson.dumps(self._settings))
                await _received(searcher)
        except BaseException as error:
            self._dismiss(searcher)
            raise _told(error, Refusal("inspection_failed")) from None
        return searcher


def _told(error: BaseException, late: Refusal) -> BaseException:
    if isinstance(error, TimeoutError):
        return late
    return (
        Refusal("inspection_failed")
        if isinstance(error, OSError | asyncio.IncompleteReadError)
        else error
    )


async def _send(searcher: Process, frame: bytes) -> None:
    assert searcher.stdin is not None
    searcher.stdin.write(len(frame).to_bytes(_LENGTH_BYTES, "big"))
    searcher.stdin.write(frame)
    await searcher.stdin.drain()


async def _received(searcher: Process) -> bytes:
    assert searcher.stdout is not None
    length = int.from_bytes(await searcher.stdout.readexactly(_LENGTH_BYTES), "big")
    return await searcher.stdout.readexactly(length)


# --- the searcher --------------------------------------------------------------------------------


def main() -> None:
    # It ends with the gateway, which may have to finish something when it is told to end.
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, signal.SIG_IGN)
    # Where memory runs out, this is what can be done without.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    settings = orjson.loads(_read(sys.stdin.buffer) or b"null")
    if settings is None:
        return
    inspector = Inspector(settings["classes"], settings["mask"], bytes.fromhex(settings["key"]))
    _write(sys.stdout.buffer, b"")
    while (frame := _read(sys.stdin.buffer)) is not None:
        asked = orjson.loads(frame)
        documents = asked["documents"]
        done, text = inspector.search(documents, asked["action"], asked["before"])
        changed = [
            None if inspected.document is document else inspected.document
            for document, inspected in zip(documents, done, strict=True)
        ]
        told = [
            (document, inspected.findings, inspected.action)
            for document, inspected in zip(changed, done, strict=True)
        ]
        _write(sys.stdout.buffer, orjson.dumps({"done": told, "text": text[-TAIL:]}))


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "big")
    frame = source.read(length)
    return frame if len(frame) == length else None


def _write(sink: BinaryIO, frame: bytes) -> None:
    sink.write(len(frame).to_bytes(_LENGTH_BYTES, "big"))
    sink.write(frame)
    sink.flush()


if __name__ == "__main__":
    main()

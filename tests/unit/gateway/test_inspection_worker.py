"""The inspection worker finds what the gateway finds, within bounds, and no call waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.gateway.inspection.inspector import INLINE_BYTES, Action, Inspected, Inspector
from ringfence.gateway.inspection.worker import InspectionWorker
from ringfence.gateway.refusals import Refusal

KEY = bytes(range(1, 33))
CLASSES: dict[str, Action] = {"public": "flag", "internal": "redact", "restricted": "block"}
LARGE = INLINE_BYTES + 1
HOSTILE = "jane.doe@example.org " * 200_000
"""Text that takes seconds to search, on any machine."""


def result(text: str, structured: Any = None) -> dict[str, Any]:
    body: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if structured is not None:
        body["structuredContent"] = structured
    return {"jsonrpc": "2.0", "id": 7, "result": body}


def run(work: Callable[[InspectionWorker], Awaitable[None]], **options: Any) -> None:
    async def within() -> None:
        worker = InspectionWorker(CLASSES, True, KEY, **options)
        try:
            async with asyncio.timeout(60):
                await work(worker)
        finally:
            await worker.close()

    asyncio.run(within())


async def inspect(
    worker: InspectionWorker, text: str, data_class: str = "internal", source: str = "server a"
) -> Inspected:
    document = result(text)
    return await worker.inspect_result(document, data_class, None, size=LARGE, source=source)


def pid(worker: InspectionWorker) -> int:
    assert worker._process is not None
    return worker._process.pid


@pytest.mark.parametrize("data_class", CLASSES)
def test_what_is_found_and_done_is_the_same(data_class: str):
    async def work(worker: InspectionWorker) -> None:
        here = Inspector(CLASSES, True, KEY)
        for text in ("jane.doe@example.org", "nothing at all", "ü 4111 1111 1111 1111"):
            there = await inspect(worker, text, data_class)
            assert there == here.inspect_result(result(text), data_class)
        assert pid(worker), "the worker has no process"

    run(work)


def test_a_small_message_starts_nothing():
    async def work(worker: InspectionWorker) -> None:
        small = result("jane.doe@example.org")
        inspected = await worker.inspect_result(small, "internal", None, size=200, source="a")
        assert inspected.action == "redact"
        assert worker._process is None

    run(work)


def test_arguments_are_treated_by_their_own_action():
    async def work(worker: InspectionWorker) -> None:
        params = {"name": "send", "arguments": {"to": "jane.doe@example.org"}}
        inspected = await worker.inspect_arguments(params, "internal", size=LARGE, source="carol")
        assert inspected == Inspected(params, {"email": 1}, "flag")
        other = await worker.inspect_arguments(params, "unknown", size=LARGE, source="carol")
        assert other.action == "block"

    run(work)


def test_a_masked_result_outside_its_schema_is_withheld():
    async def work(worker: InspectionWorker) -> None:
        document = result("-", {"mail": "jane.doe@example.org"})
        inspected = await worker.inspect_result(
            document, "internal", lambda _: False, size=LARGE, source="a"
        )
        assert inspected.action == "block"
        assert inspected.findings == {"email": 1, "output_schema": 1}

    run(work)


def test_the_key_is_where_nobody_looks():
    async def work(worker: InspectionWorker) -> None:
        await inspect(worker, "x")
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{pid(worker)}/{name}").read_bytes()
            assert content
            assert KEY not in content
            assert KEY.hex().encode() not in content

    run(work)


def test_others_go_on_meanwhile():
    async def work(worker: InspectionWorker) -> None:
        slow = asyncio.create_task(inspect(worker, HOSTILE))
        await asyncio.sleep(0)
        small = result("jane.doe@example.org")
        for _ in range(100):
            await worker.inspect_result(small, "internal", None, size=200, source="b")
            await asyncio.sleep(0.001)
        assert not slow.done(), "small messages waited for the slow one"
        slow.cancel()
        await asyncio.wait([slow])

    run(work)


def test_what_takes_too_long_is_refused_and_the_next_one_is_not():
    async def work(worker: InspectionWorker) -> None:
        await inspect(worker, "x")
        before = pid(worker)
        with pytest.raises(Refusal) as caught:
            await inspect(worker, HOSTILE)
        assert (caught.value.status, caught.value.reason) == (403, "inspection_timeout")
        assert (await inspect(worker, "jane.doe@example.org")).action == "redact"
        assert pid(worker) != before
        assert not Path(f"/proc/{before}").exists(), "it is still searching"

    run(work, search_seconds=0.3)


def test_a_process_that_dies_lets_nothing_through():
    async def work(worker: InspectionWorker) -> None:
        await inspect(worker, "x")
        slow = asyncio.create_task(inspect(worker, HOSTILE))
        await asyncio.sleep(0.05)
        os.kill(pid(worker), signal.SIGKILL)
        with pytest.raises(Refusal) as caught:
            await slow
        assert (caught.value.status, caught.value.reason) == (403, "inspection_failed")
        assert (await inspect(worker, "jane.doe@example.org")).action == "redact"

    run(work)


def test_a_cancelled_message_takes_no_answer_of_another():
    async def work(worker: InspectionWorker) -> None:
        await inspect(worker, "x")
        gone = asyncio.create_task(inspect(worker, "4111 1111 1111 1111 " * 10_000))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait([gone])
        inspected = await inspect(worker, "jane.doe@example.org")
        assert inspected.findings == {"email": 1}

    run(work)


def test_one_that_sends_much_is_waited_for_once():
    """Behind several slow messages of one server, another server's message waits for only one of
    them."""

    async def work(worker: InspectionWorker) -> None:
        await inspect(worker, "x")
        ended: list[str] = []

        async def noted(name: str, text: str, source: str) -> None:
            try:
                await inspect(worker, text, source=source)
            except Refusal as refusal:
                name = f"{name} {refusal.reason}"
            ended.append(name)

        tasks = [asyncio.create_task(noted(f"slow-{n}", HOSTILE, "hostile")) for n in range(3)]
        await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(noted("other", "x", "other")))
        await asyncio.wait(tasks)
        late = "inspection_timeout"
        assert ended == [f"slow-0 {late}", "other", f"slow-1 {late}", f"slow-2 {late}"]

    run(work, search_seconds=0.4)


def test_a_queue_that_does_not_move_is_left():
    async def work(worker: InspectionWorker) -> None:
        await inspect(worker, "x")
        slow = asyncio.create_task(inspect(worker, HOSTILE))
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as caught:
            await inspect(worker, "x", source="other")
        assert (caught.value.status, caught.value.reason) == (503, "inspection_busy")
        assert not slow.done()
        slow.cancel()
        await asyncio.wait([slow])

    run(work, queue_seconds=0.1)

"""Rates, calls in flight and circuits: what they admit, what they refuse, and their cost."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.gateway.calls.limits import (
    BURST_SECONDS,
    Attempt,
    CallLimits,
    Circuit,
    Rate,
    ServerLimits,
    Slots,
    TokenBuckets,
)
from ringfence.gateway.refusals import Refusal


def admitted(
    limits: CallLimits, principal: str, server: str, tool: str | None, *, now: float
) -> bool:
    try:
        limits.admit(principal, server, tool, now)
    except Refusal:
        return False
    return True


def retry_after(call: Callable[..., object], *arguments: Any) -> tuple[int, str, int]:
    """Return status, reason and seconds of a refusal."""
    with pytest.raises(Refusal) as refused:
        call(*arguments)
    ((name, value),) = refused.value.headers
    assert name == "Retry-After"
    return refused.value.status, refused.value.reason, int(value)


@dataclass
class Bucket:
    """Token bucket as textbooks describe it: tokens return over time."""

    rate: Rate
    tokens: float
    at: float = 0.0

    def take(self, now: float) -> bool:
        most = self.rate.burst / self.rate.interval
        self.tokens = min(most, self.tokens + (now - self.at) / self.rate.interval)
        self.at = now
        if self.tokens < 1 - 1e-6:
            return False
        self.tokens -= 1
        return True


class TestRates:
    @given(
        st.integers(1, 2000),
        st.lists(st.integers(0, 200).map(lambda n: n / 8), max_size=60),
    )
    def test_a_bucket_gives_what_a_bucket_of_tokens_gives(self, per_minute, pauses):
        rate = Rate(per_minute)
        bucket, buckets, now = Bucket(rate, rate.burst / rate.interval), TokenBuckets(), 0.0
        for pause in pauses:
            now += pause
            tokens = bucket.tokens + pause / rate.interval
            if abs(tokens - 1) < 1e-3:
                return  # the result depends on rounding
            assert (buckets.take({"k": rate}, now) == 0) is bucket.take(now)

    @settings(max_examples=50)
    @given(st.integers(1, 600), st.lists(st.floats(0, 3), min_size=50, max_size=300))
    def test_in_no_minute_are_there_more_than_stated_and_a_burst(self, per_minute, pauses):
        buckets, now, taken = TokenBuckets(), 0.0, list[float]()
        for pause in pauses:
            now += pause
            if buckets.take({"k": Rate(per_minute)}, now) == 0:
                taken.append(now)
        most = per_minute + max(1, per_minute * BURST_SECONDS / 60)
        for begin in taken:
            assert sum(begin <= at < begin + 60 for at in taken) <= most + 1

    @given(st.integers(1, 6000), st.integers(0, 400))
    def test_after_the_wait_that_was_told_there_is_a_token(self, per_minute, calls):
        buckets, rate = TokenBuckets(), Rate(per_minute)
        for _ in range(calls):
            buckets.take({"k": rate}, 5.0)
        wait = buckets.take({"k": rate}, 5.0)
        if wait:
            assert buckets.take({"k": rate}, 5.0 + wait * 0.99) > 0
            assert buckets.take({"k": rate}, 5.0 + wait) == 0

    def test_a_call_that_one_bucket_refuses_costs_the_others_nothing(self):
        buckets, small, large = TokenBuckets(), Rate(6), Rate(600)
        assert buckets.take({"small": small, "large": large}, 0.0) == 0
        for _ in range(1000):
            assert buckets.take({"small": small, "large": large}, 0.0) > 0
        assert sum(buckets.take({"large": large}, 0.0) == 0 for _ in range(200)) == 99


@pytest.fixture
def limits() -> CallLimits:
    return CallLimits(
        {
            "git": ServerLimits(calls_per_minute=60, concurrency=2, tools={"push": 6}),
            "time": ServerLimits(calls_per_minute=600, concurrency=2),
        },
        principal_calls_per_minute=120,
    )


class TestLimits:
    def test_a_principal_has_a_rate_over_all_servers(self, limits):
        assert sum(admitted(limits, "carol", "time", "now", now=0.0) for _ in range(100)) == 20
        assert not admitted(limits, "carol", "git", "log", now=0.0)
        assert admitted(limits, "dana", "git", "log", now=0.0)

    def test_a_principal_has_a_rate_for_each_server(self, limits):
        assert sum(admitted(limits, "carol", "git", "log", now=0.0) for _ in range(100)) == 10
        assert admitted(limits, "carol", "time", "now", now=0.0)

    def test_a_tool_can_have_a_rate_of_its_own(self, limits):
        assert sum(admitted(limits, "carol", "git", "push", now=0.0) for _ in range(9)) == 1
        assert admitted(limits, "carol", "git", "log", now=0.0)
        assert admitted(limits, "dana", "git", "push", now=0.0)
        assert admitted(limits, "carol", "git", "push", now=10.0)

    def test_what_names_no_tool_counts_too(self, limits):
        assert sum(admitted(limits, "carol", "git", None, now=0.0) for _ in range(100)) == 10

    def test_the_refusal_says_when_to_come_back(self, limits):
        limits.admit("carol", "git", "push", 0.0)
        assert retry_after(limits.admit, "carol", "git", "push", 2.5) == (
            429,
            "rate_limited",
            8,
        )


class TestMemory:
    def test_full_buckets_are_dropped(self):
        buckets = TokenBuckets()
        for number in range(5000):
            buckets.take({number: Rate(600)}, number / 1000)
        assert len(buckets) < 200
        for _ in range(200):
            buckets.take({"k": Rate(600)}, 100.0)
        assert len(buckets) == 1

    def test_one_that_is_always_in_use_does_not_keep_the_others(self):
        buckets = TokenBuckets()
        for number in range(5000):
            assert buckets.take({"busy": Rate(5900), number: Rate(600)}, number / 100) == 0
        assert len(buckets) < 200

    def test_many_names_share_one_bucket_and_harm_nobody_who_was_there(self):
        buckets, rate = TokenBuckets(most=100), Rate(60)
        assert buckets.take({"carol": rate}, 0.0) == 0
        given = sum(buckets.take({f"x{n}": rate}, 0.0) == 0 for n in range(10_000))
        assert given == 99 + 10
        assert len(buckets) == 101
        assert sum(buckets.take({"carol": rate}, 0.0) == 0 for _ in range(20)) == 9

    def test_at_its_bound_it_takes_some_megabytes(self):
        limits = CallLimits({"s": ServerLimits(600, 1)}, principal_calls_per_minute=600)
        tracemalloc.start()
        try:
            for number in range(100_000):
                admitted(limits, f"principal-{number}", "s", "t", now=0.0)
            assert tracemalloc.get_traced_memory()[0] < 24 * 1024 * 1024
        finally:
            tracemalloc.stop()


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 10))


class TestSlots:
    def test_so_many_are_in_flight_and_no_more(self):
        async def scenario() -> None:
            slots, seen, done = Slots(3, wait_seconds=5), [], 0

            async def call() -> None:
                nonlocal done
                async with slots.hold():
                    seen.append(slots.in_flight)
                    await asyncio.sleep(0.01)
                done += 1

            await asyncio.gather(*(call() for _ in range(6)))
            assert max(seen) == 3
            assert (done, slots.in_flight) == (6, 0)

        run(scenario())

    def test_a_wait_is_bounded_in_time_and_the_slot_comes_back(self):
        async def scenario() -> None:
            slots = Slots(1, wait_seconds=0.02)
            async with slots.hold():
                with pytest.raises(Refusal) as refused:
                    async with slots.hold():
                        pytest.fail("a second call is in flight")
                assert (refused.value.status, refused.value.reason) == (503, "server_busy")
                assert refused.value.headers == (("Retry-After", "1"),)
            async with slots.hold():
                assert slots.in_flight == 1

        run(scenario())

    def test_a_queue_is_bounded_in_length(self):
        async def scenario() -> None:
            slots = Slots(2, wait_seconds=5)
            hold = asyncio.Event()

            async def call() -> None:
                async with slots.hold():
                    await hold.wait()

            calls = [asyncio.create_task(call()) for _ in range(4)]
            await asyncio.sleep(0)
            with pytest.raises(Refusal, match="server_busy"):
                await slots._acquire()
            hold.set()
            await asyncio.gather(*calls)

        run(scenario())

    def test_those_who_waited_in_vain_are_not_counted_as_waiting(self):
        async def scenario() -> None:
            slots = Slots(1, wait_seconds=0.01)
            async with slots.hold():
                for _ in range(3):
                    with pytest.raises(Refusal):
                        await slots._acquire()
                began = asyncio.get_running_loop().time()
                with pytest.raises(Refusal):
                    await slots._acquire()
                assert asyncio.get_running_loop().time() - began > 0.005

        run(scenario())

    @pytest.mark.parametrize("turns", range(4))
    def test_one_that_goes_away_while_it_waits_takes_nothing_along(self, turns):
        async def scenario() -> None:
            slots = Slots(1, wait_seconds=5)

            async def call() -> None:
                async with slots.hold():
                    await asyncio.sleep(0)

            async with slots.hold():
                waiting = asyncio.create_task(call())
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert slots.in_flight == 0
            async with slots.hold():
                pass

        run(scenario())

    def test_a_block_that_fails_gives_its_slot_back(self):
        async def scenario() -> None:
            slots = Slots(1, wait_seconds=0.02)
            for _ in range(3):
                with pytest.raises(ValueError, match="upstream"):
                    async with slots.hold():
                        raise ValueError("upstream")

        run(scenario())


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(circuit.failures):
        circuit.failed(circuit.enter(now), now)
    return circuit


class TestCircuit:
    def test_it_opens_after_failures_in_a_row_only(self):
        circuit = Circuit(failures=3)
        for _ in range(10):
            for _ in range(2):
                circuit.failed(circuit.enter(0.0), 0.0)
            circuit.succeeded(circuit.enter(0.0))
        assert circuit.state(0.0) == "closed"
        for _ in range(3):
            circuit.failed(circuit.enter(0.0), 0.0)
        assert circuit.state(0.0) == "open"

    def test_open_it_lets_nothing_through_and_says_how_long(self):
        circuit = opened()
        assert retry_after(circuit.enter, 1.5) == (503, "circuit_open", 4)

    def test_cooled_it_lets_one_through(self):
        circuit = opened()
        assert circuit.state(5.0) == "half_open"
        circuit.enter(5.0)
        for _ in range(3):
            assert retry_after(circuit.enter, 5.0) == (503, "circuit_open", 1)

    def test_a_trial_that_succeeds_closes_it(self):
        circuit = opened()
        circuit.succeeded(circuit.enter(5.0))
        assert circuit.state(5.0) == "closed"
        for _ in range(circuit.failures - 1):
            circuit.failed(circuit.enter(5.0), 5.0)
        assert circuit.state(5.0) == "closed"

    def test_a_trial_that_fails_leaves_it_open_for_twice_as_long_up_to_a_minute(self):
        circuit, now, waits = opened(), 0.0, []
        for _ in range(6):
            _, _, wait = retry_after(circuit.enter, now)
            waits.append(wait)
            now += wait
            circuit.failed(circuit.enter(now), now)
        assert waits == [5, 10, 20, 40, 60, 60]

    def test_after_it_was_closed_it_cools_quickly_again(self):
        circuit = opened()
        circuit.failed(circuit.enter(5.0), 5.0)
        circuit.succeeded(circuit.enter(15.0))
        for _ in range(circuit.failures):
            circuit.failed(circuit.enter(20.0), 20.0)
        assert retry_after(circuit.enter, 20.0)[2] == 5

    def test_calls_from_before_it_opened_do_not_count_for_the_trial(self):
        circuit = Circuit()
        late = [circuit.enter(0.0) for _ in range(circuit.failures + 2)]
        for attempt in late[: circuit.failures]:
            circuit.failed(attempt, 0.0)
        circuit.succeeded(late[-1])
        assert circuit.state(1.0) == "open"
        trial = circuit.enter(5.0)
        circuit.failed(late[-2], 5.0)
        circuit.succeeded(late[-1])
        assert circuit.state(5.0) == "half_open"
        circuit.succeeded(trial)
        assert circuit.state(5.0) == "closed"

    def test_a_late_one_whose_caller_goes_away_ends_no_trial(self):
        circuit = Circuit()
        late = circuit.enter(0.0)
        for _ in range(circuit.failures):
            circuit.failed(circuit.enter(0.0), 0.0)
        circuit.enter(5.0)
        circuit.abandoned(late, 5.0)
        assert retry_after(circuit.enter, 5.0)[1] == "circuit_open"

    def test_a_trial_whose_caller_goes_away_is_followed_by_another(self):
        circuit = opened()
        circuit.abandoned(circuit.enter(5.0), 5.1)
        circuit.succeeded(circuit.enter(5.1))
        assert circuit.state(5.1) == "closed"

    def test_a_trial_that_never_ends_is_given_up(self):
        circuit = opened()
        circuit.enter(5.0)
        assert retry_after(circuit.enter, 64.9)[1] == "circuit_open"
        circuit.enter(65.0)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["enter", "succeeded", "failed", "abandoned"]),
                st.integers(0, 20),
                st.integers(0, 30),
            ),
            max_size=80,
        )
    )
    def test_it_never_stays_shut_and_never_has_two_trials(self, events):
        circuit, now, attempts = opened(), 0.0, list[Attempt]()
        trial: tuple[Attempt, float] | None = None
        for event, which, pause in events:
            now += pause / 4
            if event == "enter":
                before = circuit.state(now)
                try:
                    attempt = circuit.enter(now)
                except Refusal:
                    assert before != "closed"
                    continue
                attempts.append(attempt)
                if before == "half_open":
                    assert trial is None or now - trial[1] >= circuit.longest_cooling
                    trial = attempt, now
            elif attempts:
                attempt = attempts[which % len(attempts)]
                if event == "succeeded":
                    circuit.succeeded(attempt)
                else:
                    getattr(circuit, event)(attempt, now)
                if trial and attempt is trial[0]:
                    trial = None
        circuit.enter(now + circuit.longest_cooling)

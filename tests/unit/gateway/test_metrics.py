import re

import pytest

from ringfence.gateway.calls.metrics import WORDS, Metrics


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.serve(["time", "git"])
    return metrics


def sample(metrics: Metrics, name: str) -> str | None:
    """Return the exposed value of a sample."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics.exposition().decode(), re.MULTILINE)
    return found[1] if found else None


def series(metrics: Metrics) -> int:
    return metrics.exposition().count(b"\n")


def test_decisions_are_counted_by_server_method_and_outcome(metrics: Metrics):
    for _ in range(3):
        metrics.decided("time", "tools/call", "allowed", "allowed", 0.003, 0.0006)
    metrics.decided("time", "tools/call", "denied", "no_policy", 0.001)
    count = "ringfence_gateway_decisions_total"
    labels = 'method="tools/call",outcome="{}",server="time"'
    for outcome, number in (("allowed", "3.0"), ("denied", "1.0")):
        assert sample(metrics, f"{count}{{{labels.format(outcome)}}}") == number
    refusals = "ringfence_gateway_refusals_total"
    assert sample(metrics, f'{refusals}{{reason="no_policy",server="time"}}') == "1.0"
    seconds = "ringfence_gateway_request_seconds_bucket"
    assert sample(metrics, f'{seconds}{{le="0.004",outcome="allowed",server="time"}}') == "3.0"
    assert sample(metrics, f'{seconds}{{le="0.002",outcome="allowed",server="time"}}') == "0.0"
    assert sample(metrics, "ringfence_gateway_own_seconds_count") == "3.0"


def test_callers_cannot_make_series(metrics: Metrics):
    """Each series uses memory for ever: a label that callers choose is a leak that they control."""
    metrics.decided("none", "none", "denied", "no_policy", 0.001)
    before = series(metrics)
    for n in range(1000):
        metrics.decided(f"server-{n}", f"method/{n}", "denied", "no_policy", 0.001)
    assert series(metrics) == before
    assert len(metrics._children) == 0


def test_words_are_bounded_even_if_our_own_code_makes_them_up(metrics: Metrics):
    for n in range(WORDS * 2):
        metrics.decided("time", "tools/call", "denied", f"reason_{n}", 0.001)
        metrics.found("time", {f"type_{n}": 1})
    for name in ("refusals", "findings"):
        total = metrics.exposition().count(f"ringfence_gateway_{name}_total{{".encode())
        assert total == WORDS + 1


def test_states_of_upstream_exclude_each_other(metrics: Metrics):
    metrics.upstream("time", "open")
    values = {
        state: sample(metrics, f'ringfence_gateway_upstream{{server="time",state="{state}"}}')
        for state in ("closed", "open", "half_open")
    }
    assert values == {"closed": "0.0", "open": "1.0", "half_open": "0.0"}


def test_a_reason_that_ceased_is_zero_again(metrics: Metrics):
    name = 'ringfence_gateway_tools_withheld{reason="changed",server="git"}'
    metrics.withheld("git", {"changed": 2})
    assert sample(metrics, name) == "2.0"
    metrics.withheld("git", {})
    assert sample(metrics, name) == "0.0"


def test_a_server_that_is_gone_has_no_state_any_more(metrics: Metrics):
    metrics.decided("git", "tools/call", "allowed", "allowed", 0.001)
    metrics.serve(["time"])
    text = metrics.exposition().decode()
    assert 'upstream{server="git"' not in text
    assert 'tools_withheld{reason="new",server="git"' not in text
    assert 'decisions_total{method="tools/call",outcome="allowed",server="git"} 1.0' in text
    metrics.decided("git", "tools/call", "allowed", "allowed", 0.001)
    assert 'outcome="allowed",server="other"} 1.0' in metrics.exposition().decode()


def test_what_happened_to_the_gateway_itself_is_counted(metrics: Metrics):
    metrics.reloaded(accepted=True)
    metrics.reloaded(accepted=False)
    metrics.audit_failed()
    metrics.journal_lost(5)
    metrics.in_flight(2)
    for name, value in {
        'reloads_total{result="accepted"}': "1.0",
        'reloads_total{result="refused"}': "1.0",
        "audit_failures_total": "1.0",
        "journal_lost": "5.0",
        "in_flight": "2.0",
    }.items():
        assert sample(metrics, f"ringfence_gateway_{name}") == value
    assert b"process_resident_memory_bytes" in metrics.exposition()

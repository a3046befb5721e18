"""Evaluation of event patterns, compared with AWS's documentation and with moto's evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from moto.events.models import EventPattern

from ringfence.cloud.containment import RELEASE, triggers
from ringfence.verify.account.event_patterns import EventPatternError, matches
from ringfence.verify.account.sample_events import SampleEvents

SENDER = SampleEvents("111122223333", "eu-central-1")
INSTANCE = "i-0123456789abcdef0"
CASES: tuple[tuple[dict[str, Any], dict[str, Any], bool], ...] = (
    ({"a": ["x"]}, {"a": "x"}, True),
    ({"a": ["x"]}, {"a": "xy"}, False),
    ({"a": ["x", "y"]}, {"a": "y"}, True),
    ({"a": ["x"], "b": ["y"]}, {"a": "x"}, False),
    ({"a": ["x"]}, {"a": ["z", "x"]}, True),
    ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
    ({"a": {"b": ["x"]}}, {"a": "x"}, False),
    ({"a": [None]}, {"a": None}, True),
    ({"a": [None]}, {}, False),
    ({"a": [{"prefix": "x/"}]}, {"a": "x/y"}, True),
    ({"a": [{"prefix": "x/"}]}, {"a": "xy"}, False),
    ({"a": [{"suffix": ".y"}]}, {"a": "x.y"}, True),
    ({"a": [{"exists": True}]}, {"a": ""}, True),
    ({"a": [{"exists": True}]}, {}, False),
    ({"a": [{"exists": False}]}, {}, True),
    ({"a": [{"anything-but": ["x"]}]}, {"a": "y"}, True),
    ({"a": [{"anything-but": ["x"]}]}, {"a": "x"}, False),
    ({"a": [{"anything-but": ["x"]}]}, {}, False),
    ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
    ({"a": [{"numeric": [">=", 7]}]}, {"a": 7}, True),
    ({"a": [{"numeric": [">=", 7]}]}, {"a": 6.9}, False),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
    ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
    ({"a": [{"numeric": [">=", 7]}]}, {"a": "8"}, False),
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, True),
    ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "x"}, False),
)


@pytest.mark.parametrize(("pattern", "event", "expected"), CASES)
def test_a_pattern_is_evaluated(
    pattern: dict[str, Any], event: dict[str, Any], expected: bool
) -> None:
    assert matches(pattern, event) is expected
    assert EventPattern(json.dumps(pattern), pattern).matches_event(event) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"a": [{"b": "x", "c": "y"}, {"b": "z"}]}, True),
        ({"a": [{"b": "x"}, {"c": "y"}]}, False),
        ({"a": []}, False),
    ],
)
def test_one_object_of_an_array_matches_alone(event: dict[str, Any], expected: bool) -> None:
    """moto does not look into arrays of objects; EventBridge does."""
    assert matches({"a": {"b": ["x"], "c": ["y"]}}, event) is expected


@pytest.mark.parametrize("pattern", [{"a": [{"wildcard": "x*"}]}, {"a": "x"}, {"a": []}])
def test_what_is_not_known_is_an_error(pattern: dict[str, Any]) -> None:
    with pytest.raises(EventPatternError):
        matches(pattern, {"a": "x"})


def started(event: Any, detector: str | None = None) -> list[str]:
    return [
        t.key
        for t in triggers(account=SENDER.account, severity=7, detector=detector)
        if matches(t.pattern, event)
    ]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (SENDER.guardduty(INSTANCE, severity=7), ["guardduty"]),
        (SENDER.guardduty(INSTANCE, severity=9.1), ["guardduty"]),
        (SENDER.guardduty(INSTANCE, severity=6.9), []),
        (SENDER.security_hub(INSTANCE), ["hub"]),
        (SENDER.security_hub(INSTANCE, kind="Effects/Data Exfiltration"), ["hub"]),
        (SENDER.security_hub(INSTANCE, label="MEDIUM"), []),
        (SENDER.security_hub(INSTANCE, status="SUPPRESSED"), []),
        (SENDER.security_hub(INSTANCE, product="GuardDuty"), []),
        (SENDER.security_hub(INSTANCE, kind="Software and Configuration Checks/CVE"), []),
        (SENDER.request(INSTANCE), ["requests"]),
        (SENDER.request(INSTANCE, kind=RELEASE), ["requests"]),
        (SENDER.request(INSTANCE, kind="Ringfence Something Else"), []),
        (SampleEvents("999999999999", "eu-central-1").request(INSTANCE), []),
    ],
)
def test_an_event_starts_its_rule_only(event: Any, expected: list[str]) -> None:
    assert started(event) == expected


def test_a_finding_that_concerns_no_instance_starts_nothing() -> None:
    event = json.loads(json.dumps(SENDER.guardduty(INSTANCE)))
    event["detail"]["resource"] = {"resourceType": "S3Bucket", "s3BucketDetails": [{"name": "x"}]}
    assert started(event) == []


def test_only_findings_of_the_named_detector_count() -> None:
    event = replace(SENDER, detector="ours").guardduty(INSTANCE)
    assert started(event, "ours") == ["guardduty"]
    assert started(event, "another") == []


def test_patterns_are_short_enough() -> None:
    """https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""
    assert (
        max(
            len(trigger.text)
            for trigger in triggers(account="111122223333", severity=7, detector="d" * 32)
        )
        <= 2048
    )


def test_names_of_rules_fit_the_longest_name_of_an_environment() -> None:
    """https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html"""
    for trigger in triggers(account="111122223333", severity=7):
        assert len(f"{'x' * 32}-containment-{trigger.key}-1234567") <= 64

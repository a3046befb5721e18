"""Decides what an event requests. Pure: takes an event, returns requests or raises a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Event = Mapping[str, Any]

FINDING, IMPORTED = "GuardDuty Finding", "Security Hub Findings - Imported"
CONTAIN, RELEASE = "Ringfence Containment Request", "Ringfence Release Request"

SERIOUS = ("HIGH", "CRITICAL")
THREATS = ("TTPs", "Effects", "Unusual Behaviors")
"""First part of the type of a finding that reports an attack. Others report weaknesses: a CVE or a
missing setting is no reason to contain a server.

https://docs.aws.amazon.com/securityhub/latest/userguide/asff-required-attributes.html
"""
INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")


@dataclass(frozen=True)
class ContainmentRequest:
    kind: Literal["contain", "release"]
    instance: str
    event: str
    """Id of the event, which also marks its snapshots."""
    reason: str
    by: str


class IgnoredError(Exception):
    """The event requests nothing; the message says why."""


def requests(event: Event, severity: float) -> tuple[ContainmentRequest, ...]:
    """Raise `IgnoredError` for an event that requests nothing."""
    kind = (str(event.get("source")), str(event.get("detail-type")))
    read = _READ.get(kind)
    if read is None:
        raise IgnoredError(f"no action is defined for {kind[1]} of {kind[0]}")
    return tuple(read(event, severity))


def _guardduty(event: Event, severity: float) -> Iterator[ContainmentRequest]:
    """https://docs.aws.amazon.com/guardduty/latest/APIReference/API_Finding.html"""
    finding = event["detail"]
    if finding["severity"] < severity:
        raise IgnoredError(f"severity {finding['severity']:g} is below {severity:g}")
    instance = finding.get("resource", {}).get("instanceDetails", {}).get("instanceId", "")
    reason = f"{finding['type']} ({finding['severity']:g})"
    yield ContainmentRequest("contain", _instance(instance), event["id"], reason, "GuardDuty")


def _security_hub(event: Event, _: float) -> Iterator[ContainmentRequest]:
    """https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-findings-format.html"""
    found = [
        ContainmentRequest(
            "contain", _instance(resource["Id"].rpartition("/")[2]), event["id"], *why
        )
        for finding in event["detail"]["findings"]
        if (why := _threat(finding))
        for resource in finding["Resources"]
        if resource["Type"] == "AwsEc2Instance"
    ]
    if not found:
        raise IgnoredError("no new finding reports an attack on an instance")
    yield from found


def _threat(finding: Event) -> tuple[str, str] | None:
    """Return the reason to contain and the product that reports it."""
    kinds = [kind for kind in finding.get("Types", []) if kind.split("/")[0] in THREATS]
    if (
        not kinds
        or finding.get("Severity", {}).get("Label") not in SERIOUS
        or finding.get("RecordState") != "ACTIVE"
        or finding.get("Workflow", {}).get("Status") != "NEW"
    ):
        return None
    return f"{kinds[0]} ({finding['Severity']['Label']})", finding.get(
        "ProductName", "Security Hub"
    )


def _own(event: Event, _: float) -> Iterator[ContainmentRequest]:
    detail = event["detail"]
    missing = [key for key in ("instance", "reason", "requested_by") if not detail.get(key)]
    if missing:
        raise IgnoredError(f"the request has no {', '.join(missing)}")
    kind = "contain" if event["detail-type"] == CONTAIN else "release"
    who = (str(detail["reason"]), str(detail["requested_by"]))
    yield ContainmentRequest(kind, _instance(str(detail["instance"])), event["id"], *who)


def _instance(text: str) -> str:
    if not INSTANCE.fullmatch(text):
        raise IgnoredError("the event names no instance")
    return text


_READ = {
    ("aws.guardduty", FINDING): _guardduty,
    ("aws.securityhub", IMPORTED): _security_hub,
    ("ringfence", CONTAIN): _own,
    ("ringfence", RELEASE): _own,
}

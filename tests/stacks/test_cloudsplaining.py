"""Findings of cloudsplaining in every policy that the stacks attach to an identity.

https://cloudsplaining.readthedocs.io: escalation of privileges, exfiltration of data, exposure of
credentials, changes of infrastructure or permissions on any resource.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytest
from cloudsplaining.scan.policy_document import PolicyDocument

from ringfence.rehearsal.record import Rehearsal, RehearsedResource


@dataclass(frozen=True)
class Accepted:
    """A finding that stays, and the reason why a reviewer accepts it."""

    policy: str
    """Logical name of its resource."""
    risk: str
    action: str
    why: str


ACCEPTED: tuple[Accepted, ...] = ()


@dataclass(frozen=True)
class Finding:
    policy: str
    risk: str
    action: str


def findings(policy: str, text: str) -> Iterator[Finding]:
    """Return the findings; cloudsplaining assumes that a condition always holds, and that a
    conditional denial never applies."""
    statements = json.loads(text)["Statement"]
    if isinstance(statements, Mapping):
        statements = [statements]
    allowed = [statement for statement in statements if statement["Effect"] == "Allow"]
    document = PolicyDocument({"Statement": allowed}, flag_conditional_statements=True)
    risks: Mapping[str, list[str]] = {
        "privilege escalation": [each["type"] for each in document.allows_privilege_escalation],
        "data exfiltration": document.allows_data_exfiltration_actions,
        "permissions management": document.permissions_management_without_constraints,
        "credentials exposure": document.credentials_exposure,
        "service wildcard": document.service_wildcard,
        "infrastructure modification": document.infrastructure_modification,
    }
    for risk, actions in risks.items():
        for action in actions:
            yield Finding(policy, risk, action)


def policies(resource: RehearsedResource) -> Iterator[str]:
    """Yield the policies of an identity; cloudsplaining does not assess trust policies."""
    if resource.type.startswith("aws:iam/"):
        if "policy" in resource.inputs:
            yield resource.inputs["policy"]
        for inline in resource.inputs.get("inlinePolicies", ()):
            yield inline["policy"]


def accepted(finding: Finding) -> Accepted | None:
    for each in ACCEPTED:
        if (each.risk, each.action) == (finding.risk, finding.action) and fnmatchcase(
            finding.policy, each.policy
        ):
            return each
    return None


def test_cloudsplaining_finds_nothing_but_what_is_accepted(
    account: Rehearsal, rehearsal: Rehearsal
) -> None:
    judged = [
        (resource.name, policy)
        for resource in (*account.resources, *rehearsal.resources)
        for policy in policies(resource)
    ]
    found = [finding for name, policy in judged for finding in findings(name, policy)]
    assert {name for name, _ in judged} >= {
        "account-sign-in-mfa",
        "account-trail",
        "payments-prod-flow-logs",
    }
    left = [f"{f.policy}: {f.risk} by {f.action}" for f in found if not accepted(f)]
    assert not left, "\n".join(["narrow the policy, or accept with a reason:", *left])
    # Remove a reason without a finding.
    assert {accepted(finding) for finding in found} == {*ACCEPTED}


@pytest.mark.parametrize(
    ("risk", "actions", "named"),
    [
        ("privilege escalation", ["iam:PassRole", "ec2:RunInstances"], "CreateEC2WithExistingIP"),
        ("data exfiltration", ["secretsmanager:GetSecretValue"], "secretsmanager:GetSecretValue"),
        ("permissions management", ["kms:PutKeyPolicy"], "kms:PutKeyPolicy"),
        ("credentials exposure", ["iam:CreateAccessKey"], "iam:CreateAccessKey"),
        ("service wildcard", ["logs:*"], "logs"),
        ("infrastructure modification", ["ec2:StopInstances"], "ec2:StopInstances"),
    ],
)
def test_cloudsplaining_finds_what_is_wrong(risk: str, actions: list[str], named: str) -> None:
    """Neither a condition nor a conditional denial hides the finding."""
    region = {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}}
    allowed: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    denied: dict[str, Any] = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": region}
    text = json.dumps({"Statement": [{**allowed, "Condition": region}, denied]})
    found = [*findings("bad", text)]
    assert Finding("bad", risk, named) in found
    assert not any(accepted(finding) for finding in found)


def test_cloudsplaining_finds_what_a_stack_widens(account: Rehearsal) -> None:
    """A mistake in the trail's role: the policy does not name the log group."""
    (role,) = [
        r for r in account.of_type("aws:iam/rolePolicy:RolePolicy") if r.name == "account-trail"
    ]
    (text,) = policies(role)
    policy = json.loads(text)
    for statement in policy["Statement"]:
        statement["Resource"] = "*"
    found = {(each.risk, each.action) for each in findings(role.name, json.dumps(policy))}
    assert ("infrastructure modification", "logs:PutLogEvents") in found

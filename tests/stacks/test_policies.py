"""Findings of parliament in every policy that the stacks generate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from judges import analyze_policy_string

from ringfence.rehearsal.record import Rehearsal

POLICIES = ("policy", "assumeRolePolicy")
"""Inputs of resources that hold a policy."""
# IAM's limits: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
LONGEST = {
    "aws:iam/policy:Policy": 6144,
    "aws:iam/role:Role": 2048,
    "aws:iam/rolePolicy:RolePolicy": 10240,
    "aws:kms/key:Key": 32768,
    "aws:s3/bucketPolicy:BucketPolicy": 20480,
}


@dataclass(frozen=True)
class Unavoidable:
    """A finding that stays, and the reason why a reviewer accepts it."""

    kind: str
    issue: str
    detail: str
    why: str


UNAVOIDABLE = (
    Unavoidable(
        "aws:iam/role:Role",
        "MALFORMED",
        "neither Resource nor NotResource",
        "a trust policy has no resource; parliament takes it for a policy of an identity",
    ),
    Unavoidable(
        "aws:iam/rolePolicy:RolePolicy",
        "RESOURCE_MISMATCH",
        "ec2:CreateSnapshots",
        "instance, disks and snapshots have conditions of their own, and so statements; AWS "
        "evaluates a call for each, parliament looks for all of them in one",
    ),
    Unavoidable(
        "aws:iam/rolePolicy:RolePolicy",
        "RESOURCE_MISMATCH",
        "ec2:ModifyNetworkInterfaceAttribute",
        "the same, for the instance that the interface is of",
    ),
    Unavoidable(
        "aws:iam/rolePolicy:RolePolicy",
        "RESOURCE_MISMATCH",
        "ec2:CreateTrafficMirrorSession",
        "the same, for interface, filter, target and session",
    ),
    Unavoidable(
        "aws:iam/rolePolicy:RolePolicy",
        "UNKNOWN_CONDITION_FOR_ACTION",
        "ssm:SessionDocumentAccessCheck for action ssm:StartSession",
        "parliament does not know the key; AWS documents it for this action",
    ),
    *(
        Unavoidable(
            kind,
            "RESOURCE_MISMATCH",
            "'logs:DescribeLogGroups', 'required_format': '*'",
            "parliament's definitions are older; AWS documents log groups as its resource",
        )
        for kind in ("aws:iam/policy:Policy", "aws:iam/rolePolicy:RolePolicy")
    ),
    Unavoidable(
        "aws:kms/key:Key",
        "RESOURCE_STAR",
        "kms:",
        "in a key's own policy * is that key; AWS documents it so",
    ),
    Unavoidable(
        "aws:kms/key:Key",
        "MISMATCHED_TYPE",
        "ArnLike requires a value of type Arn but given String",
        "the encryption context of CloudWatch Logs is an ARN; AWS documents ArnLike for it",
    ),
    Unavoidable(
        "aws:s3/bucketPolicy:BucketPolicy",
        "MISMATCHED_TYPE",
        "s3:TlsVersion requires a value of type Numeric but given ['1.2']",
        "parliament takes whole numbers only; AWS documents 1.2",
    ),
    Unavoidable(
        "aws:s3/bucketPolicy:BucketPolicy",
        "UNKNOWN_CONDITION_FOR_ACTION",
        "s3:TlsVersion for action s3:",
        "a denial of s3:* meets actions that have no such key, which it then leaves alone",
    ),
)


@dataclass(frozen=True)
class Policy:
    kind: str
    name: str
    text: str


@pytest.fixture(scope="module")
def policies(rehearsal: Rehearsal, account: Rehearsal) -> tuple[Policy, ...]:
    return tuple(
        Policy(resource.type, resource.name, resource.inputs[key])
        for resource in (*rehearsal.resources, *account.resources)
        for key in POLICIES
        if key in resource.inputs
    )


def accepted(kind: str, issue: str, detail: str) -> Unavoidable | None:
    for each in UNAVOIDABLE:
        if (each.kind, each.issue) == (kind, issue) and each.detail in detail:
            return each
    return None


def test_parliament_finds_nothing_but_what_is_unavoidable(policies: tuple[Policy, ...]) -> None:
    assert len(policies) > 20
    used: set[Unavoidable] = set()
    left: set[str] = set()
    for policy in policies:
        for finding in analyze_policy_string(policy.text).findings:
            known = accepted(policy.kind, finding.issue, str(finding.detail))
            if known:
                used.add(known)
            else:
                left.add(f"{policy.kind} {policy.name}: {finding.issue} {finding.detail}")
    assert left == set()
    assert used == {*UNAVOIDABLE}  # remove a reason without a finding


def test_parliament_finds_what_is_wrong() -> None:
    """The accepted findings do not hide a mistake."""
    statement = {"Effect": "Allow", "Resource": "*"}
    found = [
        finding
        for action in ("iam:*", "s3:GetObjct")
        for finding in analyze_policy_string(
            json.dumps(_policy({**statement, "Action": action}))
        ).findings
    ]
    assert {finding.issue for finding in found} == {"RESOURCE_STAR", "UNKNOWN_ACTION"}
    assert not any(accepted("aws:iam/policy:Policy", f.issue, str(f.detail)) for f in found)


def _policy(statement: Mapping[str, str]) -> Mapping[str, object]:
    return {"Version": "2012-10-17", "Statement": statement}


def test_no_policy_is_longer_than_aws_takes(policies: tuple[Policy, ...]) -> None:
    lengths = {f"{p.kind} {p.name}": len(p.text) for p in policies if p.kind in LONGEST}
    too_long = [
        policy.name for policy in policies if len(policy.text) > LONGEST.get(policy.kind, 20480)
    ]
    assert lengths
    assert too_long == []

"""Findings of Checkov, a third-party scanner, in both stacks.

It reads the exported plan, and runs as a program in its own environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from ringfence.rehearsal.output import plan
from ringfence.rehearsal.record import Rehearsal, RehearsedResource

CHECKOV = Path(sys.prefix) / "checkov" / "bin" / "checkov"
SECONDS = 120
Finding = tuple[str, str]
"""Check and resource address."""


@dataclass(frozen=True)
class Accepted:
    """A finding that stays, and the reason why a reviewer accepts it."""

    check: str
    address: str
    why: str


ACCEPTED = (
    Accepted(
        "CKV2_AWS_3",
        "aws_guardduty_detector.account-detection",
        "asks for GuardDuty of an organization; this is one account, whose detector is on",
    ),
    Accepted(
        "CKV2_AWS_62",
        "aws_s3_bucket.account-*",
        "nothing acts on the arrival of a log file; who reads or removes one is in the trail",
    ),
    Accepted(
        "CKV_AWS_144",
        "aws_s3_bucket.account-*",
        "evidence stays in the region that the manifest names; versions and locks keep it",
    ),
    Accepted(
        "CKV_AWS_148",
        "aws_default_vpc.account-defaults-vpc",
        "none is provisioned: AWS's own is taken over to empty its group, ACL and routes",
    ),
    Accepted(
        "CKV_AWS_145",
        "aws_s3_bucket.account-access-logs",
        "S3 delivers its logs to buckets under its own key only: "
        "https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html",
    ),
    Accepted(
        "CKV_AWS_252",
        "aws_cloudtrail.account-trail",
        "a notice of every file would drown the alarms, which read the trail in its log group",
    ),
    Accepted(
        "CKV_AWS_61",
        "aws_iam_role.account-sign-in-audit",
        "people of this account, with a second factor of the last hour, which is not looked at",
    ),
    Accepted(
        "CKV_AWS_9",
        "aws_iam_account_password_policy.account-sign-in",
        "a year, as on hosts: NIST SP 800-63B advises against more, and MFA is required",
    ),
    Accepted(
        "CKV_AWS_231",
        "aws_network_acl_rule.payments-prod-egress-ingress-answers-tcp-0-0-0-0-0",
        "answers to a NAT gateway, which takes 1024 and higher for its own and lets nobody in",
    ),
    Accepted(
        "CKV_AWS_91",
        "aws_lb.*",
        "AWS logs the requests of TLS listeners only; flow logs have every connection: "
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-access-logs.html",
    ),
    Accepted(
        "CKV_AWS_338",
        "aws_cloudwatch_log_group.payments-prod-*",
        "as many days as the manifest keeps data of this class: 180",
    ),
    Accepted(
        "CKV2_AWS_57",
        "aws_secretsmanager_secret.payments-prod-secret-ledger_rates-api-key",
        "its issuer makes it, a person puts it there, and an alarm tells when it is due",
    ),
    Accepted(
        "CKV_AWS_61",
        "aws_iam_role.payments-prod-operators",
        "administrators of the manifest, with a second factor of the last hour",
    ),
    Accepted(
        "CKV_AWS_116",
        "aws_lambda_function.payments-prod-containment",
        "what fails goes to a queue as its destination, which brings the error with the event",
    ),
    Accepted(
        "CKV_AWS_116",
        "aws_lambda_function.payments-prod-mirroring",
        "an alarm reports a failure, and the next run repeats the work",
    ),
    Accepted(
        "CKV_AWS_173",
        "aws_lambda_function.payments-prod-mirroring",
        "its settings are names and ids",
    ),
    Accepted(
        "CKV_AWS_116",
        "aws_lambda_function.payments-prod-secret-*",
        "the next run does what a failed one did not, and a secret that is due is an alarm",
    ),
    Accepted(
        "CKV_AWS_115",
        "aws_lambda_function.payments-prod-secret-*",
        "who is throttled is called again; AWS reserves only what leaves 100 to other functions",
    ),
    Accepted(
        "CKV_AWS_117",
        "aws_lambda_function.payments-prod-*",
        "it calls APIs of AWS only; inside it would hang on the network that it may have to cut",
    ),
    Accepted(
        "CKV_AWS_173",
        "aws_lambda_function.payments-prod-secret-*",
        "its one setting is the environment's name",
    ),
    Accepted(
        "CKV_AWS_272",
        "aws_lambda_function.payments-prod-*",
        "its code comes with the stack, from whoever runs it, and who would sign it, too",
    ),
    Accepted(
        "CKV_AWS_50",
        "aws_lambda_function.payments-prod-secret-*",
        "one call after the other to one service: its log says as much",
    ),
)


@dataclass(frozen=True)
class Judgement:
    planned: frozenset[str]
    read: int
    """Resources that Checkov found in the plan."""
    unread: int
    """Number of files that Checkov could not parse."""
    evaluated: frozenset[Finding]
    failed: frozenset[Finding]


def judged(document: Mapping[str, Any], directory: Path) -> Judgement:
    assert CHECKOV.exists(), f"there is no {CHECKOV}; make it: make .venv/checkov/run"
    file = directory / "plan.json"
    file.write_text(json.dumps(document))
    asked = ("--framework", "terraform_plan", "--skip-download", "--output", "json", "--soft-fail")
    # In its own directory: Checkov would read a .checkov.yaml there, and follow it.
    done = subprocess.run(
        [CHECKOV, "--file", file, *asked],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    failed, passed = (
        frozenset((each["check_id"], each["resource"]) for each in report["results"][key])
        for key in ("failed_checks", "passed_checks")
    )
    planned = document["planned_values"]["root_module"]["resources"]
    return Judgement(
        frozenset(each["address"] for each in planned),
        report["summary"]["resource_count"],
        report["summary"]["parsing_errors"],
        failed | passed,
        failed,
    )


@pytest.fixture(scope="module")
def judgements(
    account: Rehearsal, rehearsal: Rehearsal, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Judgement]:
    stacks = {"account": account, "environment": rehearsal}
    return {
        name: judged(plan.document(stack), tmp_path_factory.mktemp(name))
        for name, stack in stacks.items()
    }


def accepted(finding: Finding) -> Accepted | None:
    for each in ACCEPTED:
        if each.check == finding[0] and fnmatchcase(finding[1], each.address):
            return each
    return None


def test_checkov_finds_nothing_but_what_is_accepted(judgements: Mapping[str, Judgement]) -> None:
    failed = {finding for judgement in judgements.values() for finding in judgement.failed}
    left = sorted(
        f"{check} {address}" for check, address in failed if not accepted((check, address))
    )
    assert not left, "\n".join(["change the stack, or accept with a reason:", *left])
    # Remove a reason without a finding.
    assert {accepted(finding) for finding in failed} == {*ACCEPTED}


@pytest.mark.parametrize(("stack", "least"), [("account", 100), ("environment", 500)])
def test_checkov_sees_every_resource(
    judgements: Mapping[str, Judgement], stack: str, least: int
) -> None:
    judgement = judgements[stack]
    assert judgement.unread == 0
    assert judgement.read == len(judgement.planned)
    assert len(judgement.evaluated) >= least
    assert {address for _, address in judgement.evaluated} <= {*judgement.planned, "aws.default"}


@dataclass(frozen=True)
class Broken:
    """A property removed from one of our resources, and Checkov's findings then."""

    type: str
    name: str
    inputs: Mapping[str, Any] | None
    """Replaces the resource's inputs; None removes the resource."""
    findings: frozenset[Finding]


def broken(type_: str, name: str, inputs: Mapping[str, Any] | None, *findings: Finding) -> Broken:
    return Broken(type_, name, inputs, frozenset(findings))


EVERYTHING = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
)
ROLE_POLICY = "aws_iam_role_policy.account-trail"
SSH = "payments-prod-group-host-edge-1-ingress-tcp-22-10-40-0-0-22"
BREAKAGE = (
    broken(
        "aws:cloudwatch/logGroup:LogGroup",
        "account-trail",
        {"kmsKeyId": None},
        ("CKV_AWS_158", "aws_cloudwatch_log_group.account-trail"),
    ),
    broken(
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        SSH,
        {"cidrIpv4": "0.0.0.0/0"},
        ("CKV_AWS_24", f"aws_vpc_security_group_ingress_rule.{SSH}"),
    ),
    broken(
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "account-trail",
        None,
        ("CKV2_AWS_6", "aws_s3_bucket.account-trail"),
    ),
    broken(
        "aws:s3/bucketVersioning:BucketVersioning",
        "account-configuration",
        {"versioningConfiguration": {"status": "Suspended"}},
        ("CKV_AWS_21", "aws_s3_bucket.account-configuration"),
    ),
    broken(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "account-trail",
        {"rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]},
        ("CKV_AWS_145", "aws_s3_bucket.account-trail"),
    ),
    broken(
        "aws:kms/key:Key",
        "payments-prod-key-restricted",
        {"enableKeyRotation": False},
        ("CKV_AWS_7", "aws_kms_key.payments-prod-key-restricted"),
    ),
    broken(
        "aws:cloudtrail/trail:Trail",
        "account-trail",
        {"enableLogFileValidation": False, "isMultiRegionTrail": False},
        ("CKV_AWS_36", "aws_cloudtrail.account-trail"),
        ("CKV_AWS_67", "aws_cloudtrail.account-trail"),
    ),
    broken(
        "aws:sns/topic:Topic",
        "account-alerts",
        {"kmsMasterKeyId": None},
        ("CKV_AWS_26", "aws_sns_topic.account-alerts"),
    ),
    broken(
        "aws:cfg/recorder:Recorder",
        "account-configuration",
        {"recordingGroup": {"allSupported": False}},
        ("CKV2_AWS_45", "aws_config_configuration_recorder_status.account-configuration"),
        ("CKV2_AWS_48", "aws_config_configuration_recorder.account-configuration"),
    ),
    broken(
        "aws:iam/rolePolicy:RolePolicy",
        "account-trail",
        {"policy": EVERYTHING},
        *((f"CKV_AWS_{n}", ROLE_POLICY) for n in (62, 63, 286, 287, 288, 289, 290, 355)),
        ("CKV2_AWS_40", ROLE_POLICY),
    ),
    broken(
        "aws:ec2/flowLog:FlowLog",
        "payments-prod-flow-logs",
        None,
        ("CKV2_AWS_11", "aws_vpc.payments-prod"),
    ),
    broken(
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "payments-prod-default",
        None,
        ("CKV2_AWS_12", "aws_vpc.payments-prod"),
    ),
    broken(
        "aws:ebs/encryptionByDefault:EncryptionByDefault",
        "account-defaults",
        {"enabled": False},
        ("CKV_AWS_106", "aws_ebs_encryption_by_default.account-defaults"),
    ),
)


def test_checkov_finds_what_is_broken(
    judgements: Mapping[str, Judgement],
    account: Rehearsal,
    rehearsal: Rehearsal,
    tmp_path: Path,
) -> None:
    """Checkov finds each broken property and nothing else; both stacks share one plan, as their
    names differ."""
    together = (*account.resources, *rehearsal.resources)
    resources = tuple(each for resource in together if (each := _as_broken(resource)))
    found = judged(plan.document(replace(account, resources=resources)), tmp_path).failed
    before = {finding for judgement in judgements.values() for finding in judgement.failed}
    assert found - before == {finding for each in BREAKAGE for finding in each.findings}


def _as_broken(resource: RehearsedResource) -> RehearsedResource | None:
    for each in BREAKAGE:
        if (each.type, each.name) == (resource.type, resource.name):
            if each.inputs is None:
                return None
            return replace(resource, inputs={**resource.inputs, **each.inputs})
    return resource

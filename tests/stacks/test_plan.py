"""A rehearsal as a Terraform plan: names, blocks and references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example import EXAMPLE

from ringfence import cli
from ringfence.rehearsal.handlers import registry
from ringfence.rehearsal.output import plan, terraform
from ringfence.rehearsal.record import Rehearsal, RehearsalError, Status

NAMES = (
    ("aws:kms/key:Key", {"enableKeyRotation": True}, {"enable_key_rotation": True}),
    ("aws:ec2/vpc:Vpc", {"tags": {"aB": "c"}}, {"tags": {"aB": "c"}}),
    (
        "aws:s3/bucketVersioning:BucketVersioning",
        {"versioningConfiguration": {"status": "Enabled"}},
        {"versioning_configuration": [{"status": "Enabled"}]},
    ),
    (
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        {"rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}]},
        {"rule": [{"apply_server_side_encryption_by_default": [{"sse_algorithm": "aws:kms"}]}]},
    ),
    (
        "aws:cloudtrail/trail:Trail",
        {"advancedEventSelectors": [{"fieldSelectors": [{"field": "a", "startsWiths": ["b"]}]}]},
        {"advanced_event_selector": [{"field_selector": [{"field": "a", "starts_with": ["b"]}]}]},
    ),
    (
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        {"rules": [{"filter": {"and": {"prefix": "a"}}}]},
        {"rule": [{"filter": [{"and": [{"prefix": "a"}]}]}]},
    ),
    (
        "aws:ec2/launchTemplate:LaunchTemplate",
        {
            "blockDeviceMappings": [{"ebs": {"encrypted": "true"}}],
            "metadataOptions": {"httpTokens": "required"},
            "vpcSecurityGroupIds": ["sg-1"],
        },
        {
            "block_device_mappings": [{"ebs": [{"encrypted": "true"}]}],
            "metadata_options": [{"http_tokens": "required"}],
            "vpc_security_group_ids": ["sg-1"],
        },
    ),
    (
        "aws:autoscaling/group:Group",
        {"vpcZoneIdentifiers": ["subnet-1"], "tags": [{"key": "a", "propagateAtLaunch": True}]},
        {"vpc_zone_identifier": ["subnet-1"], "tag": [{"key": "a", "propagate_at_launch": True}]},
    ),
    (
        "aws:ec2/securityGroup:SecurityGroup",
        {"ingress": [{"fromPort": 22}]},
        {"ingress": [{"from_port": 22}]},
    ),
    ("aws:ec2/networkAcl:NetworkAcl", {"egress": []}, {"egress": []}),
    (
        "aws:lambda/function:Function",
        {"name": "contain", "environment": {"variables": {"aB": "c"}}},
        {"function_name": "contain", "environment": [{"variables": {"aB": "c"}}]},
    ),
    ("aws:cloudwatch/metricAlarm:MetricAlarm", {"name": "a"}, {"alarm_name": "a"}),
    ("aws:sns/topicSubscription:TopicSubscription", {"topic": "a"}, {"topic_arn": "a"}),
    (
        "aws:networkfirewall/firewall:Firewall",
        {"subnetMappings": [{"subnetId": "subnet-1"}], "encryptionConfiguration": {"type": "a"}},
        {
            "subnet_mapping": [{"subnet_id": "subnet-1"}],
            "encryption_configuration": [{"type": "a"}],
        },
    ),
)
"""Names as in the documentation of Terraform's provider:
https://registry.terraform.io/providers/hashicorp/aws/latest/docs"""


@pytest.mark.parametrize(("token", "properties", "expected"), NAMES, ids=[n[0] for n in NAMES])
def test_properties_have_the_names_and_shape_of_terraform(
    token: str, properties: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    assert terraform.attributes(token, properties) == expected


def test_whatever_can_be_rehearsed_can_be_exported() -> None:
    """Scanners would miss a new resource type that cannot be exported."""
    assert registry.TYPES.keys() - terraform.TYPES.keys() == set()


def test_every_type_is_one_of_the_sdk() -> None:
    classes = [terraform._resource_class(token) for token in terraform.TYPES]
    assert [kind.__name__ for kind in classes] == [t.split(":")[2] for t in terraform.TYPES]
    assert len({*terraform.TYPES.values()}) == len(terraform.TYPES)


def test_an_unknown_type_is_refused(rehearsal: Rehearsal) -> None:
    (vpc,) = rehearsal.of_type("aws:ec2/vpc:Vpc")
    strange = replace(vpc, type="aws:ec2/quantumVpc:QuantumVpc")
    with pytest.raises(RehearsalError) as refused:
        plan.document(replace(rehearsal, resources=(strange,)))
    assert str(refused.value) == (
        "aws:ec2/quantumVpc:QuantumVpc has no Terraform name, and would be missing in "
        "the plan; add it to TYPES in ringfence/rehearsal/output/terraform.py"
    )


def test_two_resources_with_one_address_are_refused(rehearsal: Rehearsal) -> None:
    (vpc,) = rehearsal.of_type("aws:ec2/vpc:Vpc")
    twin = replace(vpc, urn=f"{vpc.urn}-of-another-component")
    with pytest.raises(RehearsalError, match="give one of them another name"):
        plan.document(replace(rehearsal, resources=(vpc, twin)))


@pytest.fixture(scope="module", params=["account", "rehearsal"])
def exported(request: pytest.FixtureRequest) -> tuple[Rehearsal, dict[str, Any]]:
    rehearsal = request.getfixturevalue(request.param)
    # Through its text, as a scanner reads it.
    return rehearsal, json.loads(json.dumps(plan.document(rehearsal)))


def test_everything_that_would_be_created_is_planned(
    exported: tuple[Rehearsal, dict[str, Any]],
) -> None:
    rehearsal, document = exported
    planned = document["planned_values"]["root_module"]["resources"]
    addresses = [resource["address"] for resource in planned]
    assert len(addresses) == rehearsal.counts[Status.MOTO] + rehearsal.counts[Status.RECORDED]
    assert len(set(addresses)) == len(addresses)
    assert [change["address"] for change in document["resource_changes"]] == addresses
    assert {tuple(c["change"]["actions"]) for c in document["resource_changes"]} == {("create",)}
    configured = document["configuration"]["root_module"]["resources"]
    assert [resource["address"] for resource in configured] == addresses


def test_no_reference_leads_nowhere(exported: tuple[Rehearsal, dict[str, Any]]) -> None:
    _, document = exported
    planned = document["planned_values"]["root_module"]["resources"]
    addresses = {resource["address"] for resource in planned}
    referred = {
        ".".join(reference.split(".")[:2])
        for resource in document["configuration"]["root_module"]["resources"]
        for reference in _references(resource["expressions"])
    }
    assert referred
    assert referred <= addresses


def _references(expressions: Any) -> list[str]:
    if isinstance(expressions, list):
        return [found for each in expressions for found in _references(each)]
    if not isinstance(expressions, dict):
        return []
    if "references" in expressions:
        return expressions["references"]
    return [found for each in expressions.values() for found in _references(each)]


def of(document: Mapping[str, Any], address: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return values and expressions of a resource."""
    planned = document["planned_values"]["root_module"]["resources"]
    configured = document["configuration"]["root_module"]["resources"]
    (values,) = [each["values"] for each in planned if each["address"] == address]
    (expressions,) = [each["expressions"] for each in configured if each["address"] == address]
    return values, expressions


def test_what_another_resource_supplies_is_a_reference(account: Rehearsal) -> None:
    document = plan.document(account)
    values, expressions = of(document, "aws_s3_bucket_versioning.account-trail")
    bucket = ["aws_s3_bucket.account-trail.id", "aws_s3_bucket.account-trail"]
    assert values == {"versioning_configuration": [{"status": "Enabled"}]}
    assert expressions["bucket"] == {"references": bucket}
    (change,) = [
        each["change"]
        for each in document["resource_changes"]
        if each["address"] == "aws_s3_bucket_versioning.account-trail"
    ]
    assert change["after_unknown"]["bucket"] is True


def test_a_reference_leads_to_where_a_value_comes_from(account: Rehearsal) -> None:
    """The trail takes the bucket's name from its policy; recorder and channel share a name."""
    document = plan.document(account)
    _, trail = of(document, "aws_cloudtrail.account-trail")
    assert trail["s3_bucket_name"]["references"][1] == "aws_s3_bucket.account-trail"
    _, status = of(document, "aws_config_configuration_recorder_status.account-configuration")
    assert status["name"]["references"] == [
        "aws_config_configuration_recorder.account-configuration.id",
        "aws_config_configuration_recorder.account-configuration",
    ]


def test_a_reference_within_a_block_is_one_too(account: Rehearsal) -> None:
    address = "aws_s3_bucket_server_side_encryption_configuration.account-trail"
    values, expressions = of(plan.document(account), address)
    (block,) = values["rule"][0]["apply_server_side_encryption_by_default"]
    assert block == {"sse_algorithm": "aws:kms"}
    (within,) = expressions["rule"][0]["apply_server_side_encryption_by_default"]
    assert within["kms_master_key_id"]["references"] == [
        "aws_kms_key.account-key-evidence.arn",
        "aws_kms_key.account-key-evidence",
    ]


def test_a_policy_is_there_in_full_and_refers_too(account: Rehearsal) -> None:
    values, expressions = of(plan.document(account), "aws_s3_bucket_policy.account-trail")
    assert json.loads(values["policy"])["Statement"]
    assert expressions["policy"] == {"references": ["aws_s3_bucket.account-trail"]}


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = tmp_path / "plan.json"
    given = ["rehearse", str(EXAMPLE), "--stack", "account", "--export"]
    assert cli.main([*given, str(exported)]) == 0
    document = json.loads(exported.read_text())
    assert document["format_version"] == "1.2"
    planned = document["planned_values"]["root_module"]["resources"]
    created = len([each for each in planned if each["mode"] == "managed"])
    assert f"{created} resources to create" in capsys.readouterr().out


def test_a_plan_that_cannot_be_written_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "missing" / "plan.json"
    given = ["rehearse", str(EXAMPLE), "--stack", "account", "--export"]
    assert cli.main([*given, str(nowhere)]) == 2
    assert capsys.readouterr().err == (
        f"{nowhere}: No such file or directory; name a writable file\n"
    )

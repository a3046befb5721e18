"""Resources of the environment stack for inventories/aws-example."""

from __future__ import annotations

import json
from collections import Counter
from importlib import import_module
from ipaddress import IPv4Network
from typing import Any

import pytest

from ringfence.cloud.secrets import own_secrets
from ringfence.manifest.model import Environment
from ringfence.rehearsal.record import Rehearsal, RehearsedResource, Status

UNTAGGABLE = {
    "aws:ec2/route:Route",
    "aws:networkfirewall/loggingConfiguration:LoggingConfiguration",
    "aws:cloudwatch/eventTarget:EventTarget",
    "aws:cloudwatch/logMetricFilter:LogMetricFilter",
    "aws:ec2/networkAclRule:NetworkAclRule",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:kms/alias:Alias",
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig",
    "aws:sqs/queuePolicy:QueuePolicy",
    "aws:lambda/permission:Permission",
    "aws:secretsmanager/secretPolicy:SecretPolicy",
    "aws:secretsmanager/secretRotation:SecretRotation",
    "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation",
    "aws:sns/topicPolicy:TopicPolicy",
    "aws:sns/topicSubscription:TopicSubscription",
}


def test_everything_is_a_real_object(rehearsal: Rehearsal) -> None:
    recorded = {r.type for r in rehearsal.resources if r.status is Status.RECORDED}
    assert recorded == {
        "aws:ec2/trafficMirrorFilterRule:TrafficMirrorFilterRule",
        "aws:ec2/vpcBlockPublicAccessExclusion:VpcBlockPublicAccessExclusion",
        "aws:networkfirewall/firewallPolicy:FirewallPolicy",
        "aws:networkfirewall/ruleGroup:RuleGroup",
        *(
            f"aws:route53/resolverFirewall{kind}:ResolverFirewall{kind}"
            for kind in ("Config", "DomainList", "Rule", "RuleGroup", "RuleGroupAssociation")
        ),
    }
    assert rehearsal.counts[Status.MOTO] > 100


def test_every_segment_has_a_subnet_in_every_zone(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    subnets = rehearsal.of_type("aws:ec2/subnet:Subnet")
    for segment in environment.segments.values():
        own = [s for s in subnets if s.inputs["tags"].get("ringfence:segment") == segment.name]
        networks = [IPv4Network(s.inputs["cidrBlock"]) for s in own]
        assert {s.inputs["availabilityZone"] for s in own} == {"eu-central-1a", "eu-central-1b"}
        assert all(network.subnet_of(segment.cidr) for network in networks)
        assert not networks[0].overlaps(networks[1])
        assert rehearsal.exports["subnet_ids"][segment.name] == {
            s.inputs["availabilityZone"]: s.id for s in own
        }


def test_nothing_but_the_declared_way_leads_to_the_internet(rehearsal: Rehearsal) -> None:
    kinds = Counter(resource.type for resource in rehearsal.resources)
    gateways = {kind: kinds[kind] for kind in kinds if "Gateway:" in kind or "Eip" in kind}
    assert gateways == {
        "aws:ec2/eip:Eip": 2,
        "aws:ec2/internetGateway:InternetGateway": 1,
        "aws:ec2/natGateway:NatGateway": 2,
    }
    assert {r.name.split("-eu-")[0] for r in rehearsal.of_type("aws:ec2/route:Route")} == {
        *("payments-prod-egress-firewall", "payments-prod-egress-nat"),
        "payments-prod-egress-servers",
    }
    subnets = rehearsal.of_type("aws:ec2/subnet:Subnet")
    assert {subnet.inputs["mapPublicIpOnLaunch"] for subnet in subnets} == {False}


def test_every_resource_says_whose_it_is(rehearsal: Rehearsal) -> None:
    silent = [
        resource.name
        for resource in rehearsal.resources
        if resource.status is Status.MOTO
        and resource.type not in UNTAGGABLE
        and _tags(resource).get("ringfence:environment") != "payments-prod"
    ]
    assert not silent


def _tags(resource: RehearsedResource) -> dict[str, str]:
    """Return the tags as a mapping; those of an Auto Scaling group are a list."""
    found = resource.inputs.get("tags", {})
    return {t["key"]: t["value"] for t in found} if isinstance(found, list) else found


def test_components_register_their_outputs(rehearsal: Rehearsal) -> None:
    components = [r for r in rehearsal.resources if r.type.startswith("ringfence:")]
    assert len({c.type for c in components}) > 15
    assert not [c.name for c in components if not c.outputs]


def test_what_holds_data_or_evidence_is_protected(rehearsal: Rehearsal) -> None:
    protected = {resource.type for resource in rehearsal.resources if resource.protect}
    assert protected == {
        "aws:autoscaling/group:Group",
        "aws:kms/key:Key",
        "aws:cloudwatch/logGroup:LogGroup",
        "aws:ec2/vpc:Vpc",
        "aws:networkfirewall/firewall:Firewall",
        "aws:secretsmanager/secret:Secret",
    }


def test_no_name_of_aws_is_fixed(rehearsal: Rehearsal) -> None:
    """One account can hold two environments, and a replacement exists before the old resource is
    deleted."""
    named = [r.name for r in rehearsal.resources if "name" in r.inputs or "namePrefix" in r.inputs]
    assert named == []


def test_interface_endpoints_are_those_that_are_needed(rehearsal: Rehearsal) -> None:
    endpoints = rehearsal.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")
    kinds = {
        e.inputs["serviceName"].rsplit(".", 1)[1]: e.inputs["vpcEndpointType"] for e in endpoints
    }
    assert kinds == {
        "s3": "Gateway",
        "dynamodb": "Gateway",
        **dict.fromkeys(("ec2messages", "kms", "logs", "monitoring"), "Interface"),
        **dict.fromkeys(("ssm", "ssmmessages", "sts", "secretsmanager"), "Interface"),
        "vpce-svc-0123456789abcdef0": "Interface",
    }


@pytest.mark.parametrize("kind", ["aws:ec2/vpcEndpoint:VpcEndpoint", "aws:kms/key:Key"])
def test_policies_are_for_this_account(rehearsal: Rehearsal, kind: str) -> None:
    """A condition limits each principal `*` to an account, a service or one public bucket."""
    for resource in rehearsal.of_type(kind):
        if ".vpce." in resource.inputs.get("serviceName", ""):  # of another account: no policy
            continue
        for statement in json.loads(resource.inputs["policy"])["Statement"]:
            if statement["Principal"] == "*" and statement["Sid"] != "SsmAgent":
                values = _values(statement["Condition"])
                assert rehearsal.account.id in values, resource.name


def _values(condition: dict[str, dict[str, Any]]) -> set[str]:
    return {str(value) for test in condition.values() for value in test.values()}


def test_keys_are_used_through_services_only(rehearsal: Rehearsal) -> None:
    found = rehearsal.of_type("aws:kms/key:Key")
    # The others are for sessions and alerts; tests/compliance/cloud has their conditions.
    keys = [key for key in found if "ringfence:class" in key.inputs["tags"]]
    assert {key.name for key in found} - {key.name for key in keys} == {
        "payments-prod-alerts",
        "payments-prod-sessions",
    }
    classes = {key.inputs["tags"]["ringfence:class"] for key in keys}
    assert classes == {"public", "internal", "confidential", "restricted"}
    for key in keys:
        assert key.inputs["enableKeyRotation"] is True
        for statement in json.loads(key.inputs["policy"])["Statement"]:
            if "kms:Decrypt" in statement["Action"]:
                conditions = {name for test in statement["Condition"].values() for name in test}
                through = {"kms:ViaService", "kms:EncryptionContext:aws:logs:arn"}
                # For a service, limited to the rules that it acts for.
                assert conditions & {*through, "aws:SourceArn"}


def test_flow_logs_are_kept_encrypted_as_long_as_the_class_says(rehearsal: Rehearsal) -> None:
    group = next(
        group
        for group in rehearsal.of_type("aws:cloudwatch/logGroup:LogGroup")
        if group.id == rehearsal.exports["flow_log_group"]
    )
    (flow,) = rehearsal.of_type("aws:ec2/flowLog:FlowLog")
    assert group.inputs["retentionInDays"] == 180
    assert group.inputs["kmsKeyId"] == rehearsal.exports["key_arns"]["internal"]
    assert flow.inputs["trafficType"] == "ALL"
    fields = flow.inputs["logFormat"].split()
    assert len(fields) == len(set(fields)) == 42
    assert {"${srcaddr}", "${pkt-dstaddr}", "${reject-reason}"} <= set(fields)


def test_no_value_of_a_secret_is_declared(rehearsal: Rehearsal, environment: Environment) -> None:
    """Pulumi's state would store it."""
    declared = rehearsal.of_type("aws:secretsmanager/secret:Secret")
    assert len(declared) == len(own_secrets(environment)) == 2
    assert not rehearsal.of_type("aws:secretsmanager/secretVersion:SecretVersion")
    client = rehearsal.account.client("secretsmanager")
    for secret in declared:
        assert "VersionIdsToStages" not in client.describe_secret(SecretId=secret.id)


def test_functions_are_what_their_folder_holds(rehearsal: Rehearsal) -> None:
    functions = rehearsal.of_type("aws:lambda/function:Function")
    handlers = {f.inputs["handler"] for f in functions if f.inputs["handler"][:9] == "rotation."}
    assert handlers == {"rotation.handler.rotate", "rotation.age.check"}
    for function in functions:
        module, _, called = function.inputs["handler"].rpartition(".")
        assert callable(getattr(import_module(f"stacks.functions.{module}"), called))
        assert f"{module.replace('.', '/')}.py" in function.inputs["code"].assets

"""The rehearsal itself: it refuses or repairs what Pulumi's mocks accept."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

from ringfence.rehearsal.engine.rehearse import rehearsed
from ringfence.rehearsal.record import Rehearsal, RehearsalError, Status

REGION = "eu-central-1"
TEST: dict[str, Any] = {"project": "project", "stack": "test", "region": REGION}


def rehearse(program: Callable[[], object], **options: Any) -> Rehearsal:
    with rehearsed(program, **TEST, **options) as rehearsal:
        return rehearsal


def vpc(name: str = "vpc", **options: Any) -> aws.ec2.Vpc:
    return aws.ec2.Vpc(name, cidr_block="10.1.0.0/16", **options)


def test_resources_are_objects_of_an_account() -> None:
    def program() -> None:
        made = vpc(tags={"environment": "test"})
        pulumi.export("vpc", made.id)
        pulumi.export("arn", made.arn)

    with rehearsed(program, **TEST) as rehearsal:
        id_ = rehearsal.exports["vpc"]
        (found,) = rehearsal.account.client("ec2").describe_vpcs(VpcIds=[id_])["Vpcs"]
    assert found["CidrBlock"] == "10.1.0.0/16"
    assert found["Tags"] == [{"Key": "environment", "Value": "test"}]
    assert rehearsal.exports["arn"] == (f"arn:aws:ec2:{REGION}:{rehearsal.account.id}:vpc/{id_}")


def test_a_record_says_what_was_declared_and_made() -> None:
    class Network(pulumi.ComponentResource):
        def __init__(self) -> None:
            super().__init__("test:index:Network", "network")
            made = vpc(opts=pulumi.ResourceOptions(parent=self, protect=True))
            self.register_outputs({"vpc_id": made.id})

    rehearsal = rehearse(Network)
    network, made = rehearsal.resources
    assert (network.type, network.status, network.parent.split("::")[2]) == (
        "test:index:Network",
        Status.NONE,
        "pulumi:pulumi:Stack",
    )
    assert network.outputs == {"vpc_id": made.id}
    assert made.urn == "urn:pulumi:test::project::test:index:Network$aws:ec2/vpc:Vpc::vpc"
    assert (made.name, made.status, made.parent, made.protect) == (
        "vpc",
        Status.MOTO,
        network.urn,
        True,
    )
    assert made.inputs == {"cidrBlock": "10.1.0.0/16"}
    assert made.outputs["cidrBlock"] == "10.1.0.0/16"
    assert rehearsal.counts == {Status.MOTO: 1, Status.RECORDED: 0, Status.NONE: 1}


def test_a_program_reads_outputs_of_other_stacks() -> None:
    def program() -> None:
        account = pulumi.StackReference("account", "organization/account/main")
        pulumi.export("detector", account.require_output("detector_id"))

    shared = {"organization/account/main": {"detector_id": "12ab"}}
    assert rehearse(program, references=shared).exports == {"detector": "12ab"}
    with pytest.raises(RehearsalError, match="the program refers to stack organization/"):
        rehearse(program)


def test_an_output_that_another_stack_does_not_have_is_refused() -> None:
    def program() -> None:
        pulumi.export("it", pulumi.StackReference("other").require_output("absent"))

    with pytest.raises(KeyError, match="absent"):
        rehearse(program, references={"other": {}})


def test_both_runs_make_one_object() -> None:
    with rehearsed(lambda: vpc(), **TEST) as rehearsal:
        vpcs = rehearsal.account.client("ec2").describe_vpcs()["Vpcs"]
    assert [each["VpcId"] for each in vpcs if not each["IsDefault"]] == [rehearsal.resources[0].id]


def test_a_program_reads_its_configuration() -> None:
    def program() -> None:
        pulumi.export("manifest", pulumi.Config().require("manifest"))

    rehearsal = rehearse(program, config={"project:manifest": "environment.yaml"})
    assert rehearsal.exports == {"manifest": "environment.yaml"}
    with pytest.raises(pulumi.ConfigMissingError):
        rehearse(program)


def test_accounts_are_apart() -> None:
    with (
        rehearsed(vpc, **TEST) as one,
        rehearsed(vpc, **TEST) as two,
    ):
        vpcs = [
            {v["VpcId"] for v in r.account.client("ec2").describe_vpcs()["Vpcs"]}
            for r in (one, two)
        ]
    assert one.account.id != two.account.id
    assert [len(found) for found in vpcs] == [2, 2]  # each with its default VPC
    assert not vpcs[0] & vpcs[1]


def test_a_failed_run_leaves_nothing_to_the_next() -> None:
    def broken() -> None:
        vpc()
        raise KeyError("program")

    with pytest.raises(KeyError, match="program"):
        rehearse(broken)
    assert [r.name for r in rehearse(vpc).resources] == ["vpc"]


def test_an_error_of_a_later_resource_reaches_the_caller() -> None:
    def program() -> None:
        made = vpc()
        aws.ec2.Subnet("subnet", vpc_id=made.id, cidr_block="10.2.0.0/24", availability_zone="x")

    with pytest.raises(RehearsalError, match=r"aws:ec2/subnet:Subnet subnet: AWS refuses it: .+"):
        rehearse(program)


def test_duplicate_urns_are_refused() -> None:
    def program() -> None:
        vpc("twice")
        vpc("twice")

    with pytest.raises(RehearsalError, match=r"two resources have the URN .*::twice; give one"):
        rehearse(program)


def test_an_export_that_nothing_supplies_is_refused() -> None:
    def program() -> None:
        pulumi.export("owner", vpc().ipv6_cidr_block)

    with pytest.raises(RehearsalError, match="export owner is unknown: it reads an output"):
        rehearse(program)
    # Only a preview finds this; an update does not.
    assert rehearse(program, preview=False).exports == {}


def test_an_input_that_nothing_supplies_is_refused() -> None:
    def program() -> None:
        aws.cloudwatch.LogGroup("logs", tags={"cidr": vpc().ipv6_cidr_block})

    with pytest.raises(RehearsalError, match=r"logGroup:LogGroup logs: input tags.cidr is unknown"):
        rehearse(program)


def test_numbers_are_numbers_again() -> None:
    def program() -> None:
        aws.cloudwatch.LogGroup("logs", retention_in_days=30)
        pulumi.export("ports", [22, 443, 0.5])

    rehearsal = rehearse(program)
    days = rehearsal.resources[0].inputs["retentionInDays"]
    assert (days, type(days)) == (30, int)
    assert json.dumps(rehearsal.exports["ports"]) == "[22, 443, 0.5]"


def test_secrets_are_unwrapped_for_the_emulation() -> None:
    def program() -> None:
        aws.cloudwatch.LogGroup("logs", tags={"who": pulumi.Output.secret("hush")})
        pulumi.export("word", pulumi.Output.secret("hush"))

    rehearsal = rehearse(program)
    assert rehearsal.resources[0].inputs["tags"] == {"who": "hush"}
    assert rehearsal.exports["word"] == "hush"


def test_transforms_are_refused() -> None:
    """An engine runs them, so a rehearsal would differ from a provisioned stack."""

    def untouched(args: pulumi.ResourceTransformArgs) -> None:
        del args

    def on_a_resource() -> None:
        vpc(opts=pulumi.ResourceOptions(transforms=[untouched]))

    def on_the_stack() -> None:
        pulumi.runtime.register_resource_transform(untouched)
        vpc()

    for program in (on_a_resource, on_the_stack):
        with pytest.raises(RehearsalError, match="has transforms, which a rehearsal does not run"):
            rehearse(program)


def test_tags_that_only_the_provider_would_give_are_refused() -> None:
    def program() -> None:
        aws.Provider("aws", default_tags={"tags": {"environment": "test"}})

    with pytest.raises(RehearsalError, match="provider aws: a rehearsal ignores default_tags"):
        rehearse(program)


def test_policy_documents_are_rendered_by_the_stack() -> None:
    def program() -> None:
        aws.iam.get_policy_document(statements=[])

    with pytest.raises(Exception, match="getPolicyDocument cannot be rehearsed"):
        rehearse(program)


def test_a_type_without_handler_is_refused() -> None:
    def program() -> None:
        aws.gamelift.Fleet("fleet", ec2_instance_type="c5.large")

    with pytest.raises(RehearsalError, match=r"gamelift/fleet:Fleet cannot be rehearsed; add"):
        rehearse(program)


def test_a_function_without_answer_is_refused() -> None:
    def program() -> None:
        aws.get_ip_ranges(services=["ec2"])

    with pytest.raises(Exception, match=r"aws:index/getIpRanges:getIpRanges cannot be rehearsed"):
        rehearse(program)


def test_what_moto_lacks_is_recorded_and_not_verified() -> None:
    def program() -> None:
        analyzer = aws.accessanalyzer.Analyzer("unused", analyzer_name="unused", type="ACCOUNT")
        pulumi.export("analyzer", analyzer.id)

    rehearsal = rehearse(program)
    (analyzer,) = rehearsal.resources
    assert analyzer.status is Status.RECORDED
    assert analyzer.inputs["type"] == "ACCOUNT"
    assert rehearsal.counts[Status.MOTO] == 0


def test_a_new_security_group_allows_nothing() -> None:
    """AWS creates a group with open egress; the provider closes it, and so does the handler."""

    def program() -> None:
        aws.ec2.SecurityGroup("group", vpc_id=vpc().id)

    with rehearsed(program, **TEST) as rehearsal:
        (made,) = rehearsal.of_type("aws:ec2/securityGroup:SecurityGroup")
        ec2 = rehearsal.account.client("ec2")
        (group,) = ec2.describe_security_groups(GroupIds=[made.id])["SecurityGroups"]
    assert (group["IpPermissions"], group["IpPermissionsEgress"]) == ([], [])
    assert group["GroupName"].startswith("group-")


def test_the_defaults_of_a_vpc_can_be_locked_down() -> None:
    def program() -> None:
        made = vpc()
        aws.ec2.DefaultSecurityGroup("default-group", vpc_id=made.id)
        aws.ec2.DefaultNetworkAcl("default-acl", default_network_acl_id=made.default_network_acl_id)
        table = made.default_route_table_id
        aws.ec2.DefaultRouteTable("default-routes", default_route_table_id=table)

    with rehearsed(program, **TEST) as rehearsal:
        ec2 = rehearsal.account.client("ec2")
        (made,) = rehearsal.of_type("aws:ec2/vpc:Vpc")
        of = [{"Name": "vpc-id", "Values": [made.id]}]
        (group,) = ec2.describe_security_groups(Filters=of)["SecurityGroups"]
        (acl,) = ec2.describe_network_acls(Filters=of)["NetworkAcls"]
    assert (group["IpPermissions"], group["IpPermissionsEgress"]) == ([], [])
    assert {entry["RuleAction"] for entry in acl["Entries"]} == {"deny"}


def test_a_program_that_waits_for_ever_is_ended() -> None:
    def program() -> None:
        pulumi.export("never", vpc().id.apply(lambda _: threading.Event().wait()))

    begun = time.monotonic()
    with pytest.raises(RehearsalError, match=r"did not end within 0.5 s; its last resource was"):
        rehearse(program, seconds=0.5, preview=False)
    assert time.monotonic() - begun < 5


def test_no_image_is_loaded() -> None:
    """moto would parse 500 of them for every account."""
    with rehearsed(vpc, **TEST) as rehearsal:
        assert rehearsal.account.client("ec2").describe_images()["Images"] == []


def test_a_rehearsal_ends_its_process() -> None:
    """A remaining thread or loop would keep the command from returning."""
    program = f"""
import pulumi_aws as aws
from ringfence.rehearsal.engine.rehearse import rehearsed
with rehearsed(lambda: aws.ec2.Vpc("vpc", cidr_block="10.1.0.0/16"), **{TEST!r}) as rehearsal:
    print(len(rehearsal.resources))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr

"""Checks of hosts in the cloud: each passes on our account and fails on an account with defaults
and on ours with exactly its property broken."""

from __future__ import annotations

import json
from typing import Any

from breaking import (  # noqa: F401 - collected here
    Aws,
    Broken,
    Exports,
    checks,
    failing,
    test_a_broken_property_turns_exactly_its_checks_red,
    test_every_check_is_broken_by_something,
)
from generated import documents, manifest
from hypothesis import HealthCheck, given, settings
from moto.autoscaling.models import autoscaling_backends
from moto.ec2.models import ec2_backends

from ringfence.cloud.tags import ENVIRONMENT, HOST
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

CHECKS = checks("machines")
REGION = "eu-central-1"
EC2 = {
    "Effect": "Allow",
    "Principal": {"Service": "ec2.amazonaws.com"},
    "Action": "sts:AssumeRole",
}


def test_our_account_passes(rehearsal: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, Cloud(rehearsal.account.session, environment)) == {}


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """Hosts as the console starts them: one role for all, a key pair, a public address, no
    IMDSv2."""
    with emulated(REGION) as account:
        _by_hand(account.client, environment)
        passing = CHECKS.keys() - failing(CHECKS, Cloud(account.session, environment)).keys()
    # The console creates the role for EC2 only; and no secret exists that could be read.
    assert passing == {
        "test_roles_of_hosts_are_for_machines_only",
        "test_a_host_reads_the_secrets_of_its_servers_and_no_others",
    }


def _by_hand(aws: Aws, environment: Environment) -> None:
    iam, ec2 = aws("iam"), aws("ec2")
    for name in environment.hosts:
        tagged = {"Name": f"{environment.name}-host-{name}", ENVIRONMENT: environment.name}
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": EC2}),
            Tags=_tags(tagged),
        )
        _allow(aws, name, "*", "*")
    iam.create_instance_profile(InstanceProfileName="all")
    iam.add_role_to_instance_profile(InstanceProfileName="all", RoleName="edge-1")
    ec2.create_key_pair(KeyName="mine")
    (subnet, *_) = ec2.describe_subnets()["Subnets"]
    for name in environment.hosts:
        ec2.run_instances(
            ImageId="ami-12345678",
            MinCount=1,
            MaxCount=1,
            KeyName="mine",
            IamInstanceProfile={"Name": "all"},
            NetworkInterfaces=[
                {
                    "DeviceIndex": 0,
                    "SubnetId": subnet["SubnetId"],
                    "AssociatePublicIpAddress": True,
                }
            ],
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": _tags({ENVIRONMENT: environment.name, HOST: name}),
                }
            ],
        )


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def test_an_empty_account_names_what_is_missing(environment: Environment) -> None:
    with emulated(REGION) as account:
        failed = failing(CHECKS, Cloud(account.session, environment))
    assert failed.keys() == CHECKS.keys()
    names = ", ".join(environment.hosts)
    assert failed["test_no_key_pair_opens_a_host"] == (
        f"nothing runs as {names}, and nothing will; run pulumi up"
    )


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_every_manifest_passes(document: dict[str, Any]) -> None:
    with manifest(document) as environment, rehearsed_stack(environment, preview=False) as made:
        assert failing(CHECKS, Cloud(made.account.session, environment)) == {}


BROKEN = Broken()


def _instance(aws: Aws, host: str) -> dict[str, Any]:
    filters = [
        {"Name": f"tag:{HOST}", "Values": [host]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    (page,) = aws("ec2").describe_instances(Filters=filters)["Reservations"]
    (instance,) = page["Instances"]
    return instance


def _group(aws: Aws, host: str) -> dict[str, Any]:
    groups = aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    (found,) = [g for g in groups if f"-host-{host}-" in g["AutoScalingGroupName"]]
    return found


def _change_template(aws: Aws, host: str, change: Any) -> None:
    """Change the version of the template that the group starts next."""
    group, ec2 = _group(aws, host), aws("ec2")
    template = group["LaunchTemplate"]["LaunchTemplateId"]
    (version,) = ec2.describe_launch_template_versions(
        LaunchTemplateId=template, Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    data = version["LaunchTemplateData"]
    change(data)
    made = ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=data)
    number = str(made["LaunchTemplateVersion"]["VersionNumber"])
    aws("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=group["AutoScalingGroupName"],
        LaunchTemplate={"LaunchTemplateId": template, "Version": number},
    )


def _role(out: Exports, host: str) -> str:
    return out["host_role_arns"][host].rsplit("/", 1)[1]


def _account(out: Exports) -> str:
    return out["boundary_arn"].split(":")[4]


def _allow(aws: Aws, role: str, action: str, resource: str, name: str = "by-hand") -> None:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    aws("iam").put_role_policy(
        RoleName=role,
        PolicyName=name,
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )


@BROKEN.by("every_host_runs_with_an_identity_of_its_own")
def two_hosts_share_a_role(aws: Aws, out: Exports) -> None:
    other = _instance(aws, "tools-1")["IamInstanceProfile"]["Arn"]
    _change_template(aws, "mcp-ledger", lambda data: data.update(IamInstanceProfile={"Arn": other}))


@BROKEN.by("every_host_runs_with_an_identity_of_its_own")
def the_next_host_has_no_role(aws: Aws, out: Exports) -> None:
    _change_template(aws, "edge-1", lambda data: data.pop("IamInstanceProfile"))


@BROKEN.by("roles_of_hosts_are_for_machines_only")
def people_may_become_a_host(aws: Aws, out: Exports) -> None:
    root = {**EC2, "Principal": {"AWS": f"arn:aws:iam::{_account(out)}:root"}}
    aws("iam").update_assume_role_policy(
        RoleName=_role(out, "mcp-ledger"),
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [EC2, root]}),
    )


@BROKEN.by("roles_of_hosts_have_a_boundary_that_holds")
def a_boundary_is_taken_off(aws: Aws, out: Exports) -> None:
    aws("iam").delete_role_permissions_boundary(RoleName=_role(out, "tools-1"))


@BROKEN.by("roles_of_hosts_have_a_boundary_that_holds")
def the_boundary_lets_hosts_become_others(aws: Aws, out: Exports) -> None:
    iam, arn = aws("iam"), out["boundary_arn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    wide = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
    found["Statement"].append(wide)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(found), SetAsDefault=True)


@BROKEN.by("permissions_of_hosts_name_actions_and_resources")
def a_host_may_read_every_bucket(aws: Aws, out: Exports) -> None:
    _allow(aws, _role(out, "edge-1"), "s3:GetObject", "*")


@BROKEN.by("permissions_of_hosts_name_actions_and_resources")
def a_host_may_do_what_it_likes_with_a_log(aws: Aws, out: Exports) -> None:
    _allow(aws, _role(out, "edge-1"), "logs:*", "arn:aws:logs:eu-central-1:1:log-group:x:*")


@BROKEN.by("a_host_reads_the_secrets_of_its_servers_and_no_others")
def a_server_cannot_read_its_secret(aws: Aws, out: Exports) -> None:
    role = _role(out, "mcp-ledger")
    for name in aws("iam").list_role_policies(RoleName=role)["PolicyNames"]:
        if "secrets" in name:
            aws("iam").delete_role_policy(RoleName=role, PolicyName=name)


@BROKEN.by("a_host_reads_the_secrets_of_its_servers_and_no_others")
def a_neighbour_is_let_in_everywhere(aws: Aws, out: Exports) -> None:
    """Open the role and the secret: the boundary alone does not separate servers."""
    arn = out["secret_arns"]["ledger"]["rates-api-key"]
    _allow(aws, _role(out, "tools-1"), "secretsmanager:GetSecretValue", arn)
    _allow(aws, _role(out, "tools-1"), "kms:Decrypt", out["key_arns"]["restricted"], "key")
    aws("secretsmanager").delete_resource_policy(SecretId=arn)


@BROKEN.by("credentials_of_hosts_need_a_session")
def a_host_goes_back_to_imdsv1(aws: Aws, out: Exports) -> None:
    own = _instance(aws, "edge-1")["InstanceId"]
    (found,) = ec2_backends[_account(out)][REGION].get_multi_instances_by_id([own])
    found.metadata_options.http_tokens = "optional"


@BROKEN.by("credentials_of_hosts_need_a_session")
def the_next_host_lets_containers_reach_its_credentials(aws: Aws, out: Exports) -> None:
    def change(data: dict[str, Any]) -> None:
        data["MetadataOptions"]["HttpPutResponseHopLimit"] = 2

    _change_template(aws, "mcp-ledger", change)


@BROKEN.by("hosts_have_no_public_address")
def a_host_is_given_a_public_address(aws: Aws, out: Exports) -> None:
    address = aws("ec2").allocate_address(Domain="vpc")["AllocationId"]
    interface = _instance(aws, "edge-1")["NetworkInterfaces"][0]["NetworkInterfaceId"]
    aws("ec2").associate_address(AllocationId=address, NetworkInterfaceId=interface)


@BROKEN.by("hosts_have_no_public_address")
def the_next_host_has_a_public_address(aws: Aws, out: Exports) -> None:
    def change(data: dict[str, Any]) -> None:
        data["NetworkInterfaces"][0]["AssociatePublicIpAddress"] = True

    _change_template(aws, "edge-1", change)


@BROKEN.by("no_key_pair_opens_a_host")
def the_next_host_has_a_key_pair(aws: Aws, out: Exports) -> None:
    _change_template(aws, "siem-1", lambda data: data.update(KeyName="mine"))


@BROKEN.by("disks_are_encrypted_with_the_key_of_their_class")
def the_next_disk_is_under_a_lesser_key(aws: Aws, out: Exports) -> None:
    def change(data: dict[str, Any]) -> None:
        data["BlockDeviceMappings"][0]["Ebs"]["KmsKeyId"] = out["key_arns"]["internal"]

    _change_template(aws, "ledger-db-1", change)


@BROKEN.by("disks_are_encrypted_with_the_key_of_their_class")
def a_disk_that_nobody_encrypted_is_attached(aws: Aws, out: Exports) -> None:
    instance = _instance(aws, "tools-1")
    zone = instance["Placement"]["AvailabilityZone"]
    disk = aws("ec2").create_volume(AvailabilityZone=zone, Size=8)["VolumeId"]
    aws("ec2").attach_volume(Device="/dev/sdf", InstanceId=instance["InstanceId"], VolumeId=disk)


@BROKEN.by("every_host_runs_once")
def a_group_is_emptied(aws: Aws, out: Exports) -> None:
    name = _group(aws, "sensor-1")["AutoScalingGroupName"]
    group = autoscaling_backends[_account(out)][REGION].autoscaling_groups[name]
    group.min_size = 0


@BROKEN.by("every_host_runs_once")
def a_host_runs_twice(aws: Aws, out: Exports) -> None:
    """A complete copy of a host."""
    (page,) = [
        page
        for page in aws("ec2").describe_instances()["Reservations"]
        if page["Instances"][0]["InstanceId"] == _instance(aws, "edge-1")["InstanceId"]
    ]
    (own,) = page["Instances"]
    disk = {"Encrypted": True, "KmsKeyId": out["key_arns"]["internal"], "VolumeSize": 16}
    aws("ec2").run_instances(
        ImageId=own["ImageId"],
        MinCount=1,
        MaxCount=1,
        SubnetId=own["SubnetId"],
        IamInstanceProfile={"Arn": own["IamInstanceProfile"]["Arn"]},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": disk}],
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [t for t in own["Tags"] if t["Key"].startswith("ringfence:")],
            }
        ],
    )

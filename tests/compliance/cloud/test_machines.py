"""Hosts in AWS: an identity each (IAM-07), no way in but the broker's (NET-03), disks (DAT-02).

What runs is looked at, and what the next one will be started from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from ringfence.cloud import machines
from ringfence.cloud.containment import STATE_TAGS
from ringfence.cloud.groups import host_group, server_group
from ringfence.cloud.secrets import own_secrets
from ringfence.cloud.tags import ENVIRONMENT, HOST
from ringfence.manifest.model import Host
from ringfence.report import UnverifiedError, not_applicable
from ringfence.verify.account import tagged_resources
from ringfence.verify.account.access import (
    AccessRequest,
    Document,
    IamDecision,
    IamPrincipal,
    applies,
    decide,
    granted,
    statements,
)
from ringfence.verify.account.cloud import Cloud, tag, texts
from ringfence.verify.account.identities import IamIdentity, Identities
from ringfence.verify.account.tagged_resources import UP

READ = "secretsmanager:GetSecretValue"
OTHERS = (
    *("iam:PutRolePolicy", "iam:PassRole", "iam:CreateUser", "iam:DeleteRolePermissionsBoundary"),
    *("ec2:RunInstances", "ec2:CreateSnapshot", "ec2:ModifyInstanceAttribute"),
    *("sts:AssumeRole", "ssm:StartSession", "ssm:SendCommand", "s3:GetObject"),
    *("kms:PutKeyPolicy", "kms:CreateGrant", "secretsmanager:PutSecretValue"),
    *("logs:DeleteLogStream", "logs:PutRetentionPolicy", "guardduty:DeleteDetector"),
)
"""Actions that no host needs, and an intruder would use."""


@dataclass(frozen=True)
class Start:
    """One machine of a host: that runs, or as its group would start it."""

    what: str
    metadata: Mapping[str, Any]
    key: str | None
    profile: str | None
    """ARN."""
    is_public: bool


@dataclass(frozen=True)
class Own:
    """Identity of a host."""

    role: IamIdentity
    boundary: Document | None

    def may(self, request: AccessRequest, resource: Document) -> bool:
        held = None if self.boundary is None else [self.boundary]
        made = decide(request, self.role.policies, boundary=held, resource=resource)
        return made is IamDecision.ALLOWED


@pytest.mark.control("IAM-07")
def test_every_host_runs_with_an_identity_of_its_own(cloud: Cloud):
    """Every machine with a role has its permissions: sharing one would multiply a takeover."""
    profiles, own = _profiles(cloud), _own(cloud)
    found: list[str] = []
    users: Counter[str] = Counter()
    for host, starts in _starts(cloud).items():
        used = {profiles.get(each.profile or "", "") for each in starts}
        if used != {own[host].role.name}:
            found.append(f"{host.name} acts as {', '.join(sorted(used)) or 'nobody'}")
        users.update(used)
    shared = [f"{name or 'no role'} by {count} hosts" for name, count in users.items() if count > 1]
    assert not found, f"{'; '.join(found)}; {UP}"
    assert not shared, f"{', '.join(shared)}; {UP}"


@pytest.mark.control("IAM-07")
def test_roles_of_hosts_are_for_machines_only(cloud: Cloud):
    """An identity that may assume the host's role needs no host."""
    found: list[str] = []
    strangers = (
        IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice"),
        IamPrincipal("AWS", "arn:aws:iam::999999999999:root"),
        IamPrincipal("Service", "lambda.amazonaws.com"),
    )
    for host, own in _own(cloud).items():
        trust = own.role.trust or {}
        for who in strangers:
            request = AccessRequest("sts:AssumeRole", principal=who)
            if any(s["Effect"] == "Allow" and applies(s, request) for s in statements(trust)):
                found.append(f"{host.name} by {who.name}")
    assert not found, f"may be assumed: {', '.join(found)}; {UP}"


@pytest.mark.control("IAM-07")
def test_roles_of_hosts_have_a_boundary_that_holds(cloud: Cloud):
    """Whatever somebody adds to a role later, on purpose or not, is held by it."""
    found: list[str] = []
    for host, own in _own(cloud).items():
        if own.boundary is None:
            found.append(f"{host.name} has none")
            continue
        may = [
            action
            for action in OTHERS
            if granted([own.boundary], AccessRequest(action, "*", own.role.principal))
            is IamDecision.ALLOWED
        ]
        found += [f"{host.name} could {', '.join(may)}"] if may else []
    assert not found, f"{'; '.join(found)}; {UP}"


@pytest.mark.control("IAM-07")
def test_permissions_of_hosts_name_actions_and_resources(cloud: Cloud):
    """A star is everything that AWS adds next year, too."""
    found: list[str] = []
    for host, own in _own(cloud).items():
        for policy in own.role.policies:
            for statement in statements(policy):
                if statement["Effect"] == "Allow" and _is_wide(statement):
                    found.append(f"{host.name}: {statement.get('Sid') or statement}")
    assert not found, f"too wide: {'; '.join(found)}; {UP}"


@pytest.mark.control("IAM-07")
def test_a_host_reads_the_secrets_of_its_servers_and_no_others(cloud: Cloud):
    """AWS decides by the role, its boundary and the secret's own policy."""
    if not own_secrets(cloud.environment):
        not_applicable("no server of the manifest has a secret")
    held, hosts = tagged_resources.secrets(cloud), _own(cloud)
    wrong: list[str] = []
    for declared in own_secrets(cloud.environment):
        secret = held.get((server_group(declared.server), declared.secret.name))
        if secret is None:
            continue  # IAM-08 says so
        reads = _reading(cloud, secret)
        for host, own in hosts.items():
            if reads(own) != (host_group(host) in declared.readers):
                how = "reads" if reads(own) else "cannot read"
                wrong.append(f"{host.name} {how} {declared.key}")
    assert not wrong, f"{', '.join(wrong)}; {UP}"


@pytest.mark.control("IAM-07")
def test_credentials_of_hosts_need_a_session(cloud: Cloud):
    """IMDSv2 and one hop: a server that fetches any given URL cannot fetch credentials."""
    wanted = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"}
    found = [
        each.what
        for starts in _starts(cloud).values()
        for each in starts
        if {key: each.metadata.get(key) for key in wanted} != wanted
    ]
    assert not found, f"IMDSv1 or more than one hop: {', '.join(found)}; {UP}"


@pytest.mark.control("NET-03")
def test_hosts_have_no_public_address(cloud: Cloud):
    """Nor will the next ones have one."""
    found = [s.what for starts in _starts(cloud).values() for s in starts if s.is_public]
    assert not found, f"public: {', '.join(found)}; {UP}"


@pytest.mark.control("NET-03")
def test_no_key_pair_opens_a_host(cloud: Cloud):
    """A copy of the key would open the host, without the broker, for as long as it lives."""
    found = [s.what for starts in _starts(cloud).values() for s in starts if s.key]
    assert not found, f"with a key pair: {', '.join(found)}; {UP}"


@pytest.mark.control("DAT-02")
def test_disks_are_encrypted_with_the_key_of_their_class(cloud: Cloud):
    """Snapshots and copies of a disk are encrypted with its key, and with no other."""
    found: list[str] = []
    for host in cloud.environment.hosts.values():
        wanted = machines.data_class(cloud.environment, host)
        for what, key in _disks(cloud, host):
            if not tagged_resources.is_key_of_class(cloud, key, wanted):
                found.append(f"{what} (not of class {wanted})")
    assert not found, f"under another key or none: {', '.join(found)}; {UP}"


@pytest.mark.control("IAM-07")
def test_every_host_runs_once(cloud: Cloud):
    """A second machine with a host's identity is one that nobody hardens or looks at."""
    found: list[str] = []
    running, groups = _instances(cloud), _groups(cloud)
    for name in cloud.environment.hosts:
        sizes = [(g["MinSize"], g["MaxSize"], g["DesiredCapacity"]) for g in groups.get(name, [])]
        if sizes != [(1, 1, 1)]:
            found.append(f"{name} has {len(sizes)} Auto Scaling groups of sizes {sizes}")
        elif len(running.get(name, [])) != 1:
            found.append(f"{name} runs {len(running.get(name, []))} times")
    assert not found, f"{', '.join(found)}; {UP}"


def _starts(cloud: Cloud) -> Mapping[Host, list[Start]]:
    running, templates = _instances(cloud), _templates(cloud)
    found = {
        host: [
            *map(_running, running.get(host.name, [])),
            *(_next(host, template) for template in templates.get(host.name, [])),
        ]
        for host in cloud.environment.hosts.values()
    }
    missing = [host.name for host, starts in found.items() if not starts]
    assert not missing, f"nothing runs as {', '.join(missing)}, and nothing will; {UP}"
    return found


def _running(instance: Document) -> Start:
    return Start(
        f"{tag(instance, HOST)} ({instance['InstanceId']})",
        instance.get("MetadataOptions", {}),
        instance.get("KeyName"),
        instance.get("IamInstanceProfile", {}).get("Arn"),
        bool(instance.get("PublicIpAddress"))
        or any(
            each.get("Association", {}).get("PublicIp")
            for each in instance.get("NetworkInterfaces", [])
        ),
    )


def _next(host: Host, data: Document) -> Start:
    interfaces = data.get("NetworkInterfaces", [])
    return Start(
        f"launch template of {host.name}",
        data.get("MetadataOptions", {}),
        data.get("KeyName"),
        data.get("IamInstanceProfile", {}).get("Arn"),
        any(each.get("AssociatePublicIpAddress") is not False for each in interfaces),
    )


def _by_host(cloud: Cloud, things: list[Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for each in things:
        if tag(each, ENVIRONMENT) == cloud.environment.name:
            found.setdefault(tag(each, HOST) or "", []).append(each)
    return found


@cache
def _instances(cloud: Cloud) -> Mapping[str, list[Document]]:
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    pages = cloud.all("ec2", "describe_instances", "Reservations", Filters=alive)
    found = [each for page in pages for each in page["Instances"]]
    # A contained instance still runs, as evidence, without network (IRP-01).
    return _by_host(cloud, [each for each in found if tag(each, STATE_TAGS[0]) is None])


@cache
def _groups(cloud: Cloud) -> Mapping[str, list[Document]]:
    return _by_host(
        cloud, cloud.all("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups")
    )


@cache
def _templates(cloud: Cloud) -> Mapping[str, list[Document]]:
    """Data of the version that a host's group starts."""
    found: dict[str, list[Document]] = {}
    for host, groups in _groups(cloud).items():
        for template in (g["LaunchTemplate"] for g in groups if "LaunchTemplate" in g):
            (version,) = cloud.client("ec2").describe_launch_template_versions(
                LaunchTemplateId=template["LaunchTemplateId"],
                Versions=[template.get("Version", "$Default")],
            )["LaunchTemplateVersions"]
            found.setdefault(host, []).append(version["LaunchTemplateData"])
    return found


def _disks(cloud: Cloud, host: Host) -> Iterator[tuple[str, str | None]]:
    """Every disk that is attached or will be, with its key."""
    ids = [each["InstanceId"] for each in _instances(cloud).get(host.name, [])]
    attached = [{"Name": "attachment.instance-id", "Values": ids}]
    for disk in cloud.all("ec2", "describe_volumes", "Volumes", Filters=attached) if ids else []:
        yield (
            f"{host.name}: {disk['VolumeId']}",
            disk.get("KmsKeyId") if disk["Encrypted"] else None,
        )
    for data in _templates(cloud).get(host.name, []):
        mappings = data.get("BlockDeviceMappings", [])
        if not any(each["DeviceName"] == machines.ROOT_DEVICE for each in mappings):
            yield f"{host.name}: the next root disk", None
        for mapping in mappings:
            disk = mapping.get("Ebs", {})
            key = disk.get("KmsKeyId") if disk.get("Encrypted") else None
            yield f"{host.name}: the next {mapping['DeviceName']}", key
    if not ids:
        yield f"{host.name}: it does not run, and so has no disk", None


def _profiles(cloud: Cloud) -> Mapping[str, str]:
    """Name of the role by ARN of the instance profile."""
    found = cloud.all("iam", "list_instance_profiles", "InstanceProfiles")
    return {each["Arn"]: each["Roles"][0]["RoleName"] for each in found if each["Roles"]}


def _own(cloud: Cloud) -> Mapping[Host, Own]:
    """Raises `UnverifiedError` where a host has no role."""
    identities, iam = Identities(cloud), cloud.client("iam")
    found: dict[Host, Own] = {}
    for host in cloud.environment.hosts.values():
        name, mine = host_group(host), cloud.environment.name
        wanted = {("Name", f"{mine}-{name}"), (ENVIRONMENT, mine)}
        role = next((each for each in identities.roles if wanted <= {*each.tags}), None)
        if role is None:
            raise UnverifiedError(f"{mine} has no role for {host.name}; {UP}")
        limit = iam.get_role(RoleName=role.name)["Role"].get("PermissionsBoundary")
        boundary = identities.document(limit["PermissionsBoundaryArn"]) if limit else None
        found[host] = Own(role, boundary)
    return found


def _reading(cloud: Cloud, secret: Document) -> Callable[[Own], bool]:
    """Whether somebody gets the value, and opens it through Secrets Manager with its key."""
    arn, key = secret["ARN"], secret["KmsKeyId"]
    given = cloud.client("secretsmanager").get_resource_policy(SecretId=arn)
    of_secret = json.loads(given.get("ResourcePolicy") or "{}")
    of_key = json.loads(
        cloud.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    )
    through = {
        "kms:ViaService": f"secretsmanager.{cloud.place.region}.amazonaws.com",
        "kms:CallerAccount": cloud.account,
    }
    return lambda own: (
        own.may(AccessRequest(READ, arn, own.role.principal), of_secret)
        and own.may(AccessRequest("kms:Decrypt", key, own.role.principal, through), of_key)
    )


def _is_wide(statement: Document) -> bool:
    if "NotAction" in statement or "NotResource" in statement:
        return True
    actions = texts(statement.get("Action"))
    if any("*" in action for action in actions):
        return True
    # AWS offers these for the whole account only.
    channels = all(action.startswith("ssmmessages:") for action in actions)
    return "*" in texts(statement.get("Resource")) and not channels

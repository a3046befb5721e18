"""Steps of containment and of release.

Each step first reads the state and changes only what differs: events arrive more than once, and
Lambda repeats a failed run. It returns a description of its change, or None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from .decision import ContainmentRequest
from .machine import (
    CONTAINED,
    ENVIRONMENT,
    REASON,
    Aws,
    ContainmentSettings,
    InstanceState,
    OriginalState,
    code,
    delete_record,
    is_protected,
    now,
)

Step = Callable[[Aws, ContainmentSettings, InstanceState, OriginalState], str | None]


def disconnect(
    aws: Aws, settings: ContainmentSettings, machine: InstanceState, _: OriginalState
) -> str | None:
    """Put every interface into the group without rules.

    A connection that is already open may continue until it ends: AWS tracks it.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html
    """
    wanted = (settings.quarantine,)
    open_ = [interface for interface, groups in machine.groups.items() if groups != wanted]
    for interface in open_:
        aws("ec2").modify_network_interface_attribute(
            NetworkInterfaceId=interface, Groups=[*wanted]
        )
    return f"put {', '.join(open_)} into {settings.quarantine}" if open_ else None


def reconnect(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    changed = [
        interface
        for interface, groups in record.groups.items()
        if interface in machine.groups and set(machine.groups[interface]) != set(groups)
    ]
    for interface in changed:
        aws("ec2").modify_network_interface_attribute(
            NetworkInterfaceId=interface, Groups=[*record.groups[interface]]
        )
    return f"restored the groups of {', '.join(changed)}" if changed else None


def leave_scaling_group(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, __: OriginalState
) -> str | None:
    """Detach the instance: Auto Scaling terminates unhealthy ones despite termination protection.

    In standby, it could still be terminated with its group. The group starts a replacement.
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-detach-attach-instances.html
    """
    group = _scaling_group(aws, machine.id)
    if group is None:
        return None
    aws("autoscaling").detach_instances(
        InstanceIds=[machine.id], AutoScalingGroupName=group, ShouldDecrementDesiredCapacity=False
    )
    return f"detached it from {group}"


def join_scaling_group(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    """Attach the instance again. AWS refuses if its replacement fills the group."""
    group = record.scaling_group
    if group is None or _scaling_group(aws, machine.id) == group:
        return None
    aws("autoscaling").attach_instances(InstanceIds=[machine.id], AutoScalingGroupName=group)
    return f"attached it to {group}"


def _scaling_group(aws: Aws, instance: str) -> str | None:
    found = aws("autoscaling").describe_auto_scaling_instances(InstanceIds=[instance])
    for each in found["AutoScalingInstances"]:
        if not each["LifecycleState"].startswith("Detach"):
            return each["AutoScalingGroupName"]
    return None


def protect(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, __: OriginalState
) -> str | None:
    """Protect the evidence from termination by mistake."""
    if is_protected(aws, machine.id):
        return None
    _protect(aws, machine.id, True)
    return "protected it from termination"


def unprotect(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    if record.protected is not False or not is_protected(aws, machine.id):
        return None
    _protect(aws, machine.id, False)
    return "removed the protection from termination"


def _protect(aws: Aws, instance: str, value: bool) -> None:
    aws("ec2").modify_instance_attribute(
        InstanceId=instance, DisableApiTermination={"Value": value}
    )


def deny_credentials(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    """Deny the instance's credentials everywhere, by their `aws:userid`, which names the instance.

    Other instances with the same role keep working, and credentials that the metadata service still
    issues are denied too.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
    """
    return _write_denial(aws, machine, record, {"StringLike": {"aws:userid": f"*:{machine.id}"}})


def allow_new_credentials(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    """Deny old credentials only: somebody may have copied them, and they last for hours.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html
    """
    for role in _roles(aws, record):
        if "DateLessThan" in _denial(aws, role, machine.id).get("Condition", {}):
            return None
    conditions = {
        "StringLike": {"aws:userid": f"*:{machine.id}"},
        "DateLessThan": {"aws:TokenIssueTime": now()},
    }
    return _write_denial(aws, machine, record, conditions)


def _write_denial(
    aws: Aws, machine: InstanceState, record: OriginalState, conditions: dict[str, dict[str, str]]
) -> str | None:
    denial = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": conditions}
    roles = [r for r in _roles(aws, record) if _denial(aws, r, machine.id) != denial]
    for role in roles:
        aws("iam").put_role_policy(
            RoleName=role,
            PolicyName=_policy(machine.id),
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [denial]}),
        )
    until = " issued so far" if "DateLessThan" in conditions else ""
    return f"denied its credentials{until} in {', '.join(roles)}" if roles else None


def _denial(aws: Aws, role: str, instance: str) -> dict[str, Any]:
    try:
        found = aws("iam").get_role_policy(RoleName=role, PolicyName=_policy(instance))
    except ClientError as error:
        if code(error) == "NoSuchEntity":
            return {}
        raise
    return found["PolicyDocument"]["Statement"][0]


def _roles(aws: Aws, record: OriginalState) -> list[str]:
    if record.profile is None:
        return []
    name = record.profile.rpartition("/")[2]
    profile = aws("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    return [role["RoleName"] for role in profile["Roles"]]


def _policy(instance: str) -> str:
    return f"ringfence-containment-{instance}"


def detach_profile(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, __: OriginalState
) -> str | None:
    """Detach the instance profile: the metadata service then issues no credentials."""
    found = _associations(aws, machine.id)
    for association in found:
        aws("ec2").disassociate_iam_instance_profile(AssociationId=association["AssociationId"])
    return "detached its instance profile" if found else None


def attach_profile(
    aws: Aws, _: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    if record.profile is None or _associations(aws, machine.id):
        return None
    aws("ec2").associate_iam_instance_profile(
        InstanceId=machine.id, IamInstanceProfile={"Arn": record.profile}
    )
    return f"attached its instance profile {record.profile}"


def _associations(aws: Aws, instance: str) -> list[Any]:
    found = aws("ec2").describe_iam_instance_profile_associations(
        Filters=[{"Name": "instance-id", "Values": [instance]}]
    )["IamInstanceProfileAssociations"]
    return [each for each in found if each["State"] in ("associating", "associated")]


def take_snapshots(
    aws: Aws, settings: ContainmentSettings, machine: InstanceState, record: OriginalState
) -> str | None:
    """Take snapshots of all disks at one moment, encrypted with the keys of the disks.

    Two concurrent events may create two sets: the call has no idempotency token.
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html
    """
    ec2 = aws("ec2")
    marks = {CONTAINED: record.event, "ringfence:instance": machine.id}
    present = ec2.describe_snapshots(
        OwnerIds=["self"],
        Filters=[{"Name": f"tag:{key}", "Values": [text]} for key, text in marks.items()],
    )["Snapshots"]
    if present:
        return None
    tags = {
        "Name": f"{settings.environment}-containment-{machine.id}",
        ENVIRONMENT: settings.environment,
        "ringfence:control": settings.control,
        **marks,
    }
    made = ec2.create_snapshots(
        InstanceSpecification={"InstanceId": machine.id, "ExcludeBootVolume": False},
        Description=f"{machine.id} at its containment",
        TagSpecifications=[
            {
                "ResourceType": "snapshot",
                "Tags": [{"Key": key, "Value": text} for key, text in tags.items()],
            }
        ],
    )["Snapshots"]
    return f"took snapshots {', '.join(each['SnapshotId'] for each in made)}"


def mark(
    aws: Aws,
    machine: InstanceState,
    request: ContainmentRequest,
    record: OriginalState,
    *,
    complete: bool,
) -> None:
    """Tag the instance, for people and so that the next event does not notify again."""
    reason = re.sub(r"[^A-Za-z0-9 +\-=._:/@]", " ", f"{request.by}: {request.reason}")
    mark = record.event if complete else f"incomplete: {record.event}"
    tags = {CONTAINED: mark, REASON: reason[:256]}
    aws("ec2").create_tags(
        Resources=[machine.id],
        Tags=[{"Key": key, "Value": text} for key, text in tags.items()],
    )


def finish(aws: Aws, settings: ContainmentSettings, machine: InstanceState) -> None:
    """Delete mark and record. This comes last: until then, a release can be repeated."""
    aws("ec2").delete_tags(Resources=[machine.id], Tags=[{"Key": CONTAINED}, {"Key": REASON}])
    delete_record(aws, settings, machine.id)


CONTAINMENT: tuple[tuple[str, Step], ...] = (
    ("network", disconnect),
    ("scaling_group", leave_scaling_group),
    ("credentials", deny_credentials),
    ("profile", detach_profile),
    ("protection", protect),
    ("snapshots", take_snapshots),
)
"""Steps in order of urgency."""
RELEASE: tuple[tuple[str, Step], ...] = (
    ("credentials", allow_new_credentials),
    ("profile", attach_profile),
    ("protection", unprotect),
    ("network", reconnect),
    ("scaling_group", join_scaling_group),
)
"""The network comes back only after the rest is restored."""

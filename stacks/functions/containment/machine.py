"""The state of an instance, and the record of its original state.

The record is a parameter of Systems Manager: one versioned value of up to 4 KB, written by one call
before the first change. Tags would hold 256 characters each, and a principal that may tag instances
could change what a release restores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from .decision import ContainmentRequest, IgnoredError

Aws = Callable[[str], Any]
"""boto3 clients by the name of the service."""

ENVIRONMENT = "ringfence:environment"
CONTAINED, REASON = "ringfence:containment", "ringfence:containment-reason"
AUTO_SCALING = "aws:autoscaling:groupName"


@dataclass(frozen=True)
class ContainmentSettings:
    control: str
    environment: str
    quarantine: str
    """Id of the security group without rules."""
    topic: str
    records: str
    """Start of the names of the records."""
    severity: float

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> ContainmentSettings:
        return cls(
            control=variables["CONTROL"],
            environment=variables["ENVIRONMENT"],
            quarantine=variables["QUARANTINE_GROUP"],
            topic=variables["TOPIC"],
            records=variables["RECORDS"],
            severity=float(variables["SEVERITY"]),
        )


@dataclass(frozen=True)
class InstanceState:
    id: str
    groups: Mapping[str, tuple[str, ...]]
    """Security groups by interface."""
    profile: str | None
    """ARN of its instance profile."""
    scaling_group: str | None
    marked: str | None
    """Event that caused its containment, from its tag."""

    def in_quarantine(self, settings: ContainmentSettings) -> bool:
        return any(settings.quarantine in groups for groups in self.groups.values())


@dataclass(frozen=True)
class OriginalState:
    event: str
    at: str
    reason: str
    by: str
    groups: Mapping[str, tuple[str, ...]]
    profile: str | None
    scaling_group: str | None
    protected: bool | None
    """Termination protection; None if the call failed, and then a release keeps the protection."""


def find(aws: Aws, settings: ContainmentSettings, instance: str) -> InstanceState:
    """Raise `IgnoredError` unless the instance exists and belongs to this environment."""
    try:
        found = aws("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    except ClientError as error:
        if code(error) in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
            found = []
        else:
            raise
    for machine in (each for reservation in found for each in reservation["Instances"]):
        tags = {tag["Key"]: tag["Value"] for tag in machine.get("Tags", [])}
        if tags.get(ENVIRONMENT) != settings.environment:
            raise IgnoredError(f"{instance} does not belong to {settings.environment}")
        if machine["State"]["Name"] in ("shutting-down", "terminated"):
            raise IgnoredError(f"{instance} is {machine['State']['Name']}")
        return InstanceState(
            id=instance,
            groups={
                interface["NetworkInterfaceId"]: tuple(g["GroupId"] for g in interface["Groups"])
                for interface in machine["NetworkInterfaces"]
            },
            profile=machine.get("IamInstanceProfile", {}).get("Arn"),
            scaling_group=tags.get(AUTO_SCALING),
            marked=tags.get(CONTAINED),
        )
    raise IgnoredError(f"{instance} does not exist")


def record_of(aws: Aws, machine: InstanceState, request: ContainmentRequest) -> OriginalState:
    """Record the present state."""
    return OriginalState(
        event=request.event,
        at=now(),
        reason=request.reason,
        by=request.by,
        groups=machine.groups,
        profile=machine.profile,
        scaling_group=machine.scaling_group,
        protected=_protected(aws, machine),
    )


def read_record(aws: Aws, settings: ContainmentSettings, instance: str) -> OriginalState | None:
    try:
        text = aws("ssm").get_parameter(Name=settings.records + instance)["Parameter"]["Value"]
    except ClientError as error:
        if code(error) == "ParameterNotFound":
            return None
        raise
    found = json.loads(text)
    groups = {interface: tuple(ids) for interface, ids in found["groups"].items()}
    return OriginalState(**{**found, "groups": groups})


def write_record(
    aws: Aws, settings: ContainmentSettings, instance: str, record: OriginalState
) -> None:
    aws("ssm").put_parameter(
        Name=settings.records + instance,
        Description=f"State of {instance} before its containment",
        Type="String",
        Value=json.dumps(asdict(record)),
        Overwrite=True,
    )


def delete_record(aws: Aws, settings: ContainmentSettings, instance: str) -> None:
    aws("ssm").delete_parameter(Name=settings.records + instance)


def is_protected(aws: Aws, instance: str) -> bool:
    found = aws("ec2").describe_instance_attribute(
        InstanceId=instance, Attribute="disableApiTermination"
    )
    return found["DisableApiTermination"]["Value"]


def _protected(aws: Aws, machine: InstanceState) -> bool | None:
    """Return None on an error: a record without the answer is better than none."""
    try:
        return is_protected(aws, machine.id)
    except ClientError:
        return None


def code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

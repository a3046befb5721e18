"""An instance as it is, and the record of how it was before it was contained.

The record is a parameter of Systems Manager: one value of up to 4 KB, written by one call before
anything changes, versioned, and nobody who may merely tag instances can change what a release
restores. Tags hold 256 characters each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from .decision import IgnoredError, Request

Aws = Callable[[str], Any]
"""boto3 clients by the name of the service."""

ENVIRONMENT = "ringfence:environment"
CONTAINED, REASON = "ringfence:containment", "ringfence:containment-reason"
AUTO_SCALING = "aws:autoscaling:groupName"


@dataclass(frozen=True)
class Settings:
    environment: str
    quarantine: str
    """Id of the security group that allows nothing."""
    topic: str
    records: str
    """How the names of the records begin."""
    severity: float

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> Settings:
        return cls(
            environment=variables["ENVIRONMENT"],
            quarantine=variables["QUARANTINE_GROUP"],
            topic=variables["TOPIC"],
            records=variables["RECORDS"],
            severity=float(variables["SEVERITY"]),
        )


@dataclass(frozen=True)
class Machine:
    id: str
    groups: Mapping[str, tuple[str, ...]]
    """Security groups by interface."""
    profile: str | None
    """ARN of its instance profile."""
    scaling_group: str | None
    marked: str | None
    """Event that it is marked as contained for."""

    def in_quarantine(self, settings: Settings) -> bool:
        return any(settings.quarantine in groups for groups in self.groups.values())


@dataclass(frozen=True)
class Record:
    event: str
    at: str
    reason: str
    by: str
    groups: Mapping[str, tuple[str, ...]]
    profile: str | None
    scaling_group: str | None
    protected: bool | None
    """Against termination; None where AWS would not say, and then protection stays."""


def find(aws: Aws, settings: Settings, instance: str) -> Machine:
    """Raises `IgnoredError` unless it is of this environment and exists."""
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
            raise IgnoredError(f"{instance} is not of {settings.environment}")
        if machine["State"]["Name"] in ("shutting-down", "terminated"):
            raise IgnoredError(f"{instance} is {machine['State']['Name']}")
        return Machine(
            id=instance,
            groups={
                interface["NetworkInterfaceId"]: tuple(g["GroupId"] for g in interface["Groups"])
                for interface in machine["NetworkInterfaces"]
            },
            profile=machine.get("IamInstanceProfile", {}).get("Arn"),
            scaling_group=tags.get(AUTO_SCALING),
            marked=tags.get(CONTAINED),
        )
    raise IgnoredError(f"{instance} is not there")


def record_of(aws: Aws, machine: Machine, request: Request) -> Record:
    """The present state."""
    return Record(
        event=request.event,
        at=now(),
        reason=request.reason,
        by=request.by,
        groups=machine.groups,
        profile=machine.profile,
        scaling_group=machine.scaling_group,
        protected=_protected(aws, machine),
    )


def recorded(aws: Aws, settings: Settings, instance: str) -> Record | None:
    try:
        text = aws("ssm").get_parameter(Name=settings.records + instance)["Parameter"]["Value"]
    except ClientError as error:
        if code(error) == "ParameterNotFound":
            return None
        raise
    found = json.loads(text)
    groups = {interface: tuple(ids) for interface, ids in found["groups"].items()}
    return Record(**{**found, "groups": groups})


def keep(aws: Aws, settings: Settings, instance: str, record: Record) -> None:
    aws("ssm").put_parameter(
        Name=settings.records + instance,
        Description=f"How {instance} was before it was contained",
        Type="String",
        Value=json.dumps(asdict(record)),
        Overwrite=True,
    )


def forget(aws: Aws, settings: Settings, instance: str) -> None:
    aws("ssm").delete_parameter(Name=settings.records + instance)


def protected(aws: Aws, instance: str) -> bool:
    found = aws("ec2").describe_instance_attribute(
        InstanceId=instance, Attribute="disableApiTermination"
    )
    return found["DisableApiTermination"]["Value"]


def _protected(aws: Aws, machine: Machine) -> bool | None:
    """A record without it is better than none."""
    try:
        return protected(aws, machine.id)
    except ClientError:
        return None


def code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

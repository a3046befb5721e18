"""Entry point: starts a session for every interface that lacks one, whatever the event.

Auto Scaling starts and terminates instances without Pulumi. Each run examines all instances, so
that it finds those that an earlier run missed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ENVIRONMENT, GROUP, CONTROL = "ringfence:environment", "ringfence:group", "ringfence:control"
NUMBERS = range(1, 32767)
"""Numbers of the sessions of an interface: AWS uses the first whose filter accepts a packet."""


class IncompleteMirroringError(Exception):
    """An interface is not mirrored; the message says which, and why."""


@dataclass(frozen=True)
class MirroringSettings:
    control: str
    environment: str
    sensors: frozenset[str]
    """Groups of the sensors: mirroring their traffic would never end."""
    target: str
    filter: str

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> MirroringSettings:
        return cls(
            control=variables["CONTROL"],
            environment=variables["ENVIRONMENT"],
            sensors=frozenset(variables["SENSORS"].split(",")),
            target=variables["TARGET"],
            filter=variables["FILTER"],
        )


def handle(_event: object, _context: object) -> Mapping[str, str]:
    """Handle an event of Lambda."""
    # Not at the top: tests import this module without boto3's region.
    import boto3

    make: Any = boto3.client
    return mirror(make("ec2"), MirroringSettings.read())


def mirror(ec2: Any, settings: MirroringSettings) -> Mapping[str, str]:
    """Return the started sessions by interface. Raise `IncompleteMirroringError` if one failed."""
    from botocore.exceptions import ClientError

    sessions = _sessions(ec2)
    made: dict[str, str] = {}
    failed: dict[str, str] = {}
    for interface, instance in _interfaces(ec2, settings):
        present = sessions.get(interface, [])
        if any(session["TrafficMirrorTargetId"] == settings.target for session in present):
            continue
        taken = {session["SessionNumber"] for session in present}
        try:
            made[interface] = _start(ec2, settings, interface, taken)
        except ClientError as error:
            failed[interface] = str(error)
        outcome = "failed" if interface in failed else "mirrored"
        print(
            json.dumps(
                {
                    "interface": interface,
                    "instance": instance,
                    "outcome": outcome,
                    "detail": failed.get(interface) or made.get(interface),
                }
            )
        )
    if failed:
        listed = "; ".join(f"{interface}: {text}" for interface, text in failed.items())
        raise IncompleteMirroringError(f"not mirrored: {listed}")
    return made


def _interfaces(ec2: Any, settings: MirroringSettings) -> Iterator[tuple[str, str]]:
    """Return each interface with its instance."""
    filters = [
        {"Name": f"tag:{ENVIRONMENT}", "Values": [settings.environment]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
                if tags.get(GROUP) not in settings.sensors:
                    for interface in instance["NetworkInterfaces"]:
                        yield interface["NetworkInterfaceId"], instance["InstanceId"]


def _sessions(ec2: Any) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return the sessions by interface."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for page in ec2.get_paginator("describe_traffic_mirror_sessions").paginate():
        for session in page["TrafficMirrorSessions"]:
            found.setdefault(session["NetworkInterfaceId"], []).append(session)
    return found


def _start(ec2: Any, settings: MirroringSettings, interface: str, taken: set[int]) -> str:
    tags = {ENVIRONMENT: settings.environment, CONTROL: settings.control}
    return ec2.create_traffic_mirror_session(
        NetworkInterfaceId=interface,
        TrafficMirrorTargetId=settings.target,
        TrafficMirrorFilterId=settings.filter,
        SessionNumber=next(number for number in NUMBERS if number not in taken),
        TagSpecifications=[
            {
                "ResourceType": "traffic-mirror-session",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )["TrafficMirrorSession"]["TrafficMirrorSessionId"]

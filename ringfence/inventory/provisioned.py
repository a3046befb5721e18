"""Addresses of provisioned hosts: their running instances are found in AWS by tags.

A manifest has no address of such a host. `with_instances` returns the environment as if it had, so
that firewall, certificates and log shipping can use it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from ringfence.cloud.containment import STATE_TAGS
from ringfence.cloud.tags import ENVIRONMENT, HOST
from ringfence.inventory.connection import TOOLS
from ringfence.manifest.model import Environment, Flow, Host, LogSink, Segment


class ProvisionedError(Exception):
    """The hosts cannot be located: why, and what to do."""


@dataclass(frozen=True)
class Instance:
    id: str
    address: IPv4Address


def with_instances(environment: Environment) -> Environment:
    """Return the environment with the addresses of its instances, if it is provisioned.

    Raises `ProvisionedError`.
    """
    if environment.provisioning is None:
        return environment
    found = instances(environment)
    require_running(environment, found)
    return with_addresses(environment, found)


def instances(environment: Environment) -> Mapping[str, Instance]:
    """Return the running instances by host; none if nothing is provisioned.

    The account is selected as for every AWS tool, by AWS_PROFILE for example. Raises
    `ProvisionedError`.
    """
    place = environment.provisioning
    if place is None:
        return {}
    # boto3 is an extra: an environment of existing hosts does not need it.
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise ProvisionedError(
            f"{environment.name} is provisioned in AWS, and the Python package {error.name}, which "
            f"finds its hosts, is not installed; run: pip install 'ringfence[aws]'"
        ) from None
    filters = {f"tag:{ENVIRONMENT}": environment.name, "instance-state-name": "running"}
    query = [{"Name": name, "Values": [value]} for name, value in filters.items()]
    try:
        client = boto3.Session(region_name=place.region).client("ec2")
        pages = client.get_paginator("describe_instances").paginate(Filters=query)
        running = [i for page in pages for r in page["Reservations"] for i in r["Instances"]]
    except (BotoCoreError, ClientError) as error:
        raise ProvisionedError(
            f"AWS does not list the hosts of {environment.name}: {error}; "
            "log in (aws sso login) or choose another AWS_PROFILE"
        ) from None
    found: dict[str, Instance] = {}
    for each in running:
        tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", [])}
        name = tags.get(HOST)
        # A contained instance still runs, as evidence; its group has started another one.
        if name is None or name not in environment.hosts or STATE_TAGS[0] in tags:
            continue
        if name in found:
            raise ProvisionedError(
                f"{name} runs twice: {found[name].id} and {each['InstanceId']}; end the one that "
                "is not in its Auto Scaling group"
            )
        found[name] = Instance(each["InstanceId"], IPv4Address(each["PrivateIpAddress"]))
    return found


def require_running(environment: Environment, found: Mapping[str, Instance]) -> None:
    """Raise `ProvisionedError` with every host that does not run."""
    place = environment.provisioning
    if place and (missing := [name for name in environment.hosts if name not in found]):
        raise ProvisionedError(
            f"no instance in {place.region} runs as {', '.join(missing)} of {environment.name}; "
            "run pulumi up, or wait until they have started"
        )


def with_addresses(environment: Environment, found: Mapping[str, Instance]) -> Environment:
    """Return the environment with these addresses wherever it refers to a host."""

    def at(host: Host) -> Host:
        instance = found.get(host.name)
        if instance is None:
            return host
        return replace(host, address=instance.address, instance=instance.id)

    def flow(each: Flow) -> Flow:
        source = each.source if isinstance(each.source, Segment) else at(each.source)
        return replace(each, source=source, target=at(each.target))

    def sink(each: LogSink) -> LogSink:
        return (
            replace(each, host=(host := at(each.host)), address=host.address) if each.host else each
        )

    return replace(
        environment,
        hosts={name: at(host) for name, host in environment.hosts.items()},
        flows=tuple(map(flow, environment.flows)),
        servers={
            name: replace(
                server,
                host=at(server.host),
                egress=tuple(
                    replace(egress, host=at(egress.host)) if egress.host else egress
                    for egress in server.egress
                ),
            )
            for name, server in environment.servers.items()
        },
        secrets={
            name: replace(secret, readers=tuple(map(at, secret.readers)))
            for name, secret in environment.secrets.items()
        },
        log_sink=sink(environment.log_sink),
    )


def missing_tools(environment: Environment) -> str:
    """Return which programs to install to reach hosts; empty if none is missing."""
    missing = [tool for tool in TOOLS if environment.provisioning and shutil.which(tool) is None]
    if not missing:
        return ""
    return (
        f"hosts of {environment.name} are reached through Session Manager, and this machine has no "
        f"{' and no '.join(missing)}; install the AWS CLI and its Session Manager plugin"
    )

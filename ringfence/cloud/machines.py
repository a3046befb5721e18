"""Hosts as EC2 instances: image, disk, role and permissions.

A host of the manifest is one instance with its own role. Its Auto Scaling group has size 1 and
replaces a failed instance. A changed launch template replaces nothing: there is no instance
refresh. To get a new instance, terminate the old one
(`aws autoscaling terminate-instance-in-auto-scaling-group`, without decrementing the capacity).
Nothing replaces a host that keeps data, not even after a failure: the new instance would have an
empty disk. A person decides, and the disk survives the instance.
"""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.cloud import groups
from ringfence.cloud.policies import Statement, document, service_trust
from ringfence.cloud.secrets import OwnSecret, arns, own_secrets
from ringfence.cloud.services import DATA_CLASSES
from ringfence.cloud.sessions import recording
from ringfence.manifest import instance_types
from ringfence.manifest.model import DataClass, Environment, Host, Machine

PRECEDENCE = ("edge", "mcp_servers", "siem", "sensor", "data")
"""The first of a host's groups in this order that `provisioning.aws.machines` names decides."""
KEEPERS = ("siem", "data")
"""Groups whose hosts keep the only copy of data."""

RELEASE = 13
ROOT_DEVICE = "/dev/xvda"
"""Root device of Debian's images: https://wiki.debian.org/Cloud/AmazonEC2Image"""


def machine(environment: Environment, host: Host) -> Machine:
    assert environment.provisioning
    place = environment.provisioning
    named = (place.machines[g] for g in PRECEDENCE if g in host.groups and g in place.machines)
    return next(named, place.default_machine)


def architecture(environment: Environment, host: Host) -> instance_types.Architecture:
    return instance_types.architecture(machine(environment, host).type)


def image(architecture: instance_types.Architecture) -> str:
    """Debian's newest image at every start.

    https://wiki.debian.org/Cloud/AmazonEC2Image
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/using-systems-manager-parameters.html
    """
    return f"resolve:ssm:/aws/service/debian/release/{RELEASE}/latest/{architecture}"


def keeps_data(host: Host) -> bool:
    return not host.groups.isdisjoint(KEEPERS)


def data_class(environment: Environment, host: Host) -> DataClass:
    """Class of the disk: the highest of the host's servers, at least internal, as logs name people.

    No tool says what a host of group `data` keeps, so the environment's highest class applies.
    """
    servers = environment.servers.values()
    own = servers if "data" in host.groups else environment.servers_on(host)
    found = {tool.data_class for server in own for tool in server.tools.values()}
    return next(each for each in reversed(DATA_CLASSES) if each in {"internal", *found})


def security_groups(environment: Environment, host: Host) -> tuple[str, ...]:
    """Return the names of the groups of its interface."""
    (found,) = [i for i in groups.interfaces(environment) if i.name == f"host {host.name}"]
    return found.groups


def role_group(environment: Environment, host: Host) -> str:
    """Return the group that the host's role serves: its only server's, or its own."""
    servers = environment.servers_on(host)
    return groups.server_group(servers[0]) if len(servers) == 1 else groups.host_group(host)


def readable_secrets(environment: Environment, host: Host) -> tuple[OwnSecret, ...]:
    """Return the secrets of servers on the host, and of servers that it is the other end of."""
    own = groups.host_group(host)
    return tuple(secret for secret in own_secrets(environment) if own in secret.readers)


def trust() -> str:
    return service_trust("ec2.amazonaws.com")


def agent_permissions(*, account: str, region: str) -> str:
    """Permissions of the SSM agent: to report its instance, and to hold sessions.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
    """
    return document(*_agent(account=account, region=region))


def boundary(
    environment: Environment,
    *,
    account: str,
    region: str,
    session_log_group: str,
    session_key: str,
    keys: Sequence[str],
) -> str:
    """Permissions boundary of hosts: no action of IAM or EC2, no other role, and no resource of
    another environment, whatever somebody adds to a host's role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html
    """
    via = f"secretsmanager.{region}.amazonaws.com"
    return document(
        *_agent(account=account, region=region),
        *recording(log_group=session_log_group, account=account, region=region),
        {
            "Sid": "EncryptSessions",
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": session_key,
        },
        {
            "Sid": "ReadSecrets",
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": arns(environment, account=account, region=region),
        },
        {
            "Sid": "OpenSecrets",
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": sorted(keys),
            "Condition": {"StringEquals": {"kms:ViaService": via}},
        },
    )


def _agent(*, account: str, region: str) -> tuple[Statement, ...]:
    return (
        {
            "Sid": "Report",
            "Effect": "Allow",
            "Action": "ssm:UpdateInstanceInformation",
            "Resource": f"arn:aws:ec2:{region}:{account}:instance/*",
        },
        {
            "Sid": "HoldSessions",
            "Effect": "Allow",
            "Action": [
                *("ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel"),
                *("ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"),
            ],
            "Resource": "*",  # AWS supports no narrower resource
        },
    )

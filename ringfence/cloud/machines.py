"""Hosts of an environment as EC2 starts them: image, disk, identity, and what cloud-init brings.

An entry of the manifest is one machine, with an identity of its own: its Auto Scaling group has
the size 1, and is there to start it again when it fails. Nothing replaces a machine because its
description changed: there is no instance refresh, and whoever wants a new one ends the old one
(`aws autoscaling terminate-instance-in-auto-scaling-group`, without decrementing the capacity).
A host that keeps data is not even replaced when it fails: its disk would be left behind, and an
empty one started. A person decides, and the disk outlives the machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.cloud import groups
from ringfence.cloud.policies import Statement, document
from ringfence.cloud.secrets import OwnSecret, arns, own_secrets
from ringfence.cloud.services import DATA_CLASSES
from ringfence.manifest import instance_types
from ringfence.manifest.model import DataClass, Environment, Host, Machine

PRECEDENCE = ("edge", "mcp_servers", "siem", "sensor", "data")
"""Of the groups of a host, the first that `provisioning.aws.machines` names says what it is."""
KEEPERS = ("siem", "data")
"""Groups whose hosts keep what is nowhere else."""

RELEASE = 13
ROOT_DEVICE = "/dev/xvda"
"""Of Debian's images: https://wiki.debian.org/Cloud/AmazonEC2Image"""


def machine(environment: Environment, host: Host) -> Machine:
    assert environment.provisioning
    place = environment.provisioning
    named = (place.machines[g] for g in PRECEDENCE if g in host.groups and g in place.machines)
    return next(named, place.default_machine)


def architecture(environment: Environment, host: Host) -> instance_types.Architecture:
    return instance_types.architecture(machine(environment, host).type)


def image(architecture: instance_types.Architecture) -> str:
    """Debian's own, the newest at every start.

    https://wiki.debian.org/Cloud/AmazonEC2Image
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/using-systems-manager-parameters.html
    """
    return f"resolve:ssm:/aws/service/debian/release/{RELEASE}/latest/{architecture}"


def keeps_data(host: Host) -> bool:
    return not host.groups.isdisjoint(KEEPERS)


def data_class(environment: Environment, host: Host) -> DataClass:
    """Of the disk: the highest that its servers handle, and logs of them name people.

    What a host of the group `data` keeps no tool says: any class of the environment.
    """
    servers = environment.servers.values()
    own = servers if "data" in host.groups else environment.servers_on(host)
    found = {tool.data_class for server in own for tool in server.tools.values()}
    return next(each for each in reversed(DATA_CLASSES) if each in {"internal", *found})


def security_groups(environment: Environment, host: Host) -> tuple[str, ...]:
    """Names of those of its interface."""
    (found,) = [i for i in groups.interfaces(environment) if i.name == f"host {host.name}"]
    return found.groups


def role_group(environment: Environment, host: Host) -> str:
    """Whose role it is: of the one server on the host, where it is there for one."""
    servers = environment.servers_on(host)
    return groups.server_group(servers[0]) if len(servers) == 1 else groups.host_group(host)


def secrets_read(environment: Environment, host: Host) -> tuple[OwnSecret, ...]:
    """By the host: those of the servers on it, and of those it is the other end of."""
    own = groups.host_group(host)
    return tuple(secret for secret in own_secrets(environment) if own in secret.readers)


def trust() -> str:
    return document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )


def agent_permissions(account: str, region: str) -> str:
    """Of the SSM agent: to report its machine, and to hold sessions.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
    """
    return document(*_agent(account, region))


def boundary(
    environment: Environment,
    account: str,
    region: str,
    session_log_group: str,
    session_key: str,
    keys: Sequence[str],
) -> str:
    """The most that a host may ever do, whatever somebody adds to its role: nothing of IAM, of
    EC2, as another role, or on things that are not this environment's.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html
    """
    via = f"secretsmanager.{region}.amazonaws.com"
    return document(
        *_agent(account, region),
        {
            "Sid": "RecordSessions",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            "Resource": f"{session_log_group}:*",
        },
        {
            "Sid": "SeeThatTheRecordIsEncrypted",
            "Effect": "Allow",
            "Action": "logs:DescribeLogGroups",
            "Resource": f"arn:aws:logs:{region}:{account}:log-group:*",
        },
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
            "Resource": arns(environment, account, region),
        },
        {
            "Sid": "OpenSecrets",
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": sorted(keys),
            "Condition": {"StringEquals": {"kms:ViaService": via}},
        },
    )


def _agent(account: str, region: str) -> tuple[Statement, ...]:
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
            "Resource": "*",  # AWS offers them for the whole account only
        },
    )

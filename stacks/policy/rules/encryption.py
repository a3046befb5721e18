"""Encryption at rest under a customer's rotating key (DAT-02); on the wire, TLS 1.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from .machines import is_left_to_a_template
from .rule import Properties, is_true, items, value
from .statements import Statement, allowing, condition_keys, label, texts

KEYS: Mapping[str, str] = {
    "aws:backup/vault:Vault": "kmsKeyArn",
    "aws:cloudtrail/trail:Trail": "kmsKeyId",
    "aws:cloudwatch/logGroup:LogGroup": "kmsKeyId",
    "aws:dynamodb/table:Table": "serverSideEncryption.kmsKeyArn",
    "aws:ebs/volume:Volume": "kmsKeyId",
    "aws:efs/fileSystem:FileSystem": "kmsKeyId",
    "aws:kinesis/stream:Stream": "kmsKeyId",
    "aws:rds/cluster:Cluster": "kmsKeyId",
    "aws:rds/instance:Instance": "kmsKeyId",
    "aws:secretsmanager/secret:Secret": "kmsKeyId",
    "aws:sns/topic:Topic": "kmsMasterKeyId",
    "aws:sqs/queue:Queue": "kmsMasterKeyId",
}
"""Property that names the key. Without it, AWS uses none, or a key that accounts share."""
SWITCHES: Mapping[str, str] = {
    "aws:dynamodb/table:Table": "serverSideEncryption.enabled",
    "aws:ebs/encryptionByDefault:EncryptionByDefault": "enabled",
    "aws:ebs/snapshotCopy:SnapshotCopy": "encrypted",
    "aws:ebs/volume:Volume": "encrypted",
    "aws:efs/fileSystem:FileSystem": "encrypted",
    "aws:rds/cluster:Cluster": "storageEncrypted",
    "aws:rds/instance:Instance": "storageEncrypted",
}
"""Switches that a key alone does not turn on."""
PARAMETER = "aws:ssm/parameter:Parameter"
ENCRYPTED = tuple(dict.fromkeys((*KEYS, *SWITCHES, PARAMETER)))

TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
WITHOUT_KEYS = ("aws:ec2/launchConfiguration:LaunchConfiguration",)
"""Its disks use the account's default key and cannot name another."""

KEY = "aws:kms/key:Key"
KEY_POLICIES = (KEY, "aws:kms/keyPolicy:KeyPolicy")
USE = (
    *("kms:decrypt", "kms:encrypt", "kms:generatedatakey", "kms:reencryptfrom"),
    *("kms:generatedatakeywithoutplaintext", "kms:reencryptto"),
)
CONTEXT = "kms:encryptioncontext:"

LISTENERS = ("aws:alb/listener:Listener", "aws:lb/listener:Listener")
CLASSIC = "aws:elb/loadBalancer:LoadBalancer"
TLS13_ONLY = "ELBSecurityPolicy-TLS13-1-3-"
"""Start of the names of policies without older versions.

https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html
"""


def unencrypted(kind: str, properties: Properties) -> Iterator[str]:
    if kind in SWITCHES and not is_true(value(properties, SWITCHES[kind])):
        yield f"{SWITCHES[kind]} is not true"
    if kind in KEYS:
        yield from without_own_key(KEYS[kind], value(properties, KEYS[kind]))
    if kind == PARAMETER and properties.get("type") == "SecureString":
        yield from without_own_key("keyId", properties.get("keyId"))


def without_own_key(name: str, key: Any) -> Iterator[str]:
    """Report a missing key. A key that a preview does not know yet comes from the stack."""
    if key is None or (isinstance(key, str) and not key):
        yield f"{name} is absent"
    elif isinstance(key, str) and "alias/aws/" in key:
        yield f"{name} is {key}, an AWS key whose policy the account cannot change"


def disks_unencrypted(kind: str, properties: Properties) -> Iterator[str]:
    disks = list(_disks(properties))
    first = disks if kind == TEMPLATE else properties.get("rootBlockDevice")
    if not first and not is_left_to_a_template(properties, "rootBlockDevice"):
        yield "its root disk is not declared, so the image decides"
    for name, disk in disks:
        if not is_true(disk.get("encrypted")):
            yield f"{name}.encrypted is not true"
        elif kind not in WITHOUT_KEYS:
            yield from without_own_key(f"{name}.kmsKeyId", disk.get("kmsKeyId"))


def _disks(properties: Properties) -> Iterator[tuple[str, Properties]]:
    for mapping in items(properties.get("blockDeviceMappings")):
        for disk in items(mapping.get("ebs")):
            yield "blockDeviceMappings.ebs", disk
    for name in ("rootBlockDevice", "ebsBlockDevices"):
        for disk in items(properties.get(name)):
            yield name, disk


def key_stays(_: str, properties: Properties) -> Iterator[str]:
    """Keys that sign, or are of another kind than AWS's default, cannot rotate by themselves."""
    if _encrypts(properties) and not is_true(properties.get("enableKeyRotation")):
        yield "enableKeyRotation is not true"


def _encrypts(properties: Properties) -> bool:
    use, spec = properties.get("keyUsage"), properties.get("customerMasterKeySpec")
    return use in (None, "ENCRYPT_DECRYPT") and spec in (None, "SYMMETRIC_DEFAULT")


def key_serves_directly(kind: str, properties: Properties) -> Iterator[str]:
    """A stolen credential that may call KMS directly decrypts whatever it has copied.

    Not where it must name what it decrypts: so do the ends of a session.
    """
    if kind == KEY and not _encrypts(properties):
        return
    policy = properties.get("policy")
    if policy is None:
        yield "it has no policy, and AWS's default leaves every use to IAM"
    for statement in allowing(policy):
        if _uses(statement) and not _is_through_a_service(statement):
            yield f"{label(statement)} permits use without a service"


def _uses(statement: Statement) -> bool:
    if statement.get("NotAction") is not None:
        return True
    actions = [action.lower() for action in texts(statement.get("Action"))]
    return any(fnmatchcase(use, action) for use in USE for action in actions)


def _is_through_a_service(statement: Statement) -> bool:
    keys = condition_keys(statement)
    principal = statement.get("Principal")
    service = isinstance(principal, Mapping) and principal.get("Service") is not None
    in_context = any(key.startswith(CONTEXT) for key in keys)
    return "kms:viaservice" in keys or in_context or (service and bool(keys))


def older_than_tls13(kind: str, properties: Properties) -> Iterator[str]:
    """A TCP listener leaves TLS to the hosts, which accept 1.3 only."""
    if kind == CLASSIC:
        for listener in items(properties.get("listeners")):
            protocol = str(listener.get("lbProtocol")).upper()
            if protocol != "TCP":
                yield f"a classic load balancer offers {protocol} without TLS 1.3"
        return
    protocol = properties.get("protocol")
    if protocol == "HTTP":
        yield "it accepts clear text"
    elif protocol in ("HTTPS", "TLS"):
        policy = properties.get("sslPolicy")
        if policy is None or not policy.startswith(TLS13_ONLY):
            yield f"sslPolicy is {policy or 'absent'}"

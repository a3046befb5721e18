"""Hosts: credentials need a session (IAM-07), and no key pair logs in (IAM-05)."""

from __future__ import annotations

from collections.abc import Iterator

from .rule import Properties, value

DEFAULTS = "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults"
MACHINES = (
    "aws:ec2/instance:Instance",
    "aws:ec2/launchConfiguration:LaunchConfiguration",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
)
KEY_PAIR = "aws:ec2/keyPair:KeyPair"
WITH_METADATA, WITH_KEYS = (*MACHINES, DEFAULTS), (*MACHINES, KEY_PAIR)


def is_left_to_a_template(properties: Properties, name: str) -> bool:
    return properties.get("launchTemplate") is not None and properties.get(name) is None


def metadata_without_session(kind: str, properties: Properties) -> Iterator[str]:
    """Refuse more than one hop: containers and proxies could read the host's credentials."""
    if is_left_to_a_template(properties, "metadataOptions"):
        return
    within = "" if kind == DEFAULTS else "metadataOptions."
    if value(properties, f"{within}httpEndpoint") == "disabled":
        return
    tokens = value(properties, f"{within}httpTokens")
    if tokens != "required":
        yield f"{within}httpTokens is {tokens or 'absent'}"
    hops = value(properties, f"{within}httpPutResponseHopLimit")
    if hops != 1:
        yield f"{within}httpPutResponseHopLimit is " + ("absent" if hops is None else f"{hops:g}")


def has_key_pair(kind: str, properties: Properties) -> Iterator[str]:
    if kind == KEY_PAIR:
        yield "everybody with a copy of the key pair can log in to hosts"
    elif properties.get("keyName") is not None:
        yield "keyName installs a key that belongs to no person"

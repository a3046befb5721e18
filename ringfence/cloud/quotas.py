"""Limits of AWS that a valid manifest can reach, asked before the first resource is made.

https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ringfence.cloud import acls, groups
from ringfence.manifest.model import Environment

RULES_PER_GROUP = 60
"""Inbound, and outbound again."""
GROUPS_PER_INTERFACE = 5
ENTRIES_PER_ACL = 20
"""Inbound, and outbound again."""


def exceeded(environment: Environment) -> tuple[str, ...]:
    """What the manifest asks too much of: place in the document, figure, remedy."""
    return tuple(_exceeded(environment))


def _exceeded(environment: Environment) -> Iterator[str]:
    for interface in groups.interfaces(environment):
        if len(interface.groups) > GROUPS_PER_INTERFACE:
            servers = len(interface.groups) - 2
            yield (
                f"hosts.{interface.name.removeprefix('host ')}: {servers} MCP servers on one host, "
                f"and an interface in AWS has {GROUPS_PER_INTERFACE} security groups, two of them "
                "its own; give some of the servers another host, or only a segment"
            )
    counts = Counter((rule.group, rule.direction) for rule in groups.rules(environment))
    for (group, direction), count in counts.items():
        if count > RULES_PER_GROUP:
            yield (
                f"{_place(group)}: {count} {direction} rules, and a security group of AWS has "
                f"{RULES_PER_GROUP}; declare flows of whole segments rather than of single hosts, "
                "and give servers ports in a row"
            )
    for name, segment in environment.segments.items():
        entries = Counter(entry.direction for entry in acls.entries(environment, segment))
        for direction, count in entries.items():
            if count > ENTRIES_PER_ACL:
                yield (
                    f"network.segments.{name}: {count} {direction} entries, and an ACL of AWS has "
                    f"{ENTRIES_PER_ACL}; let fewer segments have flows with this one"
                )


def _place(group: str) -> str:
    kind, _, name = group.partition("-")
    places = {
        "host": f"hosts.{name}",
        "server": f"servers.{name}",
        "balancer": "hosts",
        "link": f"provisioning.aws.private_links.{name}",
    }
    return places.get(kind, "network.flows")

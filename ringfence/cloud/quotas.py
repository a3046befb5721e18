"""Quotas of AWS that a valid manifest can exceed, checked before the first resource is created.

https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ringfence.cloud import acls, groups
from ringfence.manifest.model import Environment

RULES_PER_GROUP = 60
"""Quota per direction."""
GROUPS_PER_INTERFACE = 5
ENTRIES_PER_ACL = 20
"""Quota per direction."""


def exceeded(environment: Environment) -> tuple[str, ...]:
    """Return a line per exceeded quota: place in the manifest, figure, remedy."""
    return tuple(_exceeded(environment))


def _exceeded(environment: Environment) -> Iterator[str]:
    for interface in groups.interfaces(environment):
        if len(interface.groups) > GROUPS_PER_INTERFACE:
            servers = len(interface.groups) - 2
            yield (
                f"hosts.{interface.name.removeprefix('host ')}: {servers} MCP servers on one host; "
                f"AWS allows {GROUPS_PER_INTERFACE} security groups per interface, and the host "
                "needs two; move some of the servers to another host, or give them only a segment"
            )
    counts = Counter((rule.group, rule.direction) for rule in groups.rules(environment))
    for (group, direction), count in counts.items():
        if count > RULES_PER_GROUP:
            yield (
                f"{_place(group)}: {count} {direction} rules; AWS allows {RULES_PER_GROUP} per "
                "security group; declare flows of whole segments instead of single hosts, and give "
                "servers consecutive ports"
            )
    for name, segment in environment.segments.items():
        entries = Counter(entry.direction for entry in acls.entries(environment, segment))
        for direction, count in entries.items():
            if count > ENTRIES_PER_ACL:
                yield (
                    f"network.segments.{name}: {count} {direction} entries; AWS allows "
                    f"{ENTRIES_PER_ACL} per ACL; declare flows with fewer segments"
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

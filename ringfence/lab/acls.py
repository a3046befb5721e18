"""Access lists of the lab's router: between segments only what the manifest lets hosts do.

They are to the lab what network ACLs and security groups are in AWS. A lab comes up without them,
so that what hosts enforce by themselves can be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from ringfence.environment import Environment, Host, Network, Protocol
from ringfence.inventory import firewall
from ringfence.inventory.firewall import Rule
from ringfence.lab.errors import LabError
from ringfence.lab.plan import Plan
from ringfence.lab.process import run

RULES = """\
table inet ringfence
delete table inet ringfence
table inet ringfence {{
{sets}
  counter refused {{ }}
  counter spoofed {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    # Who sends from an address that is not of its segment is not who it says.
    fib saddr . iif oif missing counter name spoofed drop
    ct state vmap {{ established : accept, related : accept, invalid : drop }}
    ip saddr . ip daddr . meta l4proto . th dport @from4 accept
    ip saddr . ip daddr . meta l4proto . th dport @to4 accept
    ip6 saddr . ip6 daddr . meta l4proto . th dport @from6 accept
    ip6 saddr . ip6 daddr . meta l4proto . th dport @to6 accept
    counter name refused
  }}
}}
"""

SET = """\
  set {name} {{
    type {family} . {family} . inet_proto . inet_service
    flags interval
{elements}  }}"""


def enforce(plan: Plan) -> None:
    """In one transaction, whatever was in force before."""
    _nft(plan, rules(plan.environment))


def lift(plan: Plan) -> None:
    _nft(plan, "table inet ringfence\ndelete table inet ringfence\n")


def rules(environment: Environment) -> str:
    """The ruleset. Lookups take the same time for one entry and for thousands."""
    # Two of each, since entries of a set must not overlap: a host is one end of each.
    ways = {"from": list(_opened(environment)), "to": list(_accepted(environment))}
    return RULES.format(
        sets="\n".join(
            SET.format(
                name=f"{name}{version}",
                family=f"ipv{version}_addr",
                elements=_elements(way for way in each if way.source.version == version),
            )
            for name, each in ways.items()
            for version in (4, 6)
        )
    )


@dataclass(frozen=True)
class Way:
    source: Network
    target: Network
    protocol: Protocol
    port: int
    why: str


def _opened(environment: Environment) -> Iterator[Way]:
    """What hosts open, and what their MCP servers and their gateway do."""
    for host in environment.hosts.values():
        accounts = [
            *(firewall.account(environment, server, 0) for server in environment.servers_on(host)),
            *firewall.gateway_accounts(environment, host),
        ]
        rules = firewall.outbound(environment, host)
        rules += [_rule(each) for account in accounts for each in account["egress"]]
        for rule in firewall.without_overlaps(rules):
            for address in _same_family(host, rule):
                yield Way(address, rule.network, rule.protocol, rule.port, rule.why)


def _accepted(environment: Environment) -> Iterator[Way]:
    for host in environment.hosts.values():
        for rule in firewall.inbound(environment, host):
            for address in _same_family(host, rule):
                yield Way(rule.network, address, rule.protocol, rule.port, rule.why)


def _rule(variable: Mapping[str, Any]) -> Rule:
    return Rule(**dict(variable) | {"network": ip_network(variable["network"])})


def _same_family(host: Host, rule: Rule) -> Iterator[Network]:
    for address in host.addresses:
        if address.version == rule.network.version:
            yield ip_network(address)


def _elements(ways: Iterable[Way]) -> str:
    lines = [
        f"      {way.source} . {way.target} . {way.protocol} . {way.port} "
        f'comment "{firewall.comment(way.why)}"'
        for way in ways
    ]
    return "    elements = {\n" + ",\n".join(lines) + "\n    }\n" if lines else ""


def _nft(plan: Plan, ruleset: str) -> None:
    done = run(["ip", "netns", "exec", plan.router, "nft", "-f", "-"], input=ruleset)
    if done.returncode:
        raise LabError(f"`nft` refused the router's rules: {done.stderr.strip()}")

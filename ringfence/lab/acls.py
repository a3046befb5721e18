"""Access lists of the lab's router: they pass only declared flows between segments.

They correspond to network ACLs and security groups in AWS. A lab starts without them, to show
what the hosts enforce by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.inventory import declared
from ringfence.inventory.declared import DeclaredFlow
from ringfence.inventory.firewall import as_comment
from ringfence.lab.errors import LabError
from ringfence.lab.plan import Plan
from ringfence.lab.process import run
from ringfence.manifest.model import Environment

RULES = """\
table inet ringfence
delete table inet ringfence
table inet ringfence {{
{sets}
  counter refused {{ }}
  counter spoofed {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    # A source address from another segment is spoofed.
    fib saddr . iif oif missing counter name spoofed drop
    ct state vmap {{ established : accept, related : accept, invalid : drop }}
    ip saddr . ip daddr . meta l4proto . th dport @from4 accept
    ip saddr . ip daddr . meta l4proto . th dport @to4 accept
    ip6 saddr . ip6 daddr . meta l4proto . th dport @from6 accept
    ip6 saddr . ip6 daddr . meta l4proto . th dport @to6 accept
    icmp type echo-request ip saddr . ip daddr @ping4 accept
    icmpv6 type echo-request ip6 saddr . ip6 daddr @ping6 accept
    counter name refused
  }}
}}
"""

SET = """\
  set {name} {{
    type {type}
    flags interval
{elements}  }}"""


def enforce(plan: Plan) -> None:
    """Replace all rules in one transaction."""
    _nft(plan, rules(plan.environment))


def lift(plan: Plan) -> None:
    _nft(plan, "table inet ringfence\ndelete table inet ringfence\n")


def rules(environment: Environment) -> str:
    """Return the ruleset. It uses sets, so lookups take constant time."""
    flows = {
        "from": list(declared.outbound(environment)),
        "to": list(declared.inbound(environment)),
    }
    pings = list(declared.pings(environment))
    sets: list[str] = []
    for version in (4, 6):
        ends = f"ipv{version}_addr . ipv{version}_addr"
        for name, each in flows.items():
            entries = [_entry(flow) for flow in each if flow.source.version == version]
            sets.append(_set(f"{name}{version}", f"{ends} . inet_proto . inet_service", entries))
        entries = [f"{here} . {there}" for here, there in pings if here.version == version]
        sets.append(_set(f"ping{version}", ends, entries))
    return RULES.format(sets="\n".join(sets))


def _set(name: str, type_: str, entries: Iterable[str]) -> str:
    lines = [f"      {entry}" for entry in entries]
    elements = "    elements = {\n" + ",\n".join(lines) + "\n    }\n" if lines else ""
    return SET.format(name=name, type=type_, elements=elements)


def _entry(flow: DeclaredFlow) -> str:
    port = f"{flow.protocol} . {flow.port}"
    return f'{flow.source} . {flow.target} . {port} comment "{as_comment(flow.why)}"'


def _nft(plan: Plan, ruleset: str) -> None:
    done = run(["ip", "netns", "exec", plan.router, "nft", "-f", "-"], input=ruleset)
    if done.returncode:
        raise LabError(f"`nft` refused the router's rules: {done.stderr.strip()}")

"""Cost of a host's firewall per packet, with 10 allowed connections and with 1,000.

Packets go from one network namespace to another; both end with this program. Connection tracking
is off for them, so the firewall looks each packet up as the first one of a connection, and only the
last entry allows it. The cost is the time of a round minus the time of a round without a firewall.
The kinds of rounds alternate, and the fastest round of each kind counts. Alternative in the same
run: the same ruleset with one rule per connection in place of the sets.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import jinja2
import yaml
from ansible.plugins.filter.core import FilterModule
from ansible.plugins.test.core import TestModule
from scratch import ROOT, alone, report, say

from ringfence.inventory.firewall import FirewallRule

ROLE = ROOT / "roles/firewall"
SENDER, RECEIVER, PORT = "10.99.0.1", "10.99.0.2", 8441
COUNTS = (10, 1000)
PACKETS, ROUNDS = 50_000, 7
UNTRACKED = """
table inet untracked {
  chain in { type filter hook prerouting priority raw; notrack; }
  chain out { type filter hook output priority raw; notrack; }
}
"""
LISTENER = f"""
import socket, sys
print("in a namespace", flush=True)
sys.stdin.readline()
listener = socket.socket(type=socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # full at once: nothing is to be read
listener.bind(({RECEIVER!r}, {PORT}))
print("bound", flush=True)
sys.stdin.read()
"""


def rules(count: int, way: str) -> list[dict[str, Any]]:
    """Return `count` rules; only the last one allows the packets."""
    ours = SENDER if way == "inbound" else RECEIVER
    others = [
        FirewallRule(
            ip_network(f"10.98.{n // 250}.{n % 250 + 1}"), "tcp", 8000 + n % 7, f"server {n}"
        )
        for n in range(count - 1)
    ]
    last = FirewallRule(ip_network(ours), "udp", PORT, "the benchmark")
    return [rule.as_variable() for rule in (*others, last)]


def ruleset(count: int, way: str) -> str:
    """Render the ruleset of role `firewall` as the role does."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates/etc/nftables.d"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701  # a ruleset is not HTML
    )
    environment.filters |= FilterModule().filters()
    environment.tests |= TestModule().tests()
    values: dict[str, Any] = {}
    for kind in ("defaults", "vars"):
        values |= yaml.safe_load((ROLE / kind / "main.yml").read_text())
    values |= {
        "ansible_managed": "Rendered for a benchmark",
        "__firewall_uids": {},
        "__firewall_dynamic_addresses": False,
        f"firewall_{way}": rules(count, way),
    }
    return environment.get_template("ringfence.nft.j2").render(values)


def one_rule_each(count: int, way: str) -> str:
    side = "saddr" if way == "inbound" else "daddr"
    each = "\n".join(
        f"    ip {side} {rule['network']} meta l4proto {rule['protocol']} "
        f"th dport {rule['port']} accept"
        for rule in rules(count, way)
    )
    lookup = f"    ip {side} . meta l4proto . th dport @{way}4 accept"
    before, found, after = ruleset(1, way).partition(lookup)
    assert found
    return before + each + after


class Link:
    """A pair of interfaces: one here, one in the network namespace of the listener."""

    def __init__(self, listener: int) -> None:
        self._sides = {"outbound": [], "inbound": ["nsenter", "--target", str(listener), "--net"]}
        for side in self._sides:  # IPv6 would send packets on a new link
            self._run(side, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        pair = ["type", "veth", "peer", "name", "inbound", "netns", str(listener)]
        self._run("outbound", "ip", "link", "add", "outbound", *pair)
        for side, address in (("outbound", SENDER), ("inbound", RECEIVER)):
            self._run(side, "ip", "address", "add", f"{address}/24", "dev", side)
            self._run(side, "ip", "link", "set", side, "up")

    def judge(self, way: str, ruleset: str) -> None:
        """Apply a ruleset in one direction: outbound at the sender or inbound at the listener."""
        for side in self._sides:
            told = ruleset if side == way else ""
            self._run(side, "nft", "-f", "-", told=f"flush ruleset\n{UNTRACKED}{told}")

    def refused(self, way: str) -> int:
        """Return the number of packets that the current ruleset has refused."""
        listed = json.loads(self._run(way, "nft", "--json", "list", "counters"))["nftables"]
        counters = [each["counter"] for each in listed if "counter" in each]
        return sum(counter["packets"] for counter in counters)

    def _run(self, side: str, *command: str, told: str = "") -> str:
        words = [*self._sides[side], *command]
        return subprocess.run(
            words, input=told, text=True, check=True, stdout=subprocess.PIPE
        ).stdout


@contextmanager
def listening() -> Iterator[Link]:
    command = ["unshare", "--net", sys.executable, "-c", LISTENER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        link = Link(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        yield link
        process.stdin.close()


def nanoseconds(sender: socket.socket) -> float:
    """Return the time per packet; each has arrived when the call of `send` returns."""
    message, send = bytes(64), sender.send
    started = time.perf_counter_ns()
    for _ in range(PACKETS):
        send(message)
    return (time.perf_counter_ns() - started) / PACKETS


def measured(link: Link, sender: socket.socket, way: str) -> dict[str, float]:
    """Return the nanoseconds that each kind of ruleset adds per packet."""
    kinds = {"none": ""}
    kinds |= {f"sets_{count}": ruleset(count, way) for count in COUNTS}
    kinds |= {f"rules_{count}": one_rule_each(count, way) for count in COUNTS}
    fastest = dict.fromkeys(kinds, math.inf)
    for _ in range(ROUNDS):
        for kind, rules in kinds.items():
            link.judge(way, rules)
            fastest[kind] = min(fastest[kind], nanoseconds(sender))
            if refused := link.refused(way):
                raise SystemExit(f"{kind}: {refused} packets were refused")
    without = fastest.pop("none")
    for kind, taken in fastest.items():
        say(f"{way} {kind}: {taken - without:,.0f} ns a packet, over {without:,.0f} ns")
    return {kind: taken - without for kind, taken in fastest.items()}


def main() -> None:
    alone()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures: dict[str, float] = {}
    with listening() as link, socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.connect((RECEIVER, PORT))
        for way in ("inbound", "outbound"):
            for kind, added in measured(link, sender, way).items():
                figures[f"{way}_{kind}_ns"] = added
            for kind in ("sets", "rules"):
                few, many = (figures[f"{way}_{kind}_{count}_ns"] for count in COUNTS)
                figures[f"{way}_{kind}_ratio"] = many / few
    report("firewall", figures | {"load_average": os.getloadavg()[0]})


if __name__ == "__main__":
    main()

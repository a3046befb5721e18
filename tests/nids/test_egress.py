"""The egress firewall and the sensor agree: same captures, same engine.

The firewall drops what the sensor raises an alert about, and passes the rest. Its rules use only
what AWS Network Firewall supports.
https://docs.aws.amazon.com/network-firewall/latest/developerguide/suricata-limitations-caveats.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from benchmarks.captures import Handshake, Packets, http, number_at, tcp, tls, write
from benchmarks.suricata import Suricata, render
from ringfence.cloud import addressing, egress
from ringfence.inventory import nids
from ringfence.inventory.provisioned import Instance, with_addresses
from ringfence.lab import unavailable
from ringfence.manifest.model import Environment

MANIFEST = Path(__file__).parents[2] / "inventories/aws-example/environment.yaml"
OUTSIDE, DOMAIN = "203.0.113.9", "rates.example.com"
REFUSED = re.compile(
    r"\b(dataset|datarep|iprep|geoip|lua|luajit|filestore|filemagic|filename|fileext|filesize|"
    r"filemd5|filesha\w+|threshold|detection_filter|enip_command|cip_service|tag|xbits|hostbits|"
    r"priority)\b\s*[:;]"
)
DEFAULTS = """
drop tcp any any -> any any (msg:"aws:drop_established"; flow:established; dsize:>0; sid:1; rev:1;)
"""
"""AWS's default for a connection that carries data and that no rule passes: `egress.DEFAULTS`."""
INLINE = ("--simulate-ips", "--set", "stream.inline=yes")
"""The inline mode of a firewall: it inspects the data before it forwards the packet."""
EGRESS = {1200015, 1200016, 1200017}

pytestmark = pytest.mark.skipif(
    unavailable() is not None, reason=f"no Suricata here: {unavailable()}"
)


@pytest.fixture(scope="module")
def environment() -> Environment:
    declared = Environment.load(MANIFEST)
    found = {
        name: Instance(f"i-{number:017x}", IPv4Address(int(host.segment.cidr[0]) + 20 + number))
        for number, (name, host) in enumerate(declared.hosts.items())
    }
    return with_addresses(declared, found)


Make = Callable[[str], Packets]
CASES: dict[str, tuple[Make, bool]] = {
    "the declared name": (lambda a: named(a, DOMAIN), True),
    "the declared name in capitals": (lambda a: named(a, DOMAIN.upper()), True),
    "a name below it": (lambda a: named(a, f"x.{DOMAIN}"), False),
    "a name that begins so": (lambda a: named(a, f"{DOMAIN}.attacker.example"), False),
    "a name that ends so": (lambda a: named(a, f"not{DOMAIN}"), False),
    "another name": (lambda a: named(a, "attacker.example"), False),
    "no name": (lambda a: named(a, None), False),
    "HTTP on the port of TLS": (
        lambda a: http(a, OUTSIDE, 443, f"GET / HTTP/1.1\nHost: {DOMAIN}"),
        False,
    ),
    "another protocol": (
        lambda a: tcp(a, OUTSIDE, 443, (">", b"SSH-2.0-x\r\n"), ("<", b"SSH-2.0-y\r\n")),
        False,
    ),
}
"""Packets of a server with egress, and whether the firewall passes them."""


def named(source: str, name: str | None) -> Packets:
    return tls(source, OUTSIDE, 443, Handshake(name=name))


@pytest.fixture(scope="module")
def verdicts(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, bool]]:
    """Run both engines over each case."""
    suricata = Suricata.installed()
    server = next(s for s in environment.servers.values() if any(e.domain for e in s.egress))
    captures = [make(str(server.host.address)) for make, _ in CASES.values()]
    network = str(addressing.vpc_network(environment))
    found: dict[str, dict[str, bool]] = {}
    for engine in ("sensor", "firewall"):
        folder = tmp_path_factory.mktemp(engine)
        variables = nids.variables(environment, environment.hosts["sensor-1"])
        lists = {"nids_denied_ja4": [], "nids_denied_sni": []}
        placed = INLINE if engine == "firewall" else ()
        if engine == "firewall":
            lists["nids_networks"] = [network]
        render(variables | lists, folder)
        if engine == "firewall":
            for path in (folder / "rules").glob("*.rules"):
                path.unlink()
            (folder / "rules/egress.rules").write_text(egress.rules(environment) + DEFAULTS)
        write(folder / "all.pcap", captures)
        stopped = {
            number_at(event["timestamp"])
            for event in suricata.inspect(folder, folder / "all.pcap", *placed)
            if event["event_type"] == "alert"
            and (engine == "firewall" or event["alert"]["signature_id"] in EGRESS)
        }
        found[engine] = {name: n not in stopped for n, name in enumerate(CASES)}
    return found


@pytest.mark.parametrize("name", [*CASES])
@pytest.mark.parametrize("engine", ["sensor", "firewall"])
def test_verdict(verdicts: dict[str, dict[str, bool]], engine: str, name: str) -> None:
    assert verdicts[engine][name] is CASES[name][1]


def test_the_firewall_gets_no_keyword_that_it_refuses(environment: Environment) -> None:
    rules = egress.rules(environment).splitlines()
    assert rules
    assert not [rule for rule in rules if REFUSED.search(rule)]
    assert REFUSED.search("threshold:type limit")

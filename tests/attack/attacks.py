"""Attacks on a lab, as data: origin, program, and the defences that stop and detect them.

Words in braces are addresses: of a host (`{siem-1}`, `{siem-1/6}` its IPv6), of the attacker, of
`{outside}` and `{resolver}` beyond the lab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

FIREWALL = "ringfence drop"
"""Prefix of the log lines of a host's firewall."""

CLAIM = f"{FIREWALL} neighbour"
"""Prefix of its log lines about a claim to a neighbour's address."""

PORTS = tuple(range(1000, 1040))


@dataclass(frozen=True)
class Attack:
    name: str
    node: str
    """The intruder's node, or a compromised host, where the attack runs as a server's account."""
    program: str
    arguments: Sequence[object]
    blocked_by: str
    """Defence that stops it, as the report names it; empty if none does."""
    alerts: Sequence[str] = ()
    """Prefixes of alerts, one of which must reach the collector; empty if nothing detects the
    attack."""
    happened: tuple[str, str] | None = None
    """Host and command that succeeds there after the attack; without it, the attack's program
    reports."""
    possible: bool = True
    """Whether it can succeed before hardening."""
    note: str = ""
    controls: Sequence[str] = field(kw_only=True)
    """Ids of controls: first the one that stops it, then the one that detects it."""

    def __str__(self) -> str:
        return self.name

    def raises(self, host: str, message: str) -> bool:
        """Return whether an alert belongs to this attack: other hosts' firewalls also log drops."""
        own = f"{{{host}}}", f"{{{host}/6}}"
        concerned = host == self.node or any(word in own for word in self.arguments)
        return message.startswith(tuple(self.alerts)) and (
            concerned or not message.startswith(FIREWALL)
        )


def undeclared(protocol: str, segment: str) -> str:
    return f"Undeclared {protocol} connection from segment {segment}"


ROUTER = "access lists of the network, and the host's firewall"
HOST = "the host's firewall"
MEMORY = "the host's table of its neighbours"

ATTACKS: Sequence[Attack] = (
    # Reconnaissance
    Attack("scan with openings", "intruder.clients", "scan", ("syn", 0, "{tools-1}", *PORTS),
           ROUTER, ["Scan - TCP openings"],
           controls=["NET-01", "NET-04"]),
    Attack("scan with FIN", "intruder.clients", "scan", ("fin", 0, "{tools-1}", 22, *PORTS[:5]),
           ROUTER, ["Scan - TCP with FIN alone"],
           controls=["NET-01", "NET-04"]),
    Attack("scan without flags", "intruder.clients", "scan",
           ("null", 0, "{tools-1}", 22, *PORTS[:5]), ROUTER, ["Scan - TCP without flags"],
           controls=["NET-01", "NET-04"]),
    Attack("scan with FIN, PSH and URG", "intruder.clients", "scan",
           ("xmas", 0, "{tools-1}", 22, *PORTS[:5]), ROUTER, ["Scan - TCP with FIN, PSH and URG"],
           controls=["NET-01", "NET-04"]),
    Attack("scan with acknowledgements", "intruder.clients", "scan",
           ("ack", 0, "{tools-1}", *PORTS), ROUTER, ["Scan - TCP acknowledgements"],
           controls=["NET-01", "NET-04"]),
    Attack("scan with UDP", "intruder.clients", "scan", ("udp", 0, "{tools-1}", *PORTS),
           ROUTER, ["Scan - UDP"],
           controls=["NET-01", "NET-04"]),
    Attack("scan over IPv6", "intruder.clients", "scan", ("syn", 0, "{tools-1/6}", *PORTS),
           ROUTER, ["Scan - TCP openings", undeclared("tcp", "clients")],
           controls=["NET-01", "NET-04", "NET-05"]),
    Attack("slow scan", "intruder.edge", "scan", ("syn", 2.1, "{siem-1}", 22, 80, 443),
           ROUTER, [undeclared("tcp", "edge")],
           controls=["NET-01", "NET-05"]),
    Attack("scan within a segment", "intruder.servers", "scan", ("syn", 0, "{tools-1}", *PORTS),
           HOST, ["Scan - TCP openings"],
           controls=["NET-01", "NET-04"]),
    # Lateral movement
    Attack("to the collector from the servers' segment", "intruder.servers", "connect",
           ("{siem-1}", 22), ROUTER, [undeclared("tcp", "servers")],
           controls=["NET-01", "NET-05"]),
    Attack("to the sensor from the servers' segment", "intruder.servers", "connect",
           ("{sensor-1}", 22), ROUTER, [undeclared("tcp", "servers")],
           controls=["NET-01", "NET-05"]),
    Attack("to a neighbour in the segment", "intruder.servers", "connect", ("{tools-1}", 22),
           HOST, [undeclared("tcp", "servers"), FIREWALL],
           controls=["NET-01", "NET-05"]),
    Attack("around IPv4, over IPv6", "intruder.clients", "connect", ("{siem-1/6}", 22),
           ROUTER, [undeclared("tcp", "clients")],
           controls=["NET-01", "NET-05"]),
    Attack("an opening in fragments", "intruder.clients", "fragments", ("{sensor-1}", 22),
           ROUTER, [undeclared("tcp", "clients")],
           controls=["NET-01", "NET-05"]),
    Attack("a server's account to the collector", "tools-1", "connect", ("{siem-1}", 22),
           "the list of the server's account", [FIREWALL],
           controls=["NET-02", "MON-02"]),
    Attack("a server's account to the sensor", "tools-1", "connect", ("{sensor-1}", 22),
           "the list of the server's account", [FIREWALL],
           controls=["NET-02", "MON-02"]),
    Attack("a server's account to its neighbours", "tools-1", "connect",
           ("{tools-1}", 22, "127.0.0.1", 22), "the list of the server's account", [FIREWALL],
           controls=["NET-02", "MON-02"]),
    Attack("root in a server's sandbox", "sandbox", "escape", ("{siem-1}", 22),
           "the sandbox: no capability, no device, no network, no others' files", [],
           note="a refusal of the sandbox sends no packet; its audit events need a kernel with "
                "audit",
           controls=["TIN-04"]),
    # Credentials
    Attack("instance metadata from the servers' segment", "intruder.servers", "connect",
           ("169.254.169.254", 80), ROUTER, ["Undeclared connection to instance metadata"],
           controls=["NET-01", "IAM-08"]),
    Attack("instance metadata from a server's account", "tools-1", "connect",
           ("169.254.169.254", 80), "the list of the server's account", [FIREWALL],
           controls=["NET-02", "MON-02"]),
    Attack("guessing passwords for SSH", "intruder.management", "guess", ("{tools-1}", 30),
           "SSH accepts no password", ["Brute force - SSH sessions"],
           controls=["IAM-05"]),
    # The gateway
    Attack("a call around the gateway", "intruder.edge", "call", ("{tools-1}", 8441),
           "the host's firewall, which admits only the gateway", ["Around the gateway"],
           controls=["NET-01", "IAM-01"]),
    Attack("TLS 1.2 to the gateway", "intruder.clients", "tls", ("{edge-1}", 443, "1.2", "x", 0),
           "only TLS 1.3 is offered", ["TLS below 1.3 offered"],
           controls=["DAT-03"]),
    Attack("TLS 1.2 behind overlapping segments", "intruder.clients", "overlap",
           ("{edge-1}", 443), "only TLS 1.3 is offered", ["Evasion - TCP segments that overlap"],
           controls=["DAT-03", "NET-04"]),
    # Exfiltration
    Attack("data in names", "intruder.servers", "dns", ("{resolver}", 3000),
           ROUTER, ["DNS tunnel", "DNS to an undeclared resolver"],
           controls=["NET-01", "NET-02"]),
    Attack("data in names, from a server's account", "tools-1", "dns", ("{resolver}", 300),
           "the list of the server's account", [FIREWALL],
           controls=["NET-02", "MON-02"]),
    Attack("data in pings", "intruder.servers", "echo", ("{outside}", 10),
           ROUTER, ["Data in ICMP echo"],
           controls=["NET-01", "NET-02"]),
    Attack("TLS to an undeclared host", "intruder.servers", "tls",
           ("{outside}", 443, "1.3", "outside.example", 300_000), ROUTER,
           [undeclared("tcp", "servers")],
           controls=["NET-01", "NET-05"]),
    Attack("a slow drip over IPv6", "intruder.servers", "tls",
           ("{outside/6}", 443, "1.3", "outside.example", 400, 0.4), ROUTER,
           [undeclared("tcp", "servers")],
           controls=["NET-01", "NET-05"]),
    Attack("an allowed name to another address", "tools-1", "tls",
           ("{resolver}", 443, "1.3", "outside.example", 300),
           "the list of the server's account, which has addresses", [FIREWALL],
           controls=["NET-02", "MON-02"]),
    Attack("another name behind an allowed host (domain fronting)", "tools-1", "fronting",
           ("{outside}", 443, "outside.example", "hidden.example"), "", [],
           note="only the ends of TLS see the request: a declared host must be trusted with "
                "every name that it serves",
           controls=[]),
    # Spoofing
    Attack("an address from outside", "intruder.clients", "spoof",
           ("203.0.113.9", "{sensor-1}", 22), "the router and the host drop spoofed sources",
           ["Undeclared source - tcp"],
           happened=("sensor-1", "ss -Htn state syn-recv | grep -q 203.0.113.9"),
           controls=["NET-01"]),
    Attack("an address of the gateway's segment", "intruder.clients", "spoof",
           ("{free}", "{tools-1}", 8441), "the router drops spoofed sources",
           ["Around the gateway", undeclared("tcp", "edge")],
           happened=("tools-1", "ss -Htn state syn-recv | grep -q {free}"),
           controls=["NET-01", "IAM-01", "NET-05"]),
    Attack("a router's advertisement", "intruder.servers", "neighbour",
           ("ra", "{tools-1/6}", "fe80::666", "{own-mac}"), "hosts ignore advertisements",
           ["Router advertisement from an undeclared router"],
           happened=("tools-1", "ip -6 route show default | grep -q fe80::666"),
           controls=["HST-01", "NET-01"]),
    Attack("a neighbour's address over IPv6", "intruder.servers", "neighbour",
           ("nd", "{tools-1/6}", "{router/6}", "{own-mac}"), MEMORY,
           ["Neighbour advertisement that nobody asked for", CLAIM],
           happened=("tools-1", "ip -6 neigh show {router/6} | grep -qi {own-mac}"),
           controls=["NET-01"]),
    Attack("a neighbour's address over IPv4", "intruder.servers", "neighbour",
           ("arp", "{tools-1}", "{router}", "{own-mac}"), MEMORY, [CLAIM],
           happened=("tools-1", "ip -4 neigh show {router} | grep -qi {own-mac}"),
           controls=["NET-01", "MON-02"]),
    Attack("a DHCP server", "intruder.servers", "neighbour",
           ("dhcp", "{tools-1}", "{own}", "{own-mac}"), "no host uses DHCP",
           ["DHCP answer from an undeclared server"],
           happened=("tools-1", "ip -4 route show default | grep -q 'via {own}'"), possible=False,
           note="addresses of hosts are static",
           controls=["NET-01"]),
)  # fmt: skip

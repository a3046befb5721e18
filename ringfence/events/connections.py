"""Connections that a sensor or a VPC's flow log recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

from ringfence.events import record
from ringfence.events.flow_log import FLOW_LOG_FIELDS

Address = IPv4Address | IPv6Address

FLOW = "event_type"
"""Key that every event of Suricata has."""
SYN, ACK = 0x02, 0x10
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
"""Names of IANA's numbers. ICMP has one name for both versions; others keep their number."""
NEIGHBOURS = frozenset({*range(130, 138), 143})
"""Types of ICMPv6 that discover the hosts of a link: MLD and neighbour discovery."""


@dataclass(frozen=True)
class FlowRecord:
    """One connection as a sensor or a flow log recorded it, in both directions."""

    time: float
    """Unix seconds of its first packet."""
    source: Address
    target: Address
    protocol: str
    source_port: int
    port: int
    """Port of the target; 0 if the protocol has none."""
    answered: bool
    """The target accepted; False: it refused, or did not answer."""
    bytes: int
    certain: bool = True
    """False: the target may have opened it instead."""
    neighbours: bool = False
    """Neighbour discovery, not a connection."""


def flow_records(lines: Iterable[str]) -> Iterator[FlowRecord]:
    """Read connections from Suricata's events, the collector's record or a VPC flow log."""
    for line in lines:
        if line.lstrip().startswith("{"):
            for event in record.documents((line,), FLOW):
                if event[FLOW] == "flow":
                    with suppress(KeyError, ValueError, TypeError, AttributeError):
                        yield _of_suricata(event)
        else:
            with suppress(KeyError, ValueError):
                yield from _of_vpc(line.split())


def _of_suricata(event: dict) -> FlowRecord:
    """https://docs.suricata.io/en/suricata-7.0.10/output/eve/eve-json-format.html#event-type-flow"""
    flow, protocol = event["flow"], event["proto"].lower()
    answered, certain = flow["pkts_toclient"] > 0, True
    if protocol == "tcp":
        flags = event.get("tcp", {})
        to_client = int(flags.get("tcp_flags_tc", "0"), 16)
        # After a long pause or a restart, the sensor takes the first sender for the client.
        certain = bool(int(flags.get("tcp_flags_ts", "2"), 16) & SYN)
        # A reset is not an answer.
        answered = answered and (not certain or bool(to_client & SYN))
    icmp = "icmp" in protocol
    return FlowRecord(
        time=datetime.fromisoformat(flow["start"]).timestamp(),
        source=ip_address(event["src_ip"]),
        target=ip_address(event["dest_ip"]),
        protocol="icmp" if icmp else protocol,
        source_port=0 if icmp else event.get("src_port", 0),
        port=0 if icmp else event.get("dest_port", 0),
        answered=answered,
        bytes=flow["bytes_toserver"] + flow["bytes_toclient"],
        certain=certain,
        neighbours=icmp and event.get("icmp_type") in NEIGHBOURS,
    )


def _of_vpc(words: list[str]) -> Iterator[FlowRecord]:
    """Fields as our flow log has them; an export puts the time of each record before it."""
    values = dict(zip(FLOW_LOG_FIELDS, words[-len(FLOW_LOG_FIELDS) :], strict=True))
    number = int(values["protocol"])
    flags = int(values["tcp-flags"]) if values["tcp-flags"] != "-" else 0
    source, target = ip_address(values["pkt-srcaddr"]), ip_address(values["pkt-dstaddr"])
    if number == 6 and flags & SYN and flags & ACK:
        # The answer of the target; the record of the other direction has the connection.
        return
    yield FlowRecord(
        time=float(values["start"]),
        source=source,
        target=target,
        protocol=PROTOCOLS.get(number, values["protocol"]),
        source_port=int(values["srcport"]),
        port=int(values["dstport"]),
        answered=values["action"] == "ACCEPT",
        bytes=int(values["bytes"]),
        certain=number == 6 and bool(flags & SYN),
        # A flow log does not have the type.
        neighbours=number == 58 and (source.is_link_local or target.is_link_local),
    )

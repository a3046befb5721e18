"""For each signature: traffic that must raise the alert, and similar traffic that must not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Request, DHCP6_Solicit
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NIQueryNOOP,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
    fragment6,
)
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from benchmarks.captures import Handshake, Packets, http, ip, syn, tcp, tls, udp

CLIENT, CLIENT6 = "10.213.20.10", "fd0d:213:20::10"
EDGE, EDGE6 = "10.213.50.11", "fd0d:213:50::11"
TOOLS, TOOLS6 = "10.213.30.11", "fd0d:213:30::11"
SIEM, SIEM6 = "10.213.40.11", "fd0d:213:40::11"
SENSOR = "10.213.40.12"
OPERATOR, OPERATOR6 = "10.213.10.2", "fd0d:213:10::2"
RESOLVER = "10.213.10.53"
OUTSIDE, OUTSIDE6 = "203.0.113.9", "2001:db8::9"
UNSPECIFIED = "0.0.0.0"  # noqa: S104
METADATA, METADATA6 = "169.254.169.254", "fd00:ec2::254"

NAME, PLAIN_NAME = "rates.example.com", "mirror.example.com"
"""Declared for TLS on port 443 and for HTTP on port 80."""
DENIED_NAME = "bad.example.net"
LARGE = 100_000
"""Bytes, instead of the role's default, to keep the capture small."""

TLS12 = ssl.TLSVersion.TLSv1_2
CALL = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_query"}}
)
NOT_MCP = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []})
POST = "POST /mcp HTTP/1.1\nHost: tools-1.lab.internal:8441\nContent-Type: application/json"
HEADERS = "\nMCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call"


@dataclass(frozen=True)
class Case:
    alerts: Callable[[], Packets]
    passes: Callable[[], Packets]


def escaped_call() -> Packets:
    """Build a call with escapes as PHP's JSON encoder writes them."""
    return http(CLIENT, TOOLS, 9000, POST, CALL.replace("/", "\\/"))


def old_tls(client: str, server: str, port: int) -> Packets:
    return tls(client, server, port, Handshake(lowest=TLS12, highest=TLS12))


def refused_tls(client: str, server: str, port: int) -> Packets:
    handshake = Handshake(lowest=TLS12, highest=TLS12, server_lowest=ssl.TLSVersion.TLSv1_3)
    return tls(client, server, port, handshake)


def named_tls(client: str, server: str, name: str | None) -> Packets:
    return tls(client, server, 443, Handshake(name=name))


def question(source: str, target: str, name: str, kind: str = "A", sport: int = 0) -> Packet:
    asked = DNS(rd=1, qd=DNSQR(qname=name, qtype=kind))
    return udp(source, target, 53, bytes(asked), sport)


def questions(number: int, name: str, kind: str = "A") -> Packets:
    return [question(TOOLS, RESOLVER, name.format(f"{i:04x}"), kind) for i in range(number)]


def openings(source: str, target: str, ports: range, flags: str = "S") -> Packets:
    return [syn(source, target, port, flags) for port in ports]


def acknowledgements(source: str, target: str, sport: int) -> Packets:
    return [
        ip(source, target) / TCP(sport=sport, dport=port, flags="A", seq=9, ack=9)
        for port in range(41000, 41030)
    ]


def times(number: int, made: Callable[[], Packets]) -> Packets:
    return [packet for _ in range(number) for packet in made()]


def overlapping(other: Callable[[bytes], bytes], start: int = 0) -> Packets:
    """Send different data, from a given byte on, before the first data of a client."""
    packets = old_tls(CLIENT, EDGE, 443)
    place = next(n for n, packet in enumerate(packets) if Raw in packet)
    before = packets[place].copy()
    before[TCP].seq += start
    before[TCP].payload = Raw(other(packets[place][Raw].load))
    return [*packets[:place], before, *packets[place:]]


def ssh(client: str, server: str) -> Packets:
    hello = b"SSH-2.0-OpenSSH_10.0p2 Debian-7\r\n"
    return tcp(client, server, 22, (">", hello), ("<", hello))


def echo(source: str, target: str, size: int, kind: int | None = None) -> Packet:
    if ":" in source:
        return ip(source, target) / ICMPv6EchoRequest(data=b"x" * size, id=7)
    return ip(source, target) / ICMP(type=8 if kind is None else kind, id=7) / Raw(b"x" * size)


def reply(source: str, target: str, size: int) -> Packet:
    if ":" in source:
        return ip(source, target) / ICMPv6EchoReply(data=b"x" * size, id=7)
    return echo(source, target, size, kind=0)


def other(source: str, target: str, protocol: int, data: bytes = bytes(64)) -> Packet:
    """Build a packet of a protocol by its number."""
    packet = ip(source, target)
    packet.lastlayer().setfieldval("nh" if ":" in source else "proto", protocol)
    return packet / Raw(data)


def in_fragments(source: str, target: str) -> Packets:
    udp_packet = UDP(sport=514, dport=514) / Raw(b"x" * 4000)
    if ":" not in source:
        return [*fragment(ip(source, target) / udp_packet, 1000)]
    whole = IPv6(src=source, dst=target) / IPv6ExtHdrFragment() / udp_packet
    return [Ether() / part for part in fragment6(whole, 1280)]


def errors() -> Packets:
    """Build ICMP errors about connections, as routers and hosts send them."""
    call, call6 = tls(CLIENT, EDGE, 443), tls(CLIENT6, EDGE6, 443)
    quoted, quoted6 = call[3][IP].copy(), call6[3][IPv6].copy()
    return [
        *call,
        ip("10.213.20.1", CLIENT) / ICMP(type=3, code=4) / quoted,
        ip(CLIENT, EDGE) / ICMP(type=3, code=3) / call[4][IP].copy(),
        ip("10.213.20.1", CLIENT) / ICMP(type=11, code=0) / quoted,
        *call6,
        ip("fd0d:213:20::1", CLIENT6) / ICMPv6PacketTooBig(mtu=1280) / quoted6,
        ip("fd0d:213:20::1", CLIENT6) / ICMPv6DestUnreach(code=3) / quoted6,
    ]


def advertisement(solicited: int, override: int) -> Packet:
    said = ICMPv6ND_NA(tgt=SIEM6, R=0, S=solicited, O=override)
    return ip(SIEM6, TOOLS6) / said / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:66")


def dhcp(source: str, target: str, sport: int, dport: int, operation: int, kind: str) -> Packet:
    said = BOOTP(op=operation, chaddr=b"\2\0\0\0\0\7") / DHCP(
        options=[("message-type", kind), "end"]
    )
    return ip(source, target) / UDP(sport=sport, dport=dport) / said


def dhcp6(source: str, target: str, sport: int, dport: int, said: Packet) -> Packet:
    return ip(source, target) / UDP(sport=sport, dport=dport) / said


METADATA_GET = (
    f"GET /latest/meta-data/iam/security-credentials/ HTTP/1.1\nHost: {METADATA}\nAccept: */*"
)
TOKEN_PUT = (
    f"PUT /latest/api/token HTTP/1.1\nHost: {METADATA}\nX-aws-ec2-metadata-token-ttl-seconds: 60"
)
SPELLINGS = (
    *("2852039166", "0xa9fea9fe", "0XA9FEA9FE", "025177524776", "0xa9.0xfe.0xa9.0xfe"),
    *("0251.0376.0251.0376", "169.254.43518", "169.16689662", "0xa9.0376.169.0x0fe"),
    *("169.254.169.254.", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"),
    *("[0:0:0:0:0:FFFF:A9FE:A9FE]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]"),
    *("[fd00:0ec2:0:0::0254]", "[fd00:ec2:0:0:0:0:0:254]", "[FD00:EC2::0.0.2.84]"),
    *("169.254.169.254:80", "instance-data", "x-169-254-169-254.dns.example.com"),
)
"""Spellings of the address of instance metadata that programs accept, and names for it."""
BY_PROXY = {
    "POST": METADATA_GET.replace("GET", "POST"),
    "a request for a token": TOKEN_PUT,
    "a request with a token": METADATA_GET + "\nX-aws-ec2-metadata-token: AQAEAA",
    "CONNECT": f"CONNECT {METADATA}:80 HTTP/1.1\nHost: {METADATA}:80",
    "CONNECT for another Host": f"CONNECT {METADATA}:80 HTTP/1.1\nHost: www.example.com",
    "a whole URL": METADATA_GET.replace("GET /", f"GET http://{METADATA}/"),
    "a whole URL for another Host": (
        f"GET http://u:p@{METADATA}/latest/ HTTP/1.1\nHost: www.example.com"
    ),
    "HTTP/1.0 without a Host": f"GET http://{METADATA}/latest/ HTTP/1.0\nAccept: */*",
}
LONG = "a" * 55 + "{}.t.example.org"
HUNDRED = f"{'a' * 23}-{{}}.{'b' * 29}.{'c' * 29}.example.org"
"""The longest possible name."""
LONG_NAMES = (
    "internal-k8s-default-myingres-0a1b2c3d4e-1234567890.eu-central-1.elb.amazonaws.com",
    "0123456789ABCDEF0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com",
    "0123456789abcdef0123456789abcdef.lambda-url.eu-central-1.on.aws",
    "0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com",
    "_0123456789abcdef0123456789abcdef.tljzshvwok.acm-validations.aws",
    "vpce-0123456789abcdef0-abcdefgh-eu-central-1a.secretsmanager.eu-central-1.vpce.amazonaws.com",
    "e12345.dscb.akamaiedge.net.0.1.cn.akamaitech.net.globalredir.akadns.net",
    "d111111abcdef8.cloudfront.net",
)
SHORT = "a" * 40 + "{}.t.example.org"

CASES: dict[int, Case] = {
    1200004: Case(
        lambda: [udp("192.0.2.77", "192.0.2.78", 9, b"ringfence-nids-test")],
        lambda: [
            udp("192.0.2.77", "192.0.2.78", 9, b"another test"),
            udp(CLIENT, "192.0.2.78", 9, b"ringfence-nids-test"),
        ],
    ),
    # Undeclared sources
    1200009: Case(
        lambda: [echo(OUTSIDE6, TOOLS6, 56), echo("fe80::7", TOOLS6, 56)],
        lambda: [reply(OUTSIDE6, TOOLS6, 56), advertisement(1, 1)],
    ),
    1200010: Case(
        lambda: [syn(OUTSIDE, EDGE, 443), syn(OUTSIDE6, EDGE6, 443)],
        lambda: [syn(CLIENT, EDGE, 443), *tcp(OUTSIDE, EDGE, 443)[1:2]],
    ),
    1200011: Case(
        lambda: [udp(OUTSIDE6, TOOLS6, 161)],
        lambda: [udp(OUTSIDE, OUTSIDE.replace("9", "8"), 161)],
    ),
    1200012: Case(
        lambda: [echo(OUTSIDE, TOOLS, 56)],
        lambda: [echo(OUTSIDE, TOOLS, 56, kind=0)],
    ),
    # Within a link
    1200013: Case(
        lambda: [syn("fe80::7", "fe80::8", 22), syn("169.254.1.7", "169.254.1.8", 22)],
        lambda: [*tcp("fe80::7", "fe80::8", 22)[1:3], syn("fe80::7", TOOLS6, 22)],
    ),
    1200014: Case(
        lambda: [udp("fe80::7", "fe80::8", 9999)],
        lambda: [
            dhcp6("fe80::7", "ff02::1:2", 546, 547, DHCP6_Solicit(trid=7)),
            dhcp6("fe80::1", "fe80::7", 547, 546, DHCP6_Advertise(trid=7)),
            udp("fe80::7", TOOLS6, 9999),
        ],
    ),
    1200018: Case(
        lambda: [echo("169.254.1.7", "169.254.1.8", 56)],
        lambda: [reply("169.254.1.7", "169.254.1.8", 56)],
    ),
    1200019: Case(
        lambda: [echo("fe80::7", "ff02::1", 56)],
        lambda: [
            reply("fe80::7", "fe80::8", 56),
            ip("fe80::7", "fe80::8") / ICMPv6ND_NS(tgt="fe80::8"),
            ip("fe80::7", "fe80::8") / ICMPv6ND_NA(tgt="fe80::7", S=1),
        ],
    ),
    # Undeclared names
    1200015: Case(
        lambda: named_tls(TOOLS, OUTSIDE, f"x.{NAME}") + named_tls(TOOLS, OUTSIDE, None),
        lambda: named_tls(TOOLS, OUTSIDE, NAME.upper()),
    ),
    1200016: Case(
        lambda: http(TOOLS, OUTSIDE, 80, "GET / HTTP/1.1\nHost: other.example.com"),
        lambda: http(TOOLS, OUTSIDE, 80, f"GET / HTTP/1.1\nHost: {PLAIN_NAME}"),
    ),
    1200017: Case(
        lambda: tcp(TOOLS, OUTSIDE, 443, (">", b"SSH-2.0-x\r\n"), ("<", b"SSH-2.0-y\r\n")),
        lambda: named_tls(TOOLS, OUTSIDE, NAME),
    ),
    # MCP
    1200020: Case(
        lambda: http(EDGE, TOOLS, 8441, POST + HEADERS, "{}"),
        lambda: http(EDGE, TOOLS, 8441, POST + "\nX-Mcp: 1", "{}"),
    ),
    1200021: Case(
        lambda: http(EDGE, TOOLS, 8441, POST, CALL),
        lambda: http(EDGE, TOOLS, 8441, POST, NOT_MCP),
    ),
    1200022: Case(
        lambda: tcp(EDGE, TOOLS, 9000, (">", CALL.encode())),
        lambda: tcp(EDGE, TOOLS, 8441, (">", CALL.encode())),
    ),
    1200023: Case(
        lambda: [syn(CLIENT, TOOLS, 8442), syn(CLIENT6, TOOLS6, 8443)],
        lambda: [syn(EDGE, TOOLS, 8442), syn(CLIENT, EDGE, 443), syn(CLIENT, TOOLS, 8440)],
    ),
    1200024: Case(
        lambda: http(SIEM, TOOLS, 9001, POST, CALL),
        lambda: (
            http(EDGE, TOOLS, 9001, POST, CALL)
            + http(SIEM, TOOLS, 9001, POST, CALL.replace("tools/call", "tools/list"))
        ),
    ),
    # TLS
    1200030: Case(
        lambda: refused_tls(CLIENT, EDGE, 443),
        lambda: tls(CLIENT, EDGE, 443, Handshake(lowest=TLS12)),
    ),
    1200031: Case(
        lambda: old_tls(CLIENT, EDGE, 443),
        lambda: refused_tls(CLIENT, EDGE, 443) + tls(CLIENT, EDGE, 443),
    ),
    1200035: Case(
        lambda: tls(CLIENT, EDGE, 443, Handshake(name=None)),
        lambda: tls(CLIENT, EDGE, 443),
    ),
    1200036: Case(
        lambda: named_tls(TOOLS, OUTSIDE, DENIED_NAME.upper()),
        lambda: named_tls(TOOLS, OUTSIDE, f"not-{DENIED_NAME}"),
    ),
    1200037: Case(
        lambda: [question(TOOLS, RESOLVER, DENIED_NAME.upper())],
        lambda: [question(TOOLS, RESOLVER, f"not-{DENIED_NAME}")],
    ),
    # Metadata
    1200040: Case(
        lambda: [syn(CLIENT, METADATA, 80), syn(CLIENT6, METADATA6, 80)],
        lambda: [syn(TOOLS, METADATA, 80), syn(CLIENT, "169.254.169.253", 80)],
    ),
    1200041: Case(
        lambda: http(
            TOOLS,
            METADATA,
            80,
            METADATA_GET + "\nX-aws-ec2-metadata-token: \nX-aws-ec2-metadata-token-ttl-seconds: 60",
        ),
        lambda: (
            http(TOOLS, METADATA, 80, METADATA_GET + "\nx-aws-ec2-metadata-token:AQAEAA")
            + http(TOOLS, METADATA, 80, TOKEN_PUT)
            + http(TOOLS, OPERATOR, 3142, METADATA_GET)
        ),
    ),
    1200042: Case(
        lambda: http(TOOLS, OPERATOR, 3142, METADATA_GET),
        lambda: (
            [
                packet
                for host in (
                    *("169.254.169.25", "1169.254.169.254", "2852039167", "0xa9fea9fe0", "169.254"),
                    *("[::ffff:a9fe:a9ff]", "[fd00:ec2::2541]", "instance-data.example.com"),
                )
                for packet in http(TOOLS, OPERATOR, 3142, METADATA_GET.replace(METADATA, host))
            ]
            + http(TOOLS, METADATA, 80, METADATA_GET)
        ),
    ),
    1200043: Case(
        lambda: http(TOOLS, OPERATOR, 3142, METADATA_GET.replace(METADATA, "rebound.example.com")),
        lambda: [
            packet
            for path in ("latest/news", "latest/meta-database/", "docs/latest/user-data", "latest/")
            for packet in http(
                TOOLS, OPERATOR, 3142, f"GET /{path} HTTP/1.1\nHost: www.example.com"
            )
        ],
    ),
    # DNS
    1200050: Case(
        lambda: [question(TOOLS6, OUTSIDE6, "example.org")],
        lambda: [question(TOOLS, RESOLVER, "example.org")],
    ),
    1200051: Case(
        lambda: questions(10, LONG),
        lambda: questions(9, LONG) + questions(30, SHORT) + questions(30, HUNDRED),
    ),
    1200053: Case(
        lambda: questions(30, SHORT),
        lambda: (
            questions(29, SHORT)
            + [packet for name in LONG_NAMES for packet in questions(40, "{}." + name)]
            + questions(60, "a" * 25 + "{}.t.example.org")
        ),
    ),
    1200052: Case(
        lambda: (
            questions(15, "{}.t.example.org", "TXT") + questions(15, "{}.t.example.org", "NULL")
        ),
        lambda: (
            questions(29, "{}.t.example.org", "TXT") + questions(40, "{}.t.example.org", "AAAA")
        ),
    ),
    # Scans
    1200060: Case(
        lambda: openings(CLIENT, TOOLS, range(1, 16)),
        lambda: openings(CLIENT, TOOLS, range(1, 15)) + times(40, lambda: [syn(CLIENT, EDGE, 443)]),
    ),
    1200061: Case(
        lambda: [udp(CLIENT6, TOOLS6, port) for port in range(1, 16)],
        lambda: [udp(CLIENT, TOOLS, 5000, sport=5000) for _ in range(40)],
    ),
    # Also from a declared server's port, where the sender is not the server or the target not a
    # client.
    1200062: Case(
        lambda: openings(CLIENT, TOOLS, range(1, 16), "A"),
        lambda: (
            times(20, lambda: tcp(CLIENT, TOOLS, 9000, (">", b"x" * 5000)))
            + acknowledgements(EDGE, CLIENT, 443)
        ),
    ),
    1200063: Case(lambda: [syn(CLIENT, TOOLS, 22, "")], lambda: [syn(CLIENT, TOOLS, 22, "U")]),
    1200064: Case(
        lambda: [syn(CLIENT6, TOOLS6, 22, "F")], lambda: [syn(CLIENT6, TOOLS6, 22, "FA")]
    ),
    1200065: Case(
        lambda: [syn(CLIENT, TOOLS, 22, "FPU")], lambda: [syn(CLIENT, TOOLS, 22, "FPUA")]
    ),
    1200066: Case(lambda: [syn(CLIENT, TOOLS, 22, "SF")], lambda: [syn(CLIENT, TOOLS, 22, "SR")]),
    1200100: Case(
        lambda: overlapping(lambda data: bytes(len(data) - 1), 1),
        lambda: (
            overlapping(lambda data: data)
            + overlapping(lambda data: data[: len(data) // 2])
            + overlapping(lambda data: data[9:], 9)
        ),
    ),
    1200101: Case(
        lambda: http(EDGE, TOOLS, 8441, POST, CALL.replace("tools/call", "\\u0074ools\\u002Fcall")),
        lambda: [
            packet
            for text in (
                CALL.replace("read_query", "\\u0072ead \\u006dethod"),
                NOT_MCP.replace("eth_blockNumber", "z\\u00e4hle a\\u0026b"),
                json.dumps({"\\u006dethod": "tools/call"}),
                '{"methods": "\\u0074ools"}',
            )
            for packet in http(EDGE, TOOLS, 8441, POST, text)
        ],
    ),
    1200070: Case(
        lambda: times(30, lambda: ssh(OPERATOR, TOOLS)),
        lambda: times(29, lambda: ssh(OPERATOR, TOOLS)) + times(29, lambda: ssh(OPERATOR, SIEM)),
    ),
    1200071: Case(
        lambda: times(600, lambda: [syn(CLIENT, EDGE, 443)]),
        lambda: times(599, lambda: [syn(CLIENT, EDGE, 443)]),
    ),
    # Neighbours
    1200080: Case(
        lambda: [ip("fe80::66", "ff02::1") / ICMPv6ND_RA()],
        lambda: [
            ip("fe80::66", "ff02::2") / ICMPv6ND_RS(),
            ip("fe80::1", "ff02::1") / ICMPv6ND_RA(),
        ],
    ),
    1200081: Case(
        lambda: [advertisement(0, 1)],
        lambda: [
            ip(TOOLS6, "ff02::1:ff00:11") / ICMPv6ND_NS(tgt=SIEM6),
            advertisement(1, 1),
            advertisement(0, 0),
        ],
    ),
    1200082: Case(
        lambda: [ip(SIEM, TOOLS) / ICMP(type=5, code=1, gw=CLIENT) / Raw(b"E" * 28)],
        lambda: [ip(SIEM, TOOLS) / ICMP(type=3, code=4) / Raw(b"E" * 28)],
    ),
    1200083: Case(
        lambda: [ip("fe80::66", TOOLS6) / ICMPv6ND_Redirect(tgt="fe80::66", dst=SIEM6)],
        lambda: [ip("fe80::1", TOOLS6) / ICMPv6ND_Redirect(tgt="fe80::2", dst=SIEM6)],
    ),
    1200084: Case(
        lambda: [dhcp("10.213.30.66", "255.255.255.255", 67, 68, 2, "offer")],
        lambda: [
            dhcp(UNSPECIFIED, "255.255.255.255", 68, 67, 1, "discover"),
            dhcp("10.213.30.1", "255.255.255.255", 67, 68, 2, "offer"),
        ],
    ),
    1200085: Case(
        lambda: [dhcp6("fe80::66", "fe80::7", 547, 546, DHCP6_Advertise(trid=7))],
        lambda: [
            dhcp6("fe80::7", "ff02::1:2", 546, 547, DHCP6_Solicit(trid=7)),
            dhcp6("fe80::66", "fe80::7", 547, 546, DHCP6_Request(trid=7)),
        ],
    ),
    # Transfers
    1200090: Case(
        lambda: tcp(TOOLS, OUTSIDE, 443, (">", b"x" * (LARGE + 1))),
        lambda: (
            tcp(TOOLS, OUTSIDE, 443, (">", b"x" * 1000), ("<", b"x" * 2 * LARGE))
            + tcp(TOOLS, SIEM, 2514, (">", b"x" * 2 * LARGE))
        ),
    ),
    1200091: Case(
        lambda: [echo(TOOLS, OUTSIDE, 129) for _ in range(5)],
        lambda: (
            [echo(TOOLS, OUTSIDE, 128) for _ in range(9)]
            + [echo(TOOLS, OUTSIDE, 1000) for _ in range(4)]
        ),
    ),
    1200092: Case(
        lambda: [echo(TOOLS6, OUTSIDE6, 129) for _ in range(5)],
        lambda: [echo(TOOLS6, OUTSIDE6, 128) for _ in range(9)],
    ),
    1200093: Case(
        lambda: [reply(TOOLS, OPERATOR, 129) for _ in range(5)],
        lambda: [reply(TOOLS, OPERATOR, 128) for _ in range(9)],
    ),
    1200094: Case(
        lambda: [reply(TOOLS6, OPERATOR6, 129) for _ in range(5)],
        lambda: [reply(TOOLS6, OPERATOR6, 128) for _ in range(9)],
    ),
    # Other protocols
    1200110: Case(
        lambda: [ip(TOOLS, OUTSIDE) / GRE() / Raw(bytes(64))],
        lambda: [
            *in_fragments(TOOLS, SIEM),
            *in_fragments(TOOLS6, SIEM6),
            *in_fragments(TOOLS6, SIEM6)[1:],
            other("10.213.30.1", "224.0.0.22", 2),
            other("10.213.30.1", "224.0.0.18", 112),
            echo(TOOLS, SIEM, 56),
            echo(TOOLS6, SIEM6, 56),
            *tcp(TOOLS6, SIEM6, 9),
        ],
    ),
    1200111: Case(
        lambda: [other(TOOLS6, SIEM6, 59)],
        lambda: [ip(TOOLS6, SIEM6) / IPv6ExtHdrHopByHop() / UDP(dport=9) / Raw(bytes(64))],
    ),
    1200112: Case(
        lambda: [ip(TOOLS, SIEM) / ICMP(type=13) / Raw(bytes(12))],
        lambda: [ip(TOOLS, SIEM) / ICMP(type=kind) / Raw(bytes(40)) for kind in (0, 3, 8, 11)],
    ),
    1200113: Case(
        lambda: [ip(TOOLS6, SIEM6) / ICMPv6NIQueryNOOP()],
        lambda: [
            echo(TOOLS6, SIEM6, 56),
            reply(TOOLS6, SIEM6, 56),
            ip(TOOLS6, SIEM6) / ICMPv6DestUnreach() / Raw(bytes(40)),
            advertisement(1, 1),
        ],
    ),
    1200114: Case(
        lambda: [reply(TOOLS, OPERATOR, 56) for _ in range(5)],
        lambda: (
            [reply(TOOLS, OPERATOR, 56) for _ in range(4)]
            + times(9, lambda: [echo(OPERATOR, SIEM, 56), reply(SIEM, OPERATOR, 56)])
        ),
    ),
    1200115: Case(
        lambda: [reply(TOOLS6, OPERATOR6, 56) for _ in range(5)],
        lambda: (
            [reply(TOOLS6, OPERATOR6, 56) for _ in range(4)]
            + times(9, lambda: [echo(OPERATOR6, SIEM6, 56), reply(SIEM6, OPERATOR6, 56)])
        ),
    ),
    1200116: Case(lambda: [ip(TOOLS, SIEM) / ICMP(type=3, code=3) / Raw(bytes(64))], errors),
    1200117: Case(lambda: [ip(TOOLS6, SIEM6) / ICMPv6DestUnreach(code=4) / Raw(bytes(64))], errors),
}
"""Cases by signature number, where the number does not depend on the manifest."""

MORE: dict[str, tuple[int, Callable[[], Packets]]] = {
    **{
        f"metadata of {host}": (
            1200042,
            lambda host=host: http(
                TOOLS, OPERATOR, 3142, f"GET / HTTP/1.1\nHost: {host}\nAccept: */*"
            ),
        )
        for host in SPELLINGS
    },
    **{
        f"metadata by {way}": (1200042, lambda text=text: http(TOOLS, OPERATOR, 3142, text))
        for way, text in BY_PROXY.items()
    },
    "metadata by a path that is spelled otherwise": (
        1200043,
        lambda: http(
            TOOLS,
            OPERATOR,
            3142,
            "HEAD http://x.example.com/latest/./%6deta-data/ HTTP/1.1\nHost: x.example.com",
        ),
    ),
    "metadata without a token, by its IPv6 address": (
        1200041,
        lambda: http(TOOLS6, METADATA6, 80, METADATA_GET),
    ),
    **{
        f"escapes in {text}": (
            1200101,
            lambda text=text: http(EDGE, TOOLS, 8441, POST, text),
        )
        for text in (
            CALL.replace("method", "\\u006Dethod"),
            CALL.replace("method", "m\\u0065thod").replace("jsonrpc", "jsonrp\\u0063"),
            "".join(f"\\u{ord(c):04x}" if c.isalpha() else c for c in CALL),
        )
    },
    **{
        f"protocol {number} from {source}": (
            1200110,
            lambda s=source, t=target, n=number: [other(s, t, n)],
        )
        # IGMP, IPIP, IPv6 in IPv4, ESP, SCTP, two for experiments, and an unassigned one.
        for source, target, numbers in (
            (TOOLS, SIEM, (2, 4, 41, 50, 132, 253, 254, 255)),
            (TOOLS6, SIEM6, (50, 132, 253)),
        )
        for number in numbers
    },
    **{
        f"ICMP of type {kind}": (
            1200112,
            lambda kind=kind: [ip(TOOLS, SIEM) / ICMP(type=kind) / Raw(bytes(40))],
        )
        for kind in (1, 4, 9, 10, 15, 17, 40, 77, 255)
    },
    "the port of DHCPv6 for something else": (
        1200014,
        lambda: [udp("fe80::7", "fe80::8", 9999, sport=546)],
    ),
    "mDNS": (1200014, lambda: [udp("fe80::7", "ff02::fb", 5353, sport=5353)]),
    "IPv4 within a link": (1200013, lambda: [syn("169.254.1.7", "169.254.1.8", 22)]),
    "data in many labels": (
        1200051,
        lambda: questions(10, HUNDRED.replace("example", "examples")),
    ),
    "data in long labels, below what only begins like a provider's zone": (
        1200051,
        lambda: questions(10, LONG.replace("example.org", "on.aws.example.org")),
    ),
    "data in labels of 30, for IPv6 addresses": (
        1200053,
        lambda: questions(30, "{}" + "k5x" * 9 + ".example.org", "AAAA"),
    ),
    "acknowledgements from a server's port, of a client": (
        1200062,
        lambda: acknowledgements(CLIENT, TOOLS, 443),
    ),
    "acknowledgements from a server's port, to others than its clients": (
        1200062,
        lambda: acknowledgements(EDGE, TOOLS, 443),
    ),
}
"""Further traffic that must raise the alerts."""

BENIGN: dict[str, Callable[[], Packets]] = {
    "calls": lambda: (
        times(50, lambda: tls(CLIENT, EDGE, 443))
        + times(50, lambda: tls(EDGE, TOOLS, 8441))
        + tls(CLIENT6, EDGE6, 443)
    ),
    "events": lambda: tls(TOOLS, SIEM, 2514) + tls(TOOLS6, SIEM6, 2514),
    "administration": lambda: times(10, lambda: ssh(OPERATOR, TOOLS)) + ssh(OPERATOR6, SIEM6),
    "packages": lambda: http(
        TOOLS, OPERATOR, 3142, "GET /debian/dists/trixie/InRelease HTTP/1.1\nHost: deb.debian.org"
    ),
    "names": lambda: times(
        20,
        lambda: [question(TOOLS, RESOLVER, name) for name in (NAME, PLAIN_NAME, *LONG_NAMES)],
    ),
    "egress": lambda: (
        named_tls(TOOLS, OUTSIDE, NAME)
        + http(TOOLS, OUTSIDE, 80, f"GET / HTTP/1.1\nHost: {PLAIN_NAME}")
    ),
    "neighbours": lambda: [
        ip(TOOLS6, "ff02::1:ff00:11") / ICMPv6ND_NS(tgt=SIEM6),
        advertisement(1, 1),
    ],
    "errors": errors,
    "addresses": lambda: [
        dhcp6("fe80::7", "ff02::1:2", 546, 547, DHCP6_Solicit(trid=7)),
        ip("fe80::7", "ff02::2") / ICMPv6ND_RS(),
        ip("::", "ff02::1:ff00:7") / ICMPv6ND_NS(tgt="fe80::7"),
        ip("fe80::7", "fe80::1") / ICMPv6ND_NS(tgt="fe80::1"),
        ip("fe80::1", "fe80::7") / ICMPv6ND_NA(tgt="fe80::1", S=1, R=1),
    ],
    "groups": lambda: [
        ip("fe80::1", "ff02::1") / ICMPv6MLQuery(),
        ip("fe80::7", "ff02::16") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2(),
        other("10.213.30.1", "224.0.0.1", 2, b"\x11\x64\xee\x9b\0\0\0\0"),
    ],
    "ping": lambda: [
        *times(9, lambda: [echo(OPERATOR, TOOLS, 56), reply(TOOLS, OPERATOR, 56)]),
        *times(9, lambda: [echo(OPERATOR6, TOOLS6, 56), reply(TOOLS6, OPERATOR6, 56)]),
    ],
    "answers whose questions were not seen": lambda: [
        *tls(CLIENT, EDGE, 443)[4:],
        ip(EDGE, CLIENT) / TCP(sport=443, dport=45678, flags="PA", seq=9, ack=9) / Raw(b"x"),
    ],
    "many connections from their middle, the server first": lambda: [
        packet
        for _ in range(25)
        for packet in (
            *tcp(CLIENT, EDGE, 443, (">", b"x" * 3000), ("<", b"y" * 3000))[4:],
            *tcp(EDGE6, TOOLS6, 8441, (">", b"x" * 3000), ("<", b"y" * 3000))[4:],
        )
    ],
    "a connection to a port that is closed": lambda: [
        ip(CLIENT, EDGE) / TCP(sport=45001, dport=443, flags="S", seq=1),
        ip(EDGE, CLIENT) / TCP(sport=443, dport=45001, flags="RA", seq=0, ack=2),
    ],
}

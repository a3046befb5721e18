"""Captures, built in code: traffic of an attacker, and similar harmless traffic."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from scapy.utils import PcapWriter

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
APART = 3600
"""Seconds between captures in one file: enough to expire thresholds and flows."""
STEP = 0.001
SEGMENT = 1400

Packets = list[Packet]
_ports = count(40000)


def source_port() -> int:
    return 40000 + next(_ports) % 20000


def ip(source: str, target: str) -> Packet:
    layer = IPv6 if ip_address(source).version == 6 else IP
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / layer(src=source, dst=target)


def udp(source: str, target: str, port: int, data: bytes = b"x", sport: int = 0) -> Packet:
    return ip(source, target) / UDP(sport=sport or source_port(), dport=port) / Raw(data)


def syn(source: str, target: str, port: int, flags: str = "S") -> Packet:
    return ip(source, target) / TCP(sport=source_port(), dport=port, flags=flags, seq=1000)


def tcp(client: str, server: str, port: int, *said: tuple[str, bytes]) -> Packets:
    """Build a whole connection: the client sends `(">", data)`, the server `("<", data)`."""
    sport = source_port()
    packets: Packets = []
    numbers = {">": 1000, "<": 5000}

    def send(who: str, flags: str, data: bytes = b"") -> None:
        other = "<" if who == ">" else ">"
        ends = (client, server) if who == ">" else (server, client)
        ports = (sport, port) if who == ">" else (port, sport)
        header = TCP(
            sport=ports[0],
            dport=ports[1],
            flags=flags,
            seq=numbers[who],
            ack=numbers[other] if "A" in flags else 0,
        )
        packet = ip(*ends) / header
        packets.append(packet / Raw(data) if data else packet)
        numbers[who] += len(data) + ("S" in flags) + ("F" in flags)

    send(">", "S")
    send("<", "SA")
    send(">", "A")
    for who, data in said:
        for start in range(0, len(data), SEGMENT):
            send(who, "PA", data[start : start + SEGMENT])
            send("<" if who == ">" else ">", "A")
    send(">", "FA")
    send("<", "FA")
    send(">", "A")
    return packets


def http(client: str, server: str, port: int, request: str, body: str = "") -> Packets:
    head = request.rstrip("\n").replace("\n", "\r\n")
    text = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    return tcp(client, server, port, (">", text.encode()), ("<", answer))


@dataclass(frozen=True)
class Handshake:
    """TLS handshake between two OpenSSL ends in memory, without a network."""

    name: str | None = "server.example.com"
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    server_lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2

    def flights(self) -> list[tuple[str, bytes]]:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.minimum_version, client.maximum_version = self.lowest, self.highest
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = self.server_lowest
        with TemporaryDirectory() as scratch:
            path = Path(scratch, "server.pem")
            path.write_bytes(_certificate())
            server.load_cert_chain(path)
        pipes = {who: (ssl.MemoryBIO(), ssl.MemoryBIO()) for who in "><"}
        ends = {
            ">": client.wrap_bio(*pipes[">"], server_hostname=self.name),
            "<": server.wrap_bio(*pipes["<"], server_side=True),
        }
        said: list[tuple[str, bytes]] = []
        for who, other in [(">", "<"), ("<", ">")] * 4:
            try:
                ends[who].do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                self._pass_on(said, pipes, who, other)
                break
            self._pass_on(said, pipes, who, other)
        return said

    @staticmethod
    def _pass_on(
        said: list[tuple[str, bytes]],
        pipes: dict[str, tuple[ssl.MemoryBIO, ssl.MemoryBIO]],
        who: str,
        other: str,
    ) -> None:
        if data := pipes[who][1].read():
            said.append((who, data))
            pipes[other][0].write(data)


def tls(client: str, server: str, port: int, handshake: Handshake | None = None) -> Packets:
    return tcp(client, server, port, *(handshake or Handshake()).flights())


@cache
def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def mirrored(packet: Packet, sensor: str, number: int) -> Packet:
    """Wrap a packet as traffic mirroring does."""
    outer = ip("10.213.0.1", sensor) / UDP(sport=49152 + number % 16000, dport=4789, chksum=0)
    return outer / VXLAN(vni=4242, flags=0x08) / packet


def write(path: Path, captures: Sequence[Iterable[Packet]], sensor: str | None = None) -> None:
    """Write captures to one file, an hour apart; as mirrored packets if a sensor is given."""
    number = 0
    with PcapWriter(str(path), linktype=1, sync=False) as writer:
        for place, packets in enumerate(captures):
            for step, packet in enumerate(packets):
                number += 1
                sent = mirrored(packet, sensor, number) if sensor else packet
                sent.time = START + place * APART + step * STEP
                writer.write(sent)


def number_at(timestamp: str) -> int:
    """Return the number of the capture in its file, from the time of an event."""
    return int((datetime.fromisoformat(timestamp).timestamp() - START) // APART)

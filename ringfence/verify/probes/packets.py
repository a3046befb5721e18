"""Probe: tests which packets get through.

`scan` sends TCP SYNs past this host's own firewall, as an intruder with root would, and reports the
answers. `leak` connects as an account and reports which connections put a packet on an interface,
loopback included. `spoof` creates a private link, claims the address of a neighbour there, and
reports the protocols over which the host accepted the claim.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address

IPV4, ARP, IPV6, ALL = 0x0800, 0x0806, 0x86DD, 0x0003
SYN, RST, ACK = 0x02, 0x04, 0x10
PROTOCOLS = {6: "tcp", 17: "udp"}
HEADER_BYTES = {6: 20, 17: 8}
ANSWER_SECONDS = 0.8
LEAVE_SECONDS = 0.2

LINK, FAR_END = "ringfence-link", "ringfence-far"
OWN = "198.51.100.1", "2001:db8:0:ffff::1"
NEIGHBOUR = "198.51.100.2", "2001:db8:0:ffff::2"
"""Documentation addresses, which no host uses (RFC 5737, RFC 3849)."""

TRUE, FALSE = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
ACCEPTANCE_SECONDS = 2

Packet = tuple[str, str, str, int, int, int]
"""Source, destination, protocol, ports, TCP flags."""


def scan(targets: list[tuple[str, int]]) -> list[str]:
    """Return the answer of each target: `open`, `closed`, or `silent`."""
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    sent: dict[tuple[str, int, int], int] = {}
    answers = ["silent"] * len(targets)
    for number, (address, port) in enumerate(targets):
        source_port = 32768 + secrets.randbelow(28000)
        sent[address, port, source_port] = number
        send_opening(address, source_port, port)
    for packet in sniff(sniffer, ANSWER_SECONDS):
        source, _, protocol, source_port, port, flags = packet
        number = sent.get((source, source_port, port))
        if number is not None and protocol == "tcp" and flags & ACK:
            answers[number] = "closed" if flags & RST else "open"
    return answers


def leak(account: str, targets: list[tuple[str, str, int]]) -> list[bool]:
    """Return for each target whether a packet to it left the host."""
    uid = pwd.getpwnam(account).pw_uid
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    connections: list[socket.socket] = []
    for address, protocol, port in targets:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        os.seteuid(uid)  # a socket belongs to the account that creates it
        connection = socket.socket(family(address), kind)
        os.seteuid(0)
        connection.setblocking(False)
        connection.bind(("", 0))  # the port distinguishes its packets from those of other checks
        connections.append(connection)
        try:
            connection.connect((address, port))
            connection.send(b"\n")
        except OSError:
            pass  # only packets that leave the host count
    left = {
        (destination, protocol, port, source_port)
        for _, destination, protocol, source_port, port, flags in sniff(sniffer, LEAVE_SECONDS)
        if protocol == "udp" or flags & (SYN | ACK) == SYN
    }
    wanted = [
        (*target, connection.getsockname()[1])
        for target, connection in zip(targets, connections, strict=True)
    ]
    for connection in connections:
        connection.close()
    return [packet in left for packet in wanted]


def spoof() -> list[str]:
    """Return the protocols over which the host accepted the second claim."""
    claims: dict[str, Callable[[bytes], bytes]] = {"ARP": arp_request, "ND": solicitation}
    accepted: list[str] = []
    subprocess.run(["ip", "link", "delete", LINK], capture_output=True, check=False)
    ip("link", "add", LINK, "type", "veth", "peer", "name", FAR_END)
    try:
        ip("link", "set", FAR_END, "addrgenmode", "none", "up")
        ip("link", "set", LINK, "addrgenmode", "none", "up")
        ip("address", "add", f"{OWN[0]}/30", "dev", LINK)
        ip("address", "add", f"{OWN[1]}/126", "dev", LINK, "nodad")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((FAR_END, 0))
            for neighbour, (protocol, claim) in zip(NEIGHBOUR, claims.items(), strict=True):
                await_acceptance(wire, claim(TRUE), neighbour)
                wire.send(claim(FALSE))
                time.sleep(0.2)
                if neighbour_hardware(neighbour, LINK) != TRUE:
                    accepted.append(protocol)
    finally:
        ip("link", "delete", LINK)
    return accepted


def await_acceptance(wire: socket.socket, frame: bytes, neighbour: str) -> None:
    """Repeat a claim until the host accepts it: a new link is not ready at once."""
    end = time.monotonic() + ACCEPTANCE_SECONDS
    while time.monotonic() < end:
        wire.send(frame)
        time.sleep(0.1)
        if neighbour_hardware(neighbour, LINK) == TRUE:
            return
    raise SystemExit(f"the host accepts no claim of {neighbour}, not even the first")


def arp_request(claimant: bytes) -> bytes:
    """Return an ARP request for the host's address; the host's kernel records the sender."""
    header = (
        b"\xff" * 6 + claimant + ARP.to_bytes(2, "big") + struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
    )
    source, target = ip_address(NEIGHBOUR[0]).packed, ip_address(OWN[0]).packed
    return header + claimant + source + bytes(6) + target


def solicitation(claimant: bytes) -> bytes:
    """Return a neighbour solicitation, the IPv6 form of an ARP request."""
    source, target = ip_address(NEIGHBOUR[1]).packed, ip_address(OWN[1]).packed
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\x01\x01" + claimant
    pseudo = source + target + struct.pack("!II", len(body), 58)
    body = body[:2] + checksum(pseudo + body) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + target
    to = bytes.fromhex(ip("link", "show", LINK)[0]["address"].replace(":", ""))
    return to + claimant + IPV6.to_bytes(2, "big") + header + body


def sniff(sniffer: socket.socket, seconds: float):
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        sniffer.settimeout(rest)
        try:
            frame = sniffer.recv(2048)
        except TimeoutError:
            return
        if packet := parse(frame):
            yield packet


def parse(frame: bytes) -> Packet | None:
    kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind == IPV4:
        protocol, start = packet[9], (packet[0] & 0x0F) * 4
        source, destination = packet[12:16], packet[16:20]
    elif kind == IPV6:
        protocol, start = packet[6], 40
        source, destination = packet[8:24], packet[24:40]
    else:
        return None
    segment = packet[start:]
    if len(segment) < HEADER_BYTES.get(protocol, len(segment) + 1):
        return None
    source_port, port = struct.unpack("!HH", segment[:4])
    flags = segment[13] if protocol == 6 else 0
    ends = str(ip_address(source)), str(ip_address(destination))
    return (*ends, PROTOCOLS[protocol], source_port, port, flags)


def send_opening(address: str, source_port: int, port: int) -> None:
    route = ip("route", "get", address)[0]
    source, device = route["prefsrc"], route["dev"]
    hop = hardware_address(route.get("gateway", address), device)
    segment = opening(source, address, source_port, port)
    ends = ip_address(source).packed, ip_address(address).packed
    if family(address) == socket.AF_INET:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0)
        header = header[:10] + checksum(header + ends[0] + ends[1]) + ends[0] + ends[1]
        kind = IPV4
    else:
        header = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + ends[0] + ends[1]
        kind = IPV6
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        own = wire.getsockname()[4]
        wire.send(hop + own + kind.to_bytes(2, "big") + header + segment)


def opening(source: str, destination: str, source_port: int, port: int) -> bytes:
    fields = (source_port, port, secrets.randbits(32), 0, 5 << 4, SYN, 64240, 0, 0)
    segment = struct.pack("!HHIIBBHHH", *fields)
    ends = ip_address(source).packed + ip_address(destination).packed
    pseudo = ends + struct.pack("!II", len(segment), 6)
    return segment[:16] + checksum(pseudo + segment) + segment[18:]


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def hardware_address(hop: str, device: str) -> bytes:
    ip("neigh", "replace", hop, "dev", device, "use")
    for _ in range(20):
        if known := neighbour_hardware(hop, device):
            return known
        time.sleep(0.05)
    raise SystemExit(f"{hop} on {device} does not answer with its hardware address")


def neighbour_hardware(address: str, device: str) -> bytes:
    """Return the neighbour's hardware address in the kernel's table; empty if it has none."""
    for neighbour in ip("neigh", "show", address, "dev", device):
        if "lladdr" in neighbour:
            return bytes.fromhex(neighbour["lladdr"].replace(":", ""))
    return b""


def ip(*words: str) -> list[dict]:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return json.loads(done.stdout or "[]")


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def main(arguments: list[str]) -> None:
    request = json.loads(arguments[0])
    match request["do"]:
        case "scan":
            result: list = scan([(a, p) for a, p in request["targets"]])
        case "spoof":
            result = spoof()
        case _:
            result = leak(request["account"], [(a, n, p) for a, n, p in request["targets"]])
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])

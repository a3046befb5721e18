"""Probe: sends packets to a sensor as if they were mirrored.

    COUNT ADDRESS SOURCE_PORT [SOURCE TARGET]

It runs on the sensor and sends to the sensor's own address, so no other host receives the packets.
With SOURCE and TARGET it sends a refused TCP connection between them, else datagrams that match the
test signature.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from ipaddress import ip_address

ETHERNET, TCP, UDP, VXLAN = 0x0800, 6, 17, 4789
SYN, RST_ACK = 0x02, 0x14
INNER = ("192.0.2.77", "192.0.2.78", 9, b"ringfence-nids-test")
"""Addresses, port and payload of the test signature; no host has these addresses."""


def interface(address: str) -> tuple[str, bytes]:
    links = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout
    for link in json.loads(links):
        if any(each.get("local") == address for each in link["addr_info"]):
            return link["ifname"], bytes.fromhex(link["address"].replace(":", ""))
    raise SystemExit(f"no interface has {address}")


def packet(source: str, target: str, protocol: int, data: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0)
    ends = ip_address(source).packed + ip_address(target).packed
    return header[:10] + checksum(header + ends) + ends + data


def datagram(ports: tuple[int, int], data: bytes) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(data), 0) + data


def segment(ports: tuple[int, int], numbers: tuple[int, int], flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 1024, 0, 0)


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def copy(own: bytes, address: str, inner: bytes) -> bytes:
    """Return the frame in which a mirror sends a copy of a packet."""
    kind = ETHERNET.to_bytes(2, "big")
    vxlan = struct.pack("!II", 0x08 << 24, 1 << 8) + bytes(12) + kind
    return own + own + kind + packet(address, address, UDP, datagram((49152, VXLAN), vxlan + inner))


def main() -> None:
    count, address, source_port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    device, own = interface(address)
    source, target, port, data = INNER
    if sys.argv[4:]:
        source, target = sys.argv[4:]
        there, back = (source_port, port), (port, source_port)
        inner = [
            packet(source, target, TCP, segment(there, (1, 0), SYN)),
            packet(target, source, TCP, segment(back, (0, 2), RST_ACK)),
        ]
    else:
        inner = [packet(source, target, UDP, datagram((source_port, port), data))]
    frames = [copy(own, address, each) for each in inner]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        for _ in range(count):
            for frame in frames:
                wire.send(frame)


if __name__ == "__main__":
    main()

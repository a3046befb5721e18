"""Sent to a sensor and run there as root, with the standard library alone: packets as if mirrored.

    COUNT ADDRESS SOURCE_PORT

Out of the sensor's own interface, to its own address: no other host sees them.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from ipaddress import ip_address

ETHERNET, UDP, VXLAN = 0x0800, 17, 4789
INNER = ("192.0.2.77", "192.0.2.78", 9, b"ringfence-nids-test")
"""What the signature for tests asks for: addresses that are nobody's."""


def interface(address: str) -> tuple[str, bytes]:
    said = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout
    for link in json.loads(said):
        if any(each.get("local") == address for each in link["addr_info"]):
            return link["ifname"], bytes.fromhex(link["address"].replace(":", ""))
    raise SystemExit(f"no interface has {address}")


def packet(source: str, target: str, ports: tuple[int, int], data: bytes) -> bytes:
    length = 28 + len(data)
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, UDP, 0)
    ends = ip_address(source).packed + ip_address(target).packed
    header = header[:10] + checksum(header + ends) + ends
    return header + struct.pack("!HHHH", *ports, 8 + len(data), 0) + data


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def main() -> None:
    count, address, source_port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    device, own = interface(address)
    source, target, port, data = INNER
    ethernet = bytes(12) + ETHERNET.to_bytes(2, "big")
    inner = ethernet + packet(source, target, (source_port, port), data)
    wrapped = struct.pack("!II", 0x08 << 24, 1 << 8) + inner
    outer = packet(address, address, (49152, VXLAN), wrapped)
    frame = own + own + ETHERNET.to_bytes(2, "big") + outer
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        for _ in range(count):
            wire.send(frame)


if __name__ == "__main__":
    main()

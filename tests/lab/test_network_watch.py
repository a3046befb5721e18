"""The lab's network: the sensor's mirrored packets, the router's access lists, the attacker's node.

No role is applied: the tests concern the network that the hosts use.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab import Lab, UnusableError, network
from ringfence.lab.mirroring import MTU, PORT
from ringfence.manifest.model import Environment

SENSOR = '  sensor-1: {{segment: monitoring, address: 10.{0}.40.12, address6: "fd0d:{0}:40::12", '
SENSOR += "groups: [sensor]}}\n  siem-1:"

LISTEN = """
import socket, sys, threading
def serve(port):
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as s:
        while True:
            with s.accept()[0] as connection:
                while connection.recv(65536):
                    pass
for port in map(int, sys.argv[1:]):
    threading.Thread(target=serve, args=(port,)).start()
"""

CONNECT = """
import json, socket, sys
opened = []
for address, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((address, port), 2).close()
        opened.append([address, port])
    except OSError:
        pass
print(json.dumps(opened))
"""

CAPTURE = """
import json, socket, sys, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
def total(data):
    data += bytes(len(data) % 2)
    value = sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    while value >> 16:
        value = (value & 0xffff) + (value >> 16)
    return value
capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
capture.settimeout(0.2)
open("/run/capturing", "w").close()
end = time.monotonic() + seconds
while time.monotonic() < end:
    try:
        outer = capture.recv(70000)
    except TimeoutError:
        continue
    udp = outer[12:14] == bytes([8, 0]) and outer[23] == 17
    if not udp or int.from_bytes(outer[36:38], "big") != port:
        continue
    frame = outer[50:]
    seen = {"bytes": len(outer), "type": frame[12:14].hex()}
    if seen["type"] == "0800":
        packet = frame[14:14 + int.from_bytes(frame[16:18], "big")]
        seen |= {"protocol": packet[9], "source": socket.inet_ntoa(packet[12:16]),
                 "target": socket.inet_ntoa(packet[16:20]), "payload": packet[20:].hex()}
        if packet[9] == 6:
            pseudo = packet[12:20] + bytes([0, 6]) + (len(packet) - 20).to_bytes(2, "big")
            seen["sound"] = total(pseudo + packet[20:]) == 0xffff
    print(json.dumps(seen))
"""

ECHO = """
import os, socket, sys
def total(data):
    value = sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    while value >> 16:
        value = (value & 0xffff) + (value >> 16)
    return value
def packet(source, target, number):
    icmp = bytes([8, 0, 0, 0]) + number.to_bytes(4, "big")
    icmp = icmp[:2] + (total(icmp) ^ 0xffff).to_bytes(2, "big") + icmp[4:]
    ip = bytes([69, 0, 0, 28, 0, 0, 64, 0, 64, 1, 0, 0])
    return ip + socket.inet_aton(source) + socket.inet_aton(target) + icmp
source, target, numbers = sys.argv[1], sys.argv[2], range(int(sys.argv[3]))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for number in numbers:
    raw.sendto(packet(source, target, number), (target, 0))
"""

PING = """
import json, os, socket, sys
# Its own number, so that no router takes it for part of an earlier exchange.
number = os.getpid() & 0x7fff
answered = []
for address in sys.argv[1:]:
    six = ":" in address
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    request, reply, start = (128, 129, 0) if six else (8, 0, 20)
    total = 0 if six else ~(0x0800 + number) & 0xffff  # of IPv6 the kernel fills it in
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(2)
        head = bytes([request, 0]) + total.to_bytes(2, "big")
        raw.sendto(head + number.to_bytes(2, "big") + bytes(2), (address, 0))
        try:
            while address not in answered:
                packet, peer = raw.recvfrom(2048)
                told = int.from_bytes(packet[start + 4:start + 6], "big")
                if (peer[0], packet[start], told) == (address, reply, number):
                    answered.append(address)
        except TimeoutError:
            pass
print(json.dumps(answered))
"""


@pytest.fixture(scope="module")
def lab(make_manifest: Callable[..., Path], release: str, octets: range) -> Iterator[Lab]:
    octet = octets[2]
    manifest = make_manifest(f"watch-{octet}", octet)
    text = manifest.read_text()
    manifest.write_text(text.replace("  siem-1:", SENSOR.format(octet), 1))
    lab = Lab(Environment.load(manifest), release)
    lab.down()
    try:
        lab.up()
        for host, ports in {"tools-1": (8441, 9000), "siem-1": (2514, 9000)}.items():
            listen = ["systemd-run", "--quiet", "python3", "-c", LISTEN, *map(str, ports)]
            lab.exec(host, listen, check=True)
        yield lab
    finally:
        lab.down(purge=True)


def address(lab: Lab, host: str) -> str:
    return str(lab.environment.hosts[host].address)


def opened(lab: Lab, node: str, *targets: tuple[str, int]) -> set[tuple[str, int]]:
    named = [(str(a), p) for host, p in targets for a in lab.environment.hosts[host].addresses]
    ended = lab.exec(node, ["python3", "-c", CONNECT, json.dumps(named)], timeout=60, check=True)
    names = {str(a): host.name for host in lab.environment.hosts.values() for a in host.addresses}
    found = Counter((names[a], port) for a, port in json.loads(ended.stdout))
    assert set(found.values()) <= {2}, f"one family only: {ended.stdout}"
    return set(found)


def captured(lab: Lab, act: Callable[[], object]) -> list[dict[str, Any]]:
    """Return the packets that reach the sensor during an action."""
    lab.exec("sensor-1", ["rm", "-f", "/run/capturing"], check=True)
    capture = subprocess.Popen(
        lab.command("sensor-1", ["python3", "-c", CAPTURE, str(PORT), "3"]),
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while lab.exec("sensor-1", ["test", "-e", "/run/capturing"]).returncode:
        assert time.monotonic() < deadline, "the capture does not begin"
        time.sleep(0.05)
    act()
    out, _ = capture.communicate(timeout=30)
    return [json.loads(line) for line in out.splitlines()]


def test_every_packet_is_seen_once(lab: Lab):
    """Within a segment and between segments, from hosts and from any other node on the link."""
    tools, siem = address(lab, "tools-1"), address(lab, "siem-1")
    lab.intrude("servers")

    def send():
        own = str(lab.plan.intruder(lab.environment.segments["servers"]).link.addresses[0].ip)
        for node, source, target in (
            ("tools-1", tools, siem),
            ("intruder.servers", own, tools),
            ("intruder.servers", own, siem),
        ):
            lab.exec(node, ["python3", "-c", ECHO, source, target, "20"], check=True)

    try:
        seen = captured(lab, send)
    finally:
        lab.withdraw("servers")
    requests = Counter(
        (s["source"].rpartition(".")[2], s["target"], s["payload"])
        for s in seen
        if s.get("protocol") == 1 and s["payload"].startswith("08")
    )
    assert set(requests.values()) == {1}
    assert Counter(key[:2] for key in requests) == {
        ("11", siem): 20,
        ("66", tools): 20,
        ("66", siem): 20,
    }


def test_frames_are_whole_and_sound(lab: Lab):
    """Frames have the size and the checksums that they have on a cable; only an attacker sends
    others."""
    send = "import socket; socket.create_connection(({!r}, 9000), 2).sendall(bytes(100_000))"
    program = ["python3", "-c", send.format(address(lab, "siem-1"))]
    seen = captured(lab, lambda: lab.exec("tools-1", program, check=True))
    segments = [
        s for s in seen if s.get("protocol") == 6 and s["source"] == address(lab, "tools-1")
    ]
    assert sum(len(s["payload"]) // 2 - 32 for s in segments) >= 100_000
    assert max(s["bytes"] for s in segments) == 14 + 36 + 14 + 1500 <= MTU + 14
    assert all(s["sound"] for s in segments)


def test_copies_are_not_copied(lab: Lab):
    seen = captured(
        lab,
        lambda: lab.exec(
            "sensor-1",
            ["python3", "-c", ECHO, address(lab, "sensor-1"), address(lab, "siem-1"), "5"],
            check=True,
        ),
    )
    assert not [s for s in seen if s.get("source") == address(lab, "sensor-1")]


def test_the_router_lets_pass_what_the_manifest_declares(lab: Lab):
    everything = {("tools-1", 8441), ("tools-1", 9000), ("siem-1", 2514), ("siem-1", 9000)}
    assert opened(lab, "client", *everything) == everything
    lab.enforce()
    try:
        assert opened(lab, "client", *everything) == {("tools-1", 8441)}
        assert opened(lab, "tools-1", ("siem-1", 2514), ("siem-1", 9000)) == {("siem-1", 2514)}
        # The router is not on the path within a segment.
        assert opened(lab, "sensor-1", ("siem-1", 9000)) == {("siem-1", 9000)}
    finally:
        lab.lift()
    assert opened(lab, "client", *everything) == everything


def test_the_router_lets_management_ping_hosts_and_nobody_else(lab: Lab):
    targets = [str(a) for a in lab.environment.hosts["tools-1"].addresses]
    assert [":" in target for target in targets] == [False, True]

    def pinged(node: str) -> list[str]:
        command = ["python3", "-c", PING, *targets]
        return json.loads(lab.exec(node, command, timeout=30, check=True).stdout)

    lab.intrude("management")
    try:
        assert pinged("client") == targets
        lab.enforce()
        assert pinged("intruder.management") == targets
        assert pinged("client") == []
        assert pinged("siem-1") == []
    finally:
        lab.lift()
        lab.withdraw("management")


def test_the_router_knows_forged_sources(lab: Lab):
    lab.enforce()
    try:
        forged = ["python3", "-c", ECHO, address(lab, "siem-1"), address(lab, "tools-1"), "7"]
        lab.exec("client", forged, check=True)
        counters = json.loads(
            lab.exec("router", ["nft", "--json", "list", "counters"], check=True).stdout
        )
        (spoofed,) = (
            each["counter"]["packets"]
            for each in counters["nftables"]
            if each.get("counter", {}).get("name") == "spoofed"
        )
        assert spoofed == 7
    finally:
        lab.lift()


def test_an_attacker_stands_in_any_segment_and_leaves_nothing(lab: Lab):
    for segment in lab.environment.segments:
        lab.intrude(segment)
        assert ("siem-1", 9000) in opened(lab, f"intruder.{segment}", ("siem-1", 9000))
        lab.intrude(segment)  # again, as after a crash
        lab.withdraw(segment)
        with pytest.raises(UnusableError, match="ringfence lab intrude"):
            lab.exec(f"intruder.{segment}", ["true"])
    links = lab.exec("router", ["ip", "-brief", "link"], check=True).stdout
    assert "i-" not in [line[:2] for line in links.splitlines()]
    with pytest.raises(UnusableError, match="no segment nowhere"):
        lab.intrude("nowhere")


def test_an_attacker_goes_with_the_lab(lab: Lab):
    """Runs last: it takes the lab down."""
    lab.intrude("clients")
    lab.down()
    assert not network.namespaces(lab.name)

"""Look for ports: scan.py KIND SECONDS ADDRESS PORT…, with so many seconds between two packets.

Succeeds with any answer: what is silent tells nothing.
"""

import json
import sys
import time
from ipaddress import ip_address

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from scapy.sendrecv import sr

FLAGS = {"syn": "S", "fin": "F", "null": "", "xmas": "FPU", "ack": "A"}

began = time.time()
kind, pause, target, *ports = sys.argv[1:]
network = (IPv6 if ip_address(target).version == 6 else IP)(dst=target)
probes = [
    network / UDP(sport=50000, dport=port) / Raw(b"?")
    if kind == "udp"
    else network / TCP(sport=50000, dport=port, flags=FLAGS[kind], seq=1)
    for port in map(int, ports)
]
answered, _ = sr(probes, timeout=2, inter=float(pause), verbose=0)
saw = f"{len(answered)} of {len(probes)} ports answered"
print(json.dumps({"began": began, "succeeded": bool(answered), "saw": saw}))

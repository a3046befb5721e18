"""Scan ports: scan.py KIND SECONDS ADDRESS PORT…, with SECONDS between two packets.

Succeeds with any answer: silence shows nothing.
"""

import json
import secrets
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
# A new port each time, so that packets of one scan do not count towards the next.
own = 20000 + secrets.randbelow(40000)
network = (IPv6 if ip_address(target).version == 6 else IP)(dst=target)
probes = [
    network / UDP(sport=own, dport=port) / Raw(b"?")
    if kind == "udp"
    else network / TCP(sport=own, dport=port, flags=FLAGS[kind], seq=1)
    for port in map(int, ports)
]
answered, _ = sr(probes, timeout=2, inter=float(pause), verbose=0)
saw = f"{len(answered)} of {len(probes)} ports answered"
print(json.dumps({"began": began, "succeeded": bool(answered), "saw": saw}))

"""Open a connection in fragments of 8 bytes: fragments.py ADDRESS PORT.

A filter that reads only the first fragment sees the ports without the flags.
"""

import json
import sys
import time

from scapy.layers.inet import IP, TCP, fragment
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, send

began = time.time()
target, port = sys.argv[1], int(sys.argv[2])
opening = IP(dst=target) / TCP(sport=50001, dport=port, flags="S", seq=1) / Raw(b"")
answers = AsyncSniffer(
    lfilter=lambda p: TCP in p and IP in p and (p[IP].src, p[TCP].sport) == (target, port),
    iface="eth0",
)
answers.start()
time.sleep(0.5)
send(fragment(opening, fragsize=8), verbose=0)
time.sleep(2)
found = answers.stop() or []
saw = ", ".join(packet.summary() for packet in found)
print(json.dumps({"began": began, "succeeded": bool(found), "saw": saw}))

"""Exfiltrate data in pings: echo.py ADDRESS COUNT. Succeeds when any answer comes back."""

import json
import os
import sys
import time

from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Raw
from scapy.sendrecv import sr

began = time.time()
target, count = sys.argv[1], int(sys.argv[2])
packets = [
    IPv6(dst=target) / ICMPv6EchoRequest(seq=n, data=os.urandom(900))
    if ":" in target
    else IP(dst=target) / ICMP(seq=n) / Raw(os.urandom(900))
    for n in range(count)
]
answered, _ = sr(packets, timeout=1, inter=0.02, verbose=0)
saw = f"{len(answered)} of {count} came back"
print(json.dumps({"began": began, "succeeded": bool(answered), "saw": saw}))

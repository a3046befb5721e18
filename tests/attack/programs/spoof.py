"""Send SYNs from a forged address: spoof.py SOURCE ADDRESS PORT.

Only the target shows whether it succeeded.
"""

import json
import sys
import time

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.sendrecv import send

began = time.time()
source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
network = (IPv6 if ":" in target else IP)(src=source, dst=target)
send([network / TCP(sport=50100 + n, dport=port, flags="S", seq=1) for n in range(5)], verbose=0)
print(json.dumps({"began": began, "succeeded": None, "saw": ""}))

"""Show TLS 1.2 to a server and something else to a sensor: overlap.py ADDRESS PORT.

A segment with other bytes precedes the hello and starts one byte later in the stream. The server
holds it until the missing byte arrives; that byte comes with the complete hello.
"""

import json
import socket
import ssl
import sys
import time

from scapy.layers.inet import IP, TCP
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, send

began = time.time()
address, port = sys.argv[1], int(sys.argv[2])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.maximum_version = ssl.TLSVersion.TLSv1_2
answers = AsyncSniffer(lfilter=lambda packet: packet.haslayer(IP) and packet[IP].src == address)
answers.start()
time.sleep(0.5)
saw = ""
try:
    with socket.create_connection((address, port), 2) as plain:
        time.sleep(0.5)
        opened = next(p[TCP] for p in answers.stop() or () if TCP in p and p[TCP].flags == "SA")
        decoy = TCP(
            sport=opened.dport, dport=port, flags="A", seq=opened.ack + 1, ack=opened.seq + 1
        )
        send(IP(dst=address) / decoy / Raw(b"." * 90), verbose=0)
        time.sleep(0.2)
        with context.wrap_socket(plain) as secure:
            saw = secure.version() or ""
except (OSError, StopIteration) as error:
    saw = f"{saw} {type(error).__name__}: {error}".strip()
print(json.dumps({"began": began, "succeeded": saw == "TLSv1.2", "saw": saw}))

"""Exfiltrate data in DNS names: dns.py RESOLVER BYTES. Succeeds when the resolver took all of it.

Each query holds some 120 bytes in labels of 60 characters.
"""

import json
import os
import socket
import sys
import time

began = time.time()
resolver, size = sys.argv[1], int(sys.argv[2])
version = socket.AF_INET6 if ":" in resolver else socket.AF_INET
with socket.socket(version, socket.SOCK_DGRAM) as out:
    out.settimeout(0.5)
    taken = number = 0
    while number * 60 < size and number - taken < 3:
        labels = [os.urandom(30).hex().encode() for _ in range(2)] + [b"example"]
        name = b"".join(bytes([len(label)]) + label for label in labels)
        question = number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\0\x10\0\1"
        number += 1
        try:
            out.sendto(question, (resolver, 53))
            taken += bool(out.recv(4096))
        except OSError:
            pass
saw = f"{taken} of {number} questions answered"
print(json.dumps({"began": began, "succeeded": taken * 60 >= size, "saw": saw}))

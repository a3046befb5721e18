"""Speak TLS: tls.py ADDRESS PORT VERSION NAME BYTES [PAUSE]. Succeeds when all bytes are sent.

VERSION is the highest offered version, 1.2 or 1.3. With PAUSE, it sends a hundred bytes at a time,
that many seconds apart.
"""

import json
import socket
import ssl
import sys
import time

began = time.time()
address, port, version, name, size, *pause = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.maximum_version = {
    "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3
}[version]  # fmt: skip
sent, saw = 0, ""
try:
    with (
        socket.create_connection((address, int(port)), 2) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        saw = secure.version() or ""
        while sent < int(size):
            piece = b"x" * min(100 if pause else 16384, int(size) - sent)
            secure.sendall(piece)
            sent += len(piece)
            time.sleep(float(pause[0]) if pause else 0)
        secure.settimeout(2)
        answered = bool(secure.recv(1)) if sent else True
except OSError as error:
    saw, answered = f"{saw} {type(error).__name__}".strip(), False
print(json.dumps({"began": began, "succeeded": answered, "saw": f"{saw}, {sent} bytes"}))

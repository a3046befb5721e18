"""Request one name under another inside TLS: fronting.py ADDRESS PORT NAME HIDDEN-NAME."""

import json
import socket
import ssl
import sys
import time

began = time.time()
address, port, name, hidden = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
try:
    with (
        socket.create_connection((address, int(port)), 2) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {hidden}\r\n\r\n".encode())
        secure.settimeout(5)
        saw = secure.recv(64).decode()
except OSError as error:
    saw = type(error).__name__
print(json.dumps({"began": began, "succeeded": saw.startswith("HTTP/1.1 200"), "saw": saw}))

"""Open TCP connections: connect.py ADDRESS PORT [ADDRESS PORT …]. Succeeds with the first."""

import json
import socket
import sys
import time

began = time.time()
targets = list(zip(sys.argv[1::2], map(int, sys.argv[2::2]), strict=True))
opened = []
for address, port in targets:
    try:
        socket.create_connection((address, port), 1).close()
        opened.append(f"{address} port {port}")
    except OSError:
        pass
print(json.dumps({"began": began, "succeeded": bool(opened), "saw": ", ".join(opened)}))

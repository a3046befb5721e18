"""Call a tool without the gateway: call.py ADDRESS PORT. Succeeds with a result."""

import http.client
import json
import ssl
import sys
import time

began = time.time()
address, port = sys.argv[1], int(sys.argv[2])
message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_query"}}
saw = ""
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
for connection in (
    http.client.HTTPConnection(address, port, timeout=2),
    http.client.HTTPSConnection(address, port, timeout=2, context=context),
):
    try:
        connection.request("POST", "/mcp", json.dumps(message), {"Mcp-Method": "tools/call"})
        saw = connection.getresponse().read(200).decode(errors="replace")
        break
    except (OSError, http.client.HTTPException) as error:
        saw = type(error).__name__
print(json.dumps({"began": began, "succeeded": '"result"' in saw, "saw": saw}))

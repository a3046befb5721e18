"""Probe: sends HTTP requests over Unix sockets.

One argument: a JSON list of `{"socket": PATH, "bytes": BASE64}`; prints a list of
`{"status": NUMBER, "text": BODY}` in the same order. Status 0: no answer, and the reason as text.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import sys

SECONDS = 15
LARGEST = 1024 * 1024


def answer(path: str, request: bytes) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        try:
            connection.connect(path)
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return {
                "status": response.status,
                "text": response.read(LARGEST).decode(errors="replace"),
            }
        except (OSError, http.client.HTTPException) as error:
            return {"status": 0, "text": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    requests = json.loads(sys.argv[1])
    answers = [answer(each["socket"], base64.b64decode(each["bytes"])) for each in requests]
    print(json.dumps(answers))

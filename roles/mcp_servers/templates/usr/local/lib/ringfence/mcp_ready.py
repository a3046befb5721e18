"""Wait until every MCP server answers on its socket, and report those that do not."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

SECONDS = 120
REQUEST = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def wait_for_answer(path: str, deadline: float) -> bool:
    """Wait for any HTTP status; systemd queues the connection until the server accepts it."""
    while (left := deadline - time.monotonic()) > 0:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(left)
            try:
                connection.connect(path)
                connection.sendall(REQUEST)
                if connection.recv(5) == b"HTTP/":
                    return True
            except OSError:
                pass
        time.sleep(0.2)
    return False


def main() -> int:
    deadline = time.monotonic() + SECONDS
    silent = [path for path in sys.argv[1:] if not wait_for_answer(path, deadline)]
    for path in silent:
        name = Path(path).stem
        print(f"MCP server {name} does not answer: journalctl -u mcp-{name}", file=sys.stderr)
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())

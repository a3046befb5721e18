"""Answer health checks of the network sensor: accept connections while Suricata reports.

    health.py PORT REPORTED SECONDS

The modification time of the file REPORTED is the monotonic time of Suricata's last statistics. When
they are older than SECONDS, as when Suricata hangs, the port is closed until the next ones.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

TICK = 1.0


def is_reporting(reported: Path, seconds: float) -> bool:
    try:
        return time.monotonic() - reported.stat().st_mtime < seconds
    except FileNotFoundError:
        return False


def answer(listening: socket.socket) -> None:
    try:
        connection, _ = listening.accept()
    except TimeoutError:
        return
    connection.close()


def main() -> None:
    port, reported, seconds = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    while True:
        if is_reporting(reported, seconds):
            with socket.create_server(("0.0.0.0", port)) as listening:  # noqa: S104 - firewalled
                listening.settimeout(TICK)
                while is_reporting(reported, seconds):
                    answer(listening)
        time.sleep(TICK)


if __name__ == "__main__":
    main()

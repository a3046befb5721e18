"""Takes connections and ends them, while the sensor reports: who may connect learns that it does.

    health.py PORT REPORTED SECONDS

REPORTED is a file whose time, of the monotonic clock, is that of Suricata's last report on itself.
Once it is SECONDS ago, as after Suricata hangs, the port is closed until the next report.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

TICK = 1.0


def reports(reported: Path, seconds: float) -> bool:
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
        if reports(reported, seconds):
            with socket.create_server(("0.0.0.0", port)) as listening:  # noqa: S104 - firewalled
                listening.settimeout(TICK)
                while reports(reported, seconds):
                    answer(listening)
        time.sleep(TICK)


if __name__ == "__main__":
    main()

"""Takes connections and ends them: who may connect learns that the sensor runs.

    health.py PORT

The unit runs while Suricata's does.
"""

from __future__ import annotations

import socket
import sys


def main() -> None:
    with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as listening:  # noqa: S104 - firewalled
        while True:
            connection, _ = listening.accept()
            connection.close()


if __name__ == "__main__":
    main()

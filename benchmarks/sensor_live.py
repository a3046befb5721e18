"""Mirrored packets a second that a sensor takes from an interface on one core, without a drop.

The other core sends calls in TLS, in VXLAN, at a steady rate and for longer than the sensor's
buffers can hold. The result is the highest rate at which the kernel drops nothing. Both interfaces
are in a network namespace that ends with this program. Alternative in the same run, with the same
packets: the configuration and the rules that Debian's package installs.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from captures import mirrored, tls
from scratch import alone, report, say
from sensor import CONNECTIONS, ENDS, MANIFEST, SENSOR, STOCK
from suricata import Suricata, configured, render

from ringfence.inventory import nids
from ringfence.manifest.model import Environment

WIRE, INTERFACE = "wire", "eth0"
SECONDS = 10
HIGHEST, STEPS = 240_000, 7
"""Highest rate, in packets a second, and how often the range is halved."""
BURST = 32
CORES = os.sched_getaffinity(0)
COUNTED = re.compile(r"packets: (\d+), drops: (\d+)")


@dataclass(frozen=True)
class Outcome:
    rate: float
    """Packets sent per second."""
    sent: int
    seen: int
    dropped: int

    @property
    def whole(self) -> bool:
        return self.dropped == 0 and self.seen >= self.sent


@contextmanager
def listening(engine: Suricata, folder: Path, options: Sequence[str]) -> Iterator[list[str]]:
    """Run Suricata on the first core. When it ends, its output is in the list."""
    said: list[str] = []
    process = folder / "suricata.pid"
    words = [*options, "-l", "/mnt", f"--af-packet={INTERFACE}", "--pidfile", "/mnt/suricata.pid"]

    def run() -> None:
        os.sched_setaffinity(0, {min(CORES)})  # this thread and its children
        said.append(engine.run(folder, *words).stdout)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while len(Path("/proc/net/packet").read_text().splitlines()) < 2:
            if time.monotonic() > deadline or not thread.is_alive():
                raise SystemExit(f"Suricata does not listen: {said}")
            time.sleep(0.1)
        time.sleep(2)
        yield said
    finally:
        if process.exists():
            os.kill(int(process.read_text()), signal.SIGTERM)
        thread.join()


def send(frames: Sequence[bytes], rate: float) -> tuple[int, float]:
    """Send packets; return their number and the rate that was reached."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((WIRE, 0))
        sent, total, started = 0, int(rate * SECONDS), time.perf_counter()
        while sent < total:
            for place in range(sent, sent + BURST):
                wire.send(frames[place % len(frames)])
            sent += BURST
            while time.perf_counter() - started < sent / rate:
                pass  # busy wait: a sleep is longer than the time between bursts
        return sent, sent / (time.perf_counter() - started)


def attempt(
    engine: Suricata, folder: Path, options: Sequence[str], frames: Sequence[bytes], rate: float
) -> Outcome:
    with listening(engine, folder, options) as said:
        sent, became = send(frames, rate)
        time.sleep(2)
    found = COUNTED.findall(said[0])
    if not found:
        raise SystemExit(f"Suricata does not tell what it has seen: {said[0][-2000:]}")
    seen, dropped = map(int, found[-1])
    return Outcome(became, sent, seen, dropped)


@dataclass
class Search:
    """Binary search for the highest rate without a drop."""

    name: str
    options: Sequence[str]
    low: float = 0.0
    high: float = HIGHEST
    best: float = 0.0

    def step(self, engine: Suricata, folder: Path, frames: Sequence[bytes]) -> None:
        middle = (self.low + self.high) / 2
        outcome = attempt(engine, folder, self.options, frames, middle)
        say(
            f"{self.name}: {outcome.rate:,.0f} packets/s: {outcome.seen:,} of {outcome.sent:,} "
            f"seen, {outcome.dropped:,} dropped"
        )
        if outcome.whole:
            self.low, self.best = middle, max(self.best, outcome.rate)
        else:
            self.high = middle


def main() -> None:
    engine = Suricata.installed()  # first, because it may download
    alone()
    os.sched_setaffinity(0, {max(CORES)})
    run = partial(subprocess.run, check=True)
    run(["ip", "link", "add", WIRE, "type", "veth", "peer", "name", INTERFACE])
    for link in (WIRE, INTERFACE):
        run(["sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1"])
        run(["ip", "link", "set", link, "mtu", "9000", "up"])
    environment = Environment.load(MANIFEST)
    variables = nids.variables(environment, environment.hosts["sensor-1"])
    variables |= {"nids_denied_ja4": [], "nids_denied_sni": []}
    frames = [
        bytes(mirrored(packet, SENSOR, number))
        for number in range(CONNECTIONS)
        for packet in tls(*ENDS[number % len(ENDS)])
    ]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        render(variables, folder)
        ours, theirs = Search("ours", configured()), Search("the package's", STOCK)
        for _ in range(STEPS):  # in turns, so other load on the machine affects both
            for search in (ours, theirs):
                search.step(engine, folder, frames)
    report(
        "sensor_live",
        {
            "packets_per_second": round(ours.best),
            "alternative": "Suricata as the package configures it",
            "alternative_packets_per_second": round(theirs.best),
            "ratio": ours.best / theirs.best if theirs.best else None,
            "load_average": os.getloadavg()[0],
        },
    )


if __name__ == "__main__":
    main()

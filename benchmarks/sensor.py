"""Mirrored packets a second that a sensor can inspect, computed from processor time.

Suricata reads calls in TLS, in VXLAN, from a file on one thread; its start time is subtracted. The
result is the maximum of one processor, without the cost of receiving packets from a network card.
Alternative in the same run: the configuration and the rules that Debian's package installs. The
same sensor also runs with 1,000 more declared connections.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captures import Packets, tls, write
from scratch import ROOT, report, say
from suricata import Suricata, render

from ringfence.cloud import signatures
from ringfence.inventory import nids
from ringfence.manifest.model import Environment

MANIFEST = ROOT / "inventories/sensor/environment.yaml"
CONNECTIONS, RUNS = 4000, 3
CLIENT, EDGE, TOOLS, SENSOR = "10.213.20.10", "10.213.50.11", "10.213.30.11", "10.213.40.12"
ENDS = ((CLIENT, EDGE, 443), (EDGE, TOOLS, 8441))
STOCK = ("-c", "/etc/suricata/suricata.yaml", "-S", "/etc/suricata/rules/*.rules", "-k", "none")


def more(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        source, target = f"10.213.20.{number % 200 + 20}", f"10.213.30.{number // 200 + 20}"
        yield {
            "sources": [source],
            "destinations": [target],
            "protocol": "tcp",
            "port": 9000,
            "why": "one of many",
            "sid": signatures.sid(signatures.FIRST_OF_SENSOR, source, target),
        }


def seconds(engine: Suricata, folder: Path, capture: str, stock: bool) -> float:
    """Return the seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if stock:
        words = (*STOCK, "-l", "/mnt", "-r", f"/mnt/{capture}", "--runmode", "single")
        done = engine.run(folder, *words)
        assert done.returncode == 0, done.stdout[-2000:]
    else:
        engine.inspect(folder, folder / capture)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    engine = Suricata.installed()
    environment = Environment.load(MANIFEST)
    variables = nids.variables(environment, environment.hosts["sensor-1"])
    variables |= {"nids_denied_ja4": [], "nids_denied_sni": []}
    calls: list[Packets] = [tls(*ENDS[n % len(ENDS)]) for n in range(CONNECTIONS)]
    packets = sum(map(len, calls))
    kinds = {
        "ours": variables,
        "ours, 1,000 more declared": variables
        | {"nids_declared": [*variables["nids_declared"], *more(1000)]},
        "the package's": {},
    }
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write(folder / "all.pcap", [[p for call in calls for p in call]], SENSOR)
        write(folder / "none.pcap", [calls[0][:1]], SENSOR)
        for name, told in kinds.items():
            if told:
                render(told, folder)
            taken = min(
                seconds(engine, folder, "all.pcap", not told)
                - seconds(engine, folder, "none.pcap", not told)
                for _ in range(RUNS)
            )
            rates[name] = packets / taken
            say(f"{name}: {rates[name]:,.0f} packets/s, {taken:.2f} s for {packets:,}")
    figures = {name: round(rate) for name, rate in rates.items()}
    report("sensor", {"packets": packets, "packets_per_second": figures})


if __name__ == "__main__":
    main()

"""Latency from a packet on the network to an alert in the collector's record.

Budget: 1 s. An intruder in a segment sends packets that match a rule, each in its own flow, while
other traffic is mirrored too. The sensor gets copies in VXLAN; its events go through the journal,
RELP over mutual TLS 1.3 and the hash chain. Alternative in the same run: alerts that stay in the
journal of the sensor, where only its root can read them and also delete them.
"""

from __future__ import annotations

import json
import time
from datetime import datetime

from event_latency import percentile
from scratch import ROOT, environment, executable, lab, report, say, timed

from ringfence.lab.lab import Lab

BUDGET_SECONDS = 1.0
ALERTS, RATE = 400, 10
"""Number of alerts, and alerts a second."""
BACKGROUND = 2000
"""Packets a second in total; all but `RATE` of them match no rule."""
MANIFEST = ROOT / "inventories/sensor/environment.yaml"
RULE = 'alert udp any any -> $HOSTS 9 (msg:"Benchmark"; sid:100; rev:1;)\n'
ROLES = "tls,siem,log_shipping,nids,firewall"

# Prints the sending time of each packet by source port; the nodes of a lab share one clock.
SEND = """
import json, socket, sys, time
target, count, rate, fill = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def flow():
    return socket.socket(type=socket.SOCK_DGRAM)  # not connected: nobody has to listen
other, told, step = flow(), {}, 1 / (rate * fill)
started = time.monotonic()
for number in range(count * fill):
    if number % fill == 0:
        with flow() as one:
            one.bind(("", 0))
            told[one.getsockname()[1]] = time.time()
            one.sendto(b"benchmark", (target, 9))
    else:
        other.sendto(bytes(400), (target, 5555))
    time.sleep(max(0.0, started + (number + 1) * step - time.monotonic()))
print(json.dumps(told))
"""


def sent(booted: Lab) -> dict[str, float]:
    """Send the packets; return the sending times in Unix seconds by source port."""
    target = str(booted.environment.hosts["tools-1"].address)
    words = [target, str(ALERTS), str(RATE), str(BACKGROUND // RATE)]
    say(f"{RATE} alerts/s and {BACKGROUND} packets/s beside them for {ALERTS // RATE} s")
    done = booted.exec("intruder.clients", ["python3", "-c", SEND, *words], timeout=300, check=True)
    return json.loads(done.stdout)


def received(booted: Lab, ports: dict[str, float]) -> list[tuple[float, float]]:
    """Return milliseconds to the sensor's journal and to the record, for each alert received."""
    find = 'grep -hF \'"NIDS_SIGNATURE_ID":"100"\' /var/log/ringfence/sensor-1/*.jsonl || :'
    found: dict[str, tuple[float, float]] = {}
    for _ in range(15):
        lines = booted.exec("siem-1", ["sh", "-c", find], timeout=60, check=True).stdout
        for record in map(json.loads, lines.splitlines()):
            port = record["fields"]["NIDS_SRC_PORT"]
            moments = (datetime.fromisoformat(record[key]) for key in ("time", "received"))
            logged, recorded = (1000 * (m.timestamp() - ports[port]) for m in moments)
            found[port] = logged, recorded
        if len(found) == len(ports):
            break
        time.sleep(2)
    return list(found.values())


def main() -> None:
    with environment("bench-alerts", 235, manifest=MANIFEST) as env, lab(env) as booted:
        (env.path.parent / "nids").mkdir()
        (env.path.parent / "nids/own.rules").write_text(RULE)
        playbook = [executable("ansible-playbook"), "-i", env.path, "playbooks/harden.yml"]
        timed(*playbook, "--tags", ROLES, "--limit", "sensor-1,siem-1")
        booted.intrude("clients")
        ports = sent(booted)
        found = received(booted, ports)
    if not found:
        raise SystemExit("no alert arrived")
    journal, record = (sorted(column) for column in zip(*found, strict=True))
    report(
        "alert_latency",
        {
            "sent": len(ports),
            "arrived": len(found),
            "p50_ms": percentile(record, 0.50),
            "p99_ms": percentile(record, 0.99),
            "max_ms": record[-1],
            "budget_ms": BUDGET_SECONDS * 1000,
            "within_budget": percentile(record, 0.99) <= BUDGET_SECONDS * 1000,
            "alternative": "the sensor's own journal",
            "alternative_p50_ms": percentile(journal, 0.50),
            "alternative_p99_ms": percentile(journal, 0.99),
            "ratio_p99": percentile(record, 0.99) / percentile(journal, 0.99),
        },
    )


if __name__ == "__main__":
    main()

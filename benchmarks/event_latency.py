"""Latency of an event from the program that logs it to the collector's record.

Budget: 1 s, at 1,000 events a second, through the journal, RELP over mutual TLS 1.3 and the hash
chain. Alternative in the same run, to the same host and at the same rate: plain UDP syslog into a
file by rsyslog's imudp, without encryption, acknowledgement or queue. The two hosts have only the
roles that log shipping needs, because the firewall would block UDP.
"""

from __future__ import annotations

import json
import time

from scratch import environment, executable, lab, report, say, timed

from ringfence.lab.lab import Lab

BUDGET_SECONDS = 1.0
RATE, SECONDS = 1000, 15
PORT = 5514
PEER = "/run/udp-syslog"

PLAYBOOK = """
- hosts: all
  gather_facts: false
  roles: [tls]
- hosts: siem
  gather_facts: false
  roles: [siem]
- hosts: all
  gather_facts: false
  roles: [log_shipping]
"""

# Every message contains its sending time; the hosts of a lab share one clock.
SEND = """
import socket, sys, time
where, name, rate, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
address, _, port = where.rpartition(":")
log = socket.socket(socket.AF_INET if port.isdigit() else socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect((address, int(port)) if port.isdigit() else where)
started = time.monotonic()
for i in range(count):
    log.send(b"<14>%s: sent %d" % (name.encode(), time.time_ns()))
    time.sleep(max(0.0, started + (i + 1) / rate - time.monotonic()))
"""

# Latency in milliseconds of every event that arrived.
RECEIVED = """
import glob, json, sys
from datetime import datetime
def elapsed(moment, sent):
    return datetime.fromisoformat(moment).timestamp() * 1e3 - int(sent) / 1e6
found = []
for path in glob.glob(sys.argv[1]):
    for line in open(path):
        if sys.argv[2] in line:
            if line.startswith("{"):
                record = json.loads(line)
                if record.get("identifier") == sys.argv[2] and not record.get("duplicate"):
                    found.append(elapsed(record["received"], record["message"].split()[1]))
            else:
                moment, _, sent = line.split()
                found.append(elapsed(moment, sent))
print(json.dumps(sorted(found)))
"""

UDP_COLLECTOR = f"""
global(workDirectory="/run" net.enableDNS="off")
module(load="imudp")
template(name="line" type="string" string="%timegenerated:::date-rfc3339% %syslogtag% %msg:7:$%\\n")
input(type="imudp" port="{PORT}" ruleset="file")
ruleset(name="file") {{ action(type="omfile" file="{PEER}.log" template="line") }}
"""


def run(lab: Lab, host: str, *command: str, text: str | None = None) -> str:
    done = lab.exec(host, command, input=text, timeout=120)
    if done.returncode:
        raise SystemExit(f"{host}: {' '.join(command)[:80]}: {done.stdout}{done.stderr}")
    return done.stdout


def send(lab: Lab, where: str, name: str) -> None:
    say(f"{name}: {RATE} events/s for {SECONDS} s")
    run(lab, "tools-1", "python3", "-c", SEND, where, name, str(RATE), str(RATE * SECONDS))


def received(lab: Lab, files: str, name: str) -> list[float]:
    """Return the latencies; first wait for events in transit, for a minute at most."""
    found: list[float] = []
    for _ in range(30):
        found = json.loads(run(lab, "siem-1", "python3", "-c", RECEIVED, files, name))
        if len(found) >= RATE * SECONDS:
            break
        time.sleep(2)
    return found


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def apply_roles(lab: Lab) -> None:
    manifest = lab.environment.path
    playbook = manifest.with_name("shipping.yml")
    playbook.write_text(PLAYBOOK)
    variables = {
        "ansible_user": lab.environment.bootstrap.user,
        "ansible_ssh_private_key_file": str(lab.environment.bootstrap.identity_file),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.environment.state}/known_hosts",
    }
    extra = playbook.with_suffix(".json")
    extra.write_text(json.dumps(variables))
    timed(executable("ansible-playbook"), "-i", manifest, playbook, "-e", f"@{extra}")


def main() -> None:
    with environment("bench-events", 234) as env, lab(env) as booted:
        apply_roles(booted)
        run(booted, "siem-1", "sleep", "3")
        send(booted, "/dev/log", "ringfence")
        ours = received(booted, "/var/log/ringfence/tools-1/*.jsonl", "ringfence")

        run(booted, "siem-1", "tee", f"{PEER}.conf", text=UDP_COLLECTOR)
        rsyslogd = ["/usr/sbin/rsyslogd", "-n", "-iNONE", "-f", f"{PEER}.conf"]
        run(booted, "siem-1", "systemd-run", "--quiet", "--unit=udp-syslog", *rsyslogd)
        run(booted, "siem-1", "sleep", "2")
        send(booted, f"{env.hosts['siem-1'].address}:{PORT}", "udp")
        theirs = received(booted, f"{PEER}.log", "udp")
    if not ours or not theirs:
        raise SystemExit(f"events arrived: {len(ours)} ours, {len(theirs)} by UDP")
    report(
        "event_latency",
        {
            "events": RATE * SECONDS,
            "events_per_second": RATE,
            "arrived": len(ours),
            "p50_ms": percentile(ours, 0.50),
            "p99_ms": percentile(ours, 0.99),
            "max_ms": ours[-1],
            "budget_ms": BUDGET_SECONDS * 1000,
            "within_budget": percentile(ours, 0.99) <= BUDGET_SECONDS * 1000,
            "alternative": "plain UDP syslog to rsyslog imudp",
            "alternative_arrived": len(theirs),
            "alternative_p50_ms": percentile(theirs, 0.50),
            "alternative_p99_ms": percentile(theirs, 0.99),
            "ratio_p99": percentile(ours, 0.99) / percentile(theirs, 0.99),
        },
    )


if __name__ == "__main__":
    main()

"""Every event reaches the collector, whatever fails on the way; duplicates are marked."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.identity.pki import principal_identity
from ringfence.lab import Lab
from ringfence.manifest.model import Environment

ROOT = Path(__file__).parents[2]
OCTET = 219
OUTAGE_SECONDS = 60
RATE = 1000
PATIENCE_SECONDS = 180

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

# Numbered messages at a steady rate; it blocks, as any program does, when journald lags.
GENERATOR = """
import socket, sys, time
name, first, count, rate = sys.argv[1], *map(int, sys.argv[2:])
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.connect("/dev/log")
started = time.monotonic()
for i in range(count):
    log.send(b"<14>%s: event %d" % (name.encode(), first + i))
    time.sleep(max(0.0, started + i / rate - time.monotonic()))
"""

# Numbers that arrived: unmarked ones, and those marked as duplicates.
ARRIVED = """
import glob, json, sys
fresh, again = [], []
for path in sorted(glob.glob("/var/log/ringfence/tools-1/*.jsonl")):
    with open(path) as file:
        for line in file:
            if sys.argv[1] in line:
                record = json.loads(line)
                if record.get("identifier") == sys.argv[1]:
                    number = int(record["message"].split()[1])
                    (again if record.get("duplicate") else fresh).append(number)
print(json.dumps([fresh, again]))
"""


@pytest.fixture(scope="module")
def lab(make_manifest: Callable[..., Path], release: str) -> Iterator[Lab]:
    """Boot a lab whose hosts ship their journals, without other hardening."""
    environment = Environment.load(make_manifest("test-shipping", OCTET))
    lab = Lab(environment, release)
    lab.down()
    try:
        lab.up()
        _apply_roles(lab)
        yield lab
    finally:
        lab.down(purge=True)


def _apply_roles(lab: Lab) -> str:
    manifest = lab.environment.path
    playbook = manifest.with_name("shipping.yml")
    playbook.write_text(PLAYBOOK)
    variables = {
        "ansible_user": lab.environment.bootstrap.user,
        "ansible_ssh_private_key_file": str(lab.environment.bootstrap.identity_file),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={lab.environment.state}/known_hosts",
    }
    run = subprocess.run(
        ["ansible-playbook", "-i", manifest, playbook, "-e", json.dumps(variables)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    return run.stdout


def run(lab: Lab, host: str, *command: str, timeout: float = 60) -> str:
    done = lab.exec(host, command, timeout=timeout)
    assert done.returncode == 0, f"{host}: {' '.join(command)[:80]}: {done.stdout}{done.stderr}"
    return done.stdout


def generate(lab: Lab, name: str, first: int, count: int) -> None:
    """Start a generator that continues in the background."""
    program = ["/usr/bin/python3", "-c", GENERATOR, name, str(first), str(count), str(RATE)]
    run(lab, "tools-1", "systemd-run", "--quiet", "--collect", f"--unit={name}", *program)


def journal_numbers(lab: Lab, name: str) -> list[int]:
    """Return the events in the host's journal: all of them must arrive."""
    text = run(lab, "tools-1", "journalctl", "--quiet", "--output=cat", f"--identifier={name}")
    return [int(line.split()[1]) for line in text.splitlines()]


def arrived(lab: Lab, name: str) -> tuple[list[int], list[int]]:
    fresh, again = json.loads(run(lab, "siem-1", "python3", "-c", ARRIVED, name))
    return fresh, again


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(1)


def wait_until_arrived(lab: Lab, name: str, numbers: list[int]) -> tuple[list[int], list[int]]:
    wait_for(lambda: set(arrived(lab, name)[0]) >= set(numbers), f"{len(numbers)} events of {name}")
    return arrived(lab, name)


def test_every_event_arrives_once_whatever_fails(lab: Lab):
    name, first = "outages", 0
    generate(lab, name, first, count=RATE * (OUTAGE_SECONDS + 120))
    time.sleep(3)

    run(lab, "siem-1", "systemctl", "stop", "rsyslog.service")
    time.sleep(OUTAGE_SECONDS)
    run(lab, "siem-1", "systemctl", "start", "rsyslog.service")
    time.sleep(5)

    run(lab, "siem-1", "systemctl", "kill", "--signal=KILL", "rsyslog.service")
    time.sleep(5)

    lab.disconnect("siem-1")
    time.sleep(8)
    lab.reconnect("siem-1")
    time.sleep(3)

    run(lab, "siem-1", "systemctl", "stop", "rsyslog.service")
    time.sleep(3)
    lab.kill("tools-1")
    run(lab, "siem-1", "systemctl", "start", "rsyslog.service")
    lab.start("tools-1")

    generate(lab, "later", 0, count=3 * RATE)
    time.sleep(1)
    lab.kill("siem-1")
    lab.start("siem-1")
    wait_for(lambda: len(journal_numbers(lab, "later")) == 3 * RATE, "the second generator")

    for generator in (name, "later"):
        sent = journal_numbers(lab, generator)
        assert sent == list(range(len(sent))), "the journal itself dropped events"
        fresh, again = wait_until_arrived(lab, generator, sent)
        twice = [number for number, times in Counter(fresh).items() if times > 1]
        assert not twice, f"{len(twice)} events arrived twice and do not say so"
        # An interrupted write of the journal may lose its last entries. They had been sent: the
        # collector then has more than the host.
        assert sorted(fresh) == list(range(len(fresh)))
        assert len(sent) <= len(fresh) <= len(sent) + 64
        assert set(again) <= set(fresh)
        print(f"{generator}: {len(sent)} sent, {len(again)} copies marked")
    assert len(journal_numbers(lab, name)) > RATE * OUTAGE_SECONDS * 0.8


def test_the_record_holds_after_all_of_this(lab: Lab):
    """With the operator's key, on a copy: as an auditor verifies it."""
    report = verify(lab)
    assert report["findings"] == []
    assert report["missing"] == 0
    assert report["records"] > 1000
    assert report["seals"] > 0


def verify(lab: Lab) -> dict:
    key = (lab.environment.state / "seals/siem-1.key").read_text()
    command = ["ringfence-verify-log", "--json", "--key", "/dev/stdin"]
    done = lab.exec("siem-1", command, input=key, timeout=120)
    return json.loads(done.stdout)


def test_a_full_disk_stops_the_record_and_loses_nothing(lab: Lab):
    settings = "/etc/ringfence/collector.json"
    run(lab, "siem-1", "sed", "-i.kept", r"s/\(reserve_mib.: \)[0-9]*/\1999999999/", settings)
    try:
        run(lab, "siem-1", "systemctl", "restart", "rsyslog.service")
        generate(lab, "full", 0, count=500)
        alarm = "the collector accepts no events"
        wait_for(
            lambda: alarm in run(lab, "siem-1", "journalctl", "-b", "-p", "crit", "-o", "cat"),
            "the alarm",
            30,
        )
        assert arrived(lab, "full") == ([], [])
    finally:
        run(lab, "siem-1", "mv", f"{settings}.kept", settings)
        run(lab, "siem-1", "systemctl", "restart", "rsyslog.service")
    sent = list(range(500))
    fresh, _ = wait_until_arrived(lab, "full", sent)
    assert sorted(fresh) == sent


# Opens a RELP session with a certificate, and prints whether it was answered.
OPEN_SESSION = """
import socket, ssl, sys
address, server_name, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile="/etc/ringfence/pki/ca.crt")
context.load_cert_chain(certificate, key)
with socket.create_connection((address, 2514), 5) as plain:
    try:
        connection = context.wrap_socket(plain, server_hostname=server_name)
        offer = b"\\nrelp_version=0\\nrelp_software=test\\ncommands=syslog"
        connection.sendall(b"1 open %d %s\\n" % (len(offer), offer))
        print("accepted" if b"200 OK" in connection.recv(4096) else "refused")
    except OSError:
        print("refused")
"""


def test_only_hosts_may_send_and_nobody_else_of_the_authority(lab: Lab):
    """A caller's certificate permits calls, but no writing to the record."""
    environment, collector = lab.environment, lab.environment.hosts["siem-1"]
    identity = principal_identity(environment, environment.principals["carol"])
    for name, path in (("carol.crt", identity.certificate), ("carol.key", identity.key)):
        done = lab.exec("tools-1", ["tee", f"/root/{name}"], input=path.read_text())
        assert done.returncode == 0
    target = (OPEN_SESSION, str(collector.address), collector.fqdn)
    own = ("/etc/ringfence/pki/host.crt", "/etc/ringfence/pki/host.key")
    assert run(lab, "tools-1", "python3", "-c", *target, *own) == "accepted\n"
    carol = ("/root/carol.crt", "/root/carol.key")
    assert run(lab, "tools-1", "python3", "-c", *target, *carol) == "refused\n"


def test_a_collector_by_another_name_gets_nothing(lab: Lab):
    settings = "/etc/ringfence/shipping.json"
    run(lab, "tools-1", "sed", "-i.kept", r"s/siem-1\.\(.*\)internal/other.\1internal/", settings)
    try:
        run(lab, "tools-1", "systemctl", "restart", "ringfence-shipping.service")
        generate(lab, "withheld", 0, count=10)
        shipping = ("journalctl", "-u", "ringfence-shipping", "-o", "cat", "-n", "20")
        wait_for(
            lambda: "its certificate is refused" in run(lab, "tools-1", *shipping), "refusal", 30
        )
        assert arrived(lab, "withheld") == ([], [])
    finally:
        run(lab, "tools-1", "mv", f"{settings}.kept", settings)
        run(lab, "tools-1", "systemctl", "restart", "ringfence-shipping.service")
    wait_until_arrived(lab, "withheld", list(range(10)))


def test_a_second_run_changes_nothing(lab: Lab):
    assert set(re.findall(r"changed=(\d+)", _apply_roles(lab))) == {"0"}

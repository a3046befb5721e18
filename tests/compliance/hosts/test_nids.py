"""Sensors receive all traffic and alert on undeclared connections (NET-04, NET-05)."""

from __future__ import annotations

import json
import secrets
import shlex
from typing import Any

import pytest

from ringfence.inventory import nids
from ringfence.manifest.model import Environment, Host
from ringfence.verify import probes
from ringfence.verify.collector import record_of
from ringfence.verify.targets import Target, Targets, UnreachableError

REMEDY = "apply role nids"
SEND_MIRRORED = probes.source("mirrored_packets")
CURRENT = "/var/lib/ringfence-nids/current"
STAGED = "/etc/ringfence/nids/staged"
COMMANDS = "/run/suricata/command.sock"
MIRRORED = (
    "{ nft -j list set inet ringfence_nids mirrored || "
    "nft -j list set netdev ringfence_nids mirrored; }"
)
COPIES = "inet ringfence_nids copies"
ATTEMPTS = 10
EVENTS = "ringfence-nids-events@{0}.socket ringfence-nids-events@{0}.service"
RELOAD = f"suricatasc -c ruleset-reload-rules {COMMANDS}"
RESTART = "systemctl restart suricata; sleep 5"
DROP_IN = "/etc/systemd/system/suricata.service.d/90-sabotage.conf"
TEST = 1200004
"""Number of the test signature."""
CAP_NET_RAW = 1 << 13
STARTED = "systemctl show --timestamp=unix -P ActiveEnterTimestamp suricata"
DAY = 24 * 3600
REPORTS = "systemctl cat ringfence-nids-events@alerts | grep -oP -m 1 'report-seconds \\K[0-9]+'"
"""Prints the seconds within which a report is due."""


def send(host: Target, count: int, source_port: int, *ends: str) -> None:
    words = (str(count), str(host.manifest.address), str(source_port), *ends)
    sent = host.run(f"python3 -c %s {' '.join(['%s'] * len(words))}", SEND_MIRRORED, *words)
    assert sent.succeeded, f"the sensor could not send a test packet: {sent.stderr.strip()[-300:]}"


def query(host: Target, command: str) -> Any:
    """Return the answer of the running Suricata to a command."""
    answer = host.run("suricatasc -c %s %s", command, COMMANDS)
    assert answer.succeeded, f"Suricata does not answer; see `journalctl -u suricata`; {REMEDY}"
    return json.loads(answer.stdout)["message"]


def edited(file: str, change: str, take: str) -> pytest.MarkDecorator:
    return pytest.mark.sabotage(
        f"cp -p {CURRENT}/{file} /root/.sabotage && {change} && {take}",
        restore=f"cp -p /root/.sabotage {CURRENT}/{file} && rm /root/.sabotage && {take}",
    )


def without_reader(kind: str) -> pytest.MarkDecorator:
    units = EVENTS.format(kind)
    return pytest.mark.sabotage(
        f"systemctl stop {units}", restore=f"systemctl start {units}; {RESTART}"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@edited("rules/flows.rules", f": > {CURRENT}/rules/flows.rules", RELOAD)
def test_rules_of_the_manifest_are_in_force(host: Target, environment: Environment) -> None:
    """A sensor without rules looks busy and never alerts."""
    shown = host.run(f"grep -hv '^ *#' {CURRENT}/rules/*.rules | grep -o 'sid: *[0-9][0-9]*'")
    present = {int(line.removeprefix("sid:")) for line in shown.stdout.splitlines()}
    expected = nids.variables(environment, host.manifest)
    wanted = {entry["sid"] for entry in (*expected["nids_declared"], *expected["nids_names"])}
    wanted |= {sid for segment in expected["nids_segments"] for sid in segment["sids"].values()}
    assert wanted <= present, (
        f"the sensor lacks {len(wanted - present)} rules of the manifest; {REMEDY}"
    )
    engines = query(host, "ruleset-stats")
    running = [(each["rules_loaded"], each["rules_failed"]) for each in engines]
    assert running == [(len(present), 0)], (
        f"Suricata loaded (rules, failures) {running} of {len(present)} rules on disk; {REMEDY}"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@edited("rules/evasion.rules", f": > {CURRENT}/rules/evasion.rules", RELOAD)
def test_rules_are_those_of_the_role(host: Target) -> None:
    """Suricata does not report missing rules, such as those of no manifest."""
    compared = host.run(f"diff -rq {STAGED}/rules {CURRENT}/rules")
    found = (compared.stdout or compared.stderr).splitlines()
    assert compared.succeeded, (
        f"rules on the sensor differ from those of the role: {found[:1]}; {REMEDY}"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@edited("rules/dns.rules", f"echo 'alert nothing' >> {CURRENT}/rules/dns.rules", "true")
def test_rules_would_load_again(host: Target) -> None:
    """Rules that cannot be loaded again are gone with the next start."""
    tested = host.run(
        "setpriv --reuid ringfence-nids --regid ringfence-nids --clear-groups "
        f"suricata -T -c {CURRENT}/suricata.yaml -l /tmp"
    )
    errors = [line for line in tested.stdout.splitlines() if line.startswith("E:")]
    assert tested.succeeded, (
        f"Suricata would not start with its configuration: {errors[:1]}; {REMEDY}"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    f"first=$({MIRRORED} | grep -oE '([0-9]+[.]){{3}}[0-9]+' | head -n 1); "
    f"nft insert rule {COPIES} udp dport 4789 vxlan ip saddr $first drop; "
    "nft flush set inet ringfence_nids mirrored",
    restore=f"nft -f {CURRENT}/mirror.nft",
)
def test_every_host_is_mirrored(host: Target, targets: Targets, environment: Environment) -> None:
    """Rules inspect only mirrored traffic; a mirror without one host looks complete."""
    sensors = environment.group("sensor")
    missing = [each for each in environment.hosts.values() if each.address and each not in sensors]
    unreachable: list[UnreachableError] = []
    for attempt in range(ATTEMPTS):
        # A balancer shares hosts out among sensors.
        senders = set().union(*(mirrored(targets[sensor]) for sensor in sensors))
        missing = [each for each in missing if str(each.address) not in senders]
        if not missing or attempt == ATTEMPTS - 1:
            break
        unreachable = [error for each in missing if (error := reached(targets, each))]
        host.run("sleep 0.2")
    if missing and len(missing) == len(unreachable):
        raise unreachable[0]
    assert not missing, (
        f"within five minutes no packet of {missing[0].name} was mirrored, nor of "
        f"{len(missing) - 1} other hosts; mirror their segments to {host}"
    )


def reached(targets: Targets, host: Host) -> UnreachableError | None:
    """Connect to a host, so that it sends a packet; return the error if that fails."""
    try:
        targets[host].run("true")
    except UnreachableError as error:
        return error
    return None


def mirrored(sensor: Target) -> set[str]:
    shown = sensor.run(MIRRORED)
    assert shown.succeeded, f"{sensor} has no list of mirrored hosts; {REMEDY}"
    return {
        element["elem"]["val"]
        for each in json.loads(shown.stdout)["nftables"]
        for element in each.get("set", {}).get("elem", [])
    }


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@without_reader("alerts")
def test_an_alert_reaches_the_collector(
    host: Target, targets: Targets, environment: Environment
) -> None:
    """An alert that stays on the sensor warns nobody."""
    source_port = 1024 + secrets.randbelow(60000)
    send(host, 1, source_port)
    record = record_of(
        targets, environment, host, f"A test of the sensor: 192.0.2.77:{source_port}"
    )
    assert record, (
        "the alert about a test packet did not reach the collector within 5 s; "
        f"see `journalctl -t ringfence-nids`; {REMEDY}"
    )
    fields = record.get("fields", {})
    assert fields.get("NIDS_SIGNATURE_ID") == str(TEST), f"the alert has no fields: {record}"
    assert "ringfence-nids-test" not in json.dumps(record), "alerts contain the payload of packets"


@pytest.mark.control("NET-05")
@pytest.mark.hosts("sensor")
@edited("rules/flows.rules", f": > {CURRENT}/rules/flows.rules", RELOAD)
def test_an_undeclared_connection_is_alerted(
    host: Target, targets: Targets, environment: Environment
) -> None:
    """Lateral movement is a connection that nobody declared, and its first packet is the earliest
    sign of it."""
    source_port, source = refused_connection(host, environment)
    message = f"Undeclared tcp connection from segment {source.segment.name}: "
    record = record_of(targets, environment, host, f"{message}{source.address}:{source_port}")
    assert record, (
        f"a connection from {source.name} that the manifest does not declare raised no alert at "
        f"the collector within 5 s; {REMEDY}"
    )


@pytest.mark.control("NET-05")
@pytest.mark.hosts("sensor")
@without_reader("flows")
def test_flows_are_recorded(host: Target, targets: Targets, environment: Environment) -> None:
    """After an incident, connections can be reconstructed only from a record."""
    source_port, source = refused_connection(host, environment)
    # Suricata reports a flow some time after its end.
    ends = json.dumps({"src_ip": str(source.address), "src_port": source_port})
    quoted = json.dumps(ends.strip("{}")).strip('"')  # JSON within JSON
    assert record_of(targets, environment, host, quoted, seconds=15), (
        f"the collector has no flow record of a connection of {source.name}; {REMEDY}"
    )


def refused_connection(host: Target, environment: Environment) -> tuple[int, Host]:
    """Send mirrored packets of a refused connection to the sensor; no host sends a real one."""
    source = next(h for h in environment.hosts.values() if h != host.manifest and h.address)
    source_port = 1024 + secrets.randbelow(60000)
    send(host, 1, source_port, str(source.address), str(host.manifest.address))
    return source_port, source


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    "systemctl kill -s STOP suricata && "
    f"python3 -c {shlex.quote(SEND_MIRRORED)} 200000 $(ip -4 -o address show eth0 | "
    "sed 's,.*inet \\([0-9.]*\\)/.*,\\1,') 40000; "
    "systemctl kill -s CONT suricata; sleep 15",
    restore=RESTART,
)
def test_nothing_is_missed(host: Target) -> None:
    """A flood can hide an attack from the sensor."""
    started = int(host.run(STARTED).stdout.strip().removeprefix("@") or 0)
    now = int(host.run("date +%s").stdout)
    seconds = int(host.run(REPORTS).stdout.strip() or 0)
    assert reports(host, now - seconds, "stats"), (
        f"Suricata has not reported statistics for {seconds} s; see `journalctl -u suricata`"
    )
    losses = reports(host, max(started, now - DAY), "drops", "lost")
    assert not losses, (
        f"the sensor lost packets within a day: {losses[-1]}; give it a larger "
        "machine, or mirror less to it"
    )


def reports(host: Target, since: int, *events: str) -> list[str]:
    """Return the sensor's reports about itself."""
    wanted = " ".join(f"NIDS_EVENT={event}" for event in events)
    logged = host.run(
        f"journalctl -q -o cat --since @{since} SYSLOG_IDENTIFIER=ringfence-nids {wanted}"
    )
    return logged.stdout.splitlines()


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    "printf '[Service]\\nUser=root\\nGroup=root\\nNoNewPrivileges=no\\nCapabilityBoundingSet=~\\n"
    f"SystemCallFilter=\\n' > {DROP_IN} && systemctl daemon-reload && {RESTART}",
    restore=f"rm -f {DROP_IN}; systemctl daemon-reload; {RESTART}",
)
def test_sensor_has_no_privileges_beyond_capture(host: Target) -> None:
    """Suricata parses hostile packets; an exploit gets the privileges it has."""
    shown = host.run("cat /proc/$(systemctl show -P MainPID suricata)/status").stdout
    facts = dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
    assert facts, f"Suricata is not running; {REMEDY}"
    found = []
    if "0" in facts["Uid"].split():
        found.append("root")
    if int(facts["CapBnd"], 16) & ~CAP_NET_RAW:
        found.append(f"capabilities {facts['CapBnd'].strip()}")
    if facts["NoNewPrivs"].strip() != "1":
        found.append("privileges by set-user-id programs")
    if facts["Seccomp"].strip() != "2":
        found.append("every system call")
    assert not found, f"Suricata runs with {', '.join(found)}; {REMEDY}"

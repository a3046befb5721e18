"""A sensor sees the network, knows what is declared on it, and says so in time (NET-04, NET-05)."""

from __future__ import annotations

import json
import secrets
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ringfence.environment import Environment, Host
from ringfence.inventory import nids
from ringfence.verify.roles import defaults
from ringfence.verify.targets import Target, Targets
from tests.compliance.test_monitoring import record_of

REMEDY = "apply role nids"
CURRENT = "/var/lib/ringfence-nids/current"
STAGED = "/etc/ringfence/nids/staged"
COMMANDS = "/run/suricata/command.sock"
EVENTS = "ringfence-nids-events.socket ringfence-nids-events.service"
RELOAD = f"suricatasc -c ruleset-reload-rules {COMMANDS}"
RESTART = "systemctl restart suricata; sleep 5"
DROP_IN = "/etc/systemd/system/suricata.service.d/90-sabotage.conf"
TEST = 1200004
"""Number of the signature that is there to be tested."""
CAP_NET_RAW = 1 << 13


@cache
def script() -> str:
    return (Path(__file__).parent / "mirrored.py").read_text()


def send(host: Target, count: int, source_port: int, *ends: str) -> None:
    words = (str(count), str(host.manifest.address), str(source_port), *ends)
    sent = host.run(f"python3 -c %s {' '.join(['%s'] * len(words))}", script(), *words)
    assert sent.succeeded, f"no test packet could be sent: {sent.stderr.strip()[-300:]}"


def ask(host: Target, command: str) -> Any:
    """The running Suricata itself."""
    said = host.run("suricatasc -c %s %s", command, COMMANDS)
    assert said.succeeded, f"Suricata does not answer; look at `journalctl -u suricata`; {REMEDY}"
    return json.loads(said.stdout)["message"]


def edited(file: str, change: str, take: str) -> pytest.MarkDecorator:
    return pytest.mark.sabotage(
        f"cp -p {CURRENT}/{file} /root/.sabotage && {change} && {take}",
        restore=f"cp -p /root/.sabotage {CURRENT}/{file} && rm /root/.sabotage && {take}",
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@edited("rules/flows.rules", f": > {CURRENT}/rules/flows.rules", RELOAD)
def test_rules_of_the_manifest_are_in_force(host: Target, environment: Environment) -> None:
    """A sensor without its rules looks just as busy, and never says a word."""
    shown = host.run(f"grep -hv '^ *#' {CURRENT}/rules/*.rules | grep -o 'sid: *[0-9][0-9]*'")
    present = {int(line.removeprefix("sid:")) for line in shown.stdout.splitlines()}
    expected = nids.variables(environment, host.manifest)
    wanted = {entry["sid"] for entry in (*expected["nids_declared"], *expected["nids_names"])}
    wanted |= {sid for segment in expected["nids_segments"] for sid in segment["sids"].values()}
    assert wanted <= present, (
        f"{len(wanted - present)} rules of the manifest are not there; {REMEDY}"
    )
    engines = ask(host, "ruleset-stats")
    running = [(each["rules_loaded"], each["rules_failed"]) for each in engines]
    assert running == [(len(present), 0)], (
        f"(loaded, failed) is {running}, on disk are {len(present)} rules; {REMEDY}"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@edited("rules/evasion.rules", f": > {CURRENT}/rules/evasion.rules", RELOAD)
def test_rules_are_those_of_the_role(host: Target) -> None:
    """Those that follow from no manifest, too: Suricata does not miss what is not there."""
    compared = host.run(f"diff -rq {STAGED}/rules {CURRENT}/rules")
    found = (compared.stdout or compared.stderr).splitlines()
    assert compared.succeeded, (
        f"rules in force are not those of the role: {found[:1]}; copy {STAGED}/rules over "
        f"{CURRENT}/rules and run `{RELOAD}`"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@edited("rules/dns.rules", f"echo 'alert nothing' >> {CURRENT}/rules/dns.rules", "true")
def test_rules_would_load_again(host: Target) -> None:
    """What only runs because it was loaded before is gone with the next start."""
    tested = host.run(
        "setpriv --reuid ringfence-nids --regid ringfence-nids --clear-groups "
        f"suricata -T -c {CURRENT}/suricata.yaml -l /tmp"
    )
    errors = [line for line in tested.stdout.splitlines() if line.startswith("E:")]
    assert tested.succeeded, f"Suricata would not start again: {errors[:1]}; {REMEDY}"


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    "nft 'add table netdev sabotage; "
    "add chain netdev sabotage in "
    "{ type filter hook ingress device eth0 priority 0; policy accept; }; "
    "add rule netdev sabotage in udp dport 4789 drop'",
    restore="nft delete table netdev sabotage",
)
def test_traffic_of_other_hosts_is_mirrored_to_it(host: Target, other_host: Target) -> None:
    """Rules see what is sent to them: a mirror that was taken down looks like a quiet night."""
    before = copies(host)
    other_host.run("true")  # over the network, as is every check
    after = before
    for _ in range(10):
        if (after := copies(host)) > before:
            break
        host.run("sleep 0.2")
        other_host.run("true")
    assert after > before, f"no copy of a packet arrives in VXLAN; mirror the segments to {host}"


def copies(host: Target) -> int:
    shown = host.run("nft -j list chain inet ringfence_nids mirrored")
    assert shown.succeeded, f"nothing counts mirrored packets; {REMEDY}"
    return sum(
        part["counter"]["packets"]
        for each in json.loads(shown.stdout)["nftables"]
        if "rule" in each
        for part in each["rule"]["expr"]
        if "counter" in part
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    f"systemctl stop {EVENTS}", restore=f"systemctl start {EVENTS.split()[0]}; {RESTART}"
)
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
        f"look at `journalctl -t ringfence-nids`; {REMEDY}"
    )
    fields = record.get("fields", {})
    assert fields.get("NIDS_SIGNATURE_ID") == str(TEST), f"the alert has no fields: {record}"
    assert "ringfence-nids-test" not in json.dumps(record), "alerts carry what was said"


@pytest.mark.control("NET-05")
@pytest.mark.hosts("sensor")
@edited("rules/flows.rules", f": > {CURRENT}/rules/flows.rules", RELOAD)
def test_an_undeclared_connection_is_alerted(
    host: Target, targets: Targets, environment: Environment
) -> None:
    """Lateral movement is a connection that nobody declared, and its first packet is the earliest
    sign of it."""
    source_port, source = refused_connection(host, environment)
    said = f"Undeclared tcp connection from segment {source.segment.name}: "
    record = record_of(targets, environment, host, f"{said}{source.address}:{source_port}")
    assert record, (
        f"a connection from {source.name} that the manifest does not declare raised no alert at "
        f"the collector within 5 s; {REMEDY}"
    )


@pytest.mark.control("NET-05")
@pytest.mark.hosts("sensor")
@edited("suricata.yaml", f"sed -i '/^ *- flow$/d' {CURRENT}/suricata.yaml", RESTART)
def test_flows_are_recorded(host: Target, targets: Targets, environment: Environment) -> None:
    """Who talked to whom is asked after an incident, when it can no longer be seen."""
    source_port, source = refused_connection(host, environment)
    # A flow is told when it is over, and Suricata looks for those now and then.
    ends = json.dumps({"src_ip": str(source.address), "src_port": source_port})
    told = json.dumps(ends.strip("{}")).strip('"')  # as JSON within JSON has it
    assert record_of(targets, environment, host, told, seconds=15), (
        f"a connection of {source.name} is not in the record of flows; {REMEDY}"
    )


def refused_connection(host: Target, environment: Environment) -> tuple[int, Host]:
    """In copies alone: from a host that has no business with the sensor."""
    source = next(h for h in environment.hosts.values() if h != host.manifest and h.address)
    source_port = 1024 + secrets.randbelow(60000)
    send(host, 1, source_port, str(source.address), str(host.manifest.address))
    return source_port, source


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    "systemctl kill -s STOP suricata && "
    f"python3 -c {shlex.quote(script())} 200000 $(ip -4 -o address show eth0 | "
    "sed 's,.*inet \\([0-9.]*\\)/.*,\\1,') 40000; "
    "systemctl kill -s CONT suricata; sleep 15",
    restore=RESTART,
)
def test_packets_are_not_dropped(host: Target) -> None:
    """Whoever floods a sensor wants something else to pass it by."""
    captured = ask(host, "dump-counters")["capture"]
    taken, dropped = captured["kernel_packets"], captured["kernel_drops"]
    bound = defaults("nids")["nids_dropped_percent"]
    assert dropped * 100 <= bound * (taken + dropped), (
        f"{dropped} packets of {taken + dropped} were dropped since Suricata started, over {bound} "
        "per cent; give the sensor a larger machine, or mirror less to it"
    )


@pytest.mark.control("NET-04")
@pytest.mark.hosts("sensor")
@pytest.mark.sabotage(
    "printf '[Service]\\nUser=root\\nGroup=root\\nNoNewPrivileges=no\\nCapabilityBoundingSet=~\\n"
    f"SystemCallFilter=\\n' > {DROP_IN} && systemctl daemon-reload && {RESTART}",
    restore=f"rm -f {DROP_IN}; systemctl daemon-reload; {RESTART}",
)
def test_sensor_can_do_nothing_but_watch(host: Target) -> None:
    """It takes apart what any stranger sends; whoever talks it into something gets what it has."""
    shown = host.run("cat /proc/$(systemctl show -P MainPID suricata)/status").stdout
    facts = dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
    assert facts, f"Suricata does not run; {REMEDY}"
    found = []
    if "0" in facts["Uid"].split():
        found.append("root")
    if int(facts["CapBnd"], 16) & ~CAP_NET_RAW:
        found.append(f"capabilities {facts['CapBnd'].strip()}")
    if facts["NoNewPrivs"].strip() != "1":
        found.append("privileges by set-user-id programs")
    if facts["Seccomp"].strip() != "2":
        found.append("every system call")
    assert not found, f"the sensor has {', '.join(found)}; {REMEDY}"

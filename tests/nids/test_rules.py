"""Every signature raises its alert for its traffic, and none for traffic that is almost the
same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from typing import Any

import pytest

from benchmarks.captures import Packets, number_at, syn, udp, write
from benchmarks.suricata import Suricata, render
from ringfence.inventory import nids
from ringfence.lab import unavailable
from ringfence.manifest.model import Egress, Environment
from tests.nids import cases

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "inventories/aws-example/environment.yaml"
MANIFEST = ROOT / "inventories/sensor/environment.yaml"
SIGNATURE = re.compile(r"^alert [^(]+\(.* sid:(\d+); rev:\d+;\)$", re.MULTILINE)
SETTINGS = {
    "nids_large_transfer_bytes": cases.LARGE,
    "nids_ssh_sessions_per_minute": 30,
    "nids_dhcp_servers": ["10.213.30.1"],
    "nids_routers": ["fe80::1"],
    "nids_denied_sni": [cases.DENIED_NAME],
}

OPENINGS = ("S", "SP", "SU", "SPU", "SEC")
"""Flags that Linux accepts for a new connection."""

pytestmark = pytest.mark.skipif(
    unavailable() is not None, reason=f"no Suricata here: {unavailable()}"
)


@pytest.fixture(scope="module")
def environment() -> Environment:
    """Return the lab with the additions of a provisioned environment: a resolver, names,
    metadata."""
    lab = Environment.load(MANIFEST)
    names = (
        Egress(443, "rates", "tcp", domain=cases.NAME),
        Egress(80, "packages", "tcp", domain=cases.PLAIN_NAME),
    )
    place = Environment.load(EXAMPLE).provisioning
    assert place
    return replace(
        lab,
        services=replace(lab.services, dns=(IPv4Address(cases.RESOLVER),)),
        servers={**lab.servers, "time": replace(lab.servers["time"], egress=names)},
        provisioning=replace(place, egress=IPv4Network("10.213.60.0/24")),
    )


@pytest.fixture(scope="module")
def variables(environment: Environment) -> dict[str, Any]:
    return nids.variables(environment, environment.hosts["sensor-1"]) | SETTINGS


@pytest.fixture(scope="module")
def suricata() -> Suricata:
    return Suricata.installed()


@dataclass(frozen=True)
class Outcome:
    fired: Mapping[str, set[int]]
    """Signatures by the name of the capture."""
    texts: Mapping[int, str]
    """Signatures that raise alerts, by number."""


@pytest.fixture(scope="module", params=["as it is", "mirrored"])
def outcome(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    suricata: Suricata,
    variables: dict[str, Any],
) -> Outcome:
    """Run all captures at once, an hour apart from each other."""
    folder = tmp_path_factory.mktemp("nids")
    sensor = cases.SENSOR if request.param == "mirrored" else None
    captures = dict(_captures(variables))
    made = {name: list(make()) for name, make in captures.items()}
    denied = _fingerprint(suricata, tmp_path_factory.mktemp("ja4"), variables)
    render(variables | {"nids_denied_ja4": [denied]}, folder)
    write(folder / "all.pcap", [*made.values()], sensor)
    fired: dict[str, set[int]] = {name: set() for name in made}
    order = [*made]
    for event in suricata.inspect(folder, folder / "all.pcap"):
        if event["event_type"] == "alert":
            place = number_at(event["timestamp"])
            fired[order[place]].add(event["alert"]["signature_id"])
    texts = {
        int(match[1]): match[0]
        for path in sorted((folder / "rules").glob("*.rules"))
        for match in SIGNATURE.finditer(path.read_text())
        if "flowbits:noalert" not in match[0]
    }
    return Outcome(fired, texts)


def _captures(variables: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Packets]]]:
    for number, case in cases.CASES.items():
        yield f"{number} alerts", case.alerts
        yield f"{number} passes", case.passes
    for name, (_, make) in cases.MORE.items():
        yield f"more: {name}", make
    for name, make in cases.BENIGN.items():
        yield f"benign: {name}", make
    for flags in OPENINGS:
        yield (
            f"opening {flags}",
            lambda f=flags: cases.openings(cases.CLIENT, cases.TOOLS, range(8420, 8450), f),
        )
    yield "backslash", cases.escaped_call
    for segment in variables["nids_segments"]:
        for protocol, number in segment["sids"].items():
            yield f"{number} alerts", lambda s=segment, p=protocol: _first(s, p)
            yield f"{number} passes", lambda s=segment, p=protocol: _first(s, p, reverse=True)
    for entry in variables["nids_declared"]:
        yield f"declared {entry['sid']}", lambda e=entry: _declared(e, e["port"])
        yield f"undeclared {entry['sid']}", lambda e=entry: _declared(e, 60000)


def _first(segment: Mapping[str, Any], protocol: str, *, reverse: bool = False) -> Packets:
    """Send a packet to another segment on an undeclared port, or the answer to such a packet."""
    version = 6 if protocol == "icmpv6" else 4
    source, target = (
        str(next(ip_network(n)[200] for n in networks if ip_network(n).version == version))
        for networks in (segment["networks"], ["10.213.99.0/24", "fd0d:213:99::/64"])
    )
    if protocol == "tcp":
        return [syn(source, target, 60000, "SA" if reverse else "S")]
    if protocol == "udp":
        return [udp(target, source, 60000)] if reverse else [udp(source, target, 60000)]
    if reverse:
        return [cases.echo(target, source, 56)]
    return [cases.echo(source, target, 56)]


def _declared(entry: Mapping[str, Any], port: int) -> Packets:
    """Open a connection between the first ends of a declared flow."""
    target = entry["destinations"][0].replace("$EXTERNAL_NET", cases.OUTSIDE)
    network = ip_network(target)
    target = str(network[0] if network.num_addresses == 1 else network[77])
    source = next(
        str(n[0] if n.num_addresses == 1 else n[88])
        for n in map(ip_network, entry["sources"])
        if n.version == network.version and str(n[0]) != target
    )
    made = syn if entry["protocol"] == "tcp" else udp
    return [made(source, target, port)]


def _fingerprint(suricata: Suricata, folder: Path, variables: Mapping[str, Any]) -> str:
    """Return Suricata's JA4 of the client in the capture for the denylist."""
    render({**variables, "nids_denied_ja4": []}, folder)
    write(folder / "one.pcap", [cases.CASES[1200035].alerts()])
    rule = (
        'alert tls any any -> any any (msg:"x"; flow:to_server; ja4.hash; content:"t13i"; '
        "startswith; sid:1; rev:1;)\n"
    )
    (folder / "rules/only.rules").write_text(rule)
    events = suricata.inspect(folder, folder / "one.pcap")
    return next(e["tls"]["ja4"] for e in events if e["event_type"] == "alert" and "tls" in e)


@pytest.mark.parametrize("number", [*cases.CASES])
def test_its_traffic_raises_the_alert(outcome: Outcome, number: int) -> None:
    assert number in outcome.fired[f"{number} alerts"], outcome.fired[f"{number} alerts"]


@pytest.mark.parametrize("name", [*cases.MORE])
def test_variants_raise_the_alert_too(outcome: Outcome, name: str) -> None:
    assert cases.MORE[name][0] in outcome.fired[f"more: {name}"]


@pytest.mark.parametrize("number", [*cases.CASES])
def test_similar_traffic_does_not(outcome: Outcome, number: int) -> None:
    assert number not in outcome.fired[f"{number} passes"]


def test_every_signature_has_both(outcome: Outcome) -> None:
    for number in outcome.texts:
        assert {f"{number} alerts", f"{number} passes"} <= outcome.fired.keys(), number
    assert cases.CASES.keys() <= outcome.texts.keys()


def test_undeclared_connections_name_their_segment(
    outcome: Outcome, variables: dict[str, Any]
) -> None:
    wrong = {
        f"{segment['name']} {protocol}"
        for segment in variables["nids_segments"]
        for protocol, number in segment["sids"].items()
        if number not in outcome.fired[f"{number} alerts"]
        or number in outcome.fired[f"{number} passes"]
    }
    assert not wrong


@pytest.mark.parametrize("flags", OPENINGS)
def test_a_syn_counts_with_any_other_flags(
    outcome: Outcome, variables: dict[str, Any], flags: str
) -> None:
    (clients,) = (s for s in variables["nids_segments"] if s["name"] == "clients")
    assert {1200023, 1200060, clients["sids"]["tcp"]} <= outcome.fired[f"opening {flags}"]


def test_a_slash_of_json_may_have_a_backslash(outcome: Outcome) -> None:
    assert {1200021, 1200022, 1200024} <= outcome.fired["backslash"]


def test_declared_connections_raise_nothing(outcome: Outcome) -> None:
    raised = {n: f for n, f in outcome.fired.items() if n.startswith("declared ") and f}
    assert not raised


def test_the_next_port_of_a_declared_connection_raises_an_alert(outcome: Outcome) -> None:
    silent = [n for n, f in outcome.fired.items() if n.startswith("undeclared ") and not f]
    assert not silent


@pytest.mark.parametrize("name", [*cases.BENIGN])
def test_ordinary_traffic_raises_nothing(outcome: Outcome, name: str) -> None:
    assert not outcome.fired[f"benign: {name}"]


def test_ordinary_traffic_that_is_mirrored_at_both_ends_raises_nothing(
    suricata: Suricata, variables: dict[str, Any], tmp_path: Path
) -> None:
    """AWS mirrors at every interface, so the sensor receives each packet twice."""
    render({**variables, "nids_denied_ja4": []}, tmp_path)
    twice = [[p for p in make() for _ in "ab"] for make in cases.BENIGN.values()]
    write(tmp_path / "all.pcap", twice, cases.SENSOR)
    events = suricata.inspect(tmp_path, tmp_path / "all.pcap")
    raised = [
        ([*cases.BENIGN][number_at(e["timestamp"])], e["alert"]["signature"])
        for e in events
        if e["event_type"] == "alert"
    ]
    assert not raised


def test_a_connection_silent_for_an_hour_is_still_inspected(
    suricata: Suricata, variables: dict[str, Any], tmp_path: Path
) -> None:
    render({**variables, "nids_denied_ja4": []}, tmp_path)
    packets = cases.named_tls(cases.TOOLS, cases.OUTSIDE, f"x.{cases.NAME}")
    write(tmp_path / "all.pcap", [packets[:3], packets[3:]])
    events = suricata.inspect(tmp_path, tmp_path / "all.pcap")
    assert 1200015 in [e["alert"]["signature_id"] for e in events if e["event_type"] == "alert"]


NO_LISTS = {"nids_denied_ja4": [], "nids_denied_sni": []}
BY_ITSELF = {"nids_hosts": ["10.0.0.0/8"], "nids_sensors": ["10.0.0.5"]}


@pytest.mark.parametrize("manifest", ["", "tests/unit/manifests/direct.yaml", str(MANIFEST)])
def test_suricata_accepts_the_configuration(
    suricata: Suricata, tmp_path: Path, manifest: str
) -> None:
    """Without a manifest, without a gateway, and with one."""
    told = BY_ITSELF
    if manifest:
        environment = Environment.load(ROOT / manifest)
        told = nids.variables(environment, environment.hosts["siem-1"])
    render({**told, **NO_LISTS}, tmp_path)
    assert not suricata.complaints(tmp_path)


def test_suricata_refuses_a_wrong_rule(suricata: Suricata, tmp_path: Path) -> None:
    render({**BY_ITSELF, **NO_LISTS}, tmp_path)
    (tmp_path / "rules/own.rules").write_text("alert nothing\n")
    assert any("own.rules" in line for line in suricata.complaints(tmp_path))


def test_rules_name_the_control_they_serve(outcome: Outcome) -> None:
    for number, text in outcome.texts.items():
        assert "metadata:control " in text, number

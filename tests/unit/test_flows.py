"""Observed connections, compared with those that the manifest declares."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli import main
from ringfence.events.connections import flow_records
from ringfence.events.flow_log import FLOW_LOG_FIELDS
from ringfence.flows import page
from ringfence.flows.comparison import Comparison, Connection, compare
from ringfence.inventory import provisioned
from ringfence.inventory.declared import inbound, outbound
from ringfence.inventory.provisioned import Instance
from ringfence.manifest.model import Environment

MANIFEST = Path(__file__).parents[2] / "inventories/lab/environment.yaml"
CLIENT, EDGE, TOOLS, SIEM = "10.213.20.10", "10.213.50.11", "10.213.30.11", "10.213.40.11"
SYN_ACK = "1a"
RESET = "14"

CALL = Connection("segment clients", "host edge-1", "tcp", 443)
FORWARDED = Connection("host edge-1", "host tools-1", "tcp", 8441)


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environment.load(MANIFEST)


def suricata(source: str, target: str, port: int = 443, protocol: str = "TCP", **more: Any) -> str:
    """Return a flow event as Suricata 7 writes it, without irrelevant fields."""
    flow = {
        "pkts_toserver": 5,
        "pkts_toclient": 4,
        "bytes_toserver": 700,
        "bytes_toclient": 300,
        "start": "2026-11-25T07:48:00.250000+0000",
    }
    event = {
        "timestamp": "2026-11-25T07:49:02.000000+0000",
        "flow_id": 1,
        "event_type": "flow",
        "src_ip": source,
        "src_port": 40001,
        "dest_ip": target,
        "dest_port": port,
        "proto": protocol,
        "flow": flow | more.pop("flow", {}),
        "tcp": {"tcp_flags_ts": "1b", "tcp_flags_tc": SYN_ACK},
    }
    return json.dumps(event | more)


def vpc(source: str, target: str, ports: tuple[int, int], **more: Any) -> str:
    values = dict.fromkeys(FLOW_LOG_FIELDS, "-") | {
        "version": "2",
        "srcaddr": source,
        "dstaddr": target,
        "pkt-srcaddr": source,
        "pkt-dstaddr": target,
        "srcport": ports[0],
        "dstport": ports[1],
        "protocol": 6,
        "packets": 5,
        "bytes": 1000,
        "start": 1795592880,
        "end": 1795592940,
        "action": "ACCEPT",
        "log-status": "OK",
        "tcp-flags": 3,
    }
    return " ".join(str(value) for value in (values | more).values())


def compared(environment: Environment, *lines: str) -> Comparison:
    return compare(environment, flow_records(lines))


def test_a_declared_connection_is_told_with_its_reason(environment: Environment):
    comparison = compared(environment, suricata(CLIENT, EDGE), suricata(EDGE, TOOLS, 8441))
    assert set(comparison.seen) == {CALL, FORWARDED}
    assert comparison.declared[CALL] == "people and agents call tools through the gateway"
    assert not comparison.undeclared
    assert comparison.seen[CALL].connections == 1
    assert comparison.seen[CALL].bytes == 1000
    assert comparison.seen[CALL].first == 1795592880.25


def test_both_families_are_one_flow(environment: Environment):
    comparison = compared(environment, suricata("fd0d:213:20::77", "fd0d:213:50::11"))
    assert set(comparison.seen) == {CALL}


@pytest.mark.parametrize(
    ("line", "edge"),
    [
        (suricata(CLIENT, TOOLS, 8441), Connection("segment clients", "host tools-1", "tcp", 8441)),
        (suricata(EDGE, TOOLS, 22), Connection("host edge-1", "host tools-1", "tcp", 22)),
        (suricata(TOOLS, EDGE, 443), Connection("host tools-1", "host edge-1", "tcp", 443)),
        (
            suricata(CLIENT, EDGE, 443, "UDP"),
            Connection("segment clients", "host edge-1", "udp", 443),
        ),
        (
            suricata(TOOLS, "192.0.2.9", 53, "UDP"),
            Connection("host tools-1", "192.0.2.9", "udp", 53),
        ),
        (
            suricata(TOOLS, SIEM, 8, "ICMP", icmp_type=8),
            Connection("host tools-1", "host siem-1", "icmp", 0),
        ),
        (suricata("fe80::7", "fe80::8", 22), Connection("fe80::7", "fe80::8", "tcp", 22)),
        (suricata("fe80::7", "fe80::8", 547, "UDP"), Connection("fe80::7", "fe80::8", "udp", 547)),
        (
            suricata(TOOLS, SIEM, 546, "UDP", src_port=547),
            Connection("host tools-1", "host siem-1", "udp", 546),
        ),
        (
            suricata("fe80::7", "fe80::8", 0, "IPv6-ICMP", icmp_type=128),
            Connection("fe80::7", "fe80::8", "icmp", 0),
        ),
        (
            suricata(TOOLS, "169.254.169.254", 80),
            Connection("host tools-1", "169.254.169.254", "tcp", 80),
        ),
        (
            vpc(TOOLS, SIEM, (40001, 22), action="REJECT", **{"tcp-flags": 2}),
            Connection("host tools-1", "host siem-1", "tcp", 22),
        ),
    ],
    ids=[
        *("around", "port", "back", "protocol", "outside", "ping"),
        *("link", "link, a port of DHCPv6", "ports of DHCPv6", "link, ping", "metadata", "VPC"),
    ],
)
def test_whatever_else_is_undeclared_and_both_ends_have_their_names(
    environment: Environment, line: str, edge: Connection
):
    comparison = compared(environment, line)
    assert not comparison.seen
    assert list(comparison.undeclared) == [edge]


def test_management_may_ping_every_host(environment: Environment):
    comparison = compared(environment, suricata("10.213.10.2", SIEM, 8, "ICMP", icmp_type=8))
    assert list(comparison.seen) == [Connection("segment management", "host siem-1", "icmp", 0)]


@pytest.mark.parametrize(
    ("line", "answered"),
    [
        (suricata(CLIENT, EDGE), True),
        (suricata(CLIENT, EDGE, tcp={"tcp_flags_tc": RESET}), False),
        (suricata(CLIENT, EDGE, flow={"pkts_toclient": 0}), False),
        (vpc(CLIENT, EDGE, (40001, 443)), True),
        (vpc(CLIENT, EDGE, (40001, 443), action="REJECT", **{"tcp-flags": 2}), False),
    ],
    ids=["open", "reset", "silence", "VPC", "VPC refused"],
)
def test_a_refusal_is_no_answer(environment: Environment, line: str, answered: bool):
    (seen,) = compared(environment, line).seen.values()
    assert seen.answered == answered


@pytest.mark.parametrize(
    "line",
    [
        suricata("fe80::1", "ff02::1:ff00:11", 0, "IPv6-ICMP", icmp_type=135),
        suricata("fe80::1", "fe80::2", 0, "IPv6-ICMP", icmp_type=135),
        suricata("fd0d:213:30::11", "fd0d:213:30::1", 0, "IPv6-ICMP", icmp_type=136),
        vpc("fe80::1", "fe80::2", (0, 0), protocol=58),
        suricata("fe80::1", "fe80::7", 546, "UDP", src_port=547),
        suricata("0.0.0.0", "255.255.255.255", 67, "UDP"),  # noqa: S104
        suricata(TOOLS, "10.213.30.255", 137, "UDP"),
        suricata(CLIENT, EDGE, event_type="alert"),
        vpc(EDGE, CLIENT, (443, 40001), **{"tcp-flags": 19}),
        "",
        '{"event_type": "flow"}',
        '{"event_type": "flow", "flow": null, "proto": 6}',
        '{"message": "event_type"}',
        "Nov 25 07:48:00 edge-1 sshd[1]: Accepted",
        " ".join(FLOW_LOG_FIELDS),
        vpc("-", "-", (0, 0), **{"log-status": "NODATA", "protocol": "-"}),
    ],
)
def test_what_is_no_connection_is_passed_over(environment: Environment, line: str):
    comparison = compared(environment, line)
    assert not comparison.seen
    assert not comparison.undeclared


def test_a_flow_log_does_not_say_who_began(environment: Environment):
    """For UDP and older connections a declared flow decides, otherwise the lower port."""
    back = vpc(EDGE, CLIENT, (443, 40001), **{"tcp-flags": 0})
    unknown = vpc("192.0.2.9", TOOLS, (53, 40001), protocol=17, **{"tcp-flags": "-"})
    comparison = compared(environment, back, unknown)
    assert list(comparison.seen) == [CALL]
    assert list(comparison.undeclared) == [Connection("host tools-1", "192.0.2.9", "udp", 53)]


def test_a_collectors_record_is_read_as_it_is(environment: Environment):
    line = json.dumps({"record": 7, "host": "sensor-1", "message": suricata(CLIENT, EDGE)})
    assert set(compared(environment, line).seen) == {CALL}


def test_what_was_never_seen_can_go_where_the_manifest_says_it(environment: Environment):
    nothing = compared(environment)
    assert nothing.unused == nothing.declared
    assert nothing.removable == {CALL}
    assert CALL not in compared(environment, suricata(CLIENT, EDGE)).unused


@pytest.mark.parametrize("name", ["lab", "aws-example"])
def test_no_two_declared_ways_overlap(name: str):
    """A packet filter uses the flows unchanged."""
    environment = Environment.load(MANIFEST.parents[1] / name / "environment.yaml")
    for flows in (list(outbound(environment)), list(inbound(environment))):
        assert flows or not any(host.addresses for host in environment.hosts.values())
        for number, one in enumerate(flows):
            for other in flows[number + 1 :]:
                assert (one.protocol, one.port) != (other.protocol, other.port) or not (
                    one.source.version == other.source.version
                    and one.source.overlaps(other.source)
                    and one.target.overlaps(other.target)
                )


VXLAN = 4789
SENSOR = "10.213.40.12"


@pytest.fixture(scope="module")
def watched() -> Environment:
    return Environment.load(MANIFEST.parents[1] / "sensor/environment.yaml")


ADDRESSES = {
    "edge-1": "10.40.8.10",
    "tools-1": "10.40.16.10",
    "ledger-db-1": "10.40.32.10",
    "sensor-1": "10.40.36.10",
    "siem-1": "10.40.36.11",
    "mcp-ledger": "10.40.16.11",
}
BALANCER = "10.40.36.200"


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch) -> dict[str, Instance]:
    """Return instances that AWS reports as running."""
    found = {name: Instance(f"i-{name}", IPv4Address(a)) for name, a in ADDRESSES.items()}
    monkeypatch.setattr(provisioned, "instances", lambda _: found)
    return found


@pytest.mark.parametrize(
    ("source", "target", "ends"),
    [
        (TOOLS, SENSOR, ("host tools-1", "host sensor-1")),
        (SIEM, SENSOR, ("host siem-1", "host sensor-1")),
        (CLIENT, SENSOR, ("segment clients", "host sensor-1")),
        # The lab's router creates the mirrored packets.
        ("10.213.40.1", SENSOR, ("segment monitoring", "host sensor-1")),
        ("fd0d:213:30::11", "fd0d:213:40::12", ("host tools-1", "host sensor-1")),
    ],
    ids=["server", "neighbour", "client", "router", "IPv6"],
)
@pytest.mark.parametrize("low", [True, False], ids=["low port", "high port"])
def test_copies_for_a_sensor_are_declared(
    watched: Environment, source: str, target: str, ends: tuple[str, str], low: bool
):
    port = 1025 if low else 40001  # a flow log does not show which end began
    log = vpc(source, target, (port, VXLAN), protocol=17, **{"tcp-flags": "-"})
    event = suricata(source, target, VXLAN, "UDP", src_port=port)
    comparison = compared(watched, log, event)
    assert not comparison.undeclared
    (edge,) = comparison.seen
    assert edge == Connection(*ends, "udp", VXLAN)
    assert comparison.declared[edge] == "copies of packets, for a sensor"
    assert comparison.seen[edge].connections == 2


@pytest.mark.parametrize(
    ("source", "target", "more"),
    [
        (TOOLS, SIEM, {}),
        (TOOLS, "192.0.2.9", {}),
        (TOOLS, "10.213.40.200", {}),
        (SENSOR, SIEM, {}),
        (SENSOR, "10.213.40.1", {}),
        ("192.0.2.9", SENSOR, {}),
        (TOOLS, SENSOR, {"protocol": 6, "tcp-flags": 2}),
        (TOOLS, SENSOR, {"dstport": 4790}),
        # VXLAN has no answers.
        (SENSOR, TOOLS, {"srcport": VXLAN, "dstport": 40001}),
    ],
    ids=[
        *("collector", "outside", "no balancer", "from a sensor", "to the router", "from outside"),
        *("TCP", "port", "back"),
    ],
)
def test_nothing_else_is_a_copy(
    watched: Environment, source: str, target: str, more: dict[str, object]
):
    log = vpc(source, target, (40001, VXLAN), **{"protocol": 17, "tcp-flags": "-"} | more)
    comparison = compared(watched, log)
    assert not comparison.seen
    assert len(comparison.undeclared) == 1


def test_copies_that_nobody_recorded_are_not_missed(watched: Environment):
    assert not [edge for edge in compared(watched).unused if edge.port == VXLAN]


def test_hosts_in_aws_have_the_addresses_that_aws_says(
    tmp_path: Path, provided: dict[str, Instance], capsys: pytest.CaptureFixture[str]
):
    edge, sensor, siem = (ADDRESSES[name] for name in ("edge-1", "sensor-1", "siem-1"))
    udp = {"protocol": 17, "tcp-flags": "-"}
    lines = [
        vpc("10.40.4.9", edge, (40001, 443)),
        vpc(edge, BALANCER, (40001, VXLAN), **udp),
        vpc(edge, sensor, (40001, VXLAN), **udp),
        vpc(edge, siem, (40001, VXLAN), **udp),
    ]
    options = ("--json", "--environment", str(MANIFEST.parents[1] / "aws-example/environment.yaml"))

    def told(kind: str) -> set[tuple[str, str, int]]:
        document = json.loads(capsys.readouterr().out)
        return {(each["source"], each["target"], each["port"]) for each in document[kind]}

    assert main(["flows", written(tmp_path, lines[:3]), *options]) == 0
    assert told("seen") == {
        ("segment clients", "host edge-1", 443),
        ("host edge-1", "segment monitoring", VXLAN),
        ("host edge-1", "host sensor-1", VXLAN),
    }
    assert main(["flows", written(tmp_path, lines), *options]) == 1
    assert told("undeclared") == {("host edge-1", "host siem-1", VXLAN)}
    del provided["siem-1"]
    main(["flows", written(tmp_path, lines[:1]), *options])
    assert capsys.readouterr().err.startswith("siem-1 is not running")


def test_whoever_does_not_know_where_hosts_are_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def instances(_: Environment) -> dict[str, Instance]:
        raise provisioned.ProvisionedError("log in")

    monkeypatch.setattr(provisioned, "instances", instances)
    log = written(tmp_path, [suricata(CLIENT, EDGE)])
    assert main(["flows", log, "--environment", str(MANIFEST)]) == 2
    assert capsys.readouterr().err == "log in\n"


def written(directory: Path, lines: Iterable[str]) -> str:
    path = directory / "eve.json"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_the_command_tells_and_its_status_says_whether_all_is_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = ("--environment", str(MANIFEST))
    good = written(tmp_path, [suricata(CLIENT, EDGE)])
    assert main(["flows", good, *options]) == 0
    said = capsys.readouterr().out
    assert "segment clients  ->  host edge-1  tcp/443  1  people and agents call tools" in said
    assert said.rstrip().endswith("undeclared: 0")
    bad = written(tmp_path, [suricata(CLIENT, SIEM, 22, tcp={"tcp_flags_tc": RESET})])
    assert main(["flows", bad, *options]) == 1
    last = " ".join(capsys.readouterr().out.splitlines()[-1].split())
    assert last == (
        "segment clients -> host siem-1 tcp/22 1, 1 without answer "
        "first 2026-11-25T07:48:00Z, from 10.213.20.10"
    )
    assert main(["flows", bad, *options, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["undeclared"][0] | {"sources": None} == {
        "source": "segment clients",
        "target": "host siem-1",
        "protocol": "tcp",
        "port": 22,
        "connections": 1,
        "answered": 0,
        "bytes": 1000,
        "first": "2026-11-25T07:48:00Z",
        "last": "2026-11-25T07:48:00Z",
        "sources": None,
    }


def test_the_page_draws_every_pair_of_ends_once_for_each_kind(environment: Environment):
    comparison = compared(environment, suricata(CLIENT, EDGE), suricata(TOOLS, "192.0.2.9", 53))
    shown = page.render(environment, comparison)
    drawn = Counter(re.findall(r'<g class="of-(\w+)"><title>([^:]+), [a-z0-9/, ]+:', shown))
    assert set(drawn.values()) == {1}
    pairs = {
        "seen": comparison.seen,
        "unused": comparison.unused,
        "undeclared": comparison.undeclared,
    }
    expected = {
        (kind, f"{edge.source} → {edge.target.rpartition(' in ')[2]}")
        for kind, edges in pairs.items()
        for edge in edges
    }
    assert {(kind, says.replace("segment management", "management")) for kind, says in drawn} == {
        (kind, says.replace("segment management", "management")) for kind, says in expected
    }


def test_a_flow_met_in_its_middle_may_be_either_way_round(environment: Environment):
    middle = {"tcp_flags_ts": "18", "tcp_flags_tc": "10"}
    turned = suricata(SIEM, TOOLS, 40001, src_port=2514, tcp=middle)
    opened = suricata(SIEM, TOOLS, 40001, src_port=2514)
    assert not compared(environment, turned).undeclared
    assert compared(environment, opened).undeclared


def test_an_arrow_of_a_scan_names_few_ports(environment: Environment):
    scan = [
        suricata(CLIENT, SIEM, port, way) for port in range(9000, 9040) for way in ("TCP", "UDP")
    ]
    shown = page.render(environment, compared(environment, *scan))
    assert "tcp/9000,… udp/9000,…" in shown
    assert "tcp/9000,9001" not in shown


def test_the_page_needs_nothing_beside_itself(tmp_path: Path):
    log = written(tmp_path, [suricata(CLIENT, EDGE)])
    out = tmp_path / "flows.html"
    main(["flows", log, "--environment", str(MANIFEST), "--page", str(out)])
    text = out.read_text()
    assert "0 undeclared, 1 declared and seen" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)


@pytest.mark.parametrize(
    ("lines", "says"),
    [([], "no connection in the input"), (None, "cannot be read: No such file")],
    ids=["empty", "missing"],
)
def test_nothing_to_compare_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str] | None, says: str
):
    path = str(tmp_path / "none") if lines is None else written(tmp_path, lines)
    assert main(["flows", path, "--environment", str(MANIFEST)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err

"""The picture of a manifest's network shows everything in the manifest, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from ringfence.cli import main
from ringfence.drawing import layout
from ringfence.flows.topology import page, paths, picture
from ringfence.manifest.model import Environment, Host, Segment
from tests.readable import assert_readable

MANIFESTS = Path(__file__).parent / "manifests"
SENSOR = Path(__file__).parents[2] / "inventories/sensor/environment.yaml"
LONG = "h" * 32
LONG_ADDRESS = "2001:db8:1234:5678:9abc:def0:1234:{:x}"
SVG = {"": "http://www.w3.org/2000/svg"}

Row = tuple[str, str, str]


def changed(path: Path, **changes: Any) -> Environment:
    """Return the manifest with a sensor, with values at dotted paths replaced."""
    document = deepcopy(yaml.safe_load(SENSOR.read_text()))
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = document
        for parent in parents:
            node = node[parent]
        node[last] = node[last] | value if isinstance(value, dict) else value
    file = path / "environment.yaml"
    file.write_text(yaml.safe_dump(document))
    return Environment.load(file)


@pytest.fixture
def crowded(tmp_path: Path) -> Environment:
    """Return sixty hosts, with names and addresses of maximum length, and flows to the outside."""
    servers = {"cidr": "10.213.30.0/24", "cidr6": "2001:db8:1234:5678::/64", "purpose": "servers"}
    hosts = {
        "tools-1": {
            "segment": "servers",
            "address": "10.213.30.11",
            "address6": LONG_ADDRESS.format(11),
            "groups": ["mcp_servers"],
        }
    }
    for number in range(20, 76):
        hosts[LONG if number == 20 else f"tools-{number}"] = {
            "segment": "servers",
            "address": f"10.213.30.{number}",
            "address6": LONG_ADDRESS.format(number),
            "groups": ["mcp_servers"],
        }
    why = "copies of what is kept elsewhere, by people whom nobody here has ever met"
    egress = [
        {"cidr": "192.0.2.80/32", "port": 443, "why": why},
        {"cidr": "2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa/128", "port": 443, "why": why},
        *({"host": "siem-1", "port": port, "why": "odd"} for port in range(7001, 7041, 2)),
    ]
    return changed(
        tmp_path,
        name=LONG,
        network__segments={"servers": servers},
        network__services={"dns": ["10.213.40.53", LONG_ADDRESS.format(9)], "ntp": ["192.0.2.1"]},
        hosts=hosts,
        servers__git={"host": LONG, "egress": egress},
    )


@pytest.fixture
def alone(tmp_path: Path) -> Environment:
    """Return one host, and a log sink outside."""
    document = yaml.safe_load((MANIFESTS / "direct.yaml").read_text())
    document["hosts"] = {"tools-1": document["hosts"]["tools-1"]}
    document["log_sink"] = {
        "kind": "relp",
        "address": "192.0.2.7",
        "server_name": "siem.example.com",
        "ca_file": str(tmp_path / "ca.pem"),
        "port": 2514,
    }
    (tmp_path / "ca.pem").touch()
    file = tmp_path / "environment.yaml"
    file.write_text(yaml.safe_dump(document))
    return Environment.load(file)


def expected(environment: Environment) -> set[Row]:
    """Return the flows of the manifest itself, except those to the outside and those of servers."""
    found = {
        (named(flow.source), named(flow.target), f"{flow.protocol}/{flow.port}")
        for flow in environment.all_flows
    }
    for host in environment.hosts.values():
        found.add(("segment management", named(host), "icmp"))
        found.add((named(host), "10.213.10.2 in management", "tcp/3142"))
    return found


def named(end: Host | Segment) -> str:
    return f"{'host' if isinstance(end, Host) else 'segment'} {end.name}"


def drawing_of(text: str) -> ElementTree.Element:
    (svg,) = re.findall(r"<svg class=\"picture\".*?</svg>", text, re.DOTALL)
    return ElementTree.fromstring(svg)  # noqa: S314  our own page


def arrows(environment: Environment, text: str) -> Iterator[Row]:
    """Return the arrows as the picture describes them, each arrow once."""
    titles = [group.findtext("title", "", SVG) for group in drawing_of(text).findall("g", SVG)]
    for title in dict.fromkeys(titles):
        ends, ports = title.rsplit(", ", 1)
        sources, target = ends.split(" → ")
        every = target.removeprefix("every host of segment ")
        targets = (
            [target]
            if every == target
            else [named(h) for h in environment.hosts.values() if h.segment.name == every]
        )
        for source in sources.split(", "):
            for each in targets:
                for port in ports.split():
                    yield from ((source, each, one) for one in single(port) if source != each)


def single(ports: str) -> Iterator[str]:
    protocol, _, span = ports.partition("/")
    first, _, last = span.partition("-")
    if not span:
        yield protocol
        return
    for port in range(int(first), int(last or first) + 1):
        yield f"{protocol}/{port}"


def rows(text: str) -> list[Row]:
    row = r"<tr><td>([^<]+)</td><td>([^<]+)</td><td class=\"ports\">([^<]+)</td>"
    return [(source, target, ports) for source, target, ports in re.findall(row, text)]


def test_every_host_and_segment_is_drawn_once():
    environment = Environment.load(SENSOR)
    boxes = drawing_of(page.render(environment)).findall("rect", SVG)
    keys = Counter(box.get("data-key") for box in boxes)
    for name in environment.hosts:
        assert keys.pop(f"host {name}") == 1
    for name in environment.segments:
        assert keys.pop(f"segment {name}") == 1
    others = {"vpc", "router", "access lists", "outside", "10.213.10.2 in management"}
    assert keys == dict.fromkeys(others, 1)


def test_every_declared_way_is_drawn_once_and_no_other():
    environment = Environment.load(SENSOR)
    text = page.render(environment)
    copies = ("host sensor-1", "udp/4789")
    assert Counter(arrows(environment, text)) == dict.fromkeys(
        {*expected(environment), ("router", *copies)}, 1
    )
    assert Counter(rows(text)) == Counter({*expected(environment), ("router", *copies)})


def test_another_flow_is_another_arrow(tmp_path: Path):
    flows = yaml.safe_load(SENSOR.read_text())["network"]["flows"]
    flows.append({"from": {"host": "siem-1"}, "to": {"host": "tools-1", "port": 99}, "why": "new"})
    before = Environment.load(SENSOR)
    after = changed(tmp_path, network__flows=flows)
    new = set(arrows(after, page.render(after))) - set(arrows(before, page.render(before)))
    assert new == {("host siem-1", "host tools-1", "tcp/99")}


def test_a_manifest_without_sensor_has_no_copies():
    text = page.render(Environment.load(MANIFESTS / "direct.yaml"))
    assert "4789" not in text
    assert "copies" not in drawing_of(text).findtext("desc", "", SVG)
    assert "of-mirrored" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_each_way_of_sixty_hosts_is_in_one_arrow(crowded: Environment):
    declared = paths.declared(crowded)
    drawn = [path for arrow in paths.arrows(crowded, declared) for path in arrow.paths]
    assert Counter(drawn) == dict.fromkeys(declared, 1)
    assert len(crowded.hosts) == 60
    text = page.render(crowded)
    found = Counter(arrows(crowded, text))
    found.pop(("router", "host sensor-1", "udp/4789"))
    assert found == {(path.source, path.target, path.ports): 1 for path in declared}


@pytest.mark.parametrize("name", ["crowded", "alone", "sensor", "direct"])
def test_it_can_be_read(name: str, request: pytest.FixtureRequest):
    environment = (
        request.getfixturevalue(name)
        if name in ("crowded", "alone")
        else Environment.load({"sensor": SENSOR, "direct": MANIFESTS / "direct.yaml"}[name])
    )
    declared = paths.declared(environment)
    found = (*paths.arrows(environment, declared), *picture.mirrored(environment))
    drawing = layout.of(picture.of(environment, declared), found)
    assert_readable(drawing)
    shown = {text.text for text in drawing.texts}
    if name == "crowded":
        # Both halves of an address that is too long for a line.
        assert {"2001:db8:1234:5678:9abc:", "def0:1234:14"} <= shown
        assert "…" in next(text for text in shown if text.startswith("hhh"))
    else:
        assert not [text for text in shown if "…" in text]


def test_whose_name_it_is_cannot_change_the_page(tmp_path: Path):
    flows = yaml.safe_load(SENSOR.read_text())["network"]["flows"]
    flows[0]["why"] = "a < b & </td><script>alert(1)</script>"
    environment = changed(tmp_path, network__flows=flows, description="<b>bold</b> & more")
    hostile = replace(environment, name="<em>&amp;")
    text = page.render(hostile)
    assert "<script" not in text
    assert "<b>" not in text
    assert "<em>" not in text
    assert "a &lt; b &amp; &lt;/td&gt;" in text
    assert drawing_of(text).findtext("title", "", SVG) == "Topology of <em>&amp;"


def test_it_is_the_same_every_time(tmp_path: Path):
    texts = set()
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.html"
        command = [sys.executable, "-m", "ringfence", "diagram", file, "--environment", SENSOR]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed})
        texts.add(file.read_text())
    (text,) = texts
    assert text.startswith("<!doctype html>")
    assert not re.findall(r"(?:src|href)=\"(?!data:)|<script|url\((?!#)|@import", text)


def test_hosts_without_addresses_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "page.html"
    cloud = SENSOR.parents[1] / "aws-example/environment.yaml"
    assert main(["diagram", str(file), "--environment", str(cloud)]) == 2
    assert "no address in the manifest" in capsys.readouterr().err
    assert not file.exists()


def test_an_unwritable_page_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "nowhere" / "page.html"
    assert main(["diagram", str(file), "--environment", str(SENSOR)]) == 2
    assert capsys.readouterr().err == f"{file}: cannot be written: No such file or directory\n"

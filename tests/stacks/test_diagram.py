"""The architecture as a page: it shows the environment completely, and everything on it is
readable."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from example import EXAMPLE
from generated import BASE, documents, loaded, manifest
from hypothesis import HealthCheck, given, settings

from ringfence import cli
from ringfence.cloud.flows import CALLERS, declared
from ringfence.drawing import layout
from ringfence.drawing.layout import Drawing
from ringfence.drawing.picture import Arrow, Block, DiagramNode, Picture
from ringfence.manifest.model import Environment
from ringfence.rehearsal.architecture import arrows, page, picture
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal, Status
from tests.readable import assert_readable, near

SERVERS = 60


@pytest.fixture(scope="module")
def drawing(rehearsal: Rehearsal, environment: Environment) -> Drawing:
    return layout.of(picture.of(rehearsal, environment), arrows.drawn(environment))


@pytest.fixture(scope="module")
def shown(rehearsal: Rehearsal, environment: Environment) -> str:
    return page.render(rehearsal, environment)


def plain(environment: Environment) -> Picture:
    """Draw only the hosts and segments of a manifest, for layouts of any shape."""
    blocks = tuple(
        Block(
            f"segment {segment.name}",
            segment.purpose,
            segment.name,
            str(segment.cidr),
            (("eu-central-1a", str(segment.cidr)),),
            tuple(
                DiagramNode(f"host {host.name}", "host", host.name, ("t4g.small",))
                for host in environment.hosts.values()
                if host.segment == segment
            ),
        )
        for segment in environment.segments.values()
    )
    return Picture(environment.name, "VPC 10.9.0.0/16", ("eu-central-1",), blocks, (), ())


def many(count: int) -> dict[str, Any]:
    servers = {
        f"mcp-{number:02}": {
            **{key: value for key, value in BASE["servers"]["git"].items() if key != "host"},
            "segment": "servers",
            "port": 8400 + number,
            "egress": [],
            "secrets": [],
        }
        for number in range(count)
    }
    flows = [
        {"from": {"segment": "edge"}, "to": {"server": name}, "why": "calls"} for name in servers
    ]
    network = {**BASE["network"], "flows": flows}
    return {**BASE, "network": network, "servers": servers, "secrets": {}}


# Content


def test_every_host_is_drawn_once(drawing: Drawing, environment: Environment) -> None:
    drawn = Counter(box.key for box in drawing.boxes if box.key.startswith("host "))
    assert drawn == {f"host {name}": 1 for name in environment.hosts}


def test_every_segment_shows_its_subnets(drawing: Drawing, rehearsal: Rehearsal) -> None:
    texts = {text.text for text in drawing.texts}
    for subnet in rehearsal.of_type(picture.SUBNET):
        assert f"{subnet.inputs['availabilityZone']} {subnet.inputs['cidrBlock']}" in texts


def test_every_declared_flow_has_an_arrow(drawing: Drawing, environment: Environment) -> None:
    drawn = {path for line in drawing.lines for path in line.arrow.paths}
    assert drawn | arrows.summed(environment) == declared(environment)
    assert drawn


def test_what_is_not_drawn_concerns_all_hosts(environment: Environment) -> None:
    sink = environment.log_sink.host
    assert sink
    for path in arrows.summed(environment):
        assert (
            path.target.startswith("service ")
            or path.source.startswith("mirror of ")
            or path.target == f"host {sink.name}"
        )


def test_arrows_tell_protocol_and_port_at_their_heads(drawing: Drawing) -> None:
    for line in drawing.lines:
        x, y = line.points[-1]
        (text,) = [
            t for t in drawing.texts if t.style == "mono" and 0 < t.x - x <= 12 and near(t, y)
        ]
        assert text.text == line.arrow.ports


def test_the_page_is_complete_and_needs_nothing_beside_it(
    shown: str, rehearsal: Rehearsal, environment: Environment
) -> None:
    for flow in environment.flows:
        assert flow.why.replace("'", "&#39;") in shown
    for service, real, _ in picture.services(rehearsal):
        assert re.search(rf"<td>{service}</td><td class=\"number\">{real}</td>", shown)
    assert "USD a month in eu-central-1" in shown
    assert not re.search(r"(?:src|href)=\"(?!data:)|<script|url\((?!#)|@import", shown)


def test_the_picture_is_well_formed_and_has_a_title_and_a_description(shown: str) -> None:
    (svg,) = re.findall(r"<svg class=\"picture\".*?</svg>", shown, re.DOTALL)
    root = ElementTree.fromstring(svg)  # noqa: S314  our own page
    named = root.attrib["aria-labelledby"].split()
    by_id = {element.attrib.get("id"): element.text for element in root}
    assert all(by_id[name] for name in named)
    sizes = [int(size) for size in re.findall(r"\.picture [^{]*\{[^}]*font-size: (\d+)px", shown)]
    assert min(sizes) >= 11


def test_what_is_only_recorded_is_marked(rehearsal: Rehearsal, environment: Environment) -> None:
    resources = tuple(
        replace(each, status=Status.RECORDED) if each.type == picture.TEMPLATE else each
        for each in rehearsal.resources
    )
    shown = picture.of(replace(rehearsal, resources=resources), environment)
    drawing = layout.of(shown, arrows.drawn(environment))
    assert {box.recorded for box in drawing.boxes if box.key.startswith("host ")} == {True}
    assert "edge-1 ?" in {text.text for text in drawing.texts}


def test_a_changed_stack_changes_the_page(
    shown: str, rehearsal: Rehearsal, environment: Environment
) -> None:
    machines = (picture.TEMPLATE, "aws:autoscaling/group:Group")
    for tokens in (machines, (picture.ENDPOINT,), (picture.BALANCER,), (picture.DOMAINS,)):
        left = tuple(each for each in rehearsal.resources if each.type not in tokens)
        assert page.render(replace(rehearsal, resources=left), environment) != shown


def test_a_host_that_the_stack_lacks_stands_outside(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    left = tuple(each for each in rehearsal.resources if "edge-1" not in each.name)
    shown = picture.of(replace(rehearsal, resources=left), environment)
    assert "host edge-1" not in {node.key for block in shown.blocks for node in block.nodes}
    drawing = layout.of(shown, arrows.drawn(environment))
    (box,) = [box for box in drawing.boxes if box.key == "host edge-1"]
    assert box.kind == "node outside"


def test_hosts_without_machines_are_drawn_from_their_groups(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    left = tuple(each for each in rehearsal.resources if each.type != picture.TEMPLATE)
    shown = picture.of(replace(rehearsal, resources=left), environment)
    drawn = {node.key for block in shown.blocks for node in block.nodes}
    assert {f"host {name}" for name in environment.hosts} <= drawn


def test_what_leads_outside_has_a_band_of_its_own(
    rehearsal: Rehearsal, environment: Environment
) -> None:
    shown = picture.of(rehearsal, environment)
    (band,) = [block for block in shown.blocks if block.purpose == picture.EGRESS]
    assert {zone for zone, _ in band.subnets} == {"eu-central-1a", "eu-central-1b"}
    assert len(band.subnets) == 4
    assert [node.title for node in band.nodes] == [
        "network firewall",
        "2 NAT gateways",
        "internet gateway",
    ]
    assert "no route to the internet" not in shown.notes
    drawing = layout.of(shown, arrows.drawn(environment))
    frames = {frame.key: frame for frame in drawing.frames}
    assert frames[picture.EGRESS].x > frames["segment data"].right
    assert_readable(drawing)


def test_callers_stand_left_of_the_network(drawing: Drawing) -> None:
    boxes = {box.key: box for box in (*drawing.boxes, *drawing.frames)}
    assert boxes[CALLERS].right < boxes["vpc"].x


def test_names_are_escaped(rehearsal: Rehearsal, environment: Environment) -> None:
    first, *flows = environment.flows
    hostile = replace(
        environment,
        name="<b>&",
        description="<script>alert(1)</script>",
        flows=(replace(first, why="a < b & c > d"), *flows),
    )
    resources = tuple(
        replace(each, inputs={**each.inputs, "instanceType": "<i>&amp;</i>"})
        if each.type == picture.TEMPLATE
        else each
        for each in rehearsal.resources
    )
    shown = page.render(replace(rehearsal, resources=resources), hostile)
    assert "<script" not in shown
    assert "<b>" not in shown
    assert "<i>&" not in shown
    assert "a &lt; b &amp; c &gt; d" in shown
    assert "&lt;i&gt;&amp;amp;&lt;/i&gt;" in shown


# Legibility


def test_the_example_is_readable(drawing: Drawing) -> None:
    assert_readable(drawing)
    assert drawing.width <= 1900 - 48  # the page scrolls what is wider than the window


def test_sixty_servers_are_readable() -> None:
    environment = loaded(many(SERVERS))
    drawing = layout.of(plain(environment), arrows.drawn(environment))
    hosts = [box for box in drawing.boxes if box.key.startswith("host mcp-")]
    assert len(hosts) == SERVERS
    assert len({box.x for box in hosts}) > 1
    assert_readable(drawing)


def test_sixty_servers_are_rehearsed_and_drawn() -> None:
    with manifest(many(SERVERS)) as environment, rehearsed_stack(environment) as rehearsal:
        shown = page.render(rehearsal, environment)
    assert shown.count('data-key="host mcp-') == SERVERS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_any_manifest_is_readable(document: dict[str, Any]) -> None:
    environment = loaded(document)
    found = arrows.drawn(environment)
    assert {path for arrow in found for path in arrow.paths} | arrows.summed(
        environment
    ) == declared(environment)
    assert_readable(layout.of(plain(environment), found))


def test_segments_of_one_purpose_and_rows_of_hosts_are_readable() -> None:
    """Six hosts do not fit side by side, and every purpose has a second segment."""
    blocks = tuple(
        Block(
            f"segment {purpose}-{number}",
            purpose,
            f"{purpose}-{number}",
            "10.9.0.0/24",
            (("ap-southeast-1a", "10.9.0.0/25"),),
            tuple(DiagramNode(f"host {purpose}-{number}-{n}", "host", f"h-{n}") for n in range(6)),
        )
        for purpose in (*layout.ROWS, "edge", "servers", "data")
        for number in range(2)
    )
    ends = [end for block in blocks for end in (block.key, block.nodes[0].key, block.nodes[5].key)]
    found = tuple(
        Arrow((source,), target, f"tcp/{port}", ())
        for port, (source, target) in enumerate(permutations(ends, 2), 1000)
        if port % 5 == 0
    )
    shown = Picture("many", "VPC 10.9.0.0/16", ("ap-southeast-1",), blocks, (), ())
    drawing = layout.of(shown, found)
    assert len(drawing.lines) == len(found)
    assert_readable(drawing)


def test_long_names_end_inside_their_boxes() -> None:
    assert layout.fitted("a" * 63, "title", 100) == f"{'a' * 11}…"
    assert layout.fitted("short", "title", 100) == "short"


# The command


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.html"
    assert cli.main(["rehearse", str(EXAMPLE), "--diagram", str(path)]) == 0
    assert path.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().err == ""


def test_an_unwritable_path_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere" / "page.html"
    assert cli.main(["rehearse", str(EXAMPLE), "--diagram", str(path)]) == 2
    assert capsys.readouterr().err == (f"{path}: No such file or directory; name a writable file\n")


def test_a_stack_without_network_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    command = ["rehearse", str(EXAMPLE), "--stack", "account", "--diagram", str(path)]
    assert cli.main(command) == 2
    message = "payments-prod: the stack has no VPC; draw the stack of an environment\n"
    assert capsys.readouterr().err == message
    assert not path.exists()

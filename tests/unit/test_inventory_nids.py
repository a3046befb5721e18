"""Variables of a sensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence import inventory
from ringfence.inventory import nids
from ringfence.manifest.model import Environment, Flow

MANIFEST = Path(__file__).parents[2] / "inventories/sensor/environment.yaml"


@pytest.fixture(scope="module")
def lab() -> Environment:
    return Environment.load(MANIFEST)


def pairs(environment: Environment) -> set[tuple[str, str, str, int]]:
    return {
        (source, target, entry["protocol"], entry["port"])
        for entry in nids.declared(environment)
        for source in entry["sources"]
        for target in entry["destinations"]
    }


def test_sensors_alone_get_them(lab: Environment) -> None:
    having = {
        name
        for name, host in lab.hosts.items()
        if any(key.startswith("nids_") for key in inventory.variables(lab, host))
    }
    assert having == {"sensor-1"}


def test_without_a_load_balancer_nobody_asks_whether_it_runs(lab: Environment) -> None:
    assert nids.variables(lab, lab.hosts["sensor-1"])["nids_health_port"] == 0


def test_every_flow_of_the_manifest_is_declared(lab: Environment) -> None:
    declared = pairs(lab)
    missing = [
        flow
        for flow in lab.all_flows
        for source in flow.sources
        for target in flow.destinations
        if source.version == target.version
        and source != target
        and (
            str(source.network_address if source.num_addresses == 1 else source),
            str(target.network_address),
            flow.protocol,
            flow.port,
        )
        not in declared
    ]
    assert not missing


def test_a_server_is_declared_for_the_gateway_alone(lab: Environment) -> None:
    server = lab.servers["git"]
    sources = {
        source
        for source, target, _, port in pairs(lab)
        if (target, port) == (str(server.host.address), server.port)
    }
    assert sources == {str(lab.hosts["edge-1"].address)}


def test_a_number_stays_when_something_else_is_declared(lab: Environment) -> None:
    before = {entry["sid"] for entry in nids.declared(lab)}
    added = Flow(lab.segments["clients"], lab.hosts["siem-1"], 9200, "a search")
    after = {e["sid"] for e in nids.declared(replace(lab, flows=(*lab.flows, added)))}
    assert before < after


def test_numbers_are_unique(lab: Environment) -> None:
    variables = nids.variables(lab, lab.hosts["sensor-1"])
    numbers = [entry["sid"] for entry in variables["nids_declared"]]
    numbers += [n for segment in variables["nids_segments"] for n in segment["sids"].values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("why", ['"; sid:1; )', "a\\b;c:d", "first\nsecond", "ü" * 200])
def test_a_reason_cannot_end_the_message_that_it_stands_in(lab: Environment, why: str) -> None:
    flow = replace(lab.flows[0], why=why)
    reasons = [e["why"] for e in nids.declared(replace(lab, flows=(flow, *lab.flows[1:])))]
    assert not any(set(reason) & set('";\\:\n') for reason in reasons)


def test_files_of_the_operator_lie_beside_the_manifest(lab: Environment, tmp_path: Path) -> None:
    assert nids.operator_files(lab)["nids_operator_files"] == {}
    folder = tmp_path / "nids"
    folder.mkdir()
    for name in ("own.rules", "sni.txt", "notes.md"):
        (folder / name).touch()
    found = nids.operator_files(replace(lab, path=tmp_path / "environment.yaml"))
    assert found == {
        "nids_operator_files": {"own.rules": str(folder / "own.rules")},
        "nids_denied_ja4_file": "",
        "nids_denied_sni_file": str(folder / "sni.txt"),
    }

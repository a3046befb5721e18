"""Properties of every manifest, not only of the example."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
from generated import BASE, documents, loaded, manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.cloud import acls, addressing, egress, groups, quotas
from ringfence.cloud.flows import declared
from ringfence.manifest.model import Environment
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import RehearsalError
from ringfence.verify.account import reachability
from ringfence.verify.account.cloud import Cloud

FEW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def named(environment: Environment) -> dict[str, object]:
    """Return everything that the stack declares per flow, by its name."""
    entries = {
        f"{name} {entry.key}": (entry.number, entry.network)
        for name, segment in environment.segments.items()
        for entry in acls.entries(environment, segment)
    }
    return {**{rule.key: rule.peer for rule in groups.rules(environment)}, **entries}


def many_servers(count: int) -> dict[str, Any]:
    document = deepcopy(BASE)
    server = document["servers"].pop("git") | {"segment": "servers"}
    del server["host"]
    document["servers"] = {f"mcp-{n}": server | {"port": 8400 + n} for n in range(count)}
    document["network"]["flows"] = [
        {"from": {"segment": "edge"}, "to": {"server": name}, "why": "calls"}
        for name in document["servers"]
    ]
    return document


def many_segments(count: int) -> dict[str, Any]:
    document = deepcopy(BASE)
    network, to = document["network"], {"host": "edge-1", "port": 443}
    for number in range(count):
        name, cidr = f"clients-{number}", f"10.9.{100 + number}.0/24"
        network["segments"][name] = {"cidr": cidr, "purpose": "clients"}
        network["flows"].append({"from": {"segment": name}, "to": to, "why": "calls"})
    return document


@FEW
@given(documents())
def test_possible_flows_are_the_declared_ones(document: dict[str, Any]) -> None:
    with manifest(document) as environment, rehearsed_stack(environment, preview=False) as made:
        network = reachability.read(Cloud(made.account.session, environment))
    expected = declared(environment)
    for acl in (True, False):
        possible = network.paths(acls=acl)
        assert sorted(map(str, possible - expected)) == []
        assert sorted(map(str, expected - possible)) == []


@MANY
@given(documents(servers=40))
def test_subnets_are_apart_and_names_are_unique(document: dict[str, Any]) -> None:
    environment = loaded(document)
    assert environment.provisioning
    zones = addressing.zones("eu-central-1", environment.provisioning.zones)
    networks = [
        network
        for segment in environment.segments.values()
        for network in addressing.subnets(segment, zones).values()
    ]
    for place in egress.places(environment, zones).values():
        networks += [place.firewall, place.nat]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    vpc = addressing.vpc_network(environment)
    assert all(network.subnet_of(vpc) for network in networks)
    assert quotas.exceeded(environment) == ()
    rules = Counter(rule.key for rule in groups.rules(environment))
    assert max(rules.values()) == 1
    for segment in environment.segments.values():
        entries = acls.entries(environment, segment)
        assert len({(entry.direction, entry.number) for entry in entries}) == len(entries)
        assert len({entry.key for entry in entries}) == len(entries)


@MANY
@given(documents(), st.data())
def test_removing_an_entry_replaces_nothing_else(document: dict[str, Any], data: Any) -> None:
    """A rule that is still declared keeps its name and its position."""
    flows = document["network"]["flows"]
    if not flows:
        return
    before = named(loaded(document))
    without = deepcopy(document)
    del without["network"]["flows"][data.draw(st.integers(0, len(flows) - 1))]
    after = named(loaded(without))
    kept = {name: before[name] for name in before.keys() & after.keys()}
    assert kept == {name: after[name] for name in kept}


def test_two_hundred_servers_keep_within_the_quotas() -> None:
    assert quotas.exceeded(loaded(many_servers(200))) == ()


def test_the_longest_names_fit() -> None:
    """AWS accepts every name that validation accepts; with one more character it would refuse
    it."""
    document = deepcopy(BASE)
    document["name"], own = "e" * 25, "s" * 12
    document["servers"] = {own: document["servers"]["git"] | {"segment": "servers"}}
    del document["servers"][own]["host"]
    document["network"]["flows"][0]["to"]["server"] = own
    with manifest(document) as environment, rehearsed_stack(environment, preview=False) as made:
        lengths = {len(r.outputs.get("name", "")) for r in made.resources if "iam/role" in r.type}
    assert max(lengths) == 64


def test_too_many_servers_on_a_host_are_reported() -> None:
    document = many_servers(4)
    for server in document["servers"].values():
        del server["segment"]
        server["host"] = "tools-1"
    assert quotas.exceeded(loaded(document)) == (
        "hosts.tools-1: 4 MCP servers on one host; AWS allows 5 security groups per interface, and "
        "the host needs two; move some of the servers to another host, or give them only a segment",
    )


def test_too_many_rules_are_reported_before_the_first_resource() -> None:
    document = many_servers(70)
    for number, server in enumerate(document["servers"].values()):
        server["port"] = 9000 + 2 * number
    with (
        pytest.raises(RehearsalError) as refused,
        manifest(document) as environment,
        rehearsed_stack(environment),
    ):
        pass
    place, message = str(refused.value).split(": ", 1)
    assert place.endswith("environment.yaml")
    assert message.startswith("hosts.edge-1: 70 egress rules; AWS allows 60 per security group; ")


def test_too_many_segments_are_reported() -> None:
    assert quotas.exceeded(loaded(many_segments(8))) == ()
    messages = quotas.exceeded(loaded(many_segments(20)))
    assert messages[0].startswith("network.segments.edge: 2")
    assert messages[0].endswith("AWS allows 20 per ACL; declare flows with fewer segments")

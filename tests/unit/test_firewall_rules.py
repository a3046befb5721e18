"""The firewall's rules contain what the manifest declares, and nothing else."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory import firewall
from ringfence.inventory.firewall import FirewallRule
from ringfence.manifest.model import Egress, Environment

LAB = Path(__file__).parent / "manifests/direct.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(LAB.read_text())


@pytest.fixture
def load(tmp_path: Path):
    def load(**changes: Any) -> Environment:
        """Load the lab's manifest with values at dotted paths replaced."""
        document = deepcopy(DOCUMENT)
        for path, value in changes.items():
            *parents, last = path.split("__")
            node = document
            for name in parents:
                node = node[name]
            node[last] = value
        file = tmp_path / "environment.yaml"
        file.write_text(yaml.safe_dump(document))
        return Environment.load(file)

    return load


def admits(rules: list[FirewallRule], address: str, port: int, protocol: str = "tcp") -> bool:
    return any(
        rule.port == port and rule.protocol == protocol and ip_address(address) in rule.network
        for rule in rules
    )


def test_a_declared_flow_is_admitted_from_its_source_in_both_families(load):
    environment = load()
    rules = firewall.inbound(environment, environment.hosts["tools-1"])
    assert admits(rules, "10.213.20.7", 8441)
    assert admits(rules, "fd0d:213:20::7", 8441)


@pytest.mark.parametrize("address", ["10.213.40.11", "fd0d:213:40::11", "10.213.10.2"])
def test_an_undeclared_segment_reaches_no_server(load, address):
    environment = load()
    rules = firewall.inbound(environment, environment.hosts["tools-1"])
    assert not any(admits(rules, address, server.port) for server in environment.servers.values())


def test_a_flow_that_is_removed_leaves_no_rule(load):
    flows = [f for f in DOCUMENT["network"]["flows"] if f["to"] != {"server": "git"}]
    environment = load(network__flows=flows)
    rules = firewall.inbound(environment, environment.hosts["tools-1"])
    assert {rule.port for rule in rules} == {22, 8441, 8443}


def test_administration_comes_from_management_only(load):
    environment = load()
    for host in environment.hosts.values():
        networks = {r.network for r in firewall.inbound(environment, host) if r.port == 22}
        assert networks == {*environment.segments["management"].networks}


def test_both_ends_of_log_shipping_have_a_rule(load):
    environment = load()
    tools, siem = environment.hosts["tools-1"], environment.hosts["siem-1"]
    assert admits(firewall.outbound(environment, tools), str(siem.address), 2514)
    assert admits(firewall.inbound(environment, siem), str(tools.address), 2514)
    assert admits(firewall.outbound(environment, siem), str(siem.address), 2514)
    assert not admits(firewall.outbound(environment, siem), str(tools.address), 2514)


def test_an_outside_sink_is_reachable(load):
    sink = {
        "kind": "relp",
        "address": "198.51.100.7",
        "server_name": "siem.example.com",
        "port": 6514,
        "ca_file": "siem.crt",
    }
    environment = load(log_sink=sink)
    rules = firewall.outbound(environment, environment.hosts["tools-1"])
    assert admits(rules, "198.51.100.7", 6514)
    assert not admits(rules, "10.213.40.11", 2514)


def test_services_are_reachable_and_a_host_that_offers_one_admits_the_others(load):
    services = {"dns": ["10.213.40.11"], "ntp": ["192.0.2.123"]}
    environment = load(network__services=services)
    tools, siem = environment.hosts["tools-1"], environment.hosts["siem-1"]
    assert admits(firewall.outbound(environment, tools), "10.213.40.11", 53, "udp")
    assert admits(firewall.outbound(environment, tools), "10.213.40.11", 53, "tcp")
    assert admits(firewall.outbound(environment, tools), "192.0.2.123", 123, "udp")
    assert admits(firewall.inbound(environment, siem), str(tools.address), 53, "udp")
    assert not admits(firewall.inbound(environment, tools), str(siem.address), 53, "udp")


@pytest.mark.parametrize(
    ("proxy", "address", "port"),
    [
        ("http://10.213.10.2:3142", "10.213.10.2", 3142),
        ("http://10.213.10.2", "10.213.10.2", 80),
        ("https://[fd0d:213:10::2]", "fd0d:213:10::2", 443),
    ],
)
def test_the_package_proxy_is_reachable(load, proxy, address, port):
    environment = load(network__services={"packages": {"proxy": proxy}})
    assert admits(firewall.outbound(environment, environment.hosts["tools-1"]), address, port)


def test_a_server_without_egress_may_connect_nowhere(load):
    environment = load()
    for account in firewall.variables(environment, environment.hosts["tools-1"])[
        "firewall_accounts"
    ]:
        assert account["egress"] == []
        assert account["outside"] == []


def test_egress_belongs_to_its_server_alone_and_its_target_admits_it(load):
    egress = [{"host": "siem-1", "port": 5432, "why": "reads the archive"}]
    environment = load(servers__git__egress=egress)
    tools, siem = environment.hosts["tools-1"], environment.hosts["siem-1"]
    accounts = {
        a["name"]: a["egress"] for a in firewall.variables(environment, tools)["firewall_accounts"]
    }
    assert {rule["network"] for rule in accounts["mcp-git"]} == {
        "10.213.40.11/32",
        "fd0d:213:40::11/128",
    }
    assert accounts["mcp-time"] == accounts["mcp-sqlite"] == []
    assert not admits(firewall.outbound(environment, tools), "10.213.40.11", 5432)
    assert admits(firewall.inbound(environment, siem), str(tools.address), 5432)
    assert admits(firewall.inbound(environment, siem), str(tools.address6), 5432)


def test_an_http_server_on_the_hosts_network_reaches_its_own_loopback_port_and_no_other(load):
    egress = [{"cidr": "198.51.100.0/24", "port": 443, "why": "asks the vendor"}]
    environment = load(servers__git__egress=egress)
    server = replace(environment.servers["git"], transport="http")
    account = firewall.account_rules(environment, server, 20001)
    assert [(rule["network"], rule["port"]) for rule in account["egress"]] == [
        ("198.51.100.0/24", 443),
        ("127.0.0.1/32", 20001),
    ]


def test_egress_by_name_opens_the_outside_for_its_port_and_the_resolvers(load):
    environment = load(network__services={"dns": ["10.213.10.53"]})
    egress = Egress(443, "asks the vendor", "tcp", domain="api.example.com")
    server = replace(environment.servers["git"], egress=(egress,))
    account = firewall.account_rules(environment, server, 20001)
    assert account["outside"] == [
        {"protocol": "tcp", "port": 443, "why": "api.example.com: asks the vendor"}
    ]
    assert {(rule["network"], rule["port"]) for rule in account["egress"]} == {
        ("10.213.10.53/32", 53)
    }


networks = st.one_of(
    st.builds(
        lambda bits, prefix: ip_network((bits, prefix), strict=False),
        st.integers(0x0A000000, 0x0A0000FF),
        st.integers(20, 32),
    ),
    st.builds(
        lambda bits, prefix: ip_network((0xFD0D << 112 | bits, prefix), strict=False),
        st.integers(0, 255),
        st.integers(112, 128),
    ),
)
rules = st.builds(
    FirewallRule,
    networks,
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from([22, 443]),
    st.sampled_from("ab"),
)


@given(st.lists(rules, max_size=20), st.integers(0, 255))
def test_without_overlaps_permits_the_same_and_matches_once(given_rules, last):
    result = firewall.without_overlaps(given_rules)
    for address in (f"10.0.0.{last}", f"fd0d::{last:x}"):
        for protocol in ("tcp", "udp"):
            for port in (22, 443):
                matching = [r for r in result if admits([r], address, port, protocol)]
                assert len(matching) == admits(given_rules, address, port, protocol)
    assert {why for rule in result for why in rule.why.split("; ")} == {
        rule.why for rule in given_rules
    }


@given(st.text())
def test_a_reason_cannot_leave_its_comment(text):
    comment = firewall.as_comment(text)
    assert len(comment.encode()) <= 120
    assert not set('"\n\r\0') & set(comment)
    assert "".join(comment.split()).isprintable()


@given(st.data())
def test_nothing_is_admitted_that_no_flow_declares(data):
    """The rules of both ends match the flows, for any subset of the manifest's flows."""
    environment = Environment.load(LAB)
    kept = data.draw(st.sets(st.sampled_from(environment.flows)))
    environment = replace(environment, flows=tuple(kept))
    for host in environment.hosts.values():
        declared = {
            (network, flow.protocol, flow.port)
            for flow in environment.all_flows
            if flow.target == host
            for network in flow.sources
        }
        admitted = {(r.network, r.protocol, r.port) for r in firewall.inbound(environment, host)}
        assert admitted == declared


def test_every_host_gets_exactly_the_roles_variables(load):
    environment = load()
    host = environment.hosts["siem-1"]
    assert set(firewall.variables(environment, host)) == {
        "firewall_inbound",
        "firewall_outbound",
        "firewall_accounts",
        "firewall_management",
        "firewall_internal",
    }

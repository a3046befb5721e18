"""The lab's names and addresses follow from the manifest alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.lab.errors import UnusableError
from ringfence.lab.plan import (
    INTERFACE_NAME,
    Plan,
    addresses,
    hardware_address,
    namespace_prefix,
    operator_prefix,
    short,
)
from ringfence.manifest.model import Environment, Host

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environment.load(Path(__file__).parents[2] / "inventories/lab/environment.yaml")


def moved(environment: Environment, address: str | None) -> Environment:
    """Give the host tools-1 another address, or none."""
    host = environment.hosts["tools-1"]
    other: Host = replace(host, address=IPv4Address(address) if address else None)
    return replace(environment, hosts={**environment.hosts, host.name: other})


@given(NAMES)
def test_interface_names_fit_into_the_kernel(name: str) -> None:
    assert len(short("br-", name)) <= INTERFACE_NAME
    assert len(f"{operator_prefix(name)}999") <= INTERFACE_NAME


@given(NAMES, NAMES)
def test_different_names_give_different_interfaces(one: str, other: str) -> None:
    assert (short("h-", one) == short("h-", other)) == (one == other)


@given(NAMES, NAMES)
def test_no_lab_takes_anothers_namespaces_for_its_own(one: str, other: str) -> None:
    assert namespace_prefix(one + other).startswith(namespace_prefix(one)) == (other == "")
    assert namespace_prefix(f"{one}-{other}").startswith(namespace_prefix(one)) is False


@given(NAMES, NAMES)
def test_hardware_addresses_are_unicast_and_local(lab: str, name: str) -> None:
    first = int(hardware_address(lab, name).split(":")[0], 16)
    assert first & 0b11 == 0b10


def test_addresses_are_those_of_both_families(environment: Environment) -> None:
    servers = environment.segments["servers"]
    assert [str(i) for i in addresses(servers, 1)] == ["10.213.30.1/24", "fd0d:213:30::1/64"]


def test_every_host_and_client_has_a_namespace(environment: Environment) -> None:
    plan = Plan(environment)
    assert set(plan.namespaces) == {
        "ringfence.lab.router",
        "ringfence.lab.client.clients",
        "ringfence.lab.edge-1",
        "ringfence.lab.tools-1",
        "ringfence.lab.siem-1",
    }


def test_proxy_is_served_where_the_manifest_names_this_machine(environment: Environment) -> None:
    assert Plan(environment).proxy == ("10.213.10.2", 3142)


def test_proxy_elsewhere_is_left_alone(environment: Environment) -> None:
    services = replace(environment.services, package_proxy="http://192.0.2.7:3142")
    assert Plan(replace(environment, services=services)).proxy is None


def test_embedded_lab_can_be_booted(environment: Environment) -> None:
    Plan(environment).check()


@pytest.mark.parametrize(
    ("address", "reason"),
    [("10.213.30.1", "its router"), (None, "has no address")],
    ids=["taken", "none"],
)
def test_host_that_cannot_be_booted_is_named(
    environment: Environment, address: str | None, reason: str
) -> None:
    with pytest.raises(UnusableError, match=f"tools-1.*{reason}"):
        Plan(moved(environment, address)).check()


def test_addresses_of_operator_and_client_are_free_in_other_segments(
    environment: Environment,
) -> None:
    Plan(moved(environment, "10.213.30.2")).check()
    Plan(moved(environment, "10.213.30.10")).check()


def test_management_segment_is_required(environment: Environment) -> None:
    others = {n: s for n, s in environment.segments.items() if s.purpose != "management"}
    with pytest.raises(UnusableError, match="management"):
        Plan(replace(environment, segments=others)).check()


def test_digest_follows_what_is_booted_and_nothing_else(environment: Environment) -> None:
    digest = Plan(environment).digest
    assert Plan(replace(environment, description="another")).digest == digest
    assert Plan(moved(environment, "10.213.30.77")).digest != digest


def test_names_are_those_of_every_address(environment: Environment) -> None:
    named = {ip_address(address): names for address, names in Plan(environment).names}
    for host in environment.hosts.values():
        for address in host.addresses:
            assert named[address] == (host.fqdn, host.name)

"""The account admits exactly the flows that the manifest declares."""

from __future__ import annotations

import pytest

from ringfence.cloud.flows import Path, declared
from ringfence.manifest.model import Environment
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account import reachability
from ringfence.verify.account.cloud import Cloud


def paths(rehearsal: Rehearsal, environment: Environment, *, acls: bool) -> frozenset[Path]:
    return reachability.read(Cloud(rehearsal.account.session, environment)).paths(acls=acls)


@pytest.mark.parametrize("acls", [True, False], ids=["with-acls", "by-groups-alone"])
def test_possible_flows_are_the_declared_ones(
    rehearsal: Rehearsal, environment: Environment, acls: bool
) -> None:
    possible, expected = paths(rehearsal, environment, acls=acls), declared(environment)
    assert sorted(map(str, possible - expected)) == []
    assert sorted(map(str, expected - possible)) == []


def test_declared_flows_are_those_a_reader_expects(environment: Environment) -> None:
    """The expected flows are written by hand, so that two wrong derivations cannot agree."""
    paths = {str(path) for path in declared(environment) if not path.target.startswith("service")}
    everyone = {
        *("host edge-1", "host tools-1", "host ledger-db-1", "host sensor-1"),
        "host mcp-ledger",
    }
    assert paths == {
        "segment clients -> host edge-1 tcp/443",
        "host edge-1 -> host tools-1 tcp/8441",
        "host edge-1 -> host mcp-ledger tcp/8442",
        "segment servers -> host ledger-db-1 tcp/5432",
        *(f"host {name} -> host ledger-db-1 tcp/5432" for name in ("tools-1", "mcp-ledger")),
        *(f"segment management -> {host} tcp/22" for host in (*everyone, "host siem-1")),
        "host mcp-ledger -> link fx tcp/443",
        "host mcp-ledger -> egress firewall tcp/443",
        "accepted callers -> balancer gateway tcp/443",
        "balancer gateway -> host edge-1 tcp/443",
        *(f"mirror of {each} -> balancer sensors udp/4789" for each in (*everyone, "host siem-1")),
        "balancer sensors -> host sensor-1 udp/4789",
        "balancer sensors -> host sensor-1 tcp/14789",
        *(f"{each} -> host siem-1 tcp/2514" for each in everyone),
    }

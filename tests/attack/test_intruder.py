"""Attacks in the lab: each succeeds before hardening; afterwards it is stopped, detected, or listed
as neither, with the reason."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ringfence.events import record
from ringfence.events.connections import flow_records
from ringfence.flows.comparison import Connection, compare
from ringfence.flows.page import render
from ringfence.lab import Lab, unavailable
from ringfence.manifest.model import Environment
from tests.attack.attacks import ATTACKS, FIREWALL, Attack
from tests.attack.ground import Ground
from tests.attack.results import Result, page, table
from tests.lab.commands import ROOT, run

MANIFEST = ROOT / "inventories/sensor/environment.yaml"
PINS = ROOT / "inventories/lab/pins"
REPORT = ROOT / "reports" / "attack"
CALLS = 20
REPOSITORY = 'command: [mcp-server-git, --repository, "{state}/repository"]\n'
EGRESS = "    egress: [{cidr: 192.0.2.80/32, port: 443, why: copies of the repository}]\n"

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"no lab here: {unavailable()}")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("attack")
    # Two workers may each boot a lab: one of unhardened hosts, one of hardened ones.
    octet = 200 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    text = MANIFEST.read_text().replace("\nname: lab\n", f"\nname: attack-{octet}\n")
    text = text.replace("10.213.", f"10.{octet}.").replace("fd0d:213:", f"fd0d:{octet}:")
    assert REPOSITORY in text
    text = text.replace(REPOSITORY, REPOSITORY + EGRESS)  # one outside host may be reached
    (directory / "environment.yaml").write_text(text)
    (directory / "pins").symlink_to(PINS)
    lab = Lab(Environment.load(directory / "environment.yaml"), "trixie")
    lab.down()
    try:
        lab.up()
        ground = Ground(lab)
        ground.build()
        with ground.world():
            yield ground
    finally:
        lab.down(purge=True)


@pytest.fixture(scope="module")
def hardened(ground: Ground) -> Ground:
    manifest = ground.lab.environment.path
    done = run("ansible-playbook", "-i", manifest, "playbooks/harden.yml")
    assert done.returncode == 0, done.stdout[-6000:]
    ground.lab.enforce()
    return ground


@dataclass
class Run:
    results: list[Result] = field(default_factory=list)
    benign: int | None = None
    """Alerts that normal work raised."""


@pytest.fixture(scope="module")
def suite() -> Iterator[Run]:
    """Collect the result of each attack; at the end write a page, `reports/attack/attacks.html`."""
    run, began = Run(), datetime.now(UTC)
    yield run
    results = run.results
    REPORT.mkdir(parents=True, exist_ok=True)
    (REPORT / "attacks.json").write_text(
        json.dumps([asdict(result) for result in results], indent=2) + "\n"
    )
    (REPORT / "attacks.html").write_text(page(results, run.benign, began))
    (REPORT / "attacks.md").write_text("\n".join(table(results)) + "\n")


@pytest.fixture(scope="class")
def unhardened(ground: Ground) -> Iterator[Ground]:
    with ground.unprotected():
        yield ground


class TestUnhardened:
    """Attacks on unhardened hosts, with servers that anybody can reach."""

    @pytest.mark.parametrize("attack", [a for a in ATTACKS if a.possible], ids=str)
    def test_an_attack_succeeds(self, unhardened: Ground, attack: Attack):
        outcome = unhardened.carry_out(attack, hardened=False)
        assert outcome.succeeded, outcome.evidence


def test_benign_traffic_raises_no_alert(hardened: Ground, suite: Run):
    """Calls through the gateway, log shipping, and a whole run of the playbook."""
    began = time.time()
    manifest = hardened.lab.environment.path
    call = ["ringfence", "call", "--environment", str(manifest), "--as", "carol"]
    for _ in range(CALLS):
        called = hardened.lab.exec(
            "client", [*call, "time", "get_current_time", '{"timezone": "UTC"}'], timeout=60
        )
        assert '"timezone": "UTC"' in called.stdout, called.stderr
    again = run("ansible-playbook", "-i", manifest, "playbooks/harden.yml")
    assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout[-6000:]
    time.sleep(5)
    alerts = [a.message for a in hardened.alerts(began) if a.host == "sensor-1"]
    raised = [message for message in alerts if not message.startswith(FIREWALL)]
    suite.benign = len(raised)
    assert raised == []


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_an_attack_is_stopped_and_detected(hardened: Ground, suite: Run, attack: Attack):
    outcome = hardened.carry_out(attack, hardened=True)
    alert = hardened.first_alert(attack, outcome.began)
    suite.results.append(Result.of(attack, outcome, alert))
    assert outcome.succeeded == (not attack.blocked_by), outcome.evidence
    assert bool(alert) == bool(attack.alerts), [a.message for a in hardened.alerts(outcome.began)]


def test_flows_are_recorded_and_compared(hardened: Ground, tmp_path: Path):
    """Attackers' connections are undeclared; those of the environment are declared."""
    events = tmp_path / "sensor.jsonl"
    called = Connection("segment clients", "host edge-1", "tcp", 443)
    forwarded = Connection("host edge-1", "host tools-1", "tcp", 8441)
    tried = Connection("segment servers", "host siem-1", "tcp", 22)
    cat = ["sh", "-c", "cat /var/log/ringfence/sensor-1/*.jsonl"]
    deadline = time.monotonic() + 120  # a flow is recorded when it ends
    while True:
        events.write_text(hardened.lab.exec("siem-1", cat, timeout=60, check=True).stdout)
        comparison = compare(hardened.lab.environment, flow_records(record.lines([events])))
        if tried in comparison.undeclared or time.monotonic() > deadline:
            break
        time.sleep(3)
    assert {called, forwarded} <= comparison.seen.keys()
    assert tried in comparison.undeclared
    assert not [each for each in comparison.undeclared if each.source.startswith("host ")]
    REPORT.mkdir(parents=True, exist_ok=True)
    (REPORT / "flows.html").write_text(render(hardened.lab.environment, comparison))

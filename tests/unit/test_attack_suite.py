"""The list of attacks names the controls of the checklist that stop and detect each of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.suricata import render
from ringfence.controls import catalogue as controls
from ringfence.inventory import nids
from ringfence.manifest.model import Environment
from tests.attack.attacks import ATTACKS, FIREWALL, Attack
from tests.attack.results import Result, page, table

MANIFEST = Path(__file__).parents[2] / "inventories/sensor/environment.yaml"
SIGNATURE = re.compile(r'^alert .*msg:"([^"]+)";.*metadata:control ([A-Z]+-\d+)', re.MULTILINE)
NONE = Result("it", False, "", None, None, None, "", ())


@pytest.fixture(scope="module")
def signatures(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Return the messages of the sensor's rules, each with the control that it names."""
    environment = Environment.load(MANIFEST)
    variables = nids.variables(environment, environment.hosts["sensor-1"])
    variables |= {"nids_denied_ja4": [], "nids_denied_sni": []}
    folder = render(variables, tmp_path_factory.mktemp("rules"))
    texts = [path.read_text() for path in folder.rglob("*.rules")]
    found = [pair for text in texts for pair in SIGNATURE.findall(text)]
    assert len(found) > 30
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_controls_of_an_attack_are_known_and_in_effect(attack: Attack):
    catalogue = controls.load()
    for each in attack.controls:
        assert catalogue[each].implemented
    assert len(set(attack.controls)) == len(attack.controls)
    assert bool(attack.controls) == bool(attack.blocked_by or attack.alerts)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.alerts], ids=str)
def test_whoever_sees_an_attack_is_of_one_of_its_controls(
    attack: Attack, signatures: list[tuple[str, str]]
):
    for alert in attack.alerts:
        if alert.startswith(FIREWALL):
            assert {"NET-01", "NET-02"} & set(attack.controls)
        else:
            own = {control for message, control in signatures if message.startswith(alert)}
            assert own, f"no signature begins with {alert}"
            assert own <= set(attack.controls)


def test_the_table_and_the_page_show_them():
    results = [
        Result("one", True, "a list", "seen", "sensor-1", 7, "", ("NET-01", "DAT-03")),
        NONE,
    ]
    head, _, one, none = table(results)
    assert head.split("|")[5].strip() == "controls"
    assert [cell.strip() for cell in one.split("|")][1:6] == [
        "one",
        "a list",
        "seen (sensor-1)",
        "7",
        "NET-01, DAT-03",
    ]
    assert none.split("|")[5].strip() == ""
    text = page(results, 0, datetime(2026, 11, 25, tzinfo=UTC))
    title = controls.load()["DAT-03"].title
    assert f'<abbr title="{title}">DAT-03</abbr>' in text
    assert text.count("<abbr") == 2

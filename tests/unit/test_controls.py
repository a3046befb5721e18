"""The checklist, and the match between its controls and the checks."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.controls import catalogue as controls

ROOT = Path(__file__).parents[2]
CHECKS = ROOT / "tests" / "compliance"

COLLECT = """
import json, pathlib
def pytest_collection_finish(session):
    checks = [
        {
            "name": item.nodeid.split("[")[0],
            "control": item.get_closest_marker("control").args[0],
            "why": bool(item.function.__doc__),
            "host": "host" in item.fixturenames,
            "group": next((mark.args[0] for mark in item.iter_markers("hosts")), None),
            "sabotage": [
                [list(mark.args), mark.kwargs] for mark in item.iter_markers("sabotage")
            ],
        }
        for item in session.items
    ]
    pathlib.Path(session.config.rootpath, OUT).write_text(json.dumps(checks))
"""


Checks = list[dict[str, Any]]


def collected(directory: Path, environment: str, *options: str) -> Checks:
    """Collect the product's checks with pytest, with their markers."""
    out = directory / "checks.json"
    (directory / "collector.py").write_text(f"OUT = {str(out)!r}\n{COLLECT}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "collector", "-p", "no:cacheprovider"),
            *(str(CHECKS), "--environment", environment),
            *("--collect-only", "-q", *options),
        ],
        cwd=ROOT,
        env={"PYTHONPATH": str(directory), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Checks:
    """Return the checks of hosts of every kind."""
    return collected(tmp_path_factory.mktemp("collect"), "inventories/sensor/environment.yaml")


@pytest.fixture(scope="module")
def cloud_checks(tmp_path_factory: pytest.TempPathFactory) -> Checks:
    """Return the checks of an environment in AWS, without its hosts."""
    manifest = "inventories/aws-example/environment.yaml"
    return collected(tmp_path_factory.mktemp("collect"), manifest, "--rehearsed")


def test_controls_are_numbered_without_gaps():
    ids = list(controls.load())
    sizes = Counter(each.split("-")[0] for each in ids)
    assert ids == [f"{domain}-{n:02}" for domain, size in sizes.items() for n in range(1, size + 1)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda doc: doc["controls"]["IAM-01"].pop("remedy"), "'remedy' is a required property"),
        (lambda doc: doc["domains"].pop("IAM"), "IAM-01: its domain is not among the domains"),
        (lambda doc: doc["controls"]["IAM-01"].update(priority="high"), "'high' is not one of"),
    ],
)
def test_a_broken_checklist_is_refused(tmp_path: Path, change: Any, problem: str):
    doc = yaml.safe_load(controls.CATALOGUE.read_text())
    change(doc)
    path = tmp_path / "controls.yaml"
    path.write_text(yaml.safe_dump(doc, sort_keys=False))
    with pytest.raises(controls.CatalogueError, match=problem):
        controls.load(path)


def test_controls_in_effect_on_hosts_have_checks(checks: Checks):
    checked = {check["control"] for check in checks}
    in_effect = {c.id for c in controls.load().values() if "host" in c.implemented}
    assert in_effect <= checked, f"no check for {sorted(in_effect - checked)}"


def test_controls_in_effect_in_the_cloud_have_checks(cloud_checks: Checks):
    checked = {check["control"] for check in cloud_checks}
    in_effect = {c.id for c in controls.load().values() if "cloud" in c.implemented}
    assert in_effect <= checked, f"no check for {sorted(in_effect - checked)}"


def test_controls_in_effect_at_the_gateway_have_checks(checks: Checks):
    """Checks for the group edge; a check of every host shows nothing about a gateway."""
    checked = {check["control"] for check in checks if check["group"] == "edge"}
    in_effect = {c.id for c in controls.load().values() if "gateway" in c.implemented}
    assert in_effect == checked


def test_environments_without_a_cloud_have_no_checks_of_one(checks: Checks, cloud_checks: Checks):
    modules = {f"tests/compliance/cloud/{path.name}" for path in CHECKS.glob("cloud/test_*.py")}
    assert {check["name"].split("::")[0] for check in cloud_checks} == modules
    assert not {c["name"] for c in checks} & {c["name"] for c in cloud_checks}


def test_checked_controls_are_in_effect(checks: Checks):
    """A control that a check verifies may not be planned everywhere."""
    catalogue = controls.load()
    planned = sorted({c["control"] for c in checks if not catalogue[c["control"]].implemented})
    assert not planned, f"make a layer of {planned} `implemented` in schemas/controls.yaml"


def test_every_check_says_why_it_exists(checks: Checks, cloud_checks: Checks):
    assert not sorted({check["name"] for check in checks + cloud_checks if not check["why"]})


def test_every_check_on_a_host_can_be_shown_to_fail(checks: Checks):
    def proven(check: dict[str, Any]) -> bool:
        marks = check["sabotage"]
        return len(marks) == 1 and len(marks[0][0]) == 1 and set(marks[0][1]) == {"restore"}

    assert not sorted({c["name"] for c in checks if c["host"] and not proven(c)})


def test_every_assertion_tells_what_it_saw():
    """The report shows an assertion's message as evidence; without a message there is none."""
    silent = [
        f"{path.name}:{node.lineno}"
        for path in sorted(CHECKS.rglob("*.py"))
        for check in ast.walk(ast.parse(path.read_text()))
        if isinstance(check, ast.FunctionDef) and check.name.startswith("test_")
        for node in ast.walk(check)
        if isinstance(node, ast.Assert) and node.msg is None
    ]
    assert not silent

"""Tags of roles: each control of hosts selects the tasks that enforce it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.controls import catalogue as controls

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
BUILDING_BLOCKS = {"deadman_switch", "debian"}
"""Roles that other roles use; they enforce nothing alone."""
ENTRY_POINTS = {"baseline": {"record"}, "ssh": {"automation"}}
"""Task files that playbooks run by `tasks_from`."""
FILE_ACTIONS = ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks")
LISTED = re.compile(r"^ +(?:(?P<role>\w+) : )?.*\tTAGS: \[(?P<tags>.*)\]$", re.MULTILINE)


def entries(role: Path) -> list[dict[str, Any]]:
    return yaml.safe_load((role / "tasks/main.yml").read_text())


def enforcers(role: Path) -> dict[str, set[str]]:
    """Return the controls by task file, as the role's table of contents declares them."""
    files: dict[str, set[str]] = {}
    for entry in entries(role):
        for arguments in (entry[action] for action in FILE_ACTIONS if action in entry):
            name = arguments if isinstance(arguments, str) else arguments["file"]
            files[name] = set(entry["tags"]) - {role.name}
    return files


def playbook_controls() -> dict[str, set[str]]:
    return {
        path.name: {
            control
            for play in yaml.safe_load(path.read_text())
            for control in play.get("vars", {}).get("controls", [])
        }
        for path in (ROOT / "playbooks").glob("*.yml")
    }


@pytest.fixture(scope="module")
def tasks() -> list[tuple[str, set[str]]]:
    """Return each task of harden.yml: its role and its tags, as Ansible computes them."""
    command = "ansible-playbook -i inventories/lab/environment.yaml playbooks/harden.yml"
    listed = subprocess.run(
        [*command.split(), "--list-tasks"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [
        (match["role"] or "", set(match["tags"].split(", ")))
        for match in LISTED.finditer(listed.stdout)
    ]


def test_every_task_file_declares_its_controls():
    for role in ROLES:
        if role.name in BUILDING_BLOCKS:
            continue
        files = {path.stem for path in (role / "tasks").glob("*.yml")}
        declared = enforcers(role)
        assert {Path(name).stem for name in declared} == (
            files - {"main"} - ENTRY_POINTS.get(role.name, set())
        )
        assert all(declared.values()), f"{role.name}: a task file without a control"


def test_no_enforcer_names_an_unknown_control():
    known = set(controls.load())
    named = {c for role in ROLES for each in enforcers(role).values() for c in each}
    named |= {c for each in playbook_controls().values() for c in each}
    assert named <= known


def test_every_control_in_effect_has_an_enforcer():
    enforced = {role.name: set[str]().union(*enforcers(role).values()) for role in ROLES}
    gateway = enforced.pop("mcp_gateway")
    for control in controls.load().values():
        if "host" in control.implemented:
            assert any(control.id in each for each in enforced.values()), control.id
        if "gateway" in control.implemented:
            assert control.id in gateway, control.id


def test_a_control_selects_the_prerequisites_of_its_enforcers():
    """Packages, and handlers that are flushed, belong to every control of the role."""
    for role in ROLES:
        if role.name in BUILDING_BLOCKS:
            continue
        needed = set[str]().union(*enforcers(role).values(), {role.name})
        flushed = [e for e in entries(role) if e.get("ansible.builtin.meta") == "flush_handlers"]
        assert bool(flushed) == (role / "handlers").exists(), f"{role.name} flushes no handlers"
        prerequisites = [
            entry
            for entry in entries(role)
            if "always" not in entry["tags"]
            and (entry in flushed or "ansible.builtin.import_role" in entry)
        ]
        for entry in prerequisites:
            assert needed <= set(entry["tags"]), f"{role.name}: {entry['name']}"


def test_a_control_or_a_role_selects_what_enforces_it(tasks: list[tuple[str, set[str]]]):
    assert len(tasks) > 100, "the list of tasks was not understood"
    for role in ROLES:
        if role.name in BUILDING_BLOCKS:
            continue
        assert any(name == role.name and role.name in tags for name, tags in tasks)
        for control in set[str]().union(*enforcers(role).values()):
            selected = {name for name, tags in tasks if control in tags and "always" not in tags}
            assert {role.name, "debian"} <= selected, control


def test_tls_comes_with_what_stands_on_it(tasks: list[tuple[str, set[str]]]):
    """Log shipping and the gateway use the certificate and the frontends of the role tls."""
    needed = {
        control
        for role in ("log_shipping", "siem", "mcp_gateway")
        for each in enforcers(ROOT / "roles" / role).values()
        for control in each
    }
    for name, tags in tasks:
        if name == "tls" and "always" not in tags:
            assert needed <= tags

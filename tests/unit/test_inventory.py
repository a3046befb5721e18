"""Ansible reads the manifest's hosts, and each host gets only the variables of its roles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence import inventory
from ringfence.manifest.model import Environment

ROOT = Path(__file__).parents[2]
LAB = ROOT / "inventories" / "lab" / "environment.yaml"
SMALL = (Path(__file__).parent / "manifests" / "small.yaml").read_text()
CONNECTION = ("ansible_", "bootstrap_")


@pytest.fixture(scope="module")
def lab() -> Environment:
    return Environment.load(LAB)


def ansible_inventory(*args: str) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("ansible-inventory")
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [tool, *args],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def untemplated(value: dict[str, Any]) -> Any:
    """Return text without Ansible's mapping for text that is not a template."""
    return value.get("__ansible_unsafe", value)


def test_ansible_lists_hosts_and_variables(lab: Environment) -> None:
    result = ansible_inventory("-i", str(LAB), "--list")
    assert result.returncode == 0, result.stderr
    listed: dict[str, Any] = json.loads(result.stdout, object_hook=untemplated)
    hosts = listed["_meta"]["hostvars"]
    assert set(hosts) == set(lab.hosts)
    for name, host in lab.hosts.items():
        assert hosts[name]["ansible_host"] == str(host.address)
        assert set(inventory.variables(lab, host)) <= set(hosts[name])
    for group, members in inventory.groups(lab).items():
        assert listed[group]["hosts"] == members


def test_ansible_draws_the_groups() -> None:
    result = ansible_inventory("-i", str(LAB), "--graph")
    assert result.returncode == 0, result.stderr
    assert "@mcp_servers:" in result.stdout
    assert "--tools-1" in result.stdout


def test_ansible_refuses_a_broken_manifest(tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text(SMALL.replace("segment: servers", "segment: server").replace("8442", "0"))
    result = ansible_inventory("-i", str(path), "--list")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    output = " ".join(result.stderr.split())
    assert f"{path}:31:22: hosts.tools-1.segment: there is no segment 'server';" in output
    assert f"{path}:39:11: servers.git.port: 0 is out of range; choose from 1 to 65535" in output


def test_variables_belong_to_the_roles_of_the_host(lab: Environment) -> None:
    """A host must not get a secret or a rule that only another kind of host needs."""
    for host in lab.hosts.values():
        applied = [role for role, (group, _) in inventory.ROLES.items() if host in lab.group(group)]
        others = inventory.ROLES.keys() - set(applied)
        for name in inventory.variables(lab, host):
            assert name.startswith((*(f"{role}_" for role in applied), *CONNECTION)) or (
                name in applied
            ), name
            assert not any(name == other or name.startswith(f"{other}_") for other in others), name


def test_roles_do_not_overwrite_each_other(lab: Environment) -> None:
    for host in lab.hosts.values():
        names = [
            name
            for group, compute in inventory.ROLES.values()
            if host in lab.group(group)
            for name in compute(lab, host)
        ]
        assert len(names) == len(set(names))


def test_variables_can_be_written_as_json(lab: Environment) -> None:
    for host in lab.hosts.values():
        json.dumps(inventory.variables(lab, host))


def test_hosts_are_grouped_by_use_and_segment(lab: Environment) -> None:
    groups = inventory.groups(lab)
    assert groups["mcp_servers"] == ["tools-1"]
    assert groups["segment_monitoring"] == ["siem-1"]

"""The `tree` action, run by ansible-playbook against this machine."""

from __future__ import annotations

import getpass
import grp
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ITEMS = [{"name": "one", "value": 1}, {"name": "two", "value": 2}]


@dataclass(frozen=True)
class Run:
    status: int
    changed: bool
    output: str


@dataclass(frozen=True)
class Role:
    """Role that deploys its templates to `target`."""

    home: Path

    @property
    def target(self) -> Path:
        return self.home / "target"

    @property
    def templates(self) -> Path:
        return self.home / "roles/example/templates" / self.target.relative_to("/")

    def deploy(
        self, *flags: str, environment: Mapping[str, str] | None = None, **arguments: Any
    ) -> Run:
        owner = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}
        task = {"name": "Deploy", "tree": owner | arguments}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"who": "world"},
            "roles": ["example"],
        }
        (self.home / "roles/example/tasks/main.yml").write_text(yaml.safe_dump([task]))
        (self.home / "play.yml").write_text(yaml.safe_dump([play]))
        done = subprocess.run(
            ["ansible-playbook", "-i", "localhost,", self.home / "play.yml", *flags],
            env=os.environ
            | {
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_HOME": str(self.home / "ansible"),
                "ANSIBLE_INVENTORY_ENABLED": "host_list",
                "ANSIBLE_ROLES_PATH": str(self.home / "roles"),
            }
            | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Run(done.returncode, "changed=1" in done.stdout, done.stdout + done.stderr)


@pytest.fixture
def role(tmp_path: Path) -> Role:
    role = Role(tmp_path)
    for directory in (role.target, role.templates / "items", role.home / "roles/example/tasks"):
        directory.mkdir(parents=True)
    (role.templates / "plain.conf").write_text("kept as {{ it }} is\n")
    (role.templates / "greeting.conf.j2").write_text("# {{ ansible_managed }}\nhello {{ who }}\n")
    (role.templates / "items/[name].conf.j2").write_text("{{ item.name }}={{ item.value }}\n")
    return role


def test_deploys_templates_copies_and_items(role: Role):
    run = role.deploy(each=ITEMS)
    assert run.status == 0, run.output
    assert (role.target / "plain.conf").read_text() == "kept as {{ it }} is\n"
    assert (role.target / "greeting.conf").read_text().splitlines()[1:] == ["hello world"]
    assert (role.target / "items/one.conf").read_text() == "one=1\n"
    assert (role.target / "items/two.conf").read_text() == "two=2\n"


def test_a_second_run_changes_nothing(role: Role):
    assert role.deploy(each=ITEMS).changed
    assert not role.deploy(each=ITEMS).changed


def test_check_mode_shows_the_difference_and_changes_nothing(role: Role):
    run = role.deploy("--check", "--diff", each=ITEMS)
    assert run.changed
    assert "+hello world" in run.output
    assert list(role.target.iterdir()) == []


def test_purge_removes_what_is_no_longer_deployed(role: Role):
    role.deploy(each=ITEMS)
    run = role.deploy(each=ITEMS[:1], purge=[f"{role.target}/items/*.conf"])
    assert run.changed
    assert [path.name for path in (role.target / "items").iterdir()] == ["one.conf"]


def test_one_invalid_file_leaves_every_file_unchanged(role: Role):
    role.deploy(each=ITEMS)
    (role.templates / "greeting.conf.j2").write_text("goodbye {{ who }}\n")
    (role.templates / "plain.conf").write_text("changed too\n")
    greeting = role.target / "greeting.conf"
    run = role.deploy(each=ITEMS, validate={str(greeting): "grep -q hello %s"})
    assert run.status != 0
    assert f"{greeting} is not valid, nothing was changed" in run.output
    assert "hello world" in greeting.read_text()
    assert (role.target / "plain.conf").read_text() == "kept as {{ it }} is\n"


def test_a_secret_file_is_private_and_not_in_the_diff(role: Role):
    secret = str(role.target / "greeting.conf")
    run = role.deploy("--diff", "-vvv", each=ITEMS, attributes={secret: {"mode": "0600"}})
    assert stat.S_IMODE(Path(secret).stat().st_mode) == 0o600
    assert "hello world" not in run.output


def test_a_drifted_mode_is_restored(role: Role):
    role.deploy(each=ITEMS)
    (role.target / "plain.conf").chmod(0o666)
    assert role.deploy(each=ITEMS).changed
    assert stat.S_IMODE((role.target / "plain.conf").stat().st_mode) == 0o644


def test_an_undefined_variable_names_the_template(role: Role):
    (role.templates / "greeting.conf.j2").write_text("hello {{ whom }}\n")
    run = role.deploy(each=ITEMS)
    assert run.status != 0
    assert "'whom' is undefined" in run.output
    assert "greeting.conf.j2" in run.output


def test_stays_changed_until_the_handler_records_the_digest(role: Role):
    """A failed handler does not run again; without this, the next run would report no change."""
    stamp = role.target / "applied"
    assert role.deploy(each=ITEMS, applied=str(stamp)).changed
    failed_before = role.deploy("-v", each=ITEMS, applied=str(stamp))
    assert failed_before.changed
    digest = re.search(r"digest: ([0-9a-f]{64})", failed_before.output)
    assert digest
    stamp.write_text(f"{digest[1]}\n")
    assert not role.deploy(each=ITEMS, applied=str(stamp)).changed


def test_a_python_package_has_a_directory_per_content(role: Role, tmp_path: Path):
    package = tmp_path / "modules/parent/child"
    package.mkdir(parents=True)
    module = package / "__init__.py"
    module.write_text("VALUE = 1\n")
    arguments = {"name": "parent.child", "into": f"{role.target}/code/[digest]"}
    environment = {"PYTHONPATH": str(tmp_path / "modules")}

    def deploy(*flags: str) -> Run:
        return role.deploy(*flags, each=ITEMS, python_package=arguments, environment=environment)

    def deployed() -> list[str]:
        return sorted(p.read_text() for p in role.target.glob("code/*/parent/child/__init__.py"))

    assert deploy("--check").changed
    assert deployed() == []
    assert deploy().changed
    assert not deploy().changed
    module.write_text("VALUE = 2\n")
    assert deploy().changed
    assert deployed() == ["VALUE = 1\n", "VALUE = 2\n"]


def test_deploys_only_the_given_directories(role: Role):
    folder = str((role.templates / "items").relative_to(role.home / "roles/example/templates"))
    role.deploy(src=[folder], each=ITEMS)
    assert sorted(path.name for path in role.target.iterdir()) == ["items"]

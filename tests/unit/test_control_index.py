"""The index of controls: its sources, and the gaps that it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence import cli
from ringfence.controls import catalogue, index
from ringfence.report import control

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "controls.md"

SOURCES = {
    "schemas/environment.schema.json": json.dumps(
        {
            "properties": {"roles": {"x-controls": ["IAM-01"], "description": "Roles."}},
            "$defs": {"host": {"properties": {"groups": {"x-controls": ["NET-04"]}}}},
        },
        indent=1,
    ),
    "roles/ssh/tasks/main.yml": """\
- name: Set up the accounts of people
  ansible.builtin.import_tasks: people.yml
  tags: &controls [ssh, IAM-05]
- name: Apply
  ansible.builtin.meta: flush_handlers
  tags: *controls
""",
    "roles/mcp_gateway/tasks/main.yml": """\
- name: Configure the gateway
  ansible.builtin.include_tasks: {file: configuration.yml}
  tags: [mcp_gateway, IAM-01]
""",
    "playbooks/pins.yml": "- name: Fetch\n  hosts: edge\n  vars: {controls: [TIN-01]}\n",
    "ringfence/gateway/policy/__init__.py": '"""Decides."""\n\nCONTROLS = ("IAM-01",)\n',
    "stacks/components/network/acls.py": '"""ACLs."""\n\nCONTROLS = ("NET-01", "NET-02")\n',
    "tests/compliance/hosts/test_identity.py": """\
from __future__ import annotations
import pytest

def edited(line: str) -> pytest.MarkDecorator:
    return pytest.mark.sabotage(f"echo {line}", restore="true")

@pytest.mark.control("IAM-05")
@edited("PasswordAuthentication yes")
def test_password_login_is_refused(host):
    '''A password can be guessed.'''

@pytest.mark.control("IAM-06")
def test_nothing_breaks_this(host):
    '''Why.'''
""",
    "tests/compliance/cloud/test_network.py": """\
@pytest.mark.control("NET-01")
def test_segments_are_apart(cloud):
    '''Why.'''
""",
    "tests/stacks/test_network_checks.py": """\
LISTED = ("test_segments_are_apart",)

@BROKEN.by("segments_are_apart")
def a_port_is_opened(aws, out): ...
""",
    "tests/attack/attacks.py": 'ATTACKS = (Attack("scan", "a", controls=["NET-01", "NET-04"]),)\n',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def found(root: Path, kind: str) -> list[tuple[str, str | None, str]]:
    places = [place for place in index.places(root) if place.kind == kind]
    return [(place.control, place.layer, place.name) for place in places]


def test_keys_of_the_manifest_are_paths(root: Path) -> None:
    assert found(root, "manifest") == [
        ("IAM-01", None, "roles"),
        ("NET-04", None, "hosts.*.groups"),
    ]


def test_enforcers_of_every_layer_are_found(root: Path) -> None:
    assert found(root, "enforcer") == [
        ("IAM-01", "gateway", "policy"),
        ("IAM-01", "gateway", "Configure the gateway"),
        ("IAM-05", "host", "Set up the accounts of people"),
        ("NET-01", "cloud", "acls"),
        ("NET-02", "cloud", "acls"),
        ("TIN-01", "operations", "Fetch"),
    ]


def test_checks_come_with_their_sabotage(root: Path) -> None:
    sabotage = {place.name: place.sabotage for place in index.places(root) if place.kind == "check"}
    assert sabotage == {
        "test_password_login_is_refused": ("edited('PasswordAuthentication yes')",),
        "test_nothing_breaks_this": (),
        "test_segments_are_apart": ("tests/stacks/test_network_checks.py: a_port_is_opened",),
    }
    assert [layer for _, layer, _ in found(root, "check")] == ["host", "host", "cloud"]


def test_attacks_count_for_each_of_their_controls(root: Path) -> None:
    assert found(root, "attack") == [("NET-01", None, "scan"), ("NET-04", None, "scan")]


def test_what_is_missing_is_a_hole(root: Path) -> None:
    policy = root / "ringfence/gateway/policy/__init__.py"
    policy.write_text('CONTROLS = ("IAM-99",)\n')
    holes = set(index.holes(root))
    assert "ringfence/gateway/policy/__init__.py:1: there is no control IAM-99" in holes
    assert "DAT-03: layer gateway is called implemented, and nothing enforces it" in holes
    assert "HST-01 is called implemented, and no check verifies it" in holes
    assert any(hole.startswith("TIN-02: no key of the manifest feeds it; add") for hole in holes)
    name = "tests/compliance/hosts/test_identity.py:13"
    assert f"{name}: no test makes test_nothing_breaks_this fail" in holes


def test_a_computed_declaration_is_refused(root: Path) -> None:
    (root / "stacks/components/network/acls.py").write_text("\nCONTROLS = tuple(names())\n")
    with pytest.raises(
        index.DeclarationError, match=r"acls\.py:2: write the controls as a literal"
    ):
        index.places(root)


def test_a_control_is_shown_with_everything_that_serves_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["control", "iam-05", "--report", "none"]) == 0
    shown = capsys.readouterr().out
    for part in ("Two factors", "administrators", "roles/ssh/tasks/people.yml", "test_key_alone"):
        assert part in shown


def test_without_an_id_all_titles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["control"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(catalogue.load())


def test_an_unknown_control_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["control", "IAM-55"]) == 2
    assert "there is no control IAM-55; did you mean IAM-05?" in capsys.readouterr().err


def test_no_control_lacks_what_it_claims() -> None:
    assert list(index.holes()) == []


def test_the_page_of_controls_is_that_of_the_sources() -> None:
    """Renew it: ringfence control --all --format markdown > docs/controls.md"""
    assert PAGE.read_text() == control.markdown(catalogue.load().values())

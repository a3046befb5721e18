"""Components name the controls that they enforce, and together they name every control of the
cloud."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ringfence import STACKS
from ringfence.cloud.tags import CONTROL
from ringfence.controls import catalogue
from ringfence.rehearsal.record import Rehearsal

COMPONENTS = sorted(
    path for path in (STACKS / "components").rglob("*.py") if path.name != "__init__.py"
)
CONFIG_RULE = "aws:cfg/rule:Rule"
"""Resource type that verifies a control which another component enforces."""


def declared(module: Path) -> tuple[str, ...]:
    """Read the literal `CONTROLS` without an import, as the index of controls does."""
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONTROLS":
            return ast.literal_eval(node.value)
    return ()


@pytest.mark.parametrize("module", COMPONENTS, ids=lambda path: path.stem)
def test_component_names_known_controls(module: Path) -> None:
    assert declared(module), f"{module.name} has no CONTROLS"
    assert set(declared(module)) <= catalogue.load().keys()


def test_every_control_of_the_cloud_has_a_component() -> None:
    named = {control for module in COMPONENTS for control in declared(module)}
    wanted = {id_ for id_, control in catalogue.load().items() if "cloud" in control.implemented}
    assert wanted <= named, f"no component enforces {sorted(wanted - named)}"


def test_no_component_repeats_a_control_in_its_code() -> None:
    """A tag takes its control from `CONTROLS`, so that the two cannot differ."""
    known = catalogue.load().keys()
    for module in COMPONENTS:
        literals = [
            str(node.value)
            for node in ast.walk(ast.parse(module.read_text()))
            if isinstance(node, ast.Constant) and node.value in known
        ]
        assert sorted(literals) == sorted(declared(module)), module.name


def test_every_tag_is_a_control_of_some_component(rehearsal: Rehearsal, account: Rehearsal) -> None:
    named = {control for module in COMPONENTS for control in declared(module)}
    for resource in (*rehearsal.resources, *account.resources):
        tags = resource.inputs.get("tags") or {}
        if resource.type != CONFIG_RULE and isinstance(tags, dict) and CONTROL in tags:
            assert tags[CONTROL] in named, resource.urn

"""The stages are those in the README, and each declares the controls of its package."""

from __future__ import annotations

import ast
import asyncio
import re
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml

from ringfence.gateway.__main__ import main
from ringfence.gateway.calls import stages
from ringfence.gateway.calls.exchange import Answer, Exchange
from ringfence.gateway.calls.stages import STAGES
from ringfence.gateway.refusals import REFUSALS

ROOT = Path(__file__).parents[3]
GATEWAY = ROOT / "ringfence/gateway"
README = (GATEWAY / "README.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", README, re.MULTILINE)


def test_the_readme_lists_the_stages_in_order():
    assert [(int(number), name, controls, text) for number, name, controls, text, _ in ROWS] == [
        (number, stage.name, ", ".join(stage.controls) or "none", stage.__doc__)
        for number, stage in enumerate(STAGES, 1)
    ]


def test_the_diagram_shows_the_stages_in_order():
    (chain,) = re.findall(r"^    server --> (.*)$", README, re.MULTILINE)
    assert chain.split(" --> ") == [stage.name for stage in STAGES]


def test_the_readme_names_reasons_of_the_table():
    named = {name for *_, refused in ROWS for name in re.findall(r"`(\w+)`", refused)}
    assert named - {stage.name for stage in STAGES} <= REFUSALS.keys()
    assert len(named) > len(STAGES)


def test_a_stage_has_the_controls_of_its_package():
    for stage in STAGES:
        if (GATEWAY / stage.name).is_dir():
            package = import_module(f"ringfence.gateway.{stage.name}")
            assert stage.controls == package.CONTROLS
            assert package.CONTROLS, stage.name


def test_the_packages_declare_every_control_of_the_gateway():
    catalogue = yaml.safe_load((ROOT / "schemas/controls.yaml").read_text())
    declared = {
        control
        for path in GATEWAY.glob("*/__init__.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONTROLS"
        for control in ast.literal_eval(node.value)
    }
    implemented = {
        name
        for name, control in catalogue["controls"].items()
        if control["layers"].get("gateway") == "implemented"
    }
    assert declared == implemented


def test_the_command_lists_the_stages(capsys):
    assert main(["stages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [stage.name for stage in STAGES]


def test_a_call_passes_each_stage_once_in_order_until_one_answers(monkeypatch):
    passed: list[str] = []

    def probe(stage: type[stages.Stage], answer: Answer | None) -> Any:
        async def pass_through(exchange: Exchange) -> Answer | None:
            passed.append(stage.name)
            return answer

        return lambda services: pass_through

    for answering in range(len(STAGES)):
        passed.clear()
        answer = Answer(200, [], b"")
        probes = [probe(s, answer if n == answering else None) for n, s in enumerate(STAGES)]
        monkeypatch.setattr(stages, "STAGES", tuple(probes))
        pipeline = stages.Pipeline(cast(Any, None))
        assert asyncio.run(pipeline.answer(Exchange.begin([]))) is answer
        assert passed == [stage.name for stage in STAGES[: answering + 1]]

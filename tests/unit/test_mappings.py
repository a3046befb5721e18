"""Frameworks, their statements, and their coverage by controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from ringfence.controls import catalogue, mappings
from ringfence.controls.mappings import Coverage, Framework, FrameworkSource, Statement


def statement(id_: str, level: str, *controls: str, **more: Any) -> Statement:
    return Statement(
        id_, f"Statement {id_}.", controls, level, more.pop("strength", "must"), **more
    )


EXAMPLE = Framework(
    id="example",
    title="Example",
    version="1",
    source=FrameworkSource("A document.", "A shelf.", "source", "2026-11-30"),
    scope="Everything.",
    levels={"L1": "Low", "L2": "Middle", "L3": "High"},
    statements=(
        statement("door", "L1", "IAM-01"),
        statement("window", "L1", applies=False, missing="There is no window."),
        statement("lock", "L2", "IAM-01", "IAM-02"),
        statement("bell", "L2", strength="should", missing="There is no bell."),
        statement("guard", "L3", "MON-01", missing="Guards sleep."),
        statement("moat", "L3", missing="There is no moat."),
    ),
)


def names(statements: tuple[Statement, ...]) -> list[str]:
    return [each.id for each in statements]


def test_every_file_is_a_framework():
    assert list(mappings.load()) == sorted(path.stem for path in mappings.MAPPINGS.iterdir())
    assert {path.suffix for path in mappings.MAPPINGS.iterdir()} == {".yaml"}


def test_editors_find_the_schema():
    for path in mappings.MAPPINGS.iterdir():
        line = path.read_text().partition("\n")[0]
        schema = line.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / schema).resolve() == mappings.SCHEMA.resolve(), path.name
    Draft202012Validator.check_schema(json.loads(mappings.SCHEMA.read_text()))


def test_every_control_serves_a_statement():
    frameworks = mappings.load()
    assert not [id_ for id_ in catalogue.load() if not mappings.references(frameworks, id_)]


@pytest.mark.parametrize("framework", mappings.load().values(), ids=lambda each: each.id)
def test_controls_are_in_the_order_of_the_checklist(framework: Framework):
    order = list(catalogue.load()).index
    for each in framework.statements:
        assert list(each.controls) == sorted(each.controls, key=order), each.id


@pytest.mark.parametrize("framework", mappings.load().values(), ids=lambda each: each.id)
def test_every_statement_has_one_standing(framework: Framework):
    coverage = Coverage(framework, mappings.implemented(catalogue.load()))
    listed = [each for found in coverage.statements.values() for each in found]
    assert sorted(names(tuple(listed))) == sorted(names(framework.statements))


@pytest.mark.parametrize("framework", mappings.load().values(), ids=lambda each: each.id)
def test_what_no_control_covers_stays_uncovered(framework: Framework):
    everything = Coverage(framework, frozenset(catalogue.load()))
    assert everything.statements["uncovered"] == tuple(
        each for each in framework.statements if each.applies and not each.controls
    )
    assert not everything.statements["not_met"]


@pytest.mark.parametrize(
    ("met", "standings"),
    [
        (set(), ["not_met", "not_applicable", "not_met", "uncovered", "not_met", "uncovered"]),
        (
            {"IAM-01"},
            ["covered", "not_applicable", "partly", "uncovered", "not_met", "uncovered"],
        ),
        (
            {"IAM-01", "IAM-02", "MON-01"},
            ["covered", "not_applicable", "covered", "uncovered", "partly", "uncovered"],
        ),
    ],
)
def test_a_statement_stands_as_its_controls(met: set[str], standings: list[str]):
    assert [each.standing(met) for each in EXAMPLE.statements] == standings


@pytest.mark.parametrize(
    ("met", "level", "following", "lacking"),
    [
        (set(), None, "L1", ["door"]),
        ({"IAM-02", "MON-01"}, None, "L1", ["door"]),
        ({"IAM-01"}, "L1", "L2", ["lock"]),
        ({"IAM-01", "IAM-02", "MON-01"}, "L2", "L3", ["guard", "moat"]),
    ],
)
def test_a_level_needs_each_must_of_it_and_of_those_below(
    met: set[str], level: str | None, following: str, lacking: list[str]
):
    coverage = Coverage(EXAMPLE, frozenset(met))
    assert (coverage.level, coverage.next_level) == (level, following)
    assert names(coverage.lacking(following)) == lacking


def test_a_level_is_not_reached_over_a_gap_below():
    """Every statement of L3 is covered, but one of L2 is not."""
    higher = tuple(each for each in EXAMPLE.statements if each.level != "L3")
    framework = Framework(
        **{**vars(EXAMPLE), "statements": (*higher, statement("dog", "L3", "IAM-01"))}
    )
    coverage = Coverage(framework, frozenset({"IAM-01"}))
    assert not coverage.lacking("L3")
    assert coverage.level == "L1"


def test_the_highest_level_has_none_after_it():
    framework = Framework(**{**vars(EXAMPLE), "statements": EXAMPLE.statements[:4]})
    coverage = Coverage(framework, frozenset({"IAM-01", "IAM-02"}))
    assert (coverage.level, coverage.next_level) == ("L3", None)


def test_controls_that_are_only_planned_are_not_implemented():
    controls = catalogue.load()
    planned = {id_ for id_, control in controls.items() if not control.implemented}
    assert planned
    assert mappings.implemented(controls) == controls.keys() - planned


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda doc: doc.pop("source"), "'source' is a required property"),
        (lambda doc: doc["source"].update(read="hearsay"), "'hearsay' is not one of"),
        (
            lambda doc: doc["statements"]["MCP01"].update(controls=["IAM-99"]),
            "MCP01: IAM-99 is not among the controls",
        ),
        (
            lambda doc: doc["statements"]["MCP01"].update(level="L9"),
            "MCP01: L9 is not among the levels",
        ),
        (lambda doc: doc["statements"].update(new={"title": "New", "controls": []}), "new"),
        (
            lambda doc: doc["statements"]["MCP01"].update(applies=False, missing="No reason."),
            "MCP01",
        ),
    ],
)
def test_a_broken_mapping_is_refused(tmp_path: Path, change: Any, problem: str):
    document = yaml.safe_load((mappings.MAPPINGS / "owasp-mcp-top-10.yaml").read_text())
    change(document)
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(catalogue.CatalogueError, match=f"broken.yaml: .*{problem}"):
        mappings.load(tmp_path)

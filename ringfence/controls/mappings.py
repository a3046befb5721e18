"""Frameworks, such as CoSAI's or CIS's, and how far the controls cover their statements.

Each file of `schemas/mappings/` is a framework: its statements, and the controls that serve them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml
from jsonschema import Draft202012Validator

from ringfence import SCHEMAS
from ringfence.controls.catalogue import Catalogue, CatalogueError
from ringfence.controls.catalogue import load as load_catalogue

MAPPINGS = SCHEMAS / "mappings"
SCHEMA = SCHEMAS / "mappings.schema.json"

Standing = Literal["covered", "partly", "not_met", "uncovered", "not_applicable"]
"""covered: all its controls are met, and nothing is missing; partly: some are met, or something is
missing; not_met: it has controls, none of which is met; uncovered: it has no control."""
STANDINGS: tuple[Standing, ...] = ("covered", "partly", "not_met", "uncovered", "not_applicable")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class FrameworkSource:
    document: str
    location: str
    read: Literal["source", "citation"]
    date: str


@dataclass(frozen=True)
class Statement:
    id: str
    title: str
    controls: tuple[str, ...]
    level: str | None = None
    strength: Literal["must", "should"] | None = None
    applies: bool = True
    missing: str = ""
    """The part of the statement that no control serves."""

    def standing(self, met: Set[str]) -> Standing:
        """Return how far `met`, the ids of controls that are met, cover the statement."""
        if not self.applies:
            return "not_applicable"
        if not self.controls:
            return "uncovered"
        serving = [control for control in self.controls if control in met]
        if not serving:
            return "not_met"
        return "covered" if len(serving) == len(self.controls) and not self.missing else "partly"


@dataclass(frozen=True)
class Framework:
    id: str
    title: str
    version: str
    source: FrameworkSource
    scope: str
    levels: Mapping[str, str]
    """Titles by id, from the lowest to the highest; empty where the framework has none."""
    statements: tuple[Statement, ...]

    def serving(self, control: str) -> tuple[Statement, ...]:
        """Return the statements that a control serves."""
        return tuple(each for each in self.statements if control in each.controls)


Frameworks = Mapping[str, Framework]
"""Frameworks by id, in the order of their ids."""


@dataclass(frozen=True)
class Coverage:
    """How far a set of controls covers a framework."""

    framework: Framework
    met: frozenset[str]

    @cached_property
    def statements(self) -> Mapping[Standing, tuple[Statement, ...]]:
        """Every statement, by its standing."""
        return {
            standing: tuple(
                each for each in self.framework.statements if each.standing(self.met) == standing
            )
            for standing in STANDINGS
        }

    @property
    def applicable(self) -> int:
        return len(self.framework.statements) - len(self.statements["not_applicable"])

    @cached_property
    def level(self) -> str | None:
        """The highest level that is reached: its `must` statements and those below are covered."""
        reached = None
        for level in self.framework.levels:
            if self.lacking(level):
                break
            reached = level
        return reached

    @property
    def next_level(self) -> str | None:
        """The lowest level that is not reached."""
        levels = list(self.framework.levels)
        following = levels[levels.index(self.level) + 1 :] if self.level else levels
        return following[0] if following else None

    def lacking(self, level: str) -> tuple[Statement, ...]:
        """Return the `must` statements of a level that are not covered."""
        return tuple(
            each
            for each in self.framework.statements
            if each.level == level
            and each.strength == "must"
            and each.standing(self.met) not in ("covered", "not_applicable")
        )


def coverage(frameworks: Frameworks, met: Iterable[str]) -> tuple[Coverage, ...]:
    """Return how far controls cover each framework. `met`: the ids of controls that are met."""
    ids = frozenset(met)
    return tuple(Coverage(framework, ids) for framework in frameworks.values())


def implemented(catalogue: Catalogue) -> frozenset[str]:
    """Return the controls that take effect on some layer: what can be met before any report."""
    return frozenset(id_ for id_, control in catalogue.items() if control.implemented)


def references(frameworks: Frameworks, control: str) -> Mapping[str, tuple[Statement, ...]]:
    """Return the statements that a control serves, by the id of their framework."""
    return {
        id_: serving
        for id_, framework in frameworks.items()
        if (serving := framework.serving(control))
    }


@cache
def load(directory: Path = MAPPINGS) -> Frameworks:
    """Read and validate all mappings. Raises `CatalogueError` with every problem found."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    documents = {
        path.stem: yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - safe loader
        for path in sorted(directory.glob("*.yaml"), key=lambda path: path.stem)
    }
    problems = [
        f"{id_}.yaml: {error.json_path}: {error.message}"
        for id_, document in documents.items()
        for error in validator.iter_errors(document)
    ]
    if not problems:
        known = load_catalogue().keys()
        problems = [
            f"{id_}.yaml: {problem}"
            for id_, document in documents.items()
            for problem in _dangling(document, known)
        ]
    if problems:
        raise CatalogueError("\n".join(problems))
    return MappingProxyType({id_: _framework(id_, document) for id_, document in documents.items()})


def _dangling(document: Mapping[str, Any], known: Set[str]) -> Iterable[str]:
    for id_, statement in document["statements"].items():
        for control in statement["controls"]:
            if control not in known:
                yield f"{id_}: {control} is not among the controls"
        if "level" in statement and statement["level"] not in document.get("levels", {}):
            yield f"{id_}: {statement['level']} is not among the levels"


def _framework(id_: str, document: Mapping[str, Any]) -> Framework:
    return Framework(
        id=id_,
        title=document["title"],
        version=document["version"],
        source=FrameworkSource(**document["source"]),
        scope=document["scope"],
        levels=MappingProxyType(document.get("levels", {})),
        statements=tuple(
            Statement(
                id=each,
                title=fields["title"],
                controls=tuple(fields["controls"]),
                level=fields.get("level"),
                strength=fields.get("strength"),
                applies=fields.get("applies", True),
                missing=fields.get("missing", ""),
            )
            for each, fields in document["statements"].items()
        ),
    )

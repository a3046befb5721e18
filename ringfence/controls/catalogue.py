"""The checklist: every control that Ringfence knows, from `schemas/controls.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml
from jsonschema import Draft202012Validator

from ringfence import SCHEMAS

Layer = Literal["cloud", "host", "gateway", "operations"]
Priority = Literal["P0", "P1", "P2"]

CATALOGUE = SCHEMAS / "controls.yaml"
SCHEMA = CATALOGUE.with_name("controls.schema.json")


# libyaml where it is there: the Python parser takes a quarter of a second per process.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CatalogueError(ValueError):
    """The checklist itself is not valid."""


@dataclass(frozen=True)
class Domain:
    id: str
    title: str


@dataclass(frozen=True)
class Control:
    id: str
    domain: Domain
    title: str
    statement: str
    priority: Priority
    implemented: frozenset[Layer]
    """Layers on which this version of Ringfence puts the control into effect."""
    planned: frozenset[Layer]
    rationale: str
    remedy: str

    @property
    def layers(self) -> frozenset[Layer]:
        return self.implemented | self.planned


Catalogue = Mapping[str, Control]
"""Controls by id, in the order of the checklist."""


@cache
def load(path: Path = CATALOGUE) -> Catalogue:
    """Read and validate. Raises `CatalogueError` with every problem found."""
    doc = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - safe loader
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    problems = [
        f"{path.name}: {error.json_path}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(doc)
    ]
    if not problems:
        problems = [
            f"{path.name}: {id_}: its domain is not among the domains"
            for id_ in doc["controls"]
            if id_.split("-")[0] not in doc["domains"]
        ]
    if problems:
        raise CatalogueError("\n".join(problems))
    domains = {id_: Domain(id_, title) for id_, title in doc["domains"].items()}
    return MappingProxyType(
        {
            id_: Control(
                id=id_,
                domain=domains[id_.split("-")[0]],
                title=control["title"],
                statement=control["statement"],
                priority=control["priority"],
                implemented=_layers(control, "implemented"),
                planned=_layers(control, "planned"),
                rationale=control["rationale"],
                remedy=control["remedy"],
            )
            for id_, control in doc["controls"].items()
        }
    )


def _layers(control: dict, status: str) -> frozenset[Layer]:
    return frozenset(layer for layer, value in control["layers"].items() if value == status)

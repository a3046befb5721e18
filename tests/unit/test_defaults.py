"""The schema is the only place that defines defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.manifest import defaults, parts, schema
from ringfence.manifest.validation import conformance
from ringfence.manifest.validation.validator import validator

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted(ROOT.glob("inventories/*/environment.yaml"))

ABSENT = (None, (), "")
"""Values that represent an absent part."""


def described(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from described(child)
    elif isinstance(value, list):
        for child in value:
            yield from described(child)


def test_every_default_conforms_to_its_schema() -> None:
    with_default = [each for each in described(dict(schema.root())) if "default" in each]
    assert len(with_default) > 40
    for each in with_default:
        resolved = dict(schema.resolve(each))
        for name in ("then", "else", "if", "required"):
            resolved.pop(name, None)
        errors = list(validator().evolve(schema=resolved).iter_errors(each["default"]))
        assert errors == [], each


def test_parts_have_no_defaults_of_their_own() -> None:
    """One exception: derived flows, which are in no manifest, are TCP."""
    own = {
        f"{name}.{field.name}"
        for name, part in vars(parts).items()
        if is_dataclass(part)
        for field in fields(part)
        if field.default_factory is not MISSING
        or (field.default is not MISSING and field.default not in ABSENT)
    }
    assert own == {"Flow.protocol"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_a_filled_manifest_conforms_and_is_complete(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    filled = defaults.fill(written)
    assert conformance.violations(filled) == []
    assert defaults.fill(filled) == filled
    assert json.dumps(written) == json.dumps(yaml.safe_load(path.read_text())), "input was changed"


def test_defaults_reach_lists_alternatives_and_what_is_left_out_as_a_whole() -> None:
    written = {
        "network": {"flows": [{"to": {"host": "a", "port": 1}}, {"to": {"server": "a"}}]},
        "log_sink": {"kind": "relp"},
        "gateway": {"tokens": {"issuers": [{"issuer": "https://a.example"}]}},
        "servers": {"time": {"egress": [{"port": 1}], "tools": {"now": {}}}},
        "provisioning": {"aws": {"machines": {"edge": {}}}},
    }
    filled = defaults.fill(written)
    flows = [flow["to"] for flow in filled["network"]["flows"]]
    assert flows == [{"host": "a", "port": 1, "protocol": "tcp"}, {"server": "a"}]
    assert filled["log_sink"]["port"] == 2514
    assert filled["gateway"]["tokens"]["issuers"][0]["principal_claim"] == "sub"
    assert filled["gateway"]["grants"]["ceiling_minutes"] == 60
    assert filled["servers"]["time"]["egress"][0]["protocol"] == "tcp"
    assert filled["servers"]["time"]["tools"]["now"]["sensitive"] is False
    assert filled["provisioning"]["aws"]["machines"]["edge"]["disk_gib"] == 16


@pytest.mark.parametrize("broken", [None, 1, "text", [], [{}], {"servers": 3}, {"gateway": [1]}])
def test_a_broken_document_stays_broken(broken: Any) -> None:
    filled = defaults.fill(broken)
    assert filled == broken or {**filled, **broken} == filled

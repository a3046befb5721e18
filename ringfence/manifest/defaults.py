"""Fills in what a manifest leaves out: the schema's `default`, the only place of a default.

Works on documents that may be wrong anywhere: a value of the wrong type stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

from ringfence.manifest import schema
from ringfence.manifest.schema import Schema


@dataclass(frozen=True)
class Form:
    """Defaults that a schema gives for a mapping or a list, and below it."""

    defaults: tuple[tuple[str, Any], ...]
    properties: Mapping[str, Form]
    others: Form | None
    """The form of every entry that no property names, or of every element of a list."""
    choices: tuple[tuple[Mapping[str, Any], Form], ...]
    """Alternative forms, each after the keys that select it, with a constant or None for any."""


def fill(value: Any, *path: str) -> Any:
    """Return `value`, which stands at `path` of a document, with all defaults filled in."""
    form = _form_at(path)
    return _fill(value, form) if form else value


@cache
def _form_at(path: tuple[str, ...]) -> Form | None:
    return _form(schema.at(path))


def _form(described: Schema) -> Form | None:
    """Return None for a schema without any default below it, so that filling skips the value."""
    described = schema.resolve(described)
    properties = {
        name: schema.resolve(child) for name, child in described.get("properties", {}).items()
    }
    forms = {name: form for name, child in properties.items() if (form := _form(child))}
    other = described.get("additionalProperties") or described.get("items")
    others = _form(other) if isinstance(other, dict) else None
    alternatives = (*described.get("oneOf", ()), *described.get("anyOf", ()))
    choices = tuple(
        (_selectors(alternative), form)
        for alternative in map(schema.resolve, alternatives)
        if (form := _form(alternative))
    )
    defaults = tuple((k, child["default"]) for k, child in properties.items() if "default" in child)
    if not (defaults or forms or others or choices):
        return None
    return Form(defaults, forms, others, choices)


def _selectors(alternative: Schema) -> Mapping[str, Any]:
    """Return what selects a form: its constants, or else the keys that it requires."""
    constants = {
        name: child["const"]
        for name, child in alternative.get("properties", {}).items()
        if "const" in child
    }
    return constants or dict.fromkeys(alternative.get("required", ()))


def _fill(value: Any, form: Form) -> Any:
    if isinstance(value, list):
        others = form.others or _list_form(form)
        return [_fill(element, others) for element in value] if others else value
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for chosen in (form, *(f for selectors, f in form.choices if _selects(selectors, value))):
        for name, default in chosen.defaults:
            if name not in filled:
                filled[name] = deepcopy(default)
        for name, child in filled.items():
            below = chosen.properties.get(name, chosen.others)
            if below:
                filled[name] = _fill(child, below)
    return filled


def _list_form(form: Form) -> Form | None:
    """Return the form of a list's elements where a list is one of several alternatives."""
    return next((choice.others for _, choice in form.choices if choice.others), None)


def _selects(selectors: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return all(
        name in value and (constant is None or value[name] == constant)
        for name, constant in selectors.items()
    )

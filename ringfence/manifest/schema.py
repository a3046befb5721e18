"""The JSON Schema of manifests, with its references resolved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from ringfence import SCHEMAS

Schema = Mapping[str, Any]


@cache
def root() -> Schema:
    return json.loads((SCHEMAS / "environment.schema.json").read_text())


def resolve(schema: Schema) -> Schema:
    """Return a schema merged with what it refers to; its own keywords win."""
    while "$ref" in schema:
        target = root()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def at(path: tuple[str | int, ...]) -> Schema:
    """Return what the schema says about a place in a document; empty if it says nothing."""
    schemas = [resolve(root())]
    for step in path:
        below = []
        for schema in schemas:
            for form in (schema, *schema.get("oneOf", []), *schema.get("anyOf", [])):
                form = resolve(form)
                if isinstance(step, int):
                    child = form.get("items")
                else:
                    child = form.get("properties", {}).get(step) or form.get("additionalProperties")
                if isinstance(child, dict):
                    below.append(resolve(child))
        schemas = below
    return schemas[0] if schemas else {}

"""Explains what the JSON Schema says against a document, to the person who wrote it.

Messages are made of the schema's own titles, descriptions, examples and enums.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from ringfence.manifest import schema
from ringfence.manifest.schema import Schema
from ringfence.manifest.validation.document import MAX_VIOLATIONS
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.validator import validator
from ringfence.manifest.validation.wording import listed, quoted, suggestion

TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


def violations(document: Any) -> list[Violation]:
    """Return every difference between a document and the schema."""
    if isinstance(document, dict) and not document.keys() & schema.root()["properties"]:
        # Some other file, whose content may be secret: show none of it.
        message = "no key of a manifest is in this file; name an environment.yaml"
        return [Violation((), message)]
    errors = validator().iter_errors(document)
    found = (violation for error in errors for violation in _explain(error))
    return list(islice(found, MAX_VIOLATIONS))


def _explain(error: Any) -> Iterator[Violation]:
    if error.validator in ("oneOf", "anyOf"):
        yield from _explain_choice(error)
        return
    path = tuple(error.absolute_path)
    message = EXPLANATIONS.get(error.validator, _verbatim)(error)
    yield Violation(
        path, message, on_key=error.validator == "additionalProperties" or _on_key(error)
    )


def _on_key(error: Any) -> bool:
    while error is not None:
        if getattr(error, "on_key", False):
            return True
        error = error.parent
    return False


def _verbatim(error: Any) -> str:
    return f"{error.message}; see schemas/environment.schema.json"


def _unknown(error: Any) -> str:
    name = error.absolute_path[-1]
    return f"unknown key {quoted(name)}{suggestion(name, error.schema.get('properties', {}))}"


def _missing(error: Any) -> str:
    name = error.absolute_path[-1]
    wanted = schema.at(tuple(error.absolute_path))
    parts = [_example(name, wanted), wanted.get("description", "").rstrip(".")]
    hint = ": ".join(filter(None, parts))
    return f"is missing; add {hint or 'it'}"


def _type(error: Any) -> str:
    wanted = TYPES.get(error.validator_value, error.validator_value)
    hint = _instead(error)
    value = error.instance
    if value is None:
        return f"is empty; give {wanted}{hint}"
    if error.validator_value == "string" and isinstance(value, bool | int):
        text = json.dumps(value)
        return f'must be text, not {_kind(value)}; quote it: "{text}"'
    if error.validator_value == "integer" and isinstance(value, str) and value.isdecimal():
        return f"must be {wanted}, not {_kind(value)}; remove the quotes"
    return f"must be {wanted}, not {_kind(value)}{hint or '; correct it'}"


def _kind(value: Any) -> str:
    match value:
        case bool():
            return json.dumps(value)
        case int():
            return f"the number {value}"
        case str():
            return f"the text {quoted(value)}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return "empty"


def _enum(error: Any) -> str:
    return _choose(error.instance, error.validator_value)


def _choose(value: Any, values: list[Any]) -> str:
    if isinstance(value, str):
        close = suggestion(value, map(str, values))
        if close.startswith("; did"):
            return f"{quoted(value)} is not one of {listed(values)}{close}"
    return f"{quoted(value)} is not one of the values; choose from {listed(values)}"


def _const(error: Any) -> str:
    return f"{quoted(error.instance)} is not known; write {json.dumps(error.validator_value)}"


def _form(error: Any) -> str:
    schema = error.schema
    what = schema.get("title", f"text of the form {schema.get('pattern')}")
    hint = schema.get("description", "").rstrip(".")
    hint = f": {hint[0].lower()}{hint[1:]}" if hint else ""
    examples = listed(map(quoted, schema.get("examples", [])))
    advice = f"write it like {examples}" if examples else "correct it"
    return f"{quoted(error.instance)} is not {what}{hint}; {advice}"


def _bound(word: str) -> Callable[[Any], str]:
    def explain(error: Any) -> str:
        schema = error.schema
        low, high = schema.get("minimum"), schema.get("maximum")
        span = f"from {low} to {high}" if low is not None and high is not None else word
        return (
            f"{quoted(error.instance)} is out of range; choose {span.format(error.validator_value)}"
        )

    return explain


def _length(word: str) -> Callable[[Any], str]:
    def explain(error: Any) -> str:
        unit = "characters" if isinstance(error.instance, str) else "entries"
        limit = error.validator_value
        unit = unit if limit != 1 else {"characters": "character", "entries": "entry"}[unit]
        if not error.instance:
            return f"is empty; give {word} {limit} {unit}"
        return f"has {len(error.instance)} {unit}; give {word} {limit}"

    return explain


EXPLANATIONS: dict[str, Callable[[Any], str]] = {
    "additionalProperties": _unknown,
    "required": _missing,
    "type": _type,
    "enum": _enum,
    "const": _const,
    "pattern": _form,
    "minimum": _bound("at least {}"),
    "maximum": _bound("at most {}"),
    "minLength": _length("at least"),
    "maxLength": _length("at most"),
    "minItems": _length("at least"),
    "minProperties": _length("at least"),
    "maxProperties": _length("at most"),
    "uniqueItems": lambda error: f"{error.message} of this list; remove one of the two",
}


def _explain_choice(error: Any) -> Iterator[Violation]:
    """Explain why none (or more than one) of the forms fits, by the form most likely meant."""
    path = tuple(error.absolute_path)
    forms: list[Schema] = [schema.resolve(form) for form in error.validator_value]
    wanted = [form.get("required", []) for form in forms]
    if isinstance(error.instance, dict) and not any("properties" in form for form in forms):
        given = [names for names in wanted if all(name in error.instance for name in names)]
        several = " and ".join(quoted(name) for names in given for name in names)
        choices = " or ".join(quoted(name) for names in wanted for name in names)
        if given:
            yield Violation(path, f"{several} exclude each other; keep one of them")
        else:
            yield Violation(path, f"{choices} is missing; add one of them")
        return
    if not isinstance(error.instance, dict):
        lists = [number for number, form in enumerate(forms) if form.get("type") == "array"]
        if isinstance(error.instance, list) and lists:
            for part in error.context:
                if part.schema_path[0] == lists[0]:
                    yield from _explain(part)
            return
        yield Violation(path, _no_form(error, forms))
        return
    best = max(range(len(forms)), key=lambda number: _likeness(error.instance, forms[number]))
    mine = [e for e in error.context if e.schema_path[0] == best]
    if _likeness(error.instance, forms[best]) <= 0:
        choices = ", or ".join(" and ".join(map(quoted, names)) for names in wanted)
        yield from _discriminator(error, forms, path, choices)
        return
    for part in mine:
        yield from _explain(part)


def _discriminator(
    error: Any, forms: list[Schema], path: tuple[Any, ...], choices: str
) -> Iterator[Violation]:
    """Explain a misspelt key or value that distinguishes the forms."""
    known = {name for form in forms for name in form["properties"]}
    for name in error.instance:
        values = [form["properties"].get(name, {}).get("const") for form in forms]
        if all(value is not None for value in values):
            yield Violation((*path, name), _choose(error.instance[name], values))
            return
        if name not in known:
            yield Violation(
                (*path, name), f"unknown key {quoted(name)}{suggestion(name, known)}", True
            )
            return
    if "kind" not in forms[0]["properties"]:
        yield Violation(path, f"fits none of the forms; give {choices}")


def _likeness(value: Mapping[str, Any], form: Schema) -> int:
    """Return how much a mapping looks like a form: constants decide, then keys."""
    properties = form.get("properties", {})
    score = sum(name in properties for name in value)
    for name, described in properties.items():
        if "const" in described:
            score += 100 if value.get(name) == described["const"] else -100
    return score


def _no_form(error: Any, forms: list[Schema]) -> str:
    if not isinstance(error.instance, str):
        wanted = sorted({TYPES[form["type"]] for form in forms if form.get("type") in TYPES})
        return f"must be {' or '.join(wanted)}, not {_kind(error.instance)}; correct it"
    whats = " or ".join(dict.fromkeys(form.get("title", "what is wanted") for form in forms))
    examples = [quoted(example) for form in forms for example in form.get("examples", [])]
    return f"{quoted(error.instance)} is not {whats}; write it like {' or '.join(examples)}"


def _instead(error: Any) -> str:
    """Return what to write, from the schema's examples."""
    examples = error.schema.get("examples") or error.schema.get("enum")
    return f"; write for example {json.dumps(examples[0])}" if examples else ""


def _example(name: str, schema: Schema) -> str:
    if schema.get("examples"):
        return f"'{name}: {json.dumps(schema['examples'][0]).strip(chr(34))}'"
    if "enum" in schema:
        return f"'{name}:' with one of {listed(schema['enum'])}"
    if "const" in schema:
        return f"'{name}: {schema['const']}'"
    kind = TYPES.get(schema.get("type", ""))
    return f"'{name}:' with {kind}" if kind else f"'{name}:'"

"""What the JSON Schema says against a document, in words for the person who wrote it.

The schema stays the single source: titles, descriptions, examples and enums in it are
what the messages are made of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from ringfence.manifest.validation.document import MAX_FINDINGS
from ringfence.manifest.validation.finding import Finding, listed, quoted, suggestion
from ringfence.paths import SCHEMAS

SCHEMA = SCHEMAS / "environment.schema.json"

Schema = Mapping[str, Any]

TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


def findings(document: Any) -> list[Finding]:
    """Everything in which a document departs from the schema."""
    if isinstance(document, dict) and not document.keys() & _validator().schema["properties"]:
        # Some other file: its content is no business of a terminal or a log.
        message = "no key of a manifest stands here; name an environment.yaml"
        return [Finding((), message)]
    errors = _validator().iter_errors(document)
    return list(islice((f for error in errors for f in _explain(error)), MAX_FINDINGS))


@cache
def _validator() -> Any:
    return _Validator(json.loads(SCHEMA.read_text()))


# Keywords that jsonschema reports once per object, or not as the standard has it.


def _required(validator: Any, names: list[str], value: Any, schema: Schema) -> Iterator[Any]:
    """Reports each missing key at its own path."""
    if validator.is_type(value, "object"):
        for name in names:
            if name not in value:
                yield ValidationError("missing", path=[name])


def _additional(validator: Any, allowed: Any, value: Any, schema: Schema) -> Iterator[Any]:
    """Reports each unknown key at its own path, in the order of the file."""
    if not validator.is_type(value, "object"):
        return
    known = schema.get("properties", {})
    for name in value:
        if name not in known:
            if allowed is False:
                yield ValidationError("unknown", path=[name])
            else:
                yield from validator.descend(value[name], allowed, path=name)


def _property_names(validator: Any, names: Schema, value: Any, _: Schema) -> Iterator[Any]:
    """Reports a bad key at its own path."""
    if validator.is_type(value, "object"):
        for name in value:
            for error in validator.descend(name, names, path=name):
                error.on_key = True
                yield error


def _unique(validator: Any, unique: bool, value: Any, _: Schema) -> Iterator[Any]:
    """Reports each repetition at its own path, in linear time (jsonschema's is quadratic)."""
    if not (unique and validator.is_type(value, "array")):
        return
    seen: dict[str, int] = {}
    for number, element in enumerate(value):
        first = seen.setdefault(json.dumps(element, sort_keys=True), number)
        if first != number:
            yield ValidationError(f"the same as element {first}", path=[number])


def _pattern(validator: Any, pattern: str, value: Any, _: Schema) -> Iterator[Any]:
    """Matches as ECMA-262 does: Python's `$` and `\\d` accept a line end and other digits."""
    if validator.is_type(value, "string") and not _ecma(pattern).search(value):
        yield ValidationError("pattern")


@cache
def _ecma(pattern: str) -> re.Pattern[str]:
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.compile(pattern, re.ASCII)


_Validator = extend(
    Draft202012Validator,
    {
        "required": _required,
        "additionalProperties": _additional,
        "propertyNames": _property_names,
        "uniqueItems": _unique,
        "pattern": _pattern,
    },
)


def _explain(error: Any) -> Iterator[Finding]:
    if error.validator in ("oneOf", "anyOf"):
        yield from _explain_choice(error)
        return
    path = tuple(error.absolute_path)
    message = EXPLANATIONS.get(error.validator, _plainly)(error)
    yield Finding(path, message, on_key=error.validator == "additionalProperties" or _on_key(error))


def _on_key(error: Any) -> bool:
    while error is not None:
        if getattr(error, "on_key", False):
            return True
        error = error.parent
    return False


def _plainly(error: Any) -> str:
    return f"{error.message}; see schemas/environment.schema.json"


def _unknown(error: Any) -> str:
    name = error.absolute_path[-1]
    return f"unknown key {quoted(name)}{suggestion(name, error.schema.get('properties', {}))}"


def _missing(error: Any) -> str:
    name = error.absolute_path[-1]
    wanted = _subschema(tuple(error.absolute_path))
    told = [_example(name, wanted), wanted.get("description", "").rstrip(".")]
    hint = ": ".join(part for part in told if part)
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


def _explain_choice(error: Any) -> Iterator[Finding]:
    """Why none (or more than one) of the forms fits, by the form that was probably meant."""
    path = tuple(error.absolute_path)
    forms: list[Schema] = [_resolve(form) for form in error.validator_value]
    wanted = [form.get("required", []) for form in forms]
    if isinstance(error.instance, dict) and not any("properties" in form for form in forms):
        given = [names for names in wanted if all(name in error.instance for name in names)]
        several = " and ".join(quoted(name) for names in given for name in names)
        choices = " or ".join(quoted(name) for names in wanted for name in names)
        if given:
            yield Finding(path, f"{several} exclude each other; keep one of them")
        else:
            yield Finding(path, f"{choices} is missing; add one of them")
        return
    if not isinstance(error.instance, dict):
        lists = [number for number, form in enumerate(forms) if form.get("type") == "array"]
        if isinstance(error.instance, list) and lists:
            for part in error.context:
                if part.schema_path[0] == lists[0]:
                    yield from _explain(part)
            return
        yield Finding(path, _no_form(error, forms))
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
) -> Iterator[Finding]:
    """No form is meant: the key that tells them apart is misspelt, or has none of its values."""
    known = {name for form in forms for name in form["properties"]}
    for name in error.instance:
        values = [form["properties"].get(name, {}).get("const") for form in forms]
        if all(value is not None for value in values):
            yield Finding((*path, name), _choose(error.instance[name], values))
            return
        if name not in known:
            yield Finding(
                (*path, name), f"unknown key {quoted(name)}{suggestion(name, known)}", True
            )
            return
    if "kind" not in forms[0]["properties"]:
        yield Finding(path, f"fits none of the forms; give {choices}")


def _likeness(value: Mapping[str, Any], form: Schema) -> int:
    """How much a mapping looks like a form: its fixed values decide, then its keys."""
    properties = form.get("properties", {})
    score = sum(name in properties for name in value)
    for name, schema in properties.items():
        if "const" in schema:
            score += 100 if value.get(name) == schema["const"] else -100
    return score


def _no_form(error: Any, forms: list[Schema]) -> str:
    if not isinstance(error.instance, str):
        wanted = sorted({TYPES[form["type"]] for form in forms if form.get("type") in TYPES})
        return f"must be {' or '.join(wanted)}, not {_kind(error.instance)}; correct it"
    whats = " or ".join(dict.fromkeys(form.get("title", "what is wanted") for form in forms))
    examples = [quoted(example) for form in forms for example in form.get("examples", [])]
    return f"{quoted(error.instance)} is not {whats}; write it like {' or '.join(examples)}"


def _instead(error: Any) -> str:
    """What to write, from the schema's examples."""
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


def _resolve(schema: Schema) -> Schema:
    """A schema with what it refers to; what stands beside the reference wins."""
    root = _validator().schema
    while "$ref" in schema:
        target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _subschema(path: tuple[str | int, ...]) -> Schema:
    """What the schema says about a place of the document; empty where it says nothing."""
    schemas = [_resolve(_validator().schema)]
    for step in path:
        below = []
        for schema in schemas:
            for form in (schema, *schema.get("oneOf", []), *schema.get("anyOf", [])):
                form = _resolve(form)
                if isinstance(step, int):
                    child = form.get("items")
                else:
                    child = form.get("properties", {}).get(step) or form.get("additionalProperties")
                if isinstance(child, dict):
                    below.append(_resolve(child))
        schemas = below
    return schemas[0] if schemas else {}

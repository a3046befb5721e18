"""The index: for each control, the places that serve it.

Each place is read from the source that declares it, and no source is run: annotations in the
manifest's schema, tags of a role's task files, `CONTROLS` of a gateway stage or a stack component,
variables of a playbook, markers of a check, and the controls of an attack. An installed wheel has
no attacks beside it; they are then left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from ringfence import PACKAGE, ROOT
from ringfence.controls import catalogue, mappings
from ringfence.controls.catalogue import Layer

Kind = Literal["manifest", "enforcer", "check", "attack"]

CONTROL = re.compile(r"[A-Z]{3}-\d{2}")
KEYWORD = "x-controls"
"""Annotation in the manifest's schema: the controls that a key feeds."""
CONSTANT = "CONTROLS"
"""Module constant by which Python code declares its controls: a literal tuple."""
CHECK = re.compile(r"(?:[a-z0-9]+_)+[a-z0-9]+")
LAYERS: Mapping[str, Layer] = {
    "roles/mcp_gateway": "gateway",
    "roles": "host",
    "ringfence/gateway": "gateway",
    "ringfence/operator": "operations",
    "stacks": "cloud",
    "playbooks": "operations",
    "tests/compliance/cloud": "cloud",
    "tests/compliance/gateway": "gateway",
    "tests/compliance": "host",
}
"""The layer that a folder serves; the longest prefix counts."""
DEFINITIONS: Mapping[str, str] = {
    "access": "access",
    "administrator": "administrators.*",
    "gateway": "gateway",
    "host": "hosts.*",
    "network": "network",
    "pki": "pki",
    "principal": "principals.*",
    "role": "roles.*",
    "server": "servers.*",
}
"""Where in a manifest a definition of the schema is used."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DeclarationError(ValueError):
    """A declaration of controls cannot be read."""


@dataclass(frozen=True, order=True)
class IndexEntry:
    control: str
    kind: Kind
    path: str
    """Relative to the root of the project, with `/`."""
    line: int
    name: str
    """A key's path, a task's name, a module's or a function's name, an attack's name."""
    layer: Layer | None = field(default=None, compare=False)
    """None for a manifest key and for an attack."""
    summary: str = field(default="", compare=False)
    sabotage: tuple[str, ...] = field(default=(), compare=False)
    """How the tests make a check fail: a command on the host, or a change of the account."""


@cache
def places(root: Path = ROOT) -> tuple[IndexEntry, ...]:
    """Every place, by control. Raises `DeclarationError`."""
    readers = (_manifest_keys, _task_files, _playbooks, _modules, _checks, _attacks)
    return tuple(sorted({place for reader in readers for place in reader(root)}))


def holes(root: Path = ROOT) -> Iterator[str]:
    """Each place that names an unknown control, and each control without what it claims."""
    known, frameworks = catalogue.load(), mappings.load()
    tests_of_stacks = (root / "tests/stacks").is_dir()
    for place in places(root):
        if place.control not in known:
            yield f"{place.path}:{place.line}: there is no control {place.control}"
    for control in known.values():
        found = [place for place in places(root) if place.control == control.id]
        enforced = {place.layer for place in found if place.kind == "enforcer"}
        for layer in sorted(control.implemented - enforced):
            yield f"{control.id}: layer {layer} is called implemented, and nothing enforces it"
        if control.implemented and not any(place.kind == "check" for place in found):
            yield f"{control.id} is called implemented, and no check verifies it"
        if control.implemented and not any(place.kind == "manifest" for place in found):
            yield (
                f"{control.id}: no key of the manifest feeds it; "
                f'add "{KEYWORD}" to one in schemas/environment.schema.json'
            )
        if not mappings.references(frameworks, control.id):
            yield f"{control.id}: no statement in schemas/mappings names it"
        for place in found:
            if (
                place.kind == "check"
                and not place.sabotage
                and (tests_of_stacks or place.layer != "cloud")
            ):
                yield f"{place.path}:{place.line}: no test makes {place.name} fail"


def _manifest_keys(root: Path) -> Iterator[IndexEntry]:
    path = root / "schemas/environment.schema.json"
    text = path.read_text(encoding="utf-8")
    schema = json.loads(text)
    lines = [n for n, line in enumerate(text.splitlines(), 1) if f'"{KEYWORD}"' in line]
    # Annotations come in the order of the file, as json.loads keeps it.
    for line, (key, node) in zip(lines, _annotated(schema, ""), strict=True):
        for control in node[KEYWORD]:
            summary = node.get("description", "")
            yield IndexEntry(control, "manifest", _relative(path, root), line, key, summary=summary)


def _annotated(node: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if KEYWORD in node:
        yield key, node
    for name, below in node.get("properties", {}).items():
        yield from _annotated(below, f"{key}.{name}".lstrip("."))
    for name in ("additionalProperties", "items"):
        if isinstance(below := node.get(name), dict):
            yield from _annotated(below, f"{key}.*" if name != "items" else key)
    for name, below in node.get("$defs", {}).items():
        yield from _annotated(below, DEFINITIONS.get(name, name))


def _task_files(root: Path) -> Iterator[IndexEntry]:
    """Entries of a role's `tasks/main.yml`, tagged with the role and the controls they enforce."""
    for contents in sorted(root.glob("roles/*/tasks/main.yml")):
        for task in yaml.load(contents.read_text(encoding="utf-8"), _Loader) or []:  # noqa: S506 - safe loader
            included = next(
                (task[k] for k in task if k.endswith(("import_tasks", "include_tasks"))), None
            )
            if not included:
                continue
            name = included["file"] if isinstance(included, dict) else included
            path = contents.with_name(name)
            for control in _controls(task.get("tags", [])):
                yield _enforcer(control, path, root, 1, task["name"])


def _playbooks(root: Path) -> Iterator[IndexEntry]:
    for path in sorted([*root.glob("playbooks/*.yml"), *root.glob("runbooks/*/*.yml")]):
        for play in yaml.load(path.read_text(encoding="utf-8"), _Loader) or []:  # noqa: S506 - safe loader
            for control in _controls(play.get("vars", {}).get("controls", [])):
                yield _enforcer(control, path, root, 1, play.get("name", path.stem))


def _modules(root: Path) -> Iterator[IndexEntry]:
    """Gateway stages, stack components, and commands of the operator."""
    # An installed wheel has the data below the package, and the code beside it.
    code = root if (root / "ringfence").is_dir() else PACKAGE.parent
    rooms = ("ringfence/gateway/**/*.py", "ringfence/operator/*.py")
    package = ((path, code) for room in rooms for path in code.glob(room))
    stacks = ((path, root) for path in root.glob("stacks/**/*.py"))
    for path, top in sorted([*package, *stacks]):
        if ".venv" in path.relative_to(top).parts:
            continue
        text = path.read_text(encoding="utf-8")
        if CONSTANT not in text:
            continue
        tree = ast.parse(text)
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id="CONTROLS")], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name(id="CONTROLS"), value=ast.expr() as value):
                    pass
                case _:
                    continue
            summary = (ast.get_docstring(tree) or "").split("\n")[0]
            name = path.parent.name if path.name == "__init__.py" else path.stem
            for control in _literal(value, path):
                yield _enforcer(control, path, top, node.lineno, name, summary)


def _checks(root: Path) -> Iterator[IndexEntry]:
    changes = _account_changes(root)
    for path in sorted(root.glob("tests/compliance/**/test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        relative, sabotages = _relative(path, root), _sabotages(tree)
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
                continue
            sabotage = [
                ast.unparse(decorator)
                for decorator in function.decorator_list
                if "sabotage" in ast.unparse(decorator) or _called(decorator) in sabotages
            ]
            for decorator in function.decorator_list:
                match decorator:
                    case ast.Call(
                        func=ast.Attribute(attr="control"), args=[ast.Constant(value=str(control))]
                    ):
                        yield IndexEntry(
                            control,
                            "check",
                            relative,
                            function.lineno,
                            function.name,
                            _layer(relative),
                            (ast.get_docstring(function) or "").split("\n")[0],
                            (*sabotage, *changes.get(function.name, ())),
                        )


def _sabotages(module: ast.Module) -> set[str]:
    """Names of a module that stand for a sabotage: a mark, or a function that returns one."""
    found: set[str] = set()
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.FunctionDef(name=name):
                if "mark.sabotage" in ast.unparse(node) and not name.startswith("test_"):
                    found.add(name)
    return found


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _account_changes(root: Path) -> Mapping[str, tuple[str, ...]]:
    """Tests by check, which change a rehearsed account, or its answers, so that it fails.

    A table names a check without `test_`; lists of full names say what the emulation cannot
    show, and count as nothing here.
    """
    changes: dict[str, tuple[str, ...]] = {}
    for path in sorted(root.glob("tests/stacks/test_*_checks.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            function = getattr(statement, "name", None)
            for node in ast.walk(statement):
                match node:
                    case ast.Constant(value=str(text)) if CHECK.fullmatch(text):
                        if text.startswith("test_") and not function:
                            continue
                        check = text if text.startswith("test_") else f"test_{text}"
                        place = f"{_relative(path, root)}: {function or f'line {node.lineno}'}"
                        changes[check] = (*changes.get(check, ()), place)
    return changes


def _attacks(root: Path) -> Iterator[IndexEntry]:
    for path in root.glob("tests/attack/attacks.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="Attack"), args=[ast.Constant(value=str(name)), *_]):
                    declared = next(k.value for k in node.keywords if k.arg == "controls")
                    for control in _literal(declared, path):
                        yield IndexEntry(
                            control, "attack", _relative(path, root), node.lineno, name
                        )


def _enforcer(
    control: str, path: Path, root: Path, line: int, name: str, summary: str = ""
) -> IndexEntry:
    relative = _relative(path, root)
    return IndexEntry(control, "enforcer", relative, line, name, _layer(relative), summary)


def _layer(path: str) -> Layer:
    return LAYERS[max((each for each in LAYERS if path.startswith(f"{each}/")), key=len)]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _controls(tags: Iterable[str] | str) -> list[str]:
    return [tag for tag in ([tags] if isinstance(tags, str) else tags) if CONTROL.fullmatch(tag)]


def _literal(node: ast.expr, path: Path) -> list[str]:
    try:
        return list(ast.literal_eval(node))
    except (ValueError, TypeError):
        raise DeclarationError(
            f"{path}:{node.lineno}: write the controls as a literal tuple of strings"
        ) from None

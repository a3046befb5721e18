"""Each public class name is defined once in all of the product's code."""

from __future__ import annotations

import ast
from collections import defaultdict

from ringfence import ROOT

EXCEPTIONS = {"ActionModule"}
"""Ansible finds an action plugin's class by this name."""


def test_a_public_class_name_is_defined_once() -> None:
    files: dict[str, set[str]] = defaultdict(set)
    for top in ("ringfence", "stacks", "plugins"):
        for path in (ROOT / top).rglob("*.py"):
            if ".venv" in path.relative_to(ROOT).parts:  # the policy pack's packages
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    files[node.name].add(str(path.relative_to(ROOT)))
    several = {name: sorted(paths) for name, paths in files.items() if len(paths) > 1}
    assert {name: paths for name, paths in several.items() if name not in EXCEPTIONS} == {}
    assert several.keys() == EXCEPTIONS

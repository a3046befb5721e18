"""Third-party programs that assess policies."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def _resource_filename(package: str, name: str) -> str:
    spec = find_spec(package)
    assert spec
    assert spec.origin
    return str(Path(spec.origin).with_name(name))


# parliament 1.6.4 finds its two data files with pkg_resources, which setuptools 82 removed.
if find_spec("pkg_resources") is None:
    sys.modules["pkg_resources"] = ModuleType("pkg_resources")
    vars(sys.modules["pkg_resources"])["resource_filename"] = _resource_filename

from parliament import analyze_policy_string, iam_definition  # noqa: E402

__all__ = ("analyze_policy_string", "iam_definition")

"""The linter of words finds each kind of poor word, and only in text for people."""

from __future__ import annotations

import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the linter in an empty repository."""
    specification = spec_from_file_location("prose", ROOT / "docs" / "prose.py")
    assert specification
    assert specification.loader
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("page.md", "A page is told.\n", "page.md:1: 'told' is not one of our words"),
        ("page.md", "Methinks it works.\n", "page.md:1: 'Methinks' is archaic."),
        ("code.py", "# The belongings of a stack.\n", "code.py:1: 'belongings' is not one"),
        ("code.py", '"""Find belongings."""\n', "code.py:1: 'belongings' is not one"),
        ("code.py", 'print(f"{1} belongings")\n', "code.py:1: 'belongings' is not one"),
        ("code.py", "class CorkedWrites: ...\n", "code.py:1: a name has 'corked'"),
        ("code.py", "belongings_of = 1\n", "code.py:1: a name has 'belongings'"),
        ("code.py", '\n"""Of a stack."""\n', "code.py:2: A docstring begins with"),
        ("tasks.yml", "- name: Mend the host\n", "tasks.yml:1: 'Mend' is not one"),
        ("tasks.yml", "# It is mended.\n- name: Fix\n", "tasks.yml:1: 'mended' is not one"),
    ],
)
def test_poor_words_are_found(
    prose: ModuleType,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    problem: str,
) -> None:
    Path(name).write_text(text)
    subprocess.run(["git", "add", name], check=True)
    assert prose.main([]) == 1
    assert problem in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "Run `belongings`.\n\n```\nbelongings\n```\n"),
        ("code.py", "told = 1  # reported\n"),
        ("tasks.yml", "mend: 1\n"),
        ("empty.py", ""),
    ],
)
def test_code_is_not_prose(prose: ModuleType, name: str, text: str) -> None:
    Path(name).write_text(text)
    subprocess.run(["git", "add", name], check=True)
    assert prose.main([]) == 0

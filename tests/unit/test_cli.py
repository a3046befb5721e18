"""The `ringfence` command: exit statuses and messages of every verb."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from ringfence import cli

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).parent / "manifests" / "small.yaml"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_module_and_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(import_module(cli.VERBS[verb][0]).run)
    with pytest.raises(SystemExit) as left:
        cli.main([verb, "--help"])
    assert left.value.code == 0
    assert verb in capsys.readouterr().out


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert [verb for verb in cli.VERBS if verb not in shown] == []


def documented() -> list[str]:
    """Commands that a page shows, in a block or in a line."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("roles/*/README.md")]
    text = "\n".join(page.read_text().replace("\\\n", " ") for page in pages)
    blocks = re.findall(r"^ *(?:[$#] )?(ringfence .*)$", text, re.MULTILINE)
    return sorted({*blocks, *re.findall(r"`(ringfence [^`|]+)`", text)})


@pytest.mark.parametrize("command", documented())
def test_documented_commands_exist(command: str) -> None:
    verb, *arguments = shlex.split(command, comments=True)[1:]
    assert verb in cli.VERBS
    if arguments not in (
        [],
        ["--help"],
    ):  # a page may name a verb alone; what it writes out must be right
        cli.parse([verb, *arguments])


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["validate"]])
def test_wrong_use_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ringfence")


def test_valid_and_invalid_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(SMALL)]) == 0
    assert "valid: small (staging): 2 hosts, 1 MCP server, 2 tools" in capsys.readouterr().out
    assert cli.main(["validate", str(tmp_path / "none.yaml")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("none.yaml: there is no such file; name an environment.yaml\n")


def test_only_the_verb_that_is_asked_for_is_imported() -> None:
    """A start costs milliseconds: `validate` needs neither Ansible nor the lab nor pytest."""
    code = (
        "import sys; from ringfence import cli; "
        f"cli.main(['validate', {str(SMALL)!r}]); "
        "print(sorted({'ansible', 'pytest', 'ringfence.lab', 'cryptography'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "[]"

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


def pages() -> str:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]
    files += ROOT.glob("changes/*.md")
    return "\n".join(file.read_text().replace("\\\n", " ") for file in files)


def in_blocks() -> list[str]:
    """Return commands to copy, with shortened ids completed."""
    found = re.findall(r"^ *(?:[$#] )?(?:.* \| )?(ringfence .*)$", pages(), re.MULTILINE)
    return sorted({re.sub(r"\b([0-9a-f]+)…", lambda id: id[1].ljust(32, "0"), c) for c in found})


def in_lines() -> list[str]:
    """Return commands inside sentences, with all of their arguments or with none."""
    return sorted(set(re.findall(r"`(ringfence [^`|]+)`", pages())))


@pytest.mark.parametrize("command", in_blocks())
def test_documented_commands_parse(command: str) -> None:
    cli.parse(shlex.split(command, comments=True)[1:])


@pytest.mark.parametrize("command", in_lines())
def test_named_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    actions = [word for word in words[:2] if word.islower() and word.isalpha()]
    if [word for word in words if word not in actions and not word.startswith("--")]:
        cli.parse(words)
        return
    with pytest.raises(SystemExit) as left:
        cli.main([*actions, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert [w for w in words if w.startswith("--") and w not in shown] == []


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["validate"]])
def test_wrong_use_is_reported(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ringfence")


def test_valid_and_invalid_manifests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(SMALL)]) == 0
    assert "valid: small (staging): 2 hosts, 1 MCP server, 2 tools" in capsys.readouterr().out
    assert cli.main(["validate", str(tmp_path / "none.yaml")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith("none.yaml: there is no such file; name an environment.yaml\n")


def test_only_the_verb_that_is_asked_for_is_imported() -> None:
    """A start takes milliseconds: `validate` needs neither Ansible nor the lab nor pytest."""
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


def test_a_start_imports_no_validator() -> None:
    """Importing jsonschema can take more than a second, and most verbs load a manifest later."""
    code = "import sys, ringfence.cli; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

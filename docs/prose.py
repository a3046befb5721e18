"""Lint what people read: `proselint`, with the words that docs/glossary.md replaces.

Pages are read without their code, Python files for their comments, strings and names, YAML
files for their comments and for the values that people read. `python docs/prose.py
PATH…` lints a part.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import proselint.checks
from proselint.config import Config
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, CheckFlags, types
from proselint.tools import LintFile

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| (everywhere|pages) \|$", re.MULTILINE)
CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
READ_BY_PEOPLE = re.compile(
    r"#.*$|^\s*(?:- )?(?:name|description|short_description|msg|fail_msg|title|statement|rationale"
    r"|remedy|why): .*$",
    re.MULTILINE,
)
LINTED = {".md", ".py", ".yml", ".yaml"}
SPOKEN = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
POOR_OPENINGS = {"Of", "By", "Whose", "What"}
"""A docstring begins with a verb or a noun."""
QUOTING = {"docs/controls.md", "docs/glossary.md", "tests/unit/test_prose.py"}
"""Files that quote: the sources of checks, and refused words."""
CHECKS = {
    "archaism": True,
    "cliches": True,
    "hedging": True,
    "lexical_illusions": False,
    "misc": True,
    "needless_variants": True,
    "nonwords": True,
    "redundancy": True,
    "spelling": True,
}
"""Proselint checks for pages. Repeated words are left out: tables and YAML repeat them."""


def main(names: list[str]) -> int:
    registry = CheckRegistry()
    registry.register_many(proselint.checks.__register__)
    for where in ("everywhere", "pages"):
        words = types.PreferredForms(items=glossary(where))
        message = "'{1}' is not one of our words; write '{0}' (docs/glossary.md)."
        # Docstrings stand in quotes.
        flags = CheckFlags(allow_quotes=True)
        registry.register(Check(check_type=words, path=where, message=message, flags=flags))
    problems = [line for path in files(names) for line in lint(path)]
    print("\n".join(problems) or "no poor words")
    return int(bool(problems))


@cache
def glossary(where: str) -> dict[str, str]:
    """Each refused word, with the one to write."""
    return {
        word: instead
        for words, instead, place in ROW.findall(GLOSSARY.read_text())
        for word in words.split(", ")
        if place == where
    }


def files(names: list[str]) -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--full-name", *names],
        cwd=None if names else ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in LINTED and name not in QUOTING and path.exists() and path.stat().st_size:
            yield path


def lint(path: Path) -> Iterator[str]:
    text = path.read_text()
    name = path.relative_to(ROOT)
    checks = {**CHECKS, "pages": True} if path.suffix == ".md" else {}
    config = Config(max_errors=100, checks={**checks, "everywhere": True})
    for result in LintFile(str(name), prose(path.suffix, text)).lint(config):
        yield f"{name}:{result.pos[0]}: {result.check_result.message}"
    if path.suffix == ".py":
        for line, word, instead in poor_names(text):
            yield f"{name}:{line}: a name has '{word}'; write '{instead}' (docs/glossary.md)."
        for line, word in poor_openings(text):
            yield f"{name}:{line}: A docstring begins with a verb or a noun, not with '{word}'."


def prose(suffix: str, text: str) -> str:
    """The text with everything blank that is not read as prose; lines keep their numbers."""
    if suffix == ".md":
        return CODE.sub(blank, text)
    if suffix == ".py":
        return kept(text, python_spans(text))
    return kept(text, [match.span() for match in READ_BY_PEOPLE.finditer(text)])


def python_spans(text: str) -> list[tuple[int, int]]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return [
        (starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1])
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in SPOKEN
    ]


def poor_names(text: str) -> Iterator[tuple[int, str, str]]:
    refused = glossary("everywhere")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            spaced = re.sub(r"_|(?<=[a-z0-9])(?=[A-Z])", " ", token.string).lower()
            for word, instead in refused.items():
                if f" {word} " in f" {spaced} ":
                    yield token.start[0], word, instead


def kept(text: str, spans: list[tuple[int, int]]) -> str:
    shown = list(re.sub(r"[^\n]", " ", text))
    for start, end in spans:
        shown[start:end] = text[start:end]
    return "".join(shown)


def blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def poor_openings(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            first = value.split(maxsplit=1)[0] if isinstance(value, str) and value.strip() else ""
            if first in POOR_OPENINGS:
                yield node.lineno, first


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Documentation pages: links have targets, and quoted messages exist."""

from __future__ import annotations

import itertools
import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "ringfence/**/README.md",
        "roles/*/README.md",
        "stacks/**/README.md",
    )
    for page in ROOT.glob(pattern)
    if ".venv" not in page.parts
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(
    r"`((?:benchmarks|docs|inventories|playbooks|plugins|ringfence|roles|schemas|stacks|tests)"
    r"/[a-z0-9_./-]+)`"
)
"""Pattern of a path without placeholders."""
TABLE_CODE = re.compile(r"^\| `([^`]+)`", re.MULTILINE)


def prose(page: Path) -> str:
    """Return the page without blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of the headings, as GitHub derives them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    named = NAMED_FILE.findall(prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_one_title_and_no_skipped_level(page: Path) -> None:
    levels = [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@cache
def sources() -> tuple[str, ...]:
    """Return source files with adjacent string literals joined and blanks collapsed."""
    files = (
        file
        for folder in ("ringfence", "roles", "playbooks", "plugins")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".yml", ".yaml"}
    )
    joined = (re.sub(r"""["']\s*f?["']""", "", file.read_text()) for file in files)
    return tuple(re.sub(r"\s+", " ", text) for text in joined)


def quoted_messages() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    return [message for message in TABLE_CODE.findall(page) if " " in message]


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_is_one_of_ours(message: str) -> None:
    if message in {"Host key verification failed", "Connection refused"}:
        return  # of OpenSSH
    parts = [part.strip() for part in message.split("…")]
    assert any(all(part in source for part in parts) for source in sources())


def test_the_architecture_is_drawn_from_the_present_imports() -> None:
    specification = spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    assert specification
    assert specification.loader
    architecture = module_from_spec(specification)
    specification.loader.exec_module(architecture)
    drawn = architecture.PICTURE.read_text().splitlines()[-1]
    assert drawn == architecture.digest(architecture.dot()), "stale: make architecture"

"""Content of a picture, before layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.cloud.flows import Path

EGRESS = "egress"
"""Purpose of the block of egress, beside the purposes of segments."""
ROUTER = "router"
"""Purpose of the block between segments."""


class NothingToDrawError(Exception):
    """The manifest or the stack has too little to draw: no addresses, or no network."""


@dataclass(frozen=True)
class DiagramNode:
    key: str
    """Name of the end in flows, if flows lead to it."""
    kind: str
    title: str
    lines: tuple[str, ...] = ()
    recorded: bool = False


@dataclass(frozen=True)
class Block:
    key: str
    purpose: str
    title: str
    cidr: str
    subnets: tuple[tuple[str, str], ...]
    """Zone, if any, and CIDR."""
    nodes: tuple[DiagramNode, ...]
    recorded: bool = False


@dataclass(frozen=True)
class Card:
    """A box outside of every subnet."""

    title: str
    lines: tuple[str, ...]
    recorded: bool = False


@dataclass(frozen=True)
class Picture:
    name: str
    title: str
    notes: tuple[str, ...]
    blocks: tuple[Block, ...]
    outside: tuple[DiagramNode, ...]
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Arrow:
    sources: tuple[str, ...]
    """One end, or several hosts of one segment."""
    target: str
    ports: str
    paths: tuple[Path, ...] = ()
    every: bool = False
    """The arrow stands for arrows to each host of the target segment."""
    kind: str = ""
    """Kind of the line, if it differs from the purpose of the source segment."""

    @property
    def origin(self) -> str:
        names = [source.rpartition(" ")[2] for source in self.sources]
        return names[0] if len(names) == 1 else f"{len(names)} hosts"

    @property
    def says(self) -> str:
        into = "every host of " if self.every else ""
        return f"{', '.join(self.sources)} → {into}{self.target}, {self.ports}"


def wrapped(words: Iterable[str], width: int = 26) -> tuple[str, ...]:
    """Wrap words into lines of a box."""
    lines: list[str] = []
    for word in words:
        if lines and len(f"{lines[-1]}, {word}") < width:
            lines[-1] += f", {word}"
        else:
            lines.append(word)
    return tuple(lines)

"""The hash chain of a log: each line has a number and the SHA-256 of the line before it.

The gateway's audit log and the collector's record of events are such chains. This module is all
that their writers and verifiers share: role siem deploys the file, the gateway's package links to
it. Standard library only. Each log has its own format for the number and the hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

GENESIS = "0" * 64
"""Stands for the line before the first one."""


def digest(line: bytes) -> str:
    """The hash of a line without its line feed."""
    return hashlib.sha256(line).hexdigest()


class Break(NamedTuple):
    """A line that does not continue the chain.

    `removed`: its number is too high; `moved`: too low; `changed`: it follows by number, but the
    line before it is not the one that it names.
    """

    kind: Literal["removed", "moved", "changed"]
    before: int
    """Number of the line before."""
    number: int


@dataclass
class Position:
    """The place in a chain of a verifier that reads its lines in order; at first, none."""

    number: int | None = None
    digest: str | None = None

    def follow(self, line: bytes, number: int, previous: str) -> Break | None:
        """Go on to a line, which says its number and the hash of the line before."""
        before, claimed = self.number, self.digest
        self.number, self.digest = number, digest(line)
        if before is not None and number != before + 1:
            return Break("removed" if number > before else "moved", before, number)
        if claimed is not None and previous != claimed:
            return Break("changed", number - 1, number)
        return None

    def skip(self, line: bytes) -> None:
        """Go on to a line that cannot be read; it counts as one of the chain."""
        self.number = None if self.number is None else self.number + 1
        self.digest = digest(line)

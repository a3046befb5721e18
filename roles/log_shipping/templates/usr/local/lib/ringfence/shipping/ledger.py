"""How far the journal has been delivered, kept across crashes of either side."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

SETTLE_SECONDS = 3
"""An acknowledged event may be lost with the collector's power for as long as the collector
waits with `fsync` (one second). What was acknowledged longer ago is settled."""


@dataclass(frozen=True)
class Position:
    """An entry of the journal, and the number that its event has in the stream."""

    cursor: str | None
    sequence: int


class Ledger:
    """A stream numbers events without gaps. After a crash the same entries get the same
    numbers again, by which the collector recognises what it already has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: deque[tuple[float, Position]] = deque()
        try:
            state = json.loads(path.read_text())
            self.stream: str = state["stream"]
            self.since: int = state["since"]
            self.settled = Position(state["cursor"], state["sequence"])
            self._saved: Position | None = self.settled
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # What the journal held before may have been sent under another stream's numbers.
            self.stream = secrets.token_hex(8)
            self.since = time.time_ns() // 1000
            self.settled = Position(None, 0)
            self._saved = None
        self.acknowledged = self.settled

    def acknowledge(self, position: Position) -> None:
        self.acknowledged = position

    def tick(self, now: float) -> None:
        """Once a second: what was acknowledged some seconds ago is settled, and saved."""
        if not self._recent or self._recent[-1][1] != self.acknowledged:
            self._recent.append((now, self.acknowledged))
        while self._recent and self._recent[0][0] <= now - SETTLE_SECONDS:
            self.settled = self._recent[0][1]
            if len(self._recent) == 1:
                break
            self._recent.popleft()
        self.save(self.settled)

    def rewind(self) -> Position:
        """Where to send from after a broken session: what is settled needs no second copy."""
        self._recent.clear()
        self.acknowledged = self.settled
        return self.settled

    def save(self, position: Position) -> None:
        if position == self._saved:
            return
        state = {
            "stream": self.stream,
            "since": self.since,
            "cursor": position.cursor,
            "sequence": position.sequence,
        }
        staged = self._path.with_suffix(".new")
        with staged.open("w") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._path)
        self._saved = position

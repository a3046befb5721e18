"""Track how far the journal has been delivered, across crashes of host and collector."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

SETTLE_SECONDS = 3
"""A power failure of the collector may lose events that it acknowledged up to one second ago,
before its `fsync`. Older acknowledgements are settled."""


@dataclass(frozen=True)
class Position:
    """A journal entry, and the number of its event in the stream."""

    cursor: str | None
    sequence: int


class Ledger:
    """Numbers the events of a stream without gaps.

    After a crash the same entries get the same numbers, so the collector recognises duplicates.
    """

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
            # Earlier entries may have been sent with the numbers of another stream.
            self.stream = secrets.token_hex(8)
            self.since = time.time_ns() // 1000
            self.settled = Position(None, 0)
            self._saved = None
        self.acknowledged = self.settled

    def acknowledge(self, position: Position) -> None:
        self.acknowledged = position

    def tick(self, now: float) -> None:
        """Settle and save positions acknowledged some seconds ago; call this once a second."""
        if not self._recent or self._recent[-1][1] != self.acknowledged:
            self._recent.append((now, self.acknowledged))
        while self._recent and self._recent[0][0] <= now - SETTLE_SECONDS:
            self.settled = self._recent[0][1]
            if len(self._recent) == 1:
                break
            self._recent.popleft()
        self.save(self.settled)

    def rewind(self) -> Position:
        """Return the position to resume from after a broken session."""
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

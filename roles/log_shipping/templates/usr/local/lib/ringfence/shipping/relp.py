"""The client side of RELP: bytes and acknowledgements, without I/O.

A transaction is `NUMBER COMMAND LENGTH[ DATA]\\n`, its answer `NUMBER rsp LENGTH CODE TEXT\\n`.
The collector answers in the order of the transactions, after it has written the event.
"""

from __future__ import annotations

from collections import deque

LAST_NUMBER = 999_999_999
LARGEST_ANSWER = 4096
OFFER = b"\nrelp_version=0\nrelp_software=ringfence\ncommands=syslog"


class RelpError(Exception):
    """The server does not speak RELP, refuses an event, or closes the session."""


class Session:
    def __init__(self) -> None:
        self._number = 0
        self._open = False
        self._unanswered: deque[int] = deque()
        self._received = b""

    @property
    def unanswered(self) -> int:
        """Number of transactions without an answer."""
        return len(self._unanswered)

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> bytes:
        return self._transaction(b"open", OFFER)

    def event(self, payload: bytes) -> bytes:
        return self._transaction(b"syslog", payload)

    def receive(self, data: bytes) -> int:
        """Process received bytes; return the number of acknowledged events, oldest first."""
        self._received += data
        acknowledged = 0
        while answer := self._next_answer():
            number, command, text = answer
            if command != b"rsp":
                raise RelpError(f"the collector sent {command.decode(errors='replace')}")
            if not text.startswith(b"200"):
                raise RelpError(f"the collector answered {text[:80].decode(errors='replace')!r}")
            if not self._unanswered or number != self._unanswered.popleft():
                raise RelpError(f"the collector answered transaction {number} out of order")
            if self._open:
                acknowledged += 1
            self._open = True
        return acknowledged

    def _transaction(self, command: bytes, data: bytes) -> bytes:
        self._number = self._number % LAST_NUMBER + 1
        self._unanswered.append(self._number)
        return b"%d %s %d %s\n" % (self._number, command, len(data), data)

    def _next_answer(self) -> tuple[int, bytes, bytes] | None:
        # Without data, the header ends in a line feed instead of a space.
        head = self._received.split(b"\n", 1)[0].split(b" ", 3)
        if len(head) < 3 or (len(head) == 3 and b"\n" not in self._received):
            if len(self._received) > LARGEST_ANSWER:
                raise RelpError("the collector does not speak RELP")
            return None
        try:
            number, length = int(head[0]), int(head[2])
        except ValueError:
            raise RelpError("the collector does not speak RELP") from None
        if not 0 <= length <= LARGEST_ANSWER:
            raise RelpError(f"the collector announced an answer of {length} bytes")
        start = sum(len(word) + 1 for word in head[:3])
        end = start + length if length else start - 1
        if len(self._received) <= end:
            return None
        if self._received[end : end + 1] != b"\n":
            raise RelpError("the collector does not speak RELP")
        text = self._received[start:end] if length else b""
        self._received = self._received[end + 1 :]
        return number, head[1], text

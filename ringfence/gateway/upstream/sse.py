"""Server-sent events: bytes in as they come, whole events out.

The rules are those of WHATWG HTML, section 9.2.6 (parsing and interpreting an event stream), for
clients that are no browsers. Bytes that are not UTF-8, which a browser would replace, are refused:
a client must receive what was inspected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ringfence.gateway.refusals import Refusal

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile("\r\n|\r|\n")
_LONGEST_RETRY = 9
"""Most digits of a reconnection time in milliseconds."""


@dataclass(frozen=True, slots=True)
class Event:
    data: str | None = None
    """None in a block without data: clients do not dispatch it, but use its id and retry."""
    event: str = ""
    """The type; empty: `message`."""
    id: str | None = None
    """None if this block has none; an empty one is a reset."""
    retry: int | None = None
    """Milliseconds."""


KEEP_ALIVE = Event()
"""An event that stands for a comment, whose text is dropped: clients do not read it."""


class Parser:
    """Parses one stream. `limit`: most bytes of an event with all its lines."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._first = True
        self._after_cr = False
        self._start = b""
        self._tail: list[bytes] = []
        """Parts of a line that has not ended."""
        self._size = 0
        """Bytes of the block so far, with the tail."""
        self._data: list[bytes] = []
        self._event = b""
        self._id: bytes | None = None
        self._retry: int | None = None
        self._failure: Refusal | None = None

    @property
    def pending(self) -> bool:
        """Whether part of an event has arrived; it is lost if the stream ends now."""
        return self._size > 0 or bool(self._start)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end with this chunk.

        Raises `Refusal` 502 (`event_too_large`, `event_not_utf8`), at once or, where whole events
        came before, with the next call.
        """
        if self._failure:
            raise self._failure
        events: list[Event] = []
        try:
            self._take(chunk, events)
        except Refusal as refusal:
            self._failure = refusal
            if not events:
                raise
        return events

    def _take(self, chunk: bytes, events: list[Event]) -> None:
        if self._first:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return
            self._first, self._start = False, b""
            chunk = chunk.removeprefix(_BOM)
        if not chunk:
            return
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            if not chunk:
                self._after_cr = False
                return
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._grow(len(line) + 1)
            if self._tail:
                line = b"".join((*self._tail, line))
                self._tail.clear()
            self._line(line, events)
        if rest:
            self._grow(len(rest))
            self._tail.append(rest)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise Refusal("event_too_large")

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b":"):
            events.append(KEEP_ALIVE)
            if not (self._data or self._event or self._id is not None or self._retry is not None):
                self._size = 0
        else:
            self._field(line)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"retry" and value.isdigit() and len(value) <= _LONGEST_RETRY:
            self._retry = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        try:
            data = b"\n".join(self._data).decode() if self._data else None
            event = self._event.decode() if data is not None else ""
            identity = None if self._id is None else self._id.decode()
        except UnicodeDecodeError:
            raise Refusal("event_not_utf8") from None
        if data is not None or identity is not None or self._retry is not None:
            events.append(Event(data, event, identity, self._retry))
        self._data, self._event, self._id, self._retry = [], b"", None, None
        self._size = 0


def serialise(event: Event) -> bytes:
    """Write an event. Raises `ValueError` for a type or an id that does not fit into its line."""
    lines: list[str] = []
    if event.event:
        lines.append(f"event: {_one_line(event.event)}")
    if event.id is not None:
        if "\0" in event.id:
            raise ValueError("the id of an event has U+0000 in it; clients would ignore it")
        lines.append(f"id: {_one_line(event.id)}")
    if event.retry is not None:
        lines.append(f"retry: {event.retry}")
    if event.data is not None:
        several = "\n" in event.data or "\r" in event.data
        parts = _LINE_END.split(event.data) if several else [event.data]
        lines += [f"data: {line}" for line in parts]
    return ("\n".join(lines or [":"]) + "\n\n").encode()


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("the type or id of an event has a line end in it")
    return text

"""Inspection of streams: values that are split over messages."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ringfence.gateway.inspection import plain_text
from ringfence.gateway.inspection.inspector import INLINE_BYTES, Action, Inspected, Inspector

TAIL = 256
"""Characters of a stream that are remembered, to recognise a value that continues in the next."""
MAX_HELD = 8
"""Messages that are held back."""
_UNFINISHED = re.compile(
    r"(?:\d[ ().\-/]{0,3}){4,}$|[^\s@]{1,64}@[^\s@]{0,64}$|[A-Za-z0-9+/_=-]{8,}$"
    r"|[A-Z]{2}\d\d[A-Z0-9 ]{0,30}$|-----[A-Z0-9 ]{0,60}$"
)


class Search(Protocol):
    """`Inspector.inspect_together`, here or in the worker."""

    async def __call__(
        self,
        documents: Sequence[dict[str, Any]],
        action: Action,
        output_schema_checks: Sequence[Callable[[Any], bool] | None],
        before: str,
        *,
        size: int,
    ) -> tuple[list[Inspected], str]: ...


@dataclass(frozen=True)
class _Held:
    document: dict[str, Any]
    output_schema_check: Callable[[Any], bool] | None
    size: int


class StreamInspector:
    """Inspects the messages of one stream, in order.

    A value split over messages is recognised when its last part arrives. Where the data class
    redacts or blocks, a message that ends like the beginning of a value is therefore held back
    until the next one, at most eight of them; call `release` when the stream is idle or ends.
    Parts that were sent before cannot be recalled (flagged classes hold nothing back; a value in
    more than nine parts; parts with other text of more than 256 characters between them; after
    `release`). Then the part that completes the value is masked, and the earlier ones are out.
    """

    def __init__(self, inspector: Inspector, data_class: str, search: Search) -> None:
        self._inspector = inspector
        self._search = search
        self._action: Action = inspector.action(data_class)
        self._tail = ""
        self._held: deque[_Held] = deque()

    async def inspect(
        self,
        document: dict[str, Any],
        output_schema_check: Callable[[Any], bool] | None = None,
        *,
        size: int,
    ) -> list[Inspected]:
        """Return what may be sent now, in order: nothing, this message, or held ones and this one.

        `size`: bytes on the wire. Raises `Refusal` where it could not be searched in time.
        """
        self._held.append(_Held(document, output_schema_check, size))
        is_last = "result" in document or "error" in document
        if (
            not is_last
            and self._action in ("redact", "block")
            and len(self._held) <= MAX_HELD
            # The end of a large one is not examined here.
            and (size > INLINE_BYTES or self._ends_unfinished(document))
        ):
            return []
        return await self.release()

    async def release(self) -> list[Inspected]:
        """Return held messages, inspected together with the earlier text and with each other."""
        held = list(self._held)
        self._held.clear()
        if not held:
            return []
        done, text = await self._search(
            [each.document for each in held],
            self._action,
            [each.output_schema_check for each in held],
            self._tail,
            size=sum(each.size for each in held),
        )
        self._tail = (self._tail + text)[-TAIL:]
        return done

    def _ends_unfinished(self, document: Mapping[str, Any]) -> bool:
        try:
            text = self._inspector.text(document)
        except Exception:
            return False  # inspection withholds it
        return _UNFINISHED.search(plain_text.plain(text[-TAIL:]).text) is not None

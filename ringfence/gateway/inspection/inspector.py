"""What comes back from servers, searched for personal data and secrets.

Whole JSON-RPC messages go in and come out: every string of a message is read, the names of members
and numbers too, text inside Base64 blobs, and what is split over content blocks or over messages
of a stream. The detector failing, for whatever reason, withholds the message.

Known limits: names and addresses of people are out of reach, for they have no form. Archives,
images and documents are not opened. Text reversed or in a cipher of its own passes.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

import orjson

from ringfence.gateway.inspection import plain_text
from ringfence.gateway.inspection.detector import SHORTEST, Detector
from ringfence.gateway.inspection.masking import Masking, Redaction
from ringfence.gateway.inspection.plain_text import Plain
from ringfence.gateway.refusals import Refusal

Action = Literal["pass", "flag", "redact", "block"]
INLINE_BYTES = 16 * 1024
"""Of a message, on the wire. One of this size that was made to take long takes some 50 ms."""
MAX_DEPTH = 160
"""Of the messages themselves, which `limits.depth` keeps below that."""

_BETWEEN = "\x1e"
"""Stands between texts that are searched in one go. No pattern has it."""
_QUOTED_END = '"' + _BETWEEN
_FAILED = "inspection_failed"
_SCHEMA = "output_schema"


@dataclass(frozen=True)
class Inspected:
    document: dict[str, Any]
    """What may be passed on: for "block" an error response that says nothing of the result."""
    findings: Mapping[str, int]
    """Type -> how many. Never values."""
    action: Action

    @property
    def refusal(self) -> Refusal | None:
        """For "block": what the caller is told."""
        return Refusal("result_withheld") if self.action == "block" else None


@dataclass
class _Leaf:
    """One place of a message with something to read."""

    text: str
    """As it is there; of a blob: decoded."""
    context: str = ""
    """What makes a value of it, such as "date of birth: "."""
    form: Literal["text", "name", "number", "blob"] = "text"
    block: bool = False
    """Read together with its neighbours: the text of a content block, of a notification."""
    encoding: str = "utf-8"
    replacements: list[_Replacement] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Replacement:
    start: int
    end: int
    type: str
    value: str
    part: bool = False
    """The rest of a value whose beginning is in another leaf."""


class _TooDeep(Exception):  # noqa: N818
    pass


class Inspector:
    """Raises `ValueError` for a key below 32 bytes when there is something to mask."""

    def __init__(
        self,
        classes: Mapping[str, Action],
        mask: bool,
        key: bytes,
        *,
        arguments: Action = "flag",
        detector: Detector | None = None,
    ) -> None:
        self._classes = dict(classes)
        self._mask = mask
        self._arguments: Action = arguments
        self._replace = Masking(key) if mask else Redaction()
        self._detector = detector or Detector()

    def action(self, data_class: str) -> Action:
        """For a finding in this data class. A class that nobody configured blocks."""
        action = self._classes.get(data_class, "block")
        # Outside production personal data is masked whatever its class; what is blocked stays so.
        return "redact" if self._mask and action != "block" else action

    def inspect_result(
        self,
        document: dict[str, Any],
        data_class: str,
        output_schema_check: Callable[[Any], bool] | None = None,
    ) -> Inspected:
        """A response or notification of a server.

        `output_schema_check` says whether a `structuredContent` satisfies the tool's output schema;
        a masked one that does not is withheld.
        """
        action = self.action(data_class)
        return self.inspect_together([document], action, [output_schema_check], "")[0][0]

    def inspect_arguments(self, params: Mapping[str, Any], data_class: str) -> Inspected:
        """What a caller sends, by the action for arguments, whatever the class.

        "redact" makes a tool do something else than was asked; "flag" is the rule.
        """
        action = self.argument_action(data_class)
        return self.as_arguments(
            self.inspect_together([{"params": dict(params)}], action, [None], "")[0][0]
        )

    def argument_action(self, data_class: str) -> Action:
        return self._arguments if data_class in self._classes else "block"

    def as_arguments(self, inspected: Inspected) -> Inspected:
        """What was inspected as a message's params, by itself."""
        if inspected.action == "block":
            return inspected
        return Inspected(inspected.document["params"], inspected.findings, inspected.action)

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """What would be replaced in a text: type, start, end."""
        leaf = _Leaf(text)
        self._search([leaf], "")
        return [(found.type, found.start, found.end) for found in leaf.replacements]

    def text(self, document: Mapping[str, Any]) -> str:
        """What a reader of a message reads in one go."""
        return "".join([leaf.text for leaf in _leaves(document, self._detector) if leaf.block])

    def inspect_together(
        self,
        documents: Sequence[dict[str, Any]],
        action: Action,
        output_schema_checks: Sequence[Callable[[Any], bool] | None],
        before: str,
    ) -> tuple[list[Inspected], str]:
        """Messages in a row, with the text before them; also their text, for what comes after."""
        done, text = self.search(documents, action, before)
        return conforming(documents, done, output_schema_checks), text

    def search(
        self, documents: Sequence[dict[str, Any]], action: Action, before: str
    ) -> tuple[list[Inspected], str]:
        """The same, whatever schemas say of the outcome."""
        try:
            return self._inspect(documents, action, before)
        except Exception:
            # Whatever it is: what could not be searched is not passed on.
            return [_blocked(document, {_FAILED: 1}) for document in documents], ""

    def _inspect(
        self, documents: Sequence[dict[str, Any]], action: Action, before: str
    ) -> tuple[list[Inspected], str]:
        parts = [_leaves(document, self._detector) for document in documents]
        leaves = parts[0] if len(parts) == 1 else [leaf for part in parts for leaf in part]
        self._search(leaves, before)
        text = "".join([leaf.text for leaf in leaves if leaf.block])
        if not any(leaf.replacements for leaf in leaves):
            return [Inspected(document, {}, "pass") for document in documents], text
        if action == "redact":
            self._propagate(leaves)
        done = [
            self._done(document, part, action)
            for document, part in zip(documents, parts, strict=True)
        ]
        return done, text

    def _done(
        self,
        document: dict[str, Any],
        leaves: Sequence[_Leaf],
        action: Action,
    ) -> Inspected:
        found = [replacement for leaf in leaves for replacement in leaf.replacements]
        findings = Counter(replacement.type for replacement in found if not replacement.part)
        if not found:
            return Inspected(document, {}, "pass")
        if action in ("pass", "flag"):
            return Inspected(document, findings, action)
        if action == "block":
            return _blocked(document, findings)
        return Inspected(_rebuilt(document, leaves, self._replace), findings, "redact")

    def _search(self, leaves: Sequence[_Leaf], before: str) -> None:
        together = _BETWEEN.join([leaf.text for leaf in leaves])
        as_written = plain_text.is_plain(together.replace(_BETWEEN, "\n")) and not (
            plain_text.may_be_escaped(together)
        )
        views: list[tuple[int, int, Plain | None]] = []
        texts: list[str] = []
        starts: list[int] = []
        length = 0
        for index, leaf in enumerate(leaves):
            text, context = leaf.text, leaf.context
            if len(text) < SHORTEST:
                continue
            read = None if as_written and _BETWEEN not in text else plain_text.plain(text)
            while True:
                views.append((index, len(context), read))
                starts.append(length)
                if read is not None:
                    text = read.text
                texts += (context, text, _QUOTED_END) if context else (text, _BETWEEN)
                length += len(text) + (len(context) + 2 if context else 1)
                if read is None or read.starts is not None:
                    break
                read = plain_text.unescaped(read)
                if read is None:
                    break
        for finding in self._detector.find("".join(texts)) if texts else ():
            number = bisect_right(starts, finding.start) - 1
            index, offset, view = views[number]
            start = max(finding.start - starts[number] - offset, 0)
            end = finding.end - starts[number] - offset
            if end > start:
                place = (start, end) if view is None else view.span(start, end)
                _replace(leaves[index], *place, finding.type, finding.value)
        self._search_across([leaf for leaf in leaves if leaf.block], before)
        for leaf in leaves:
            if leaf.replacements:
                leaf.replacements = _without_overlaps(leaf)

    def _search_across(self, blocks: Sequence[_Leaf], before: str) -> None:
        """Values that begin in one text and end in another, one or many blocks later."""
        if len(blocks) + bool(before) < 2:
            return
        texts = [before, *(leaf.text for leaf in blocks)]
        borders = [0]
        for text in texts:
            borders.append(borders[-1] + len(text))
        read = plain_text.plain("".join(texts))
        complete = [
            [(found.start, found.end) for found in leaf.replacements if found.type in _COMPLETE]
            for leaf in blocks
        ]
        for view in (read, plain_text.unescaped(read)):
            if view is None:
                continue
            for finding in self._detector.find(view.text):
                start, end = view.span(finding.start, finding.end)
                first = bisect_right(borders, start) - 1
                last = bisect_right(borders, end - 1) - 1
                if first == last:
                    continue
                if finding.type in _COMPLETE and any(
                    low + borders[number] < end and high + borders[number] > start
                    for number in range(max(first, 1), last + 1)
                    for low, high in complete[number - 1]
                ):
                    continue  # complete without its neighbours, which only touch it
                for number in range(max(first, 1), last + 1):
                    leaf = blocks[number - 1]
                    low = max(start - borders[number], 0)
                    high = min(end - borders[number], len(leaf.text))
                    if high > low:
                        # What was sent before cannot be masked; the rest then carries the mask.
                        is_rest = number > max(first, 1)
                        leaf.replacements.append(
                            _Replacement(low, high, finding.type, finding.value, is_rest)
                        )

    def _propagate(self, leaves: Sequence[_Leaf]) -> None:
        """What is a value in one place of a message is one in all: text and structured copies."""
        values: dict[str, _Replacement] = {}
        known: Counter[str] = Counter()
        for leaf in leaves:
            for found in leaf.replacements:
                written = leaf.text[found.start : found.end]
                known[written] += 1
                if (
                    SHORTEST <= len(written) <= _PROPAGATED_LENGTH
                    and len(values) < _PROPAGATED
                    and not found.part
                ):
                    values.setdefault(written, found)
        everything = _BETWEEN.join([leaf.text for leaf in leaves])
        more_often = [value for value in values if everything.count(value) > known[value]]
        if not more_often:
            return
        expression = re.compile(
            "|".join(
                rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])"
                for value in sorted(more_often, key=len, reverse=True)
            )
        )
        for leaf in leaves:
            if len(leaf.text) < SHORTEST:
                continue
            more = [
                _Replacement(*match.span(), values[match[0]].type, values[match[0]].value)
                for match in expression.finditer(leaf.text)
            ]
            if more:
                places = {(found.start, found.end) for found in more}
                kept = [f for f in leaf.replacements if (f.start, f.end) not in places]
                leaf.replacements = [*kept, *more]
                leaf.replacements = _without_overlaps(leaf)


_COMPLETE = frozenset({"email", "ip_address", "phone"})
"""Types of which a longer value is found when text touches them."""
_PROPAGATED = 64
"""Different values of one message that are looked for in all of it."""
_PROPAGATED_LENGTH = 128
"""Longer ones are tokens, which are found wherever they are."""


def _blocked(document: Mapping[str, Any], findings: Mapping[str, int]) -> Inspected:
    refusal = Refusal("result_withheld")
    answer: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": document.get("id"),
        "error": {"code": refusal.code, "message": refusal.message},
    }
    return Inspected(answer, findings, "block")


def conforming(
    documents: Sequence[Mapping[str, Any]],
    done: Sequence[Inspected],
    output_schema_checks: Sequence[Callable[[Any], bool] | None],
) -> list[Inspected]:
    """What was inspected, of which a masked result that its schema does not allow is withheld."""
    return [
        inspected
        if check is None
        or inspected.action != "redact"
        or _still_valid(document, inspected.document, check)
        else _blocked(document, {**inspected.findings, _SCHEMA: 1})
        for document, inspected, check in zip(documents, done, output_schema_checks, strict=True)
    ]


def _still_valid(
    document: Mapping[str, Any], masked: Mapping[str, Any], check: Callable[[Any], bool]
) -> bool:
    result, new = document.get("result"), masked.get("result")
    if not isinstance(result, Mapping) or not isinstance(new, Mapping):
        return True
    old = result.get("structuredContent")
    if "structuredContent" not in result or old == new["structuredContent"]:
        return True
    return check(new["structuredContent"])


# --- reading a message ---------------------------------------------------------------------------

_ENVELOPE = frozenset({"jsonrpc", "id", "method"})
_OPAQUE = frozenset({"progressToken"})
"""The client's own, by which it recognises the notification."""
_PLAIN_NAME = re.compile(r"[A-Za-z_]{1,15}")
"""Too short for anything that has no digits."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.\s]+")
_SMALLEST_NUMBER = 10**7


def _leaves(document: Mapping[str, Any], detector: Detector) -> list[_Leaf]:
    leaves: list[_Leaf] = []
    for name, value in document.items():
        if name not in _ENVELOPE:
            _read(value, "", False, leaves, detector, 0)
    return leaves


def _read(
    node: Any, context: str, block: bool, leaves: list[_Leaf], detector: Detector, depth: int
) -> None:
    """In the same order as `_rebuilt` writes."""
    if depth > MAX_DEPTH:
        raise _TooDeep
    if isinstance(node, str):
        leaves.append(_Leaf(node, context, block=block))
    elif isinstance(node, Mapping):
        for name, value in node.items():
            if not _PLAIN_NAME.fullmatch(name):
                leaves.append(_Leaf(name, form="name"))
            if name in _OPAQUE:
                continue
            if isinstance(value, str):
                leaves.append(
                    _blob(node, name, value)
                    or _Leaf(value, _context(name, detector) or context, block=name in _BLOCKS)
                )
            elif isinstance(value, (list, Mapping)):
                _read(
                    value,
                    _context(name, detector) or context,
                    block or name in _BLOCKS,
                    leaves,
                    detector,
                    depth + 1,
                )
            elif (number := _number(value)) is not None:
                leaves.append(_Leaf(number, _context(name, detector) or context, "number"))
    elif isinstance(node, list):
        for value in node:
            _read(value, context, block, leaves, detector, depth + 1)
    elif (number := _number(node)) is not None:
        leaves.append(_Leaf(number, context, "number"))


_BLOCKS = frozenset({"text", "message", "data"})
"""Members whose texts a reader puts together: content blocks, progress, log messages, errors."""


def _number(value: Any) -> str | None:
    """Digits of a number that is large enough to be somebody's."""
    if type(value) is int:
        return str(value) if abs(value) >= _SMALLEST_NUMBER and abs(value) < 10**40 else None
    if type(value) is float and value.is_integer() and _SMALLEST_NUMBER <= abs(value) < 2**63:
        return str(int(value))
    return None


@lru_cache(4096)
def _words(name: str) -> str:
    return " ".join(filter(None, _WORDS.split(name))).lower()


def _context(name: str, detector: Detector) -> str:
    if len(name) > 64 or not name.isascii():
        return ""
    return _context_of(name, detector)


@lru_cache(4096)
def _context_of(name: str, detector: Detector) -> str:
    words = _words(name)
    return f'"{words}": "' if detector.labels(words) else ""


_BLOB = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")


def _blob(parent: Mapping[str, Any], name: str, value: str) -> _Leaf | None:
    """The text of a blob (`BlobResourceContents`, `ImageContent`), where it is text."""
    if name != "blob" and not (name == "data" and "mimeType" in parent):
        return None
    compact = "".join(value.split())
    if not _BLOB.fullmatch(compact):
        return None
    try:
        octets = base64.urlsafe_b64decode(
            compact.translate(_URL_SAFE).rstrip("=") + "=" * (-len(compact.rstrip("=")) % 4)
        )
    except (binascii.Error, ValueError):
        return None
    if len(compact) < _SHORT_BLOB and not octets.isascii():
        return None  # read as any text, for what looks like Base64 may be a number
    for encoding in _encodings(octets):
        try:
            return _Leaf(octets.decode(encoding), form="blob", block=True, encoding=encoding)
        except UnicodeDecodeError:
            continue
    # Not text: nothing in it could be replaced without breaking it.
    return _Leaf("", form="blob", encoding="")


_SHORT_BLOB = 128
_URL_SAFE = str.maketrans("+/", "-_")
_UNPRINTED = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def _encodings(octets: bytes) -> Iterable[str]:
    if octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield "utf-16"
    zeros = octets[:512].count(0)
    if zeros * 3 > min(len(octets), 512):
        yield "utf-16-le" if octets[1::2].count(0) >= octets[::2].count(0) else "utf-16-be"
    yield "utf-8"
    if len(_UNPRINTED.findall(octets[:65536])) * 100 <= len(octets[:65536]):
        yield "latin-1"


# --- writing it again ----------------------------------------------------------------------------


def _replace(leaf: _Leaf, start: int, end: int, kind: str, value: str) -> None:
    # An escape whose backslash stays behind would change what follows it.
    if start and leaf.text[start - 1] == "\\" and not leaf.text.startswith("\\\\", start - 2):
        start = min(start + 1, end - 1) if leaf.text[start] in "nrtbf" else start
    leaf.replacements.append(_Replacement(start, end, kind, value))


_VAGUE = frozenset({"phone"})
"""Types without a check digit, that reach into numbers which have one."""


def _overlapped(found: _Replacement, ends: Sequence[tuple[int, int]]) -> bool:
    place = bisect_right(ends, (found.start, 1 << 62))
    return place < len(ends) and ends[place][1] < found.end


def _without_overlaps(leaf: _Leaf) -> list[_Replacement]:
    """One replacement per place: what lies inside another goes, what overlaps is joined."""
    kept: list[_Replacement] = []
    certain = [f for f in leaf.replacements if f.type not in _VAGUE]
    vague = [f for f in leaf.replacements if f.type in _VAGUE]
    if certain and vague:
        ends = sorted((f.end, f.start) for f in certain)
        vague = [f for f in vague if not _overlapped(f, ends)]
    for found in sorted([*certain, *vague], key=lambda found: (found.start, -found.end)):
        last = kept[-1] if kept else None
        if last is None or found.start >= last.end:
            kept.append(found)
        elif found.end > last.end:
            longer = max(last, found, key=lambda found: found.end - found.start)
            joined = leaf.text[last.start : found.end]
            kept[-1] = _Replacement(last.start, found.end, longer.type, joined, last.part)
    return kept


def _written(leaf: _Leaf, replace: Masking | Redaction) -> str:
    parts: list[str] = []
    last = 0
    for found in leaf.replacements:
        parts.append(leaf.text[last : found.start])
        if not found.part:
            read = plain_text.plain(leaf.text[found.start : found.end])
            written = (plain_text.unescaped(read) or read).text
            parts.append(replace.replacement(found.type, found.value, written))
        last = found.end
    parts.append(leaf.text[last:])
    return "".join(parts)


def _rebuilt(
    document: Mapping[str, Any], leaves: Iterable[_Leaf], replace: Masking | Redaction
) -> dict[str, Any]:
    supply = iter(leaves)

    def string(original: str) -> str:
        leaf = next(supply)
        if not leaf.replacements:
            return original
        written = _written(leaf, replace)
        if leaf.form == "blob":
            return base64.b64encode(written.encode(leaf.encoding)).decode()
        return written if leaf.form == "name" else _as_json(leaf.text, written, leaf, replace)

    def number(original: int | float) -> Any:
        leaf = next(supply)
        if not leaf.replacements:
            return original
        written = _written(leaf, replace)
        return type(original)(written) if written.lstrip("-").isdigit() else written

    def node(value: Any) -> Any:
        if isinstance(value, str):
            return string(value)
        if isinstance(value, Mapping):
            new: dict[str, Any] = {}
            for name, member in value.items():
                written = name if _PLAIN_NAME.fullmatch(name) else string(name)
                while written in new:
                    written += "+"
                new[written] = member if name in _OPAQUE else node(member)
            return new
        if isinstance(value, list):
            return [node(member) for member in value]
        return value if _number(value) is None else number(value)

    return {name: value if name in _ENVELOPE else node(value) for name, value in document.items()}


def _as_json(text: str, written: str, leaf: _Leaf, replace: Masking | Redaction) -> str:
    """A text that is JSON stays JSON: a redacted number in it becomes a string."""
    if isinstance(replace, Masking) or text.lstrip()[:1] not in ("{", "["):
        return written
    if not _is_json(text) or _is_json(written):
        return written
    parts: list[str] = []
    last = 0
    for found in leaf.replacements:
        parts.append(text[last : found.start])
        mark = replace.replacement(found.type, found.value, "")
        bare = text[: found.start].rstrip()[-1:] in (":", ",", "[")
        parts.append(f'"{mark}"' if bare else mark)
        last = found.end
    quoted = "".join([*parts, text[last:]])
    return quoted if _is_json(quoted) else written


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except (ValueError, UnicodeEncodeError):
        return False
    return True


# --- streams -------------------------------------------------------------------------------------

TAIL = 256
"""Characters of a stream that are remembered, to recognise what continues in the next message."""
MAX_HELD = 8
"""Messages."""
_UNFINISHED = re.compile(
    r"(?:\d[ ().\-/]{0,3}){4,}$|[^\s@]{1,64}@[^\s@]{0,64}$|[A-Za-z0-9+/_=-]{8,}$"
    r"|[A-Z]{2}\d\d[A-Z0-9 ]{0,30}$|-----[A-Z0-9 ]{0,60}$"
)


class Search(Protocol):
    """`Inspector.inspect_together`, wherever it happens."""

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
    """Messages of one stream, in order.

    A value split over messages is recognised when its last part arrives. Where the data class
    redacts or blocks, a message that ends like the beginning of a value is therefore held back
    until the next one, at most eight of them; call `release` when the stream is idle or ends.
    What cannot be recalled: parts sent before (flagged classes hold nothing back; a value in more
    than nine parts; parts with other text of more than 256 characters between them; after
    `release`). Then the part that completes the value is masked, and what comes before has gone.
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
        """What may be sent now, in order: nothing, this message, or held ones and this one.

        `size`: bytes on the wire. Raises `Refusal` where it could not be searched in time.
        """
        self._held.append(_Held(document, output_schema_check, size))
        is_last = "result" in document or "error" in document
        if (
            not is_last
            and self._action in ("redact", "block")
            and len(self._held) <= MAX_HELD
            # How a large one ends is not looked for here.
            and (size > INLINE_BYTES or self._ends_unfinished(document))
        ):
            return []
        return await self.release()

    async def release(self) -> list[Inspected]:
        """Held messages, inspected together with what went before and with each other."""
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
            return False  # it is withheld when it is inspected
        return _UNFINISHED.search(plain_text.plain(text[-TAIL:]).text) is not None

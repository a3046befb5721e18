"""Leaves of a JSON-RPC message: every place with something to read, and the message written again.

Strings, names of members and large numbers are leaves, and so is the text inside a Base64 blob.
`read` and `rewrite` meet them in the same order.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import orjson

from ringfence.gateway.inspection import plain_text
from ringfence.gateway.inspection.detector import Detector
from ringfence.gateway.inspection.masking import Masking, Redaction

MAX_DEPTH = 160
"""Depth of a message; `limits.depth` keeps messages below that."""
SMALLEST_NUMBER = 10**7
"""Smaller numbers have too few digits to be personal data."""

_ENVELOPE = frozenset({"jsonrpc", "id", "method"})
_OPAQUE = frozenset({"progressToken"})
"""The client's own value, by which it recognises the notification."""
_BLOCKS = frozenset({"text", "message", "data"})
"""Members whose texts a reader joins: content blocks, progress, log messages, errors."""
_PLAIN_NAME = re.compile(r"[A-Za-z_]{1,15}")
"""Too short for a value without digits."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.\s]+")


@dataclass(frozen=True, slots=True)
class Replacement:
    start: int
    end: int
    type: str
    value: str
    is_rest: bool = False
    """The value begins in another leaf, which carries the mask."""


@dataclass
class Leaf:
    """One place of a message with something to read."""

    text: str
    """The text as it is there; of a blob, decoded."""
    context: str = ""
    """The label of the value, from the member's name, such as "date of birth: "."""
    form: Literal["text", "name", "number", "blob"] = "text"
    block: bool = False
    """Read together with its neighbours: the text of a content block, of a notification."""
    encoding: str = "utf-8"
    replacements: list[Replacement] = field(default_factory=list)

    def replace(self, start: int, end: int, kind: str, value: str) -> None:
        # An escape whose backslash stays behind would change what follows it.
        if start and self.text[start - 1] == "\\" and not self.text.startswith("\\\\", start - 2):
            start = min(start + 1, end - 1) if self.text[start] in "nrtbf" else start
        self.replacements.append(Replacement(start, end, kind, value))

    def join_overlaps(self) -> None:
        """Keep one replacement per place: drop the inner one, join those that overlap."""
        kept: list[Replacement] = []
        certain = [f for f in self.replacements if f.type not in _VAGUE]
        vague = [f for f in self.replacements if f.type in _VAGUE]
        if certain and vague:
            ends = sorted((f.end, f.start) for f in certain)
            vague = [f for f in vague if not _is_overlapped(f, ends)]
        for found in sorted([*certain, *vague], key=lambda found: (found.start, -found.end)):
            last = kept[-1] if kept else None
            if last is None or found.start >= last.end:
                kept.append(found)
            elif found.end > last.end:
                longer = max(last, found, key=lambda found: found.end - found.start)
                joined = self.text[last.start : found.end]
                kept[-1] = Replacement(last.start, found.end, longer.type, joined, last.is_rest)
        self.replacements = kept


def read(document: Mapping[str, Any], detector: Detector) -> list[Leaf]:
    """The leaves of a message. Raises `ValueError` beyond `MAX_DEPTH`."""
    leaves: list[Leaf] = []
    for name, value in document.items():
        if name not in _ENVELOPE:
            _read(value, "", False, leaves, detector, 0)
    return leaves


def rewrite(
    document: Mapping[str, Any], leaves: Iterable[Leaf], replace: Masking | Redaction
) -> dict[str, Any]:
    """A copy of the message with the replacements of its leaves."""
    supply = iter(leaves)

    def string(original: str) -> str:
        leaf = next(supply)
        if not leaf.replacements:
            return original
        written = _replaced(leaf, replace)
        if leaf.form == "blob":
            return base64.b64encode(written.encode(leaf.encoding)).decode()
        return written if leaf.form == "name" else _as_json(leaf.text, written, leaf, replace)

    def number(original: int | float) -> Any:
        leaf = next(supply)
        if not leaf.replacements:
            return original
        written = _replaced(leaf, replace)
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


def _read(
    node: Any, context: str, block: bool, leaves: list[Leaf], detector: Detector, depth: int
) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, str):
        leaves.append(Leaf(node, context, block=block))
    elif isinstance(node, Mapping):
        for name, value in node.items():
            if not _PLAIN_NAME.fullmatch(name):
                leaves.append(Leaf(name, form="name"))
            if name in _OPAQUE:
                continue
            if isinstance(value, str):
                leaves.append(
                    _blob(node, name, value)
                    or Leaf(value, _context(name, detector) or context, block=name in _BLOCKS)
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
                leaves.append(Leaf(number, _context(name, detector) or context, "number"))
    elif isinstance(node, list):
        for value in node:
            _read(value, context, block, leaves, detector, depth + 1)
    elif (number := _number(node)) is not None:
        leaves.append(Leaf(number, context, "number"))


def _number(value: Any) -> str | None:
    """The digits of a number that is large enough to be personal data."""
    if type(value) is int:
        return str(value) if abs(value) >= SMALLEST_NUMBER and abs(value) < 10**40 else None
    if type(value) is float and value.is_integer() and SMALLEST_NUMBER <= abs(value) < 2**63:
        return str(int(value))
    return None


def _context(name: str, detector: Detector) -> str:
    if len(name) > 64 or not name.isascii():
        return ""
    return _context_of(name, detector)


@lru_cache(4096)
def _context_of(name: str, detector: Detector) -> str:
    words = _words(name)
    return f'"{words}": "' if detector.labels(words) else ""


@lru_cache(4096)
def _words(name: str) -> str:
    return " ".join(filter(None, _WORDS.split(name))).lower()


# Blobs

_BLOB = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")
_SHORT_BLOB = 128
_URL_SAFE = str.maketrans("+/", "-_")
_UNPRINTED = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def _blob(parent: Mapping[str, Any], name: str, value: str) -> Leaf | None:
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
            return Leaf(octets.decode(encoding), form="blob", block=True, encoding=encoding)
        except UnicodeDecodeError:
            continue
    # Not text: nothing in it could be replaced without breaking it.
    return Leaf("", form="blob", encoding="")


def _encodings(octets: bytes) -> Iterable[str]:
    if octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield "utf-16"
    zeros = octets[:512].count(0)
    if zeros * 3 > min(len(octets), 512):
        yield "utf-16-le" if octets[1::2].count(0) >= octets[::2].count(0) else "utf-16-be"
    yield "utf-8"
    if len(_UNPRINTED.findall(octets[:65536])) * 100 <= len(octets[:65536]):
        yield "latin-1"


# Replacements

_VAGUE = frozenset({"phone"})
"""Types without a check digit, which reach into numbers that have one."""


def _is_overlapped(found: Replacement, ends: Sequence[tuple[int, int]]) -> bool:
    place = bisect_right(ends, (found.start, 1 << 62))
    return place < len(ends) and ends[place][1] < found.end


def _replaced(leaf: Leaf, replace: Masking | Redaction) -> str:
    parts: list[str] = []
    last = 0
    for found in leaf.replacements:
        parts.append(leaf.text[last : found.start])
        if not found.is_rest:
            plain = plain_text.plain(leaf.text[found.start : found.end])
            written = (plain_text.unescaped(plain) or plain).text
            parts.append(replace.replacement(found.type, found.value, written))
        last = found.end
    parts.append(leaf.text[last:])
    return "".join(parts)


def _as_json(text: str, written: str, leaf: Leaf, replace: Masking | Redaction) -> str:
    """Keep JSON in a text valid: a redacted number in it becomes a string."""
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

"""The plain reading of a text: ASCII, as a person or a parser would understand it.

An attacker can write a value so that it evades a detector and readers still understand it: in
digits of another script, with invisible characters inside, escaped. Each plain character keeps its
place in the source, so that a finding in the plain reading is replaced in the source.
"""

from __future__ import annotations

import html
import re
import unicodedata
from array import array
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from urllib.parse import unquote_to_bytes

SUBSTITUTE = "\x1a"
"""Stands for a character without a plain reading. It is no part of a word, so a number between
Chinese characters is a number of its own."""

# Letters of Cyrillic, Greek, Armenian and Latin extensions that look like ASCII ones (Unicode
# UTS #39, confusables.txt, prototypes of one letter).
_LOOKALIKES = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХԌԚԜаеѕіјорсухԁԛԝһӏҽгпѵ"
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϲαγνορτικυϳ"
        "օսԍոհցƖǀıɑɡʜʟɪʀᴏᴠᴡᴢᴀᴄᴅᴇᴊᴋᴍᴛᴜꜱ",
        "ABESIJKMHOPCTYXGQWaesijopcyxdqwhlernv"
        "ABEZHIKMNOPTYXCcayvoptikuj"
        "ougnhglliagHLIRovwzacdejkmtus",
        strict=True,
    )
)
_SPECIAL = {
    "\u00d7": "x",
    "\u2044": "/",
    "\u2215": "/",
    "\u29f8": "/",
    "\u2212": "-",
    "\u02d7": "-",
    "\u2043": "-",
    "\u30fc": "-",
    "\u3002": ".",
    "\ua4f8": ".",
    "\u00b7": ".",
    "\u2027": ".",
    "\u2022": ".",
    "\u06d4": ".",
    "\u2028": "\n",
    "\u2029": "\n",
    "\u0085": "\n",
    "\u2236": ":",
    "\ua789": ":",
    "\u02f8": ":",
    "\u0131": "i",
    "\u00f8": "o",
    "\u00d8": "O",
    "\u0142": "l",
    "\u0141": "L",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
}


class _Readings(dict[int, str]):
    """Plain reading by code point, computed at the first use."""

    def __missing__(self, code: int) -> str:
        reading = _reading(chr(code))
        self[code] = reading
        return reading


def _reading(character: str) -> str:
    if character in "\t\n\r":
        return character
    if (special := _SPECIAL.get(character) or _LOOKALIKES.get(character)) is not None:
        return special
    if character.isascii():
        return "" if unicodedata.category(character) == "Cc" else character
    category = unicodedata.category(character)
    # Invisible: format characters, marks, selectors, tags, fillers that have no width.
    if category in ("Cf", "Cc", "Mn", "Me") or character in "\u115f\u1160\u3164\uffa0\u180e":
        # Tags spell ASCII (U+E0020 to U+E007E); a language model reads them.
        return chr(ord(character) - 0xE0000) if 0xE0020 <= ord(character) <= 0xE007E else ""
    if category == "Zs":
        return " "
    if category == "Pd":
        return "-"
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if (number := unicodedata.digit(character, None)) is not None:
        return str(number)
    decomposed = unicodedata.normalize("NFKD", character)
    if decomposed == character:
        return SUBSTITUTE
    return "".join(_reading(part) for part in decomposed)


_READINGS = _Readings()
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MAY_BE_ESCAPED = re.compile(r"[&%\\=](?=[#%a-zA-Z0-9\\/\"'\r\n@.:-])")
_ESCAPE = re.compile(
    r"""&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});?
    |%[0-7][0-9a-fA-F]|(?:%[89a-fA-F][0-9a-fA-F]){1,8}
    |=[0-7][0-9A-F]|(?:=[89A-F][0-9A-F]){1,8}|=\r?\n
    |\\u\{[0-9a-fA-F]{1,6}\}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\x[0-9a-fA-F]{2}|\\[0-3][0-7]{2}
    |\\[nrtbf"'\\/@.:-]""",
    re.VERBOSE,
)
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "", "f": ""}


@dataclass(frozen=True)
class Plain:
    text: str
    """ASCII only."""
    source: str
    starts: array[int] | None = None
    """Start of each plain character in the source; None: at the same place."""
    ends: array[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the part of the source for the plain characters from start to end."""
        starts, ends = self.places
        return (start, end) if starts is None or ends is None else (starts[start], ends[end - 1])

    @cached_property
    def places(self) -> tuple[array[int] | None, array[int] | None]:
        """Start and end in the source, computed only for the rare text with a finding."""
        if self.starts is not None or self.text is self.source:
            return self.starts, self.ends
        return _places(self.source)


def is_plain(source: str) -> bool:
    """Return whether a text is its own plain reading, escapes aside."""
    return source.isascii() and (source.isprintable() or not _UNSEEN.search(source))


def may_be_escaped(text: str) -> bool:
    # Four passes over memory cost less than one of an expression.
    if "&" not in text and "%" not in text and "\\" not in text and "=" not in text:
        return False
    return _MAY_BE_ESCAPED.search(text) is not None


def plain(source: str) -> Plain:
    """Read characters plainly; leave escapes as they are."""
    if is_plain(source):
        return Plain(source, source)
    return Plain(source.translate(_READINGS), source)


def unescaped(read: Plain) -> Plain | None:
    """Resolve escapes (HTML, URL, quoted-printable, JSON and similar), twice.

    Return None where there is nothing to resolve.
    """
    text = read.text
    if not may_be_escaped(text):
        return None
    bounds: tuple[array[int], array[int]] | None = None
    for _ in range(2):
        resolved = _resolve(text, bounds)
        if resolved is None:
            break
        text, bounds = resolved
    if bounds is None:
        return None
    outer_starts, outer_ends = read.places
    if outer_starts is not None and outer_ends is not None:
        bounds = (
            array("q", [outer_starts[i] for i in bounds[0]]),
            array("q", [outer_ends[i - 1] for i in bounds[1]]),
        )
    return Plain(text, read.source, *bounds)


def _resolve(
    text: str, bounds: tuple[array[int], array[int]] | None
) -> tuple[str, tuple[array[int], array[int]]] | None:
    parts: list[str] = []
    starts: array[int] = array("q")
    ends: array[int] = array("q")
    last = 0
    for match in _ESCAPE.finditer(text):
        character = _character(match[0])
        if character is None:
            continue
        reading = character.translate(_READINGS)
        parts += (text[last : match.start()], reading)
        starts.extend(range(last, match.start()))
        ends.extend(range(last + 1, match.start() + 1))
        starts.extend([match.start()] * len(reading))
        ends.extend([match.end()] * len(reading))
        last = match.end()
    if last == 0:
        return None
    parts.append(text[last:])
    starts.extend(range(last, len(text)))
    ends.extend(range(last + 1, len(text) + 1))
    if bounds is not None:
        outer_starts, outer_ends = bounds
        starts = array("q", [outer_starts[i] for i in starts])
        ends = array("q", [outer_ends[i - 1] for i in ends])
    return "".join(parts), (starts, ends)


def _character(escape: str) -> str | None:
    """Return the character of an escape; None: it only looks like one."""
    if escape[0] == "&":
        resolved = html.unescape(escape)
        return None if resolved == escape else resolved
    if escape[0] == "%":
        return unquote_to_bytes(escape).decode("utf-8", "replace")
    if escape[0] == "=":
        if escape[1] in "\r\n":
            return ""
        return bytes.fromhex(escape.replace("=", "")).decode("utf-8", "replace")
    body = escape[1:]
    if body[0] in "uUx" and len(body) > 1:
        code = int(body[1:].strip("{}"), 16)
        return chr(code) if code <= 0x10FFFF else None
    if body[0] in "0123":
        return chr(int(body, 8))
    return _CONTROL.get(body[0], body[0])


def _places(source: str) -> tuple[array[int], array[int]]:
    """Compute start and end in the source for each plain character.

    A character without a reading belongs to the one before it, and is replaced with it.
    """
    widths = [len(_READINGS[ord(character)]) for character in source]
    offsets = [0, *accumulate(widths)]
    starts = array("q", bytes(8 * offsets[-1]))
    ends = array("q", bytes(8 * offsets[-1]))
    for position, width in enumerate(widths):
        for place in range(offsets[position], offsets[position] + width):
            starts[place], ends[place] = position, position + 1
        if width == 0 and offsets[position]:
            ends[offsets[position] - 1] = position + 1
    return starts, ends

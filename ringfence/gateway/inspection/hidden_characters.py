"""Hidden characters: a person does not see them, a model or a terminal does.

Instructions can be written in the tag characters of Unicode, in variation selectors behind an
emoji or in zero-width characters. Bidirectional controls show text in another order. Escape
sequences move a terminal's cursor over earlier text. The ranges are written out rather than taken
from `unicodedata`, so that every version of Python knows the same characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_CLASSES = {
    "tag": "\U000e0000-\U000e007f",
    "bidi_control": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "zero_width": (
        "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f"
        "\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
        "\U000e0080-\U000e00ff\U000e01f0-\U000e0fff"
    ),
    "variation_selector": "\ufe00-\ufe0f\U000e0100-\U000e01ef",
    "escape_sequence": "\u001b\u009b\u0090\u009d",
    "control": (
        "\u0000-\u0008\u000b\u000c\u000d\u000e-\u001a\u001c-\u001f\u007f-\u008f\u0091-\u009a\u009c"
        "\u009e\u009f\u2028\u2029"
    ),
    "private_use": "\ue000-\uf8ff\U000f0000-\U0010ffff",
    "surrogate": "\ud800-\udfff",
}
"""Character classes of `re`: Default_Ignorable_Code_Point and Bidi_Control of the Unicode
Character Database, C0 and C1 but for tab and line feed, line separators, private use."""

_PATTERN = re.compile("|".join(f"(?P<{name}>[{ranges}])" for name, ranges in _CLASSES.items()))
_ANY = re.compile(f"[{''.join(_CLASSES.values())}]")
"""One class: five times as fast where there is nothing, which is nearly always."""

_TEXT_OR_EMOJI = re.compile("[\ufe0e\ufe0f]")
_KEYCAP_BASES = frozenset("#*0123456789")


def kinds(text: str) -> frozenset[str]:
    """Return the kinds of hidden characters in a text; empty for nearly every text."""
    if text.isascii() and text.isprintable():
        return frozenset()
    if _ANY.search(text) is None:
        return frozenset()
    return frozenset(match.lastgroup or "" for match in _hidden(text))


def reveal(text: str) -> str:
    """Write out every hidden character of a text, so that a terminal can show it."""
    if text.isascii() and text.isprintable():
        return text
    parts: list[str] = []
    end = 0
    for match in _hidden(text):
        parts += (text[end : match.start()], _name(match.group()))
        end = match.end()
    return "".join((*parts, text[end:]))


def _hidden(text: str) -> Iterator[re.Match[str]]:
    for match in _PATTERN.finditer(text):
        if not _is_ordinary(text, match.start()):
            yield match


def _is_ordinary(text: str, at: int) -> bool:
    """Return whether such a character belongs to visible text: an emoji, a Windows line end."""
    character = text[at]
    before = text[at - 1] if at else ""
    after = text[at + 1] if at + 1 < len(text) else ""
    if character == "\r":
        return after == "\n"
    if _TEXT_OR_EMOJI.match(character):
        return _is_symbol(before) or (character == "\ufe0f" and before in _KEYCAP_BASES)
    if character == "\u200d":
        joined = _is_symbol(before) or (before == "\ufe0f" and at > 1 and _is_symbol(text[at - 2]))
        return joined and _is_symbol(after)
    return False


def _is_symbol(character: str) -> bool:
    """Test for emoji: they are Symbol, other; their skin tones are Symbol, modifier."""
    return bool(character) and (
        unicodedata.category(character) in {"So", "Sm", "Sk"} or character in "\u203c\u2049\u3030"
    )


def _name(character: str) -> str:
    point = ord(character)
    if 0xE0020 <= point < 0xE007F:
        return f"⟦tag {chr(point - 0xE0000)!r}⟧"
    name = unicodedata.name(character, "")
    return f"⟦U+{point:04X}{' ' if name else ''}{name}⟧"

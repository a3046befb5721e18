"""Patterns of resource URIs, and the one that a URI matches.

A pattern is a URI in which `*` stands for one or more characters of one segment and the segment
`**` for one or more segments: `file:///docs/*`, `file:///logs/**`, `notes://*/public.md`. What a
wildcard stands for has no query or fragment. The most specific match counts: the one with the
most characters outside wildcards (the rule of RFC 9309, section 2.2.2).

The server gets the URI as the caller wrote it, so it is never matched in a corrected form: a URI
that another program could read as a different one matches no pattern. Examples are dot segments,
empty segments and slashes at the end (RFC 3986, section 6.2), characters that are percent-encoded
without need or twice, text that is not NFKC or not UTF-8, and backslashes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

LONGEST = 2048
"""Characters of the longest URI that can match."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")
# RFC 3986, section 2, and the braces of URI templates (RFC 6570), in which lists and completions
# name resources.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;={}%]*")
# Incomplete, in lower case (RFC 3986, section 6.2.2.1), or of a character that needs none or that
# some programs take for a separator.
_BAD_ESCAPE = re.compile(
    r"%(?![0-9A-F]{2})|%(?:2[DEF]|3[0-9]|4[1-9A-F]|5[0-9ACF]|6[1-9A-F]|7[0-9AE])"
)
# Empty, or dots alone: also as servers read it that drop path parameters, or dots and spaces at
# the end.
_BAD_SEGMENT = re.compile(r"(?:^|/)[. ]*(?:;[^/]*)?(?=/|$)")
_ROOT = re.compile(r"[a-z][a-z0-9+.-]*:/{1,3}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_OPEN_ENDED = re.compile(r"[?#]")


class ResourcePatternError(Exception):
    """A declared pattern that matches nothing, or that can be read in two ways."""


@dataclass(frozen=True)
class _Segment:
    """Text around at most one wildcard."""

    before: str
    after: str | None

    def matches(self, text: str) -> bool:
        if self.after is None:
            return text == self.before
        start, end = len(self.before), len(text) - len(self.after)
        return (
            start < end
            and text.startswith(self.before)
            and text.endswith(self.after)
            and not _OPEN_ENDED.search(text, start, end)
        )


@dataclass(frozen=True)
class _Pattern:
    text: str
    head: tuple[_Segment, ...]
    tail: tuple[_Segment, ...] | None
    """The segments after `**`; None without one."""

    def matches(self, segments: list[str]) -> bool:
        """Match in time linear in the length of the URI, whatever the pattern."""
        if self.tail is None:
            return len(segments) == len(self.head) and _all_match(self.head, segments)
        end = len(segments) - len(self.tail)
        return (
            end > len(self.head)
            and _all_match(self.head, segments[: len(self.head)])
            and _all_match(self.tail, segments[end:])
            and not any(_OPEN_ENDED.search(each) for each in segments[len(self.head) : end])
        )


class ResourcePatterns:
    """The patterns that one server declares. Raises `ResourcePatternError`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        texts = sorted(set(patterns), key=lambda text: (-len(text.replace("*", "")), text))
        self._literal = frozenset(text for text in texts if "*" not in text)
        self._patterns = tuple(_parse(text) for text in texts)

    def match(self, uri: str) -> str | None:
        """The pattern that the URI matches; None if there is none, or if the URI is ambiguous."""
        if uri in self._literal:
            return uri
        if not _is_plain(uri):
            return None
        segments = uri.split("/")
        return next((each.text for each in self._patterns if each.matches(segments)), None)


def _all_match(pattern: tuple[_Segment, ...], segments: list[str]) -> bool:
    return all(map(_Segment.matches, pattern, segments))


def _parse(text: str) -> _Pattern:
    if not _ROOT.fullmatch(text) and not _is_plain(text.removesuffix("/")):
        raise ResourcePatternError(
            f"resource pattern {text!r} can be read in more than one way: write it as"
            " scheme:..., without . or .. segments, empty segments and needless % escapes"
        )
    if not _SCHEME.match(text.partition("*")[0]):
        raise ResourcePatternError(
            f"resource pattern {text!r} has a wildcard before its scheme ends"
        )
    segments = text.split("/")
    if segments.count("**") > 1:
        raise ResourcePatternError(f"resource pattern {text!r} has ** twice: use it once")
    if any(each != "**" and each.count("*") > 1 for each in segments):
        raise ResourcePatternError(
            f"resource pattern {text!r} has two wildcards in one segment: use * once in each,"
            " or ** as a segment of its own"
        )
    parsed = tuple(_Segment(*_around(each)) for each in segments)
    if "**" not in segments:
        return _Pattern(text, parsed, None)
    at = segments.index("**")
    return _Pattern(text, parsed[:at], parsed[at + 1 :])


def _around(segment: str) -> tuple[str, str | None]:
    before, wildcard, after = segment.partition("*")
    return before, after if wildcard else None


def _is_plain(uri: str) -> bool:
    """Whether every program reads the URI alike."""
    if len(uri) > LONGEST or not _CHARACTERS.fullmatch(uri):
        return False
    if "%" in uri:
        if _BAD_ESCAPE.search(uri):
            return False
        try:
            uri = unquote_to_bytes(uri).decode()
        except UnicodeDecodeError:
            return False
        if _ESCAPE.search(uri) or not _is_plain_text(uri):
            return False
    scheme = _SCHEME.match(uri)
    if not scheme:
        return False
    rest = uri[scheme.end() :].removeprefix("//").removeprefix("/")
    return not _BAD_SEGMENT.search(rest)


def _is_plain_text(text: str) -> bool:
    return unicodedata.normalize("NFKC", text) == text and not any(
        unicodedata.category(each).startswith("C") for each in text
    )

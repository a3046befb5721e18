"""Base64 and hexadecimal in a text, decoded to what can be searched again."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from ringfence.gateway.inspection import plain_text
from ringfence.gateway.inspection.findings import Candidates

_BASE64_REST = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_STANDARD = str.maketrans("-_", "+/")
_PRINTABLE = re.compile(rb"[\x09\x0a\x0d\x20-\x7e]{12,}")


def base64_tokens(text: str, candidates: Candidates) -> Iterator[tuple[int, int, bytes]]:
    reached = 0
    for start, _ in candidates:
        if start < reached:
            continue
        begin = start
        while begin > reached and text[begin - 1] in _BASE64:
            begin -= 1
        end = _BASE64_REST.match(text, start).end()  # pyright: ignore[reportOptionalMemberAccess]
        reached = end
        token = text[begin:end].rstrip("=").translate(_STANDARD)
        # Where a group of four begins is not known when something else touches the token.
        for shift in range(4) if len(token) <= 4096 else {0, (start - begin) % 4}:
            part = token[shift:]
            part = part[: len(part) - (len(part) % 4 == 1)]
            decoded = binascii.a2b_base64(part + "=" * (-len(part) % 4))
            if _PRINTABLE.search(decoded):
                yield begin, end, decoded


def hexadecimal_tokens(text: str, candidates: Candidates) -> Iterator[tuple[int, int, bytes]]:
    for start, end in candidates:
        written = text[start:end].rstrip(" :-")
        digits = written.translate({32: None, 45: None, 58: None})
        yield start, start + len(written), bytes.fromhex(digits[: len(digits) & ~1])


def readings(decoded: bytes) -> Iterator[str]:
    try:
        read = plain_text.plain(decoded.decode())
    except UnicodeDecodeError:
        yield "\x1e".join(run.decode("ascii") for run in _PRINTABLE.findall(decoded))
        return
    yield read.text
    if (resolved := plain_text.unescaped(read)) is not None:
        yield resolved.text

"""Personal data and secrets in a plain text: where they are, and of which type.

The Rust engine of cpex-pii-filter points at candidates in linear time; what they are is decided
here, with check digits, by the expressions of `patterns.yaml`. The engine's own detectors are not
used: `docs/decisions/detector.md` has the figures.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from cpex_pii_filter.pii_filter_rust import PIIDetectorRust

from ringfence.gateway.inspection import check_digits, plain_text

MAX_CANDIDATES = 200_000
"""In one message: beyond that it is refused rather than searched for minutes."""
SHORTEST = 6
"""Characters of the shortest value without a label."""
_DECODED_DEPTH = 2
_ENGINE_BYTES = 100 * 1024 * 1024
_PATTERNS = Path(__file__).with_name("patterns.yaml")
BUILT_IN = (
    "bank_account",
    "bsn",
    "credit_card",
    "date_of_birth",
    "driver_license",
    "email",
    "ip_address",
    "medical_record",
    "passport",
    "phone",
    "ssn",
)
"""The engine's own detectors, which are off."""


class Overload(Exception):  # noqa: N818
    """More candidates than are worth looking at."""


@dataclass(frozen=True, slots=True)
class Finding:
    start: int
    end: int
    type: str
    value: str
    """What is masked: without separators where they carry nothing."""


@dataclass(frozen=True, slots=True)
class _Labelled:
    type: str
    expression: re.Pattern[str]
    check: Callable[[str], bool] | None


class Detector:
    """Patterns, compiled. Stateless between texts. Raises `Overload`, and `ValueError` for a text
    beyond 100 MiB or not ASCII."""

    def __init__(self, patterns: Path = _PATTERNS) -> None:
        document = yaml.safe_load(patterns.read_text())
        self.version: int = document["version"]
        self._scans = {name: _engine(scan) for name, scan in document["scans"].items()}
        self._secrets = [
            (entry["type"], re.compile(entry["expression"]), entry.get("check") == "jwt")
            for entry in document["secrets"]
        ]
        self._labelled = [_labelled(entry) for entry in document["labelled"]]
        self._names = re.compile(
            "|".join(f"(?:{entry['labels']})" for entry in document["labelled"]), re.IGNORECASE
        )
        self._checks: Mapping[str, Callable[[str, list[tuple[int, int]]], Iterator[Finding]]] = {
            "secrets": self._find_secrets,
            "labels": self._find_labelled,
            "addresses": _addresses,
            "numbers": _numbers,
            "networks": _networks,
            "ibans": _ibans,
            "ninos": _checked("national_id", check_digits.nino),
            "dnis": _checked("national_id", check_digits.dni),
            "codici": _checked("national_id", check_digits.codice_fiscale),
        }

    def labels(self, name: str) -> bool:
        """Whether a value under this name is judged by it."""
        return self._names.search(name) is not None

    def find(self, text: str, depth: int = 0) -> list[Finding]:
        """Findings in a plain text, by position; they may overlap."""
        if not text.isascii():
            raise ValueError("only the plain reading of a text can be searched")
        findings: list[Finding] = []
        total = 0
        for name, engine in self._scans.items():
            found = engine.detect(text)
            if not found:
                continue
            candidates = [(hit["start"], hit["end"]) for hit in found["custom"]]
            total += len(candidates)
            if total > MAX_CANDIDATES:
                raise Overload
            if (check := self._checks.get(name)) is not None:
                findings.extend(check(text, candidates))
            elif depth < _DECODED_DEPTH:
                decoder = _base64_tokens if name == "base64" else _hexadecimal_tokens
                findings.extend(self._find_encoded(text, candidates, decoder, depth))
        findings.sort(key=lambda finding: (finding.start, -finding.end))
        return findings

    def _find_secrets(self, text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
        reached = 0
        for start, _ in candidates:
            if start < reached:
                continue
            for kind, expression, is_jwt in self._secrets:
                match = expression.match(text, start)
                if match is None or (is_jwt and not _jwt(match[0])):
                    continue
                # What touches a token may be the rest of it, or of another that it hides.
                end = _REST.match(text, match.end()).end()  # pyright: ignore[reportOptionalMemberAccess]
                yield Finding(start, end, kind, match[0])
                reached = end
                break

    def _find_labelled(self, text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
        for start, _ in candidates:
            begin = start + 1 if text[start] == "_" else start
            for entry in self._labelled:
                match = entry.expression.match(text, begin)
                if match is None:
                    continue
                value = match["value"]
                if entry.check is None or entry.check(value):
                    yield Finding(*match.span("value"), entry.type, _normalised(entry.type, value))

    def _find_encoded(
        self,
        text: str,
        candidates: list[tuple[int, int]],
        tokens: Callable[[str, list[tuple[int, int]]], Iterator[tuple[int, int, bytes]]],
        depth: int,
    ) -> Iterator[Finding]:
        for start, end, decoded in tokens(text, candidates):
            for reading in _readings(decoded):
                if inner := self.find(reading, depth + 1):
                    yield Finding(start, end, inner[0].type, inner[0].value)
                    break


_REST = re.compile(r"[A-Za-z0-9_+/=~-]*")


def _engine(patterns: list[str]) -> PIIDetectorRust:
    return PIIDetectorRust(
        {f"detect_{name}": False for name in BUILT_IN}
        | {
            "max_text_bytes": _ENGINE_BYTES,
            "custom_patterns": [
                {"type": "custom", "pattern": pattern, "description": "candidate"}
                for pattern in patterns
            ],
        }
    )


_BETWEEN = (
    r"""["'`*\s:.=#()>\]|\\-]{0,8}(?:\([^()\n]{1,24}\))?["'`*\s:.=#()>\]|\\-]{1,8}"""
    r"""(?:(?:is|ist|was|number|num|no|nr|on|am|id)\b["'.:=#\s]{1,4}){0,2}"""
)
_QUOTED = r"""["'`]?\s{0,2}(?::|=|=>|:=)\s{0,2}["'`]"""


def _labelled(entry: Mapping[str, Any]) -> _Labelled:
    between = _BETWEEN
    value = entry["value"]
    end = ""
    if entry.get("quoted"):
        # In source code such names are everywhere; a value in quotes is one, a call is not.
        between, end = _QUOTED, r"""(?=["'`])"""
    check: dict[str, Callable[[str], bool]] = {
        "ssn": lambda text: check_digits.ssn(_digits(text)),
        "bsn": check_digits.bsn,
        "pesel": check_digits.pesel,
        "steuer_id": lambda text: check_digits.steuer_id(_digits(text)),
        "year": lambda text: not re.search(r"\b1[0-8]\d\d", text),
        "opaque": _opaque,
        "chosen": lambda text: not text.isidentifier() or not text.isupper(),
    }
    return _Labelled(
        entry["type"],
        re.compile(f"(?:{entry['labels']}){between}(?P<value>{value}){end}", re.IGNORECASE),
        check[entry["check"]] if "check" in entry else None,
    )


def _opaque(text: str) -> bool:
    """Not a word: Bearer and Basic are found in prose too."""
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


_SEPARATED = frozenset(
    {"ssn", "phone", "credit_card", "national_id", "iban", "passport", "bank_account"}
)
_SEPARATORS = re.compile(r"[^A-Za-z0-9]")


def _normalised(kind: str, value: str) -> str:
    if kind in _SEPARATED:
        return _SEPARATORS.sub("", value).upper()
    return value.lower() if kind in ("email", "ip_address") else value


def _jwt(token: str) -> bool:
    header = token.partition(".")[0]
    try:
        return isinstance(
            orjson.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))), dict
        )
    except (binascii.Error, ValueError):
        return False


# --- addresses -----------------------------------------------------------------------------------

_LOCAL = re.compile(r"[A-Za-z0-9_%+](?:[A-Za-z0-9._%+'-]{0,62}[A-Za-z0-9_%+'-])?$")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,8}(?:[A-Za-z]{2,24}|xn--[a-z0-9-]{2,59})")
_NO_MAILBOX = re.compile(r"@[\dx.]+x\.(?:png|jpe?g|gif|webp|svg|avif)$", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^\s/@:]{0,64}:([^\s/@]{1,256})@")
_URL_ENDS = re.compile(r"[\s/\"'<>]")
_PLACEHOLDER = re.compile(r"[<{$*]|x{3,}$|password$", re.IGNORECASE)


def _addresses(text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
    for start, end in candidates:
        if text.startswith("://", start):
            match = _PASSWORD.match(text, start)
            if match is not None and not _PLACEHOLDER.match(match[1]):
                yield Finding(*match.span(1), "url_password", match[1])
            # The engine saw this candidate where there may be a mailbox too.
            at = text.find("@", start, end)
        else:
            at = start + 1
        local = _LOCAL.search(text[max(0, at - 64) : at])
        domain = _DOMAIN.match(text, at + 1)
        if local is None or domain is None:
            continue
        begin = at - len(local[0])
        address = text[begin : domain.end()]
        if _NO_MAILBOX.search(address):
            continue
        # git@host:path is where a repository is, not somebody's mailbox.
        if local[0] in ("git", "hg") and text[domain.end() : domain.end() + 1] in (":", "/"):
            continue
        # In front of the host of a URL are its user and password, found as such.
        scheme = text.rfind("://", max(0, begin - 80), begin)
        if scheme >= 0 and not _URL_ENDS.search(text, scheme + 3, begin):
            continue
        yield Finding(begin, domain.end(), "email", address.lower())


# --- numbers -------------------------------------------------------------------------------------

_GROUP = re.compile(r"\d+")
_NUMBERS: list[tuple[str, re.Pattern[str], Callable[[str], bool] | None]] = [
    ("ssn", re.compile(r"(?<![\w.-])\d{3}([- .])\d{2}\1\d{4}(?!\w|[-.]\d)"), check_digits.ssn),
    (
        "phone",  # ITU-T E.164, section 6; 999 is a spare country code and marks our own masks
        re.compile(
            r"(?<![\w+])(?:\+|(?<!\d )00)(?!9[ .-]?9[ .-]?9)[1-9]\d{0,2}"
            r"[ ./-]?(?:\(\d{1,4}\)[ -]?)?"
            r"\d(?:(?:[ ./-]|[ ][/-][ ])?\d){5,12}(?!\d)"
        ),
        None,
    ),
    (
        "phone",  # North American Numbering Plan: area and exchange begin with 2 to 9
        re.compile(
            r"(?<![\w.+-])(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\)[ -]?|[2-9]\d{2}[ .\-/])"
            r"[2-9]\d{2}[ .-]\d{4}(?!\w|[-.]\d)"
        ),
        None,
    ),
    (
        "phone",  # DIN 5008: area code with its 0, then the subscriber
        re.compile(
            r"(?<![\w.,:-])(?<!\d )\(?0[1-9]\d{1,4}(?:\)[ ]?|[ ]?[/-][ ]?|[ ])"
            r"\d{3,}(?:[ -]?\d{2,}){0,3}(?![\w-])"
        ),
        lambda digits: 9 <= len(digits) <= 13,
    ),
    ("phone", re.compile(r"(?<![\w.+-])01[567]\d{8,9}(?![\w-])"), None),
    (
        "national_id",
        re.compile(r"(?<![\w.-])[12] ?\d\d ?\d\d ?\d\d ?\d{3} ?\d{3} ?\d\d(?![\w.-])"),
        check_digits.nir,
    ),
    (
        "national_id",
        re.compile(r"(?<![\w-])756[. ]?\d{4}[. ]?\d{4}[. ]?\d\d(?!\w)"),
        check_digits.ahv,
    ),
    ("national_id", re.compile(r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d\d(?![\w-])"), check_digits.cpf),
    ("national_id", re.compile(r"(?<![\w.-])\d{6}[-+]\d{4}(?![\w-])"), check_digits.personnummer),
]
_LATER_GROUP = re.compile(r"[^\d][+(]?\d")
_DATE = re.compile(r"(?:19|20)\d\d([-./])[01]\d\1[0-3]\d(?:[ \r\n]{1,2}[012]\d)?(?:[-.])?$")


def _numbers(text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
    for start, end in candidates:
        yield from _cards(text, start, end)
        begin = start
        # Part of something longer, such as a UUID: what is glued to it is no beginning.
        if begin and (text[begin - 1] == "-" or text[begin - 1].isalnum()):
            following = _LATER_GROUP.search(text, start, end)
            if following is None:
                continue
            begin = following.start() + 1
        if _DATE.match(text, begin, end):
            continue
        compact = _GROUP.match(text, begin, end)
        if (
            compact is not None
            and compact.end() == end
            and (text[begin] not in "0127" or text[begin - 1 : begin] == "-")
        ):
            continue
        for kind, expression, check in _NUMBERS:
            for match in expression.finditer(text, begin, min(end + 2, len(text))):
                digits = _digits(match[0])
                if match.end() <= end and (check is None or check(digits)):
                    yield Finding(*match.span(), kind, digits)


def _cards(text: str, start: int, end: int) -> Iterator[Finding]:
    groups = [match.span() for match in _GROUP.finditer(text, start, end)]
    last = len(groups) - 1
    for first, (begin, _) in enumerate(groups):
        if text[begin] not in "234568":
            continue
        # More than a card has: then only groups as printed, or all digits in one.
        if len(groups) > 19 and groups[first][1] - begin != 4 and groups[first][1] - begin < 12:
            continue
        behind_point = text[begin - 1 : begin] == "." and text[begin - 2 : begin - 1].isdigit()
        if behind_point and groups[first][1] - begin >= 12:
            continue
        sizes = ""
        total = 0
        for index in range(first, min(first + 19, len(groups))):
            width = groups[index][1] - groups[index][0]
            total += width
            if total > 19:
                break
            sizes += str(width) if width < 10 else "x"
            if total < 12:
                continue
            whole = first == 0 and index == last
            stop = groups[index][1]
            if not (len(sizes) == 1 or whole or _regular(sizes)):
                continue
            if len(sizes) == 2 and text[groups[first][1] : groups[index][0]] == ".":
                continue  # a decimal number
            digits = _digits(text[begin:stop])
            if check_digits.card(digits) and _free(text, begin, stop):
                yield Finding(begin, stop, "credit_card", digits)


def _regular(sizes: str) -> bool:
    """Groups as they are printed on cards."""
    return sizes in ("465", "464", "466") or (sizes[:-1].strip("4") == "" and sizes[-1] in "1234")


_WORD_BEFORE = re.compile(r"(?:^|[^0-9A-Za-z])[A-Za-z]{3,}$")
_WORD_AFTER = re.compile(r"[A-Za-z]{3,}(?![0-9A-Za-z])")


def _free(text: str, start: int, end: int) -> bool:
    """Not a part of something longer, such as a hash; a word may touch it."""
    if text[start - 1 : start].isalnum() and not _WORD_BEFORE.search(
        text[max(0, start - 40) : start]
    ):
        return False
    return not text[end : end + 1].isalnum() or _WORD_AFTER.match(text, end) is not None


# --- networks, accounts, persons -----------------------------------------------------------------

_DOTTED = re.compile(r"[\d.]*\d")
_VERSION = re.compile(r"(?:\bv|\bversion[ :=]{0,3}|==|@|-|/)$", re.IGNORECASE)
_HOST = re.compile(r"://(?:[^\s/]*@)?$")
_COLONS = re.compile(r"[0-9A-Fa-f:]+(?:\.\d{1,3}){0,3}")


def _networks(text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
    reached = 0
    for start, end in candidates:
        if start < reached:
            continue
        if ":" in text[start:end]:
            begin = start
            while begin and text[begin - 1] in "0123456789abcdefABCDEF:":
                begin -= 1
            match = _COLONS.match(text, begin)
            value = match[0].rstrip(":") if match else ""
            reached = begin + len(value)
            if text[begin - 1 : begin].isalnum() or len(value) < SHORTEST or len(value) > 45:
                continue
            if value.count(":") < 7 and ("::" not in value or value.count(":") < 3):
                continue
        else:
            begin = start
            while begin and text[begin - 1] in "0123456789.":
                begin -= 1
            match = _DOTTED.match(text, begin)
            value = match[0].lstrip(".") if match else ""
            begin += len(match[0]) - len(value) if match else 0
            reached = begin + len(value)
            before = text[max(0, begin - 12) : begin]
            if before[-1:].isalnum():
                continue
            if _VERSION.search(before) and not _HOST.search(text, max(0, begin - 80), begin):
                continue
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            continue
        if _somebodys(address):
            yield Finding(begin, begin + len(value), "ip_address", str(address))


def _somebodys(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Not this machine, a group, a mask, or one of our own masks (240/4, 100::/64)."""
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if address.version == 4:
        return not address.is_reserved and address.packed[0] != 0
    return address not in _DISCARD


_DISCARD = ipaddress.IPv6Network("100::/64")
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}")
_IBAN_CHARACTER = re.compile(r"[ \r\n-]{0,2}[A-Za-z0-9]")


def _ibans(text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
    for start, end in candidates:
        for match in _IBAN_START.finditer(text, start, end + 3):
            length = check_digits.IBAN_LENGTHS.get(match[0][:2].upper())
            if length is None:
                continue
            position, characters = match.end(), [match[0]]
            for _ in range(length - 4):
                following = _IBAN_CHARACTER.match(text, position)
                if following is None:
                    break
                characters.append(following[0][-1])
                position = following.end()
            value = "".join(characters).upper()
            if (
                len(value) == length
                and not text[position : position + 1].isalnum()
                and check_digits.iban(value)
            ):
                yield Finding(match.start(), position, "iban", value)


def _checked(
    kind: str, check: Callable[[str], bool]
) -> Callable[[str, list[tuple[int, int]]], Iterator[Finding]]:
    def found(text: str, candidates: list[tuple[int, int]]) -> Iterator[Finding]:
        for start, end in candidates:
            value = _SEPARATORS.sub("", text[start:end]).upper()
            if check(value):
                yield Finding(start, end, kind, value)

    return found


# --- encoded -------------------------------------------------------------------------------------

_BASE64_REST = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_STANDARD = str.maketrans("-_", "+/")
_PRINTABLE = re.compile(rb"[\x09\x0a\x0d\x20-\x7e]{12,}")


def _base64_tokens(
    text: str, candidates: list[tuple[int, int]]
) -> Iterator[tuple[int, int, bytes]]:
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


def _hexadecimal_tokens(
    text: str, candidates: list[tuple[int, int]]
) -> Iterator[tuple[int, int, bytes]]:
    for start, end in candidates:
        written = text[start:end].rstrip(" :-")
        digits = written.translate({32: None, 45: None, 58: None})
        yield start, start + len(written), bytes.fromhex(digits[: len(digits) & ~1])


def _readings(decoded: bytes) -> Iterator[str]:
    try:
        read = plain_text.plain(decoded.decode())
    except UnicodeDecodeError:
        yield "\x1e".join(run.decode("ascii") for run in _PRINTABLE.findall(decoded))
        return
    yield read.text
    if (resolved := plain_text.unescaped(read)) is not None:
        yield resolved.text

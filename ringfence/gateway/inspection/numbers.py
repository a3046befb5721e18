"""Numbers of people, accounts and cards: telephone, national, IBAN, payment card."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ringfence.gateway.inspection import check_digits
from ringfence.gateway.inspection.findings import (
    SEPARATORS,
    Candidates,
    InspectionFinding,
    digits_of,
)

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


def find_numbers(text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
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
                digits = digits_of(match[0])
                if match.end() <= end and (check is None or check(digits)):
                    yield InspectionFinding(*match.span(), kind, digits)


def _cards(text: str, start: int, end: int) -> Iterator[InspectionFinding]:
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
            digits = digits_of(text[begin:stop])
            if check_digits.card(digits) and _free(text, begin, stop):
                yield InspectionFinding(begin, stop, "credit_card", digits)


def _regular(sizes: str) -> bool:
    """Groups as they are printed on cards."""
    return sizes in ("465", "464", "466") or (sizes[:-1].strip("4") == "" and sizes[-1] in "1234")


_WORD_BEFORE = re.compile(r"(?:^|[^0-9A-Za-z])[A-Za-z]{3,}$")
_WORD_AFTER = re.compile(r"[A-Za-z]{3,}(?![0-9A-Za-z])")


def _free(text: str, start: int, end: int) -> bool:
    """Return whether a number is not part of something longer, such as a hash.

    A word may touch it.
    """
    if text[start - 1 : start].isalnum() and not _WORD_BEFORE.search(
        text[max(0, start - 40) : start]
    ):
        return False
    return not text[end : end + 1].isalnum() or _WORD_AFTER.match(text, end) is not None


_IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}")
_IBAN_CHARACTER = re.compile(r"[ \r\n-]{0,2}[A-Za-z0-9]")


def find_ibans(text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
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
                yield InspectionFinding(match.start(), position, "iban", value)


def checked(
    kind: str, check: Callable[[str], bool]
) -> Callable[[str, Candidates], Iterator[InspectionFinding]]:
    def found(text: str, candidates: Candidates) -> Iterator[InspectionFinding]:
        for start, end in candidates:
            value = SEPARATORS.sub("", text[start:end]).upper()
            if check(value):
                yield InspectionFinding(start, end, kind, value)

    return found

"""Check digits and structures of numbers of people, accounts and cards.

Each function takes digits or characters without separators and returns whether they can be such a
number. `docs/decisions/detector.md` says why these are not a library's.
"""

from __future__ import annotations

import re
from itertools import cycle

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = sum(map(int, digits[-1::-2])) + sum(_DOUBLED[int(d)] for d in digits[-2::-2])
    return total % 10 == 0


_CARD = re.compile(
    r"""4(?:\d{15}|\d{18})                                            # Visa
    |5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}  # Mastercard
    |3[47]\d{13}                                                      # American Express
    |3(?:0[0-5]|[689]\d)\d{11}(?:\d\d)?                               # Diners Club
    |6(?:011|4[4-9]\d|5\d\d)\d{12}(?:\d{3})?                          # Discover
    |35(?:2[89]|[3-8]\d)\d{12}(?:\d{3})?                              # JCB
    |(?:62|81)\d{14,17}                                               # UnionPay
    |(?:50[1236][08]|5[678]\d\d|6(?:304|7\d\d))\d{12,15}              # Maestro, as issued
    """,
    re.VERBOSE,
)


def card(digits: str) -> bool:
    """Issuer ranges of the networks, and the check digit (ISO/IEC 7812-1)."""
    return _CARD.fullmatch(digits) is not None and luhn(digits)


# Letters and digits of an IBAN by country (SWIFT IBAN registry, release 99).
IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO",
        "16": "BE",
        "18": "DK FI FO GL NL SD FK",
        "19": "MK SI",
        "20": "AT BA EE KZ LT LU XK MN",
        "21": "CH HR LI LV",
        "22": "BG BH CR DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ TL OM SO",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST",
        "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HU LB NI PL SV",
        "29": "BR EG PS QA UA",
        "30": "JO KW MU YE",
        "31": "MT SC",
        "32": "LC",
        "33": "RU",
    }.items()
    for country in countries.split()
}


def iban(characters: str) -> bool:
    """ISO 13616-1, with ISO/IEC 7064 MOD 97-10."""
    moved = characters[4:] + characters[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def ssn(digits: str) -> bool:
    """United States: numbers that were never assigned do not count (SSA, since 2011)."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return (
        area not in ("000", "666")
        and area < "900"
        and group != "00"
        and serial != "0000"
        and len(set(digits)) > 1
    )


def bsn(digits: str) -> bool:
    """Netherlands: the eleven test."""
    total = sum(w * int(d) for w, d in zip((9, 8, 7, 6, 5, 4, 3, 2, -1), digits, strict=True))
    return total % 11 == 0 and digits != "0" * 9


def pesel(digits: str) -> bool:
    """Poland."""
    total = sum(w * int(d) for w, d in zip(cycle((1, 3, 7, 9)), digits[:10], strict=False))
    return (10 - total % 10) % 10 == int(digits[10])


def steuer_id(digits: str) -> bool:
    """Germany: no zero first, ISO/IEC 7064 MOD 11,10."""
    if digits[0] == "0":
        return False
    product = 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def nir(digits: str) -> bool:
    """France: sex, year, month, place; key is 97 minus the rest modulo 97 (INSEE)."""
    month = int(digits[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42) and 97 - int(digits[:13]) % 97 == int(
        digits[13:]
    )


def ahv(digits: str) -> bool:
    """Switzerland: EAN-13 beginning 756."""
    total = sum(w * int(d) for w, d in zip(cycle((1, 3)), digits[:12], strict=False))
    return (10 - total % 10) % 10 == int(digits[12])


def cpf(digits: str) -> bool:
    """Brazil: two check digits modulo 11 (Receita Federal)."""
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        rest = sum((length + 1 - i) * int(d) for i, d in enumerate(digits[:length])) * 10 % 11 % 10
        if rest != int(digits[length]):
            return False
    return True


def dni(characters: str) -> bool:
    """Spain: DNI and NIE, the letter is the number modulo 23."""
    number = characters[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == characters[-1]


_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21) * 2
        + (2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def codice_fiscale(characters: str) -> bool:
    """Italy: month letter, check letter modulo 26 (DM 12 March 1974)."""
    if characters[8] not in "ABCDEHLMPRST":
        return False
    total = sum(_ODD[c] for c in characters[0:15:2])
    for c in characters[1:15:2]:
        total += int(c) if c.isdigit() else ord(c) - 65
    return chr(65 + total % 26) == characters[15]


_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]")


def nino(characters: str) -> bool:
    """United Kingdom (HMRC, National Insurance Manual, NIM39110)."""
    return _NINO.fullmatch(characters) is not None


def personnummer(digits: str) -> bool:
    """Sweden, ten digits: month, day, Luhn."""
    return 1 <= int(digits[2:4]) <= 12 and 1 <= int(digits[4:6]) <= 31 and luhn(digits)

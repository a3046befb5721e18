"""Check digits compared with python-stdnum: same numbers, or more where its rules are stricter.

A number that our code refuses and python-stdnum accepts would pass inspection unmasked.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.ch import ssn as ahv
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import ssn

from ringfence.gateway.inspection import check_digits

Check = Callable[[str], bool]


def of(form: str) -> st.SearchStrategy[str]:
    return st.from_regex(form, fullmatch=True).filter(str.isascii)


ONE_DIGIT_TWICE = (
    st.permutations("123456789")
    .flatmap(lambda digits: st.sampled_from(digits).map(lambda digit: [*digits, digit]))
    .map("".join)
)
"""Values in the form of the German identification number, which python-stdnum requires."""

ALIKE: dict[str, tuple[Check, Check, st.SearchStrategy[str]]] = {
    "luhn": (check_digits.luhn, luhn.is_valid, of(r"[0-9]{15}")),
    "ssn": (check_digits.ssn, ssn.is_valid, of(r"[0-9]{9}")),
    "bsn": (check_digits.bsn, bsn.is_valid, of(r"[0-9]{8}")),
    "nir": (check_digits.nir, nir.is_valid, of(r"[12][0-9]{2}(0[1-9]|1[0-2])[0-9]{8}")),
    "ahv": (check_digits.ahv, ahv.is_valid, of(r"756[0-9]{9}")),
    "cpf": (check_digits.cpf, cpf.is_valid, of(r"[0-9]{9}")),
    "dni": (check_digits.dni, dni.is_valid, of(r"[0-9]{8}")),
    "nie": (check_digits.dni, nie.is_valid, of(r"[XYZ][0-9]{7}")),
}
STRICTER: dict[str, tuple[Check, Check, st.SearchStrategy[str]]] = {
    "iban": (check_digits.iban, iban.is_valid, of(r"(DE[0-9]{20}|NL[0-9]{2}[A-Z]{4}[0-9]{10})")),
    "pesel": (check_digits.pesel, pesel.is_valid, of(r"[0-9]{2}(0[1-9]|1[0-2])[01][0-9]{5}")),
    "steuer_id": (check_digits.steuer_id, idnr.is_valid, ONE_DIGIT_TWICE),
    "codice_fiscale": (
        check_digits.codice_fiscale,
        codicefiscale.is_valid,
        of(r"[A-Z]{6}[0-9]{2}[A-EHLMPR-T][0-2][0-9][A-Z][0-9]{3}"),
    ),
    "personnummer": (
        check_digits.personnummer,
        personnummer.is_valid,
        of(r"[0-9]{2}(0[1-9]|1[0-2])[0-3][0-9]{4}"),
    ),
}
ENDINGS = {"nir": 2, "cpf": 2, "iban": 0}
LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def endings(name: str) -> list[str]:
    """Return every ending that a check may require: a letter, or some digits."""
    if name in ("dni", "nie"):
        return list(LETTERS)
    if name == "codice_fiscale":
        return [chr(65 + number) for number in range(26)]
    if name == "ssn":
        return [""]
    width = ENDINGS.get(name, 1)
    return [str(number).zfill(width) if width else "" for number in range(10**width)]


def with_digits(text: str) -> str:
    """Return an IBAN with its check digits."""
    number = "".join(str(int(c, 36)) for c in f"{text[4:]}{text[:2]}00")
    return f"{text[:2]}{98 - int(number) % 97:02}{text[4:]}"


@pytest.mark.parametrize("name", ALIKE)
@settings(max_examples=150)
@given(data=st.data())
def test_the_same_numbers_are_accepted(name: str, data: st.DataObject) -> None:
    ours, theirs, begin = ALIKE[name]
    begun = data.draw(begin)
    for ending in endings(name):
        assert ours(begun + ending) == theirs(begun + ending), begun + ending


@pytest.mark.parametrize("name", STRICTER)
@settings(max_examples=150)
@given(data=st.data())
def test_no_valid_number_is_refused(name: str, data: st.DataObject) -> None:
    ours, theirs, begin = STRICTER[name]
    begun = data.draw(begin)
    numbers = [begun + ending for ending in endings(name)]
    if name == "iban":
        numbers = [with_digits(begun)]
    valid = [number for number in numbers if theirs(number)]
    assume(valid)
    assert all(ours(number) for number in valid), valid

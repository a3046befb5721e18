"""Masks: equal for equal values, unlinkable without the key, in the form of the value."""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.gateway.inspection import plain_text
from ringfence.gateway.inspection.check_digits import IBAN_LENGTHS, card, ssn
from ringfence.gateway.inspection.detector import Detector
from ringfence.gateway.inspection.masking import Masking, Redaction

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
KINDS = ("email", "credit_card", "ssn", "iban", "phone", "ip_address", "national_id", "jwt")
DETECTOR = Detector()


@given(st.sampled_from(KINDS[:5]), st.text(min_size=1, max_size=40))
def test_the_same_value_has_the_same_mask(kind: str, value: str) -> None:
    assert Masking(KEY).replacement(kind, value, value) == Masking(KEY).replacement(
        kind, value, value
    )


def test_masks_under_another_key_tell_nothing_about_each_other() -> None:
    values = [f"person{number}@example.com" for number in range(500)]
    here = [Masking(KEY).replacement("email", value, value) for value in values]
    there = [Masking(OTHER_KEY).replacement("email", value, value) for value in values]
    assert len({*here}) == len({*there}) == len(values)
    assert not {*here} & {*there}


def test_one_value_under_two_types_has_two_masks() -> None:
    masking = Masking(KEY)
    assert (
        masking.replacement("jwt", "abc", "abc").split()[-1]
        != (masking.replacement("password", "abc", "abc").split()[-1])
    )


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        Masking(b"short")


@pytest.mark.parametrize(
    ("kind", "written", "form"),
    [
        ("email", "john@example.com", r"masked-[a-z2-7]{10}@masked\.invalid"),
        ("credit_card", "4111 1111 1111 1111", r"99\d\d \d{4} \d{4} \d{4}"),
        ("credit_card", "4111111111111111", r"99\d{14}"),
        ("ssn", "123-45-6789", r"9\d\d-\d\d-\d{4}"),
        ("phone", "+49 30 1234567", r"\+99 9\d \d{7}"),
        ("phone", "(415) 555-2671", r"\(11\d\) \d{3}-\d{4}"),
        ("phone", "030 1234567", r"000 \d{7}"),
        ("iban", "DE89 3704 0044 0532 0130 00", r"XX00( [A-Z2-7]{4}){4} [A-Z2-7]{2}"),
        ("national_id", "12345678Z", r"9\d{7}X"),
        ("aws_access_key", "AKIA" + "I" * 16, r"\[masked: aws_access_key [a-z2-7]{10}\]"),
        ("date_of_birth", "1990-01-15", r"18\d\d-\d\d-\d\d"),
        ("date_of_birth", "15.01.1990", r"\d\d\.\d\d\.18\d\d"),
    ],
)
def test_a_mask_keeps_the_form(kind: str, written: str, form: str) -> None:
    assert re.fullmatch(form, Masking(KEY).replacement(kind, written, written))


@given(st.binary(min_size=32, max_size=32))
def test_masks_lie_where_no_value_can(key: bytes) -> None:
    masking = Masking(key)

    def mask(kind: str, value: str) -> str:
        return masking.replacement(kind, value, value)

    assert date.fromisoformat(mask("date_of_birth", "1990-01-31")).year < 1900
    assert card("4111111111111111")
    assert not card(mask("credit_card", "4111111111111111"))
    assert ssn("123456789")
    assert not ssn(mask("ssn", "123456789"))
    assert mask("iban", "DE89370400440532013000")[:2] not in IBAN_LENGTHS
    assert ipaddress.ip_address(mask("ip_address", "203.0.113.9")).is_reserved
    v6 = ipaddress.ip_address(mask("ip_address", "2001:db8::1"))
    assert v6 in ipaddress.ip_network("100::/64")


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("email", "john@example.com"),
        ("credit_card", "4111 1111 1111 1111"),
        ("ssn", "123-45-6789"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("ip_address", "203.0.113.9"),
        ("ip_address", "2001:db8::8a2e:370:7334"),
        ("phone", "(415) 555-2671"),
        ("phone", "+49 30 1234567"),
    ],
)
def test_a_mask_is_not_found_again(kind: str, written: str) -> None:
    """Except for an e-mail address: its mask is an address at a domain that cannot exist."""
    assert [f.type for f in DETECTOR.find(written)][:1] == [kind]
    for salt in range(200):
        masked = Masking(bytes([salt]) * 32).replacement(kind, written, written)
        expected = ["email"] if kind == "email" else []
        assert [f.type for f in DETECTOR.find(masked)] == expected, masked


def test_masks_do_not_break_json_around_them() -> None:
    for kind in KINDS:
        for written in ("4111111111111111", 'x"\\'):
            json.loads(f'"{Masking(KEY).replacement(kind, "v", "4155552671")}"')
            json.loads(f'"{Redaction().replacement(kind, written, written)}"')
    assert json.loads(Masking(KEY).replacement("phone", "4155552671", "4155552671")) > 10**9


def test_a_redaction_says_the_type_alone() -> None:
    assert Redaction().replacement("email", "a@b.co", "a@b.co") == "[redacted: email]"


def test_every_scalar_value_has_a_plain_reading_in_ascii() -> None:
    for start in range(0, 0x110000, 0x10000):
        source = "".join(map(chr, range(start, start + 0x10000)))
        assert plain_text.plain(source).text.isascii()

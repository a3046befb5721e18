"""Only its owner can use a session; a foreign session looks the same as one that does not exist."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ringfence.gateway.protocol import sessions
from ringfence.gateway.refusals import Refusal

KEY = bytes(range(32))
OWN = "1868a90c-7d5e-4e5b-8a4c-6f2f6c1b9f0e"


def refusal(sealed: str, principal: str = "carol", server: str = "time", key: bytes = KEY) -> str:
    with pytest.raises(Refusal) as caught:
        sessions.open(key, sealed, principal, server)
    assert caught.value.status == 404
    return repr(caught.value)


ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)


@given(ids, st.text(), st.text(max_size=10))
def test_the_owner_opens_it(own: str, principal: str, server: str):
    sealed = sessions.seal(KEY, own, principal, server)
    assert re.fullmatch(r"[\x21-\x7e]+", sealed)
    assert sessions.open(KEY, sealed, principal, server) == own


def test_the_same_session_has_the_same_id_at_every_gateway():
    assert sessions.seal(KEY, OWN, "carol", "time") == sessions.seal(KEY, OWN, "carol", "time")


def test_whatever_is_wrong_the_answer_is_the_same():
    sealed = sessions.seal(KEY, OWN, "carol", "time")
    answers = {
        refusal(sealed, principal="dave"),
        refusal(sealed, server="files"),
        refusal(sealed, key=KEY[::-1]),
        refusal(sealed[:-1]),
        refusal("A" + sealed[1:] if sealed[0] != "A" else "B" + sealed[1:]),
        refusal(sealed + "x"),
        refusal(sealed[:43]),
        refusal(OWN),
        refusal(""),
        refusal("é" * 80),
        refusal("\ud800" * 80),
        refusal("x" * 10**6),
        refusal(f"{'A' * 43}\0"),
    }
    assert len(answers) == 1


@given(ids, st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_other_principal_or_server_opens_it(own: str, a: str, b: str, c: str, d: str):
    """Even if the concatenated parts are the same text."""
    assume((a, b) != (c, d))
    refusal(sessions.seal(KEY, own, a, b), principal=c, server=d)


def test_parts_that_run_together_are_different():
    sealed = sessions.seal(KEY, "x" * 8, "ab", "c")
    refusal(sealed, principal="a", server="bc")
    code, own = sealed[:43], sealed[43:]
    refusal(code + own[:-1], principal=own[-1] + "ab", server="c")


@given(st.integers(0, 78), st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_no_changed_character_passes(at: int, other: str):
    sealed = sessions.seal(KEY, OWN, "carol", "time")
    assume(sealed[at] != other)
    refusal(sealed[:at] + other + sealed[at + 1 :])


@pytest.mark.parametrize("own", ["", "a b", "a\nb", "é", "\x7f", "x" * 1025])
def test_an_id_that_mcp_does_not_allow_is_not_sealed(own: str):
    with pytest.raises(Refusal) as caught:
        sessions.seal(KEY, own, "carol", "time")
    assert caught.value.status == 502


def test_a_key_that_could_be_guessed_is_refused():
    with pytest.raises(ValueError, match="31 bytes"):
        sessions.seal(KEY[:31], OWN, "carol", "time")

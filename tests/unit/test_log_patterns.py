"""Evaluation of metric filters' patterns, compared with the examples in AWS's documentation."""

from __future__ import annotations

import pytest

from ringfence.verify.account.log_patterns import LogPatternError, matches

GET = "127.0.0.1 Prod frank 10/Oct/2000:13:25:15 /index.html 404 1534"
CASES = (
    ("[ip, user, username, timestamp, request =*.html*, status_code = 4*, bytes]", GET, True),
    ("[ip, user, username, timestamp, request =*.php*, status_code = 4*, bytes]", GET, False),
    ("[..., request =*.html*, status_code = 4*, bytes]", GET, True),
    ("[..., status_code = 404 || status_code = 410, bytes]", GET, True),
    ("[..., status_code = 403 || status_code = 410, bytes]", GET, False),
    ("[..., status_code >= 400 && status_code < 404, bytes]", GET, False),
    ("[..., status_code >= 400 && status_code < 405, bytes]", GET, True),
    ("[ip=127.0.*, ...]", GET, True),
    ("[ip=127.0, ...]", GET, False),
    ("[ip=12740*, ...]", GET, False),
    ("[ip, user, username, timestamp, request, status_code, bytes, ...]", GET, True),
    ("[ip, user, username, timestamp, request, status_code, bytes, more, ...]", GET, False),
    ("[ip, user]", GET, False),
    ("[w1=ERROR || w1=WARNING, w2]", "WARNING late", True),
    ("[w1!=ERROR && w1!=WARNING, w2]", "INFO late", True),
    ("[w1!=ERROR && w1!=WARNING, w2]", "WARNING late", False),
    ("[number > 5, ...]", "- x", False),
)


@pytest.mark.parametrize(("pattern", "record", "expected"), CASES)
def test_a_pattern_is_evaluated(pattern: str, record: str, expected: bool) -> None:
    assert matches(pattern, record) == expected


@pytest.mark.parametrize(
    "pattern",
    ["REJECT", '{ $.a = "b" }', r"[ip=%127\.0\.0\.[1-9]%, ...]", "[..., a=1, ...]", "[a=, ...]"],
)
def test_what_is_not_known_is_an_error(pattern: str) -> None:
    with pytest.raises(LogPatternError):
        matches(pattern, GET)

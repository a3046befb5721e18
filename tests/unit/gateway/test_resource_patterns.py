"""Matching of resources to patterns, and URIs that another program would read differently."""

from __future__ import annotations

import posixpath
import time
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.gateway.policy.resource_patterns import (
    LONGEST,
    ResourcePatternError,
    ResourcePatterns,
)

DECLARED = (
    "file:///docs/*",
    "file:///docs/secret.txt",
    "file:///logs/**",
    "file:///logs/**/private/*.log",
    "notes://*/public.md",
    "notes://alice/*",
    "urn:item:*",
    "config://",
    "db://main/?table=*",
    "file:///shares/",
)


@pytest.fixture(scope="module")
def patterns() -> ResourcePatterns:
    return ResourcePatterns(DECLARED)


@pytest.mark.parametrize(
    ("uri", "pattern"),
    [
        ("file:///docs/a.txt", "file:///docs/*"),
        ("file:///docs/.hidden", "file:///docs/*"),
        ("file:///docs/caf%C3%A9", "file:///docs/*"),
        ("file:///docs/a%20b", "file:///docs/*"),
        ("file:///docs/{name}", "file:///docs/*"),
        ("file:///docs/secret.txt", "file:///docs/secret.txt"),
        ("file:///docs/a/b", None),
        ("file:///docs/", None),
        ("file:///docs", None),
        ("file:///logs/a", "file:///logs/**"),
        ("file:///logs/a/b/c", "file:///logs/**"),
        ("file:///logs/private/a.log", "file:///logs/**"),
        ("file:///logs/a/public/a.log", "file:///logs/**"),
        ("file:///logs/a/private/a.log", "file:///logs/**/private/*.log"),
        ("file:///logs/a/b/private/.log", "file:///logs/**"),
        ("file:///logs", None),
        ("notes://bob/public.md", "notes://*/public.md"),
        ("notes://alice/public.md", "notes://*/public.md"),
        ("notes://alice/mine.md", "notes://alice/*"),
        ("notes://bob/mine.md", None),
        ("urn:item:7", "urn:item:*"),
        ("urn:item:", None),
        ("config://", "config://"),
        ("config:///", None),
        ("db://main/?table=a", "db://main/?table=*"),
        ("db://main/?table=a?b", None),
        ("file:///docs/a?b", None),
        ("file:///docs/a#b", None),
        ("file:///logs/a?b/c", None),
        ("file:///shares/", "file:///shares/"),
        ("file:///etc/passwd", None),
        ("", None),
    ],
)
def test_the_most_specific_pattern_is_found(patterns, uri, pattern):
    assert patterns.match(uri) == pattern


DIFFERENT_ELSEWHERE = [
    "file:///logs/../docs/secret.txt",
    "file:///logs/x/../../docs/secret.txt",
    "file:///logs/%2e%2e/docs/secret.txt",
    "file:///logs/%2E%2E/docs/secret.txt",
    "file:///logs/.%2E/docs/secret.txt",
    "file:///logs/..%2Fdocs/secret.txt",
    "file:///logs/%252e%252e/docs/secret.txt",
    "file:///logs/%25252e%25252e/docs/secret.txt",
    "file:///logs/..%5Cdocs",
    "file:///logs/..\\docs",
    "file:///logs/..;/docs/secret.txt",
    "file:///logs/..;a=b/docs/secret.txt",
    "file:///logs/..%20/docs/secret.txt",
    "file:///logs/..%00/docs",
    "file:///logs/a%00.txt",
    "file:///logs/a\x00",
    "file:///logs/a%0Ab",
    "file:///logs/%C0%AE%C0%AE/docs",
    "file:///logs/%EF%BC%8E%EF%BC%8E/docs",
    "file:///logs/\uff0e\uff0e/docs",
    "file:///logs/%E2%80%AEtxt",
    "file:///logs/e%CC%81",
    "file:///logs/./a",
    "file:///logs/.../a",
    "file:///logs//a",
    "file:////logs/a",
    "file:///logs/a/",
    "file:///logs/%61",
    "file:///logs/a%2",
    "file:///logs/%c3%a9",
    "file:///logs/é",
    "file:///logs/a b",
    " file:///logs/a",
    "file:///logs/a\n",
    "FILE:///logs/a",
    "File:///docs/secret.txt",
    "file:///DOCS/a",
    "file://localhost/logs/a",
    "file://../logs/a",
    "notes://./public.md",
    "notes://../public.md",
    "notes://%2e%2e/public.md",
    "urn:item:%2e%2e/%2e%2e/etc",
    "urn:item:../etc",
]


@pytest.mark.parametrize("uri", DIFFERENT_ELSEWHERE)
def test_a_uri_that_another_program_could_read_as_another_belongs_to_no_pattern(patterns, uri):
    assert patterns.match(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "file:///docs/../etc/passwd",
        "file:///docs/%2e%2e/etc/passwd",
        "file:///docs//../../etc/passwd",
    ],
)
def test_a_glob_over_text_lets_them_through(uri):
    """Attacks that the patterns refuse: a server that resolves paths would leave its directory."""
    assert fnmatchcase(uri, "file:///docs/*")
    assert posixpath.normpath(unquote(urlsplit(uri).path)) == "/etc/passwd"
    assert ResourcePatterns(["file:///docs/**"]).match(uri) is None


@pytest.mark.parametrize("uri", ["file:////etc/a", "file:///", "file:///a//b", "file:///a/"])
def test_double_wildcards_stand_for_no_empty_segments(uri):
    assert ResourcePatterns(["file:///**"]).match(uri) is None


@given(
    st.lists(
        st.sampled_from(
            ["a", "..", ".", "%2e", "%2E", "%2F", "%5C", "/", "//", ";", "%00", "%25", "2e", " "]
        ),
        max_size=8,
    ).map("".join)
)
def test_what_matches_stays_below_its_directory_however_often_it_is_decoded(tail):
    uri = f"file:///docs/{tail}"
    if ResourcePatterns(["file:///docs/**"]).match(uri) is None:
        return
    path = urlsplit(uri).path
    for _ in range(4):
        path = unquote(path)
        assert posixpath.normpath(path.replace("\\", "/")).startswith("/docs/")
        assert "/../" not in f"{path}/".replace(";", "/")


def test_that_property_sees_uris_that_match():
    assert ResourcePatterns(["file:///docs/**"]).match("file:///docs/a/a;a")


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "**",
        "f*://a",
        "/docs/*",
        "FILE:///docs/*",
        "file:///docs/../*",
        "file:///docs//*",
        "file:///docs/%64/*",
        "file:///docs/é/*",
        "file:///a/**/b/**",
        "file:///a/*b*",
        "file:///a/**b",
        "",
    ],
)
def test_a_pattern_that_matches_nothing_or_two_things_is_refused(pattern):
    with pytest.raises(ResourcePatternError, match="resource pattern"):
        ResourcePatterns([pattern])


def test_neither_long_uris_nor_many_wildcards_cost_time():
    patterns = ResourcePatterns(["file:///a*a/*a/**/a*a/*/a*b", "file:///a/**/b*c"])
    uri = "file:///" + "aa/" * 2000
    assert patterns.match(uri + "a") is None  # too long
    fits = uri[: LONGEST - 1].removesuffix("/") + "a"
    began = time.process_time()
    for _ in range(20):
        assert patterns.match(fits) is None
    assert (time.process_time() - began) / 20 < 0.02


def test_the_longest_uri_still_matches(patterns):
    uri = "file:///docs/".ljust(LONGEST, "a")
    assert patterns.match(uri) == "file:///docs/*"
    assert patterns.match(f"{uri}a") is None

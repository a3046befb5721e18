"""Strict JSON: every accepted document has exactly one reading."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pydantic_core
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.gateway.protocol import strict_json
from ringfence.gateway.refusals import Refusal
from tests.unit.gateway import json_readers

DEPTH = 64
FOLDER = Path(__file__).parent / "documents"
GO = shutil.which("go")
DOCUMENTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "json.yaml").read_text())
REFUSED = [each for each in DOCUMENTS if each["ours"] != "accepted"]
ACCEPTED = [each for each in DOCUMENTS if each["ours"] == "accepted"]
BEYOND_JAVASCRIPT = {"largest integer"}
"""Node rounds integers beyond 53 bits; the gateway limits protocol fields elsewhere."""


def named(document: Mapping[str, Any]) -> str:
    return document["name"]


def verdict(body: bytes, depth: int = DEPTH, what: strict_json.What = "request") -> Refusal | None:
    try:
        strict_json.parse(body, depth=depth, what=what)
    except Refusal as refusal:
        return refusal
    return None


def reason(body: bytes, depth: int = DEPTH) -> str | None:
    refusal = verdict(body, depth)
    return refusal and refusal.reason


def value(shown: str) -> Any:
    return shown if shown == "error" or shown.endswith(" characters") else json.loads(shown)


def same(one: Any, other: Any) -> bool:
    """Compare values, and their types where JSON has types; -0.0 and 0 are one number."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(same(each, other[name]) for name, each in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@pytest.mark.parametrize("document", REFUSED, ids=named)
def test_refuses(document: dict[str, Any]):
    assert reason(json_readers.body(document)) == document["ours"]


@pytest.mark.parametrize("document", ACCEPTED, ids=named)
def test_accepts_and_sends_on_what_it_read(document: dict[str, Any]):
    body = json_readers.body(document)
    parsed = strict_json.parse(body, depth=DEPTH)
    assert same(parsed, json.loads(body))
    again = strict_json.serialise(parsed)
    assert same(strict_json.parse(again, depth=DEPTH), parsed)
    for read in (json.loads, orjson.loads, pydantic_core.from_json):
        assert same(read(again), parsed)


def test_the_documents_are_a_test_of_something():
    """Baseline: other parsers accept the documents that ours refuses, and read them differently."""
    assert len(DOCUMENTS) >= 60
    assert len({each["name"] for each in DOCUMENTS}) == len(DOCUMENTS)
    differing = [each for each in REFUSED if len(set(each["read"].values())) > 1]
    assert len(differing) >= 20, [each["name"] for each in differing]
    passing = [each for each in REFUSED if each["read"]["json"] != "error"]
    assert len(passing) >= 35, [each["name"] for each in passing]


@pytest.mark.parametrize("document", ACCEPTED, ids=named)
def test_what_is_accepted_is_read_alike_by_all(document: dict[str, Any]):
    if document["name"] in BEYOND_JAVASCRIPT:
        assert value(document["read"]["node"]) != value(document["read"]["json"])
        return
    readings = [value(each) for each in document["read"].values()]
    assert all(same(readings[0], each) for each in readings[1:])


@pytest.mark.parametrize("parser", json_readers.PYTHON)
def test_the_readings_on_record_are_those_of_parsers_in_python(parser: str):
    read = json_readers.PYTHON[parser]
    for document in DOCUMENTS:
        assert read(json_readers.body(document)) == document["read"][parser], document["name"]


@pytest.mark.skipif(json_readers.NODE is None, reason="Node is not on PATH")
def test_the_readings_on_record_are_those_of_node():
    live = json_readers.node([json_readers.body(each) for each in DOCUMENTS])
    for document, read in zip(DOCUMENTS, live, strict=True):
        assert read == document["read"]["node"], document["name"]


@pytest.mark.skipif(GO is None, reason="Go is not on PATH")
def test_go_takes_names_in_another_case_for_those_that_mcp_defines():
    """Baseline of `ambiguous_key`: a server in Go would use a member that Python does not see."""
    documents = {each["name"]: json_readers.body(each) for each in DOCUMENTS}
    attacks = {
        "method in capitals too": lambda read: read["Method"] == "tools/call",
        "method in capitals alone": lambda read: read["Method"] == "tools/call",
        "long s in params": lambda read: read["Params"]["Name"] == "a",
        "Kelvin sign in task": lambda read: read["Params"]["Task"] == {},
        "name in capitals": lambda read: read["Params"]["Name"] == "dangerous",
        "_META": lambda read: read["Params"]["_meta"] == {},
        "reference in capitals": lambda read: read["Params"]["Ref"]["Name"] == "b",
        "subscriptions in capitals": lambda read: (
            read["Params"]["Notifications"]["ResourceSubscriptions"] == ["file:///secret"]
        ),
    }
    done = subprocess.run(
        ["go", "run", FOLDER / "envelope.go"],
        env=os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local"},
        input=json.dumps([base64.b64encode(documents[name]).decode() for name in attacks]),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    for (name, succeeded), read in zip(attacks.items(), json.loads(done.stdout), strict=True):
        assert succeeded(read), name
        assert reason(documents[name]) == "ambiguous_key", name


# Documents as text, so that they include what no serialiser writes: names that repeat or fold
# together, escapes, numbers of any length.
names = st.sampled_from(
    [
        "name",
        "Name",
        "n\\u0061me",
        "method",
        "METHOD",
        "arguments",
        "argument\u017f",
        "_meta",
        "",
        "a",
    ]
) | st.text(max_size=4).map(lambda text: json.dumps(text)[1:-1])
numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)
scalars = (
    numbers
    | st.sampled_from(["true", "false", "null", '"\\u0000"', '"\\ud800"', '"\\\\"', '"\\\\\\""'])
    | st.text(max_size=8).map(json.dumps)
    | st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False))
)
texts = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda each: f"[{','.join(each)}]")
        | st.lists(st.tuples(names, inner), max_size=5).map(
            lambda each: "{" + ", ".join(f'"{name}":{value}' for name, value in each) + "}"
        )
    ),
    max_leaves=24,
)


class TwiceError(Exception):
    """A member occurs twice."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise TwiceError
    return dict(pairs)


def is_ours(text: str) -> bool:
    """Apply the rules again, slowly, except those about case, to documents that json can parse."""
    try:
        document = json.loads(text, object_pairs_hook=once)
    except TwiceError:
        return False
    return all(map(is_plain, parts(document)))


def parts(document: Any) -> list[Any]:
    if isinstance(document, dict):
        return [each for pair in document.items() for part in pair for each in parts(part)]
    if isinstance(document, list):
        return [each for part in document for each in parts(part)]
    return [document]


def is_plain(part: Any) -> bool:
    if isinstance(part, str):
        return "\0" not in part and not re.search("[\ud800-\udfff]", part)
    if isinstance(part, float):
        return part - part == 0
    return not isinstance(part, int) or -(2**63) <= part < 2**63


@given(texts)
@example('{"a":1.0,"b":{"a":-9223372036854775808}}')
@example("[1e308,1e309]")
@example('{"a\\\\":"\\\\","a\\\\":1}')
@example('{"method":"\\\\\\"","x":{":":":"}}')
def test_exactly_what_the_rules_say_is_accepted(text: str):
    body = text.encode("utf-8", "surrogatepass")
    refused = reason(body)
    if refused == "ambiguous_key":
        return
    assert (refused is None) == is_ours(text), refused
    if refused is None:
        document = strict_json.parse(body, depth=DEPTH)
        assert same(document, json.loads(text))
        sent = strict_json.serialise(document)
        for read in (json.loads, orjson.loads, pydantic_core.from_json):
            assert same(read(sent), document)


@given(st.binary(max_size=64) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_document_or_a_refusal(body: bytes):
    refusal = verdict(body, 8)
    if refusal:
        assert (refusal.status, refusal.code) == (400, -32700)
    else:
        assert strict_json.serialise(strict_json.parse(body, depth=8))


@given(texts, st.integers(0, 6))
def test_depth_is_counted_exactly(text: str, depth: int):
    def deep(part: Any) -> int:
        if not isinstance(part, dict | list):
            return 0
        inner = part.values() if isinstance(part, dict) else part
        return 1 + max(map(deep, inner), default=0)

    try:
        document = json.loads(text, object_pairs_hook=once)
    except TwiceError:
        return
    too_deep = reason(text.encode(errors="replace"), depth) == "nesting"
    assert too_deep == (deep(document) > depth)


@pytest.mark.parametrize("level", ["{}", '"params":{}', '"params":{"_meta":{}}', '"result":{}'])
@pytest.mark.parametrize("pair", ['"Ss":1,"\u017fs":2', '"k":1,"\u212a":2', '"I":1,"\u0131":2'])
def test_two_names_that_fold_together_are_refused_where_mcp_names_members(level: str, pair: str):
    document = "{" + level.replace("{}", "{" + pair + "}") + "}" if level != "{}" else f"{{{pair}}}"
    assert len(json.loads(document)) > 0
    assert reason(document.encode()) == "ambiguous_key"
    assert strict_json.parse(f'{{"x":{document}}}'.encode(), depth=DEPTH)


def test_names_that_mcp_defines_do_not_fold_together():
    levels = [each for each in vars(strict_json).values() if isinstance(each, strict_json._Names)]
    assert len(levels) >= 4
    for level in levels:
        assert len(level.folded) == len(level.exact)


def test_the_server_is_to_blame_for_its_result():
    refusal = verdict(b"{", what="result")
    assert refusal
    assert refusal.status == 502
    assert refusal.message.startswith("the server behind the gateway sent a result")


def test_a_refusal_repeats_nothing_of_the_document():
    refusal = verdict(b'{"hunter2":1,"hunter2":2}')
    assert refusal
    assert "hunter2" not in repr(refusal)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2**20,
        b"[" * 2**19 + b"]" * 2**19,
        b"[[[[[[[[" * 2**14 + b"]]]]]]]]," * 2**14,
        b"[" + b"[],{}," * 2**17 + b"[]]",
        b'"' + b"\\\\" * 2**19 + b'"',
        b'{"":' * 2**17,
        b"9" * 2**20,
        b"[" + b"1e5," * 2**18 + b"1]",
        b"[" + b"1234567890123456789," * 2**15 + b"1]",
    ],
    ids=lambda body: body[:12].decode(),
)
def test_a_mebibyte_of_anything_is_answered_soon(body: bytes):
    """No input costs more than a small multiple of its length: here below 2 µs a byte."""
    started = time.process_time()
    verdict(body)
    assert time.process_time() - started < 2


def test_what_is_no_json_is_not_sent():
    for document in ({1: 2}, "\ud800", 2**64, object()):
        with pytest.raises(TypeError):
            strict_json.serialise(document)

"""Requirements of MCP's specification for a POST, and the parsing of its requests."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mcp.shared import inbound
from mcp_types import methods as sdk

from ringfence.gateway.protocol import mirrored_headers, request_line, requests
from ringfence.gateway.protocol.methods import MODERN, OLDER, REQUESTS
from ringfence.gateway.protocol.mirrored_headers import ParamHeader
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.refusals import Refusal

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META = {VERSION: MODERN, CAPABILITIES: {}}
NOW = frozenset({MODERN})
OLD = "2025-11-25"
BOTH = frozenset({MODERN, OLD})
ALL = frozenset({MODERN, *OLDER})

Headers = dict[str, str | bytes | None]


def request(method: str = "tools/call", /, **params: Any) -> dict[str, Any]:
    if method == "tools/call":
        params = {"name": "convert_time", "arguments": {"time": "12:30"}} | params
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": META} | params}


def older(method: str, /, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def headers_of(document: Any, **changed: str | bytes | None) -> list[tuple[bytes, bytes]]:
    """Build a client's headers. `changed`: by name with underscores; None removes a header."""
    method = document.get("method") if isinstance(document, dict) else None
    params = document.get("params") if isinstance(document, dict) else None
    name = (params.get("name") or params.get("uri")) if isinstance(params, dict) else None
    fields: Headers = {
        "content_type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp_protocol_version": MODERN,
        "mcp_method": str(method),
        "mcp_name": None,
    }
    if method in ("tools/call", "prompts/get", "resources/read") and isinstance(name, str):
        fields["mcp_name"] = mirrored_headers.encode(name)
    return wire(fields | changed)


def wire(fields: Headers) -> list[tuple[bytes, bytes]]:
    return [
        (name.replace("_", "-").encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in fields.items()
        if value is not None
    ]


def old_headers(version: str | None = OLD, **more: str | bytes | None) -> list[tuple[bytes, bytes]]:
    fields: Headers = {
        "content_type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp_protocol_version": version,
    }
    return wire(fields | more)


def read(
    document: Any,
    headers: list[tuple[bytes, bytes]] | None = None,
    versions: frozenset[str] = NOW,
) -> Call:
    headers = headers_of(document) if headers is None else headers
    return requests.read(headers, document, server="time", versions=versions)


def refused(
    document: Any,
    headers: list[tuple[bytes, bytes]] | None = None,
    versions: frozenset[str] = NOW,
) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(document, headers, versions)
    return caught.value


def answer(refusal: Refusal) -> tuple[int, int]:
    return refusal.status, refusal.code


def test_a_call_of_a_tool_is_read():
    document = request()
    call = read(document)
    assert call == Call(
        server="time",
        version=MODERN,
        id=1,
        method="tools/call",
        params=document["params"],
        kind="tool",
        name="convert_time",
        document=document,
    )


@pytest.mark.parametrize(
    ("method", "params", "kind", "name"),
    [
        ("server/discover", {}, "server", None),
        ("tools/list", {"cursor": "x"}, "server", None),
        ("prompts/list", {}, "server", None),
        ("resources/list", {}, "server", None),
        ("resources/templates/list", {}, "server", None),
        ("prompts/get", {"name": "review", "arguments": {"a": "b"}}, "prompt", "review"),
        ("resources/read", {"uri": "file:///docs/a"}, "resource", "file:///docs/a"),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "review"}, "argument": {}},
            "prompt",
            "review",
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "file:///{path}"}, "argument": {}},
            "resource",
            "file:///{path}",
        ),
    ],
)
def test_every_method_says_what_it_is_about(
    method: str, params: dict[str, Any], kind: str, name: str | None
):
    call = read(request(method, **params))
    assert (call.kind, call.name, call.resources) == (kind, name, ())


def test_a_subscription_says_each_resource_it_is_for():
    uris = ["file:///docs/a", "file:///secret"]
    wanted = {"toolsListChanged": True, "resourceSubscriptions": uris}
    call = read(request("subscriptions/listen", notifications=wanted))
    assert (call.kind, call.name, call.resources) == ("server", None, tuple(uris))
    none = read(request("subscriptions/listen", notifications={}))
    assert none.resources == ()


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        [],
        {"taskIds": ["786512e2"]},
        {"toolsListChanged": "yes"},
        {"resourceSubscriptions": "file:///secret"},
        {"resourceSubscriptions": [["file:///secret"]]},
        {"resourceSubscriptions": [""]},
        {"resourceSubscriptions": None},
    ],
)
def test_a_filter_of_which_a_part_could_not_be_authorised_is_refused(wanted: Any):
    document = request("subscriptions/listen", notifications=wanted)
    assert answer(refused(document)) == (400, -32602)


@pytest.mark.parametrize(
    "reference",
    [
        None,
        "review",
        {},
        {"type": "ref/tool", "name": "a"},
        {"type": "ref/prompt"},
        {"type": "ref/prompt", "name": "a", "uri": "file:///secret"},
        {"type": "ref/resource", "name": "a", "uri": "file:///secret"},
        {"type": "ref/resource", "name": "a"},
        {"type": ["ref/prompt"], "name": "a"},
    ],
)
def test_a_reference_that_does_not_say_to_what_is_refused(reference: Any):
    assert answer(refused(request("completion/complete", ref=reference))) == (400, -32602)


def test_the_methods_are_those_of_the_specification():
    """The official SDK's list, so that a new method is noticed; tasks are not offered."""
    for version, methods in REQUESTS.items():
        known = {method for method, each in sdk.CLIENT_REQUESTS if each == version}
        assert set(methods) == known, version


@pytest.mark.parametrize(
    "method",
    [
        "tasks/get",
        "tasks/update",
        "tasks/cancel",
        "tasks/list",
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "Tools/call",
        "sampling/createMessage",
        "rpc.discover",
    ],
)
def test_an_unknown_method_is_not_found(method: str):
    document = request(method, name="convert_time", taskId="x", uri="file:///a")
    # A client of the extension for tasks sends Mcp-Name too.
    assert answer(refused(document)) == (404, -32601)
    assert answer(refused(document, headers_of(document, mcp_name="x"))) == (404, -32601)


# JSON-RPC


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([request()], "batch"),
        ([], "batch"),
        ("tools/call", "no_object"),
        (None, "no_object"),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, "client_response"),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": ""}}, "client_response"),
        (request() | {"result": {}}, "client_response"),
        (request() | {"extra": 1}, "unknown_member"),
        (request() | {"jsonrpc": "1.0"}, "jsonrpc"),
        (request() | {"jsonrpc": 2.0}, "jsonrpc"),
        ({each: value for each, value in request().items() if each != "jsonrpc"}, "jsonrpc"),
        (request() | {"method": None}, "method"),
        (request() | {"method": ""}, "method"),
        (request() | {"method": ["tools/call"]}, "method"),
        (request() | {"id": None}, "id"),
        (request() | {"id": True}, "id"),
        (request() | {"id": 1.0}, "id"),
        (request() | {"id": [1]}, "id"),
        (request() | {"id": 2**53}, "id"),
        (request() | {"id": -(2**53)}, "id"),
        (request() | {"params": None}, "params"),
        (request() | {"params": ["convert_time"]}, "params"),
        ({"jsonrpc": "2.0", "method": "tools/call", "params": {"_meta": META}}, "no_id"),
    ],
)
def test_what_is_no_request_is_invalid(document: Any, reason: str):
    refusal = refused(document, headers_of(document, mcp_method="tools/call", mcp_name=None))
    assert (answer(refusal), refusal.reason) == ((400, -32600), reason)


@pytest.mark.parametrize("value", ["", "a", 0, -1, 2**53 - 1, 1 - 2**53])
def test_a_string_or_an_integer_is_an_id(value: str | int):
    assert read(request() | {"id": value}).id == value
    assert requests.request_id({"id": value, "method": 7}) == value


@pytest.mark.parametrize("document", [None, [], [{"id": 1}], {}, {"id": None}, {"id": False}])
def test_what_has_no_id_is_answered_without(document: Any):
    assert requests.request_id(document) is None


# Media types


@pytest.mark.parametrize(
    "value", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"']
)
def test_json_is_taken(value: str):
    assert read(request(), headers_of(request(), content_type=value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "text/plain",
        "application/jsonp",
        "application/json-rpc",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json, text/plain",
    ],
)
def test_another_type_of_body_is_not_supported(value: str | None):
    assert refused(request(), headers_of(request(), content_type=value)).status == 415


@pytest.mark.parametrize(
    "value",
    [
        "text/event-stream,application/json",
        "application/json;q=0.5 , Text/Event-Stream; q=0.1",
        "*/*",
        "application/*, text/*",
    ],
)
def test_a_client_that_takes_both_answers_is_served(value: str):
    assert read(request(), headers_of(request(), accept=value))


def test_accept_may_come_in_two_lines():
    lines = [(b"accept", b"application/json"), (b"Accept", b"text/event-stream")]
    assert read(request(), headers_of(request(), accept=None) + lines)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "application/json",
        "text/event-stream",
        "application/json, text/event-stream;q=0",
        "application/json;q=0.000, text/event-stream",
        "application/jsonx, text/event-streams",
    ],
)
def test_a_client_that_does_not_is_not(value: str | None):
    assert refused(request(), headers_of(request(), accept=value)).status == 406


# Versions


def test_a_missing_version_is_a_mismatch_that_names_those_there_are():
    refusal = refused(request(), headers_of(request(), mcp_protocol_version=None))
    assert answer(refusal) == (400, -32020)
    assert MODERN in refusal.message


@pytest.mark.parametrize("version", ["1900-01-01", OLD, "2026-07-29", "2025-03-26", "latest"])
def test_an_unsupported_version_is_refused_with_those_there_are(version: str):
    document = request()
    document["params"]["_meta"] = META | {VERSION: version}
    refusal = refused(document, headers_of(document, mcp_protocol_version=version))
    assert answer(refusal) == (400, -32022)
    assert refusal.data == {"supported": [MODERN], "requested": version}
    older_one = refused(older("tools/list"), old_headers(version))
    assert answer(older_one) == (400, -32022)


def test_a_version_that_nobody_knows_is_not_served_because_it_is_configured():
    refusal = refused(older("tools/list"), old_headers("2024-11-05"), NOW | {"2024-11-05"})
    assert refusal.data == {"supported": [MODERN], "requested": "2024-11-05"}


@pytest.mark.parametrize("version", ["1900-01-01", OLD, None, 20260728, [MODERN]])
def test_a_body_of_another_version_than_the_header_is_a_mismatch(version: Any):
    document = request()
    document["params"]["_meta"] = META | {VERSION: version}
    for versions in (NOW, BOTH):
        assert answer(refused(document, headers_of(document), versions)) == (400, -32020)


def test_a_header_of_an_older_version_than_the_body_is_a_mismatch():
    """Otherwise the headers of a current call could be false, as the older version does not define
    them."""
    headers = headers_of(request(), mcp_protocol_version=OLD)
    assert answer(refused(request(), headers, BOTH)) == (400, -32020)


@pytest.mark.parametrize("version", [b"", b"x" * 33, b"2026-07-28\xe9", b"2026\t"])
def test_a_version_that_is_none_is_a_mismatch(version: bytes):
    headers = headers_of(request(), mcp_protocol_version=version)
    assert refused(request(), headers).code in (-32020, -32022)


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        {},
        {VERSION: MODERN},
        {CAPABILITIES: {}},
        {VERSION: MODERN, CAPABILITIES: None},
        {VERSION: MODERN, CAPABILITIES: []},
    ],
)
def test_a_request_without_its_envelope_is_invalid(meta: Any):
    document = request()
    document["params"]["_meta"] = meta
    assert answer(refused(document)) == (400, -32602)
    del document["params"]["_meta"]
    assert answer(refused(document)) == (400, -32602)
    del document["params"]
    headers = headers_of(request())
    assert answer(refused(document, headers)) == (400, -32602)


# Headers that mirror the body


@pytest.mark.parametrize("name", ["mcp_method", "mcp_name"])
def test_a_missing_header_is_a_mismatch(name: str):
    refusal = refused(request(), headers_of(request(), **{name: None}))
    assert (answer(refusal), refusal.reason) == ((400, -32020), "missing_header")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp_method", "tools/list"),
        ("mcp_method", "Tools/Call"),
        ("mcp_method", ""),
        ("mcp_method", "=?base64?dG9vbHMvY2FsbA==?="),
        ("mcp_name", "get_current_time"),
        ("mcp_name", "Convert_Time"),
        ("mcp_name", ""),
        ("mcp_name", "convert_time,convert_time"),
        ("mcp_name", "=?BASE64?Y29udmVydF90aW1l?="),
        ("mcp_name", "convert_time\x00"),
        ("mcp_name", b"convert_time\xe9"),
    ],
)
def test_a_header_that_says_something_else_is_a_mismatch(name: str, value: str | bytes):
    assert answer(refused(request(), headers_of(request(), **{name: value}))) == (400, -32020)


@pytest.mark.parametrize(
    "name", [b"mcp-method", b"Mcp-Name", b"MCP-PROTOCOL-VERSION", b"mcp-session-id"]
)
def test_a_header_twice_is_refused_even_if_both_are_right(name: bytes):
    headers = headers_of(request(), mcp_session_id="a")
    again = [(name, value) for each, value in headers if each == name.lower()]
    refusal = refused(request(), headers + again)
    assert (answer(refusal), refusal.reason) == ((400, -32020), "duplicate_header")


def test_white_space_around_a_header_is_none_of_it():
    headers = headers_of(request(), mcp_method=b" tools/call\t", mcp_name=b"\tconvert_time ")
    assert read(request(), headers)


def test_names_of_headers_have_no_case():
    assert read(request(), [(name.upper(), value) for name, value in headers_of(request())])


@pytest.mark.parametrize(
    "name", ["東京", " padded ", "line\nbreak", "=?base64?literal?=", "é", "a\tb\t", "", "tab\tbed"]
)
def test_names_that_no_header_can_carry_come_in_base64(name: str):
    """Values of the specification's table, and others; some of them also fit into a header
    plainly."""
    if not name:
        assert answer(refused(request(name=name))) == (400, -32602)
        return
    document = request(name=name)
    assert read(document).name == name
    encoded = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    assert read(document, headers_of(document, mcp_name=encoded)).name == name


def test_a_name_that_looks_encoded_is_not_taken_as_it_stands():
    document = request(name="=?base64?Y29udmVydF90aW1l?=")
    plain = headers_of(document, mcp_name="=?base64?Y29udmVydF90aW1l?=")
    assert answer(refused(document, plain)) == (400, -32020)
    assert read(request(), plain).name == "convert_time"


@pytest.mark.parametrize(
    "payload",
    [
        "Y29udmVydF90aW1l=",  # too much padding
        "Y29udmVydF90aW1",  # too little padding
        "Y29udmVydF90 aW1l",
        "Y29udmVydF90aW1l?",
        "YR==",  # spare bits, which a lax decoder drops
        "w6",
        "/w==",  # not UTF-8
        "wIA=",  # NUL as Java encodes it
    ],
)
def test_base64_that_is_not_canonical_is_a_mismatch(payload: str):
    headers = headers_of(request(), mcp_name=f"=?base64?{payload}?=")
    refusal = refused(request(name="convert_time"), headers)
    assert (answer(refusal), refusal.reason) == ((400, -32020), "invalid_header")


@pytest.mark.parametrize("name", ["a\x01b", "a\x7fb", "a\x1b[2Jb"])
def test_control_characters_are_in_no_header(name: str):
    document = request(name=name)
    assert read(document).name == name
    refusal = refused(document, headers_of(document, mcp_name=name))
    assert (answer(refusal), refusal.reason) == ((400, -32020), "invalid_header")


def test_a_name_in_the_header_for_what_has_no_name_is_a_mismatch():
    document = request("tools/list")
    assert read(document)
    assert answer(refused(document, headers_of(document, mcp_name="x"))) == (400, -32020)


def test_a_completion_may_say_its_name_in_the_header_if_it_is_true():
    document = request("completion/complete", ref={"type": "ref/prompt", "name": "review"})
    assert read(document)
    assert read(document, headers_of(document, mcp_name="review"))
    assert answer(refused(document, headers_of(document, mcp_name="other"))) == (400, -32020)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": None}),
        ("tools/call", {"name": ["convert_time"]}),
        ("tools/call", {"name": 7}),
        ("tools/call", {"arguments": []}),
        ("tools/call", {"arguments": None}),
        ("prompts/get", {}),
        ("prompts/get", {"name": "a", "arguments": "b"}),
        ("resources/read", {"name": "file:///a"}),
        ("resources/read", {"uri": {"uri": "file:///a"}}),
    ],
)
def test_params_that_do_not_say_what_is_asked_for_are_invalid(method: str, params: dict[str, Any]):
    document = request(method, **params)
    assert answer(refused(document, headers_of(document, mcp_name="a"))) == (400, -32602)


def test_a_session_is_ignored_where_there_are_none():
    assert read(request(), headers_of(request(), mcp_session_id="abc")).session is None


def test_the_server_is_not_told_that_tasks_would_be_taken():
    capabilities = {"extensions": {requests.TASKS: {}, "com.example/x": {}}, "roots": {}}
    document = request(_meta=META | {CAPABILITIES: capabilities})
    before = copy.deepcopy(document)
    call = read(document)
    sent = call.document["params"]["_meta"][CAPABILITIES]
    assert sent == {"extensions": {"com.example/x": {}}, "roots": {}}
    assert call.params is call.document["params"]
    assert document == before


# Notifications


def test_a_notification_has_no_id():
    document = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    call = read(document)
    assert (call.id, call.kind, call.name, call.version) == (None, "server", None, MODERN)
    assert read(document, headers_of(document, mcp_method=None)).id is None
    assert answer(refused(document, headers_of(document, mcp_method="tools/call"))) == (400, -32020)
    unknown = headers_of(document, mcp_protocol_version="1900-01-01")
    assert answer(refused(document, unknown)) == (400, -32022)


# Older versions


def test_older_versions_are_served_only_where_they_are_named():
    document = older("tools/call", name="convert_time")
    assert answer(refused(document, old_headers())) == (400, -32022)
    call = read(document, old_headers(mcp_session_id="abc"), BOTH)
    assert (call.kind, call.name, call.version, call.session) == (
        "tool",
        "convert_time",
        OLD,
        "abc",
    )


def test_where_only_older_ones_are_named_todays_is_not_served():
    refusal = refused(request(), None, frozenset({OLD}))
    assert refusal.data == {"supported": [OLD], "requested": MODERN}


def test_of_an_older_version_the_body_says_what_it_is_and_headers_may_not_differ():
    """FastMCP 4.1.2 trusts such headers, which none of the versions that it supports here
    requires."""
    document = older("tools/call", name="dangerous")
    assert read(document, old_headers(mcp_name="dangerous", mcp_method="tools/call"), BOTH)
    lie = old_headers(mcp_name="harmless")
    assert answer(refused(document, lie, BOTH)) == (400, -32020)
    lie = old_headers(mcp_method="tools/list")
    assert answer(refused(document, lie, BOTH)) == (400, -32020)


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize(
    ("method", "kind", "name"),
    [
        ("ping", "server", None),
        ("logging/setLevel", "server", None),
        ("resources/subscribe", "resource", "file:///a"),
        ("resources/unsubscribe", "resource", "file:///a"),
        ("tools/list", "server", None),
    ],
)
def test_methods_of_older_versions(version: str, method: str, kind: str, name: str | None):
    call = read(older(method, uri="file:///a"), old_headers(version), ALL)
    assert (call.kind, call.name) == (kind, name)
    without = {"jsonrpc": "2.0", "id": "a", "method": "ping"}
    assert read(without, old_headers(version), ALL).params == {}


@pytest.mark.parametrize("method", ["server/discover", "subscriptions/listen", "tasks/get"])
def test_methods_that_older_versions_do_not_know(method: str):
    assert answer(refused(older(method), old_headers(), BOTH)) == (404, -32601)


def initialize(version: Any = OLD, capabilities: Any = None) -> dict[str, Any]:
    return older(
        "initialize",
        protocolVersion=version,
        capabilities={} if capabilities is None else capabilities,
        clientInfo={"name": "a", "version": "1"},
    )


def test_a_session_begins_without_a_version_in_the_headers():
    call = read(initialize(), old_headers(None), BOTH)
    assert (call.method, call.version, call.kind, call.session) == (
        "initialize",
        OLD,
        "server",
        None,
    )
    assert call.document == initialize()
    assert read(initialize(), old_headers(None, mcp_session_id="x"), BOTH).session is None


@pytest.mark.parametrize("method", ["tools/list", "tools/call", "ping"])
def test_nothing_else_does(method: str):
    document = older(method, name="a")
    assert answer(refused(document, old_headers(None), BOTH)) == (400, -32020)


def test_where_there_are_no_sessions_none_begins_and_the_error_names_the_versions():
    refusal = refused(initialize(), old_headers(None))
    assert answer(refusal) == (400, -32020)
    assert MODERN in refusal.message


@pytest.mark.parametrize("wanted", ["2024-11-05", "2025-03-26", MODERN, "2030-01-01", OLD])
def test_a_client_that_wants_another_version_is_offered_the_newest_there_is(wanted: str):
    versions = frozenset({MODERN, "2025-06-18"})
    call = read(initialize(wanted), old_headers(None), versions)
    assert call.version == "2025-06-18"
    assert call.document["params"]["protocolVersion"] == "2025-06-18"
    assert call.params is call.document["params"]


def test_a_client_gets_the_older_version_that_it_asks_for():
    assert read(initialize("2025-06-18"), old_headers(None), ALL).version == "2025-06-18"


def test_the_server_is_not_told_of_what_the_client_could_be_asked():
    offered = {"sampling": {}, "elicitation": {}, "roots": {}, "tasks": {}, "experimental": {}}
    call = read(initialize(capabilities=offered), old_headers(None), BOTH)
    assert call.document["params"]["capabilities"] == {"experimental": {}}


@pytest.mark.parametrize(
    "params", [{}, {"protocolVersion": 1, "capabilities": {}}, {"protocolVersion": OLD}]
)
def test_an_initialize_that_offers_nothing_is_invalid(params: dict[str, Any]):
    refusal = refused(older("initialize", **params), old_headers(None), BOTH)
    assert answer(refusal) == (400, -32602)


def test_a_result_cannot_be_made_a_task():
    document = older("tools/call", name="a", task={"ttl": 1})
    assert answer(refused(document, old_headers(), BOTH)) == (400, -32602)


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("notifications/initialized", None),
        ("notifications/cancelled", None),
        ("notifications/progress", None),
        ("notifications/roots/list_changed", None),
        ("notifications/message", 404),
        ("tools/call", 404),
        ("initialize", 404),
    ],
)
def test_notifications_of_older_versions(method: str, status: int | None):
    document = {"jsonrpc": "2.0", "method": method}
    if status is None:
        call = read(document, old_headers(mcp_session_id="a"), BOTH)
        assert (call.id, call.session) == (None, "a")
    else:
        assert refused(document, old_headers(), BOTH).status == status


@pytest.mark.parametrize("value", [b"", b"a b", b"a\x7f", b"\xe9", b"x" * 2049])
def test_a_session_id_that_mcp_does_not_allow_is_refused(value: bytes):
    document = older("ping")
    assert answer(refused(document, old_headers(mcp_session_id=value), BOTH)) == (400, -32600)


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_streams_of_sessions_and_their_end(verb: Any):
    def ask(versions: frozenset[str], **fields: str | bytes | None) -> tuple[str, str | None]:
        headers = wire({**fields})
        call = requests.read_session(headers, server="time", verb=verb, versions=versions)
        assert (call.server, call.id, call.kind, call.name) == ("time", None, "server", None)
        return call.version, call.session

    right = {"mcp_protocol_version": OLD, "mcp_session_id": "abc", "accept": "text/event-stream"}
    assert ask(BOTH, **right) == (OLD, "abc")
    cases: list[tuple[frozenset[str], dict[str, str | None], int]] = [
        (NOW, {}, 405),
        (BOTH, {"mcp_session_id": None}, 400),
        (BOTH, {"mcp_protocol_version": None}, 400),
        (BOTH, {"mcp_protocol_version": MODERN}, 400),
        (BOTH, {"mcp_protocol_version": "2025-06-18"}, 400),
    ]
    for versions, changed, status in cases:
        with pytest.raises(Refusal) as caught:
            ask(versions, **(right | changed))
        assert caught.value.status == status
        assert ("Allow", "POST") in caught.value.headers or status != 405


# Arguments in headers

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "limit": {"type": "integer", "x-mcp-header": "Limit"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry-Run"},
        "query": {"type": "string"},
        "where": {
            "type": "object",
            "properties": {"tenant": {"type": "string", "x-mcp-header": "Tenant"}},
        },
    },
}
DECLARED = mirrored_headers.declared(SCHEMA)
RIGHT: tuple[dict[str, Any], dict[str, str]] = (
    {"region": "us-west1", "limit": 42, "dry": False, "query": "q", "where": {"tenant": "東"}},
    {
        "Mcp-Param-Region": "us-west1",
        "mcp-param-limit": "42",
        "MCP-PARAM-DRY-RUN": "false",
        "Mcp-Param-Tenant": "=?base64?5p2x?=",
    },
)


def check(
    arguments: dict[str, Any],
    headers: dict[str, str] | list[tuple[str, str]],
    schema: Any = SCHEMA,
    version: str = MODERN,
) -> str | None:
    """Return the reason of the refusal, if any."""
    params = {"name": "a", "arguments": arguments}
    call = Call("time", version, 1, "tools/call", params, "tool", "a", {})
    pairs = headers if isinstance(headers, list) else list(headers.items())
    try:
        requests.param_headers(call, schema, [(n.encode(), v.encode()) for n, v in pairs])
    except Refusal as refusal:
        return refusal.reason if answer(refusal) == (400, -32020) else "another refusal"
    return None


def test_arguments_and_their_headers_agree():
    assert check(*RIGHT) is None
    assert check(*RIGHT, schema=DECLARED) is None
    assert check({"query": "q"}, {}) is None
    assert check({"region": None, "where": {}}, {}) is None
    assert check({"region": "", "where": {"tenant": " a "}}, {
        "mcp-param-region": "", "mcp-param-tenant": "=?base64?IGEg?="
    }) is None  # fmt: skip


@pytest.mark.parametrize("name", list(RIGHT[1]))
def test_a_header_that_is_missing_or_wrong_or_there_twice(name: str):
    arguments, headers = RIGHT
    rest = {each: value for each, value in headers.items() if each != name}
    assert check(arguments, rest) == "missing_header"
    assert check(arguments, rest | {name: "other"}) == "header_mismatch"
    assert check(arguments, [*headers.items(), (name.title(), headers[name])]) == "duplicate_header"
    assert check({"query": "q"}, {name: headers[name]}) == "header_mismatch"
    assert check(arguments, rest | {name: "=?base64?5p2?="}) == "invalid_header"


def test_a_header_that_no_schema_declares_is_refused():
    arguments, headers = RIGHT
    assert check(arguments, headers | {"Mcp-Param-Query": "q"}) == "undeclared_header"
    assert check(arguments, headers | {"Mcp-Param-": "q"}) == "undeclared_header"
    assert check({}, {"Mcp-Param-Region": "a"}, schema={}) == "undeclared_header"
    call = Call("time", MODERN, 1, "tools/list", {}, "server", None, {})
    with pytest.raises(Refusal):
        requests.param_headers(call, SCHEMA, [(b"mcp-param-region", b"a")])


@pytest.mark.parametrize(
    ("value", "header", "agrees"),
    [
        (42, "42", True),
        (42, "42.0", True),
        (42.0, "42", True),
        (-7, "-7", True),
        (42, "42.5", False),
        (42, "4.2e1", False),
        (42, "+42", False),
        (42, " 42", True),
        (42, "0x2a", False),
        (42, "٤٢", False),
        (2**53 - 1, str(2**53 - 1), True),
        (2**53, str(2**53), False),
        (True, "1", False),
        (True, "true", True),
        ("42", "42", True),
        (None, "42", False),
        ([42], "42", False),
    ],
)
def test_integers_compare_as_numbers(value: Any, header: str, agrees: bool):
    schema = {"properties": {"limit": {"type": "integer", "x-mcp-header": "Limit"}}}
    params = {"name": "a", "arguments": {"limit": value}}
    call = Call("time", MODERN, 1, "tools/call", params, "tool", "a", {})
    raw = [(b"mcp-param-limit", header.encode())]
    if agrees:
        requests.param_headers(call, schema, raw)
    else:
        with pytest.raises(Refusal):
            requests.param_headers(call, schema, raw)


def test_an_argument_that_is_there_in_two_cases_is_refused():
    """A server in Go would use the second, and a router that reads the header the first."""
    arguments, headers = RIGHT
    assert check(arguments | {"Region": "eu-east1"}, headers) == "header_mismatch"
    assert check(arguments | {"WHERE": {"tenant": "x"}}, headers) == "header_mismatch"
    assert check(arguments | {"Query": "x"}, headers) is None


def test_of_an_older_version_only_what_is_sent_is_compared():
    assert check({"region": "a"}, {}, version=OLD) is None
    assert check({"region": "a"}, {"mcp-param-region": "a"}, version=OLD) is None
    assert check({"region": "a"}, {"mcp-param-region": "b"}, version=OLD) == "header_mismatch"


ANNOTATED = {"type": "string", "x-mcp-header": "X"}


@pytest.mark.parametrize(
    "schema",
    [
        ANNOTATED,
        {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a\r\nb"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "é"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 1}}},
        {"properties": {"a": {"type": "number", "x-mcp-header": "X"}}},
        {"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "X"}}},
        {"properties": {"a": {"x-mcp-header": "X"}}},
        {"properties": {"a": ANNOTATED, "b": ANNOTATED | {"x-mcp-header": "x"}}},
        {"properties": {"a": {"type": "array", "items": ANNOTATED}}},
        {"properties": {"a": {"items": {"properties": {"b": ANNOTATED}}}}},
        {"allOf": [{"properties": {"a": ANNOTATED}}]},
        {"anyOf": [{"properties": {"a": ANNOTATED}}]},
        {"if": {"properties": {"a": ANNOTATED}}},
        {"$defs": {"a": ANNOTATED}},
        {"patternProperties": {"a": ANNOTATED}},
        {"additionalProperties": ANNOTATED},
    ],
)
def test_an_annotation_that_is_not_allowed(schema: dict[str, Any]):
    with pytest.raises(mirrored_headers.AnnotationError):
        mirrored_headers.declared(schema)
    assert inbound.find_invalid_x_mcp_header(schema) is not None
    assert check({"a": "x"}, {}, schema=schema) is None
    assert check({"a": "x"}, {"mcp-param-x": "x"}, schema=schema) == "undeclared_header"


def test_data_in_a_schema_is_no_annotation():
    schema = {
        "properties": {"x-mcp-header": {"type": "string"}, "a": {"default": ANNOTATED}},
        "examples": [ANNOTATED],
    }
    assert mirrored_headers.declared(schema) == ()
    assert inbound.find_invalid_x_mcp_header(schema) is None


def test_what_is_declared():
    assert DECLARED[:1] == (ParamHeader(b"mcp-param-region", ("region",), "string"),)
    assert {each.path for each in DECLARED} == set(inbound.x_mcp_header_map(SCHEMA))
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"not": deep}
    assert mirrored_headers.declared(deep) == ()


arguments = st.fixed_dictionaries(
    {},
    optional={
        "region": st.text(max_size=6) | st.none(),
        "limit": st.integers(-(2**53) + 1, 2**53 - 1),
        "dry": st.booleans(),
        "query": st.text(max_size=3),
        "where": st.fixed_dictionaries({}, optional={"tenant": st.text(max_size=6)}),
    },
)


@given(arguments)
def test_headers_of_the_official_sdk_are_accepted_and_it_accepts_ours(values: dict[str, Any]):
    theirs = inbound.mcp_param_headers(inbound.x_mcp_header_map(SCHEMA), values)
    assert check(values, theirs) is None
    params = {"name": "東", "arguments": values}
    call = Call("time", MODERN, 1, "tools/call", params, "tool", "東", {})
    ours = requests.upstream_headers(call, DECLARED)
    assert inbound.validate_mcp_param_headers(SCHEMA, values, ours) is None
    assert inbound.decode_header_value(ours["Mcp-Name"]) == "東"
    assert ours["MCP-Protocol-Version"] == MODERN
    assert all(value.isascii() and value.isprintable() for value in ours.values())


@given(st.text())
def test_the_sdk_and_we_encode_alike(text: str):
    encoded = mirrored_headers.encode(text)
    assert encoded == inbound.encode_header_value(text)
    assert mirrored_headers.decode(encoded.encode("ascii")) == text


@given(st.binary(max_size=12) | st.from_regex(r"=\?base64\?[A-Za-z0-9+/=]{0,8}\?=").map(str.encode))
def test_whatever_is_decoded_the_sdk_decodes_alike(raw: bytes):
    try:
        ours: str | None = mirrored_headers.decode(raw)
    except ValueError:
        ours = None
    if ours is not None:
        assert ours == inbound.decode_header_value(raw.decode("latin-1"))
    elif re.fullmatch(rb"[\t\x20-\x7e]*", raw):
        assert inbound.decode_header_value(raw.decode()) is None


def test_upstream_gets_headers_of_the_document_alone():
    listing = read(request("tools/list"))
    assert requests.upstream_headers(listing) == {
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": "tools/list",
    }
    completion = read(request("completion/complete", ref={"type": "ref/prompt", "name": "review"}))
    assert "Mcp-Name" not in requests.upstream_headers(completion)
    old = read(older("tools/call", name="a"), old_headers(), BOTH)
    assert requests.upstream_headers(old, DECLARED) == {"MCP-Protocol-Version": OLD}
    first = read(initialize(), old_headers(None), BOTH)
    assert requests.upstream_headers(first) == {}


# Addresses


@pytest.mark.parametrize("host", ["edge-1.lab.internal", "EDGE-1.lab.internal:8443", "10.0.0.1:1"])
def test_a_host_of_ours_is_served(host: str):
    request_line.check_host([(b"Host", host.encode())], ["edge-1.lab.internal", "10.0.0.1"])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "edge-1.lab.internal.evil.example",
        "evil.example#edge-1.lab.internal",
        "edge-1.lab.internal:80:80",
        "edge-1.lab.internal:",
        "edge-1.lab.internal:x",
        "edge-1.lab.internal:123456",
        "edge-1.lab.internal:٤",
        "edge-1.lab.internal.",
        "user@edge-1.lab.internal",
        "",
    ],
)
def test_another_host_is_not(host: str):
    with pytest.raises(Refusal) as caught:
        request_line.check_host([(b"host", host.encode())], ["edge-1.lab.internal"])
    assert caught.value.status == 421


def test_a_host_with_a_port_is_that_port():
    request_line.check_host([(b"host", b"edge:8443")], ["edge:8443"])
    request_line.check_host([(b"host", b"[::1]:8443")], ["[::1]"])
    for other in (b"edge", b"edge:8444"):
        with pytest.raises(Refusal):
            request_line.check_host([(b"host", other)], ["edge:8443"])


@pytest.mark.parametrize("headers", [[], [(b"host", b"a"), (b"Host", b"a")]])
def test_there_is_one_host(headers: list[tuple[bytes, bytes]]):
    with pytest.raises(Refusal) as caught:
        request_line.check_host(headers, ["a"])
    assert caught.value.status == 400


def test_an_origin_is_refused_unless_it_is_allowed():
    request_line.check_origin([], [])
    request_line.check_origin([(b"origin", b"https://app.lab")], ["https://app.lab"])
    for origin in (b"https://evil.example", b"null", b"", b"https://app.lab.evil.example", b"\xff"):
        for allowed in ([], ["https://app.lab"]):
            with pytest.raises(Refusal) as caught:
                request_line.check_origin([(b"Origin", origin)], allowed)
            assert caught.value.status == 403
    both = [(b"origin", b"https://app.lab"), (b"origin", b"https://evil.example")]
    with pytest.raises(Refusal):
        request_line.check_origin(both, ["https://app.lab"])


def test_a_plain_path_without_a_query_is_taken():
    for path in ("/time/mcp", "/a-b.c_d~e/mcp", "/.well-known/oauth-protected-resource/time/mcp"):
        request_line.check_target(path, b"")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/time/mcp", b"access_token=x"),
        ("/time/mcp", b"x"),
        ("/time//mcp", b""),
        ("//time/mcp", b""),
        ("/time/mcp/", b""),
        ("/time/../files/mcp", b""),
        ("/time/./mcp", b""),
        ("/time%2Fmcp", b""),
        ("/time;a/mcp", b""),
        ("/time\\mcp", b""),
        ("/time/mcp\0", b""),
        ("/t\u0131me/mcp", b""),
        ("/time/mcp#x", b""),
        ("time/mcp", b""),
        ("*", b""),
        ("", b""),
    ],
)
def test_a_target_with_a_query_or_of_two_meanings_is_refused(path: str, query: bytes):
    with pytest.raises(Refusal) as caught:
        request_line.check_target(path, query)
    assert caught.value.status == 400


# All together

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
METHODS = sorted({method for methods in REQUESTS.values() for method in methods})


@st.composite
def messages(draw: Callable[..., Any]) -> tuple[Any, list[tuple[bytes, bytes]]]:
    """Draw a valid request, or one with a change in the body, in the headers or in both."""
    method = draw(st.sampled_from(METHODS))
    named = {"uri": "file:///a"} if method.startswith("resources/") else {"name": "a"}
    document: Any = request(
        method,
        ref={"type": "ref/prompt", "name": "a"},
        notifications={"resourceSubscriptions": ["file:///a"]},
        protocolVersion=OLD,
        capabilities={},
        **named,
    )
    version = draw(st.sampled_from([MODERN, MODERN, OLD, "1900-01-01"]))
    document["params"]["_meta"] = META | {VERSION: version}
    headers = headers_of(document, mcp_protocol_version=version)
    changes = draw(st.sampled_from(["", "", "body", "headers", "both", "all"]))
    if changes in ("body", "both"):
        level = draw(st.sampled_from([document, document["params"], document["params"]["_meta"]]))
        level[draw(st.sampled_from(sorted(level)))] = draw(json_values)
    if changes in ("headers", "both"):
        at = draw(st.integers(0, len(headers) - 1))
        headers[at] = headers[at][0], draw(st.binary(max_size=12))
        headers += draw(st.lists(st.sampled_from(headers), max_size=1))
    if changes == "all":
        document = draw(json_values)
    return document, headers


def attempt(
    document: Any, headers: list[tuple[bytes, bytes]], versions: frozenset[str]
) -> tuple[Call | None, Refusal | None]:
    try:
        return read(document, headers, versions), None
    except Refusal as refusal:
        return None, refusal


@given(messages(), st.sampled_from([NOW, BOTH, frozenset({OLD})]))
def test_any_message_is_a_call_or_a_refusal(message: Any, versions: frozenset[str]):
    document, headers = message
    call, refusal = attempt(document, headers, versions)
    if refusal:
        assert 400 <= refusal.status < 500
        assert refusal.code in (-32600, -32601, -32602, -32020, -32022)
        assert json.dumps(refusal.data)
    if call:
        assert call.version in versions
        assert call.id is None or call.method in REQUESTS[call.version]
        assert (call.name is None) == (call.kind == "server")


@given(messages())
def test_what_the_sdk_would_refuse_we_do_not_pass(message: Any):
    """The official server's checks, as a second opinion on every call that the gateway admits."""
    document, headers = message
    folded = {name.decode(): value.decode("latin-1") for name, value in headers}
    assume(len(folded) == len(headers))
    call, _ = attempt(document, headers, NOW)
    if call and call.id is not None:
        route = inbound.classify_inbound_request(document, headers=folded)
        assert isinstance(route, inbound.InboundModernRoute), route

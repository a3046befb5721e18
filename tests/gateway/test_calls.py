"""Calls through a running gateway: what passes, and what each refusal says."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from benchmarks.gateway_site import Site, mcp, mcp_headers


def test_a_permitted_call_comes_to_its_result(site: Site):
    answer = site.call("add", {"first": 2, "second": 3})
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["structuredContent"] == {"total": 5}


def test_a_list_has_what_was_approved_and_may_be_used(site: Site):
    listed = site.post(mcp("tools/list")).json()["result"]
    assert {tool["name"] for tool in listed["tools"]} == {
        *("echo", "add", "person", "count", "sleep", "delete_everything")
    }
    assert listed.get("cacheScope", "private") == "private"
    refused = site.post(mcp("tools/list"), as_="mallory")
    assert refused.status_code == 403


def refusal(answer: Any) -> tuple[int, int]:
    return answer.status_code, answer.json()["error"]["code"]


class TestProtocol:
    @pytest.mark.parametrize(
        ("header", "value", "expected"),
        [
            ("mcp-method", "tools/list", (400, -32020)),
            ("mcp-name", "echo", (400, -32020)),
            ("mcp-protocol-version", "2025-11-25", (400, -32020)),
            ("origin", "https://evil.test", (403, -32600)),
            ("host", "evil.test", (421, -32600)),
            ("content-encoding", "gzip", (415, -32600)),
        ],
    )
    def test_headers_that_say_something_else(
        self, site: Site, header: str, value: str, expected: tuple[int, int]
    ):
        answer = site.call("add", {"first": 1, "second": 1}, headers={header: value})
        assert refusal(answer) == expected

    def test_an_allowed_origin_passes(self, site: Site):
        answer = site.call("echo", {"text": "x"}, headers={"origin": "https://allowed.test"})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            b"[]",
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list","params":{}}',
            b'{"jsonrpc":"2.0","id":1,"Method":"tools/list","method":"tools/call","params":{}}',
            b"[" * 100_000,
        ],
        ids=["batch", "duplicate", "case", "depth"],
    )
    def test_documents_that_parsers_read_differently(self, site: Site, body: bytes):
        headers = {**mcp_headers(mcp("tools/list")), **site.headers("carol")}
        with site.client() as client:
            answer = client.post("/tools/mcp", content=body, headers=headers)
        assert answer.status_code == 400, answer.text

    def test_a_token_in_the_address_is_refused(self, site: Site):
        document = mcp("tools/list")
        with site.client() as client:
            answer = client.post(
                f"/tools/mcp?access_token={site.token('carol')}",
                json=document,
                headers={**mcp_headers(document), **site.headers("carol")},
            )
        assert answer.status_code == 400

    @pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
    def test_other_verbs(self, site: Site, method: str):
        with site.client() as client:
            answer = client.request(method, "/tools/mcp", headers=site.headers("carol"))
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"

    def test_other_paths(self, site: Site):
        with site.client() as client:
            assert client.post("/other/mcp").status_code == 404
            assert client.get("/somewhere").status_code == 404

    def test_a_body_that_is_too_large(self, site: Site):
        with site.client() as client:
            answer = client.post("/tools/mcp", content=b"x" * (2 << 20))
        assert answer.status_code == 413


PAGE = {"origin": "https://allowed.test"}
ASKS = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,mcp-method,mcp-param-x,x-other",
}


def told(answer: httpx2.Response) -> dict[str, str]:
    """Return the headers that inform a browser about other origins."""
    return {k: v for k, v in answer.headers.items() if k.startswith("access-control-")}


def reasons(site: Site, request_id: str) -> list[str]:
    told = site.events()
    ids = [event["metadata"].get("correlation_uid") for event in told]
    return [e["status_detail"] for e, id in zip(told, ids, strict=True) if id == request_id]


class TestBrowsers:
    """Fetch standard, section 3.2: only a page of an allowed origin gets answers."""

    def options(self, site: Site, path: str, headers: dict[str, str]) -> httpx2.Response:
        with site.client() as client:
            return client.options(path, headers=headers)

    def test_may_ask_first(self, site: Site):
        named = {"x-ringfence-request-id": "preflight-1"}
        answer = self.options(site, "/tools/mcp", {**PAGE, **ASKS, **named})
        assert answer.status_code == 204
        assert "content-length" not in answer.headers
        said = told(answer)
        assert said["access-control-allow-origin"] == "https://allowed.test"
        assert said["access-control-allow-methods"] == "POST"
        headers = said["access-control-allow-headers"].split(", ")
        assert {"authorization", "content-type", "mcp-method", "mcp-param-x"} <= set(headers)
        assert "x-other" not in headers
        assert "*" not in "".join(said.values())
        assert "access-control-allow-credentials" not in said
        assert answer.headers["vary"] == "origin"
        assert reasons(site, "preflight-1") == ["preflight"]

    def test_may_read_what_comes_back_and_why_not(self, site: Site):
        answer = site.call("echo", {"text": "x"}, headers=PAGE)
        assert answer.status_code == 200
        assert told(answer)["access-control-allow-origin"] == "https://allowed.test"
        streamed = site.call("count", {"to": 1}, headers=PAGE)
        assert told(streamed)["access-control-allow-origin"] == "https://allowed.test"
        refused = site.call("echo", headers={**PAGE, "authorization": "Bearer x"})
        assert refused.status_code == 401
        said = told(refused)
        assert said["access-control-allow-origin"] == "https://allowed.test"
        assert "www-authenticate" in said["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in said

    def test_may_learn_where_tokens_come_from(self, site: Site):
        path = "/.well-known/oauth-protected-resource/tools/mcp"
        asked = {**PAGE, "access-control-request-method": "GET"}
        answer = self.options(site, path, asked)
        assert (answer.status_code, told(answer)["access-control-allow-methods"]) == (204, "GET")
        with site.client() as client:
            answer = client.get(path, headers={**PAGE, "x-ringfence-request-id": "metadata-1"})
        assert told(answer)["access-control-allow-origin"] == "https://allowed.test"
        assert reasons(site, "metadata-1") == ["metadata"]

    @pytest.mark.parametrize(
        "origin", ["https://evil.test", "null", "https://allowed.test.evil.test", ""]
    )
    def test_of_other_origins_are_told_nothing(self, site: Site, origin: str):
        for answer in (
            self.options(site, "/tools/mcp", {**ASKS, "origin": origin}),
            site.call("echo", {"text": "x"}, headers={"origin": origin}),
        ):
            assert answer.status_code == 403
            assert told(answer) == {}

    def test_are_told_from_other_callers(self, site: Site):
        answer = site.call("echo", {"text": "x"})
        assert told(answer) == {}
        assert answer.headers["vary"] == "origin", "a cache would give this answer to a page"
        assert self.options(site, "/tools/mcp", {}).status_code == 405
        assert self.options(site, "/tools/mcp", PAGE).status_code == 405
        assert self.options(site, "/grants", {**PAGE, **ASKS}).status_code == 405


class TestCallers:
    def test_without_a_token(self, site: Site):
        document = mcp("tools/list")
        with site.client() as client:
            answer = client.post("/tools/mcp", json=document, headers=mcp_headers(document))
            challenge = answer.headers["www-authenticate"]
            address = challenge.partition('resource_metadata="')[2].partition('"')[0]
            metadata = client.get(address.replace("https://gateway.test", "")).json()
        assert refusal(answer) == (401, -32001)
        assert "error=" not in challenge
        assert metadata["resource"] == "https://gateway.test/tools/mcp"
        assert metadata["authorization_servers"] == ["https://issuer.test"]

    @pytest.mark.parametrize(
        ("claims", "status"),
        [
            ({"aud": "https://gateway.test/other/mcp"}, 401),
            ({"iss": "https://evil.test"}, 401),
            ({"exp": 4_000_000_000}, 401),
            ({"cnf": {"x5t#S256": "A" * 43}}, 401),
            ({"scope": "mcp:other"}, 403),
            ({"sub": "nobody"}, 401),
        ],
        ids=["audience", "issuer", "ten-years", "stolen", "scope", "unknown"],
    )
    def test_tokens_that_are_not_good_here(self, site: Site, claims: dict[str, Any], status: int):
        answer = site.call("echo", {"text": "x"}, headers=site.headers("carol", **claims))
        assert answer.status_code == status, answer.text
        assert "www-authenticate" in answer.headers

    def test_somebody_without_a_role_may_nothing(self, site: Site):
        assert refusal(site.call("echo", {"text": "x"}, as_="mallory")) == (403, -32003)

    def test_what_the_manifest_does_not_name_does_not_exist(self, site: Site):
        assert refusal(site.call("shell", {})) == (403, -32003)
        assert refusal(site.post(mcp("tools/run"))) == (404, -32601)


class TestData:
    def test_personal_data_is_masked_alike_in_text_and_structure(self, site: Site):
        result = site.call("person").json()["result"]
        masked = result["structuredContent"]["email"]
        assert masked != "jane.doe@example.org"
        assert "@" in masked
        assert masked in result["content"][0]["text"]
        assert "jane.doe" not in str(result)
        assert site.call("person").json()["result"]["structuredContent"]["email"] == masked

    def test_it_is_masked_in_streams(self, site: Site):
        document = mcp(
            "tools/call",
            {"name": "count", "arguments": {"to": 3}, "_meta": {"progressToken": "p"}},
        )
        answer = site.post(document)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.text.count("notifications/progress") == 3
        assert "jane.doe" not in answer.text
        assert "counted to 3" in answer.text

    def test_instructions_of_the_server_do_not_come_through(self, site: Site):
        answer = site.post(mcp("server/discover"))
        assert answer.status_code == 200, answer.text
        assert "delete_everything" not in answer.text


class TestRecords:
    def test_a_call_is_recorded_before_and_after(self, site: Site):
        secret = "sk-" + "0a1b2c3d4e5f" * 4
        answer = site.call("echo", {"text": secret}, headers={"x-ringfence-request-id": "r-1"})
        assert answer.status_code == 200
        told = [e for e in site.events() if e.get("metadata", {}).get("correlation_uid") == "r-1"]
        assert [e["status_detail"] for e in told] == ["forwarded", "allowed"]
        assert told[0]["actor"]["user"]["name"] == "carol"
        assert told[0]["authorizations"][0]["policy"]["uid"] == "user/tools"
        assert secret not in str(site.events())
        assert site.token("carol")[:20] not in str(site.events())

    def test_a_denial_is_recorded(self, site: Site):
        site.call("echo", {"text": "x"}, as_="mallory", headers={"x-ringfence-request-id": "r-2"})
        told = [e for e in site.events() if e.get("metadata", {}).get("correlation_uid") == "r-2"]
        assert [(e["status_code"], e["action"]) for e in told] == [("403", "Denied")]

    def test_metrics_count_them(self, site: Site):
        text = site.ask_admin("/metrics").text
        assert 'ringfence_gateway_decisions_total{method="tools/call",outcome="allowed"' in text


def test_a_sensitive_tool_needs_a_grant(site: Site):
    answer = site.call("delete_everything")
    assert refusal(answer) == (403, -32008)
    assert "ringfence grant request tools delete_everything" in answer.text


def test_a_slow_server_is_told_from_a_refusal(site: Site):
    answer = site.call("sleep", {"seconds": 7}, timeout=15)
    assert refusal(answer) == (503, -32006)

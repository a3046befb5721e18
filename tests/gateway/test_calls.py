"""Calls through the gateway that runs: what comes through, and what each refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import Site, mcp, mcp_headers


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

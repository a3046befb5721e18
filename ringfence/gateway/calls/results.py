"""Results as a caller gets them: lists cut to the caller's rights, and no shared caching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ringfence.gateway.protocol.methods import METHODS, MODERN, OLDER, Kind, Listing
from ringfence.gateway.protocol.requests import TASKS
from ringfence.gateway.refusals import Refusal


def listing_of(method: str) -> Listing | None:
    known = METHODS.get(method)
    return known.listing if known else None


def filtered(
    result: dict[str, Any], listed: Listing, visible: Callable[[Kind, list[str]], Iterable[str]]
) -> dict[str, Any]:
    """A page of a list with what is visible. The cursor stays: a page may be empty and not last."""
    entries = result.get(listed.key)
    if not isinstance(entries, list):
        raise Refusal("upstream_not_mcp")
    named = [
        (entry[listed.name], entry)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get(listed.name), str)
    ]
    allowed = set(visible(listed.kind, [name for name, _ in named]))
    return {**result, listed.key: [entry for name, entry in named if name in allowed]}


def set_aside(message: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Take out of a list what is not inspected, and return it.

    A cursor means something to its server alone, and nothing any more once it is masked;
    definitions of tools are those that a person approved.
    """
    result = message.get("result")
    if listing_of(method) is None or not isinstance(result, dict):
        return {}
    names = ("tools", "nextCursor") if method == "tools/list" else ("nextCursor",)
    return {name: result.pop(name) for name in names if name in result}


def put_back(message: dict[str, Any], aside: Mapping[str, Any]) -> dict[str, Any]:
    if "result" in message:
        message["result"].update(aside)
    return message


def private(result: dict[str, Any]) -> dict[str, Any]:
    """A result that no cache shares: it was cut to the rights of one caller."""
    if "cacheScope" not in result:
        return result
    return {**result, "cacheScope": "private"}


def offered(result: dict[str, Any], versions: frozenset[str]) -> dict[str, Any]:
    """A server's description of itself, with the versions that the gateway serves for it.

    Servers leave out here what they speak after an `initialize`; the configuration decides.
    """
    supported = result.get("supportedVersions")
    if not isinstance(supported, list):
        return result
    served = versions.intersection((*OLDER, *(each for each in supported if each == MODERN)))
    return {**result, "supportedVersions": sorted(served, reverse=True)}


def described(result: dict[str, Any]) -> dict[str, Any]:
    """A server's description of itself, without what nobody approved or could be authorised.

    Instructions go to the model as descriptions of tools do, and nobody pins them; tasks are not
    bound to a caller.
    """
    kept = {name: value for name, value in result.items() if name != "instructions"}
    capabilities = kept.get("capabilities")
    if isinstance(capabilities, dict):
        offered = {name: value for name, value in capabilities.items() if name != "tasks"}
        extensions = offered.get("extensions")
        if isinstance(extensions, dict):
            offered["extensions"] = {n: v for n, v in extensions.items() if n != TASKS}
        kept["capabilities"] = offered
    return kept


def check_version(result: Mapping[str, Any], versions: frozenset[str]) -> None:
    """Refuse a server that negotiated a version that is not enabled for it."""
    if result.get("protocolVersion") not in versions:
        raise Refusal("upstream_version")


def error_message(identifier: str | int | None, refusal: Refusal) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.data is not None:
        error["data"] = refusal.data
    return {"jsonrpc": "2.0", "id": identifier, "error": error}

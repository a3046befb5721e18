"""What a server may answer, and what of it a caller gets to see.

Messages that do not belong to the call are refused, lists are cut down to what the caller may use,
and nothing is said to be fit for a cache that callers share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ringfence.gateway.protocol.methods import (
    METHODS,
    MODERN,
    OLDER,
    SERVER_NOTIFICATIONS,
    Kind,
    Listing,
)
from ringfence.gateway.protocol.requests import TASKS, Call
from ringfence.gateway.refusals import Refusal

PROGRESS_TOKEN = "progressToken"  # noqa: S105  (a name of the protocol's)


def is_response(message: Any, call: Call) -> bool:
    """Whether it answers the call; False: it is a notification.

    Raises `Refusal` for everything else: an answer to another request, a request of the server's
    own, what is not JSON-RPC.
    """
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Refusal("upstream_not_jsonrpc")
    if "method" in message:
        if "id" in message:
            raise Refusal("upstream_request")
        if not isinstance(message["method"], str) or not isinstance(
            message.get("params", {}), dict
        ):
            raise Refusal("upstream_not_jsonrpc")
        return False
    identifier = message.get("id")
    # Nobody else's answer: compared with its type, since 1 == True and 1 == 1.0 in Python.
    if type(identifier) is not type(call.id) or identifier != call.id:
        raise Refusal("upstream_other_id")
    if ("result" in message) == ("error" in message):
        raise Refusal("upstream_not_jsonrpc")
    body = message.get("result", message.get("error"))
    if not isinstance(body, dict):
        raise Refusal("upstream_not_jsonrpc")
    if "error" in message and type(body.get("code")) is not int:
        raise Refusal("upstream_not_jsonrpc")
    return True


def concerns(notification: Mapping[str, Any], call: Call) -> bool:
    """Whether a notification belongs on the stream of this call; others are dropped."""
    method = notification["method"]
    if method not in SERVER_NOTIFICATIONS:
        return False
    if method == "notifications/progress":
        meta = call.params.get("_meta")
        asked = meta.get(PROGRESS_TOKEN) if isinstance(meta, Mapping) else None
        token = notification.get("params", {}).get(PROGRESS_TOKEN)
        return asked is not None and type(token) is type(asked) and token == asked
    return True


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


def listing_of(method: str) -> Listing | None:
    known = METHODS.get(method)
    return known.listing if known else None


def set_aside(message: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Takes out of a list what is not to be searched, and returns it.

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


def private(result: dict[str, Any], method: str) -> dict[str, Any]:
    """Whoever shares a cache with others must not share what was cut to one caller's rights."""
    if "cacheScope" not in result:
        return result
    return {**result, "cacheScope": "private"}


def offered(result: dict[str, Any], versions: frozenset[str]) -> dict[str, Any]:
    """What a server says of itself, with the versions that the gateway serves for it.

    Servers leave out here what they speak after an `initialize`; of it counts what is opted in.
    """
    supported = result.get("supportedVersions")
    if not isinstance(supported, list):
        return result
    served = versions.intersection((*OLDER, *(each for each in supported if each == MODERN)))
    return {**result, "supportedVersions": sorted(served, reverse=True)}


def described(result: dict[str, Any]) -> dict[str, Any]:
    """What a server says of itself, without what nobody approved or could be authorised.

    Instructions go to the model as descriptions of tools do, and are pinned by nobody; tasks are
    not bound to a caller.
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


def initialised(result: Mapping[str, Any], versions: frozenset[str]) -> None:
    """Refuses a server that negotiated a version it was not opted in for."""
    if result.get("protocolVersion") not in versions:
        raise Refusal("upstream_version")


def error_message(identifier: str | int | None, refusal: Refusal) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.data is not None:
        error["data"] = refusal.data
    return {"jsonrpc": "2.0", "id": identifier, "error": error}

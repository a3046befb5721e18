"""Messages of a server, read as strictly as requests: which of them belong to a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.gateway.protocol.methods import SERVER_NOTIFICATIONS
from ringfence.gateway.protocol.requests import Call
from ringfence.gateway.refusals import Refusal

PROGRESS_TOKEN = "progressToken"  # noqa: S105  (a name of the protocol's)


def is_response(message: Any, call: Call) -> bool:
    """Whether a message answers the call; False: it is a notification.

    Raises `Refusal` for everything else: an answer to another request, a request of the server's
    own, anything that is not JSON-RPC.
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
    # Compared with its type, since 1 == True and 1 == 1.0 in Python. A notification has no answer.
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
        own = meta.get(PROGRESS_TOKEN) if isinstance(meta, Mapping) else None
        token = notification.get("params", {}).get(PROGRESS_TOKEN)
        return own is not None and type(token) is type(own) and token == own
    return True

"""Requests, held to every MUST of MCP that a gateway can observe.

MCP 2026-07-28: every call is one POST that is complete in itself, in headers and body alike.
Older versions (2025-11-25, 2025-06-18) have sessions, and their calls are in the body alone; they
are served where a server's configuration names them. Sections: basic/index, basic/versioning and
basic/transports/streamable-http of the specification; of 2025-11-25, basic/lifecycle and
basic/transports.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ringfence.gateway.protocol import mirrored_headers
from ringfence.gateway.protocol.methods import (
    LIST_CHANGES,
    METHODS,
    MODERN,
    OLDER,
    REQUESTS,
    SUBSCRIPTION_FILTER,
    Kind,
    Subject,
)
from ringfence.gateway.protocol.mirrored_headers import PARAM_PREFIX, AnnotationError, ParamHeader
from ringfence.gateway.protocol.strict_json import fold
from ringfence.gateway.refusals import Refusal

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names and values of ASGI."""

META = "io.modelcontextprotocol/"
TASKS = "io.modelcontextprotocol/tasks"
LARGEST_ID = mirrored_headers.LARGEST_SAFE
"""A server in JavaScript would change a larger id in its answer."""
LONGEST_SESSION = 2048
SESSION_METHOD = "ping"
"""The method that a principal must be allowed to use, to listen to a session or to end it."""


@dataclass(frozen=True)
class Call:
    """A request or notification that obeys the protocol; nothing is decided yet."""

    server: str
    version: str
    id: str | int | None
    """None: a notification."""
    method: str
    params: Mapping[str, Any]
    kind: Kind
    """The kind of thing that `name` names."""
    name: str | None
    """Name of a tool or prompt, URI (or URI template) of a resource; None: the server itself."""
    document: dict[str, Any]
    """The document that goes upstream, serialised again."""
    session: str | None = None
    """Older versions: the client's Mcp-Session-Id."""
    resources: tuple[str, ...] = ()
    """URIs that a subscription is for, each to be authorised."""


_Named: TypeAlias = tuple[Kind, str | None, tuple[str, ...]]


def _server(params: Mapping[str, Any]) -> _Named:
    return "server", None, ()


def _tool(params: Mapping[str, Any]) -> _Named:
    _check_arguments(params)
    return "tool", _text(params, "params", "name"), ()


def _prompt(params: Mapping[str, Any]) -> _Named:
    _check_arguments(params)
    return "prompt", _text(params, "params", "name"), ()


def _resource(params: Mapping[str, Any]) -> _Named:
    return "resource", _text(params, "params", "uri"), ()


def _reference(params: Mapping[str, Any]) -> _Named:
    reference = params.get("ref")
    if isinstance(reference, dict):
        if reference.get("type") == "ref/prompt" and "uri" not in reference:
            return "prompt", _text(reference, "params.ref", "name"), ()
        if reference.get("type") == "ref/resource" and "name" not in reference:
            return "resource", _text(reference, "params.ref", "uri"), ()
    raise _invalid("params.ref is no reference; send a ref/prompt by name or a ref/resource by uri")


def _subscription(params: Mapping[str, Any]) -> _Named:
    """Read a filter. An unknown member would pass unauthorised, so it is refused (`taskIds` of the
    extension for tasks is one)."""
    choice = params.get("notifications")
    if not isinstance(choice, dict) or not choice.keys() <= SUBSCRIPTION_FILTER:
        raise _invalid("params.notifications is no filter that MCP defines; list known types only")
    if not all(isinstance(choice[name], bool) for name in LIST_CHANGES & choice.keys()):
        raise _invalid("params.notifications has a type that is neither true nor false")
    uris = choice.get("resourceSubscriptions", [])
    if not isinstance(uris, list) or not all(isinstance(each, str) and each for each in uris):
        raise _invalid("params.notifications.resourceSubscriptions is not a list of URIs")
    return "server", None, tuple(uris)


_SUBJECTS: Mapping[Subject, Callable[[Mapping[str, Any]], _Named]] = {
    "server": _server,
    "tool": _tool,
    "resource": _resource,
    "prompt": _prompt,
    "reference": _reference,
    "subscription": _subscription,
}
"""Readers of the parameters, which name what a method acts on."""
_CLIENT_CAPABILITIES = frozenset({"sampling", "elicitation", "roots", "tasks"})
"""Capabilities of older versions by which servers send requests to the client."""

_VERSION = b"mcp-protocol-version"
_METHOD = b"mcp-method"
_NAME = b"mcp-name"
_SESSION = b"mcp-session-id"
_SINGLE = frozenset({_VERSION, _METHOD, _NAME, _SESSION, b"content-type"})
_MEMBERS = frozenset({"jsonrpc", "id", "method", "params"})


def read(headers: Headers, document: Any, *, server: str, versions: frozenset[str]) -> Call:
    """The call that a POST makes. `versions`: those that the server's configuration names.

    Raises `Refusal`: 400 -32600, -32602, -32020 or -32022; 404 -32601; 415 and 406.
    """
    fields = _fields(headers)
    _check_content_type(fields.get(b"content-type", b""))
    _check_accept(fields.get(b"accept", b""), b"application/json", b"text/event-stream")
    method = _check_envelope(document)
    version = _version(fields, document, method, versions)
    if version != MODERN:
        return _read_older(fields, document, method, server, version, versions)
    if "id" not in document:
        return _read_notification(fields, document, method, server)
    document = _check_meta(document)
    _check_method_header(fields, method)
    known = REQUESTS[MODERN].get(method)
    if known is None:
        raise Refusal("unknown_method")
    params = document["params"]
    kind, name, resources = _SUBJECTS[known.subject](params)
    _check_name_header(fields, name, required=known.mirrored)
    return Call(
        server, MODERN, document["id"], method, params, kind, name, document, None, resources
    )


def request_id(document: Any) -> str | int | None:
    """The id of a request, for the answer to it, however wrong the rest of the document is."""
    value = document.get("id") if isinstance(document, dict) else None
    return value if _is_id(value) else None


def read_session(
    headers: Headers,
    *,
    server: str,
    verb: Literal["GET", "DELETE"],
    versions: frozenset[str],
) -> Call:
    """A request without a body: older versions open a stream of a session by GET and end it by
    DELETE. It is authorised like `ping`. Raises `Refusal`: 405 where no older version is served."""
    older = versions.intersection(OLDER)
    if not older:
        raise Refusal("verb", headers=(("Allow", "POST"),))
    fields = _fields(headers)
    if verb == "GET":
        _check_accept(fields.get(b"accept", b""), b"text/event-stream")
    version = _version_header(fields, versions)
    if version not in older:
        raise _unsupported(version, older)
    session = _session(fields)
    if session is None:
        raise Refusal("no_session")
    return Call(server, version, None, SESSION_METHOD, {}, "server", None, {}, session)


def upstream_headers(call: Call, params: Sequence[ParamHeader] = ()) -> dict[str, str]:
    """The headers that a call carries to its server, made from the document and not passed on.

    `params`: those that the tool's schema declares, by `mirrored_headers.declared`.
    """
    if call.version != MODERN:
        return {} if call.method == "initialize" else {"MCP-Protocol-Version": call.version}
    headers = {"MCP-Protocol-Version": call.version, "Mcp-Method": call.method}
    if call.name is not None and METHODS[call.method].mirrored:
        headers["Mcp-Name"] = mirrored_headers.encode(call.name)
    for each in params:
        text = mirrored_headers.render(_argument(call, each.path))
        if text is not None:
            headers[each.header.decode()] = mirrored_headers.encode(text)
    return headers


def param_headers(
    call: Call, input_schema: Mapping[str, Any] | Sequence[ParamHeader], headers: Headers
) -> None:
    """Compare the Mcp-Param-* headers of a call with its arguments.

    `input_schema`: the tool's, or what `mirrored_headers.declared` made of it once. Raises
    `Refusal` 400 -32020. A header that no schema declares is refused: nothing in the body confirms
    it. One that the schema declares is required from MCP 2026-07-28 on.
    """
    sent: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        if name.startswith(PARAM_PREFIX):
            if name in sent:
                raise Refusal("duplicate_header", "an Mcp-Param header is there twice")
            sent[name] = value.strip(b" \t")
    for each in _declared(input_schema) if call.method == "tools/call" else ():
        value = _argument(call, each.path)
        raw = sent.pop(each.header, None)
        if raw is None:
            if mirrored_headers.render(value) is not None and call.version == MODERN:
                raise Refusal("missing_header", "an Mcp-Param header of an argument is missing")
        elif not mirrored_headers.mirrors(each, _mirrored(raw, "an Mcp-Param header"), value):
            raise Refusal("header_mismatch", "an Mcp-Param header differs from its argument")
    if sent:
        raise Refusal("undeclared_header")


def _declared(
    input_schema: Mapping[str, Any] | Sequence[ParamHeader],
) -> Sequence[ParamHeader]:
    if not isinstance(input_schema, Mapping):
        return input_schema
    try:
        return mirrored_headers.declared(input_schema)
    except AnnotationError:
        return ()  # no client may use such a tool, let alone mirror its arguments


def _fields(headers: Headers) -> dict[bytes, bytes]:
    """The headers that are read here, by name in lower case."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        if name in _SINGLE:
            if name in fields:
                raise Refusal("duplicate_header", f"{name.decode()} is there twice; send it once")
            fields[name] = value.strip(b" \t")
        elif name == b"accept":
            # A list may come in several lines (RFC 9110, section 5.3).
            fields[name] = fields[name] + b"," + value if name in fields else value
    return fields


def _check_content_type(value: bytes) -> None:
    if value == b"application/json":
        return
    media, _, parameters = value.lower().partition(b";")
    if media.strip(b" \t") != b"application/json" or parameters.strip(b' \t;"') not in _UTF_8:
        raise Refusal("content_type")


_UTF_8 = frozenset({b"", b"charset=utf-8", b'charset="utf-8'})


def _check_accept(value: bytes, *media_types: bytes) -> None:
    if value == b"application/json, text/event-stream":
        return
    accepted: set[bytes] = set()
    for each in value.lower().split(b","):
        media, *parameters = (part.strip(b" \t") for part in each.split(b";"))
        if not any(part.startswith(b"q=") and not part[2:].strip(b"0.") for part in parameters):
            accepted.add(media)
    for media in media_types:
        if not accepted & {media, media.partition(b"/")[0] + b"/*", b"*/*"}:
            raise Refusal("accept", f"Accept does not list {b' and '.join(media_types).decode()}")


def _check_envelope(document: Any) -> str:
    """The method. JSON-RPC 2.0 with what MCP narrows: one message, params by name, no null id."""
    if isinstance(document, list):
        raise Refusal("batch")
    if not isinstance(document, dict):
        raise Refusal("no_object")
    if "result" in document or "error" in document:
        raise Refusal("client_response")
    if not document.keys() <= _MEMBERS:
        raise Refusal("unknown_member")
    if document.get("jsonrpc") != "2.0":
        raise Refusal("jsonrpc")
    method = document.get("method")
    if not isinstance(method, str) or not method:
        raise Refusal("method")
    if "id" in document and not _is_id(document["id"]):
        raise Refusal("id")
    if not isinstance(document.get("params", {}), dict):
        raise Refusal("params")
    return method


def _is_id(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_ID
    return isinstance(value, str)


def _version(
    fields: Mapping[bytes, bytes],
    document: Mapping[str, Any],
    method: str,
    versions: frozenset[str],
) -> str:
    """One of `versions`; of an initialize that names none, the newest older one."""
    if _VERSION not in fields and method == "initialize" and "id" in document:
        older = [each for each in OLDER if each in versions]
        if older:
            return older[0]
    version = _version_header(fields, versions)
    meta = document.get("params", {}).get("_meta")
    if isinstance(meta, dict) and meta.get(_META_VERSION, version) != version:
        raise Refusal(
            "header_mismatch", f"MCP-Protocol-Version differs from {_META_VERSION} in the body"
        )
    if version not in versions or version not in REQUESTS:
        raise _unsupported(version, versions & REQUESTS.keys())
    return version


def _version_header(fields: Mapping[bytes, bytes], versions: frozenset[str]) -> str:
    raw = fields.get(_VERSION)
    if raw is None:
        raise Refusal(
            "missing_header",
            "MCP-Protocol-Version is missing; send one of the versions supported:"
            f" {', '.join(_newest_first(versions))}",
            data={"supported": _newest_first(versions)},
        )
    if not raw or len(raw) > 32 or not raw.isascii() or not raw.decode().isprintable():
        raise Refusal("invalid_header", "MCP-Protocol-Version is not the name of a version")
    return raw.decode()


_META_VERSION = f"{META}protocolVersion"
_META_CAPABILITIES = f"{META}clientCapabilities"


def _check_meta(document: dict[str, Any]) -> dict[str, Any]:
    """The document, without the offer to accept tasks as results: nobody could query one."""
    params = document.get("params", {})
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        raise _invalid(
            f"params._meta is missing; send an object with {_META_VERSION} and {_META_CAPABILITIES}"
        )
    if _META_VERSION not in meta:
        raise _invalid(f"params._meta has no {_META_VERSION}; send the version of the protocol")
    capabilities = meta.get(_META_CAPABILITIES)
    if not isinstance(capabilities, dict):
        raise _invalid(f"params._meta has no {_META_CAPABILITIES}; send an object, if empty")
    extensions = capabilities.get("extensions")
    if isinstance(extensions, dict) and TASKS in extensions:
        extensions = {name: each for name, each in extensions.items() if name != TASKS}
        capabilities = {**capabilities, "extensions": extensions}
        meta = {**meta, _META_CAPABILITIES: capabilities}
        return {**document, "params": {**params, "_meta": meta}}
    return document


def _read_notification(
    fields: Mapping[bytes, bytes], document: dict[str, Any], method: str, server: str
) -> Call:
    """Read a notification of MCP 2026-07-28. None has an effect over HTTP, so none is forwarded."""
    if not method.startswith("notifications/"):
        raise Refusal("no_id")
    if _METHOD in fields:
        _check_method_header(fields, method)
    _check_name_header(fields, None, required=False)
    params = document.get("params", {})
    return Call(server, MODERN, None, method, params, "server", None, document)


def _read_older(
    fields: Mapping[bytes, bytes],
    document: dict[str, Any],
    method: str,
    server: str,
    version: str,
    versions: frozenset[str],
) -> Call:
    if _METHOD in fields:
        _check_method_header(fields, method)
    params = document.get("params", {})
    session = _session(fields)
    if "id" not in document:
        known = METHODS.get(method)
        if known is None or not known.notification:
            raise Refusal("unknown_method")
        _check_name_header(fields, None, required=False)
        return Call(server, version, None, method, params, "server", None, document, session)
    known = REQUESTS[version].get(method)
    if known is None:
        raise Refusal("unknown_method")
    kind, name, resources = _SUBJECTS[known.subject](params)
    _check_name_header(fields, name, required=False)
    if "task" in params:
        raise _invalid("params.task asks for a task, and tasks are not offered; leave it out")
    if method == "initialize":
        version, document = _negotiate(document, versions)
        params, session = document["params"], None
    return Call(
        server, version, document["id"], method, params, kind, name, document, session, resources
    )


def _negotiate(document: dict[str, Any], versions: frozenset[str]) -> tuple[str, dict[str, Any]]:
    """Negotiate the version: a client may request any, and is offered another one instead
    (2025-11-25, lifecycle). The server is asked for an enabled one, so its answer is that offer.
    It does not learn of capabilities by which it would send requests to the client."""
    params = document.get("params", {})
    requested, capabilities = params.get("protocolVersion"), params.get("capabilities")
    if not isinstance(requested, str) or not isinstance(capabilities, dict):
        raise _invalid("params needs protocolVersion, a string, and capabilities, an object")
    older = [each for each in OLDER if each in versions]
    version = requested if requested in older else older[0]
    capabilities = {
        name: each for name, each in capabilities.items() if name not in _CLIENT_CAPABILITIES
    }
    params = {**params, "protocolVersion": version, "capabilities": capabilities}
    return version, {**document, "params": params}


def _session(fields: Mapping[bytes, bytes]) -> str | None:
    raw = fields.get(_SESSION)
    if raw is None:
        return None
    if not 0 < len(raw) <= LONGEST_SESSION or min(raw) < 0x21 or max(raw) > 0x7E:
        raise Refusal("session")
    return raw.decode()


def _check_method_header(fields: Mapping[bytes, bytes], method: str) -> None:
    raw = fields.get(_METHOD)
    if raw is None:
        raise Refusal("missing_header", "Mcp-Method is missing; send the method of the body")
    if raw != method.encode("utf-8"):
        raise Refusal("header_mismatch", "Mcp-Method differs from the method in the body")


def _check_name_header(fields: Mapping[bytes, bytes], name: str | None, *, required: bool) -> None:
    raw = fields.get(_NAME)
    if raw is None:
        if required:
            raise Refusal("missing_header", "Mcp-Name is missing; send the name in the body")
    elif _mirrored(raw, "Mcp-Name") != name:
        raise Refusal("header_mismatch", "Mcp-Name differs from what the body names")


def _mirrored(raw: bytes, header: str) -> str:
    try:
        return mirrored_headers.decode(raw)
    except ValueError:
        raise Refusal(
            "invalid_header", f"{header} is neither plain ASCII nor canonical Base64 of UTF-8"
        ) from None


def _argument(call: Call, path: Sequence[str]) -> Any:
    """The argument at a path; None if there is none. Raises `Refusal` where names on the path
    differ only in case: a server that folds case would read another value."""
    node: Any = call.params.get("arguments")
    for name in path:
        if not isinstance(node, dict):
            return None
        folded = fold(name)
        if any(fold(each) == folded and each != name for each in node):
            raise Refusal("header_mismatch", "an argument with an Mcp-Param header is there twice")
        node = node.get(name)
    return node


def _check_arguments(params: Mapping[str, Any]) -> None:
    if not isinstance(params.get("arguments", {}), dict):
        raise _invalid("params.arguments is not an object; send one, or leave it out")


def _text(level: Mapping[str, Any], where: str, name: str) -> str:
    value = level.get(name)
    if not isinstance(value, str) or not value:
        raise _invalid(f"{where}.{name} is missing; send it as a string")
    return value


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_params", message)


def _unsupported(version: str, versions: Collection[str]) -> Refusal:
    return Refusal(
        "unsupported_version",
        data={"supported": _newest_first(versions), "requested": version},
    )


def _newest_first(versions: Collection[str]) -> list[str]:
    return sorted(versions, reverse=True)

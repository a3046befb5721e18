"""Every reason for which the gateway refuses a request: HTTP status, JSON-RPC code and message.

A reason is a word in snake case for the audit log and the metrics. A message is for the caller:
no internals, and none of the caller's own values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
# The gateway's own, in the range that JSON-RPC leaves to implementations.
UNAUTHENTICATED = -32001
FORBIDDEN = -32003
TOO_MANY = -32005
UNAVAILABLE = -32006
WITHHELD = -32007
GRANT_NEEDED = -32008

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RefusalAnswer:
    """How the gateway answers a request that it refuses for one reason."""

    status: int
    code: int
    message: str
    headers: Headers = ()


def _rows(status: int, code: int, retry_after: int | None = None, /, **messages: str):
    headers = (("Retry-After", str(retry_after)),) if retry_after else ()
    return {reason: RefusalAnswer(status, code, text, headers) for reason, text in messages.items()}


def _alike(message: str, reasons: str) -> dict[str, str]:
    """One message for several reasons: which check failed is for the audit log alone."""
    return dict.fromkeys(reasons.split(), message)


REFUSALS: Mapping[str, RefusalAnswer] = {
    # HTTP
    **_rows(
        400,
        INVALID_REQUEST,
        query="the address has a query; send tokens in Authorization",
        path="the path is not plain; send /<server>/mcp",
        host_header="send the Host header once",
        authorization_repeated="the request has more than one Authorization header; send one",
    ),
    **_rows(403, INVALID_REQUEST, origin="this Origin is not allowed here"),
    **_rows(404, INVALID_REQUEST, no_such_path="there is nothing at this address"),
    **_rows(
        405,
        INVALID_REQUEST,
        method_not_allowed="the server does not offer that for sessions",
        verb="this server takes POST alone; it has no sessions",
    ),
    **_rows(406, INVALID_REQUEST, accept="Accept does not list the media types that MCP needs"),
    **_rows(408, INVALID_REQUEST, body_timeout="the body took too long; send it at once"),
    **_rows(413, INVALID_REQUEST, body_too_large="the body is too large"),
    **_rows(
        415,
        INVALID_REQUEST,
        content_encoding="send the body as it is, without encoding it",
        content_type="the body is not application/json in UTF-8",
    ),
    **_rows(421, INVALID_REQUEST, host="this host is not served here"),
    # Strict JSON. For a server's result see `Refusal.of_result`.
    **_rows(
        400,
        PARSE_ERROR,
        invalid_json="the request is not JSON in UTF-8 (RFC 8259); send one document, strictly",
        nesting="the request is nested too deep; flatten it",
        duplicate_key="the request has a member twice; send each name once",
        number_range="the request has an integer beyond 64 bits; send it as a string instead",
        nul="the request has U+0000 in a string; leave it out",
        ambiguous_key="the request has a member whose name differs from another, or from one that"
        " MCP defines, only in case; use the exact names",
    ),
    # MCP
    **_rows(
        400,
        INVALID_REQUEST,
        batch="the body is a batch; send one message in each request",
        no_object="the body is not a JSON-RPC message; send an object",
        client_response="the body is a response; this gateway passes no requests of servers"
        " (sampling, elicitation, roots) to clients, so there is none to answer",
        unknown_member="the message has members that JSON-RPC does not define",
        jsonrpc='the message is not of JSON-RPC 2.0; send "jsonrpc": "2.0"',
        method="the message has no method; send its name as a string",
        id="the id is neither a string nor an integer of 53 bits",
        no_id="the request has no id; send a string or an integer",
        params="params is not an object; send params by name",
        session="Mcp-Session-Id is not visible ASCII; send it as it was received",
        no_session="Mcp-Session-Id is missing; initialize first",
    ),
    **_rows(400, INVALID_PARAMS, invalid_params="the params are not those of this method"),
    **_rows(
        400,
        HEADER_MISMATCH,
        missing_header="a header that repeats a value of the body is missing",
        duplicate_header="a header is there twice; send it once",
        invalid_header="a header is neither plain ASCII nor canonical Base64 of UTF-8",
        undeclared_header="an Mcp-Param header is of no argument of this call",
        header_mismatch="a header differs from the value in the body",
    ),
    **_rows(
        400,
        UNSUPPORTED_VERSION,
        unsupported_version="this version of the protocol is not supported; use one that"
        " data.supported names",
    ),
    **_rows(404, UNKNOWN_METHOD, unknown_method="this method is not offered here"),
    **_rows(
        404,
        INVALID_REQUEST,
        unknown_session="this session does not exist; initialize a new one",
        session_unknown="the session has ended; initialize a new one",
    ),
    # Tokens
    **_rows(
        401,
        UNAUTHENTICATED,
        no_token="an access token is needed",  # noqa: S106  (a message)
        no_certificate="show the client certificate of a principal of this environment",
        **_alike(
            "the access token is not valid here, or not any more",
            "token_too_large token_malformed token_embedded_key token_critical_header"
            " token_algorithm token_signature token_duplicate_name token_type token_issuer"
            " token_unknown_key token_audience token_no_times token_lifetime token_principal"
            " token_id token_confirmation token_not_bound token_expired token_not_yet"
            " token_revoked token_no_certificate token_other_certificate token_without_proof"
            " token_scope_malformed token_no_id token_replayed",
        ),
        **_alike(
            "the DPoP proof is not valid for this request",
            "proof_too_large proof_malformed proof_embedded_key proof_critical_header"
            " proof_algorithm proof_signature proof_duplicate_name proof_type proof_key"
            " proof_other_key proof_method proof_address proof_other_token proof_time proof_id"
            " proof_one_proof_needed proof_replayed",
        ),
    ),
    **_rows(
        403,
        FORBIDDEN,
        token_scope="the access token lacks the scope that this server needs",  # noqa: S106
    ),
    **_rows(
        503,
        UNAVAILABLE,
        5,
        **_alike(
            "tokens cannot be verified at the moment; try again later",
            "keys_unavailable replays_unavailable revocations_unreadable",
        ),
    ),
    # Policy
    **_rows(
        403,
        FORBIDDEN,
        **_alike(
            "no role of this principal allows this; ask an operator for a role that does",
            "no_policy forbidden policy_error unknown_principal unknown_server unknown_tool"
            " unknown_resource unknown_prompt unknown_subscription",
        ),
    ),
    # Consent: what a call lacks, and what is wrong with a signed document
    **_rows(
        403,
        GRANT_NEEDED,
        no_grant="this tool is sensitive: another person must approve its use first",
    ),
    **_rows(400, INVALID_REQUEST, malformed_document="the document is not one that is signed here"),
    **_rows(
        403,
        FORBIDDEN,
        bad_signature="the signature does not verify",
        untrusted_certificate="the certificate is not a principal's of this environment, or was"
        " not valid at the time",
        certificate_expired="the certificate it was signed with has expired",
        wrong_issuer="iss is not the URI in the certificate",
        wrong_environment="the document is of another environment",
        wrong_request="the document was signed over another request",
        issued_in_future="the document was signed in the future; compare the clocks",
        bad_time="the approval is older than the request",
        expired="the time that was requested is over; request it again",
        revoked="this principal or certificate is revoked; contact a responder",
        tool_not_sensitive="no tool of that name needs a grant",
        bad_reason="the reason is not one printable line of the length required",
        too_short="the grant is too short",
        too_long="the grant is too long",
        bad_start="the grant begins too late after its request",
        no_approver="nobody may approve this: every approver is the requester or their owner",
        self_approval="nobody approves a request of their own",
        approver_not_a_person="only a person approves",
        own_agent="nobody approves for an agent of their own",
        not_an_approver="the signer is not an approver of this tool",
        not_a_revoker="only the requester and the tool's approvers revoke a grant",
    ),
    **_rows(404, INVALID_PARAMS, unknown_request="no request here has this id"),
    **_rows(409, INVALID_REQUEST, id_taken="a request with this id already exists"),
    **_rows(
        429,
        TOO_MANY,
        60,
        too_many_requests="too many requests; revoke one that is open, or wait until some have"
        " expired",
    ),
    **_rows(
        503, UNAVAILABLE, grants_unavailable="the document could not be stored; try again later"
    ),
    # Revocations
    **_rows(
        403,
        FORBIDDEN,
        bad_kind="this kind of thing cannot be revoked",
        bad_value="the value is not one of this kind",
        too_old="the document was signed too long ago; sign it again",
        overtaken="somebody has signed something else about this since",
        not_a_responder="only responders revoke or restore the access of others",
    ),
    **_rows(404, INVALID_PARAMS, not_revoked="this is not revoked here"),
    **_rows(
        429,
        TOO_MANY,
        too_many_revocations="too many revocations are in force; change the manifest",
    ),
    # Pins
    **_rows(
        403,
        FORBIDDEN,
        tool_withheld="this tool is not available: its definition waits for approval by an"
        " operator",
    ),
    # Inspection
    **_rows(
        403,
        WITHHELD,
        arguments_withheld="the arguments hold personal data or secrets, which this gateway does"
        " not pass on; leave them out",
        result_withheld="The result was withheld by inspection: its data class does not allow"
        " what is in it. Ask for less, or ask an administrator for the data class of this tool.",
        inspection_timeout="the data was withheld: searching it for personal data and secrets took"
        " too long; send or ask for less at a time",
        inspection_failed="the data was withheld: it could not be searched for personal data and"
        " secrets",
    ),
    **_rows(
        503,
        UNAVAILABLE,
        5,
        inspection_busy="the gateway has more to search than it can now; try again later",
    ),
    # Limits
    **_rows(429, TOO_MANY, rate_limited="too many calls: wait as long as Retry-After says"),
    **_rows(
        429,
        TOO_MANY,
        5,
        too_many_listeners="this principal listens too many times already; end one of them",
    ),
    **_rows(
        503,
        UNAVAILABLE,
        1,
        server_busy="the server is busy; try again later",
        circuit_open="the server is unavailable for now",
    ),
    # Audit
    **_rows(
        503,
        UNAVAILABLE,
        5,
        audit_unavailable="the gateway cannot record calls now, and so makes none; try again later",
    ),
    # The server behind the gateway
    **_rows(
        502,
        UNAVAILABLE,
        session_id="the server gave out a session id that MCP does not allow",
        event_too_large="an event of the server is too large",
        event_not_utf8="an event of the server is not UTF-8",
        result_too_large="the server behind the gateway sent more than the gateway passes on",
        upstream_reset="the server behind the gateway broke off before its answer was complete",
        upstream_encoding="the server behind the gateway answered in an encoding that was not"
        " requested",
        upstream_status="the server behind the gateway answered with a status that MCP does not"
        " allow",
        upstream_error="the server behind the gateway answered the gateway itself with an error",
        upstream_version="the server behind the gateway chose a protocol version that is not"
        " enabled for it",
        upstream_not_jsonrpc="the server behind the gateway sent something that is not JSON-RPC",
        upstream_not_mcp="the server behind the gateway sent a list that is not one of MCP",
        upstream_request="the server behind the gateway sent a request of its own, which is not"
        " passed on",
        upstream_other_id="the server behind the gateway answered another request than the one it"
        " was sent",
        upstream_schema="the server behind the gateway sent a result that the tool's own output"
        " schema does not allow",
    ),
    **_rows(
        503,
        UNAVAILABLE,
        1,
        upstream_unreachable="the server behind the gateway does not answer; try again later",
        upstream_timeout="the server behind the gateway took too long; it may have carried out the"
        " call",
        upstream_busy="the server behind the gateway is busy; try again later",
    ),
    **_rows(
        503,
        UNAVAILABLE,
        2,
        upstream_unlisted="the server behind the gateway does not say which tools it has; try"
        " again later",
    ),
    **_rows(503, UNAVAILABLE, listening_ended="the gateway is changing; listen again"),
    # The gateway and its client
    **_rows(500, INTERNAL_ERROR, internal_error="the gateway failed; its log says why"),
    **_rows(
        499,
        INTERNAL_ERROR,
        client_gone="the client closed the connection",
        unfinished="ended without an answer",
    ),
}

_RESULT = RefusalAnswer(
    502, UNAVAILABLE, "the server behind the gateway sent a result that is not strict JSON"
)


class Refusal(Exception):  # noqa: N818
    """An answer of the gateway other than the result of a call."""

    def __init__(
        self,
        reason: str,
        message: str | None = None,
        *,
        data: dict[str, Any] | None = None,
        headers: Headers = (),
        answer: RefusalAnswer | None = None,
    ) -> None:
        """`message`: one that says more than that of the table. `data`: JSON-RPC `error.data`.

        `headers`: HTTP headers beside those of the table, such as WWW-Authenticate.
        """
        super().__init__(reason)
        answer = answer or REFUSALS[reason]
        self.reason = reason
        self.status = answer.status
        self.code = answer.code
        self.message = message or answer.message
        self.data = data
        self.headers = headers or answer.headers

    @classmethod
    def of_result(cls, reason: str) -> Refusal:
        """A fault of strict JSON that is the server's, not the caller's."""
        return cls(reason, answer=_RESULT)

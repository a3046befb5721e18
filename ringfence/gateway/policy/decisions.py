"""Authorisation: Cedar decides, and denies what no policy permits.

Facts come from the manifest: principals and their roles, servers and what they offer, with its
data class. A name that they do not have is refused before Cedar is asked. Cedar skips a policy
that fails while it is evaluated, so a failing `forbid` would no longer forbid: any failure denies.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol

import cedarpy

from ringfence.gateway.policy import source
from ringfence.gateway.policy.resource_patterns import (
    LONGEST,
    ResourcePatternError,
    ResourcePatterns,
)
from ringfence.gateway.policy.source import NAMESPACE, PolicySourceError
from ringfence.gateway.protocol.methods import METHODS, SUBSCRIPTION_FILTER, USES, Kind

__all__ = ["Decision", "Policies", "PolicySourceError"]

ENTITY_TYPES: Mapping[Kind, str] = {
    "server": "Server",
    "tool": "Tool",
    "resource": "Resource",
    "prompt": "Prompt",
}
MOST_SUBSCRIPTIONS = 256
"""Resources in one subscriptions/listen."""

REMEMBERED = 16384
"""Decisions kept; each takes about half a kilobyte."""
REMEMBERED_URIS = 4096
"""URIs kept with their patterns; each takes up to 2 KiB."""

BUILT_IN = {
    "(built in)": """
    @id("sensitive-tools-need-a-grant")
    forbid (
        principal,
        action == Ringfence::Action::"tools/call",
        resource is Ringfence::Tool
    ) when { resource.sensitive && !context.granted };
    """
}
"""Policies in force whatever an operator deploys or forgets to deploy."""

_FAILED = re.compile(r"^error while evaluating policy `(policy\d+)`")


class Caller(Protocol):
    """The part of a `tokens.CallerIdentity` that decisions depend on."""

    @property
    def principal(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def certificate(self) -> str | None: ...


class CallFacts(Protocol):
    """The part of a `protocol.Call` that decisions depend on."""

    @property
    def server(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def name(self) -> str | None: ...


@dataclass(frozen=True)
class Decision:
    allowed: bool
    policies: tuple[str, ...]
    """Ids of the policies that determined it: they permit, forbid, or failed."""
    reason: str
    """`allowed`, `no_policy`, `forbidden`, `policy_error`, `no_grant` (a grant would be enough),
    or `unknown_principal`, `unknown_server`, `unknown_method`, `unknown_tool`, `unknown_resource`,
    `unknown_prompt`, `unknown_subscription`."""


@dataclass(frozen=True)
class _Question:
    """One question to Cedar. `entity` is the id of the resource's entity."""

    action: str
    kind: Kind
    entity: str


class Policies:
    """One version of the policies and facts, with a cache of decisions."""

    def __init__(
        self,
        schema: str,
        texts: Mapping[str, str],
        *,
        stage: str,
        principals: Mapping[str, Mapping[str, Any]],
        roles: Iterable[str],
        servers: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """`texts`: Cedar policies by file name; the other facts as `gateway.json` has them.

        Raises `PolicySourceError` with every problem. Takes milliseconds for each hundred policies.
        """
        self._stage = stage
        self._principals = frozenset(principals)
        self._servers = frozenset(servers)
        self._schema = _schema(schema)
        self._patterns = _patterns(servers)
        self._entities: dict[tuple[str, str], dict[str, Any]] = {
            (each["uid"]["type"].removeprefix(f"{NAMESPACE}::"), each["uid"]["id"]): each
            for each in _entities(principals, roles, servers)
        }
        read = source.read({**BUILT_IN, **texts}, self._schema, self._entities.keys())
        self._policies = read.policies
        self._ids = read.ids
        try:
            self._parsed_entities = cedarpy.Entities.from_json_str(
                json.dumps(list(self._entities.values())), self._schema
            )
        except ValueError as error:
            raise PolicySourceError(
                [f"gateway.json: {error}; correct it in the manifest"]
            ) from error
        self.version = _digest(schema, texts, stage, list(self._entities.values()))
        """SHA-256, hex, of everything except the call that decisions depend on."""
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._evaluate)
        self._match = lru_cache(maxsize=REMEMBERED_URIS)(self._pattern)
        self.remembered = self._remembered.cache_info
        """Hits, misses and size of the cache of decisions."""

    def decide(
        self, identity: Caller, call: CallFacts, *, granted: bool, address: str | None = None
    ) -> Decision:
        """Whether the call may be made.

        `granted`: a live grant covers this principal and this tool. `address`: the client's. A
        call that names several things is allowed if each is; the first denial is the answer.
        """
        if identity.principal not in self._principals:
            return Decision(False, (), "unknown_principal")
        if call.server not in self._servers:
            return Decision(False, (), "unknown_server")
        decision: Decision | None = None
        for question in self._questions(call):
            if isinstance(question, Decision):
                return question
            answer = self._ask(identity, question, granted, address)
            if not answer.allowed:
                return answer
            decision = decision or answer
        return decision or Decision(False, (), "unknown_method")

    def visible(
        self,
        identity: Caller,
        server: str,
        kind: Kind,
        names: Iterable[str],
        *,
        address: str | None = None,
    ) -> list[str]:
        """Select the names in a server's list that the caller may use, in their order.

        `names`: of tools or prompts, URIs of resources or URI templates. A sensitive tool is shown
        to those who may use it with a grant.
        """
        if identity.principal not in self._principals or server not in self._servers:
            return []
        return [
            name
            for name in names
            if isinstance(question := self._question(server, USES[kind], kind, name), _Question)
            and self._ask(
                identity, question, self._is_sensitive(question.kind, question.entity), address
            ).allowed
        ]

    def data_class(self, server: str, kind: Kind, name: str | None) -> str | None:
        """The data class of a tool, resource or prompt that the manifest names; None otherwise."""
        question = self._question(server, USES[kind], kind, name)
        if kind == "server" or isinstance(question, Decision):
            return None
        entity = self._entities[ENTITY_TYPES[kind], question.entity]
        return entity["attrs"]["data_class"]["__entity"]["id"]

    def _questions(self, call: CallFacts) -> Iterator[_Question | Decision]:
        method = METHODS.get(call.method)
        if method is None:
            return
        if method.subject == "subscription":
            yield from self._subscription(call)
        elif method.subject == "reference":
            yield self._completion(call)
        else:
            yield self._question(call.server, call.method, method.subject, call.name)

    def _question(
        self, server: str, action: str, kind: Kind, name: str | None
    ) -> _Question | Decision:
        if kind == "server":
            return _Question(action, kind, server)
        if kind == "resource" and name is not None and server in self._patterns:
            # A longer one would fill the cache with the answer that it matches no pattern.
            name = self._match(server, name) if len(name) <= LONGEST else None
        entity = f"{server}/{name}"
        if name is None or (ENTITY_TYPES[kind], entity) not in self._entities:
            return Decision(False, (), f"unknown_{kind}")
        return _Question(action, kind, entity)

    def _completion(self, call: CallFacts) -> _Question | Decision:
        match call.params.get("ref"):
            case {"type": "ref/prompt", "name": str(name)}:
                return self._question(call.server, call.method, "prompt", name)
            case {"type": "ref/resource", "uri": str(uri)}:
                return self._question(call.server, call.method, "resource", uri)
        return Decision(False, (), "unknown_prompt")

    def _subscription(self, call: CallFacts) -> Iterator[_Question | Decision]:
        yield _Question(call.method, "server", call.server)
        listened = call.params.get("notifications")
        if not isinstance(listened, Mapping) or listened.keys() - SUBSCRIPTION_FILTER:
            yield Decision(False, (), "unknown_subscription")
            return
        uris = listened.get("resourceSubscriptions") or ()
        if not isinstance(uris, Sequence) or len(uris) > MOST_SUBSCRIPTIONS:
            yield Decision(False, (), "unknown_subscription")
            return
        for uri in uris:
            name = uri if isinstance(uri, str) else None
            yield self._question(call.server, "resources/subscribe", "resource", name)

    def _pattern(self, server: str, uri: str) -> str | None:
        return self._patterns[server].match(uri)

    def _is_sensitive(self, kind: Kind, entity: str) -> bool:
        return self._entities[ENTITY_TYPES[kind], entity]["attrs"].get("sensitive", False)

    def _ask(
        self, identity: Caller, question: _Question, granted: bool, address: str | None
    ) -> Decision:
        return self._remembered(
            identity.principal,
            identity.scopes,
            identity.certificate is not None,
            question.action,
            question.kind,
            question.entity,
            granted,
            address,
        )

    def _evaluate(
        self,
        principal: str,
        scopes: frozenset[str],
        certificate: bool,
        action: str,
        kind: Kind,
        entity: str,
        granted: bool,
        address: str | None,
    ) -> Decision:
        """Decide, given everything that Cedar sees and nothing else, so that it can be cached."""
        context = {
            "stage": _reference("Stage", self._stage),
            "scopes": sorted(scopes),
            "certificate": certificate,
        }
        if address is not None:
            try:
                context["address"] = {"__extn": {"fn": "ip", "arg": _plain_address(address)}}
            except ValueError:
                return Decision(False, (), "policy_error")
        request = {
            "principal": _uid("Principal", principal),
            "action": _uid("Action", action),
            "resource": _uid(ENTITY_TYPES[kind], entity),
        }
        decision = self._authorize(request, context | {"granted": granted})
        if granted or decision.allowed or decision.reason == "policy_error":
            return decision
        if not self._is_sensitive(kind, entity):
            return decision
        with_grant = self._authorize(request, context | {"granted": True})
        if with_grant.allowed:
            return Decision(False, decision.policies, "no_grant")
        return with_grant

    def _authorize(self, request: dict[str, Any], context: dict[str, Any]) -> Decision:
        answer = cedarpy.is_authorized(
            request | {"context": context}, self._policies, self._parsed_entities, self._schema
        )
        if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
            failed = filter(None, map(_FAILED.search, answer.diagnostics.errors))
            return Decision(False, self._named(each[1] for each in failed), "policy_error")
        policies = self._named(answer.diagnostics.reasons)
        if answer.allowed:
            return Decision(True, policies, "allowed")
        return Decision(False, policies, "forbidden" if policies else "no_policy")

    def _named(self, keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(self._ids[key] for key in keys))


def _schema(text: str) -> cedarpy.Schema:
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        problem = f"schema.cedarschema: {error}; deploy the one that came with the gateway"
        raise PolicySourceError([problem]) from error


def _patterns(servers: Mapping[str, Mapping[str, Any]]) -> dict[str, ResourcePatterns]:
    patterns: dict[str, ResourcePatterns] = {}
    problems: list[str] = []
    for name, server in servers.items():
        try:
            patterns[name] = ResourcePatterns(server.get("resources", {}))
        except ResourcePatternError as error:
            problems.append(f"gateway.json: servers.{name}.resources: {error}")
    if problems:
        raise PolicySourceError(problems)
    return patterns


def _entities(
    principals: Mapping[str, Mapping[str, Any]],
    roles: Iterable[str],
    servers: Mapping[str, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    for role in roles:
        yield {"uid": _uid("Role", role), "attrs": {}, "parents": []}
    for name, principal in principals.items():
        attributes = {"kind": _reference("Kind", principal["kind"])}
        if owner := principal.get("owner"):
            attributes["owner"] = _reference("Principal", owner)
        yield {
            "uid": _uid("Principal", name),
            "attrs": attributes,
            "parents": [_uid("Role", role) for role in principal["roles"]],
        }
    for name, server in servers.items():
        yield {"uid": _uid("Server", name), "attrs": {}, "parents": []}
        for kind in ("tool", "resource", "prompt"):
            for item, facts in server.get(f"{kind}s", {}).items():
                attributes: dict[str, Any] = {
                    "data_class": _reference("DataClass", facts["data_class"])
                }
                if kind == "tool":
                    attributes["sensitive"] = facts["sensitive"]
                yield {
                    "uid": _uid(ENTITY_TYPES[kind], f"{name}/{item}"),
                    "attrs": attributes,
                    "parents": [_uid("Server", name)],
                }


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"{NAMESPACE}::{kind}", "id": name}


def _reference(kind: str, name: str) -> dict[str, Any]:
    return {"__entity": _uid(kind, name)}


def _plain_address(text: str) -> str:
    """Write an address as Cedar and the policies expect it. Raises `ValueError`."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""Rules of gateway.json beyond its schema: names that sections use must be defined in others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ringfence.gateway.configuration.files import Where

Problem = tuple[Where, str]


def problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Find every place where sections of the document do not fit together."""
    principals, roles, servers = (document[key] for key in ("principals", "roles", "servers"))
    for name, principal in principals.items():
        where = ("principals", name)
        for role in principal["roles"]:
            if role not in roles:
                yield ((*where, "roles"), f"no role is named {role!r}; define it")
        owner = principal.get("owner")
        if owner is not None and (owner not in principals or principals[owner]["kind"] != "person"):
            yield ((*where, "owner"), f"{owner!r} is not a person listed here")
    for name, role in roles.items():
        for kind in ("tools", "resources", "prompts"):
            for server, names in role.get(kind, {}).items():
                where = ("roles", name, kind, server)
                if server not in servers:
                    yield (where, "there is no such server")
                    continue
                for missing in sorted(set(names) - set(servers[server].get(kind, {}))):
                    yield (
                        where,
                        f"the server has no {kind.removesuffix('s')} {missing!r}; "
                        "name it in its entry or leave it out here",
                    )
    for responder in document.get("responders", ()):
        if principals.get(responder, {}).get("kind") not in ("person", "service"):
            yield (
                ("responders",),
                f"{responder!r} is not a person or service listed under principals",
            )
    for name, server in servers.items():
        yield from _server_problems(("servers", name), server, principals)
    for number, issuer in enumerate(document["tokens"]["issuers"]):
        if (issuer.get("jwks_file") is None) == (issuer.get("jwks_url") is None):
            yield (
                ("tokens", "issuers", number),
                "needs either jwks_file or jwks_url, and not both",
            )
    if document["stage"] != "production" and not document["inspection"]["mask"]:
        yield (
            ("inspection", "mask"),
            "must be true outside of production: personal data is masked there always",
        )


def _server_problems(where: Where, server: Any, principals: Any) -> Iterator[Problem]:
    url = urlsplit(server["url"])
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        yield ((*where, "url"), "plain HTTP leaves this host; use https://")
    for name, tool in server["tools"].items():
        place = (*where, "tools", name)
        approvers = tool.get("approvers", [])
        for approver in approvers:
            if principals.get(approver, {}).get("kind") != "person":
                yield (
                    (*place, "approvers"),
                    f"{approver!r} is not a person listed under principals",
                )
        if tool["sensitive"] and not approvers:
            yield (place, "is sensitive, but nobody may approve; name approvers")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The gateway: where it runs, that nothing leads around it, and whose tokens it takes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.finding import Finding, quoted
from ringfence.manifest.validation.rules.network import malformed_network, network
from ringfence.manifest.validation.rules.reference import exists

GROUP = "edge"


def _edge_hosts(manifest: Cursor) -> list[str]:
    return [name for name, host in manifest["hosts"].entries() if GROUP in host["groups"].texts()]


def has_a_host(manifest: Cursor) -> Iterator[Finding]:
    if (
        manifest["gateway"].is_mapping
        and manifest["hosts"].is_mapping
        and not _edge_hosts(manifest)
    ):
        yield manifest["gateway"].finding(
            "there is no host in group edge for the gateway to run on; add one, or remove this"
        )


def edge_hosts_have_it(manifest: Cursor) -> Iterator[Finding]:
    if "gateway" in manifest:
        return
    for name in _edge_hosts(manifest):
        yield manifest["hosts"][name]["groups"].finding(
            f"host {quoted(name)} is in group edge, and there is no gateway for it to run; "
            "add 'gateway: {}' to the document, or take the host out of the group"
        )


def edge_hosts_stand_apart(manifest: Cursor) -> Iterator[Finding]:
    """Callers reach the segment of the gateway, and servers stand in others (NET-01)."""
    for name in _edge_hosts(manifest):
        segment = manifest["hosts"][name]["segment"]
        purpose = manifest.at("network", "segments", segment.text or "", "purpose").text
        if purpose and purpose != GROUP:
            yield segment.finding(
                f"segment {quoted(segment.text)} is for {quoted(purpose)}; "
                "run gateways in a segment with purpose edge"
            )


def is_not_bypassed(manifest: Cursor) -> Iterator[Finding]:
    """A way to a server beside the gateway is one on which nobody asks who calls what (IAM-01)."""
    if not manifest["gateway"].is_mapping:
        return
    servers = manifest["servers"]
    ports = {
        (server["host"].text or f"mcp-{name}", server["port"].number): name
        for name, server in servers.entries()
    }
    for flow in manifest.at("network", "flows").elements():
        to = flow["to"]
        server = to["server"].text or ports.get((to["host"].text or "", to["port"].number))
        if server is None or to["protocol"].text == "udp" or _is_of_the_gateway(manifest, flow):
            continue
        place = flow.at("from", "host").text or flow.at("from", "segment").text
        yield flow.finding(
            f"this leads from {quoted(place)} to server {quoted(server)} past the gateway; "
            f"let it lead to the gateway: to: {{host: {_first(manifest)}, "
            f"port: {manifest.at('gateway', 'port').number or 443}}}"
        )


def _is_of_the_gateway(manifest: Cursor, flow: Cursor) -> bool:
    host, segment = flow.at("from", "host").text, flow.at("from", "segment").text
    if host is not None:
        return GROUP in manifest["hosts"][host]["groups"].texts()
    return manifest.at("network", "segments", segment or "", "purpose").text == GROUP


def _first(manifest: Cursor) -> str:
    return next(iter(_edge_hosts(manifest)), "edge-1")


def callers_can_prove_themselves(manifest: Cursor) -> Iterator[Finding]:
    """A token that needs no certificate is of no use where the connection does."""
    constraint = manifest.at("gateway", "tokens", "sender_constraint")
    certificates = manifest.at("gateway", "client_certificates").text or "required"
    if constraint.text in ("dpop", "none") and certificates == "required":
        yield constraint.finding(
            "tokens are bound to no certificate, and yet every connection needs one; "
            "add 'client_certificates: optional' to the gateway, or remove this"
        )


def responders_can_be_held_to_it(manifest: Cursor) -> Iterator[Finding]:
    """A model that was talked into something must not cut people off (IAM-02)."""
    principals = manifest["principals"]
    for responder in manifest.at("gateway", "responders").elements():
        yield from exists(responder, principals, "principal")
        if responder.text and principals.at(responder.text, "kind").text == "agent":
            yield responder.finding(
                f"{quoted(responder.text)} is an agent; name a person or a service"
            )


def issuers_differ(manifest: Cursor) -> Iterator[Finding]:
    seen: set[str] = set()
    for issuer in manifest.at("gateway", "tokens", "issuers").elements():
        name = issuer["issuer"].text
        if name in seen:
            yield issuer["issuer"].finding(
                f"{quoted(name)} is listed already; give every issuer once"
            )
        seen |= {name} if name else set()


def issuers_can_be_reached(manifest: Cursor) -> Iterator[Finding]:
    for issuer in manifest.at("gateway", "tokens", "issuers").elements():
        url, where = issuer["jwks_url"], issuer["network"]
        if where.text is not None:
            yield from malformed_network(where)
            if (parsed := network(where)) and parsed.prefixlen == 0:
                yield where.finding(f"{parsed} is every network; name the issuer's own")
        if url.text is not None and "network" not in issuer:
            yield where.finding(
                "packet filters know addresses, not names; add the 'network' that the URL leads to"
            )
        elif url.text is None and "network" in issuer:
            yield where.finding("nothing is fetched from this issuer; remove this line")
        if url.text is not None and not manifest.at("network", "services", "dns").texts():
            try:
                ip_address(urlsplit(url.text).hostname or "")
            except ValueError:
                yield url.finding(
                    "hosts have no resolver for this name; add network.services.dns, "
                    "or name the issuer by address"
                )


def definitions_are_approved(manifest: Cursor, directory: Path) -> Iterator[Finding]:
    """Tools whose definitions nobody has approved are withheld (TIN-01)."""
    if not manifest["gateway"].is_mapping:
        return
    for name, server in manifest["servers"].entries():
        if not (directory / "pins" / f"{name}.json").is_file():
            yield server["tools"].finding(
                "no definition of these tools is approved, so the gateway withholds them; "
                f"apply it, then: ringfence pins approve {name}"
            )

"""The gateway: where it runs, that no flow bypasses it, and whose tokens it accepts."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ringfence.manifest.parts import own_host
from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.rules.network import malformed_network, network
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted

GROUP = "edge"


def _edge_hosts(manifest: Cursor) -> list[str]:
    return [name for name, host in manifest["hosts"].entries() if GROUP in host["groups"].texts()]


def has_a_host(manifest: Cursor) -> Iterator[Violation]:
    if (
        manifest["gateway"].is_mapping
        and manifest["hosts"].is_mapping
        and not _edge_hosts(manifest)
    ):
        yield manifest["gateway"].violation(
            "there is no host in group edge for the gateway to run on; add one, or remove this"
        )


def edge_hosts_have_a_gateway(manifest: Cursor) -> Iterator[Violation]:
    if "gateway" in manifest:
        return
    for name in _edge_hosts(manifest):
        yield manifest["hosts"][name]["groups"].violation(
            f"host {quoted(name)} is in group edge, and there is no gateway for it to run; "
            "add 'gateway: {}' to the document, or take the host out of the group"
        )


def edge_hosts_are_in_an_edge_segment(manifest: Cursor) -> Iterator[Violation]:
    """Callers reach the segment of the gateway, so servers are in other segments (NET-01)."""
    for name in _edge_hosts(manifest):
        segment = manifest["hosts"][name]["segment"]
        purpose = manifest.at("network", "segments", segment.text or "", "purpose").text
        if purpose and purpose != GROUP:
            yield segment.violation(
                f"segment {quoted(segment.text)} is for {quoted(purpose)}; "
                "run gateways in a segment with purpose edge"
            )


def is_not_bypassed(manifest: Cursor) -> Iterator[Violation]:
    """Nothing authorises a call that reaches a server past the gateway (IAM-01)."""
    if not manifest["gateway"].is_mapping:
        return
    servers = manifest["servers"]
    ports = {
        (server["host"].text or own_host(name), server["port"].number): name
        for name, server in servers.entries()
    }
    for flow in manifest.at("network", "flows").elements():
        to = flow["to"]
        server = to["server"].text or ports.get((to["host"].text or "", to["port"].number))
        if server is None or to["protocol"].text == "udp" or _starts_at_the_gateway(manifest, flow):
            continue
        place = flow.at("from", "host").text or flow.at("from", "segment").text
        yield flow.violation(
            f"this leads from {quoted(place)} to server {quoted(server)} past the gateway; "
            f"let it lead to the gateway: to: {{host: {_first(manifest)}, "
            f"port: {manifest.at('gateway', 'port').number}}}"
        )


def _starts_at_the_gateway(manifest: Cursor, flow: Cursor) -> bool:
    host, segment = flow.at("from", "host").text, flow.at("from", "segment").text
    if host is not None:
        return GROUP in manifest["hosts"][host]["groups"].texts()
    return manifest.at("network", "segments", segment or "", "purpose").text == GROUP


def _first(manifest: Cursor) -> str:
    return next(iter(_edge_hosts(manifest)), "edge-1")


def token_binding_fits_certificates(manifest: Cursor) -> Iterator[Violation]:
    """A token bound to no certificate is of no use if the connection needs one."""
    constraint = manifest.at("gateway", "tokens", "sender_constraint")
    certificates = manifest.at("gateway", "client_certificates").text
    if constraint.text in ("dpop", "none") and certificates == "required":
        yield constraint.violation(
            "tokens are bound to no certificate, but every connection needs one; "
            "add 'client_certificates: optional' to the gateway, or remove this"
        )


def responders_are_no_agents(manifest: Cursor) -> Iterator[Violation]:
    """A manipulated model must not be able to revoke the access of people (IAM-02)."""
    principals = manifest["principals"]
    for responder in manifest.at("gateway", "responders").elements():
        yield from exists(responder, principals, "principal")
        if responder.text and principals.at(responder.text, "kind").text == "agent":
            yield responder.violation(f"{quoted(responder.text)} is an agent; name a person")


def issuers_differ(manifest: Cursor) -> Iterator[Violation]:
    issuers: set[str] = set()
    for issuer in manifest.at("gateway", "tokens", "issuers").elements():
        name = issuer["issuer"].text
        if name in issuers:
            yield issuer["issuer"].violation(
                f"{quoted(name)} is listed already; list every issuer once"
            )
        issuers |= {name} if name else set()


def issuers_can_be_reached(manifest: Cursor) -> Iterator[Violation]:
    for issuer in manifest.at("gateway", "tokens", "issuers").elements():
        url, where = issuer["jwks_url"], issuer["network"]
        if where.text is not None:
            yield from malformed_network(where)
            if (parsed := network(where)) and parsed.prefixlen == 0:
                yield where.violation(f"{parsed} is every network; name the issuer's own")
        if url.text is not None and "network" not in issuer:
            yield where.violation(
                "packet filters know addresses, not names; add the 'network' that the URL leads to"
            )
        elif url.text is None and "network" in issuer:
            yield where.violation("nothing is fetched from this issuer; remove this line")
        if url.text is not None and not manifest.at("network", "services", "dns").texts():
            try:
                ip_address(urlsplit(url.text).hostname or "")
            except ValueError:
                yield url.violation(
                    "hosts have no resolver for this name; add network.services.dns, "
                    "or name the issuer by address"
                )


def definitions_are_approved(manifest: Cursor, directory: Path) -> Iterator[Violation]:
    """The gateway withholds tools whose definitions nobody has approved (TIN-01)."""
    if not manifest["gateway"].is_mapping:
        return
    for name, server in manifest["servers"].entries():
        if not (directory / "pins" / f"{name}.json").is_file():
            yield server["tools"].violation(
                "no definition of these tools is approved, so the gateway withholds them; "
                f"apply it, then: ringfence pins approve {name}"
            )

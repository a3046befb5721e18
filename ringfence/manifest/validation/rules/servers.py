"""MCP servers: hosts, commands and egress."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation, dotted
from ringfence.manifest.validation.rules.network import malformed_network, network
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted, suggestion

PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::([^{}]*))?\}")
PLACEHOLDERS = ("state", "port", "secret")

_FETCHERS = """
    npx npm pnpm yarn bunx uvx uv pipx pip docker podman nerdctl deno bun sh bash dash zsh env
    sudo su curl wget
"""
FETCHERS = frozenset(_FETCHERS.split())
"""Programs that start something other than the pinned package."""

SECRET_OPTION = re.compile(
    r"--?[a-z0-9-]*(password|passwd|secret|token|api[-_]?key|access[-_]?key)", re.IGNORECASE
)
SECRET_VALUE = re.compile(
    r"sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|glpat-[\w-]{16,}|-----BEGIN"
    r"|[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@{}]+@"
)


def names_are_free(manifest: Cursor) -> Iterator[Violation]:
    """Directories and units are named after servers, beside those of role `mcp_servers` itself."""
    for name, server in manifest["servers"].entries():
        if name in ("bridge", "gateway") or name.endswith("-relay"):
            yield server.violation(
                "units of Ringfence itself have names like this; choose another", on_key=True
            )


def places_exist(manifest: Cursor) -> Iterator[Violation]:
    segments, hosts = manifest.at("network", "segments"), manifest["hosts"]
    for _, server in manifest["servers"].entries():
        host, segment = server["host"], server["segment"]
        yield from exists(host, hosts, "host")
        yield from exists(segment, segments, "segment")
        if not server.is_mapping:
            continue
        if "host" in server and "segment" in server:
            actual = hosts.at(host.text or "", "segment").text
            if actual and segment.text and actual != segment.text:
                yield segment.violation(
                    f"host {quoted(host.text)} is in segment {quoted(actual)}, "
                    f"not in {quoted(segment.text)}; remove this line"
                )
        elif "host" not in server and "provisioning" not in manifest:
            yield host.violation("the server has no host; add the 'host' it runs on")
        elif "host" not in server and "segment" not in server:
            yield server["segment"].violation(
                "the server has neither host nor segment; add the 'segment' it runs in"
            )


def places_are_for_servers(manifest: Cursor) -> Iterator[Violation]:
    """MCP servers run on hosts of their group, in segments of their own (NET-01)."""
    segments, hosts = manifest.at("network", "segments"), manifest["hosts"]
    for _, server in manifest["servers"].entries():
        name = server["host"].text
        host = hosts[name or ""]
        groups = host["groups"].value
        if name and isinstance(groups, list) and "mcp_servers" not in groups:
            yield server["host"].violation(
                f"host {quoted(name)} is not in the group mcp_servers; "
                f"add it to {dotted(host['groups'].path)}"
            )
        where = host["segment"] if name else server["segment"]
        purpose = segments.at(where.text or "", "purpose").text
        if where.text and purpose and purpose != "servers":
            place = server["host"] if name else server["segment"]
            yield place.violation(
                f"segment {quoted(where.text)} is for {quoted(purpose)}; "
                "run MCP servers in a segment with purpose servers"
            )


def egress_is_enforceable(manifest: Cursor) -> Iterator[Violation]:
    """Egress can be enforced, and does not allow every destination (NET-02)."""
    for _, server in manifest["servers"].entries():
        for target in server["egress"].elements():
            yield from exists(target["host"], manifest["hosts"], "host")
            if target["domain"].text is not None and "provisioning" not in manifest:
                yield target["domain"].violation(
                    "a host's firewall knows addresses, not names; name the 'cidr', "
                    "or add 'provisioning', whose egress firewall knows names"
                )
            cidr = target["cidr"]
            if cidr.text is None:
                continue
            yield from malformed_network(cidr)
            if not (parsed := network(cidr)):
                continue
            if parsed.prefixlen == 0:
                yield cidr.violation(f"{parsed} is every network; name those that the server needs")
            elif parsed.network_address.is_link_local:
                yield cidr.violation(
                    f"{parsed} is link-local, where clouds hand out credentials; remove it"
                )
            elif parsed.network_address.is_multicast:
                yield cidr.violation(f"{parsed} is multicast; name the networks of hosts")


def egress_is_unique(manifest: Cursor) -> Iterator[Violation]:
    for _, server in manifest["servers"].entries():
        unique: dict[object, Cursor] = {}
        for target in server["egress"].elements():
            names = [target[key].text for key in ("cidr", "host", "domain")]
            port = target["port"].number
            if port is None or not any(names):
                continue
            entry = (*names, port, target["protocol"].text)
            first = unique.setdefault(entry, target)
            if first is not target:
                yield target.violation(f"the same as {dotted(first.path)}; remove one of the two")


def programs_are_the_packages(manifest: Cursor) -> Iterator[Violation]:
    """The pinned package runs, not something that a launcher fetches at that moment (TIN-02)."""
    for _, server in manifest["servers"].entries():
        for program in server["command"].elements():
            text = program.text or ""
            if "/" in text:
                yield program.violation(
                    f"{quoted(text)} is a path; name the program that the package installs"
                )
            elif text in FETCHERS:
                yield program.violation(
                    f"{quoted(text)} would start what no version or hash pins; "
                    "name the program that the package installs"
                )
            break


def placeholders_are_known(manifest: Cursor) -> Iterator[Violation]:
    for _, server in manifest["servers"].entries():
        transport = server["transport"].text
        secrets = server["secrets"].texts()
        used: set[str] = set()
        for argument in server["command"].elements():
            for match in PLACEHOLDER.finditer(argument.text or ""):
                shown, (name, detail) = quoted(match.group()), match.groups()
                used.add(name)
                if name not in PLACEHOLDERS or (name == "secret") != (detail is not None):
                    yield argument.violation(
                        f"{shown} is not a placeholder; use {{state}}, {{port}} or {{secret:NAME}}"
                    )
                elif name == "secret" and detail not in secrets:
                    add = f"; add it to {dotted(server['secrets'].path)}"
                    hint = suggestion(detail, secrets) if secrets else ""
                    yield argument.violation(
                        f"{quoted(detail)} is not among the server's secrets{hint or add}"
                    )
                elif name == "port" and transport == "stdio":
                    yield argument.violation(
                        "a stdio server listens on no port; remove {port}, or use transport http"
                    )
        if transport == "http" and server["command"].texts() and "port" not in used:
            yield server["command"].violation(
                "an http server needs to know its port; add an argument with {port}"
            )


def arguments_hold_no_secrets(manifest: Cursor) -> Iterator[Violation]:
    for _, server in manifest["servers"].entries():
        option = False
        for argument in server["command"].elements():
            text = argument.text or ""
            name, equals, value = text.partition("=")
            is_option = bool(SECRET_OPTION.fullmatch(name))
            given = value if is_option and equals else text if option else ""
            literal = given and not given.isdigit() and not PLACEHOLDER.search(given)
            if (literal and not given.startswith("-")) or SECRET_VALUE.search(text):
                # The value itself must not reach a terminal or a log.
                yield argument.violation(
                    "a secret must not stand in this file; "
                    "list its name under 'secrets' and write {secret:NAME} here"
                )
            option = is_option and not equals

"""Builds the parts of an environment from a valid document with all defaults filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from ringfence.manifest import defaults
from ringfence.manifest.parts import (
    Administrator,
    Aws,
    Bootstrap,
    Egress,
    Flow,
    Gateway,
    GatewayLimits,
    Host,
    Issuer,
    Limits,
    LogSink,
    Machine,
    Package,
    Pki,
    PrivateLink,
    Prompt,
    Resource,
    Role,
    Secret,
    Segment,
    Server,
    Services,
    Tokens,
    Tool,
    own_host,
)

Document = Mapping[str, Any]


def segments(document: Document) -> dict[str, Segment]:
    return {
        name: Segment(
            name,
            segment["purpose"],
            IPv4Network(segment["cidr"]),
            IPv6Network(segment["cidr6"]) if "cidr6" in segment else None,
        )
        for name, segment in document["network"]["segments"].items()
    }


def hosts(document: Document, segments: Mapping[str, Segment]) -> dict[str, Host]:
    """Build the declared hosts, and one for each MCP server that names only a segment.

    No other server shares the identity of such a host.
    """
    declared: dict[str, Document] = document["hosts"]
    own = {
        own_host(name): defaults.fill(
            {"segment": server["segment"], "groups": ["mcp_servers"]}, "hosts", own_host(name)
        )
        for name, server in document["servers"].items()
        if "host" not in server
    }
    return {
        name: Host(
            name=name,
            segment=segments[host["segment"]],
            groups=frozenset(host["groups"]),
            domain=document["network"]["domain"],
            ssh_port=host["ssh_port"],
            address=IPv4Address(host["address"]) if "address" in host else None,
            address6=IPv6Address(host["address6"]) if "address6" in host else None,
        )
        for name, host in {**declared, **own}.items()
    }


def services(document: Document) -> Services:
    declared = document["network"]["services"]
    return Services(
        dns=tuple(map(ip_address, declared["dns"])),
        ntp=tuple(map(ip_address, declared["ntp"])),
        package_proxy=declared["packages"].get("proxy"),
    )


def flows(
    document: Document,
    segments: Mapping[str, Segment],
    hosts: Mapping[str, Host],
    servers: Mapping[str, Server],
) -> Iterator[Flow]:
    for flow in document["network"]["flows"]:
        origin, target, why = flow["from"], flow["to"], flow["why"]
        source = segments[origin["segment"]] if "segment" in origin else hosts[origin["host"]]
        if "server" in target:
            server = servers[target["server"]]
            yield Flow(source, server.host, server.port, why, server=server.name)
        else:
            yield Flow(source, hosts[target["host"]], target["port"], why, target["protocol"])


def provisioning(document: Document) -> Aws | None:
    if "provisioning" not in document:
        return None
    aws = document["provisioning"]["aws"]
    group = "the group of a host"
    return Aws(
        region=aws["region"],
        stack=aws["stack"],
        zones=aws["zones"],
        account_stack=aws["account_stack"],
        machines={group: Machine(**machine) for group, machine in aws["machines"].items()},
        default_machine=Machine(**defaults.fill({}, "provisioning", "aws", "machines", group)),
        accepted=tuple(aws["publish"]["accept"]) if "publish" in aws else (),
        private_links={
            name: PrivateLink(name, **link) for name, link in aws["private_links"].items()
        },
        macie=aws["macie"],
        containment_severity=aws["containment"]["severity"],
        egress=IPv4Network(aws["egress"]["cidr"]) if "egress" in aws else None,
    )


def bootstrap(document: Document, directory: Path) -> Bootstrap:
    declared = document["access"]["bootstrap"]
    return Bootstrap(
        user=declared["user"],
        port=declared["port"],
        identity_file=_path(declared.get("identity_file"), directory),
    )


def administrators(document: Document, directory: Path) -> dict[str, Administrator]:
    return {
        account: Administrator(
            account=account,
            name=person["name"],
            email=person["email"],
            second_factor=person["second_factor"],
            sudo=person["sudo"],
            ssh_keys=tuple(person.get("ssh_keys", ())),
            ssh_key_files=tuple(
                directory / Path(name).expanduser() for name in person.get("ssh_key_files", ())
            ),
        )
        for account, person in document["administrators"].items()
    }


def log_sink(document: Document, hosts: Mapping[str, Host], directory: Path) -> LogSink:
    sink = document["log_sink"]
    if sink["kind"] == "collector":
        host = hosts[sink["host"]]
        return LogSink("collector", host.address, host.fqdn, sink["port"], host=host)
    return LogSink(
        "relp",
        ip_address(sink["address"]),
        sink["server_name"],
        sink["port"],
        ca_file=_path(sink["ca_file"], directory),
    )


def pki(document: Document, directory: Path) -> Pki:
    declared = document["pki"]
    return Pki(
        authority=declared["authority"],
        certificate_days=declared["certificate_days"],
        certificate_file=_path(declared.get("certificate_file"), directory),
        key_file=_path(declared.get("key_file"), directory),
    )


def servers(document: Document, hosts: Mapping[str, Host]) -> dict[str, Server]:
    return {name: _server(name, server, hosts) for name, server in document["servers"].items()}


def _server(name: str, server: Document, hosts: Mapping[str, Host]) -> Server:
    host = hosts[server.get("host", own_host(name))]
    return Server(
        name=name,
        segment=host.segment,
        port=server["port"],
        transport=server["transport"],
        package=Package(**server["package"]),
        command=tuple(server["command"]),
        tools={
            tool: Tool(
                name=tool,
                server=name,
                data_class=declared["data_class"],
                sensitive=declared["sensitive"],
                approvers=tuple(declared.get("approvers", ())),
            )
            for tool, declared in server["tools"].items()
        },
        host=host,
        protocols=tuple(server["protocols"]),
        egress=tuple(_egress(each, hosts) for each in server["egress"]),
        limits=Limits(**server["limits"]),
        secrets=tuple(server["secrets"]),
        resources={
            pattern: Resource(pattern, name, declared["data_class"])
            for pattern, declared in server["resources"].items()
        },
        prompts={
            prompt: Prompt(prompt, name, declared["data_class"])
            for prompt, declared in server["prompts"].items()
        },
        description=server.get("description", ""),
    )


def _egress(egress: Document, hosts: Mapping[str, Host]) -> Egress:
    return Egress(
        port=egress["port"],
        why=egress["why"],
        protocol=egress["protocol"],
        cidr=ip_network(egress["cidr"]) if "cidr" in egress else None,
        host=hosts[egress["host"]] if "host" in egress else None,
        domain=egress.get("domain"),
        private_link=egress.get("private_link"),
    )


def secrets(
    document: Document, servers: Mapping[str, Server], hosts: Mapping[str, Host]
) -> dict[str, Secret]:
    """Build all secrets that servers name; the manifest need not list them."""
    declared = document["secrets"]
    rotations = {
        name: declared.get(name) or defaults.fill({}, "secrets", name)
        for server in servers.values()
        for name in server.secrets
    }
    return {
        name: Secret(
            name,
            rotation["rotation"],
            rotation["rotation_days"],
            tuple(hosts[reader] for reader in rotation["readers"]),
        )
        for name, rotation in rotations.items()
    }


def roles(document: Document) -> dict[str, Role]:
    def names(role: Document, kind: str) -> dict[str, tuple[str, ...]]:
        return {server: tuple(granted) for server, granted in role[kind].items()}

    return {
        name: Role(
            name,
            role["description"],
            tools=names(role, "tools"),
            resources=names(role, "resources"),
            prompts=names(role, "prompts"),
        )
        for name, role in document["roles"].items()
    }


def gateway(document: Document, directory: Path) -> Gateway | None:
    if "gateway" not in document:
        return None
    declared = document["gateway"]
    tokens = declared["tokens"]
    issuers = [] if tokens["issuers"] == "embedded" else tokens["issuers"]
    return Gateway(
        port=declared["port"],
        processes=declared["processes"],
        client_certificates=declared["client_certificates"],
        origins=tuple(declared["origins"]),
        responders=tuple(declared["responders"]),
        tokens=Tokens(
            issuers=tuple(_issuer(each, directory) for each in issuers),
            lifetime_minutes=tokens["lifetime_minutes"],
            sender_constraint=tokens["sender_constraint"],
        ),
        grant_ceiling_minutes=declared["grants"]["ceiling_minutes"],
        inspection=declared["inspection"],
        limits=GatewayLimits(**declared["limits"]),
    )


def _issuer(issuer: Document, directory: Path) -> Issuer:
    return Issuer(
        issuer=issuer["issuer"],
        principal_claim=issuer["principal_claim"],
        jwks_file=_path(issuer.get("jwks_file"), directory),
        jwks_url=issuer.get("jwks_url"),
        network=ip_network(issuer["network"]) if "network" in issuer else None,
        ca_file=_path(issuer.get("ca_file"), directory),
    )


def _path(name: str | None, directory: Path) -> Path | None:
    """Return the file that a manifest names, absolute or beside the manifest."""
    return directory / Path(name).expanduser() if name else None

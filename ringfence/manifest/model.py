"""The environment: a frozen, typed view of one `environment.yaml`.

`Environment.load` validates the document before it builds anything, so every `Environment` has
only defined names, unique addresses and classified tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ringfence.manifest import build, validation
from ringfence.manifest.parts import (
    HTTPS,
    Address,
    Administrator,
    Automation,
    Aws,
    Bootstrap,
    Contact,
    DataClass,
    Egress,
    Flow,
    Gateway,
    GatewayLimits,
    Host,
    InspectionAction,
    Issuer,
    Limits,
    LogSink,
    Machine,
    Network,
    Package,
    Pki,
    Principal,
    PrivateLink,
    Prompt,
    Protocol,
    Resource,
    Role,
    Secret,
    Segment,
    Server,
    Services,
    Tokens,
    Tool,
)

__all__ = [
    "HTTPS",
    "Address",
    "Administrator",
    "Automation",
    "Aws",
    "Bootstrap",
    "Contact",
    "DataClass",
    "Egress",
    "Environment",
    "Flow",
    "Gateway",
    "GatewayLimits",
    "Host",
    "InspectionAction",
    "Issuer",
    "Limits",
    "LogSink",
    "Machine",
    "Network",
    "Package",
    "Pki",
    "Principal",
    "PrivateLink",
    "Prompt",
    "Protocol",
    "Resource",
    "Role",
    "Secret",
    "Segment",
    "Server",
    "Services",
    "Tokens",
    "Tool",
]


@dataclass(frozen=True)
class Environment:
    path: Path
    name: str
    stage: Literal["development", "staging", "production"]
    description: str
    contacts: Mapping[str, Contact]
    domain: str
    segments: Mapping[str, Segment]
    services: Services
    flows: tuple[Flow, ...]
    """Flows that the manifest declares; `all_flows` adds the derived ones."""
    provisioning: Aws | None
    automation: Automation
    bootstrap: Bootstrap
    administrators: Mapping[str, Administrator]
    hosts: Mapping[str, Host]
    log_sink: LogSink
    pki: Pki
    retention: Mapping[DataClass, int]
    """Days by data class."""
    servers: Mapping[str, Server]
    secrets: Mapping[str, Secret]
    """Secrets by name: all that servers name."""
    roles: Mapping[str, Role]
    principals: Mapping[str, Principal]
    gateway: Gateway | None = None
    """None: callers reach servers directly."""

    @classmethod
    def load(cls, path: Path | str) -> Environment:
        """Read, validate and build. Raises `validation.ManifestError` with every problem."""
        path = Path(path).resolve()
        document = validation.load(path)
        directory = path.parent
        segments = build.segments(document)
        hosts = build.hosts(document, segments)
        servers = build.servers(document, hosts)
        return cls(
            path=path,
            name=document["name"],
            stage=document["stage"],
            description=document.get("description", ""),
            contacts={name: Contact(**each) for name, each in document["contacts"].items()},
            domain=document["network"]["domain"],
            segments=segments,
            services=build.services(document),
            flows=tuple(build.flows(document, segments, hosts, servers)),
            provisioning=build.provisioning(document),
            automation=Automation(**document["access"]["automation"]),
            bootstrap=build.bootstrap(document, directory),
            administrators=build.administrators(document, directory),
            hosts=hosts,
            log_sink=build.log_sink(document, hosts, directory),
            pki=build.pki(document, directory),
            retention=document["retention"],
            servers=servers,
            secrets=build.secrets(document, servers, hosts),
            roles=build.roles(document),
            principals={
                name: Principal(
                    name, each["kind"], tuple(each["roles"]), each.get("email"), each.get("owner")
                )
                for name, each in document["principals"].items()
            },
            gateway=build.gateway(document, directory),
        )

    @property
    def state(self) -> Path:
        """The state directory beside the manifest: authority keys, identities. Never in git."""
        return self.path.parent / ".state"

    def group(self, name: str) -> tuple[Host, ...]:
        """Return the hosts of a group; `all` is every host."""
        return tuple(h for h in self.hosts.values() if name == "all" or name in h.groups)

    @property
    def gateway_url(self) -> str | None:
        """The address of the gateway on all its hosts; a token's audience begins with it."""
        edge = self.group("edge")
        return f"https://{self.gateway.authority(edge[0].fqdn)}" if self.gateway and edge else None

    def servers_on(self, host: Host) -> tuple[Server, ...]:
        return tuple(s for s in self.servers.values() if s.host == host)

    def segments_for(self, purpose: str) -> tuple[Segment, ...]:
        return tuple(s for s in self.segments.values() if s.purpose == purpose)

    @cached_property
    def administration(self) -> tuple[Flow, ...]:
        """SSH from the management segments to every host."""
        return tuple(
            Flow(segment, host, host.ssh_port, "administration")
            for segment in self.segments_for("management")
            for host in self.hosts.values()
        )

    @cached_property
    def forwarding(self) -> tuple[Flow, ...]:
        """Calls from the hosts of the gateway to every server."""
        return tuple(
            Flow(host, server.host, server.port, "allowed calls", server=server.name)
            for host in (self.group("edge") if self.gateway else ())
            for server in self.servers.values()
            if server.host != host
        )

    @cached_property
    def particular_flows(self) -> tuple[Flow, ...]:
        """Flows that not every host has: declared, forwarding and administration."""
        return (*self.flows, *self.forwarding, *self.administration)

    @cached_property
    def all_flows(self) -> tuple[Flow, ...]:
        """Declared flows, then derived ones: forwarding, administration and log shipping."""
        sink = self.log_sink.host
        shipping = (
            Flow(host, sink, self.log_sink.port, "log shipping")
            for host in self.hosts.values()
            if sink and host != sink
        )
        return (*self.particular_flows, *shipping)

    def tools_of(self, principal: Principal) -> frozenset[tuple[str, str]]:
        """Return the pairs of server and tool name that the roles of a principal name."""
        return frozenset(
            (server, tool)
            for role in principal.roles
            for server, tools in self.roles[role].tools.items()
            for tool in tools
        )

    def callers(self, server: Server) -> tuple[Principal, ...]:
        """Return the principals whose roles name a tool, resource or prompt of a server."""
        granting = {
            role.name
            for role in self.roles.values()
            if server.name in {*role.tools, *role.resources, *role.prompts}
        }
        return tuple(p for p in self.principals.values() if granting.intersection(p.roles))

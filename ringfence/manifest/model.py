"""The environment: a frozen, typed view of one `environment.yaml`.

`Environment.load` is the only way in. It validates the document first
(`ringfence.manifest.validation`), so whoever holds an `Environment` may rely on every name
in it being defined, every address unique and every tool classified.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ringfence.manifest import validation

HTTPS = 443
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
DataClass = Literal["public", "internal", "confidential", "restricted"]
Protocol = Literal["tcp", "udp"]
InspectionAction = Literal["flag", "redact", "block"]


@dataclass(frozen=True)
class Contact:
    name: str
    email: str
    phone: str | None = None


@dataclass(frozen=True)
class Segment:
    name: str
    purpose: str
    cidr: IPv4Network
    cidr6: IPv6Network | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.cidr, self.cidr6) if self.cidr6 else (self.cidr,)


@dataclass(frozen=True)
class Host:
    name: str
    segment: Segment
    groups: frozenset[str]
    domain: str
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    ssh_port: int = 22
    instance: str | None = None
    """Id in EC2, of one that is provisioned and was found there."""

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{self.domain}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(a for a in (self.address, self.address6) if a)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its addresses, each as a network of one."""
        return tuple(ip_network(address) for address in self.addresses)


@dataclass(frozen=True)
class Flow:
    """Connections that may be opened to one port of a host."""

    source: Segment | Host
    target: Host
    port: int
    why: str
    protocol: Protocol = "tcp"
    server: str | None = None
    """Name of the MCP server, where the flow leads to one."""

    @property
    def sources(self) -> tuple[Network, ...]:
        return self.source.networks

    @property
    def destinations(self) -> tuple[Network, ...]:
        return self.target.networks


@dataclass(frozen=True)
class Egress:
    """What an MCP server itself may connect to: exactly one of the targets is set."""

    port: int
    why: str
    protocol: Protocol = "tcp"
    cidr: Network | None = None
    host: Host | None = None
    domain: str | None = None
    private_link: str | None = None


@dataclass(frozen=True)
class Limits:
    memory_mib: int = 512
    tasks: int = 64
    cpu_percent: int = 100
    calls_per_minute: int = 600
    concurrency: int = 16
    timeout_seconds: int = 30


@dataclass(frozen=True)
class Package:
    ecosystem: str
    name: str
    version: str


@dataclass(frozen=True)
class Tool:
    name: str
    server: str
    data_class: DataClass
    sensitive: bool = False
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resource:
    pattern: str
    """A URI, in which * stands for anything within one part of the path."""
    server: str
    data_class: DataClass


@dataclass(frozen=True)
class Prompt:
    name: str
    server: str
    data_class: DataClass


@dataclass(frozen=True)
class Server:
    name: str
    segment: Segment
    port: int
    transport: Literal["stdio", "http"]
    package: Package
    command: tuple[str, ...]
    tools: Mapping[str, Tool]
    host: Host
    description: str = ""
    protocols: tuple[str, ...] = ("2026-07-28",)
    egress: tuple[Egress, ...] = ()
    limits: Limits = field(default_factory=Limits)
    secrets: tuple[str, ...] = ()
    resources: Mapping[str, Resource] = field(default_factory=dict)
    """By URI or pattern."""
    prompts: Mapping[str, Prompt] = field(default_factory=dict)

    @property
    def account(self) -> str:
        """System account that runs the server (control IAM-07)."""
        return f"mcp-{self.name}"


@dataclass(frozen=True)
class Secret:
    """How a secret that servers name is rotated; each of them has a copy of its own."""

    name: str
    rotation: Literal["generated", "external"] = "external"
    rotation_days: int = 90
    readers: tuple[Host, ...] = ()
    """Hosts at the other end."""


@dataclass(frozen=True)
class Role:
    name: str
    description: str
    tools: Mapping[str, tuple[str, ...]]
    """Tool names by server name."""
    resources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """URIs and patterns by server name, as the server lists them."""
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Prompt names by server name."""


@dataclass(frozen=True)
class Principal:
    name: str
    kind: Literal["person", "agent"]
    roles: tuple[str, ...]
    email: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Issuer:
    """An identity provider whose access tokens the gateway takes."""

    issuer: str
    jwks_file: Path | None = None
    jwks_url: str | None = None
    network: Network | None = None
    """Where the URL leads."""
    ca_file: Path | None = None
    """Authority of the URL's certificate; the environment's own otherwise."""
    principal_claim: str = "sub"


@dataclass(frozen=True)
class Tokens:
    issuers: tuple[Issuer, ...] = ()
    """Without any: the embedded one, whose keys are kept beside the manifest."""
    lifetime_minutes: int = 15
    sender_constraint: Literal["certificate", "dpop", "none"] = "certificate"


@dataclass(frozen=True)
class GatewayLimits:
    body_bytes: int = 1024 * 1024
    result_bytes: int = 8 * 1024 * 1024
    depth: int = 64
    principal_calls_per_minute: int = 600


INSPECTION: Mapping[DataClass, InspectionAction] = {
    "public": "flag",
    "internal": "redact",
    "confidential": "redact",
    "restricted": "block",
}
"""What is done about personal data and secrets where the manifest does not say otherwise."""


@dataclass(frozen=True)
class Gateway:
    """What every call takes, on the hosts of group edge."""

    port: int = HTTPS
    processes: int = 2
    """On each of its hosts."""
    client_certificates: Literal["required", "optional"] = "required"
    origins: tuple[str, ...] = ()
    responders: tuple[str, ...] = ()
    """Principals who may cut others off at once."""
    tokens: Tokens = field(default_factory=Tokens)
    grant_ceiling_minutes: int = 60
    inspection: Mapping[DataClass, InspectionAction] = field(default_factory=lambda: INSPECTION)
    limits: GatewayLimits = field(default_factory=GatewayLimits)

    def authority(self, name: str) -> str:
        """`name`, with the port where it is not that of HTTPS (RFC 3986, section 3.2)."""
        return name if self.port == HTTPS else f"{name}:{self.port}"


@dataclass(frozen=True)
class Administrator:
    account: str
    name: str
    email: str
    second_factor: Literal["totp", "fido2"]
    sudo: bool
    ssh_keys: tuple[str, ...]
    ssh_key_files: tuple[Path, ...]

    def public_keys(self) -> tuple[str, ...]:
        """All public keys, literal ones first. Raises `FileNotFoundError` for a missing file."""
        from_files = (
            line
            for path in self.ssh_key_files
            for line in path.read_text().splitlines()
            if line and not line.startswith("#")
        )
        return (*self.ssh_keys, *from_files)


@dataclass(frozen=True)
class Automation:
    account: str
    certificate_minutes: int = 60


@dataclass(frozen=True)
class Bootstrap:
    user: str
    port: int = 22
    identity_file: Path | None = None


@dataclass(frozen=True)
class LogSink:
    kind: Literal["collector", "relp"]
    address: Address | None
    server_name: str
    port: int
    host: Host | None = None
    ca_file: Path | None = None
    """Authority of an outside SIEM; the environment's own otherwise."""


@dataclass(frozen=True)
class Pki:
    authority: Literal["internal", "provided"]
    certificate_days: int = 30
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Services:
    dns: tuple[Address, ...] = ()
    ntp: tuple[Address, ...] = ()
    package_proxy: str | None = None

    @property
    def package_proxy_endpoint(self) -> tuple[str, int] | None:
        """Host and port of the package proxy."""
        if not self.package_proxy:
            return None
        url = urlsplit(self.package_proxy)
        return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


@dataclass(frozen=True)
class Machine:
    type: str = "t4g.small"
    disk_gib: int = 16


@dataclass(frozen=True)
class PrivateLink:
    """A service of another account."""

    name: str
    service: str
    private_dns: bool = False


@dataclass(frozen=True)
class Aws:
    """Where hosts come from that do not exist yet."""

    region: str
    stack: str
    zones: int = 2
    """Availability zones that every segment spans."""
    account_stack: str = "organization/account/main"
    machines: Mapping[str, Machine] = field(default_factory=dict)
    """By group of hosts."""
    egress: IPv4Network | None = None
    """Of the firewall and the NAT gateways that lead to domains; without it nothing leads out."""
    accepted: tuple[str, ...] = ()
    """Principals who may connect to the gateway over PrivateLink; without any it is not offered."""
    private_links: Mapping[str, PrivateLink] = field(default_factory=dict)
    macie: bool = False
    containment_severity: float = 7
    """Of a GuardDuty finding, from which on its host is cut off."""


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
    """Every one that a server names."""
    roles: Mapping[str, Role]
    principals: Mapping[str, Principal]
    gateway: Gateway | None = None
    """Without one, callers reach servers directly."""

    @classmethod
    def load(cls, path: Path | str) -> Environment:
        """Read, validate and build. Raises `validation.ManifestError` with every problem found."""
        path = Path(path).resolve()
        return _build(path, validation.load(path))

    @property
    def state(self) -> Path:
        """Directory beside the manifest for what must not be in git: authority keys, identities."""
        return self.path.parent / ".state"

    def group(self, name: str) -> tuple[Host, ...]:
        """Hosts of a group; `all` is every host."""
        return tuple(h for h in self.hosts.values() if name == "all" or name in h.groups)

    @property
    def gateway_url(self) -> str | None:
        """One address for all hosts of the gateway; the audience of a token begins with it."""
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
        """From the hosts of the gateway to every server."""
        return tuple(
            Flow(host, server.host, server.port, "allowed calls", server=server.name)
            for host in (self.group("edge") if self.gateway else ())
            for server in self.servers.values()
            if server.host != host
        )

    @cached_property
    def particular_flows(self) -> tuple[Flow, ...]:
        """Those that not every host has: declared, forwarding and administration."""
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

    def grants(self, principal: Principal) -> frozenset[tuple[str, str]]:
        """Pairs of server and tool name that the roles of a principal name."""
        return frozenset(
            (server, tool)
            for role in principal.roles
            for server, tools in self.roles[role].tools.items()
            for tool in tools
        )

    def callers(self, server: Server) -> tuple[Principal, ...]:
        """Principals whose roles name something of a server: a tool, a resource or a prompt."""
        granting = {
            role.name
            for role in self.roles.values()
            if server.name in {*role.tools, *role.resources, *role.prompts}
        }
        return tuple(p for p in self.principals.values() if granting.intersection(p.roles))


def _build(path: Path, doc: Mapping[str, Any]) -> Environment:
    def beside(name: str | None) -> Path | None:
        return path.parent / Path(name).expanduser() if name else None

    def files(names: list[str]) -> tuple[Path, ...]:
        return tuple(path.parent / Path(name).expanduser() for name in names)

    network = doc["network"]
    domain = network["domain"]
    segments = {
        name: Segment(
            name,
            s["purpose"],
            IPv4Network(s["cidr"]),
            IPv6Network(s["cidr6"]) if "cidr6" in s else None,
        )
        for name, s in network["segments"].items()
    }
    hosts = {
        name: Host(
            name=name,
            segment=segments[h["segment"]],
            groups=frozenset(h["groups"]),
            domain=domain,
            address=IPv4Address(h["address"]) if "address" in h else None,
            address6=IPv6Address(h["address6"]) if "address6" in h else None,
            ssh_port=h.get("ssh_port", 22),
        )
        for name, h in doc["hosts"].items()
    }
    hosts |= {
        host.name: host
        for name, s in doc["servers"].items()
        if "host" not in s
        for host in (own_host(name, segments[s["segment"]], domain),)
    }
    servers = {name: _server(name, s, hosts) for name, s in doc["servers"].items()}
    services = network.get("services", {})
    return Environment(
        path=path,
        name=doc["name"],
        stage=doc["stage"],
        description=doc.get("description", ""),
        contacts={name: Contact(**c) for name, c in doc["contacts"].items()},
        domain=domain,
        segments=segments,
        services=Services(
            dns=tuple(map(ip_address, services.get("dns", []))),
            ntp=tuple(map(ip_address, services.get("ntp", []))),
            package_proxy=services.get("packages", {}).get("proxy"),
        ),
        flows=tuple(_flows(network.get("flows", []), segments, hosts, servers)),
        provisioning=_aws(doc["provisioning"]["aws"]) if "provisioning" in doc else None,
        automation=Automation(**doc["access"]["automation"]),
        bootstrap=Bootstrap(
            user=doc["access"]["bootstrap"]["user"],
            port=doc["access"]["bootstrap"].get("port", 22),
            identity_file=beside(doc["access"]["bootstrap"].get("identity_file")),
        ),
        administrators={
            account: Administrator(
                account=account,
                name=a["name"],
                email=a["email"],
                second_factor=a["second_factor"],
                sudo=a.get("sudo", False),
                ssh_keys=tuple(a.get("ssh_keys", [])),
                ssh_key_files=files(a.get("ssh_key_files", [])),
            )
            for account, a in doc["administrators"].items()
        },
        hosts=hosts,
        log_sink=_log_sink(doc["log_sink"], hosts, beside),
        pki=Pki(
            authority=doc["pki"]["authority"],
            certificate_days=doc["pki"].get("certificate_days", 30),
            certificate_file=beside(doc["pki"].get("certificate_file")),
            key_file=beside(doc["pki"].get("key_file")),
        ),
        retention=doc["retention"],
        servers=servers,
        secrets={
            secret: _secret(secret, doc.get("secrets", {}).get(secret, {}), hosts)
            for server in servers.values()
            for secret in server.secrets
        },
        roles={
            name: Role(
                name,
                r["description"],
                *(
                    {server: tuple(names) for server, names in r.get(kind, {}).items()}
                    for kind in ("tools", "resources", "prompts")
                ),
            )
            for name, r in doc["roles"].items()
        },
        principals={
            name: Principal(name, p["kind"], tuple(p["roles"]), p.get("email"), p.get("owner"))
            for name, p in doc["principals"].items()
        },
        gateway=_gateway(doc["gateway"], beside) if "gateway" in doc else None,
    )


def own_host(server: str, segment: Segment, domain: str) -> Host:
    """Of an MCP server that names only a segment: no other server shares its identity."""
    return Host(f"mcp-{server}", segment, frozenset({"mcp_servers"}), domain)


def _aws(doc: Mapping[str, Any]) -> Aws:
    links = doc.get("private_links", {})
    return Aws(
        region=doc["region"],
        stack=doc["stack"],
        zones=doc.get("zones", 2),
        account_stack=doc.get("account_stack", "organization/account/main"),
        machines={group: Machine(**m) for group, m in doc.get("machines", {}).items()},
        egress=IPv4Network(doc["egress"]["cidr"]) if "egress" in doc else None,
        accepted=tuple(doc.get("publish", {}).get("accept", [])),
        private_links={name: PrivateLink(name, **link) for name, link in links.items()},
        macie=doc.get("macie", False),
        containment_severity=doc.get("containment", {}).get("severity", 7),
    )


def _gateway(doc: Mapping[str, Any], beside: Any) -> Gateway:
    tokens = doc.get("tokens", {})
    listed = tokens.get("issuers", "embedded")
    return Gateway(
        port=doc.get("port", 443),
        processes=doc.get("processes", 2),
        client_certificates=doc.get("client_certificates", "required"),
        origins=tuple(doc.get("origins", [])),
        responders=tuple(doc.get("responders", [])),
        tokens=Tokens(
            issuers=tuple(
                _issuer(each, beside) for each in ([] if listed == "embedded" else listed)
            ),
            lifetime_minutes=tokens.get("lifetime_minutes", 15),
            sender_constraint=tokens.get("sender_constraint", "certificate"),
        ),
        grant_ceiling_minutes=doc.get("grants", {}).get("ceiling_minutes", 60),
        inspection={**INSPECTION, **doc.get("inspection", {})},
        limits=GatewayLimits(**doc.get("limits", {})),
    )


def _issuer(doc: Mapping[str, Any], beside: Any) -> Issuer:
    return Issuer(
        issuer=doc["issuer"],
        jwks_file=beside(doc.get("jwks_file")),
        jwks_url=doc.get("jwks_url"),
        network=ip_network(doc["network"]) if "network" in doc else None,
        ca_file=beside(doc.get("ca_file")),
        principal_claim=doc.get("principal_claim", "sub"),
    )


def _server(name: str, doc: Mapping[str, Any], hosts: Mapping[str, Host]) -> Server:
    host = hosts[doc.get("host", f"mcp-{name}")]
    egress = tuple(
        Egress(
            port=e["port"],
            why=e["why"],
            protocol=e.get("protocol", "tcp"),
            cidr=ip_network(e["cidr"]) if "cidr" in e else None,
            host=hosts[e["host"]] if "host" in e else None,
            domain=e.get("domain"),
            private_link=e.get("private_link"),
        )
        for e in doc.get("egress", [])
    )
    return Server(
        name=name,
        segment=host.segment,
        port=doc["port"],
        transport=doc["transport"],
        package=Package(**doc["package"]),
        command=tuple(doc["command"]),
        tools={
            tool: Tool(
                name=tool,
                server=name,
                data_class=t["data_class"],
                sensitive=t.get("sensitive", False),
                approvers=tuple(t.get("approvers", [])),
            )
            for tool, t in doc["tools"].items()
        },
        host=host,
        description=doc.get("description", ""),
        protocols=tuple(doc.get("protocols", ["2026-07-28"])),
        egress=egress,
        limits=Limits(**doc.get("limits", {})),
        secrets=tuple(doc.get("secrets", [])),
        resources={
            pattern: Resource(pattern, name, r["data_class"])
            for pattern, r in doc.get("resources", {}).items()
        },
        prompts={
            prompt: Prompt(prompt, name, p["data_class"])
            for prompt, p in doc.get("prompts", {}).items()
        },
    )


def _secret(name: str, doc: Mapping[str, Any], hosts: Mapping[str, Host]) -> Secret:
    readers = tuple(hosts[reader] for reader in doc.get("readers", []))
    return Secret(name, **{**doc, "readers": readers})


def _flows(
    docs: list[Mapping[str, Any]],
    segments: Mapping[str, Segment],
    hosts: Mapping[str, Host],
    servers: Mapping[str, Server],
) -> Iterator[Flow]:
    for doc in docs:
        origin, target = doc["from"], doc["to"]
        source = segments[origin["segment"]] if "segment" in origin else hosts[origin["host"]]
        if "server" not in target:
            protocol = target.get("protocol", "tcp")
            yield Flow(source, hosts[target["host"]], target["port"], doc["why"], protocol)
        else:
            server = servers[target["server"]]
            yield Flow(source, server.host, server.port, doc["why"], server=server.name)


def _log_sink(doc: Mapping[str, Any], hosts: Mapping[str, Host], beside: Any) -> LogSink:
    port = doc.get("port", 2514)
    if doc["kind"] == "collector":
        host = hosts[doc["host"]]
        return LogSink("collector", host.address, host.fqdn, port, host=host)
    address = ip_address(doc["address"])
    return LogSink("relp", address, doc["server_name"], port, ca_file=beside(doc["ca_file"]))

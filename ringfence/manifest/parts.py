"""The parts of an environment: frozen dataclasses, one for each kind of thing in a manifest.

They have no defaults of their own: what a manifest leaves out has the `default` of
`schemas/environment.schema.json` before it is built. None stands for what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

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
    ssh_port: int
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    instance: str | None = None
    """Instance id of a provisioned host that was found in EC2."""

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{self.domain}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(a for a in (self.address, self.address6) if a)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The host's addresses, each as a network of one address."""
        return tuple(ip_network(address) for address in self.addresses)


def own_host(server: str) -> str:
    """Return the name of the host of an MCP server that names only a segment."""
    return f"mcp-{server}"


@dataclass(frozen=True)
class Flow:
    """A permission to open connections to one port of a host."""

    source: Segment | Host
    target: Host
    port: int
    why: str
    protocol: Protocol = "tcp"
    server: str | None = None
    """Name of the MCP server if the flow leads to one."""

    @property
    def sources(self) -> tuple[Network, ...]:
        return self.source.networks

    @property
    def destinations(self) -> tuple[Network, ...]:
        return self.target.networks


@dataclass(frozen=True)
class Egress:
    """One destination of an MCP server's own connections; exactly one of the targets is set."""

    port: int
    why: str
    protocol: Protocol
    cidr: Network | None = None
    host: Host | None = None
    domain: str | None = None
    private_link: str | None = None


@dataclass(frozen=True)
class Limits:
    """Limits of one MCP server."""

    memory_mib: int
    tasks: int
    cpu_percent: int
    calls_per_minute: int
    concurrency: int
    timeout_seconds: int


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
    sensitive: bool
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resource:
    pattern: str
    """A URI in which * matches any text within one segment of the path."""
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
    protocols: tuple[str, ...]
    egress: tuple[Egress, ...]
    limits: Limits
    secrets: tuple[str, ...]
    resources: Mapping[str, Resource]
    """Resources by URI or pattern."""
    prompts: Mapping[str, Prompt]
    description: str = ""

    @property
    def account(self) -> str:
        """The system account that runs the server (control IAM-07)."""
        return f"mcp-{self.name}"


@dataclass(frozen=True)
class Secret:
    """The rotation of a secret that servers name; each of them has its own copy."""

    name: str
    rotation: Literal["generated", "external"]
    rotation_days: int
    readers: tuple[Host, ...]
    """Hosts that the secret gives access to; they read it too."""


@dataclass(frozen=True)
class Role:
    name: str
    description: str
    tools: Mapping[str, tuple[str, ...]]
    """Tool names by server name."""
    resources: Mapping[str, tuple[str, ...]]
    """URIs and patterns by server name, as the server lists them."""
    prompts: Mapping[str, tuple[str, ...]]
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
    """An identity provider whose access tokens the gateway accepts."""

    issuer: str
    principal_claim: str
    jwks_file: Path | None = None
    jwks_url: str | None = None
    network: Network | None = None
    """Network that the URL leads to."""
    ca_file: Path | None = None
    """Authority of the URL's certificate; None for the environment's own."""


@dataclass(frozen=True)
class Tokens:
    issuers: tuple[Issuer, ...]
    """Empty for the embedded issuer, whose keys are in the state directory."""
    lifetime_minutes: int
    sender_constraint: Literal["certificate", "dpop", "none"]


@dataclass(frozen=True)
class GatewayLimits:
    body_bytes: int
    result_bytes: int
    depth: int
    principal_calls_per_minute: int


@dataclass(frozen=True)
class Gateway:
    """The gateway, which runs on the hosts of group edge and authorises every call."""

    port: int
    processes: int
    """Per host."""
    client_certificates: Literal["required", "optional"]
    origins: tuple[str, ...]
    responders: tuple[str, ...]
    """Principals who may revoke and restore the access of others."""
    tokens: Tokens
    grant_ceiling_minutes: int
    inspection: Mapping[DataClass, InspectionAction]
    """Action on personal data and secrets in a result."""
    limits: GatewayLimits

    def authority(self, name: str) -> str:
        """Return `name`, with the port unless it is that of HTTPS (RFC 3986, section 3.2)."""
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
        """Read all public keys, literal ones first. Raises `FileNotFoundError`."""
        from_files = (
            line
            for path in self.ssh_key_files
            for line in path.read_text().splitlines()
            if line and not line.startswith("#")
        )
        return (*self.ssh_keys, *from_files)


@dataclass(frozen=True)
class Automation:
    """The account that Ansible and the checks use."""

    account: str
    certificate_minutes: int


@dataclass(frozen=True)
class Bootstrap:
    """The SSH access path of a host before its first hardening."""

    user: str
    port: int
    identity_file: Path | None = None
    """Private key; None for the SSH agent."""


@dataclass(frozen=True)
class LogSink:
    kind: Literal["collector", "relp"]
    address: Address | None
    server_name: str
    port: int
    host: Host | None = None
    ca_file: Path | None = None
    """Authority of an outside SIEM; None for the environment's own."""


@dataclass(frozen=True)
class Pki:
    authority: Literal["internal", "provided"]
    certificate_days: int
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Services:
    dns: tuple[Address, ...]
    ntp: tuple[Address, ...]
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
    """The instance type and disk of hosts of one group in EC2."""

    type: str
    disk_gib: int


@dataclass(frozen=True)
class PrivateLink:
    """A service of another AWS account."""

    name: str
    service: str
    private_dns: bool


@dataclass(frozen=True)
class Aws:
    """The AWS account and network in which the hosts are provisioned."""

    region: str
    stack: str
    zones: int
    """Availability zones that every segment spans."""
    account_stack: str
    machines: Mapping[str, Machine]
    """Machines by group of hosts, where the manifest names one."""
    default_machine: Machine
    """For hosts whose groups name none."""
    accepted: tuple[str, ...]
    """AWS principals that may connect to the gateway over PrivateLink; empty: not offered."""
    private_links: Mapping[str, PrivateLink]
    macie: bool
    containment_severity: float
    """Lowest severity of a GuardDuty finding that contains its host."""
    egress: IPv4Network | None = None
    """Network of the egress firewall and the NAT gateways; None: no domain can be reached."""

"""The configuration of one gateway, as its stages use it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ringfence.gateway.jose.keys import FileKeys, KeySetError, UrlKeys
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.pins.approved import Pins
from ringfence.gateway.policy.decisions import Policies

DataClass = Literal["public", "internal", "confidential", "restricted"]


class ConfigurationError(Exception):
    """The directory cannot be served. `problems`: each with file, place and what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class IssuerSettings:
    issuer: str
    algorithms: tuple[str, ...]
    principal_claim: str
    jwks_file: Path | None
    jwks_url: str | None
    ca_file: Path | None


@dataclass(frozen=True)
class TokenSettings:
    issuers: tuple[IssuerSettings, ...]
    ceiling_seconds: int
    skew_seconds: int
    sender_constraint: Literal["certificate", "dpop", "none"]


@dataclass(frozen=True)
class ToolConfiguration:
    name: str
    data_class: DataClass
    sensitive: bool
    approvers: tuple[str, ...]


@dataclass(frozen=True)
class ServerConfiguration:
    name: str
    url: str
    server_name: str | None
    """The name its certificate is verified against, where the URL has an address."""
    protocols: frozenset[str]
    timeout_seconds: float
    concurrency: int
    calls_per_minute: int
    tools: Mapping[str, ToolConfiguration]
    resources: Mapping[str, DataClass]
    """Patterns of resource URIs, with their data class."""
    prompts: Mapping[str, DataClass]
    pins: Pins


@dataclass(frozen=True)
class GrantSettings:
    ceiling_seconds: int
    directory: Path
    roster: Roster


@dataclass(frozen=True)
class InspectionSettings:
    classes: Mapping[str, Literal["flag", "redact", "block"]]
    mask: bool
    arguments: Literal["off", "flag", "block"]
    key: bytes


@dataclass(frozen=True)
class MessageLimits:
    body_bytes: int
    result_bytes: int
    depth: int
    principal_calls_per_minute: int


@dataclass(frozen=True)
class AuditSettings:
    directory: Path
    journal: bool


@dataclass(frozen=True)
class UpstreamSettings:
    certificate_file: Path
    key_file: Path
    authority_file: Path


@dataclass(frozen=True)
class Configuration:
    directory: Path
    digest: str
    """SHA-256, hex, over every file read."""
    environment: str
    stage: str
    resource: str
    hosts: frozenset[str]
    origins: frozenset[str]
    tokens: TokenSettings
    principals: frozenset[str]
    servers: Mapping[str, ServerConfiguration]
    grants: GrantSettings
    inspection: InspectionSettings
    limits: MessageLimits
    audit: AuditSettings
    upstream: UpstreamSettings
    policies: Policies

    @property
    def state_directory(self) -> Path:
        """The directory of state that all processes share: the one above the grants."""
        return self.grants.directory.parent

    def resource_of(self, server: str) -> str:
        """The resource identifier of a server (RFC 8707): its address at the gateway."""
        return f"{self.resource}/{server}/mcp"

    def key_sources(self) -> list[FileKeys | UrlKeys]:
        """The keys of each issuer. Raises `ConfigurationError`."""
        return [self._key_source(each) for each in self.tokens.issuers]

    def _key_source(self, issuer: IssuerSettings) -> FileKeys | UrlKeys:
        try:
            if issuer.jwks_file is not None:
                return FileKeys(issuer.jwks_file)
            assert issuer.jwks_url is not None
            return UrlKeys(issuer.jwks_url, authority_file=issuer.ca_file)
        except (KeySetError, ValueError, OSError) as error:
            raise ConfigurationError(
                [f"{self.directory}: tokens: issuer {issuer.issuer}: {error}"]
            ) from error

    def secret(self, purpose: str) -> bytes:
        """A key for one purpose, derived from the masking key; 32 bytes."""
        return hmac.digest(self.inspection.key, b"ringfence " + purpose.encode(), "sha256")

"""Reader of the directory that is rendered from the manifest; checks it as a whole.

`gateway.json` beside `policies/*.cedar`, `schema.cedarschema`, `pins/<server>.json` and the key
files that it names. Relative names are relative to the directory; `credential:NAME` is a
credential that systemd gives to the service. All problems are reported at once, so that one run
of `check` is enough.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from ringfence.gateway.configuration import references
from ringfence.gateway.configuration.files import ConfigurationFiles, Where
from ringfence.gateway.configuration.model import (
    AuditSettings,
    Configuration,
    ConfigurationError,
    GrantSettings,
    InspectionSettings,
    IssuerSettings,
    MessageLimits,
    ServerConfiguration,
    TokenSettings,
    ToolConfiguration,
    UpstreamSettings,
)
from ringfence.gateway.jose import keys
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.pins.approved import Pins, PinsError, ambiguous_names
from ringfence.gateway.policy.decisions import Policies, PolicySourceError

SCHEMA = Path(__file__).with_name("gateway.schema.json")
MASKING_KEY_BYTES = 32


def load(directory: Path) -> Configuration:
    """Read and check a directory. Raises `ConfigurationError` with every problem found."""
    files = ConfigurationFiles(directory.resolve())
    document = files.read_json("gateway.json")
    if document is not None:
        for error in _schema().iter_errors(document):
            files.problem("gateway.json", error.instance_path, error.message)
    if document is None or files.problems:
        raise ConfigurationError(files.problems)
    for where, message in references.problems(document):
        files.problem("gateway.json", where, message)
    configuration = _Builder(files).configuration(document)
    if configuration is None or files.problems:
        raise ConfigurationError(files.problems)
    return configuration


@cache
def _schema() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(SCHEMA.read_text()))


class _Builder:
    """Builds each section, from a document that the schema allows and the files that it names."""

    def __init__(self, files: ConfigurationFiles) -> None:
        self.files = files

    def configuration(self, document: Mapping[str, Any]) -> Configuration | None:
        inspection = self._inspection(document["inspection"])
        tokens = self._tokens(document["tokens"])
        upstream = self._upstream(document["upstream"])
        grants = self._grants(document)
        policies = self._policies(document)
        pins = self._pins(document["servers"])
        for section in ("grants", "audit"):
            self.files.check_writable(Path(document[section]["directory"]), (section, "directory"))
        if self.files.problems or upstream is None or grants is None or policies is None:
            return None
        return Configuration(
            directory=self.files.directory,
            digest=self.files.hash.hexdigest(),
            environment=document["environment"],
            stage=document["stage"],
            resource=document["resource"],
            hosts=frozenset(host.lower() for host in document["hosts"]),
            origins=frozenset(document.get("origins", ())),
            tokens=tokens,
            principals=frozenset(document["principals"]),
            servers={
                name: _server(name, server, pins[name])
                for name, server in document["servers"].items()
            },
            grants=grants,
            inspection=inspection,
            limits=MessageLimits(**document["limits"]),
            audit=AuditSettings(Path(document["audit"]["directory"]), document["audit"]["journal"]),
            upstream=upstream,
            policies=policies,
        )

    def _policies(self, document: Mapping[str, Any]) -> Policies | None:
        texts = {
            path.name: self.files.read(path).decode("utf-8", "replace")
            for path in sorted((self.files.directory / "policies").glob("*.cedar"))
        }
        if not texts:
            self.files.problem("policies", (), "holds no *.cedar file, so nothing would be allowed")
        schema = self.files.read(self.files.directory / "schema.cedarschema").decode(
            "utf-8", "replace"
        )
        if not schema or not texts:
            return None
        try:
            return Policies(
                schema,
                {f"policies/{name}": text for name, text in texts.items()},
                stage=document["stage"],
                principals=document["principals"],
                roles=document["roles"],
                servers=document["servers"],
            )
        except PolicySourceError as error:
            self.files.problems += [
                f"{self.files.directory}/{problem}" for problem in error.problems
            ]
            return None

    def _pins(self, servers: Mapping[str, Any]) -> dict[str, Pins]:
        documents = {
            name: self.files.read_json(f"pins/{name}.json")
            if (self.files.directory / f"pins/{name}.json").exists()
            else None
            for name in servers
        }
        pins: dict[str, Pins] = {}
        for name, document in documents.items():
            try:
                if document is not None and not isinstance(document, dict):
                    raise PinsError(f"pins/{name}.json: not an object")
                pins[name] = Pins(name, document)
            except PinsError as error:
                self.files.problems.append(f"{self.files.directory}/{error}")
        if len(pins) == len(documents):
            ambiguous = ambiguous_names(documents)
            pins = {
                name: Pins(name, document, ambiguous=ambiguous[name])
                for name, document in documents.items()
            }
        return pins

    def _grants(self, document: Mapping[str, Any]) -> GrantSettings | None:
        section = document["grants"]
        where = ("grants", "authority_file")
        authority = self.files.read(self.files.directory / section["authority_file"], where)
        if not authority:
            return None
        try:
            roster = Roster.of(document, authority)
        except ValueError as error:
            self.files.problem("gateway.json", where, f"{section['authority_file']}: {error}")
            return None
        return GrantSettings(section["ceiling_seconds"], Path(section["directory"]), roster)

    def _inspection(self, section: Mapping[str, Any]) -> InspectionSettings:
        where = ("inspection", "key_file")
        path = self.files.path(section["key_file"])
        # Outside of the service there is no credential yet, so its form cannot be checked.
        key = self.files.read(path, where, secret=True) if path else bytes(MASKING_KEY_BYTES)
        if len(key) < MASKING_KEY_BYTES and not self.files.problems:
            self.files.problem(
                "gateway.json",
                where,
                f"{path} holds {len(key)} bytes; write {MASKING_KEY_BYTES} random ones",
            )
        return InspectionSettings(section["classes"], section["mask"], section["arguments"], key)

    def _tokens(self, section: Mapping[str, Any]) -> TokenSettings:
        issuers: list[IssuerSettings] = []
        for number, issuer in enumerate(section["issuers"]):
            files = {
                key: self.files.directory / issuer[key] if issuer.get(key) else None
                for key in ("jwks_file", "ca_file")
            }
            for key, path in files.items():
                if path is not None:
                    content = self.files.read(path, ("tokens", "issuers", number, key))
                    if key == "jwks_file" and content:
                        self._key_set(content, path, number)
            issuers.append(
                IssuerSettings(
                    issuer=issuer["issuer"],
                    algorithms=tuple(issuer["algorithms"]),
                    principal_claim=issuer["principal_claim"],
                    jwks_file=files["jwks_file"],
                    jwks_url=issuer.get("jwks_url"),
                    ca_file=files["ca_file"],
                )
            )
        return TokenSettings(
            tuple(issuers),
            section["ceiling_seconds"],
            section["skew_seconds"],
            section["sender_constraint"],
        )

    def _key_set(self, content: bytes, path: Path, number: int) -> None:
        try:
            keys.read_key_set(content)
        except keys.KeySetError as error:
            where = ("tokens", "issuers", number, "jwks_file")
            self.files.problem("gateway.json", where, f"{path}: {error}")

    def _upstream(self, section: Mapping[str, Any]) -> UpstreamSettings | None:
        """The gateway's own certificate, checked as TLS will use it."""
        paths = {key: self.files.path(name) for key, name in section.items()}
        certificate, key, authority = (
            paths[name] for name in ("certificate_file", "key_file", "authority_file")
        )
        if certificate is None or authority is None:
            self.files.problem(
                "gateway.json", ("upstream",), "certificates are no credentials; name files"
            )
            return None
        self._authority(authority, ("upstream", "authority_file"))
        self.files.read(certificate, ("upstream", "certificate_file"))
        if key is None:
            return UpstreamSettings(certificate, Path(section["key_file"]), authority)
        self.files.read(key, ("upstream", "key_file"), secret=True)
        if not self.files.problems:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
            except (ssl.SSLError, OSError) as error:
                self.files.problem(
                    "gateway.json",
                    ("upstream", "key_file"),
                    f"{key} does not belong to {certificate}, or one is no PEM file ({error})",
                )
        return UpstreamSettings(certificate, key, authority)

    def _authority(self, path: Path, where: Where) -> None:
        content = self.files.read(path, where)
        if content:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                    cadata=content.decode("ascii", "replace")
                )
            except ssl.SSLError as error:
                self.files.problem("gateway.json", where, f"{path} holds no certificate ({error})")


def _server(name: str, server: Mapping[str, Any], pins: Pins) -> ServerConfiguration:
    return ServerConfiguration(
        name=name,
        url=server["url"],
        server_name=server.get("server_name"),
        protocols=frozenset(server["protocols"]),
        timeout_seconds=float(server["timeout_seconds"]),
        concurrency=server["concurrency"],
        calls_per_minute=server["calls_per_minute"],
        tools={
            tool: ToolConfiguration(
                tool, facts["data_class"], facts["sensitive"], tuple(facts.get("approvers", ()))
            )
            for tool, facts in server["tools"].items()
        },
        resources={k: v["data_class"] for k, v in server.get("resources", {}).items()},
        prompts={k: v["data_class"] for k, v in server.get("prompts", {}).items()},
        pins=pins,
    )

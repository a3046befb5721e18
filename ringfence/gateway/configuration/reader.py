"""Reads the directory that the manifest was rendered to, and checks it as a whole.

`gateway.json` beside `policies/*.cedar`, `schema.cedarschema`, `pins/<server>.json` and the key
files that it names. Relative names are relative to the directory; `credential:NAME` is a
credential that systemd gives to the service. All problems are reported at once, so that one run
of `check` is enough.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import ssl
import stat
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs

from ringfence.gateway.configuration.model import (
    AuditSettings,
    Configuration,
    ConfigurationError,
    GrantSettings,
    InspectionSettings,
    IssuerSettings,
    MessageLimits,
    Server,
    TokenSettings,
    Tool,
    UpstreamSettings,
)
from ringfence.gateway.jose import keys
from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.pins.approved import Pins, PinsError, ambiguous_names
from ringfence.gateway.policy.decisions import Policies, PolicyError

SCHEMA = Path(__file__).with_name("gateway.schema.json")
CREDENTIAL = "credential:"
MASKING_KEY_BYTES = 32

Where = tuple[str | int, ...]
"""A place in gateway.json."""


def load(directory: Path) -> Configuration:
    """Read and check a directory. Raises `ConfigurationError` with every problem found."""
    return _Reader(directory.resolve()).configuration()


@cache
def _schema() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(SCHEMA.read_text()))


class _DuplicateKeyError(ValueError):
    pass


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _DuplicateKeyError(f"the key {name!r} appears twice in one object")
    return dict(pairs)


class _Reader:
    """Reads one directory, and collects its problems."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: list[str] = []
        self.hash = hashlib.sha256()

    def configuration(self) -> Configuration:
        document = self._json("gateway.json")
        if document is not None:
            for error in _schema().iter_errors(document):
                self._problem("gateway.json", error.instance_path, error.message)
        if document is None or self.problems:
            raise ConfigurationError(self.problems)
        self._references(document)
        result = self._build(document)
        if result is None or self.problems:
            raise ConfigurationError(self.problems)
        return result

    def _problem(self, file: str, path: Sequence[str | int], message: str) -> None:
        place = "".join(f"[{p!r}]" if isinstance(p, int) or "." in p else f".{p}" for p in path)
        self.problems.append(
            f"{self.directory / file}: {place.lstrip('.') or '(whole)'}: {message}"
        )

    # Files

    def _path(self, name: str) -> Path | None:
        """The path of a file. None for a credential outside of the service."""
        if not name.startswith(CREDENTIAL):
            return self.directory / name
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(credentials) / name.removeprefix(CREDENTIAL) if credentials else None

    def _bytes(self, path: Path, where: Where = (), *, secret: bool = False) -> bytes:
        """Content of a file; empty after a problem."""
        try:
            mode = path.stat().st_mode
            content = path.read_bytes()
        except OSError as error:
            self._problem(
                "gateway.json" if where else path.name,
                where,
                f"{path} cannot be read: {error.strerror}; put it there, readable by the service",
            )
            return b""
        if mode & stat.S_IWOTH:
            self._problem("gateway.json", where, f"{path} is writable by anybody; chmod o-w")
        if secret and mode & stat.S_IRWXO:
            self._problem("gateway.json", where, f"{path} is secret but open to all; chmod o-rwx")
        self.hash.update(hashlib.sha256(path.name.encode() + b"\0" + content).digest())
        return content

    def _json(self, name: str) -> Any:
        before = len(self.problems)
        content = self._bytes(self.directory / name)
        if not content:
            if len(self.problems) == before:
                self._problem(name, (), "the file is empty; render it again")
            return None
        try:
            return json.loads(content, object_pairs_hook=_object_without_duplicates)
        except (ValueError, RecursionError) as error:
            self._problem(name, (), f"not JSON: {error}; render it again")
            return None

    # Rules beyond the schema

    def _references(self, document: Mapping[str, Any]) -> None:
        principals, roles, servers = (document[key] for key in ("principals", "roles", "servers"))
        for name, principal in principals.items():
            where = ("principals", name)
            for role in principal["roles"]:
                if role not in roles:
                    self._problem(
                        "gateway.json", (*where, "roles"), f"no role is named {role!r}; define it"
                    )
            owner = principal.get("owner")
            if owner is not None and (
                owner not in principals or principals[owner]["kind"] != "person"
            ):
                self._problem(
                    "gateway.json", (*where, "owner"), f"{owner!r} is not a person listed here"
                )
        for name, role in roles.items():
            for kind in ("tools", "resources", "prompts"):
                for server, names in role.get(kind, {}).items():
                    where = ("roles", name, kind, server)
                    if server not in servers:
                        self._problem("gateway.json", where, "there is no such server")
                        continue
                    for missing in sorted(set(names) - set(servers[server].get(kind, {}))):
                        self._problem(
                            "gateway.json",
                            where,
                            f"the server has no {kind.removesuffix('s')} {missing!r}; "
                            "name it in its entry or leave it out here",
                        )
        for responder in document.get("responders", ()):
            if principals.get(responder, {}).get("kind") not in ("person", "service"):
                self._problem(
                    "gateway.json",
                    ("responders",),
                    f"{responder!r} is not a person or service listed under principals",
                )
        for name, server in servers.items():
            self._server(("servers", name), server, principals)
        for number, issuer in enumerate(document["tokens"]["issuers"]):
            if (issuer.get("jwks_file") is None) == (issuer.get("jwks_url") is None):
                self._problem(
                    "gateway.json",
                    ("tokens", "issuers", number),
                    "needs either jwks_file or jwks_url, and not both",
                )
        if document["stage"] != "production" and not document["inspection"]["mask"]:
            self._problem(
                "gateway.json",
                ("inspection", "mask"),
                "must be true outside of production: personal data is masked there always",
            )

    def _server(self, where: Where, server: Any, principals: Any) -> None:
        url = urlsplit(server["url"])
        if url.scheme == "http" and not _is_loopback(url.hostname or ""):
            self._problem(
                "gateway.json", (*where, "url"), "plain HTTP leaves this host; use https://"
            )
        for name, tool in server["tools"].items():
            place = (*where, "tools", name)
            approvers = tool.get("approvers", [])
            for approver in approvers:
                if principals.get(approver, {}).get("kind") != "person":
                    self._problem(
                        "gateway.json",
                        (*place, "approvers"),
                        f"{approver!r} is not a person listed under principals",
                    )
            if tool["sensitive"] and not approvers:
                self._problem(
                    "gateway.json", place, "is sensitive, but nobody may approve; name approvers"
                )

    # Sections

    def _build(self, document: Mapping[str, Any]) -> Configuration | None:
        inspection = self._inspection(document["inspection"])
        tokens = self._tokens(document["tokens"])
        upstream = self._upstream(document["upstream"])
        grants = self._grants(document)
        policies = self._policies(document)
        pins = self._pins(document["servers"])
        for section in ("grants", "audit"):
            self._writable(Path(document[section]["directory"]), (section, "directory"))
        if self.problems or upstream is None or grants is None or policies is None:
            return None
        return Configuration(
            directory=self.directory,
            digest=self.hash.hexdigest(),
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
            path.name: self._bytes(path).decode("utf-8", "replace")
            for path in sorted((self.directory / "policies").glob("*.cedar"))
        }
        if not texts:
            self._problem("policies", (), "holds no *.cedar file, so nothing would be allowed")
        schema = self._bytes(self.directory / "schema.cedarschema").decode("utf-8", "replace")
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
        except PolicyError as error:
            self.problems += [f"{self.directory}/{problem}" for problem in error.problems]
            return None

    def _pins(self, servers: Mapping[str, Any]) -> dict[str, Pins]:
        documents = {
            name: self._json(f"pins/{name}.json")
            if (self.directory / f"pins/{name}.json").exists()
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
                self.problems.append(f"{self.directory}/{error}")
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
        authority = self._bytes(self.directory / section["authority_file"], where)
        if not authority:
            return None
        try:
            roster = Roster.of(document, authority)
        except ValueError as error:
            self._problem("gateway.json", where, f"{section['authority_file']}: {error}")
            return None
        return GrantSettings(section["ceiling_seconds"], Path(section["directory"]), roster)

    def _inspection(self, section: Mapping[str, Any]) -> InspectionSettings:
        where = ("inspection", "key_file")
        path = self._path(section["key_file"])
        # Outside of the service there is no credential yet, so its form cannot be checked.
        key = self._bytes(path, where, secret=True) if path else bytes(MASKING_KEY_BYTES)
        if len(key) < MASKING_KEY_BYTES and not self.problems:
            self._problem(
                "gateway.json",
                where,
                f"{path} holds {len(key)} bytes; write {MASKING_KEY_BYTES} random ones",
            )
        return InspectionSettings(section["classes"], section["mask"], section["arguments"], key)

    def _tokens(self, section: Mapping[str, Any]) -> TokenSettings:
        issuers: list[IssuerSettings] = []
        for number, issuer in enumerate(section["issuers"]):
            files = {
                key: self.directory / issuer[key] if issuer.get(key) else None
                for key in ("jwks_file", "ca_file")
            }
            for key, path in files.items():
                if path is not None:
                    content = self._bytes(path, ("tokens", "issuers", number, key))
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
            self._problem("gateway.json", where, f"{path}: {error}")

    def _upstream(self, section: Mapping[str, Any]) -> UpstreamSettings | None:
        """The gateway's own certificate, checked as TLS will use it."""
        paths = {key: self._path(name) for key, name in section.items()}
        certificate, key, authority = (
            paths[name] for name in ("certificate_file", "key_file", "authority_file")
        )
        if certificate is None or authority is None:
            self._problem(
                "gateway.json", ("upstream",), "certificates are no credentials; name files"
            )
            return None
        self._authority(authority, ("upstream", "authority_file"))
        self._bytes(certificate, ("upstream", "certificate_file"))
        if key is None:
            return UpstreamSettings(certificate, Path(section["key_file"]), authority)
        self._bytes(key, ("upstream", "key_file"), secret=True)
        if not self.problems:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
            except (ssl.SSLError, OSError) as error:
                self._problem(
                    "gateway.json",
                    ("upstream", "key_file"),
                    f"{key} does not belong to {certificate}, or one is no PEM file ({error})",
                )
        return UpstreamSettings(certificate, key, authority)

    def _authority(self, path: Path, where: Where) -> None:
        content = self._bytes(path, where)
        if content:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                    cadata=content.decode("ascii", "replace")
                )
            except ssl.SSLError as error:
                self._problem("gateway.json", where, f"{path} holds no certificate ({error})")

    def _writable(self, path: Path, where: Where) -> None:
        if not path.is_dir():
            self._problem(
                "gateway.json", where, f"{path} is no directory; create it for the service"
            )
        elif path.stat().st_mode & stat.S_IWOTH:
            self._problem("gateway.json", where, f"{path} is writable by anybody; chmod o-w")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _server(name: str, server: Mapping[str, Any], pins: Pins) -> Server:
    return Server(
        name=name,
        url=server["url"],
        server_name=server.get("server_name"),
        protocols=frozenset(server["protocols"]),
        timeout_seconds=float(server["timeout_seconds"]),
        concurrency=server["concurrency"],
        calls_per_minute=server["calls_per_minute"],
        tools={
            tool: Tool(
                tool, facts["data_class"], facts["sensitive"], tuple(facts.get("approvers", ()))
            )
            for tool, facts in server["tools"].items()
        },
        resources={k: v["data_class"] for k, v in server.get("resources", {}).items()},
        prompts={k: v["data_class"] for k, v in server.get("prompts", {}).items()},
        pins=pins,
    )

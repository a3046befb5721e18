"""Secrets of MCP servers, and how they are rotated."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.finding import Finding, quoted, suggestion
from ringfence.manifest.validation.rules.reference import exists


def are_used(manifest: Cursor) -> Iterator[Finding]:
    """Says nothing where a server's own list is broken: its secrets would look unused."""
    servers = [server for _, server in manifest["servers"].entries()]
    if any("secrets" in server and not _is_list_of_texts(server["secrets"]) for server in servers):
        return
    named = [secret for server in servers for secret in server["secrets"].texts()]
    for name, secret in manifest["secrets"].entries():
        if name not in named:
            hint = suggestion(name, named) or "; name it under a server's 'secrets', or remove it"
            yield secret.finding(f"no server has a secret {quoted(name)}{hint}", on_key=True)


def readers_exist(manifest: Cursor) -> Iterator[Finding]:
    for _, secret in manifest["secrets"].entries():
        for reader in secret["readers"].elements():
            yield from exists(reader, manifest["hosts"], "host")


def readers_are_at_the_other_end(manifest: Cursor) -> Iterator[Finding]:
    """A host of MCP servers that reads a neighbour's secret is what IAM-08 is there against."""
    for _, secret in manifest["secrets"].entries():
        for reader in secret["readers"].elements():
            groups = manifest["hosts"][reader.text or ""]["groups"].texts()
            if "mcp_servers" in groups:
                yield reader.finding(
                    f"host {quoted(reader.text)} runs MCP servers, which read no secrets of "
                    "others; name the host that the secret opens"
                )


def _is_list_of_texts(value: Cursor) -> bool:
    return isinstance(value.value, list) and len(value.texts()) == len(value.value)

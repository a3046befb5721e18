"""Secrets of MCP servers, and how they are rotated."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted, suggestion


def are_used(manifest: Cursor) -> Iterator[Violation]:
    """A listed secret is named by a server.

    Yields nothing if a server's own list is broken: its secrets would look unused.
    """
    servers = [server for _, server in manifest["servers"].entries()]
    if any("secrets" in server and not _is_list_of_texts(server["secrets"]) for server in servers):
        return
    named = [secret for server in servers for secret in server["secrets"].texts()]
    for name, secret in manifest["secrets"].entries():
        if name not in named:
            hint = suggestion(name, named) or "; name it under a server's 'secrets', or remove it"
            yield secret.violation(f"no server has a secret {quoted(name)}{hint}", on_key=True)


def readers_exist(manifest: Cursor) -> Iterator[Violation]:
    for _, secret in manifest["secrets"].entries():
        for reader in secret["readers"].elements():
            yield from exists(reader, manifest["hosts"], "host")


def readers_run_no_servers(manifest: Cursor) -> Iterator[Violation]:
    """No host of MCP servers may read the secret of another server (IAM-08)."""
    for _, secret in manifest["secrets"].entries():
        for reader in secret["readers"].elements():
            groups = manifest["hosts"][reader.text or ""]["groups"].texts()
            if "mcp_servers" in groups:
                yield reader.violation(
                    f"host {quoted(reader.text)} runs MCP servers, which read no secrets of "
                    "others; name the host that the secret opens"
                )


def _is_list_of_texts(value: Cursor) -> bool:
    return isinstance(value.value, list) and len(value.texts()) == len(value.value)

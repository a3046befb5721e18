"""The log sink, the authority, and files that the manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation, dotted
from ringfence.manifest.validation.rules.network import address
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted


def sink_is_a_collector(manifest: Cursor) -> Iterator[Violation]:
    sink, hosts = manifest["log_sink"], manifest["hosts"]
    if sink["kind"].text != "collector":
        return
    yield from exists(sink["host"], hosts, "host")
    groups = hosts.at(sink["host"].text or "", "groups")
    if isinstance(groups.value, list) and "siem" not in groups.value:
        yield sink["host"].violation(
            f"host {quoted(sink['host'].text)} is not in the group siem; "
            f"add it to {dotted(groups.path)}"
        )


def sink_has_an_address(manifest: Cursor) -> Iterator[Violation]:
    given = manifest.at("log_sink", "address")
    if given.text is None:
        return
    parsed = address(given)
    if not parsed or parsed.is_unspecified or parsed.is_multicast:
        yield given.violation(
            f"{quoted(given.text)} is not the address of a host; "
            "write one like 10.20.30.11 or fd00:20:30::11"
        )


def authority_files_are_used(manifest: Cursor) -> Iterator[Violation]:
    pki = manifest["pki"]
    files = [pki[key] for key in ("certificate_file", "key_file") if key in pki]
    if pki["authority"].text == "internal":
        for file in files:
            yield file.violation("an internal authority keeps its own files; remove this line")
    elif len(files) == 2 and files[0].text is not None and files[0].text == files[1].text:
        yield files[1].violation(
            "this is the certificate's file; name the one with the private key"
        )


def paths_can_be_resolved(manifest: Cursor, directory: Path) -> Iterator[Violation]:
    identity = manifest.at("access", "bootstrap", "identity_file")
    if identity.text and identity.text.endswith(".pub"):
        yield identity.violation("this is a public key; name the private one, without .pub")
    named = [
        identity,
        manifest.at("pki", "certificate_file"),
        manifest.at("pki", "key_file"),
        manifest.at("log_sink", "ca_file"),
    ]
    for issuer in manifest.at("gateway", "tokens", "issuers").elements():
        named += [issuer["jwks_file"], issuer["ca_file"]]
    for _, administrator in manifest["administrators"].entries():
        named += administrator["ssh_key_files"].elements()
    for file in named:
        try:
            if file.text is not None:
                (directory / Path(file.text).expanduser()).exists()
        except (OSError, ValueError, RuntimeError):
            yield file.violation(
                f"{quoted(file.text)} cannot be a path here; name a file beside this one, "
                "or write its absolute path"
            )

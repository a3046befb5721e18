"""SSH keys of administrators, in the manifest and in files beside it.

A missing key file is no problem here: a lab makes its keys after its manifest has been validated.
Whoever uses the key reports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.document import UnreadableError, read
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.wording import quoted

MIN_RSA_BITS = 3072
REPLACE = "make one with ssh-keygen -t ed25519"


def fault(line: str, second_factor: str | None) -> str | None:
    """Return why a public key cannot be used, and what to do; None if it can."""
    # Importing the library takes a tenth of a second, and most manifests contain no keys.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    kind = line.split(" ")[0]
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return (
            "the key is damaged, or not of the kind it names; copy the whole line of the .pub file"
        )
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return f"the RSA key has {key.key_size} bits, {MIN_RSA_BITS} are needed; {REPLACE}"
    if second_factor == "fido2" and not kind.startswith("sk-"):
        return (
            f"the key of kind {kind} is not on a security key, which second_factor fido2 needs; "
            "make one with ssh-keygen -t ed25519-sk -O verify-required, or use totp"
        )
    return None


def literal_keys_are_strong(manifest: Cursor) -> Iterator[Violation]:
    for _, administrator in manifest["administrators"].entries():
        for key in administrator["ssh_keys"].elements():
            if key.text and (reason := fault(key.text, administrator["second_factor"].text)):
                yield key.violation(reason)


def _file_keys(name: str, directory: Path) -> tuple[list[str], str | None]:
    """Return the keys of a file, and why it cannot be used."""
    try:
        path = directory / Path(name).expanduser()
        if not path.exists():
            return [], None
        text = read(path)
    except UnreadableError as error:
        return [], f"the key file {error.message.partition(';')[0]}; name a .pub file"
    except (OSError, ValueError, RuntimeError):
        return [], None  # `trust.paths_can_be_resolved` reports it.
    if "PRIVATE KEY-----" in text:
        return [], f"this is a private key; name the public one, {quoted(f'{name}.pub')}"
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    return keys, None if keys else "the key file holds no key; put a public key in it"


def key_files_hold_public_keys(manifest: Cursor, directory: Path) -> Iterator[Violation]:
    for _, administrator in manifest["administrators"].entries():
        for file in administrator["ssh_key_files"].elements():
            if file.text is None:
                continue
            keys, reason = _file_keys(file.text, directory)
            faults = (fault(key, administrator["second_factor"].text) for key in keys)
            if found := reason or next(filter(None, faults), None):
                yield file.violation(found)


def keys_are_personal(manifest: Cursor, directory: Path) -> Iterator[Violation]:
    """A key of two people identifies neither."""
    owners: dict[str, str] = {}
    for name, administrator in manifest["administrators"].entries():
        for key in administrator["ssh_keys"].elements():
            if key.text:
                yield from _claim(owners, name, key.text, key)
        for file in administrator["ssh_key_files"].elements():
            for line in _file_keys(file.text, directory)[0] if file.text else ():
                yield from _claim(owners, name, line, file)


def _claim(owners: dict[str, str], name: str, line: str, place: Cursor) -> Iterator[Violation]:
    blob = " ".join(line.split(" ")[:2])
    owner = owners.setdefault(blob, name)
    if owner != name:
        yield place.violation(
            f"this key belongs to {quoted(owner)} already; {REPLACE} for each person"
        )

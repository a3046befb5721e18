"""Names and tags, as the AWS provider derives them from a resource's inputs."""

from __future__ import annotations

from hashlib import sha256

from ringfence.rehearsal.record import Inputs, RehearsalError


def physical(name: str, inputs: Inputs, longest: int = 64) -> str:
    """The given name, or Pulumi's: the logical one and seven digits.

    https://www.pulumi.com/docs/iac/concepts/resources/names/
    """
    given = inputs.get("name") or f"{name}-{sha256(name.encode()).hexdigest()[:7]}"
    if len(given) > longest:
        raise RehearsalError(
            f"the name {given} has {len(given)} characters, AWS takes {longest}; "
            "shorten the names in the manifest it is derived from"
        )
    return given


def tags(inputs: Inputs, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Tags as most services take them; KMS names the two fields otherwise."""
    return [{key: name, value: text} for name, text in inputs.get("tags", {}).items()]


def tagged(inputs: Inputs, kind: str) -> list[dict[str, object]]:
    """`TagSpecifications` of EC2."""
    found = tags(inputs)
    return [{"ResourceType": kind, "Tags": found}] if found else []

"""Names and tags, as the AWS provider derives them from a resource's inputs."""

from __future__ import annotations

from hashlib import sha256

from ringfence.rehearsal.record import Inputs, RehearsalError


def physical(name: str, inputs: Inputs, longest: int = 64) -> str:
    """Return the name in the inputs, or Pulumi's: the logical name and seven digits.

    https://www.pulumi.com/docs/iac/concepts/resources/names/
    """
    given = inputs.get("name") or f"{name}-{sha256(name.encode()).hexdigest()[:7]}"
    if len(given) > longest:
        raise RehearsalError(
            f"the name {given} has {len(given)} characters, AWS allows {longest}; "
            "shorten the names in the manifest from which it is derived"
        )
    return given


def tags(inputs: Inputs, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """Return tags in the format of most services; KMS has other names for the two fields."""
    return [{key: name, value: text} for name, text in inputs.get("tags", {}).items()]


def tagged(inputs: Inputs, kind: str) -> list[dict[str, object]]:
    """Return `TagSpecifications` of EC2."""
    found = tags(inputs)
    return [{"ResourceType": kind, "Tags": found}] if found else []

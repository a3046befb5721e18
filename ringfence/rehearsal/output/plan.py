"""A rehearsal as a Terraform plan, for scanners that cannot read Pulumi.

https://developer.hashicorp.com/terraform/internals/json-format

As in Terraform's plans, a value that another resource supplies is unknown and appears as a
reference: a scanner needs it to connect a bucket with its versioning. Unlike Terraform's, a policy
appears in full: there, one ARN in it would make it unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.rehearsal.output import terraform
from ringfence.rehearsal.record import Rehearsal, RehearsalError, RehearsedResource, Status

PROVIDER = "registry.terraform.io/hashicorp/aws"


@dataclass(frozen=True)
class _Split:
    """Properties, split into the three places of a plan."""

    values: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)
    expressions: dict[str, Any] = field(default_factory=dict)


def document(rehearsal: Rehearsal) -> dict[str, Any]:
    """Raises `RehearsalError` where a type has no name in Terraform."""
    addresses = _addresses(rehearsal)
    known = {resource.urn: resource for resource in rehearsal.resources}
    planned: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    configured: list[dict[str, Any]] = []
    origins = _Origins(known, addresses)
    for urn, address in addresses.items():
        kind, name = address.split(".", 1)
        same = {"address": address, "mode": "managed", "type": kind, "name": name}
        provided = {**same, "provider_name": PROVIDER}
        split = _Split()
        for key in known[urn].inputs:
            _add(split, known[urn], key, origins)
        planned.append({**provided, "schema_version": 0, "values": split.values})
        change = {
            "actions": ["create"],
            "before": None,
            "after": split.values,
            "after_unknown": {**split.unknown, "id": True},
        }
        changes.append({**provided, "change": change})
        configured.append({**same, "provider_config_key": "aws", "expressions": split.expressions})
    region = {"region": {"constant_value": rehearsal.account.region}}
    provider = {"name": "aws", "full_name": PROVIDER, "expressions": region}
    return {
        "format_version": "1.2",
        "terraform_version": "1.9.0",
        "planned_values": {"root_module": {"resources": planned}},
        "resource_changes": changes,
        "configuration": {
            "provider_config": {"aws": provider},
            "root_module": {"resources": configured},
        },
    }


def _addresses(rehearsal: Rehearsal) -> dict[str, str]:
    """Map URNs to addresses. Two components may use one name for one type, Terraform may not."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for resource in rehearsal.resources:
        if resource.status is Status.NONE:
            continue
        name = re.sub(r"[^\w-]", "_", resource.name)
        address = f"{terraform.type_of(resource.type)}.{name}"
        if address in taken:
            raise RehearsalError(
                f"{resource.type} {resource.name}: two resources of this type have this name, "
                "which a plan cannot distinguish; give one of them another name"
            )
        taken.add(address)
        found[resource.urn] = address
    return found


@dataclass(frozen=True)
class _Origins:
    resources: Mapping[str, RehearsedResource]
    addresses: Mapping[str, str]

    def of(self, value: str, urns: tuple[str, ...]) -> str | None:
        """The attribute that supplies a value: a bucket's id, also if its policy passed it on."""
        for urn in urns:
            if urn not in self.addresses:
                continue
            resource = self.resources[urn]
            for key, passed in resource.inputs.items():
                further = resource.dependencies.get(key, ())
                if passed == value and (origin := self.of(value, further)):
                    return origin
            for key, supplied in {"id": resource.id, **resource.outputs}.items():
                if supplied == value:
                    name = terraform.attribute(resource.type, key)
                    return f"{self.addresses[urn]}.{name}"
        return None


def _add(split: _Split, resource: RehearsedResource, key: str, origins: _Origins) -> None:
    urns = resource.dependencies.get(key, ())
    for name, value in terraform.attributes(resource.type, {key: resource.inputs[key]}).items():
        if value is not None:
            _add_value(split, name, _jsonable(value), urns, origins)


def _add_value(
    split: _Split, name: str, value: Any, urns: tuple[str, ...], origins: _Origins
) -> None:
    if _is_blocks(value):
        parts = [_Split() for _ in value]
        for part, block in zip(parts, value, strict=True):
            for key, each in block.items():
                _add_value(part, key, each, urns, origins)
        split.values[name] = [part.values for part in parts]
        split.unknown[name] = [part.unknown for part in parts]
        split.expressions[name] = [part.expressions for part in parts]
        return
    texts = list(_texts(value))
    found = [origin for text in texts if (origin := origins.of(text, urns))]
    if found:
        # Terraform lists the attribute before its resource.
        pairs = [each for origin in found for each in (origin, origin.rsplit(".", 1)[0])]
        split.expressions[name] = {"references": list(dict.fromkeys(pairs))}
    elif urns:
        resources = [origins.addresses[urn] for urn in urns if urn in origins.addresses]
        split.expressions[name] = {"references": resources}
    else:
        split.expressions[name] = {"constant_value": value}
    if urns and len(found) == len(texts) and texts:
        split.unknown[name] = True
    else:
        split.values[name] = value


def _is_blocks(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_jsonable(each) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return f"({type(value).__name__})"  # an asset: a file of this machine

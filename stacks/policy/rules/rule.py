"""The types of rules, and how they read a resource's properties.

Nothing of Pulumi's policy SDK: the same functions judge what a rehearsal recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Properties = Mapping[str, Any]
"""Inputs of a resource by the names of Pulumi's schema (camelCase)."""


@dataclass(frozen=True)
class ResourceRule:
    """Rule about a single resource: it is refused before it is created."""

    name: str
    control: str
    """Id in schemas/controls.yaml."""
    description: str
    remedy: str
    types: tuple[str, ...]
    check: Callable[[str, Properties], Iterator[str]]
    """Yields violations of a resource; the stack's preview may not know a value yet."""

    def violations(self, kind: str, properties: Properties) -> Iterator[str]:
        if kind in self.types:
            yield from self.check(kind, properties)


@dataclass(frozen=True)
class DeclaredResource:
    """A resource among those of its stack."""

    urn: str
    type: str
    properties: Properties
    references: Mapping[str, frozenset[str]]
    """URNs of the resources from whose outputs a property is made."""

    def refers_to(self, other: DeclaredResource, name: str) -> bool:
        return other.urn in self.references.get(name, frozenset())


@dataclass(frozen=True)
class StackRule:
    """Rule about what must accompany a resource: its preview is refused."""

    name: str
    control: str
    description: str
    remedy: str
    check: Callable[[Sequence[DeclaredResource]], Iterator[tuple[DeclaredResource, str]]]


def value(properties: Properties, path: str) -> Any:
    """At a path like `metadataOptions.httpTokens`; None where something on the way is absent."""
    found: Any = properties
    for name in path.split("."):
        if found is None:
            return None
        found = found.get(name)
    return found


def items(found: Any) -> Iterable[Any]:
    """Return items of a list that may be absent, or be a single item."""
    if found is None:
        return ()
    return (found,) if isinstance(found, str | Mapping) else found


def is_true(found: Any) -> bool:
    """Launch templates have truth values as texts, since they may be left open."""
    return found is not None and (found is True or found == "true")

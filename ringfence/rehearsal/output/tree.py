"""A rehearsal as a tree: the resources to create, their parents, and their status."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ringfence.rehearsal.engine.monitor import STACK
from ringfence.rehearsal.record import Rehearsal, RehearsedResource, Status

MARKS = {Status.MOTO: "+", Status.RECORDED: "?", Status.NONE: " "}
"""`?` marks a resource that nothing emulates: it was only recorded."""


def render(rehearsal: Rehearsal, exports: bool = True) -> str:
    lines = [f"  {STACK} {rehearsal.stack}", *_under(rehearsal, _roots(rehearsal), "")]
    if exports and rehearsal.exports:
        lines += ["", "Exports"]
        lines += [f"  {name}: {_value(value)}" for name, value in sorted(rehearsal.exports.items())]
    return "\n".join([*lines, "", summary(rehearsal)])


def summary(rehearsal: Rehearsal) -> str:
    counts = rehearsal.counts
    created = counts[Status.MOTO] + counts[Status.RECORDED]
    return (
        f"{created} resources to create: {counts[Status.MOTO]} rehearsed as real objects, "
        f"{counts[Status.RECORDED]} only recorded and not verified; "
        f"{counts[Status.NONE]} components and providers; {rehearsal.seconds:.1f} s"
    )


def _roots(rehearsal: Rehearsal) -> list[RehearsedResource]:
    known = {resource.urn for resource in rehearsal.resources}
    return [resource for resource in rehearsal.resources if resource.parent not in known]


def _under(rehearsal: Rehearsal, siblings: list[RehearsedResource], indent: str) -> Iterator[str]:
    for resource in siblings:
        last = resource is siblings[-1]
        mark = MARKS[resource.status]
        yield f"{mark} {indent}{'└─' if last else '├─'} {resource.type} {resource.name}"
        children = [r for r in rehearsal.resources if r.parent == resource.urn]
        yield from _under(rehearsal, children, indent + ("   " if last else "│  "))


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

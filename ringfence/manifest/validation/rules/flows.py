"""Declared flows: both ends exist, and none opens SSH beside the management segment."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation, dotted
from ringfence.manifest.validation.rules.reference import exists
from ringfence.manifest.validation.wording import quoted


def _flows(manifest: Cursor) -> Iterator[Cursor]:
    return manifest.at("network", "flows").elements()


def _target_host(manifest: Cursor, flow: Cursor) -> str | None:
    server = flow.at("to", "server").text
    return manifest.at("servers", server, "host").text if server else flow.at("to", "host").text


def _target_port(manifest: Cursor, flow: Cursor) -> tuple[int | None, str | None]:
    if server := flow.at("to", "server").text:
        return manifest.at("servers", server, "port").number, "tcp"
    return flow.at("to", "port").number, flow.at("to", "protocol").text


def ends_exist(manifest: Cursor) -> Iterator[Violation]:
    segments = manifest.at("network", "segments")
    for flow in _flows(manifest):
        yield from exists(flow.at("from", "segment"), segments, "segment")
        yield from exists(flow.at("from", "host"), manifest["hosts"], "host")
        yield from exists(flow.at("to", "server"), manifest["servers"], "server")
        yield from exists(flow.at("to", "host"), manifest["hosts"], "host")


def ends_differ(manifest: Cursor) -> Iterator[Violation]:
    for flow in _flows(manifest):
        origin = flow.at("from", "host").text
        if origin is not None and origin == _target_host(manifest, flow):
            yield flow.violation(
                f"the flow leads from host {quoted(origin)} to itself; remove it: "
                "a host may always connect to itself"
            )


def are_unique(manifest: Cursor) -> Iterator[Violation]:
    """A server's name and its host with its port are the same target."""
    unique: dict[object, Cursor] = {}
    for flow in _flows(manifest):
        host = _target_host(manifest, flow)
        port, protocol = _target_port(manifest, flow)
        target = (host, port, protocol) if host else flow.at("to", "server").text
        origins = [flow.at("from", kind).text for kind in ("segment", "host")]
        if target is None or port is None or not any(origins):
            continue
        first = unique.setdefault((*origins, target), flow)
        if first is not flow:
            yield flow.violation(f"the same flow as {dotted(first.path)}; remove one of the two")


def leave_ssh_to_management(manifest: Cursor) -> Iterator[Violation]:
    """Only the management segments may reach SSH, by derived flows (IAM-05)."""
    segments, hosts = manifest.at("network", "segments"), manifest["hosts"]
    for flow in _flows(manifest):
        target = flow.at("to", "host").text
        if target is None or target not in hosts:
            continue
        if _target_port(manifest, flow) != (hosts.at(target, "ssh_port").number, "tcp"):
            continue
        origin = flow.at("from", "host").text
        segment = hosts.at(origin, "segment").text if origin else flow.at("from", "segment").text
        purpose = segments.at(segment or "", "purpose").text
        if purpose == "management":
            yield flow.violation("administration is derived and needs no flow; remove it")
        elif purpose:
            yield flow.violation(
                f"this opens SSH of host {quoted(target)} to segment {quoted(segment)}; remove it: "
                "hosts are administered from a segment with purpose management only"
            )

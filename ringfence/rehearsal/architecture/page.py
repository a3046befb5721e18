"""The picture as one self-contained HTML page, without scripts or fonts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringfence.cloud.groups import infrastructure
from ringfence.drawing import layout, templates
from ringfence.manifest.model import Egress, Environment, Flow, Host
from ringfence.rehearsal.architecture import arrows, picture
from ringfence.rehearsal.output import bill, tree
from ringfence.rehearsal.record import Rehearsal

_templates = templates.beside(__file__)


@dataclass(frozen=True)
class Reason:
    source: str
    target: str
    ports: str
    why: str


def render(rehearsal: Rehearsal, environment: Environment) -> str:
    shown = picture.of(rehearsal, environment)
    drawing = layout.of(shown, arrows.drawn(environment))
    return _templates.get_template("page.html.j2").render(
        environment=environment,
        picture=shown,
        drawing=drawing,
        kinds=tuple(dict.fromkeys(line.kind for line in drawing.lines)),
        reasons=tuple(dict.fromkeys(_reasons(environment))),
        common=tuple(_common(environment)),
        services=picture.services(rehearsal),
        summary=tree.summary(rehearsal).rpartition(";")[0],
        cost=bill.total(bill.of(rehearsal)),
    )


def _reasons(environment: Environment) -> Iterator[Reason]:
    for flow in (*environment.flows, *environment.forwarding):
        yield Reason(flow.source.name, _target(flow), f"{flow.protocol}/{flow.port}", flow.why)
    for flow in environment.administration:
        yield Reason(flow.source.name, "every host", f"{flow.protocol}/{flow.port}", flow.why)
    for server in environment.servers.values():
        for egress in server.egress:
            ports = f"{egress.protocol}/{egress.port}"
            yield Reason(f"MCP {server.name}", _outward(egress), ports, egress.why)


def _target(flow: Flow) -> str:
    return f"MCP {flow.server} on {flow.target.name}" if flow.server else flow.target.name


def _outward(egress: Egress) -> str:
    if isinstance(egress.host, Host):
        return egress.host.name
    if egress.private_link:
        return f"private link {egress.private_link}"
    return str(egress.domain or egress.cidr)


def _common(environment: Environment) -> Iterator[Reason]:
    """Yield the flows that are not drawn, since they start at every host."""
    summed = arrows.summed(environment)
    every = "every host"
    names = _names(path.target for path in summed if path.target.startswith("service "))
    yield Reason(every, names, "tcp/443", "AWS services through their endpoints")
    sink = environment.log_sink
    if sink.host:
        yield Reason(every, sink.host.name, f"tcp/{sink.port}", "log shipping")
    for address, protocol, port, why in infrastructure(environment):
        yield Reason(every, address, f"{protocol}/{port}", why)
    mirrors = {(path.target, path.first) for path in summed if path.source.startswith("mirror ")}
    for target, port in sorted(mirrors):
        yield Reason("copies of packets", target, f"udp/{port}", "traffic mirroring")


def _names(ends: Iterable[str]) -> str:
    return ", ".join(sorted({end.removeprefix("service ") for end in ends}))

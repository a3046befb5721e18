"""Manifests of any shape: what hypothesis makes of the small cloud manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import strategies as st

from ringfence.manifest.model import Environment

BASE = yaml.safe_load((Path(__file__).parents[1] / "unit" / "manifests" / "cloud.yaml").read_text())
SEGMENTS = {
    "management": "management",
    "clients": "clients",
    "edge": "edge",
    "servers": "servers",
    "data": "data",
    "monitoring": "monitoring",
}
FIRST_PORT = 8400
LINKS = {
    "fx": {"service": "com.amazonaws.vpce.eu-central-1.vpce-svc-0123456789abcdef0"},
    "rates": {
        "service": "com.amazonaws.vpce.eu-central-1.vpce-svc-0fedcba9876543210",
        "private_dns": True,
    },
}
DOMAINS = (("rates.example.com", 443), ("api.example.com", 8443), ("plain.example.com", 80))
SECRETS = {
    "api-key": {"rotation": "generated", "rotation_days": 7, "readers": ["db-0"]},
    "password": {"rotation": "external"},
}


@contextmanager
def manifest(document: dict[str, Any]) -> Iterator[Environment]:
    """With its file, which a rehearsed program reads again."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "environment.yaml"
        path.write_text(json.dumps(document, indent=1))
        yield Environment.load(path)


def loaded(document: dict[str, Any]) -> Environment:
    with manifest(document) as environment:
        return environment


@st.composite
def documents(draw: st.DrawFn, servers: int = 6) -> dict[str, Any]:
    """Valid manifests: hosts in every segment, servers with and without a host, any flows."""
    hosts: dict[str, Any] = {
        "siem-1": {"segment": "monitoring", "groups": ["siem"]},
        "edge-1": {"segment": "edge", "groups": ["edge"]},
        "tools-1": {"segment": "servers", "groups": ["mcp_servers"]},
    }
    hosts |= {
        f"db-{n}": {"segment": "data", "groups": ["data"]} for n in range(draw(st.integers(1, 3)))
    }
    for n in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from(["monitoring", "edge"]))
        hosts[f"sensor-{n}"] = {"segment": place, "groups": ["sensor"]}
    if draw(st.booleans()):
        hosts["jump-1"] = {"segment": "management", "groups": []}
    names = [f"mcp-{number}" for number in range(draw(st.integers(1, servers)))]
    made = {name: _server(draw, hosts, number) for number, name in enumerate(names)}
    flows = [_flow(draw, hosts, names) for _ in range(draw(st.integers(0, 6)))]
    unique = {str((flow["from"], flow["to"])): flow for flow in flows}
    return {
        **BASE,
        "network": {
            **BASE["network"],
            "segments": {
                name: {"cidr": f"10.9.{10 * number}.0/24", "purpose": purpose}
                for number, (name, purpose) in enumerate(SEGMENTS.items())
            },
            "services": {
                "dns": draw(st.sampled_from([["10.9.0.2"], ["10.9.0.53"], []])),
                "ntp": ["169.254.169.123"],
            },
            "flows": [
                flow
                for flow in unique.values()
                if flow["from"] != {"host": _host(flow, made)} and not _is_around(flow, hosts)
            ],
        },
        "provisioning": {"aws": _aws(draw, made)},
        "hosts": hosts,
        "servers": made,
        "secrets": {
            name: how
            for name, how in SECRETS.items()
            if any(name in server["secrets"] for server in made.values())
        },
    }


def _aws(draw: st.DrawFn, servers: dict[str, Any]) -> dict[str, Any]:
    used = {e["private_link"] for s in servers.values() for e in s["egress"] if "private_link" in e}
    links = {name: link for name, link in LINKS.items() if name in used}
    optional: dict[str, Any] = {"private_links": links} if links else {}
    domains = any("domain" in e for s in servers.values() for e in s["egress"])
    if domains or draw(st.booleans()):
        optional["egress"] = {"cidr": "10.9.250.0/24"}
    if draw(st.booleans()):
        optional["publish"] = {"accept": ["arn:aws:iam::111122223333:root"]}
    return {**BASE["provisioning"]["aws"], "zones": draw(st.integers(2, 3)), **optional}


def _server(draw: st.DrawFn, hosts: dict[str, Any], number: int) -> dict[str, Any]:
    place = {"host": "tools-1"} if number == 0 else {"segment": "servers"}
    wanted = draw(
        st.lists(
            st.sampled_from([h for h in hosts if h.startswith("db-")]), unique=True, max_size=2
        )
    )
    egress: list[dict[str, Any]] = [
        {"host": host, "port": 5432, "why": "its data"} for host in wanted
    ]
    if draw(st.booleans()):
        egress.append({"cidr": "10.9.40.0/24", "port": 5433, "why": "what is not ours there"})
    egress += [
        {"private_link": name, "port": 443, "why": "a service of others"}
        for name in draw(st.lists(st.sampled_from([*LINKS]), unique=True, max_size=2))
    ]
    egress += [
        {"domain": domain, "port": port, "why": "something outside"}
        for domain, port in draw(st.lists(st.sampled_from(DOMAINS), unique=True, max_size=2))
    ]
    secrets = draw(st.lists(st.sampled_from([*SECRETS, "token"]), unique=True, max_size=2))
    own = {"port": FIRST_PORT + number, "egress": egress, "secrets": secrets}
    server = {**BASE["servers"]["git"], **own}
    del server["host"]
    return server | place


def _flow(draw: st.DrawFn, hosts: dict[str, Any], servers: list[str]) -> dict[str, Any]:
    source = draw(
        st.one_of(
            st.sampled_from([{"segment": name} for name in SEGMENTS if name != "management"]),
            st.sampled_from([{"host": name} for name in hosts]),
        )
    )
    targets = st.one_of(
        st.sampled_from([{"server": name} for name in servers]),
        st.builds(
            lambda host, port, protocol: {"host": host, "port": port, "protocol": protocol},
            st.sampled_from(list(hosts)),
            st.sampled_from([443, 5432, 5433]),
            st.sampled_from(["tcp", "udp"]),
        ),
    )
    return {"from": source, "to": draw(targets), "why": "a reason"}


def _is_around(flow: dict[str, Any], hosts: dict[str, Any]) -> bool:
    """Past the gateway, which validation refuses."""
    source = flow["from"]
    segment = source.get("segment") or hosts[source["host"]]["segment"]
    groups = hosts[source["host"]]["groups"] if "host" in source else [segment]
    return "server" in flow["to"] and "edge" not in groups


def _host(flow: dict[str, Any], servers: dict[str, Any]) -> str | None:
    to = flow["to"]
    return servers[to["server"]].get("host") if "server" in to else to["host"]

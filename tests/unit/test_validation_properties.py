"""For any input, validation ends soon: with a mapping, or with problems that have a place."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ringfence import inventory
from ringfence.manifest import validation
from ringfence.manifest.model import Environment

SMALL = (Path(__file__).parent / "manifests" / "small.yaml").read_text()
SMALL_VALUE = yaml.safe_load(SMALL)

quick = settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest") / "environment.yaml"


def holds(path: Path, content: bytes) -> bool:
    """Return whether a manifest is valid; fail on any other kind of answer."""
    path.write_bytes(content)
    try:
        environment = Environment.load(path)
    except validation.ManifestError as error:
        refusal = error
    else:
        use(environment)
        return True
    lines = re.split(rb"\r\n|\r|\n", content)
    assert refusal.problems
    assert len(str(refusal).splitlines()) == len(refusal.problems)
    for problem in refusal.problems:
        assert 1 <= problem.line <= len(lines), problem
        assert problem.column >= 1
        assert problem.path
        assert str(problem).isprintable()
        assert re.search(r"; \w", problem.message), f"no remedy: {problem}"
    return False


def use(environment: Environment) -> None:
    # Every part of a loaded environment can be used.
    assert environment.all_flows
    for host in environment.hosts.values():
        assert inventory.groups(environment)
        assert environment.servers_on(host) is not None
    for server in environment.servers.values():
        assert environment.callers(server) is not None


@quick
@given(st.binary(max_size=300))
def test_any_bytes(path: Path, content: bytes) -> None:
    holds(path, content)


@quick
@given(st.text(alphabet="abc01:-[]{}&*!?|>'\"%@#,\n\t \\", max_size=200))
def test_any_text_of_yaml(path: Path, text: str) -> None:
    holds(path, text.encode())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@quick
@given(values)
def test_any_document(path: Path, value: Any) -> None:
    holds(path, yaml.safe_dump(value, allow_unicode=True).encode())


def places(value: Any) -> list[tuple[Any, Any]]:
    """Yield every container with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def delete(container: Any, key: Any, _: Any, __: Any) -> None:
    del container[key]


def replace(container: Any, key: Any, value: Any, __: Any) -> None:
    container[key] = value


def transplant(container: Any, key: Any, _: Any, other: Any) -> None:
    container[key] = deepcopy(other)


def rename(container: Any, key: Any, value: Any, _: Any) -> None:
    if isinstance(container, dict):
        container[str(value)[:40]] = container.pop(key)


def duplicate(container: Any, key: Any, _: Any, __: Any) -> None:
    if isinstance(container, list):
        container.append(deepcopy(container[key]))
    else:
        container[f"{key}-2"] = deepcopy(container[key])


def cut(container: Any, key: Any, _: Any, __: Any) -> None:
    if isinstance(container[key], str):
        container[key] = container[key][:-1]


MUTATIONS: list[Callable[..., None]] = [delete, replace, transplant, rename, duplicate, cut]


@settings(quick, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(MUTATIONS), st.randoms(), values), max_size=4))
def test_mutated_manifests(path: Path, changes: list[tuple[Any, random.Random, Any]]) -> None:
    value = deepcopy(SMALL_VALUE)
    for mutate, chance, other in changes:
        if found := places(value):
            container, key = chance.choice(found)
            donor, donor_key = chance.choice(found)
            mutate(container, key, other, deepcopy(donor[donor_key]))
    holds(path, yaml.dump(value, Dumper=Plain, allow_unicode=True).encode())


class Plain(yaml.SafeDumper):
    """Dumper that writes a repeated value out each time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Quote every string: PyYAML writes text such as 008, a number in YAML 1.2, without quotes.
Plain.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@quick
@given(st.integers(0, len(SMALL)), st.integers(0, 40), st.text(max_size=10))
@example(SMALL.index("purpose: servers") + len("purpose: "), 0, "\U00011af9")
def test_edited_text(path: Path, start: int, length: int, inserted: str) -> None:
    text = SMALL[:start] + inserted + SMALL[start + length :]
    holds(path, text.encode(errors="replace"))


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """Draw manifests that are valid by construction."""
    name = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
    count = draw(st.integers(1, 5))
    numbers = range(count)
    classes = st.sampled_from(["public", "internal", "confidential", "restricted"])
    line = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=3)
    six = draw(st.booleans())
    segments = {
        f"{purpose}-net": {"cidr": f"10.1.{number}.0/24", "purpose": purpose}
        | ({"cidr6": f"fd00:1:{number}::/64"} if six else {})
        for number, purpose in enumerate(["management", "clients", "servers", "monitoring"])
    }
    hosts = {
        f"tools-{number}": {
            "segment": "servers-net",
            "address": f"10.1.2.{number + 10}",
            "groups": ["mcp_servers"],
        }
        | ({"address6": f"fd00:1:2::{number + 10:x}"} if six and draw(st.booleans()) else {})
        for number in numbers
    }
    hosts["siem-1"] = {"segment": "monitoring-net", "address": "10.1.3.10", "groups": ["siem"]}
    people = {
        person: {"kind": "person", "email": f"{person}@example.com", "roles": ["caller"]}
        for person in ("carol", "dana")
    }
    servers = {}
    for number in numbers:
        tools = draw(st.lists(st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True), min_size=1))
        servers[f"server-{number}"] = {
            "host": f"tools-{number}",
            "port": draw(st.integers(1024, 65535)),
            "transport": "stdio",
            "package": {"ecosystem": "pypi", "name": "example", "version": "1.2.3"},
            "command": ["example", "{state}"],
            "tools": {
                tool: {"data_class": draw(classes)}
                | ({"sensitive": True, "approvers": list(people)} if draw(st.booleans()) else {})
                for tool in tools
            },
        }
    return {
        "ringfence": 1,
        "name": draw(name),
        "stage": draw(st.sampled_from(["development", "staging", "production"])),
        "description": draw(line),
        "contacts": {
            role: {"name": draw(line), "email": "x@example.com"}
            for role in ("security", "operations")
        },
        "network": {
            "domain": "example.internal",
            "segments": segments,
            "flows": [
                {
                    "from": {"segment": "clients-net"},
                    "to": {"server": server},
                    "why": draw(line),
                }
                for server in servers
            ],
        },
        "access": {"automation": {"account": "ringfence"}, "bootstrap": {"user": "root"}},
        "administrators": {
            "alice": {
                "name": "Alice",
                "email": "alice@example.com",
                "ssh_key_files": ["alice.pub"],
                "second_factor": draw(st.sampled_from(["totp", "fido2"])),
            }
        },
        "hosts": hosts,
        "log_sink": {"kind": "collector", "host": "siem-1"},
        "pki": {"authority": "internal"},
        "retention": {
            data_class: draw(st.integers(1, 3650))
            for data_class in ("public", "internal", "confidential", "restricted")
        },
        "servers": servers,
        "roles": {
            "caller": {
                "description": draw(line),
                "tools": {server: list(servers[server]["tools"]) for server in servers},
            }
        },
        "principals": people | {"agent": {"kind": "agent", "owner": "carol", "roles": ["caller"]}},
    }


@settings(quick, max_examples=40)
@given(manifests(), st.booleans())
def test_manifests_that_are_right_load(path: Path, manifest: dict[str, Any], flow: bool) -> None:
    content = yaml.dump(manifest, Dumper=Plain, default_flow_style=flow, allow_unicode=True)
    assert holds(path, content.encode()), content

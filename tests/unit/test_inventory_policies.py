"""The Cedar text for an auditor: complete, in a stable order, and no value ends its string."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cedarpy
import pytest
from cedarpy import pst

from ringfence.gateway.policy import decisions
from ringfence.inventory.policies import policies
from ringfence.manifest.model import Environment, Role

ROOT = Path(__file__).parents[2]
SCHEMA = cedarpy.Schema.from_str(
    Path(decisions.__file__).with_name("schema.cedarschema").read_text()
)


@pytest.fixture(scope="module")
def lab() -> Environment:
    return Environment.load(ROOT / "inventories/lab/environment.yaml")


def ids(text: str) -> list[str]:
    parsed = cedarpy.policies_to_pst(text).static_policies.values()
    return sorted(each.annotations["id"] for each in parsed)


def named(node: Any) -> set[tuple[str, str]]:
    if isinstance(node, pst.EntityUid):
        return {(node.type.basename, node.id)}
    if is_dataclass(node):
        node = tuple(getattr(node, each.name) for each in fields(node))
    parts = node if isinstance(node, tuple) else ()
    return set[tuple[str, str]]().union(*map(named, parts))


def environment(**roles: Any) -> Environment:
    return cast(Environment, SimpleNamespace(roles=roles, path=Path("environment.yaml")))


def test_there_is_one_policy_for_each_role_and_server(lab):
    assert ids(policies(lab)) == sorted(
        f"{role.name}/{server}" for role in lab.roles.values() for server in role.tools
    )


@pytest.mark.parametrize("name", ["lab", "aws-example"])
def test_cedar_validates_it_strictly(name):
    text = policies(Environment.load(ROOT / f"inventories/{name}/environment.yaml"))
    assert cedarpy.validate_policies(text, SCHEMA).errors == []
    assert ids(text)


def test_each_policy_names_what_its_role_names_and_nothing_else(lab):
    for each in cedarpy.policies_to_pst(policies(lab)).static_policies.values():
        role, _, server = each.annotations["id"].partition("/")
        kinds = {"Tool": "tools", "Resource": "resources", "Prompt": "prompts"}
        listed = {
            (kind, f"{server}/{name}")
            for kind, attribute in kinds.items()
            for name in getattr(lab.roles[role], attribute).get(server, ())
        }
        assert named(each) == listed | {
            ("Role", role),
            ("Server", server),
            ("Action", "use"),
            ("Action", "connect"),
        }


def test_the_order_of_the_manifest_does_not_show(lab):
    reversed_roles = {
        name: replace(
            role,
            tools={s: tuple(reversed(t)) for s, t in reversed(list(role.tools.items()))},
        )
        for name, role in reversed(list(lab.roles.items()))
    }
    assert policies(replace(lab, roles=reversed_roles)) == policies(lab)


def test_resources_and_prompts_are_used_where_roles_have_them():
    role = SimpleNamespace(
        name="reader",
        description="Reads.",
        tools={},
        resources={"notes": ("file:///docs/*",)},
        prompts={"notes": ("review",), "desk": ("greet",)},
    )
    text = policies(environment(reader=role))
    assert ids(text) == ["reader/desk", "reader/notes"]
    assert 'Ringfence::Resource::"notes/file:///docs/*"' in text
    assert 'Ringfence::Prompt::"notes/review"' in text
    assert cedarpy.validate_policies(text, SCHEMA).errors == []


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"])
def test_a_description_stays_in_its_comment(end):
    description = f"Reads.{end}permit (principal, action, resource);"
    role = Role("reader", description, {"time": ("now",)}, {}, {})
    assert ids(policies(environment(reader=role))) == ["reader/time"]


@pytest.mark.parametrize("name", ['"', '"] };', "\\", "\n", "\0", "é", "\u202e", "🙂", "\\u{41}"])
def test_a_name_stays_in_its_string_and_keeps_its_characters(name):
    role = Role("reader", "Reads.", {"time": (name,)}, {}, {})
    text = policies(environment(reader=role))
    (only,) = cedarpy.policies_to_pst(text).static_policies.values()
    assert ("Tool", f"time/{name}") in named(only)
    assert text.isascii()


def test_a_role_that_names_nothing_permits_nothing():
    assert ids(policies(environment(idle=Role("idle", "Nothing.", {"time": ()}, {}, {})))) == []

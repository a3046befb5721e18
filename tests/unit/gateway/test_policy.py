"""Authorisation: default deny, exactly the manifest's roles, and faulty policies."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cedarpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.gateway.policy import decisions
from ringfence.gateway.policy.decisions import Decision, Policies, PolicySourceError
from ringfence.gateway.protocol.methods import METHODS
from ringfence.inventory.policies import policies as manifest_policies
from ringfence.manifest.model import Environment, Role

SCHEMA = Path(decisions.__file__).with_name("schema.cedarschema").read_text()


@dataclass(frozen=True)
class Identity:
    principal: str
    scopes: frozenset[str] = frozenset()
    certificate: str | None = None


@dataclass(frozen=True)
class Call:
    server: str
    method: str
    name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ManifestRole(Role):
    """Role that names resources and prompts as well as tools."""

    resources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


FACTS: dict[str, Any] = {
    "stage": "staging",
    "principals": {
        "carol": {"kind": "person", "owner": None, "roles": ["reader", "owner"]},
        "dana": {"kind": "person", "owner": None, "roles": ["reader"]},
        "bot": {"kind": "agent", "owner": "carol", "roles": ["clerk"]},
        "nobody": {"kind": "agent", "owner": "dana", "roles": []},
    },
    "roles": {"reader": {}, "owner": {}, "clerk": {}},
    "servers": {
        "notes": {
            "tools": {
                "search": {"data_class": "internal", "sensitive": False},
                "export": {"data_class": "restricted", "sensitive": False},
                "delete": {"data_class": "confidential", "sensitive": True},
            },
            "resources": {
                "file:///docs/**": {"data_class": "internal"},
                "file:///docs/secret/**": {"data_class": "restricted"},
            },
            "prompts": {"review": {"data_class": "internal"}},
        },
        "time": {"tools": {"now": {"data_class": "public", "sensitive": False}}},
    },
}
ROLES = {
    "reader": ManifestRole(
        "reader",
        "Reads.",
        {"notes": ("search",), "time": ("now",)},
        {"notes": ("file:///docs/**",)},
        {"notes": ("review",)},
    ),
    "owner": ManifestRole("owner", "Changes.", {"notes": ("delete",)}),
    "clerk": ManifestRole("clerk", "Asks for the time.", {"time": ("now",)}),
}
CAROL, DANA, BOT, NOBODY = map(Identity, ("carol", "dana", "bot", "nobody"))
SEARCH = Call("notes", "tools/call", "search")
DELETE = Call("notes", "tools/call", "delete")
NOW = Call("time", "tools/call", "now")


def environment(roles: Mapping[str, Role]) -> Environment:
    return cast(Environment, SimpleNamespace(roles=roles, path=Path("environment.yaml")))


MANIFEST = manifest_policies(environment(ROLES))


def build(*texts: str, **facts: Any) -> Policies:
    named = {f"policies/{number}.cedar": text for number, text in enumerate(texts)}
    return Policies(SCHEMA, named, **(FACTS | facts))


def problems(*texts: str, **facts: Any) -> list[str]:
    with pytest.raises(PolicySourceError) as refused:
        build(*texts, **facts)
    return refused.value.problems


def ask(
    policies: Policies,
    identity: Identity,
    call: Call,
    *,
    granted: bool = False,
    address: str | None = None,
) -> Decision:
    return policies.decide(identity, call, granted=granted, address=address)


@pytest.fixture(scope="module")
def manifest() -> Policies:
    return build(MANIFEST)


class TestRoles:
    def test_a_tool_that_a_role_names_is_allowed_and_the_policy_is_named(self, manifest):
        assert ask(manifest, DANA, SEARCH) == Decision(True, ("reader/notes",), "allowed")

    def test_a_tool_that_only_another_role_names_is_denied(self, manifest):
        assert ask(manifest, BOT, SEARCH) == Decision(False, (), "no_policy")

    def test_without_policies_everything_is_denied(self):
        nothing = build()
        for call in calls_of_every_method():
            decision = ask(nothing, CAROL, call, granted=True)
            assert decision == Decision(False, (), "no_policy"), call.method

    def test_a_server_is_spoken_with_by_those_whose_roles_name_something_of_it(self, manifest):
        assert ask(manifest, DANA, Call("notes", "tools/list")).allowed
        assert ask(manifest, BOT, Call("time", "initialize")).allowed
        assert not ask(manifest, BOT, Call("notes", "tools/list")).allowed
        assert not ask(manifest, NOBODY, Call("time", "server/discover")).allowed


@pytest.fixture(scope="module")
def permissive() -> Policies:
    """Build policies with which Cedar itself would allow everything."""
    return build('@id("all") permit (principal, action, resource);')


def test_the_actions_of_the_schema_are_the_methods():
    """Each applies to the kind of object that the table names for its method."""
    text = re.sub(r"//.*", "", SCHEMA)
    declared = re.findall(
        r"action\s+([^;]*?)\s+in \[(\w+)\] appliesTo \{\s*principal: \[Principal\],"
        r"\s*resource: \[([^]]*)\],\s*context: Context,\s*\};",
        text,
    )
    assert len(declared) == text.count("appliesTo")
    actions = {
        name.strip(' "\n'): (group, tuple(resources.split(", ")))
        for names, group, resources in declared
        for name in names.split(",")
    }
    expected: dict[str, tuple[str, tuple[str, ...]]] = {
        "server": ("connect", ("Server",)),
        "subscription": ("connect", ("Server",)),
        "reference": ("use", ("Prompt", "Resource")),
        **{kind: ("use", (kind.title(),)) for kind in ("tool", "resource", "prompt")},
    }
    assert actions == {name: expected[method.subject] for name, method in METHODS.items()}


class TestUnknown:
    @pytest.mark.parametrize(
        ("identity", "call", "reason"),
        [
            (Identity("mallory"), SEARCH, "unknown_principal"),
            (Identity(""), SEARCH, "unknown_principal"),
            (CAROL, Call("nots", "tools/call", "search"), "unknown_server"),
            (CAROL, Call("notes", "tools/call", "now"), "unknown_tool"),
            (CAROL, Call("notes", "tools/call", "Search"), "unknown_tool"),
            (CAROL, Call("notes", "tools/call", "review"), "unknown_tool"),
            (CAROL, Call("notes", "tools/call"), "unknown_tool"),
            (CAROL, Call("time", "resources/read", "file:///docs/a"), "unknown_resource"),
            (CAROL, Call("notes", "resources/read", "file:///etc/passwd"), "unknown_resource"),
            (CAROL, Call("notes", "resources/read"), "unknown_resource"),
            (CAROL, Call("notes", "prompts/get", "search"), "unknown_prompt"),
            (CAROL, Call("notes", "tools/delete", "search"), "unknown_method"),
            (CAROL, Call("notes", "Tools/Call", "search"), "unknown_method"),
            (CAROL, Call("notes", "sampling/createMessage"), "unknown_method"),
            (CAROL, Call("notes", "use"), "unknown_method"),
            (CAROL, Call("notes", "completion/complete"), "unknown_prompt"),
        ],
    )
    def test_what_the_manifest_does_not_name_is_denied(self, permissive, identity, call, reason):
        assert ask(permissive, identity, call) == Decision(False, (), reason)

    def test_the_same_policies_allow_what_it_names(self, permissive):
        assert ask(permissive, NOBODY, SEARCH) == Decision(True, ("all",), "allowed")

    def test_every_method_is_an_action_of_the_schema(self, permissive):
        for call in calls_of_every_method():
            assert ask(permissive, CAROL, call).reason == "allowed", call.method

    @pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "notifications/tasks/status"])
    def test_tasks_are_offered_to_nobody(self, permissive, method):
        decision = ask(permissive, CAROL, Call("notes", method, params={"taskId": "1"}))
        assert decision == Decision(False, (), "unknown_method")

    def test_a_name_with_the_separator_reaches_nothing_of_another_server(self, permissive):
        assert ask(permissive, CAROL, Call("time", "tools/call", "../notes/search")).reason == (
            "unknown_tool"
        )


class TestSensitiveTools:
    def test_a_role_is_not_enough_and_a_grant_is(self, manifest):
        assert ask(manifest, CAROL, DELETE) == Decision(
            False, ("sensitive-tools-need-a-grant",), "no_grant"
        )
        assert ask(manifest, CAROL, DELETE, granted=True) == Decision(
            True, ("owner/notes",), "allowed"
        )

    def test_a_grant_without_a_role_is_not_enough_either_and_is_not_suggested(self, manifest):
        assert ask(manifest, DANA, DELETE, granted=True).reason == "no_policy"
        assert ask(manifest, DANA, DELETE).reason == "no_policy"

    def test_no_policy_of_an_operator_lifts_it(self):
        lifted = build('@id("all") permit (principal, action, resource);')
        assert ask(lifted, CAROL, DELETE).reason == "no_grant"

    def test_where_another_policy_forbids_no_grant_is_suggested(self):
        text = '@id("frozen") forbid (principal, action, resource in Ringfence::Server::"notes");'
        frozen = build(MANIFEST, text)
        assert ask(frozen, CAROL, DELETE) == Decision(False, ("frozen",), "forbidden")


class TestResources:
    @pytest.mark.parametrize(
        ("uri", "allowed"),
        [
            ("file:///docs/a.txt", True),
            ("file:///docs/a/b.txt", True),
            ("file:///docs/secret/a.txt", False),
            ("file:///docs/../etc/passwd", False),
            ("file:///docs/%2e%2e/etc/passwd", False),
            ("file:///docs/x/../secret/a.txt", False),
            ("file:///docs//secret/a.txt", False),
            ("file:///docs/%73ecret/a.txt", False),
        ],
    )
    def test_the_most_specific_pattern_decides(self, manifest, uri, allowed):
        for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
            assert ask(manifest, DANA, Call("notes", method, uri)).allowed is allowed

    def test_the_class_is_of_the_most_specific_pattern(self, manifest):
        assert manifest.data_class("notes", "resource", "file:///docs/a") == "internal"
        assert manifest.data_class("notes", "resource", "file:///docs/secret/a") == "restricted"
        assert manifest.data_class("notes", "resource", "file:///etc/passwd") is None
        assert manifest.data_class("notes", "tool", "export") == "restricted"
        assert manifest.data_class("nots", "tool", "export") is None
        assert manifest.data_class("notes", "server", None) is None

    def test_a_completion_is_decided_by_what_it_completes(self, manifest):
        def completion(**ref: Any) -> Decision:
            return ask(manifest, DANA, Call("notes", "completion/complete", params={"ref": ref}))

        assert completion(type="ref/prompt", name="review").allowed
        assert completion(type="ref/resource", uri="file:///docs/{name}").allowed
        assert not completion(type="ref/prompt", name="other").allowed
        assert not completion(type="ref/resource", uri="file:///docs/secret/{name}").allowed
        assert not completion(type="ref/resource", uri="file:///{path}").allowed
        assert not completion(type="ref/prompt", name=["review"]).allowed


def calls_of_every_method() -> Iterator[Call]:
    names = {"tool": "search", "resource": "file:///docs/a", "prompt": "review"}
    params = {
        "reference": {"ref": {"type": "ref/prompt", "name": "review"}},
        "subscription": {"notifications": {"toolsListChanged": True}},
    }
    for name, method in METHODS.items():
        yield Call("notes", name, names.get(method.subject), params=params.get(method.subject, {}))


class TestSubscriptions:
    def listen(self, policies: Policies, identity: Identity, **listened: Any) -> Decision:
        params = {"notifications": listened}
        return ask(policies, identity, Call("notes", "subscriptions/listen", params=params))

    def test_changes_of_lists_come_with_the_server(self, manifest):
        assert self.listen(manifest, DANA, toolsListChanged=True).allowed
        assert not self.listen(manifest, BOT, toolsListChanged=True).allowed

    def test_every_resource_in_it_has_to_be_allowed(self, manifest):
        good, bad = "file:///docs/a", "file:///docs/secret/a"
        assert self.listen(manifest, DANA, resourceSubscriptions=[good]).allowed
        for uris in ([good, bad], [bad, good], [good, 7], "file:///docs/a", 7):
            assert not self.listen(manifest, DANA, resourceSubscriptions=uris).allowed

    def test_tasks_are_not_listened_to(self, permissive):
        assert self.listen(permissive, DANA, taskIds=["1"]).reason == "unknown_subscription"

    def test_what_is_not_known_is_denied(self, manifest):
        assert self.listen(manifest, DANA, rootsChanged=True).reason == "unknown_subscription"
        call = Call("notes", "subscriptions/listen")
        assert ask(manifest, DANA, call).reason == "unknown_subscription"

    def test_there_are_not_too_many(self, manifest):
        most = ["file:///docs/a"] * decisions.MOST_SUBSCRIPTIONS
        assert self.listen(manifest, DANA, resourceSubscriptions=most).allowed
        assert not self.listen(manifest, DANA, resourceSubscriptions=[*most, most[0]]).allowed


class TestLists:
    def test_a_list_shows_what_the_caller_may_use_in_its_order(self, manifest):
        names = ["delete", "search", "export", "hidden"]
        assert manifest.visible(CAROL, "notes", "tool", names) == ["delete", "search"]
        assert manifest.visible(DANA, "notes", "tool", names) == ["search"]
        assert manifest.visible(BOT, "notes", "tool", names) == []
        assert manifest.visible(Identity("mallory"), "notes", "tool", names) == []
        assert manifest.visible(DANA, "nots", "tool", names) == []

    def test_resources_templates_and_prompts(self, manifest):
        uris = ["file:///docs/a", "file:///docs/secret/a", "file:///etc/passwd"]
        assert manifest.visible(DANA, "notes", "resource", uris) == uris[:1]
        templates = ["file:///docs/{name}", "file:///{name}", "file:///docs/secret/{name}"]
        assert manifest.visible(DANA, "notes", "resource", templates) == templates[:1]
        assert manifest.visible(DANA, "notes", "prompt", ["review", "other"]) == ["review"]
        assert manifest.visible(CAROL, "time", "prompt", ["review"]) == []

    def test_a_sensitive_tool_that_no_grant_would_open_is_not_shown(self):
        text = '@id("f") forbid (principal, action, resource == Ringfence::Tool::"notes/delete");'
        assert build(MANIFEST, text).visible(CAROL, "notes", "tool", ["delete"]) == []

    def test_a_policy_that_counts_on_a_grant_opens_no_list(self):
        text = """@id("granted") permit (principal, action, resource) when { context.granted };"""
        assert build(text).visible(DANA, "notes", "tool", ["search", "delete"]) == ["delete"]


NIGHT = """
@id("no-batch-at-the-desk")
forbid (principal, action in Ringfence::Action::"use", resource)
when { context.scopes.contains("night") };
"""
OFFICE = """
@id("office")
permit (
    principal == Ringfence::Principal::"nobody",
    action == Ringfence::Action::"tools/call",
    resource == Ringfence::Tool::"notes/search"
) when {
    context has address && (
        context.address.isInRange(ip("10.1.0.0/16")) || context.address.isInRange(ip("fe80::/16"))
    )
};
"""


class TestOperatorsPolicies:
    def test_a_scope_can_forbid(self):
        policies = build(MANIFEST, NIGHT)
        night = replace(DANA, scopes=frozenset({"night", "mcp:notes"}))
        assert ask(policies, night, SEARCH) == Decision(
            False, ("no-batch-at-the-desk",), "forbidden"
        )
        assert ask(policies, DANA, SEARCH).allowed

    @pytest.mark.parametrize(
        ("address", "allowed"),
        [
            ("10.1.2.3", True),
            ("::ffff:10.1.2.3", True),
            ("10.2.0.1", False),
            ("fd00::1", False),
            ("fe80::1%eth0", True),
            ("fe81::1%eth0", False),
            (None, False),
        ],
    )
    def test_an_address_can_allow(self, address, allowed):
        assert ask(build(OFFICE), NOBODY, SEARCH, address=address).allowed is allowed
        assert build(OFFICE).visible(NOBODY, "notes", "tool", ["search"], address=address) == (
            ["search"] if allowed else []
        )

    @pytest.mark.parametrize("address", ["10.1.0.0/16", "unknown", "", "10.1.2.3, 10.9.9.9"])
    def test_what_is_no_address_denies_everything(self, manifest, address):
        assert ask(manifest, DANA, SEARCH).allowed
        assert ask(manifest, DANA, SEARCH, address=address) == Decision(False, (), "policy_error")

    def test_stage_class_kind_owner_and_certificate_can_be_spoken_of(self):
        policies = build(
            """
            @id("agents") permit (principal, action, resource is Ringfence::Tool) when {
                principal.kind == Ringfence::Kind::"agent" &&
                principal has owner && principal.owner == Ringfence::Principal::"carol" &&
                context.stage == Ringfence::Stage::"staging" &&
                resource.data_class == Ringfence::DataClass::"internal" && context.certificate
            };
            """
        )
        assert ask(policies, replace(BOT, certificate="x"), SEARCH).allowed
        assert not ask(policies, BOT, SEARCH).allowed
        assert not ask(policies, replace(NOBODY, certificate="x"), SEARCH).allowed
        assert not ask(policies, replace(CAROL, certificate="x"), SEARCH).allowed
        assert not ask(policies, replace(BOT, certificate="x"), NOW).allowed


OVERFLOW = """
@id("fails")
forbid (principal, action, resource)
when { 9223372036854775807 + 1 > 0 };
"""


class TestPoliciesThatFail:
    def test_cedar_alone_would_allow_in_spite_of_it(self):
        answer = cedarpy.is_authorized(
            {"principal": 'P::"a"', "action": 'Action::"b"', "resource": 'R::"c"'},
            OVERFLOW + "permit (principal, action, resource);",
            [],
        )
        assert answer.allowed

    def test_a_failure_denies_and_is_named(self):
        policies = build(MANIFEST, OVERFLOW)
        assert ask(policies, DANA, SEARCH) == Decision(False, ("fails",), "policy_error")
        assert ask(policies, CAROL, DELETE) == Decision(False, ("fails",), "policy_error")
        assert policies.visible(DANA, "notes", "tool", ["search"]) == []

    def test_a_failure_with_a_grant_alone_suggests_none(self):
        text = OVERFLOW.replace("9223", "context.granted && 9223")
        assert not ask(build(MANIFEST, text), CAROL, DELETE).allowed
        assert ask(build(MANIFEST, text), CAROL, DELETE).reason == "policy_error"

    def test_it_stays_with_the_calls_that_it_is_about(self):
        text = OVERFLOW.replace("action,", 'action == Ringfence::Action::"prompts/get",')
        policies = build(MANIFEST, text)
        assert ask(policies, DANA, SEARCH).allowed
        assert not ask(policies, DANA, Call("notes", "prompts/get", "review")).allowed


class TestRefusedPolicies:
    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            ("permit (principal, action, resource) when { context.night };", 3, ["night", "@id"]),
            ('@id("x") permit (principal action, resource);', 3, ["unexpected token", "syntax"]),
            ('@id("x") permit (principal, action, resource)', 3, ["unexpected end"]),
            ('@id("x") permit (principal, action, resource) when { "a };', 3, ["invalid token"]),
            ('@id("x")\nallow (principal, action, resource);', 3, ["allow"]),
            ("permit (principal, action, resource);", 3, ['@id("...")']),
            ('@id("") permit (principal, action, resource);', 3, ['@id("...")']),
            (
                '@id("x") permit (principal, action, resource) when { context.stage > 3 };',
                3,
                ["expected Long", "schema.cedarschema"],
            ),
            (
                '@id("x") permit (principal, action, resource) when { context.address == 1 };',
                3,
                ["not compatible"],
            ),
            (
                '@id("x") forbid (principal, action, resource) unless {'
                ' context.address.isInRange(ip("10.0.0.0/8")) };',
                3,
                ["optional attribute `address`"],
            ),
            (
                '@id("x") permit (principal, action == Ringfence::Action::"tools/cal", resource);',
                3,
                ["tools/cal"],
            ),
            (
                '@id("x") forbid (principal, action, resource is Ringfence::Tool) when {'
                ' resource.data_class == Ringfence::DataClass::"secret" };',
                3,
                ["secret"],
            ),
            ('@id("x") permit (principal == ?principal, action, resource);', 3, ["template"]),
            (
                '@id("x") forbid (principal, action, resource == Ringfence::Tool::"notes/dlete");',
                3,
                ['Tool::"notes/dlete" does not exist'],
            ),
            (
                '@id("x") permit (principal, action, resource) when'
                ' { principal in [Ringfence::Role::"reader", Ringfence::Role::"raeder"] };',
                3,
                ['Role::"raeder" does not exist'],
            ),
        ],
    )
    def test_a_bad_policy_is_refused_with_file_line_and_remedy(self, text, line, words):
        before = '@id("before; // not") permit (principal, action, resource);\n// ";\n'
        found = problems(MANIFEST, before + text)
        assert all(each.startswith(f"policies/1.cedar:{line}: ") for each in found)
        for word in words:
            assert any(word in each for each in found), found

    def test_the_text_before_it_is_good(self):
        build(MANIFEST, '@id("before; // not") permit (principal, action, resource);\n// ";\n')

    def test_an_id_is_used_once_across_files(self):
        one = '\n@id("x") permit (principal, action, resource);'
        assert problems(one, one) == [
            "policies/1.cedar:2: @id('x') is also at policies/0.cedar:2: give one another id"
        ]
        assert (
            "sensitive-tools-need-a-grant"
            in problems(
                '@id("sensitive-tools-need-a-grant") permit (principal, action, resource);'
            )[0]
        )

    def test_every_problem_is_told_at_once(self):
        good, bad = "permit (principal, action, resource);", "permit"
        found = problems(good, bad, '@id("x")' + good.replace("action", "action in [Nope::A]"))
        assert [each.split(":")[0] for each in found] == [f"policies/{n}.cedar" for n in range(3)]

    def test_a_schema_that_is_none_is_refused(self):
        with pytest.raises(PolicySourceError, match=r"schema\.cedarschema: .*deploy"):
            Policies("entity", {}, **FACTS)

    def test_facts_that_the_schema_does_not_know_are_refused(self):
        servers = {"time": {"tools": {"now": {"data_class": "secret", "sensitive": False}}}}
        assert problems(servers=servers)[0].startswith("gateway.json: ")

    def test_an_ambiguous_pattern_is_refused(self):
        servers = {"notes": {"resources": {"file:///docs/../*": {"data_class": "public"}}}}
        assert problems(servers=servers)[0].startswith("gateway.json: servers.notes.resources: ")


class TestMemory:
    def test_what_is_remembered_of_one_principal_answers_no_other(self, manifest):
        for _ in range(2):
            assert ask(manifest, DANA, SEARCH).allowed
            assert not ask(manifest, BOT, SEARCH).allowed
            assert not ask(manifest, NOBODY, SEARCH).allowed

    def test_nothing_that_cedar_sees_is_left_out_of_it(self):
        seen = """@id("{0}") permit (principal, action, resource) when {{ {1} }};"""
        allowed: dict[str, tuple[Identity, Call, dict[str, Any]]] = {
            "context.granted": (DANA, SEARCH, {"granted": True}),
            "context.certificate": (replace(DANA, certificate="x"), SEARCH, {}),
            'context.scopes.contains("s")': (replace(DANA, scopes=frozenset("s")), SEARCH, {}),
            "context has address": (DANA, SEARCH, {"address": "10.0.0.1"}),
            'principal == Ringfence::Principal::"carol"': (CAROL, SEARCH, {}),
            'resource == Ringfence::Tool::"time/now"': (DANA, NOW, {}),
            'action == Ringfence::Action::"tools/list"': (DANA, Call("notes", "tools/list"), {}),
        }
        for condition, (identity, call, rest) in allowed.items():
            policies = build(seen.format("x", condition))
            assert not ask(policies, DANA, SEARCH).allowed, condition
            assert ask(policies, identity, call, **rest).allowed, condition
            assert not ask(policies, DANA, SEARCH).allowed, condition

    def test_another_version_remembers_nothing_of_the_one_before(self):
        before, after = build(MANIFEST), build()
        assert ask(before, DANA, SEARCH).allowed
        assert not ask(after, DANA, SEARCH).allowed
        assert ask(before, DANA, SEARCH).allowed

    def test_a_version_is_of_everything_that_decides(self):
        same = build(MANIFEST).version
        assert build(MANIFEST).version == same
        servers = {"time": FACTS["servers"]["time"], "notes": FACTS["servers"]["notes"]}
        principals = FACTS["principals"] | {"eve": {"kind": "person", "roles": ["reader"]}}
        others = [
            build(MANIFEST, NIGHT),
            build(MANIFEST, stage="production"),
            build(MANIFEST, principals=principals),
            build(MANIFEST, servers=servers | {"more": {"tools": {}}}),
        ]
        assert len({same, *(each.version for each in others)}) == len(others) + 1

    def test_it_is_bounded(self, monkeypatch):
        monkeypatch.setattr(decisions, "REMEMBERED", 8)
        policies = build(MANIFEST)
        for number in range(50):
            assert ask(policies, replace(DANA, scopes=frozenset({str(number)})), SEARCH).allowed
        assert policies.remembered().currsize == 8

    def test_long_names_do_not_fill_it(self):
        policies = build(MANIFEST)
        tracemalloc.start()
        try:
            for number in range(50):
                uri = f"file:///docs/{number}" + "a" * 1_000_000
                assert ask(policies, DANA, Call("notes", "resources/read", uri)).reason == (
                    "unknown_resource"
                )
            assert tracemalloc.get_traced_memory()[0] < 5_000_000
        finally:
            tracemalloc.stop()


NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_.", min_size=1, max_size=8)
ODD = NAMES | st.text(min_size=1, max_size=6).filter(lambda name: name.isprintable())
URIS = NAMES.filter(lambda name: name.strip(".")).map(lambda name: f"note:///{name}")


@st.composite
def manifests(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, ManifestRole]]:
    """Draw facts as in gateway.json, and roles that name some of their objects."""
    classes = st.fixed_dictionaries(
        {"data_class": st.sampled_from(["public", "internal", "confidential", "restricted"])}
    )
    tools = st.fixed_dictionaries({"data_class": st.just("public"), "sensitive": st.booleans()})
    servers = draw(
        st.dictionaries(
            st.sampled_from(["a", "b", "a-b"]),
            st.fixed_dictionaries(
                {
                    "tools": st.dictionaries(ODD, tools, max_size=3),
                    "resources": st.dictionaries(URIS, classes, max_size=2),
                    "prompts": st.dictionaries(ODD, classes, max_size=2),
                }
            ),
            min_size=1,
        )
    )

    def some(kind: str) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(chosen)
            for name, server in servers.items()
            if server[kind]
            and (chosen := draw(st.lists(st.sampled_from(sorted(server[kind])), unique=True)))
        }

    names = draw(st.lists(st.sampled_from(["r", "s", "r-s"]), unique=True))
    roles = {
        name: ManifestRole(name, draw(st.text()), some("tools"), some("resources"), some("prompts"))
        for name in names
    }
    held = st.lists(st.sampled_from(names), unique=True) if names else st.just([])
    principals = draw(
        st.dictionaries(
            st.sampled_from(["p", "q"]),
            st.fixed_dictionaries({"kind": st.just("person"), "roles": held}),
            min_size=1,
        )
    )
    return {"servers": servers, "principals": principals, "roles": names, "stage": "staging"}, roles


def reference(
    facts: dict[str, Any], roles: Mapping[str, ManifestRole], who: str, call: Call, granted: bool
) -> bool:
    """Return whether a role names it: the manifest's rule in Python, without Cedar."""
    held = [roles[role] for role in facts["principals"][who]["roles"]]
    kind = {"tools/call": "tools", "resources/read": "resources", "prompts/get": "prompts"}.get(
        call.method
    )
    if kind is None:
        return any(
            call.server in named for r in held for named in (r.tools, r.resources, r.prompts)
        )
    item = facts["servers"][call.server].get(kind, {}).get(call.name)
    named = any(call.name in getattr(role, kind).get(call.server, ()) for role in held)
    return bool(item) and named and (granted or not item.get("sensitive", False))


@settings(max_examples=150)
@given(manifests())
@example(
    (
        {
            "servers": {"a": {"tools": {'"]': {"data_class": "public", "sensitive": False}}}},
            "principals": {"p": {"kind": "person", "roles": ["r"]}},
            "roles": ["r"],
            "stage": "staging",
        },
        {"r": ManifestRole("r", "x\rpermit (principal, action, resource);", {"a": ('"]',)})},
    )
)
def test_cedar_allows_exactly_what_the_manifest_names(case):
    facts, roles = case
    policies = Policies(SCHEMA, {"m.cedar": manifest_policies(environment(roles))}, **facts)
    everything = {
        (method, name)
        for server in facts["servers"].values()
        for method, kind in (
            ("tools/call", "tools"),
            ("resources/read", "resources"),
            ("prompts/get", "prompts"),
        )
        for name in server.get(kind, {})
    } | {("tools/list", None), ("tools/call", "undeclared")}
    for who in facts["principals"]:
        for server in facts["servers"]:
            for method, name in everything:
                for granted in (False, True):
                    call = Call(server, method, name)
                    decision = policies.decide(Identity(who), call, granted=granted)
                    expected = reference(facts, roles, who, call, granted)
                    assert decision.allowed is expected, (who, call, granted, decision)
            tools = sorted(facts["servers"][server]["tools"])
            assert policies.visible(Identity(who), server, "tool", tools) == [
                tool
                for tool in tools
                if reference(facts, roles, who, Call(server, "tools/call", tool), True)
            ]

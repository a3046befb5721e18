"""The policy pack as Pulumi's engine uses it: a separate server, called over gRPC."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from policy_cases import CASES, HOST, RESOURCE_KEY, STACK_CASES, Case, StackCase
from pulumi import Archive
from pulumi.runtime import proto
from pulumi.runtime.proto import analyzer_pb2_grpc
from pulumi.runtime.rpc import UNKNOWN, _special_archive_sig, _special_sig_key

from ringfence.rehearsal.record import Rehearsal
from stacks.policy.rules import RULES, STACK_RULES, DeclaredResource

PACK = Path(__file__).parents[2] / "stacks" / "policy"
PYTHON = PACK / ".venv" / "bin" / "python"
SECONDS = 30


@pytest.fixture(scope="module")
def pack() -> Iterator[analyzer_pb2_grpc.AnalyzerStub]:
    """Start the pack with the command of Pulumi's language host; it never ends by itself."""
    if not PYTHON.exists():
        pytest.fail("the pack's environment is not there; remedy: make policy", pytrace=False)
    command = [PYTHON, "-u", "-m", "pulumi.policy", "127.0.0.1:1", PACK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = process.stdout.readline().strip()
            assert port.isdecimal(), "the pack printed no port"
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=SECONDS)
                yield analyzer_pb2_grpc.AnalyzerStub(channel)
        finally:
            process.kill()


def struct(properties: Mapping[str, Any]) -> Struct:
    made = Struct()
    made.update(checked(properties))
    return made


def checked(found: Any) -> Any:
    """Return the value as the provider's check does: every object lists which of its values are
    defaults."""
    if isinstance(found, Mapping):
        return {"__defaults": [], **{key: checked(each) for key, each in found.items()}}
    if isinstance(found, Archive):
        return {_special_sig_key: _special_archive_sig, "assets": {}}  # no rule reads its content
    return [checked(each) for each in found] if isinstance(found, list) else found


def refused(
    pack: analyzer_pb2_grpc.AnalyzerStub, kind: str, properties: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the messages of violations that stop an update, by rule."""
    answer = ask(pack, kind, properties)
    found: dict[str, list[str]] = {}
    for each in answer.diagnostics:
        if each.enforcementLevel == proto.MANDATORY:
            found.setdefault(each.policyName, []).append(each.message)
    return found


def ask(
    pack: analyzer_pb2_grpc.AnalyzerStub, kind: str, properties: Mapping[str, Any]
) -> proto.AnalyzeResponse:
    urn = f"urn:pulumi:test::test::{kind}::one"
    request = proto.AnalyzeRequest(type=kind, properties=struct(properties), urn=urn, name="one")
    return pack.Analyze(request, timeout=SECONDS)


def test_the_pack_offers_every_rule_as_mandatory(pack: analyzer_pb2_grpc.AnalyzerStub) -> None:
    info = pack.GetAnalyzerInfo(Empty(), timeout=SECONDS)
    assert info.name == "ringfence"
    offered = {policy.name: policy for policy in info.policies}
    assert offered.keys() == {rule.name for rule in (*RULES, *STACK_RULES)}
    assert {policy.enforcementLevel for policy in info.policies} == {proto.MANDATORY}
    for rule in (*RULES, *STACK_RULES):
        assert list(offered[rule.name].tags) == [rule.control]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_resource_is_refused_before_it_is_made(
    pack: analyzer_pb2_grpc.AnalyzerStub, case: Case
) -> None:
    """Properties have the engine's format: numbers as fractions, lists as proxies."""
    (rule,) = [rule for rule in RULES if rule.name == case.rule]
    found = refused(pack, case.type, case.broken)
    assert found.keys() == {case.rule}
    assert all(rule.remedy in message and rule.control in message for message in found[case.rule])
    assert not ask(pack, case.type, case.passing).diagnostics


@pytest.mark.parametrize("case", STACK_CASES, ids=lambda case: case.rule)
def test_a_stack_is_refused(pack: analyzer_pb2_grpc.AnalyzerStub, case: StackCase) -> None:
    found = pack.AnalyzeStack(stack_of(case.broken), timeout=SECONDS).diagnostics
    assert {(each.policyName, each.urn) for each in found} == {(case.rule, case.broken[0].urn)}
    assert {each.enforcementLevel for each in found} == {proto.MANDATORY}
    assert not pack.AnalyzeStack(stack_of(case.passing), timeout=SECONDS).diagnostics


def stack_of(resources: tuple[DeclaredResource, ...]) -> proto.AnalyzeStackRequest:
    return proto.AnalyzeStackRequest(
        resources=[
            proto.AnalyzerResource(
                type=resource.type,
                properties=struct(resource.properties),
                urn=resource.urn,
                name=resource.urn,
                propertyDependencies={
                    name: proto.AnalyzerPropertyDependencies(urns=sorted(urns))
                    for name, urns in resource.references.items()
                },
            )
            for resource in resources
        ]
    )


def test_our_stack_is_let_through(
    pack: analyzer_pb2_grpc.AnalyzerStub, rehearsal: Rehearsal
) -> None:
    found = {
        f"{each.type} {each.name}": messages
        for each in rehearsal.resources
        if (messages := refused(pack, each.type, each.inputs))
    }
    assert len(rehearsal.resources) > 100
    assert found == {}


def test_a_preview_of_our_stack_is_let_through(
    pack: analyzer_pb2_grpc.AnalyzerStub, rehearsal: Rehearsal
) -> None:
    """Ids and ARNs of resources that do not exist yet are unknown, and so are texts that contain
    them."""
    made = {each.id for each in rehearsal.resources} | {
        each.outputs["arn"] for each in rehearsal.resources if "arn" in each.outputs
    }

    def previewed(found: Any) -> Any:
        if isinstance(found, Mapping):
            return {key: previewed(each) for key, each in found.items()}
        if isinstance(found, list):
            return [previewed(each) for each in found]
        return UNKNOWN if isinstance(found, str) and any(each in found for each in made) else found

    diagnostics = [
        (each.type, diagnostic.policyName, diagnostic.enforcementLevel)
        for each in rehearsal.resources
        for diagnostic in ask(pack, each.type, previewed(each.inputs)).diagnostics
    ]
    # Policies with ARNs in them.
    assert {level for _, _, level in diagnostics} == {proto.ADVISORY}
    assert {(kind, rule) for kind, rule, _ in diagnostics} == {
        ("aws:iam/policy:Policy", "no-wildcard-permission"),
        ("aws:iam/rolePolicy:RolePolicy", "no-wildcard-permission"),
        ("aws:sns/topicPolicy:TopicPolicy", "no-resource-for-anybody"),
        ("aws:sqs/queuePolicy:QueuePolicy", "no-resource-for-anybody"),
    }


def test_a_key_of_the_same_stack_is_one_in_a_preview(pack: analyzer_pb2_grpc.AnalyzerStub) -> None:
    """Its ARN is still unknown: the rule must neither refuse the log group nor skip it."""
    disk = {"encrypted": True, "kmsKeyId": UNKNOWN}
    assert not ask(pack, "aws:ec2/instance:Instance", {**HOST, "rootBlockDevice": disk}).diagnostics
    disk = {"encrypted": False, "kmsKeyId": UNKNOWN}
    found = refused(pack, "aws:ec2/instance:Instance", {**HOST, "rootBlockDevice": disk})
    assert found.keys() == {"disks-encrypted-with-own-key"}


def test_what_a_preview_does_not_know_is_said_and_asked_again(
    pack: analyzer_pb2_grpc.AnalyzerStub,
) -> None:
    answer = ask(pack, "aws:kms/key:Key", {**RESOURCE_KEY, "policy": UNKNOWN})
    diagnostics = {each.policyName: each for each in answer.diagnostics}
    assert diagnostics.keys() == {"key-serves-through-services", "no-resource-for-anybody"}
    assert {each.enforcementLevel for each in diagnostics.values()} == {proto.ADVISORY}
    assert ".policy can't be known during preview" in diagnostics["no-resource-for-anybody"].message


def test_a_policy_in_a_secret_is_read(pack: analyzer_pb2_grpc.AnalyzerStub) -> None:
    (case, *_) = [case for case in CASES if case.rule == "no-wildcard-permission"]
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
    hidden = {**case.broken, "policy": {**secret, "value": case.broken["policy"]}}
    assert refused(pack, case.type, hidden).keys() == {case.rule}

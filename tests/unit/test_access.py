"""Evaluation of IAM policies, compared with AWS's documentation."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.verify.account.access import (
    AccessRequest,
    IamDecision,
    IamPolicyError,
    IamPrincipal,
    decide,
    granted,
)

ALLOWED, DENIED, NOT_ALLOWED = IamDecision.ALLOWED, IamDecision.DENIED, IamDecision.NOT_ALLOWED
ALICE = IamPrincipal("AWS", "arn:aws:iam::111122223333:user/alice")
TRAIL = IamPrincipal("Service", "cloudtrail.amazonaws.com")


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def holds(condition: dict[str, Any], **context: Any) -> bool:
    """Evaluate a condition; `_` stands for `:` in names of keys."""
    given = {key.replace("_", ":"): value for key, value in context.items()}
    statement = allow(Condition=condition)
    return granted([policy(statement)], AccessRequest("s3:GetObject", context=given)) is ALLOWED


@pytest.mark.parametrize(
    ("statements", "action", "resource", "decision"),
    [
        ([], "s3:GetObject", "*", NOT_ALLOWED),
        ([allow("s3:Get*")], "s3:GetObject", "*", ALLOWED),
        ([allow("s3:Get*")], "s3:PutObject", "*", NOT_ALLOWED),
        ([allow("S3:getobject")], "s3:GetObject", "*", ALLOWED),
        ([allow("s3:Get?bject")], "s3:GetObject", "*", ALLOWED),
        ([allow(), deny("s3:*")], "s3:GetObject", "*", DENIED),
        ([deny("s3:*"), allow()], "s3:GetObject", "*", DENIED),
        ([allow("s3:*", "arn:aws:s3:::b/*")], "s3:GetObject", "arn:aws:s3:::b/a/c", ALLOWED),
        ([allow("s3:*", "arn:aws:s3:::b/*")], "s3:GetObject", "arn:aws:s3:::B/a", NOT_ALLOWED),
        ([allow("s3:*", ["x", "y"])], "s3:GetObject", "y", ALLOWED),
    ],
)
def test_actions_and_resources(
    statements: list[dict[str, Any]], action: str, resource: str, decision: IamDecision
) -> None:
    assert granted([policy(*statements)], AccessRequest(action, resource)) is decision


def test_a_single_statement_needs_no_list() -> None:
    assert granted([{"Statement": allow()}], AccessRequest("s3:GetObject")) is ALLOWED


def test_what_is_not_named() -> None:
    but_iam = {"Effect": "Deny", "NotAction": ["iam:*"], "Resource": "*"}
    assert granted([policy(allow(), but_iam)], AccessRequest("s3:GetObject")) is DENIED
    assert granted([policy(allow(), but_iam)], AccessRequest("iam:GetUser")) is ALLOWED
    but_own = {"Effect": "Deny", "Action": "iam:*", "NotResource": "arn:aws:iam::1:user/a"}
    assert granted([policy(allow(), but_own)], AccessRequest("iam:GetUser", "other")) is DENIED
    own = AccessRequest("iam:GetUser", "arn:aws:iam::1:user/a")
    assert granted([policy(allow(), but_own)], own) is ALLOWED


def test_variables_are_the_callers_and_never_wild() -> None:
    own = policy(allow("iam:*", "arn:aws:iam::1:user/${aws:username}"))

    def of(user: str | None, resource: str) -> IamDecision:
        context = {"aws:username": user} if user else {}
        return granted(
            [own], AccessRequest("iam:GetUser", f"arn:aws:iam::1:user/{resource}", None, context)
        )

    assert of("alice", "alice") is ALLOWED
    assert of("alice", "bob") is NOT_ALLOWED
    assert of("*", "bob") is NOT_ALLOWED
    assert of(None, "bob") is NOT_ALLOWED
    star = policy(allow("s3:*", "arn:aws:s3:::b/${*}"))
    assert granted([star], AccessRequest("s3:GetObject", "arn:aws:s3:::b/x")) is NOT_ALLOWED
    assert granted([star], AccessRequest("s3:GetObject", "arn:aws:s3:::b/*")) is ALLOWED


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "expected"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a", "A", False),
        ("StringEquals", ["b", "a"], "a", True),
        ("StringEquals", "a*", "ab", False),
        ("StringEqualsIgnoreCase", "a", "A", True),
        ("StringLike", "a*", "ab", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", ["a", "b"], "c", True),
        ("StringNotLike", "a*", "b", True),
        ("ArnLike", "arn:aws:s3:*:*:b/*", "arn:aws:s3:eu:1:b/x", True),
        ("ArnLike", "arn:aws:*:1:b", "arn:aws:s3:eu:1:b", False),
        ("ArnEquals", "arn:aws:s3:::b*", "arn:aws:s3:::bucket", True),
        ("ArnNotLike", "arn:aws:s3:::b", "arn:aws:s3:::c", True),
        ("Bool", "true", "true", True),
        ("Bool", True, "true", True),
        ("Bool", "false", "true", False),
        ("NumericLessThan", "3600", "3599", True),
        ("NumericLessThan", "3600", "3600", False),
        ("NumericLessThan", "1.2", "1.1", True),
        ("NumericGreaterThanEquals", 5, "5", True),
        ("NumericNotEquals", "5", "5", False),
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("NotIpAddress", "10.0.0.0/8", "10.1.2.3", False),
        ("Null", "true", "x", False),
        ("Null", "false", "x", True),
    ],
)
def test_operators(operator: str, wanted: Any, value: str, expected: bool) -> None:
    assert holds({operator: {"k:k": wanted}}, k_k=value) is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("Bool", False),
        ("BoolIfExists", True),
        ("StringEquals", False),
        ("StringEqualsIfExists", True),
        ("StringNotEquals", True),
        ("StringNotEqualsIfExists", True),
        ("NumericLessThan", False),
        ("ForAllValues:StringEquals", True),
        ("ForAnyValue:StringEquals", False),
        ("Null", True),
    ],
)
def test_a_key_that_is_absent(operator: str, expected: bool) -> None:
    assert holds({operator: {"k:k": "true"}}) is expected


def test_names_of_keys_have_no_case() -> None:
    assert holds(
        {"Bool": {"AWS:MultiFactorAuthPresent": "true"}}, aws_multifactorauthpresent="true"
    )


def test_all_keys_and_operators_must_hold() -> None:
    both = {"StringEquals": {"a:a": "1", "b:b": "2"}, "Bool": {"c:c": "true"}}
    assert holds(both, a_a="1", b_b="2", c_c="true")
    assert not holds(both, a_a="1", b_b="3", c_c="true")
    assert not holds(both, a_a="1", b_b="2", c_c="false")


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "c"], False),
        ("ForAnyValue:StringEquals", ["c", "b"], True),
        ("ForAnyValue:StringEquals", ["c"], False),
    ],
)
def test_keys_with_several_values(operator: str, values: list[str], expected: bool) -> None:
    assert holds({operator: {"k:k": ["a", "b"]}}, k_k=values) is expected


@pytest.mark.parametrize(
    ("operator", "issued", "expected"),
    [
        ("DateLessThan", "2026-03-01T11:59:59Z", True),
        ("DateLessThan", "2026-03-01T12:00:00Z", False),
        ("DateLessThan", "2026-03-01T12:59:59+01:00", True),
        ("DateGreaterThan", "2026-03-01T12:00:01", True),
        ("DateGreaterThan", "2026-03-01", False),
    ],
)
def test_dates(operator: str, issued: str, expected: bool) -> None:
    condition = {operator: {"aws:TokenIssueTime": "2026-03-01T12:00:00Z"}}
    assert holds(condition, aws_TokenIssueTime=issued) is expected


@pytest.mark.parametrize(
    "condition",
    [
        {"BinaryEquals": {"aws:CurrentTime": "x"}},
        {"DateLessThan": {"aws:CurrentTime": "2026-01-01"}},
        {"ForSome:StringEquals": {"a": "b"}},
    ],
)
def test_what_is_not_known_is_an_error(condition: dict[str, Any]) -> None:
    with pytest.raises(IamPolicyError, match="is not known"):
        holds(condition, aws_CurrentTime="x")


def test_an_unknown_variable_form_is_an_error() -> None:
    with pytest.raises(IamPolicyError, match="default of policy variable"):
        granted([policy(allow("*", "${aws:username, 'x'}"))], AccessRequest("s3:GetObject"))


@pytest.mark.parametrize(
    ("principal", "who", "expected"),
    [
        ("*", ALICE, True),
        ("*", TRAIL, True),
        ({"AWS": "*"}, ALICE, True),
        ({"AWS": ALICE.name}, ALICE, True),
        ({"AWS": ["x", "111122223333"]}, ALICE, True),
        ({"AWS": "arn:aws:iam::111122223333:root"}, ALICE, True),
        ({"AWS": "arn:aws:iam::999999999999:root"}, ALICE, False),
        ({"Service": "cloudtrail.amazonaws.com"}, TRAIL, True),
        ({"Service": "config.amazonaws.com"}, TRAIL, False),
        ({"Service": "cloudtrail.amazonaws.com"}, ALICE, False),
        ({"AWS": ALICE.name}, None, False),
    ],
)
def test_principals(principal: Any, who: IamPrincipal | None, expected: bool) -> None:
    request = AccessRequest("s3:GetObject", principal=who)
    assert (granted([policy(allow(Principal=principal))], request) is ALLOWED) is expected


def test_all_but_a_principal() -> None:
    but_alice = {**deny(), "NotPrincipal": {"AWS": ALICE.name}}
    assert (
        granted([policy(but_alice)], AccessRequest("s3:GetObject", principal=ALICE)) is NOT_ALLOWED
    )
    assert granted([policy(but_alice)], AccessRequest("s3:GetObject", principal=TRAIL)) is DENIED


def test_what_aws_says_of_principals_can_be_asked() -> None:
    only_service = {"StringNotEquals": {"aws:PrincipalServiceName": TRAIL.name}}
    refuse = policy(deny(Principal="*", Condition=only_service))
    assert granted([refuse], AccessRequest("s3:PutObject", principal=ALICE)) is DENIED
    assert granted([refuse], AccessRequest("s3:PutObject", principal=TRAIL)) is NOT_ALLOWED


def test_a_boundary_limits_and_does_not_allow() -> None:
    request = AccessRequest("iam:CreateUser", principal=ALICE)
    everything, reading = policy(allow()), policy(allow("s3:*"))
    assert decide(request, [everything]) is ALLOWED
    assert decide(request, [everything], boundary=[reading]) is NOT_ALLOWED
    assert decide(request, [], boundary=[everything]) is NOT_ALLOWED
    assert decide(request, [everything], boundary=[policy(allow(), deny("iam:*"))]) is DENIED


def test_policies_of_resources() -> None:
    request = AccessRequest("s3:GetObject", "arn:aws:s3:::b/k", ALICE)
    root = policy(allow(Principal={"AWS": "arn:aws:iam::111122223333:root"}))
    herself = policy(allow(Principal={"AWS": ALICE.name}))
    nobody = policy(deny(Principal="*"))
    assert decide(request, [], resource=root) is NOT_ALLOWED  # her own policies decide
    assert decide(request, [policy(allow())], resource=root) is ALLOWED
    assert decide(request, [], resource=herself) is ALLOWED
    assert decide(request, [policy(allow())], resource=nobody) is DENIED
    assert decide(request, [policy(deny())], resource=herself) is DENIED


def test_a_trust_policy_has_no_resource() -> None:
    trust = policy({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"})
    assert granted([trust], AccessRequest("sts:AssumeRole", principal=ALICE)) is ALLOWED


@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("arn:aws:logs:eu:1:log-group:a:*", "arn:aws:logs:eu:1:log-group:a:b:c", True),
        ("arn:aws:logs:eu:1:log-group:a", "arn:aws:logs:eu:1:log-group:a:b", False),
        ("arn:aws:logs:eu:1:log-group:*", "arn:aws:logs:eu:1", False),
        ("arn:aws:logs:eu:1", "arn:aws:logs:eu:1", False),
        ("arn:aws:iam::1:user/${aws:username}", "arn:aws:iam::1:user/alice", True),
        ("arn:aws:iam::1:user/${aws:username}", "arn:aws:iam::1:user/bob", False),
        ("arn:aws:iam::1:user/${aws:userid}", "arn:aws:iam::1:user/", False),
    ],
)
def test_arns_are_compared_part_by_part(pattern: str, arn: str, expected: bool) -> None:
    condition = {"ArnLike": {"aws:SourceArn": pattern}}
    assert holds(condition, aws_SourceArn=arn, aws_username="alice") is expected


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("StringEquals", "team-alice-x", True),
        ("StringEquals", "team-bob-x", False),
        ("StringNotEquals", "team-alice-x", False),
        ("StringEqualsIgnoreCase", "TEAM-ALICE-X", True),
        ("StringLike", "team-alice-x", True),
        ("StringLike", "alice-x", False),
    ],
)
def test_conditions_have_variables(operator: str, value: str, expected: bool) -> None:
    wanted = "team-${aws:username}-${aws:PrincipalTag/unit}"
    context = {"aws_username": "alice", "aws_PrincipalTag/unit": "x"}
    assert holds({operator: {"k:k": wanted}}, k_k=value, **context) is expected


def test_a_condition_with_an_absent_variable_matches_nothing() -> None:
    wanted = {"k:k": "team-${aws:username}"}
    assert not holds({"StringEquals": wanted}, k_k="team-")
    assert not holds({"StringEqualsIgnoreCase": wanted}, k_k="team-None")


def test_without_a_quantifier_one_of_several_values_is_enough() -> None:
    assert holds({"StringEquals": {"k:k": "a"}}, k_k=["c", "a"])
    assert not holds({"StringNotEquals": {"k:k": "a"}}, k_k=["c", "a"])


def test_a_wildcard_covers_line_breaks() -> None:
    assert holds({"StringLike": {"k:k": "a*c"}}, k_k="a\nc")


def test_unquoted_numbers_and_truth_values() -> None:
    assert not holds({"Bool": {"k:k": False}}, k_k="true")
    assert holds({"StringEquals": {"k:k": True}}, k_k="true")


def test_a_policy_without_statements_allows_nothing() -> None:
    assert granted([{"Version": "2012-10-17"}], AccessRequest("s3:GetObject")) is NOT_ALLOWED


def test_a_resource_that_admits_everybody_allows_by_itself() -> None:
    request = AccessRequest("s3:GetObject", "arn:aws:s3:::b/k", ALICE)
    for principal in ("*", {"AWS": "*"}, {"AWS": ["x", ALICE.name]}):
        assert decide(request, [], resource=policy(allow(Principal=principal))) is ALLOWED
    other = policy(
        allow(Principal={"AWS": "arn:aws:iam::111122223333:root"}),
        allow("s3:Put*", Principal="*"),
    )
    assert decide(request, [], resource=other) is NOT_ALLOWED


def test_a_resource_admits_a_service_without_policies_of_its_own() -> None:
    request = AccessRequest("s3:PutObject", "arn:aws:s3:::b/k", TRAIL)
    own = policy(allow("s3:PutObject", Principal={"Service": TRAIL.name}))
    assert decide(request, [], resource=own) is ALLOWED
    assert decide(request, [], resource=policy(allow(Principal={"AWS": ALICE.name}))) is NOT_ALLOWED
    anonymous = AccessRequest("s3:PutObject", "arn:aws:s3:::b/k")
    assert decide(anonymous, [], resource=policy(allow(Principal="*"))) is ALLOWED

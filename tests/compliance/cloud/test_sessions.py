"""IAM-03, NET-03, MON-01: people reach hosts through Session Manager, known, briefly, on record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from ringfence.cloud.services import retention_days
from ringfence.cloud.sessions import (
    IDLE_MINUTES,
    LONGEST_MINUTES,
    PREFERENCES,
    RUN_AS,
    SESSION_CLASS,
    SSH,
)
from ringfence.cloud.tags import ENVIRONMENT
from ringfence.manifest.model import Environment
from ringfence.verify.account import tagged_resources
from ringfence.verify.account.access import (
    AccessRequest,
    Document,
    IamDecision,
    IamPrincipal,
    decide,
    granted,
)
from ringfence.verify.account.cloud import Cloud
from ringfence.verify.account.tagged_resources import UP

START = "ssm:StartSession"
MFA = {"aws:MultiFactorAuthPresent": "true", "aws:MultiFactorAuthAge": "60"}
WITHOUT_MFA: tuple[Mapping[str, str], ...] = (
    {},
    {"aws:MultiFactorAuthPresent": "false"},
    {"aws:MultiFactorAuthPresent": "true", "aws:MultiFactorAuthAge": "86400"},
)
"""With an access key, with a password, with a code of yesterday."""

# What AWS offers beside the two documents of an environment, and other ways onto a host.
OTHER_DOCUMENTS = (
    *("AWS-StartPortForwardingSession", "AWS-StartPortForwardingSessionToRemoteHost"),
    *("AWS-StartInteractiveCommand", "AWS-StartNonInteractiveCommand"),
)
OTHER_WAYS = (
    *("ssm:SendCommand", "ssm:StartAutomationExecution", "ssm:UpdateDocument"),
    *("ec2-instance-connect:SendSSHPublicKey", "ec2-instance-connect:OpenTunnel"),
    *("ec2:ModifyInstanceAttribute", "iam:PassRole", "secretsmanager:GetSecretValue"),
)


@pytest.mark.control("IAM-03")
def test_operators_are_administrators_with_mfa(cloud: Cloud, environment: Environment):
    """The role ends after an hour, and is of no use to anybody who is not in the manifest."""
    name = min(environment.administrators)
    assert _assumes(cloud, name, MFA), f"{name} may not become an operator; {UP}"
    without = [context for context in WITHOUT_MFA if _assumes(cloud, name, context)]
    assert not without, f"{name} becomes an operator without a fresh second factor; {UP}"
    assert not _assumes(cloud, "mallory", MFA), f"anybody becomes an operator; {UP}"


@pytest.mark.control("IAM-03")
def test_operators_are_themselves_on_hosts(cloud: Cloud, environment: Environment):
    """On a host where everybody is ssm-user, who is root, nobody has done anything."""
    names = sorted(environment.administrators)
    for run_as in (None, "root", "ssm-user", *names[1:]):
        assert not _assumes(cloud, names[0], MFA, run_as), (
            f"{names[0]} becomes an operator as {run_as or 'nobody in particular'}; {UP}"
        )
    for document, inputs in _documents(cloud):
        personal = inputs.get("runAsEnabled") and not inputs.get("runAsDefaultUser")
        assert personal, f"sessions by {document} are not in the person's own account; {UP}"


@pytest.mark.control("IAM-03")
def test_sessions_end_by_themselves(cloud: Cloud):
    """A terminal that was left open is a standing key."""
    for document, inputs in _documents(cloud):
        idle, longest = (
            int(inputs.get(key) or 0) for key in ("idleSessionTimeout", "maxSessionDuration")
        )
        assert 0 < idle <= IDLE_MINUTES, f"{document}: sessions idle for {idle or 20} minutes; {UP}"
        assert 0 < longest <= LONGEST_MINUTES, f"{document}: sessions have no end; {UP}"


@pytest.mark.control("IAM-03")
def test_operators_reach_hosts_of_this_environment_only(cloud: Cloud, environment: Environment):
    """Who keeps one environment running has no business in the next."""
    assert _starts(cloud, environment.name), f"operators reach no host; {UP}"
    for other in (f"{environment.name}-2", None):
        assert not _starts(cloud, other), f"operators reach hosts of {other or 'nobody'}; {UP}"
    assert not _starts(cloud, environment.name, mfa=False), f"operators need no MFA; {UP}"


@pytest.mark.control("IAM-03")
def test_operators_end_their_own_sessions_only(cloud: Cloud):
    """An attacker who can end the responders' sessions has won."""
    role = tagged_resources.role(cloud, "operators")

    def ends(owner: str) -> bool:
        resource = f"arn:aws:ssm:{cloud.place.region}:{cloud.account}:session/{owner}-0123"
        context = {
            **MFA,
            "aws:userid": "AROAEXAMPLE:alice",
            "ssm:resourceTag/aws:ssmmessages:session-id": f"AROAEXAMPLE:{owner}",
        }
        request = AccessRequest("ssm:TerminateSession", resource, role.principal, context)
        return decide(request, role.policies) is IamDecision.ALLOWED

    assert ends("alice"), f"operators cannot end their own sessions; {UP}"
    assert not ends("bob"), f"operators end the sessions of others; {UP}"


@pytest.mark.control("NET-03")
def test_operators_have_recorded_ways_only(cloud: Cloud):
    """A forwarded port or a command is a way in that no transcript shows."""
    own = tagged_resources.session_document(cloud)
    for document in (own, SSH):
        assert _opens(cloud, document), f"operators cannot use {document}; {UP}"
    found = [each for each in (*OTHER_DOCUMENTS, PREFERENCES) if _opens(cloud, each)]
    # Where no document is named, and its permission is not checked, it is the account's.
    if _starts(cloud, cloud.environment.name, checked=False):
        found.append("no document")
    role = tagged_resources.role(cloud, "operators")
    found += [
        action
        for action in OTHER_WAYS
        if decide(AccessRequest(action, "arn:aws:x:y:z:w", role.principal, MFA), role.policies)
        is IamDecision.ALLOWED
    ]
    assert not found, f"operators may also use {', '.join(found)}; {UP}"


@pytest.mark.control("NET-03")
def test_sessions_are_encrypted_end_to_end(cloud: Cloud):
    """TLS ends in AWS's service; what is typed on a host is for the two ends."""
    for document, inputs in _documents(cloud):
        key = inputs.get("kmsKeyId") or None
        assert tagged_resources.is_own_key(cloud, key), f"{document}: no key of ours; {UP}"


@pytest.mark.control("NET-03")
def test_the_key_of_sessions_opens_sessions_only(cloud: Cloud):
    """Both ends call KMS themselves: without a context it would open whatever it encrypted."""
    admin = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:role/admin")
    for document, inputs in _documents(cloud):
        key = inputs.get("kmsKeyId")
        assert tagged_resources.is_own_key(cloud, key), f"{document}: no key of ours; {UP}"
        kms = cloud.client("kms")
        policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])

        def may(session: Mapping[str, str], policy: Document = policy, key: str = str(key)) -> bool:
            context = {"kms:CallerAccount": cloud.account, **session}
            request = AccessRequest("kms:Decrypt", key, admin, context)
            # Of a key, the identity's permissions alone are never enough.
            return granted([policy], request) is IamDecision.ALLOWED

        session = {
            "kms:EncryptionContext:aws:ssm:SessionId": "alice-0123",
            "kms:EncryptionContext:aws:ssm:TargetId": "i-0123456789abcdef0",
        }
        assert may(session), f"{document}: sessions cannot use their key; {UP}"
        assert not may({}), f"{document}: its key opens anything for an administrator; {UP}"
        rotates = kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
        assert rotates, f"{document}: its key does not rotate; {UP}"


@pytest.mark.control("MON-01")
def test_sessions_are_recorded(cloud: Cloud):
    """As they go on: a transcript that is written at the end can be prevented until then."""
    for document, inputs in _documents(cloud):
        group = inputs.get("cloudWatchLogGroupName") or ""
        recorded = group and inputs.get("cloudWatchStreamingEnabled")
        assert recorded, f"{document} records no session while it goes on; {UP}"
        assert tagged_resources.log_group(cloud, group), f"{document}: no log group {group}; {UP}"


@pytest.mark.control("MON-01")
def test_records_of_sessions_are_kept_encrypted(cloud: Cloud, environment: Environment):
    """A terminal shows whatever is on a host; and who did it is asked years later."""
    wanted = environment.retention[SESSION_CLASS]
    for document, inputs in _documents(cloud):
        assert inputs.get("cloudWatchEncryptionEnabled"), f"{document} records in the clear; {UP}"
        group = tagged_resources.log_group(cloud, inputs.get("cloudWatchLogGroupName") or "")
        key = group.get("kmsKeyId")
        assert tagged_resources.is_own_key(cloud, key), (
            f"{document}: its log has no key of ours; {UP}"
        )
        # Without a number of days, records never expire.
        days = group.get("retentionInDays", wanted)
        assert days >= wanted, f"{document}: sessions are kept {days} days; {UP}"
    own = tagged_resources.session_document(cloud)
    inputs = dict(_documents(cloud))[own]
    key = tagged_resources.log_group(cloud, inputs["cloudWatchLogGroupName"]).get("kmsKeyId")
    right = tagged_resources.is_key_of_class(cloud, key, SESSION_CLASS)
    assert right, f"{own}: its log is not under the key of {SESSION_CLASS} data; {UP}"
    assert retention_days(environment, SESSION_CLASS) >= wanted, "CloudWatch keeps nothing so long"


def _documents(cloud: Cloud) -> Iterator[tuple[str, Document]]:
    """Return the environment's documents and the account's default, with their inputs."""
    ssm = cloud.client("ssm")
    for name in (tagged_resources.session_document(cloud), PREFERENCES):
        try:
            content = ssm.get_document(Name=name)["Content"]
        except ssm.exceptions.InvalidDocument:
            content = "{}"
        yield name, json.loads(content).get("inputs", {})


def _assumes(
    cloud: Cloud, name: str, context: Mapping[str, str], run_as: str | None = "themselves"
) -> bool:
    role = tagged_resources.role(cloud, "operators")
    person = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/{name}")
    account = name if run_as == "themselves" else run_as
    tagged = {f"aws:RequestTag/{RUN_AS}": account} if account else {}
    given = {**context, **tagged, "aws:username": name}
    request = AccessRequest("sts:AssumeRole", role.arn, person, given)
    return granted([role.trust or {}], request) is IamDecision.ALLOWED


def _starts(
    cloud: Cloud, environment: str | None, *, mfa: bool = True, checked: bool = True
) -> bool:
    """A session on a host; whether by a document they may use is another question."""
    role = tagged_resources.role(cloud, "operators")
    host = f"arn:aws:ec2:{cloud.place.region}:{cloud.account}:instance/i-0123456789abcdef0"
    context = {
        **(MFA if mfa else {}),
        "ssm:SessionDocumentAccessCheck": str(checked).lower(),
        **({f"ssm:resourceTag/{ENVIRONMENT}": environment} if environment else {}),
    }
    return (
        decide(AccessRequest(START, host, role.principal, context), role.policies)
        is IamDecision.ALLOWED
    )


def _opens(cloud: Cloud, document: str) -> bool:
    role = tagged_resources.role(cloud, "operators")
    owner = "" if document.startswith("AWS-") else cloud.account
    arn = f"arn:aws:ssm:{cloud.place.region}:{owner}:document/{document}"
    context = {**MFA, "ssm:SessionDocumentAccessCheck": "true"}
    return (
        decide(AccessRequest(START, arn, role.principal, context), role.policies)
        is IamDecision.ALLOWED
    )

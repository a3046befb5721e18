"""IAM, DAT-02, MON: what all environments of the AWS account rely on (stacks/account)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import pytest

from ringfence.cloud import evidence, sign_in
from ringfence.cloud.alarms import ALARMS, METRICS, Alarm
from ringfence.cloud.detection import GUARDDUTY_FEATURES, standards
from ringfence.cloud.evidence import EVIDENCE_CLASS
from ringfence.cloud.managed_rules import managed_rules
from ringfence.cloud.passwords import password_policy
from ringfence.cloud.tags import SCOPE
from ringfence.manifest.model import Environment
from ringfence.report import not_applicable
from ringfence.verify.account.access import (
    AccessRequest,
    Document,
    IamDecision,
    IamPrincipal,
    decide,
    granted,
    statements,
)
from ringfence.verify.account.cloud import Cloud
from ringfence.verify.account.identities import IamIdentity, Identities

UP = "run pulumi up in stacks/account"
NOBODY = "999999999999"
"""An account that is none of ours."""
EVERYTHING: Document = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
WITHOUT_MFA = ({}, {"aws:MultiFactorAuthPresent": "false"})
"""With an access key nothing is said about a second factor; with a password it is denied."""
WITH_MFA = {"aws:MultiFactorAuthPresent": "true", "aws:MultiFactorAuthAge": "60"}

# What is worth stealing a password for, one of each kind: reading, running, staying, hiding.
DAMAGE = (
    *("s3:GetObject", "secretsmanager:GetSecretValue", "kms:Decrypt", "ec2:RunInstances"),
    *("iam:CreateUser", "iam:CreateAccessKey", "iam:AttachUserPolicy", "sts:AssumeRole"),
    *("iam:DeactivateMFADevice", "iam:DeleteVirtualMFADevice", "cloudtrail:StopLogging"),
    "organizations:LeaveOrganization",
)
# Configuration is what an auditor reads; data and changes are not.
AUDITED = ("cloudtrail:GetTrailStatus", "iam:GetAccountSummary", "ec2:DescribeSecurityGroups")
NOT_AUDITED = (
    *("s3:GetObject", "secretsmanager:GetSecretValue", "kms:Decrypt", "dynamodb:GetItem"),
    *("ssm:GetParameter", "logs:GetLogEvents", "iam:CreateUser", "ec2:RunInstances"),
    *("cloudtrail:StopLogging", "iam:PassRole"),
)
SAME_ACCOUNT_SERVICES = ("ec2.amazonaws.com", "lambda.amazonaws.com")
"""They assume a role only for what its own account started with it, and name no source."""


@pytest.mark.control("IAM-05")
def test_people_can_do_nothing_without_mfa(cloud: Cloud):
    """Not even an administrator: a password or a key file alone is worth nothing."""
    for group in _people(cloud):
        found = _possible_without_mfa(cloud, (*group.policies, EVERYTHING))
        assert not found, f"members of {group.name} may {', '.join(found)} without MFA; {UP}"


@pytest.mark.control("IAM-05")
def test_people_can_enrol_a_second_factor(cloud: Cloud):
    """A policy that shuts people out before they have a device would be taken off them."""
    for group in _people(cloud):
        for context in WITHOUT_MFA:
            missing = [
                action
                for action in (*sign_in.OWN_DEVICE, *sign_in.OWN_USER, *sign_in.ACCOUNT_WIDE)
                if _as_user(cloud, action, group.policies, context) is not IamDecision.ALLOWED
            ]
            assert not missing, f"members of {group.name} may not {', '.join(missing)}; {UP}"


@pytest.mark.control("IAM-05")
def test_people_enrol_devices_for_themselves_only(cloud: Cloud):
    """An administrator's stolen key could otherwise enrol a device for anybody, and be them."""
    for group in _people(cloud):
        found = [
            action
            for action in (*sign_in.OWN_DEVICE, *sign_in.OWN_USER)
            if _as_user(cloud, action, (*group.policies, EVERYTHING), {}, owner="bob")
            is not IamDecision.DENIED
        ]
        assert not found, f"members of {group.name} may {', '.join(found)} for others; {UP}"


@pytest.mark.control("IAM-05")
def test_every_user_is_held_to_mfa(cloud: Cloud):
    """A policy protects only those who have it."""
    found = [
        user.name
        for user in _identities(cloud).users
        if _possible_without_mfa(cloud, (*user.policies, EVERYTHING))
    ]
    groups = ", ".join(group.name for group in _people(cloud, required=False)) or "the people's"
    assert not found, f"{', '.join(found)} may act without MFA; add them to the group {groups}"


@pytest.mark.control("IAM-05")
def test_roles_that_people_assume_demand_mfa(cloud: Cloud):
    """A role is another way in: what a user cannot do alone it could do there."""
    person = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice")
    found = [
        role.name
        for role in _identities(cloud).roles
        for context in WITHOUT_MFA
        if granted([role.trust or {}], AccessRequest("sts:AssumeRole", role.arn, person, context))
        is IamDecision.ALLOWED
    ]
    assert not found, f"without MFA one may assume {', '.join(sorted(set(found)))}; demand it there"


@pytest.mark.control("IAM-05")
def test_root_is_locked_away(cloud: Cloud):
    """No policy binds the root user: it has a second factor, and no keys that could leak."""
    _not_emulated(cloud, "a root user")
    summary = cloud.client("iam").get_account_summary()["SummaryMap"]
    assert summary["AccountMFAEnabled"], "the root user has no MFA; enrol a device for it"
    assert not summary["AccountAccessKeysPresent"], "the root user has access keys; delete them"


@pytest.mark.control("IAM-06")
def test_passwords_are_as_strong_as_on_hosts(cloud: Cloud):
    """The weakest of several policies is the one that counts."""
    wanted, found = password_policy(), _password_policy(cloud)
    assert found, f"the account has no password policy; {UP}"
    wrong = [
        f"{name} is {found.get(name, 'unset')}"
        for name, ok in (
            ("MinimumPasswordLength", found["MinimumPasswordLength"] >= wanted.min_length),
            ("PasswordReusePrevention", found.get("PasswordReusePrevention", 0) >= wanted.history),
            ("MaxPasswordAge", 0 < found.get("MaxPasswordAge", 0) <= wanted.max_days),
            *(
                (name, found[name])
                for name in (
                    *("RequireLowercaseCharacters", "RequireUppercaseCharacters"),
                    *("RequireNumbers", "RequireSymbols", "AllowUsersToChangePassword"),
                )
            ),
        )
        if not ok
    ]
    assert not wrong, f"{', '.join(wrong)} in the account's password policy; {UP}"


@pytest.mark.control("IAM-07")
def test_no_policy_of_ours_allows_everything(cloud: Cloud):
    """Such a policy is root under another name."""
    request = AccessRequest("ringfence:Anything", "arn:aws:ringfence:::anything")
    found = [
        where
        for where, policy in _identities(cloud).written_here
        if granted([policy], request) is IamDecision.ALLOWED
    ]
    assert not found, f"{', '.join(found)} allows everything; name what is needed"


@pytest.mark.control("IAM-07")
def test_services_act_for_this_account_only(cloud: Cloud):
    """A service works for all accounts: without a source, a trust lets others use our role."""
    found = [
        f"{service} ({role.name})"
        for role in _identities(cloud).roles
        if not role.path.startswith("/aws-service-role/")
        for service in _trusted_services(role)
        if service not in SAME_ACCOUNT_SERVICES
        and granted([role.trust or {}], _assumed_for(NOBODY, service)) is IamDecision.ALLOWED
    ]
    assert not found, f"{', '.join(found)} may act for any account; add aws:SourceAccount"


@pytest.mark.control("IAM-07")
def test_audit_role_reads_configuration_and_no_data(cloud: Cloud):
    """Auditors come from outside and stay logged in; what they cannot read they cannot lose."""
    roles = [role for role in _identities(cloud).roles if ("Name", "account-audit") in role.tags]
    assert roles, f"the account has no role for audits; {UP}"
    for role in roles:

        def possible(action: str, role: IamIdentity = role) -> bool:
            request = AccessRequest(action, principal=role.principal, context=WITH_MFA)
            return decide(request, role.policies) is IamDecision.ALLOWED

        missing = [action for action in AUDITED if not possible(action)]
        assert not missing, f"{role.name} may not {', '.join(missing)}; {UP}"
        found = [action for action in NOT_AUDITED if possible(action)]
        assert not found, f"{role.name} may {', '.join(found)}; {UP}"


@pytest.mark.control("IAM-07")
def test_no_bucket_can_be_made_public(cloud: Cloud):
    """One wrong policy, on any bucket, publishes it; the account forbids that to all of them."""
    found = _account_public_access(cloud)
    open_ = [name for name, blocked in found.items() if not blocked]
    assert found, f"the account does not block public access to S3; {UP}"
    assert not open_, f"{', '.join(open_)} is off for the account; {UP}"


@pytest.mark.control("IAM-07")
def test_no_snapshot_or_image_can_be_made_public(cloud: Cloud):
    """A shared snapshot is a whole disk, and crawlers find it within the hour."""
    _not_emulated(cloud, "GetSnapshotBlockPublicAccessState")
    ec2 = cloud.client("ec2")
    snapshots = ec2.get_snapshot_block_public_access_state()["State"]
    images = ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"]
    assert snapshots == "block-all-sharing", f"sharing of snapshots is {snapshots}; {UP}"
    assert images == "block-new-sharing", f"sharing of images is {images}; {UP}"


@pytest.mark.control("IAM-07")
def test_instance_credentials_need_a_session(cloud: Cloud):
    """With IMDSv1 one forged request of a server hands out the credentials of its host."""
    _not_emulated(cloud, "GetInstanceMetadataDefaults")
    found = cloud.client("ec2").get_instance_metadata_defaults()["AccountLevel"]
    tokens, hops = found.get("HttpTokens"), found.get("HttpPutResponseHopLimit")
    assert tokens == "required", f"IMDSv2 is {tokens or 'not required'} by default; {UP}"
    assert hops == 1, f"credentials travel {hops} hops by default; {UP}"


@pytest.mark.control("IAM-04")
def test_access_is_analysed(cloud: Cloud):
    """Who outside has access, and which permission nobody uses: AWS knows, if it is asked."""
    _not_emulated(cloud, "IAM Access Analyzer")
    found = cloud.all("accessanalyzer", "list_analyzers", "analyzers")
    active = {each["type"] for each in found if each["status"] == "ACTIVE"}
    for kind in ("ACCOUNT", "ACCOUNT_UNUSED_ACCESS"):
        assert {kind, kind.replace("ACCOUNT", "ORGANIZATION")} & active, f"no analyser {kind}; {UP}"


@pytest.mark.control("NET-01")
def test_default_network_leads_nowhere(cloud: Cloud):
    """A host that is started without naming a network gets this one."""
    mine = [{"Name": "is-default", "Values": ["true"]}]
    ids = [vpc["VpcId"] for vpc in cloud.all("ec2", "describe_vpcs", "Vpcs", Filters=mine)]
    within = [{"Name": "vpc-id", "Values": ids or ["vpc-none"]}]
    routes = [
        f"{table['RouteTableId']} to {route.get('DestinationCidrBlock', 'IPv6')}"
        for table in cloud.all("ec2", "describe_route_tables", "RouteTables", Filters=within)
        for route in table["Routes"]
        if route.get("GatewayId") != "local"
    ]
    assert not routes, f"the default VPC has a route out: {', '.join(routes)}; {UP}"
    rules = [
        group["GroupId"]
        for group in cloud.all("ec2", "describe_security_groups", "SecurityGroups", Filters=within)
        if group["GroupName"] == "default"
        and (group["IpPermissions"] or group["IpPermissionsEgress"])
    ]
    assert not rules, f"the default VPC's group {', '.join(rules)} has rules; {UP}"


@pytest.mark.control("NET-03")
def test_no_network_can_be_opened_to_the_internet(cloud: Cloud):
    """A gateway and a route added by mistake are then still without effect."""
    _not_emulated(cloud, "DescribeVpcBlockPublicAccessOptions")
    found = cloud.client("ec2").describe_vpc_block_public_access_options()
    mode = found["VpcBlockPublicAccessOptions"]["InternetGatewayBlockMode"]
    assert mode == "block-bidirectional", f"VPC block public access is {mode}; {UP}"


@pytest.mark.control("DAT-02")
def test_disks_are_encrypted_by_default(cloud: Cloud):
    """A disk that somebody makes by hand, in a hurry, is encrypted as well."""
    found = cloud.client("ec2").get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
    assert found, f"new disks are not encrypted by default; {UP}"


@pytest.mark.control("DAT-02")
def test_disks_are_encrypted_with_a_key_of_ours(cloud: Cloud):
    """AWS's own key has a policy that nobody can narrow, and no snapshot leaves it."""
    _not_emulated(cloud, "GetEbsDefaultKmsKeyId")
    key = cloud.client("ec2").get_ebs_default_kms_key_id()["KmsKeyId"]
    assert _is_ours(cloud, key), f"the default key of disks is {key}; {UP}"


@pytest.mark.control("DAT-02")
def test_evidence_is_encrypted_with_a_key_of_ours(cloud: Cloud):
    """Permission to read the bucket is not enough to read the record without its key."""
    for trail in _trails(cloud):
        key = trail.get("KmsKeyId")
        assert _is_ours(cloud, key), f"the trail {trail['Name']} is not under a key of ours; {UP}"
    for bucket in _evidence_buckets(cloud):
        key = _bucket_key(cloud, bucket)
        assert _is_ours(cloud, key), f"the bucket {bucket} is not under a key of ours; {UP}"


@pytest.mark.control("DAT-02")
def test_keys_of_the_account_rotate(cloud: Cloud):
    """A key that never changes opens, once lost, everything there ever was."""
    keys = _account_keys(cloud)
    assert keys, f"the account has no keys of its own; {UP}"
    kms = cloud.client("kms")
    for key in keys:
        state = kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
        assert state == "Enabled", f"{key} is {state}; enable it, or cancel its deletion"
        rotates = kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
        assert rotates, f"{key} does not rotate; {UP}"


@pytest.mark.control("DAT-02")
def test_keys_of_the_account_serve_through_services_only(cloud: Cloud):
    """Through its service, opening a disk or a record leaves a trace of what was opened."""
    administrator = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice")
    stranger = IamPrincipal("AWS", f"arn:aws:iam::{NOBODY}:user/mallory")
    for key in _account_keys(cloud):
        policy = json.loads(
            cloud.client("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"]
        )
        for principal in (administrator, stranger):
            context = {"kms:CallerAccount": principal.account}
            found = [
                action
                for action in ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey")
                if granted([policy], AccessRequest(action, key, principal, context))
                is IamDecision.ALLOWED
            ]
            assert not found, f"{principal.name} may {', '.join(found)} with {key}; {UP}"
        for service in (evidence.CLOUDTRAIL, evidence.CONFIG, "cloudwatch.amazonaws.com"):
            request = _of_service("kms:GenerateDataKey", key, service, NOBODY, cloud.place.region)
            used = granted([policy], request) is IamDecision.ALLOWED
            assert not used, f"{service} uses {key} for other accounts; {UP}"


@pytest.mark.control("MON-01")
def test_every_region_is_recorded(cloud: Cloud):
    """An intruder works where nobody looks: in the region that is not in use."""
    wide = [each for each in _trails(cloud) if each.get("IsMultiRegionTrail")]
    assert wide, f"no trail records every region; {UP}"
    client = cloud.client("cloudtrail")
    running = [e for e in wide if client.get_trail_status(Name=e["TrailARN"])["IsLogging"]]
    assert running, f"the trail {wide[0]['Name']} is stopped; {UP}"
    complete = [each for each in running if _records_management(cloud, each)]
    assert complete, f"the trail {running[0]['Name']} leaves out management events; {UP}"


@pytest.mark.control("MON-01")
def test_a_change_of_the_record_shows(cloud: Cloud):
    """A record that can be edited without a trace proves nothing."""
    trails = _trails(cloud)
    assert trails, f"no trail records the account; {UP}"
    silent = [each["Name"] for each in trails if not each.get("LogFileValidationEnabled")]
    assert not silent, f"log files of {', '.join(silent)} carry no digest; {UP}"


@pytest.mark.control("MON-01")
def test_the_record_outlives_an_intruder(cloud: Cloud, environment: Environment):
    """With an administrator's rights one deletes traces first."""
    days = environment.retention[EVIDENCE_CLASS]
    for bucket in _trail_buckets(cloud):
        kept = _locked_days(cloud, bucket)
        assert kept >= days, f"objects of {bucket} are locked {kept} days, not {days}; {UP}"


@pytest.mark.control("MON-01")
def test_evidence_keeps_every_version(cloud: Cloud):
    """An overwritten object stays beside the one that replaced it."""
    for bucket in _evidence_buckets(cloud):
        status = cloud.client("s3").get_bucket_versioning(Bucket=bucket).get("Status", "off")
        assert status == "Enabled", f"versioning of {bucket} is {status}; {UP}"


@pytest.mark.control("MON-01")
def test_the_record_is_written_by_its_services_only(cloud: Cloud):
    """A record that others can add to says what they like."""
    region = cloud.place.region
    administrator = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice")
    for bucket, service in _writers(cloud).items():
        policy = _bucket_policy(cloud, bucket)
        place = f"arn:aws:s3:::{bucket}/AWSLogs/{cloud.account}/Config/x"

        def put(account: str, service: str = service, place: str = place, **context: str) -> Any:
            given = _of_service("s3:PutObject", place, service, account, region, **context)
            return granted([policy], given)  # noqa: B023

        own = put(cloud.account)
        assert own is IamDecision.ALLOWED, f"{service} cannot write to {bucket}; {UP}"
        foreign = put(NOBODY)
        assert foreign is not IamDecision.ALLOWED, f"{bucket} takes records of other accounts; {UP}"
        plain = put(cloud.account, **{"aws:SecureTransport": "false"})
        assert plain is IamDecision.DENIED, f"{bucket} takes what travelled in the clear; {UP}"
        request = AccessRequest(
            "s3:PutObject", place, administrator, {"aws:SecureTransport": "true"}
        )
        ours = decide(request, [EVERYTHING], resource=policy)
        assert ours is IamDecision.DENIED, f"administrators may write to {bucket}; {UP}"


@pytest.mark.control("MON-01")
def test_nobody_deletes_evidence(cloud: Cloud):
    """Nor hides it, which is what deleting a versioned object does."""
    administrator = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice")
    for bucket in _evidence_buckets(cloud):
        policy, place = _bucket_policy(cloud, bucket), f"arn:aws:s3:::{bucket}/AWSLogs/x"
        found = [
            action
            for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectRetention")
            if decide(
                AccessRequest(action, place, administrator, WITH_MFA), [EVERYTHING], resource=policy
            )
            is not IamDecision.DENIED
        ]
        assert not found, f"administrators may {', '.join(found)} in {bucket}; {UP}"


@pytest.mark.control("MON-01")
def test_evidence_is_private(cloud: Cloud):
    """It names every person, system and weakness."""
    for bucket in _evidence_buckets(cloud):
        found = _bucket_public_access(cloud, bucket)
        assert found, f"{bucket} may be made public; {UP}"
        assert all(found.values()), f"{bucket} may be made public: {found}; {UP}"


@pytest.mark.control("MON-01")
def test_readers_of_evidence_are_recorded(cloud: Cloud):
    """An intruder reads what is known of him; so does somebody curious."""
    for bucket in _evidence_buckets(cloud):
        watched = any(_records_reading(cloud, trail, bucket) for trail in _trails(cloud))
        assert watched, f"nobody records who reads or deletes in {bucket}; {UP}"


@pytest.mark.control("MON-01")
def test_requests_to_evidence_are_logged(cloud: Cloud):
    """The trail records its own bucket: these logs still show who stops it."""
    for bucket in _evidence_buckets(cloud):
        logs = cloud.client("s3").get_bucket_logging(Bucket=bucket).get("LoggingEnabled", {})
        target = logs.get("TargetBucket")
        assert target, f"S3 does not log the requests to {bucket}; {UP}"
        assert target not in _evidence_buckets(cloud), f"{bucket} is logged among evidence; {UP}"


@pytest.mark.control("MON-01")
def test_the_record_can_be_searched(cloud: Cloud, environment: Environment):
    """Alarms and investigations read it within minutes, from a log group."""
    groups = _log_groups(cloud)
    days = environment.retention[EVIDENCE_CLASS]
    for trail in _trails(cloud):
        group = groups.get(_trail_group(trail))
        assert group, f"the trail {trail['Name']} reaches no log group; {UP}"
        key = group.get("kmsKeyId")
        assert _is_ours(cloud, key), f"{group['logGroupName']} is not under a key of ours; {UP}"
        kept = group.get("retentionInDays", days)  # without a figure: no expiry
        assert kept >= days, f"{group['logGroupName']} keeps {kept} days, not {days}; {UP}"


@pytest.mark.control("MON-01")
def test_changes_of_resources_are_recorded(cloud: Cloud):
    """The trail says who changed something, the recorder what it was before."""
    config = cloud.client("config")
    recorders = config.describe_configuration_recorders()["ConfigurationRecorders"]
    complete = {
        each["name"]
        for each in recorders
        if each["recordingGroup"].get("allSupported")
        and each["recordingGroup"].get("includeGlobalResourceTypes")
    }
    assert complete, f"no recorder covers all kinds of resources; {UP}"
    status = config.describe_configuration_recorder_status()["ConfigurationRecordersStatus"]
    running = {each["name"] for each in status if each["recording"]}
    assert complete & running, f"the recorder {', '.join(complete)} is stopped; {UP}"


@pytest.mark.control("MON-01")
def test_resources_are_judged_by_managed_rules(cloud: Cloud):
    """AWS judges every change within minutes; this suite does when it is run."""
    found = {
        rule["Source"]["SourceIdentifier"]: json.loads(rule.get("InputParameters") or "{}")
        for rule in cloud.all("config", "describe_config_rules", "ConfigRules")
        if rule["Source"]["Owner"] == "AWS"
    }
    missing = [rule.identifier for rule in managed_rules() if rule.identifier not in found]
    assert not missing, f"Config does not judge {', '.join(missing)}; {UP}"
    lax = [
        rule.identifier
        for rule in managed_rules()
        if not rule.parameters.items() <= found[rule.identifier].items()
    ]
    assert not lax, f"Config judges by other figures: {', '.join(lax)}; {UP}"


@pytest.mark.control("MON-03")
def test_attacks_are_detected(cloud: Cloud):
    """GuardDuty sees stolen credentials, mining and scans without anybody writing a rule."""
    guardduty = cloud.client("guardduty")
    detectors = [
        guardduty.get_detector(DetectorId=each)
        for each in cloud.all("guardduty", "list_detectors", "DetectorIds")
    ]
    enabled = [each for each in detectors if each["Status"] == "ENABLED"]
    assert enabled, f"GuardDuty is off in {cloud.place.region}; {UP}"
    (detector,) = enabled
    on = {each["Name"] for each in detector.get("Features", []) if each["Status"] == "ENABLED"}
    missing = sorted({*GUARDDUTY_FEATURES} - on)
    assert not missing, f"GuardDuty runs without {', '.join(missing)}; {UP}"


@pytest.mark.control("DAT-04")
def test_personal_data_in_buckets_is_found(cloud: Cloud):
    """Data that a tool wrote into a bucket has bypassed the gateway's masks."""
    if not cloud.place.macie:
        not_applicable("the manifest does not ask for Macie (provisioning.aws.macie)")
    macie = cloud.client("macie2")
    try:
        status = macie.get_macie_session()["status"]
    except macie.exceptions.ClientError as error:
        status = error.response["Error"]["Code"]
    assert status == "ENABLED", f"Macie in {cloud.place.region}: {status}; {UP}"


@pytest.mark.control("MON-03")
def test_findings_are_collected(cloud: Cloud):
    """A finding in a console that nobody opens is none."""
    assert _hub(cloud), f"Security Hub is off in {cloud.place.region}; {UP}"


@pytest.mark.control("MON-03")
def test_the_account_is_judged_by_standards(cloud: Cloud):
    """Somebody else's list has what ours forgot."""
    _not_emulated(cloud, "GetEnabledStandards")
    found = {
        each["StandardsArn"]
        for each in cloud.all("securityhub", "get_enabled_standards", "StandardsSubscriptions")
    }
    missing = [key for key, arn in standards(cloud.place.region).items() if arn not in found]
    assert not missing, f"Security Hub does not judge by {', '.join(missing)}; {UP}"


@pytest.mark.control("MON-03")
@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.key)
def test_the_trail_raises_alarms(cloud: Cloud, alarm: Alarm):
    """Somebody is to know within minutes; the trail alone is read afterwards."""
    groups = [_trail_group(trail) for trail in _trails(cloud)]
    metrics = {
        (metric["metricNamespace"], metric["metricName"])
        for each in cloud.all("logs", "describe_metric_filters", "metricFilters")
        if each["logGroupName"] in groups and _same(each["filterPattern"], alarm.pattern)
        for metric in each["metricTransformations"]
    }
    assert metrics, f"nothing in the trail's log group counts: {alarm.message}; {UP}"
    raised = [each for each in _alarms(cloud) if (each["Namespace"], each["MetricName"]) in metrics]
    assert any(map(_wakes_somebody, raised)), f"nobody is notified: {alarm.message}; {UP}"


@pytest.mark.control("MON-03")
def test_alerts_reach_a_person(cloud: Cloud, environment: Environment):
    """An address that was never confirmed receives nothing, and nobody notices."""
    sns, address = cloud.client("sns"), environment.contacts["security"].email
    topics = _alert_topics(cloud)
    assert topics, f"the alarms of the account alert nobody; {UP}"
    for topic in topics:
        found = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        reached = {each["Endpoint"]: each["SubscriptionArn"] for each in found}
        assert address in reached, f"{topic} does not reach {address}; {UP}"
        arn = reached[address]
        assert arn.startswith("arn:"), f"{address} has not confirmed {topic}: see the mail from AWS"


@pytest.mark.control("MON-03")
def test_alerts_are_of_this_account_only(cloud: Cloud):
    """False alarms from elsewhere teach people to ignore them."""
    for topic in _alert_topics(cloud):
        attributes = cloud.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]
        policy, region = json.loads(attributes["Policy"]), cloud.place.region

        def publish(account: str, topic: str = topic, region: str = region) -> AccessRequest:
            return _of_service("sns:Publish", topic, "cloudwatch.amazonaws.com", account, region)

        own = granted([policy], publish(cloud.account))
        assert own is IamDecision.ALLOWED, f"alarms cannot reach {topic}; {UP}"
        foreign = granted([policy], publish(NOBODY))
        assert foreign is not IamDecision.ALLOWED, f"{topic} takes alarms of other accounts; {UP}"
        stranger = IamPrincipal("AWS", f"arn:aws:iam::{NOBODY}:user/mallory")
        anybody = granted([policy], AccessRequest("sns:Publish", topic, stranger))
        assert anybody is not IamDecision.ALLOWED, f"anybody may publish to {topic}; {UP}"


@pytest.mark.control("MON-03")
def test_alerts_are_encrypted(cloud: Cloud):
    """They tell what was found, and what was not."""
    for topic in _alert_topics(cloud):
        attributes = cloud.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]
        key = attributes.get("KmsMasterKeyId")
        assert _is_ours(cloud, key), f"{topic} is not under a key of ours; {UP}"


def _not_emulated(cloud: Cloud, what: str) -> None:
    """Mark what a rehearsal only records: it verifies nothing."""
    if cloud.emulated:
        not_applicable(f"the emulated account does not have {what}")


@cache
def _identities(cloud: Cloud) -> Identities:
    return Identities(cloud)


def _people(cloud: Cloud, *, required: bool = True) -> list[IamIdentity]:
    found = [group for group in _identities(cloud).groups if group.path == sign_in.PATH]
    assert found or not required, f"the account has no group that holds people to MFA; {UP}"
    return found


def _as_user(
    cloud: Cloud,
    action: str,
    policies: Iterable[Document],
    context: dict[str, str],
    owner: str = "alice",
) -> IamDecision:
    """Decide for Alice, on her own resources or another person's."""
    alice = IamPrincipal("AWS", f"arn:aws:iam::{cloud.account}:user/alice")
    kind = "mfa" if action.endswith("VirtualMFADevice") else "user"
    resource = f"arn:aws:iam::{cloud.account}:{kind}/{owner}"
    given = {**context, "aws:username": "alice"}
    return decide(AccessRequest(action, resource, alice, given), policies)


def _possible_without_mfa(cloud: Cloud, policies: tuple[Document, ...]) -> list[str]:
    return [
        action
        for action in DAMAGE
        if any(
            _as_user(cloud, action, policies, context) is not IamDecision.DENIED
            for context in WITHOUT_MFA
        )
    ]


def _password_policy(cloud: Cloud) -> Document:
    iam = cloud.client("iam")
    try:
        return iam.get_account_password_policy()["PasswordPolicy"]
    except iam.exceptions.NoSuchEntityException:
        return {}


def _trusted_services(role: IamIdentity) -> Iterator[str]:
    for statement in statements(role.trust or {}):
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        yield from [services] if isinstance(services, str) else services


def _assumed_for(account: str, service: str) -> AccessRequest:
    source = {"aws:SourceAccount": account, "aws:SourceArn": f"arn:aws:x:y:{account}:z"}
    return AccessRequest("sts:AssumeRole", "*", IamPrincipal("Service", service), source)


def _of_service(
    action: str, resource: str, service: str, account: str, region: str, **context: str
) -> AccessRequest:
    """As a service asks on behalf of something of an account."""
    sources = {
        evidence.CLOUDTRAIL: evidence.trail_arns(
            account=account, region=region, prefix="account-trail"
        ),
        "cloudwatch.amazonaws.com": evidence.alarm_arns(account=account, region=region),
    }
    arn = sources.get(service, f"arn:aws:x:{region}:{account}:").replace("*", "1")
    given = {
        "aws:SourceAccount": account,
        "aws:SourceArn": arn,
        "aws:SecureTransport": "true",
        "s3:TlsVersion": "1.3",
        "s3:x-amz-acl": "bucket-owner-full-control",
        "kms:EncryptionContext:aws:cloudtrail:arn": arn,
    }
    return AccessRequest(action, resource, IamPrincipal("Service", service), {**given, **context})


def _account_public_access(cloud: Cloud) -> dict[str, bool]:
    s3control = cloud.client("s3control")
    try:
        found = s3control.get_public_access_block(AccountId=cloud.account)
    except s3control.exceptions.NoSuchPublicAccessBlockConfiguration:
        return {}
    return found["PublicAccessBlockConfiguration"]


def _trails(cloud: Cloud) -> list[Document]:
    """Return trails of this account, in their home region."""
    found = cloud.client("cloudtrail").describe_trails(includeShadowTrails=False)["trailList"]
    assert found, f"no trail records the account; {UP}"
    return found


def _selectors(cloud: Cloud, trail: Document) -> Document:
    return cloud.client("cloudtrail").get_event_selectors(TrailName=trail["TrailARN"])


def _records_management(cloud: Cloud, trail: Document) -> bool:
    found = _selectors(cloud, trail)
    advanced = [_fields(each) for each in found.get("AdvancedEventSelectors") or ()]
    if advanced:
        return any(fields == {"eventCategory": {"Equals": ["Management"]}} for fields in advanced)
    basic = found.get("EventSelectors") or ()
    return not basic or any(
        each["IncludeManagementEvents"] and each["ReadWriteType"] == "All" for each in basic
    )


def _records_reading(cloud: Cloud, trail: Document, bucket: str) -> bool:
    for each in _selectors(cloud, trail).get("AdvancedEventSelectors") or ():
        fields = _fields(each)
        places = fields.get("resources.ARN", {}).get("StartsWith", [f"arn:aws:s3:::{bucket}/"])
        names = fields.get("eventName", {}).get("Equals", ["GetObject", "DeleteObject"])
        if (
            fields.get("eventCategory") == {"Equals": ["Data"]}
            and fields.get("resources.type") == {"Equals": ["AWS::S3::Object"]}
            and f"arn:aws:s3:::{bucket}/" in places
            and {"GetObject", "DeleteObject"} <= set(names)
            and "readOnly" not in fields
        ):
            return True
    return False


def _fields(selector: Document) -> dict[str, dict[str, list[str]]]:
    return {
        each["Field"]: {key: value for key, value in each.items() if key != "Field"}
        for each in selector["FieldSelectors"]
    }


def _trail_group(trail: Document) -> str:
    arn = trail.get("CloudWatchLogsLogGroupArn", "")
    return arn.split(":")[6] if arn else ""


def _trail_buckets(cloud: Cloud) -> list[str]:
    return sorted({trail["S3BucketName"] for trail in _trails(cloud)})


def _writers(cloud: Cloud) -> dict[str, str]:
    """Services by the bucket that they deliver to."""
    channels = cloud.client("config").describe_delivery_channels()["DeliveryChannels"]
    assert channels, f"AWS Config delivers to no bucket; {UP}"
    return {
        **{each["s3BucketName"]: evidence.CONFIG for each in channels},
        **dict.fromkeys(_trail_buckets(cloud), evidence.CLOUDTRAIL),
    }


def _evidence_buckets(cloud: Cloud) -> list[str]:
    return sorted(_writers(cloud))


def _locked_days(cloud: Cloud, bucket: str) -> int:
    if not _has(cloud, "get_object_lock_configuration", bucket):
        return 0
    found = cloud.client("s3").get_object_lock_configuration(Bucket=bucket)
    retention = found["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {})
    return retention.get("Days") or 365 * retention.get("Years", 0)


def _bucket_key(cloud: Cloud, bucket: str) -> str | None:
    if not _has(cloud, "get_bucket_encryption", bucket):
        return None
    found = cloud.client("s3").get_bucket_encryption(Bucket=bucket)
    (rule,) = found["ServerSideEncryptionConfiguration"]["Rules"]
    return rule["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID")


def _bucket_policy(cloud: Cloud, bucket: str) -> Document:
    if not _has(cloud, "get_bucket_policy", bucket):
        return {}
    return json.loads(cloud.client("s3").get_bucket_policy(Bucket=bucket)["Policy"])


def _bucket_public_access(cloud: Cloud, bucket: str) -> dict[str, bool]:
    if not _has(cloud, "get_public_access_block", bucket):
        return {}
    found = cloud.client("s3").get_public_access_block(Bucket=bucket)
    return found["PublicAccessBlockConfiguration"]


def _has(cloud: Cloud, operation: str, bucket: str) -> bool:
    """S3 answers with an error where nothing is configured."""
    s3 = cloud.client("s3")
    try:
        getattr(s3, operation)(Bucket=bucket)
    except s3.exceptions.ClientError as error:
        missing = ("NotFound", "NoSuch")
        if not any(word in error.response["Error"]["Code"] for word in missing):
            raise
        return False
    return True


def _is_ours(cloud: Cloud, key: str | None) -> bool:
    if not key or key.startswith("alias/aws/"):
        return False
    kms = cloud.client("kms")
    try:
        found = kms.describe_key(KeyId=key)["KeyMetadata"]
    except kms.exceptions.NotFoundException:
        return False
    return found["KeyManager"] == "CUSTOMER" and found["KeyState"] == "Enabled"


def _account_keys(cloud: Cloud) -> list[str]:
    kms = cloud.client("kms")
    return [
        key["KeyArn"]
        for key in cloud.all("kms", "list_keys", "Keys")
        if {"TagKey": SCOPE, "TagValue": "account"}
        in kms.list_resource_tags(KeyId=key["KeyId"])["Tags"]
    ]


def _log_groups(cloud: Cloud) -> dict[str, Document]:
    found = cloud.all("logs", "describe_log_groups", "logGroups")
    return {group["logGroupName"]: group for group in found}


def _hub(cloud: Cloud) -> bool:
    hub = cloud.client("securityhub")
    try:
        return bool(hub.describe_hub()["HubArn"])
    except hub.exceptions.InvalidAccessException:  # "not subscribed"
        return False


def _same(one: str, other: str) -> bool:
    """Security Hub, too, does not mind spaces."""
    return "".join(one.split()) == "".join(other.split())


def _alarms(cloud: Cloud) -> list[Document]:
    return cloud.all("cloudwatch", "describe_alarms", "MetricAlarms")


def _wakes_somebody(alarm: Document) -> bool:
    once = (
        alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold" and alarm["Threshold"] <= 1
    )
    topics = [each for each in alarm["AlarmActions"] if ":sns:" in each]
    return bool(alarm["ActionsEnabled"] and once and topics)


def _alert_topics(cloud: Cloud) -> list[str]:
    found = sorted(
        {
            action
            for alarm in _alarms(cloud)
            if alarm.get("Namespace") == METRICS
            for action in alarm["AlarmActions"]
        }
    )
    assert found, f"the alarms of the account alert nobody; {UP}"
    return found

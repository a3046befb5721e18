"""Every check of the account passes on ours, and fails where it must: on an account with defaults,
and on ours with exactly its property broken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from breaking import Aws, Broken, Exports, checks, failing, failing_once, inapplicable

from ringfence.cloud.detection import standards
from ringfence.manifest.model import Environment
from ringfence.rehearsal.account import emulated
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal
from ringfence.verify.account.cloud import Cloud

REGION = "eu-central-1"
CHECKS = checks("account")
RECORDED = {
    "test_access_is_analysed",
    "test_disks_are_encrypted_with_a_key_of_ours",
    "test_instance_credentials_need_a_session",
    "test_no_network_can_be_opened_to_the_internet",
    "test_no_snapshot_or_image_can_be_made_public",
    "test_root_is_locked_away",
    "test_the_account_is_judged_by_standards",
}
"""The emulation does not support these checks: tests below try them on answers in AWS's format."""
EMULATED = CHECKS.keys() - RECORDED


@pytest.fixture(scope="module")
def account(environment: Environment) -> Iterator[Rehearsal]:
    with rehearsed_stack(environment, "account") as rehearsal:
        yield rehearsal


def seen(rehearsal: Rehearsal, environment: Environment) -> Cloud:
    return Cloud(rehearsal.account.session, environment, emulated=True)


def test_our_account_passes(account: Rehearsal, environment: Environment) -> None:
    assert failing(CHECKS, seen(account, environment)) == {}


def test_what_is_only_recorded_is_not_called_verified(
    account: Rehearsal, environment: Environment
) -> None:
    assert inapplicable(CHECKS, seen(account, environment)) == RECORDED


def test_an_account_with_defaults_fails_everything_that_can_fail(environment: Environment) -> None:
    """An account on its first day, with a user, a role, a trail and an alarm created by hand."""
    with emulated(REGION) as account:
        _by_hand(account.client)
        cloud = Cloud(account.session, environment, emulated=True)
        passing = EMULATED - failing(CHECKS, cloud).keys()
    assert passing == set()


def _by_hand(aws: Aws) -> None:
    iam, s3, sns, ec2 = aws("iam"), aws("s3"), aws("sns"), aws("ec2")
    account = aws("sts").get_caller_identity()["Account"]
    iam.create_user(UserName="bob")
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    iam.put_user_policy(UserName="bob", PolicyName="all", PolicyDocument=_document(everything))
    people = {"AWS": f"arn:aws:iam::{account}:root"}
    _role(iam, "people", people, [{"Key": "Name", "Value": "account-audit"}])
    _role(iam, "trail", {"Service": "cloudtrail.amazonaws.com"}, [])
    iam.create_group(GroupName="people", Path="/ringfence/")
    where = {"LocationConstraint": REGION}
    for name in ("by-hand-trail", "by-hand-config"):
        s3.create_bucket(Bucket=f"{name}-{account}", CreateBucketConfiguration=where)
        s3.delete_bucket_encryption(Bucket=f"{name}-{account}")
    trail = aws("cloudtrail").create_trail(Name="trail", S3BucketName=f"by-hand-trail-{account}")
    assert trail["Name"] == "trail"
    config = aws("config")
    one = {"allSupported": False, "resourceTypes": ["AWS::EC2::Instance"]}
    recorder = {"name": "one", "roleARN": f"arn:aws:iam::{account}:role/x", "recordingGroup": one}
    config.put_configuration_recorder(ConfigurationRecorder=recorder)
    channel = {"name": "one", "s3BucketName": f"by-hand-config-{account}"}
    config.put_delivery_channel(DeliveryChannel=channel)
    aws("kms").create_key(
        Tags=[{"TagKey": "ringfence:scope", "TagValue": "account"}],
        Policy=_document({**everything, "Action": "kms:*", "Principal": people}),
    )
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    anybody = {"Effect": "Allow", "Principal": "*", "Action": "sns:Publish", "Resource": topic}
    sns.set_topic_attributes(
        TopicArn=topic, AttributeName="Policy", AttributeValue=_document(anybody)
    )
    aws("cloudwatch").put_metric_alarm(
        AlarmName="root",
        Namespace="Ringfence/Account",
        MetricName="root",
        AlarmActions=[topic],
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        Threshold=1,
        EvaluationPeriods=1,
        Period=60,
        Statistic="Sum",
    )
    # moto's default network is not connected; AWS's is.
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc["VpcId"])
    (table,) = ec2.describe_route_tables()["RouteTables"]
    ec2.create_route(
        RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )


def _role(iam: Any, name: str, principal: Mapping[str, str], tags: list[dict[str, str]]) -> None:
    trust = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=_document(trust), Tags=tags)


def _document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def test_an_empty_account_names_what_to_do(environment: Environment) -> None:
    with emulated(REGION) as account:
        failed = failing(CHECKS, Cloud(account.session, environment, emulated=True))
    assert failed["test_every_region_is_recorded"] == (
        "no trail records the account; run pulumi up in stacks/account"
    )
    vacuous = {
        # These pass because no user and no role exists.
        "test_every_user_is_held_to_mfa",
        "test_roles_that_people_assume_demand_mfa",
        "test_no_policy_of_ours_allows_everything",
        "test_services_act_for_this_account_only",
        "test_keys_of_the_account_serve_through_services_only",
    }
    assert failed.keys() >= EMULATED - vacuous - {"test_default_network_leads_nowhere"}


BROKEN = Broken()


def _mfa(aws: Aws) -> tuple[str, dict[str, Any]]:
    iam = aws("iam")
    (policy,) = [
        p for p in iam.list_policies(Scope="Local")["Policies"] if "mfa" in p["PolicyName"]
    ]
    version = policy["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=version)["PolicyVersion"]
    return policy["Arn"], found["Document"]


def _change_mfa(aws: Aws, change: Any) -> None:
    arn, document = _mfa(aws)
    document["Statement"] = change(document["Statement"])
    aws("iam").create_policy_version(
        PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True
    )


@BROKEN.by("people_can_do_nothing_without_mfa", "people_enrol_devices_for_themselves_only")
def the_mfa_condition_holds_only_if_the_key_is_there(aws: Aws, out: Exports) -> None:
    """Bool instead of BoolIfExists: with an access key the condition is not evaluated."""

    def change(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for statement in statements:
            if statement["Effect"] == "Deny":
                statement["Condition"] = {"Bool": statement["Condition"]["BoolIfExists"]}
        return statements

    _change_mfa(aws, change)


@BROKEN.by("people_can_do_nothing_without_mfa")
def one_more_action_is_possible_without_mfa(aws: Aws, out: Exports) -> None:
    def change(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for statement in statements:
            statement.get("NotAction", []).append("iam:CreateAccessKey")
        return statements

    _change_mfa(aws, change)


@BROKEN.by("people_enrol_devices_for_themselves_only")
def devices_may_be_enrolled_for_others(aws: Aws, out: Exports) -> None:
    _change_mfa(aws, lambda found: [s for s in found if s["Sid"] != "ForOneselfOnly"])


@BROKEN.by("people_can_enrol_a_second_factor")
def people_are_shut_out(aws: Aws, out: Exports) -> None:
    def change(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for statement in statements:
            if "NotAction" in statement:
                statement["NotAction"].remove("iam:EnableMFADevice")
        return statements

    _change_mfa(aws, change)


@BROKEN.by("every_user_is_held_to_mfa")
def a_user_is_in_no_group(aws: Aws, out: Exports) -> None:
    aws("iam").create_user(UserName="alice")
    aws("iam").add_user_to_group(UserName="alice", GroupName=out["people_group"])
    aws("iam").create_user(UserName="bob")


def _role_name(arn: str) -> str:
    return arn.rsplit("/", 1)[1]


@BROKEN.by("roles_that_people_assume_demand_mfa")
def the_audit_role_trusts_without_mfa(aws: Aws, out: Exports) -> None:
    name = _role_name(out["audit_role_arn"])
    account = out["audit_role_arn"].split(":")[4]
    trust = {"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"}
    aws("iam").update_assume_role_policy(RoleName=name, PolicyDocument=_document(trust))


@BROKEN.by("audit_role_reads_configuration_and_no_data")
def the_audit_role_reads_data(aws: Aws, out: Exports) -> None:
    more = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}
    aws("iam").put_role_policy(
        RoleName=_role_name(out["audit_role_arn"]),
        PolicyName="more",
        PolicyDocument=_document(more),
    )


@BROKEN.by("audit_role_reads_configuration_and_no_data")
def the_audit_role_loses_its_policy(aws: Aws, out: Exports) -> None:
    aws("iam").detach_role_policy(
        RoleName=_role_name(out["audit_role_arn"]),
        PolicyArn="arn:aws:iam::aws:policy/SecurityAudit",
    )


@BROKEN.by("no_policy_of_ours_allows_everything")
def somebody_writes_an_administrators_policy(aws: Aws, out: Exports) -> None:
    everything = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}
    aws("iam").create_policy(PolicyName="admin", PolicyDocument=_document(everything))


@BROKEN.by("services_act_for_this_account_only")
def the_trail_role_serves_any_account(aws: Aws, out: Exports) -> None:
    service = {"Service": "cloudtrail.amazonaws.com"}
    trust = {"Effect": "Allow", "Principal": service, "Action": "sts:AssumeRole"}
    (name,) = [
        r["RoleName"]
        for r in aws("iam").list_roles()["Roles"]
        if r["RoleName"].startswith("account-trail")
    ]
    aws("iam").update_assume_role_policy(RoleName=name, PolicyDocument=_document(trust))


@BROKEN.by("passwords_are_as_strong_as_on_hosts")
def passwords_may_be_short(aws: Aws, out: Exports) -> None:
    iam = aws("iam")
    policy = iam.get_account_password_policy()["PasswordPolicy"]
    del policy["ExpirePasswords"]
    iam.update_account_password_policy(**{**policy, "MinimumPasswordLength": 14})


@BROKEN.by("passwords_are_as_strong_as_on_hosts")
def passwords_live_for_ever(aws: Aws, out: Exports) -> None:
    iam = aws("iam")
    policy = iam.get_account_password_policy()["PasswordPolicy"]
    del policy["ExpirePasswords"], policy["MaxPasswordAge"]
    iam.update_account_password_policy(**policy)


def _public(**changes: bool) -> dict[str, bool]:
    names = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    return {**dict.fromkeys(names, True), **changes}


@BROKEN.by("no_bucket_can_be_made_public")
def buckets_may_be_published_by_policy(aws: Aws, out: Exports) -> None:
    aws("s3control").put_public_access_block(
        AccountId=out["trail_arn"].split(":")[4],
        PublicAccessBlockConfiguration=_public(BlockPublicPolicy=False),
    )


@BROKEN.by("evidence_is_private")
def the_trails_bucket_may_be_published(aws: Aws, out: Exports) -> None:
    aws("s3").put_public_access_block(
        Bucket=out["trail_bucket"],
        PublicAccessBlockConfiguration=_public(RestrictPublicBuckets=False),
    )


@BROKEN.by("default_network_leads_nowhere")
def the_default_network_is_connected_again(aws: Aws, out: Exports) -> None:
    ec2 = aws("ec2")
    mine = [{"Name": "is-default", "Values": ["true"]}]
    (vpc,) = ec2.describe_vpcs(Filters=mine)["Vpcs"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc["VpcId"])
    within = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    (table,) = ec2.describe_route_tables(Filters=within)["RouteTables"]
    ec2.create_route(
        RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )


@BROKEN.by("disks_are_encrypted_by_default")
def disks_are_encrypted_on_request(aws: Aws, out: Exports) -> None:
    aws("ec2").disable_ebs_encryption_by_default()


@BROKEN.by("evidence_is_encrypted_with_a_key_of_ours")
def the_bucket_is_under_amazons_key(aws: Aws, out: Exports) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    aws("s3").put_bucket_encryption(
        Bucket=out["configuration_bucket"], ServerSideEncryptionConfiguration={"Rules": [rule]}
    )


@BROKEN.by("evidence_is_encrypted_with_a_key_of_ours")
def the_trail_is_under_no_key(aws: Aws, out: Exports) -> None:
    aws("cloudtrail").update_trail(Name=out["trail_arn"], KmsKeyId="alias/aws/s3")


@BROKEN.by("keys_of_the_account_rotate", "alerts_are_encrypted")
def the_alerts_key_is_to_be_deleted(aws: Aws, out: Exports) -> None:
    aws("kms").schedule_key_deletion(
        KeyId=out["alerts_key_arn"].split("/")[1], PendingWindowInDays=7
    )


@BROKEN.by("keys_of_the_account_rotate")
def a_key_stops_rotating(aws: Aws, out: Exports) -> None:
    aws("kms").disable_key_rotation(KeyId=out["alerts_key_arn"].split("/")[1])


def _widen_key(aws: Aws, key: str, *more: Mapping[str, Any]) -> None:
    policy = json.loads(aws("kms").get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    policy["Statement"] += more
    aws("kms").put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))


@BROKEN.by("keys_of_the_account_serve_through_services_only")
def a_key_opens_for_administrators(aws: Aws, out: Exports) -> None:
    root = {"AWS": f"arn:aws:iam::{out['trail_arn'].split(':')[4]}:root"}
    wide = {"Effect": "Allow", "Principal": root, "Action": "kms:Decrypt", "Resource": "*"}
    _widen_key(aws, out["alerts_key_arn"], wide)


@BROKEN.by("keys_of_the_account_serve_through_services_only")
def a_key_serves_other_accounts(aws: Aws, out: Exports) -> None:
    anybody = {"Service": "cloudwatch.amazonaws.com"}
    wide = {"Effect": "Allow", "Principal": anybody, "Action": "kms:*", "Resource": "*"}
    _widen_key(aws, out["alerts_key_arn"], wide)


@BROKEN.by("every_region_is_recorded")
def the_trail_is_stopped(aws: Aws, out: Exports) -> None:
    aws("cloudtrail").stop_logging(Name=out["trail_arn"])


@BROKEN.by("every_region_is_recorded")
def the_trail_covers_one_region(aws: Aws, out: Exports) -> None:
    aws("cloudtrail").update_trail(Name=out["trail_arn"], IsMultiRegionTrail=False)


@BROKEN.by("every_region_is_recorded", "readers_of_evidence_are_recorded")
def the_trail_records_changes_only(aws: Aws, out: Exports) -> None:
    aws("cloudtrail").put_event_selectors(
        TrailName=out["trail_arn"].rsplit("/", 1)[1],
        AdvancedEventSelectors=[
            {
                "FieldSelectors": [
                    {"Field": "eventCategory", "Equals": ["Management"]},
                    {"Field": "readOnly", "Equals": ["false"]},
                ]
            }
        ],
    )


@BROKEN.by("a_change_of_the_record_shows")
def log_files_are_not_validated(aws: Aws, out: Exports) -> None:
    aws("cloudtrail").update_trail(Name=out["trail_arn"], EnableLogFileValidation=False)


@BROKEN.by("the_record_outlives_an_intruder")
def the_lock_is_short(aws: Aws, out: Exports) -> None:
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
    aws("s3").put_object_lock_configuration(
        Bucket=out["trail_bucket"],
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )


@BROKEN.by("evidence_keeps_every_version")
def versions_are_no_longer_kept(aws: Aws, out: Exports) -> None:
    aws("s3").put_bucket_versioning(
        Bucket=out["configuration_bucket"], VersioningConfiguration={"Status": "Suspended"}
    )


def _change_bucket_policy(aws: Aws, bucket: str, change: Any) -> None:
    s3 = aws("s3")
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    policy["Statement"] = change(policy["Statement"])
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


@BROKEN.by("the_record_is_written_by_its_services_only")
def the_bucket_takes_any_trail(aws: Aws, out: Exports) -> None:
    def change(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for statement in statements:
            if statement["Sid"] == "Write":
                del statement["Condition"]
        return statements

    _change_bucket_policy(aws, out["trail_bucket"], change)


@BROKEN.by("the_record_is_written_by_its_services_only")
def the_bucket_takes_what_administrators_write(aws: Aws, out: Exports) -> None:
    _change_bucket_policy(
        aws,
        out["trail_bucket"],
        lambda found: [s for s in found if s["Sid"] != "WrittenByTheService"],
    )


@BROKEN.by("the_record_is_written_by_its_services_only")
def the_bucket_takes_plain_text(aws: Aws, out: Exports) -> None:
    _change_bucket_policy(
        aws,
        out["configuration_bucket"],
        lambda found: [s for s in found if s["Sid"] != "EncryptedTransport"],
    )


@BROKEN.by("nobody_deletes_evidence")
def evidence_may_be_deleted(aws: Aws, out: Exports) -> None:
    _change_bucket_policy(
        aws,
        out["configuration_bucket"],
        lambda found: [s for s in found if s["Sid"] != "NotDeleted"],
    )


@BROKEN.by("the_record_is_written_by_its_services_only", "nobody_deletes_evidence")
def the_bucket_policy_goes(aws: Aws, out: Exports) -> None:
    aws("s3").delete_bucket_policy(Bucket=out["trail_bucket"])


@BROKEN.by("readers_of_evidence_are_recorded")
def readers_go_unnoticed(aws: Aws, out: Exports) -> None:
    cloudtrail, name = aws("cloudtrail"), out["trail_arn"].rsplit("/", 1)[1]
    found = cloudtrail.get_event_selectors(TrailName=name)["AdvancedEventSelectors"]
    cloudtrail.put_event_selectors(TrailName=name, AdvancedEventSelectors=found[:1])


@BROKEN.by("requests_to_evidence_are_logged")
def requests_are_no_longer_logged(aws: Aws, out: Exports) -> None:
    aws("s3").put_bucket_logging(Bucket=out["trail_bucket"], BucketLoggingStatus={})


@BROKEN.by("the_record_can_be_searched")
def the_log_group_forgets(aws: Aws, out: Exports) -> None:
    found = aws("logs").describe_log_groups(logGroupNamePrefix="account-trail")
    (group,) = found["logGroups"]
    aws("logs").put_retention_policy(logGroupName=group["logGroupName"], retentionInDays=7)


@BROKEN.by("changes_of_resources_are_recorded")
def the_recorder_is_stopped(aws: Aws, out: Exports) -> None:
    config = aws("config")
    (found,) = config.describe_configuration_recorders()["ConfigurationRecorders"]
    config.stop_configuration_recorder(ConfigurationRecorderName=found["name"])


def _rule(aws: Aws, identifier: str) -> dict[str, Any]:
    rules = aws("config").get_paginator("describe_config_rules").paginate()
    (found,) = [
        rule
        for page in rules
        for rule in page["ConfigRules"]
        if rule["Source"]["SourceIdentifier"] == identifier
    ]
    return found


@BROKEN.by("resources_are_judged_by_managed_rules")
def a_rule_is_deleted(aws: Aws, out: Exports) -> None:
    name = _rule(aws, "ENCRYPTED_VOLUMES")["ConfigRuleName"]
    aws("config").delete_config_rule(ConfigRuleName=name)


@BROKEN.by("resources_are_judged_by_managed_rules")
def a_rule_is_relaxed(aws: Aws, out: Exports) -> None:
    rule = _rule(aws, "ACCESS_KEYS_ROTATED")
    changed = {key: rule[key] for key in ("ConfigRuleName", "Source")}
    parameters = json.dumps({"maxAccessKeyAge": "3650"})
    aws("config").put_config_rule(ConfigRule={**changed, "InputParameters": parameters})


@BROKEN.by("attacks_are_detected")
def the_detector_is_suspended(aws: Aws, out: Exports) -> None:
    aws("guardduty").update_detector(DetectorId=out["detector_id"], Enable=False)


@BROKEN.by("attacks_are_detected")
def a_feature_of_the_detector_is_off(aws: Aws, out: Exports) -> None:
    off = [{"Name": "S3_DATA_EVENTS", "Status": "DISABLED"}]
    aws("guardduty").update_detector(DetectorId=out["detector_id"], Features=off)


@BROKEN.by("personal_data_in_buckets_is_found")
def macie_is_paused(aws: Aws, out: Exports) -> None:
    aws("macie2").enable_macie(status="PAUSED")


@BROKEN.by("findings_are_collected")
def the_hub_is_closed(aws: Aws, out: Exports) -> None:
    aws("securityhub").disable_security_hub()


def _alarm(aws: Aws, key: str) -> str:
    alarms = aws("cloudwatch").describe_alarms()["MetricAlarms"]
    return next(alarm["AlarmName"] for alarm in alarms if alarm["MetricName"] == key)


@BROKEN.by("the_trail_raises_alarms")
def an_alarm_is_silenced(aws: Aws, out: Exports) -> None:
    aws("cloudwatch").disable_alarm_actions(AlarmNames=[_alarm(aws, "root")])


@BROKEN.by("the_trail_raises_alarms")
def a_filter_counts_nothing(aws: Aws, out: Exports) -> None:
    logs = aws("logs")
    found = logs.describe_metric_filters()["metricFilters"]
    each = next(f for f in found if f["metricTransformations"][0]["metricName"] == "iam")
    logs.delete_metric_filter(logGroupName=each["logGroupName"], filterName=each["filterName"])
    logs.put_metric_filter(
        logGroupName=each["logGroupName"],
        filterName=each["filterName"],
        filterPattern="{$.eventName=Nothing}",
        metricTransformations=each["metricTransformations"],
    )


@BROKEN.by("alerts_reach_a_person")
def nobody_receives_alerts(aws: Aws, out: Exports) -> None:
    sns = aws("sns")
    (found,) = sns.list_subscriptions_by_topic(TopicArn=out["alerts_topic_arn"])["Subscriptions"]
    sns.unsubscribe(SubscriptionArn=found["SubscriptionArn"])


@BROKEN.by("alerts_are_of_this_account_only")
def anybody_may_alert(aws: Aws, out: Exports) -> None:
    topic = out["alerts_topic_arn"]
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "sns:Publish", "Resource": topic}
    aws("sns").set_topic_attributes(
        TopicArn=topic, AttributeName="Policy", AttributeValue=_document(everybody)
    )


@BROKEN.by("alerts_are_encrypted")
def alerts_are_in_the_clear(aws: Aws, out: Exports) -> None:
    aws("sns").set_topic_attributes(
        TopicArn=out["alerts_topic_arn"],
        AttributeName="KmsMasterKeyId",
        AttributeValue="alias/aws/sns",
    )


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_property_turns_exactly_its_checks_red(
    name: str, account: Rehearsal, environment: Environment
) -> None:
    change, expected = BROKEN[name]
    failed = failing_once(change, CHECKS, account, environment)
    assert failed.keys() == expected, failed


def test_every_check_is_broken_by_something() -> None:
    assert set().union(*(checks for _, checks in BROKEN.values())) == EMULATED


# Answers of AWS that moto lacks: botocore refuses an answer that its model does not know.
KEY = f"arn:aws:kms:{REGION}:111122223333:key/1"
Answers = list[tuple[str, str, dict[str, Any]]]


def _described(manager: str) -> tuple[str, str, dict[str, Any]]:
    metadata = {"KeyId": "1", "KeyManager": manager, "KeyState": "Enabled"}
    return "kms", "describe_key", {"KeyMetadata": metadata}


def _standard(arn: str) -> dict[str, Any]:
    subscription = {"StandardsSubscriptionArn": arn, "StandardsStatus": "READY"}
    return {"StandardsArn": arn, "StandardsInput": {}, **subscription}


def _analyser(kind: str) -> dict[str, Any]:
    named = {"arn": "arn:aws:x", "name": kind.lower(), "type": kind, "status": "ACTIVE"}
    return {**named, "createdAt": "2026-01-01T00:00:00Z"}


def _root(mfa: int, keys: int) -> Answers:
    summary = {"AccountMFAEnabled": mfa, "AccountAccessKeysPresent": keys}
    return [("iam", "get_account_summary", {"SummaryMap": summary})]


def _sharing(snapshots: str, images: str) -> Answers:
    return [
        ("ec2", "get_snapshot_block_public_access_state", {"State": snapshots}),
        ("ec2", "get_image_block_public_access_state", {"ImageBlockPublicAccessState": images}),
    ]


def _metadata(**level: Any) -> Answers:
    return [("ec2", "get_instance_metadata_defaults", {"AccountLevel": level})]


def _internet(mode: str) -> Answers:
    options = {"VpcBlockPublicAccessOptions": {"InternetGatewayBlockMode": mode}}
    return [("ec2", "describe_vpc_block_public_access_options", options)]


def _disk_key(manager: str) -> Answers:
    return [("ec2", "get_ebs_default_kms_key_id", {"KmsKeyId": KEY}), _described(manager)]


def _analysers(*kinds: str) -> Answers:
    return [("accessanalyzer", "list_analyzers", {"analyzers": list(map(_analyser, kinds))})]


def _judged(*arns: str) -> Answers:
    found = {"StandardsSubscriptions": list(map(_standard, arns))}
    return [("securityhub", "get_enabled_standards", found)]


ANSWERS: list[tuple[str, Answers, str]] = [
    ("root_is_locked_away", _root(1, 0), ""),
    ("root_is_locked_away", _root(0, 0), "the root user has no MFA"),
    ("root_is_locked_away", _root(1, 1), "the root user has access keys"),
    (
        "no_snapshot_or_image_can_be_made_public",
        _sharing("block-all-sharing", "block-new-sharing"),
        "",
    ),
    (
        "no_snapshot_or_image_can_be_made_public",
        _sharing("unblocked", "block-new-sharing"),
        "sharing of snapshots is unblocked",
    ),
    (
        "no_snapshot_or_image_can_be_made_public",
        _sharing("block-all-sharing", "unblocked"),
        "sharing of images is unblocked",
    ),
    (
        "instance_credentials_need_a_session",
        _metadata(HttpTokens="required", HttpPutResponseHopLimit=1),
        "",
    ),
    ("instance_credentials_need_a_session", _metadata(), "IMDSv2 is not required by default"),
    (
        "instance_credentials_need_a_session",
        _metadata(HttpTokens="required", HttpPutResponseHopLimit=2),
        "credentials travel 2 hops",
    ),
    ("no_network_can_be_opened_to_the_internet", _internet("block-bidirectional"), ""),
    ("no_network_can_be_opened_to_the_internet", _internet("off"), "public access is off"),
    ("disks_are_encrypted_with_a_key_of_ours", _disk_key("CUSTOMER"), ""),
    ("disks_are_encrypted_with_a_key_of_ours", _disk_key("AWS"), "the default key of disks is"),
    ("access_is_analysed", _analysers("ACCOUNT", "ACCOUNT_UNUSED_ACCESS"), ""),
    ("access_is_analysed", _analysers("ORGANIZATION", "ORGANIZATION_UNUSED_ACCESS"), ""),
    ("access_is_analysed", _analysers("ACCOUNT"), "no analyser ACCOUNT_UNUSED_ACCESS"),
    ("access_is_analysed", _analysers(), "no analyser ACCOUNT"),
    ("the_account_is_judged_by_standards", _judged(*standards(REGION).values()), ""),
    (
        "the_account_is_judged_by_standards",
        _judged(*list(standards(REGION).values())[:2]),
        "does not judge by nist-800-53",
    ),
]


@pytest.mark.parametrize(("check", "answers", "says"), ANSWERS)
def test_what_is_not_emulated_is_decided_by_what_aws_answers(
    check: str, answers: Answers, says: str, environment: Environment
) -> None:
    session = boto3.Session(
        region_name=REGION,
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",  # noqa: S106
    )
    cloud = Cloud(session, environment)
    stubs: dict[str, Stubber] = {}
    for service, operation, answer in answers:
        stub = stubs.setdefault(service, Stubber(cloud.client(service)))
        stub.add_response(operation, answer)
        stub.activate()
    name = f"test_{check}"
    failed = failing({name: CHECKS[name]}, cloud)
    assert says in failed.get(name, "")
    assert bool(failed) is bool(says)


def test_everything_recorded_is_decided_once_and_refused_once() -> None:
    for good in (True, False):
        assert {f"test_{check}" for check, _, says in ANSWERS if bool(says) is not good} == RECORDED

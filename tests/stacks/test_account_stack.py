"""The account stack's resources, both created and only recorded ones."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ringfence.cloud.alarms import ALARMS
from ringfence.cloud.detection import standards
from ringfence.cloud.managed_rules import history_days, managed_rules
from ringfence.cloud.passwords import password_policy
from ringfence.controls.catalogue import load
from ringfence.rehearsal.record import Rehearsal, Status

RECORDED = {
    "aws:accessanalyzer/analyzer:Analyzer",
    "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess",
    "aws:ec2/imageBlockPublicAccess:ImageBlockPublicAccess",
    "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults",
    "aws:ec2/serialConsoleAccess:SerialConsoleAccess",
    "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions",
    "aws:securityhub/standardsSubscription:StandardsSubscription",
}
SERVICES_WITHOUT_TAGS = (
    "aws:macie2/",
    *("aws:s3/bucket", "aws:s3/account", "aws:ebs/", "aws:securityhub/"),
    *("aws:iam/group", "aws:iam/rolePolicy", "aws:iam/accountPasswordPolicy", "aws:kms/alias"),
    *("aws:cfg/recorder", "aws:cfg/deliveryChannel", "aws:cfg/retentionConfiguration"),
    *("aws:cloudwatch/logMetricFilter", "aws:sns/topicPolicy", "aws:sns/topicSubscription"),
    *("aws:guardduty/detectorFeature", "aws:ec2/vpcBlock", "aws:ec2/imageBlock"),
    *("aws:ec2/serialConsole", "aws:ec2/instanceMetadata"),
)


def inputs(account: Rehearsal, token: str) -> list[dict[str, Any]]:
    return [dict(resource.inputs) for resource in account.of_type(token)]


def test_what_is_not_emulated_is_counted_as_such(account: Rehearsal) -> None:
    recorded = [r.type for r in account.resources if r.status is Status.RECORDED]
    assert set(recorded) == RECORDED
    assert account.counts[Status.MOTO] > 100


def test_what_is_recorded_was_declared_as_it_should(account: Rehearsal) -> None:
    (metadata,) = inputs(account, "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults")
    assert (metadata["httpTokens"], metadata["httpPutResponseHopLimit"]) == ("required", 1)
    (snapshots,) = inputs(account, "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess")
    assert snapshots == {"state": "block-all-sharing"}
    (images,) = inputs(account, "aws:ec2/imageBlockPublicAccess:ImageBlockPublicAccess")
    assert images == {"state": "block-new-sharing"}
    (console,) = inputs(account, "aws:ec2/serialConsoleAccess:SerialConsoleAccess")
    assert console == {"enabled": False}
    (vpc,) = inputs(account, "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions")
    assert vpc == {"internetGatewayBlockMode": "block-bidirectional"}
    subscribed = inputs(account, "aws:securityhub/standardsSubscription:StandardsSubscription")
    assert {each["standardsArn"] for each in subscribed} == {*standards("eu-central-1").values()}
    analysers = inputs(account, "aws:accessanalyzer/analyzer:Analyzer")
    assert {a["type"]: a.get("configuration") for a in analysers} == {
        "ACCOUNT": None,
        "ACCOUNT_UNUSED_ACCESS": {"unusedAccess": {"unusedAccessAge": 45}},
    }


def test_everything_says_that_all_environments_share_it(account: Rehearsal) -> None:
    silent = [
        resource.type
        for resource in account.resources
        if resource.status is not Status.NONE
        and not resource.type.startswith(SERVICES_WITHOUT_TAGS)
        and resource.inputs.get("tags", {}).get("ringfence:scope") != "account"
    ]
    assert silent == []
    buckets = inputs(account, "aws:s3/bucket:Bucket")
    assert {bucket["tags"]["ringfence:class"] for bucket in buckets} == {"confidential"}


def test_nothing_belongs_to_one_environment(account: Rehearsal) -> None:
    """An environment's checks find its resources by this tag."""
    tagged = [
        r.name for r in account.resources if "ringfence:environment" in r.inputs.get("tags", {})
    ]
    assert tagged == []


def test_what_holds_evidence_is_protected(account: Rehearsal) -> None:
    assert {resource.type for resource in account.resources if resource.protect} == {
        "aws:cloudtrail/trail:Trail",
        "aws:cloudwatch/logGroup:LogGroup",
        "aws:kms/key:Key",
        "aws:s3/bucket:Bucket",
    }
    assert not any(bucket["forceDestroy"] for bucket in inputs(account, "aws:s3/bucket:Bucket"))


def test_components_register_their_outputs(account: Rehearsal) -> None:
    components = [r for r in account.resources if r.type.startswith("ringfence:")]
    assert len(components) == 11
    assert not [c.name for c in components if not c.outputs]


def test_config_cannot_deliver_to_a_locked_bucket(account: Rehearsal) -> None:
    """https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-config-deliverychannel.html"""
    (channel,) = inputs(account, "aws:cfg/deliveryChannel:DeliveryChannel")
    locked = account.of_type("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
    assert channel["s3BucketName"] not in {each.inputs["bucket"] for each in locked}


def test_evidence_is_locked_for_good_in_production_only(account: Rehearsal) -> None:
    kind = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
    ((lock),) = inputs(account, kind)
    assert lock["rule"] == {"defaultRetention": {"mode": "COMPLIANCE", "days": 730}}


def test_passwords_are_those_of_the_hosts(account: Rehearsal) -> None:
    policy = password_policy()
    assert (policy.min_length, policy.history, policy.max_days) == (15, 24, 365)
    (found,) = inputs(account, "aws:iam/accountPasswordPolicy:AccountPasswordPolicy")
    assert found["minimumPasswordLength"] == 15


def test_rules_and_alarms_are_of_known_controls() -> None:
    rules = managed_rules()
    assert {rule.control for rule in rules} <= load().keys()
    assert len({rule.identifier for rule in rules}) == len(rules)
    assert [alarm.reference for alarm in ALARMS] == [f"CloudWatch.{n}" for n in range(1, 15)]
    assert len({alarm.key for alarm in ALARMS}) == len(ALARMS)


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.key)
def test_patterns_are_well_formed(alarm: Any) -> None:
    pattern = alarm.pattern
    assert pattern.startswith("{")
    assert pattern.endswith("}")
    assert pattern.count("(") == pattern.count(")")
    assert len(pattern) <= 1024
    assert re.search(r"\$\.\w+", pattern)


@pytest.mark.parametrize(("wanted", "kept"), [(1, 30), (730, 730), (3650, 2557)])
def test_history_is_within_what_config_keeps(wanted: int, kept: int) -> None:
    assert history_days(wanted) == kept

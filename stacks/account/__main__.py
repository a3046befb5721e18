"""Wires the components of an account together. `ringfence.cloud` decides what they contain."""

from __future__ import annotations

from functools import partial

import pulumi
import pulumi_aws as aws

from ringfence.cloud import evidence
from ringfence.cloud.alarms import ALARMS, METRICS
from ringfence.cloud.sessions import PREFERENCES
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment
from stacks.components.data.account_defaults import AccountDefaults, AccountDefaultsArgs
from stacks.components.data.account_keys import AccountKeys, AccountKeysArgs
from stacks.components.identity.session_manager import SessionManager, SessionManagerArgs
from stacks.components.identity.sign_in import SignIn, SignInArgs
from stacks.components.monitoring.alerts import Alerts, AlertsArgs
from stacks.components.monitoring.configuration import (
    ConfigurationRecorder,
    ConfigurationRecorderArgs,
)
from stacks.components.monitoring.detection import Detection, DetectionArgs
from stacks.components.monitoring.evidence_bucket import EvidenceBucket, EvidenceBucketArgs
from stacks.components.monitoring.trail import Trail, TrailArgs

environment = Environment.load(pulumi.Config().require("manifest"))
place = environment.provisioning
if place is None:
    raise pulumi.RunError(f"{environment.path}: provisioning.aws is missing; add it")
name, region = "account", place.region
prefix, days = f"{name}-", environment.retention[evidence.EVIDENCE_CLASS]

provider = aws.Provider("aws", region=region)
account = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=provider)).account_id
opts = pulumi.ResourceOptions(provider=provider)
tagged = partial(account_tags, environment)

keys = AccountKeys(
    f"{name}-key",
    AccountKeysArgs(environment=environment, account=account, region=region, prefix=prefix),
    opts,
)
access_log_bucket = EvidenceBucket(
    f"{name}-access-logs",
    EvidenceBucketArgs(
        environment=environment,
        key_arn=None,
        policy=lambda bucket: evidence.access_log_bucket_policy(
            bucket=bucket, account=account, prefix=prefix
        ),
        retention_days=days,
        locked=False,
    ),
    opts,
)
trail_bucket = EvidenceBucket(
    f"{name}-trail",
    EvidenceBucketArgs(
        environment=environment,
        key_arn=keys.evidence,
        policy=lambda bucket: evidence.trail_bucket_policy(
            bucket=bucket, account=account, region=region, prefix=prefix
        ),
        retention_days=days,
        locked=True,
        access_logs=access_log_bucket.bucket_name,
    ),
    opts,
)
config_bucket = EvidenceBucket(
    f"{name}-configuration",
    EvidenceBucketArgs(
        environment=environment,
        key_arn=keys.evidence,
        policy=lambda bucket: evidence.config_bucket_policy(bucket=bucket, account=account),
        retention_days=days,
        locked=False,
        access_logs=access_log_bucket.bucket_name,
    ),
    opts,
)
trail = Trail(
    f"{name}-trail",
    TrailArgs(
        environment=environment,
        account=account,
        region=region,
        prefix=prefix,
        key_arn=keys.evidence,
        bucket_name=trail_bucket.bucket_name,
        evidence_arns=tuple(
            each.bucket_arn for each in (trail_bucket, config_bucket, access_log_bucket)
        ),
    ),
    opts,
)
alerts = Alerts(
    f"{name}-alerts",
    AlertsArgs(
        environment=environment,
        key_arn=keys.alerts,
        topic_policy=lambda topic: evidence.alerts_topic_policy(
            topic=topic, account=account, region=region
        ),
        tags=tagged,
        namespace=METRICS,
        alarms=((trail.group_name, ALARMS),),
    ),
    opts,
)
sessions = SessionManager(
    f"{name}-sessions",
    SessionManagerArgs(
        environment=environment,
        account=account,
        log_key_arn=keys.evidence,
        tags=tagged,
        owner="the account",
        document=PREFERENCES,
    ),
    opts,
)
ConfigurationRecorder(
    f"{name}-configuration",
    ConfigurationRecorderArgs(
        environment=environment,
        bucket_name=config_bucket.bucket_name,
        key_arn=keys.evidence,
        retention_days=days,
    ),
    opts,
)
detection = Detection(
    f"{name}-detection", DetectionArgs(environment=environment, region=region), opts
)
sign_in = SignIn(f"{name}-sign-in", SignInArgs(environment=environment, account=account), opts)
AccountDefaults(
    f"{name}-defaults",
    AccountDefaultsArgs(environment=environment, disks_key_arn=keys.disks),
    opts,
)

pulumi.export("trail_arn", trail.arn)
pulumi.export("trail_bucket", trail_bucket.bucket_name)
pulumi.export("configuration_bucket", config_bucket.bucket_name)
pulumi.export("access_log_bucket", access_log_bucket.bucket_name)
pulumi.export("alerts_topic_arn", alerts.topic_arn)
pulumi.export("alerts_key_arn", keys.alerts)
pulumi.export("session_log_group", sessions.log_group_name)
pulumi.export("detector_id", detection.detector_id)
pulumi.export("people_group", sign_in.group_name)
pulumi.export("audit_role_arn", sign_in.audit_role_arn)

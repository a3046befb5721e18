"""Wires the components of an account together; what they declare is decided elsewhere."""

from __future__ import annotations

from functools import partial

import pulumi
import pulumi_aws as aws

from ringfence.cloud import evidence
from ringfence.cloud import sessions as sessions_of
from ringfence.cloud.alarms import ALARMS, METRICS
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment
from stacks.components.data.account_defaults import AccountDefaults, AccountDefaultsArgs
from stacks.components.data.account_keys import AccountKeys, AccountKeysArgs
from stacks.components.identity.session_manager import SessionManager, SessionManagerArgs
from stacks.components.identity.sign_in import SignIn, SignInArgs
from stacks.components.monitoring.alerts import Alerts, AlertsArgs
from stacks.components.monitoring.configuration import Configuration, ConfigurationArgs
from stacks.components.monitoring.detection import Detection, DetectionArgs
from stacks.components.monitoring.evidence_bucket import EvidenceBucket, EvidenceBucketArgs
from stacks.components.monitoring.trail import Trail, TrailArgs

environment = Environment.load(pulumi.Config().require("manifest"))
place = environment.provisioning
if place is None:
    raise pulumi.RunError(f"{environment.path}: nothing says where; add provisioning.aws")
name, region = "account", place.region
prefix, days = f"{name}-", environment.retention[evidence.EVIDENCE_CLASS]

provider = aws.Provider("aws", region=region)
account = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=provider)).account_id
opts = pulumi.ResourceOptions(provider=provider)
tagged = partial(account_tags, environment)

keys = AccountKeys(f"{name}-key", AccountKeysArgs(environment, account, region, prefix), opts)
access_log_bucket = EvidenceBucket(
    f"{name}-access-logs",
    EvidenceBucketArgs(
        environment,
        None,
        partial(evidence.access_log_bucket_policy, account=account, prefix=prefix),
        days,
        locked=False,
    ),
    opts,
)
trail_bucket = EvidenceBucket(
    f"{name}-trail",
    EvidenceBucketArgs(
        environment,
        keys.evidence,
        partial(evidence.trail_bucket_policy, account=account, region=region, prefix=prefix),
        days,
        locked=True,
        access_logs=access_log_bucket.bucket_name,
    ),
    opts,
)
config_bucket = EvidenceBucket(
    f"{name}-configuration",
    EvidenceBucketArgs(
        environment,
        keys.evidence,
        partial(evidence.config_bucket_policy, account=account),
        days,
        locked=False,
        access_logs=access_log_bucket.bucket_name,
    ),
    opts,
)
trail = Trail(
    f"{name}-trail",
    TrailArgs(
        environment,
        account,
        region,
        prefix,
        keys.evidence,
        trail_bucket.bucket_name,
        tuple(b.bucket_arn for b in (trail_bucket, config_bucket, access_log_bucket)),
    ),
    opts,
)
alerts = Alerts(
    f"{name}-alerts",
    AlertsArgs(
        environment,
        keys.alerts,
        partial(evidence.alerts_topic_policy, account=account, region=region),
        tagged,
        METRICS,
        ((trail.group_name, ALARMS),),
    ),
    opts,
)
sessions = SessionManager(
    f"{name}-sessions",
    SessionManagerArgs(
        environment, account, keys.evidence, tagged, "the account", sessions_of.PREFERENCES
    ),
    opts,
)
Configuration(
    f"{name}-configuration",
    ConfigurationArgs(environment, config_bucket.bucket_name, keys.evidence, days),
    opts,
)
detection = Detection(f"{name}-detection", DetectionArgs(environment, region), opts)
sign_in = SignIn(f"{name}-sign-in", SignInArgs(environment, account), opts)
AccountDefaults(f"{name}-defaults", AccountDefaultsArgs(environment, keys.disks), opts)

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

"""Managed rules of AWS Config that evaluate our controls continuously.

https://docs.aws.amazon.com/config/latest/developerguide/managed-rules-by-aws-config.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ringfence.cloud.passwords import password_policy


@dataclass(frozen=True)
class ManagedRule:
    identifier: str
    control: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.identifier.lower().replace("_", "-")


def managed_rules() -> tuple[ManagedRule, ...]:
    passwords = password_policy()
    policy = {
        "MinimumPasswordLength": passwords.min_length,
        "PasswordReusePrevention": passwords.history,
        "MaxPasswordAge": passwords.max_days,
    }
    return (
        ManagedRule("IAM_USER_UNUSED_CREDENTIALS_CHECK", "IAM-04", {"maxCredentialUsageAge": "45"}),
        ManagedRule("IAM_USER_MFA_ENABLED", "IAM-05"),
        ManagedRule("MFA_ENABLED_FOR_IAM_CONSOLE_ACCESS", "IAM-05"),
        ManagedRule("ROOT_ACCOUNT_MFA_ENABLED", "IAM-05"),
        ManagedRule("IAM_ROOT_ACCESS_KEY_CHECK", "IAM-05"),
        ManagedRule(
            "IAM_PASSWORD_POLICY", "IAM-06", {name: str(each) for name, each in policy.items()}
        ),
        ManagedRule("IAM_POLICY_NO_STATEMENTS_WITH_ADMIN_ACCESS", "IAM-07"),
        ManagedRule("IAM_USER_NO_POLICIES_CHECK", "IAM-07"),
        ManagedRule("S3_ACCOUNT_LEVEL_PUBLIC_ACCESS_BLOCKS_PERIODIC", "IAM-07"),
        ManagedRule("S3_BUCKET_LEVEL_PUBLIC_ACCESS_PROHIBITED", "IAM-07"),
        ManagedRule("EBS_SNAPSHOT_PUBLIC_RESTORABLE_CHECK", "IAM-07"),
        ManagedRule("EC2_IMDSV2_CHECK", "IAM-07"),
        ManagedRule("ACCESS_KEYS_ROTATED", "IAM-08", {"maxAccessKeyAge": "90"}),
        ManagedRule("SECRETSMANAGER_ROTATION_ENABLED_CHECK", "IAM-08"),
        ManagedRule("NO_UNRESTRICTED_ROUTE_TO_IGW", "NET-01"),
        ManagedRule("VPC_DEFAULT_SECURITY_GROUP_CLOSED", "NET-02"),
        ManagedRule("INCOMING_SSH_DISABLED", "NET-02"),
        ManagedRule("EC2_INSTANCE_NO_PUBLIC_IP", "NET-03"),
        ManagedRule("SUBNET_AUTO_ASSIGN_PUBLIC_IP_DISABLED", "NET-03"),
        ManagedRule("VPC_FLOW_LOGS_ENABLED", "NET-05"),
        ManagedRule("CMK_BACKING_KEY_ROTATION_ENABLED", "DAT-02"),
        ManagedRule("EC2_EBS_ENCRYPTION_BY_DEFAULT", "DAT-02"),
        ManagedRule("ENCRYPTED_VOLUMES", "DAT-02"),
        ManagedRule("S3_DEFAULT_ENCRYPTION_KMS", "DAT-02"),
        ManagedRule("CLOUDWATCH_LOG_GROUP_ENCRYPTED", "DAT-02"),
        ManagedRule("SECRETSMANAGER_USING_CMK", "DAT-02"),
        ManagedRule("SNS_ENCRYPTED_KMS", "DAT-02"),
        ManagedRule("S3_BUCKET_SSL_REQUESTS_ONLY", "DAT-03"),
        ManagedRule("MULTI_REGION_CLOUD_TRAIL_ENABLED", "MON-01"),
        ManagedRule("CLOUD_TRAIL_ENCRYPTION_ENABLED", "MON-01"),
        ManagedRule("CLOUD_TRAIL_LOG_FILE_VALIDATION_ENABLED", "MON-01"),
        ManagedRule("CLOUD_TRAIL_CLOUD_WATCH_LOGS_ENABLED", "MON-01"),
        ManagedRule("KMS_CMK_NOT_SCHEDULED_FOR_DELETION", "MON-01"),
        ManagedRule("GUARDDUTY_ENABLED_CENTRALIZED", "MON-03"),
        ManagedRule("SECURITYHUB_ENABLED", "MON-03"),
    )


def history_days(wanted: int) -> int:
    """Retention in Config, within its limits. The bucket has the retention of the manifest.

    https://docs.aws.amazon.com/config/latest/APIReference/API_PutRetentionConfiguration.html
    """
    return min(max(wanted, 30), 2557)

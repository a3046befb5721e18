"""Detectors of the account: features of GuardDuty, standards of Security Hub (MON-03)."""

from __future__ import annotations

GUARDDUTY_FEATURES = ("EBS_MALWARE_PROTECTION", "RUNTIME_MONITORING", "S3_DATA_EVENTS")
"""Features for the services that an environment uses: disks, hosts, buckets.

https://docs.aws.amazon.com/guardduty/latest/ug/guardduty-features-activation-model.html
"""
RUNTIME_AGENT = "EC2_AGENT_MANAGEMENT"
"""Addition to RUNTIME_MONITORING: GuardDuty installs its agent on hosts."""

UNUSED_DAYS = 45
"""A permission unused for longer is a finding; CIS says the same of credentials."""


def standards(region: str) -> dict[str, str]:
    """Return the ARNs of the standards by a short key.

    https://docs.aws.amazon.com/securityhub/latest/userguide/standards-reference.html
    """
    prefix = f"arn:aws:securityhub:{region}::standards"
    return {
        "foundational": f"{prefix}/aws-foundational-security-best-practices/v/1.0.0",
        "cis": f"{prefix}/cis-aws-foundations-benchmark/v/3.0.0",
        "nist-800-53": f"{prefix}/nist-800-53/v/5.0.0",
    }

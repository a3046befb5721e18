"""What watches the account: GuardDuty's features, Security Hub's standards (MON-03)."""

from __future__ import annotations

GUARDDUTY_FEATURES = ("EBS_MALWARE_PROTECTION", "RUNTIME_MONITORING", "S3_DATA_EVENTS")
"""Those for services that an environment uses: disks, hosts, buckets. No EKS, RDS or Lambda.

https://docs.aws.amazon.com/guardduty/latest/ug/guardduty-features-activation-model.html
"""
RUNTIME_AGENT = "EC2_AGENT_MANAGEMENT"
"""Additional to RUNTIME_MONITORING: GuardDuty installs its own agent on hosts."""

UNUSED_DAYS = 45
"""After which a permission nobody used is a finding; CIS says the same of credentials."""


def standards(region: str) -> dict[str, str]:
    """ARNs by a short key.

    https://docs.aws.amazon.com/securityhub/latest/userguide/standards-reference.html
    """
    prefix = f"arn:aws:securityhub:{region}::standards"
    return {
        "foundational": f"{prefix}/aws-foundational-security-best-practices/v/1.0.0",
        "cis": f"{prefix}/cis-aws-foundations-benchmark/v/3.0.0",
        "nist-800-53": f"{prefix}/nist-800-53/v/5.0.0",
    }

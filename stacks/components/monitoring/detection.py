"""AWS's detectors: attacks, deviations from standards, unused access, personal data in buckets.

GuardDuty and Security Hub serve MON-03, IAM Access Analyzer IAM-04, Macie DAT-04.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import detection
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment

CONTROLS = ("MON-03", "IAM-04", "DAT-04")
ATTACKS, REVIEW, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class DetectionArgs:
    environment: Environment
    region: str


class Detection(pulumi.ComponentResource):
    detector_id: pulumi.Output[str]

    def __init__(
        self, name: str, args: DetectionArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Detection", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        environment = args.environment
        detector = aws.guardduty.Detector(
            name,
            enable=True,
            finding_publishing_frequency="FIFTEEN_MINUTES",
            tags=account_tags(environment, "detector", control=ATTACKS),
            opts=child,
        )
        for feature in detection.GUARDDUTY_FEATURES:
            agent = aws.guardduty.DetectorFeatureAdditionalConfigurationArgs(
                name=detection.RUNTIME_AGENT, status="ENABLED"
            )
            aws.guardduty.DetectorFeature(
                f"{name}-{feature.lower().replace('_', '-')}",
                detector_id=detector.id,
                name=feature,
                status="ENABLED",
                additional_configurations=[agent] if feature == "RUNTIME_MONITORING" else None,
                opts=child,
            )
        hub = aws.securityhub.Account(
            name,
            enable_default_standards=False,
            auto_enable_controls=True,
            control_finding_generator="SECURITY_CONTROL",
            opts=child,
        )
        for key, arn in detection.standards(args.region).items():
            aws.securityhub.StandardsSubscription(
                f"{name}-{key}",
                standards_arn=arn,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[hub]),
            )
        if environment.provisioning and environment.provisioning.macie:
            aws.macie2.Account(
                name, status="ENABLED", finding_publishing_frequency="FIFTEEN_MINUTES", opts=child
            )
        aws.accessanalyzer.Analyzer(
            f"{name}-external",
            analyzer_name=f"{name}-external",
            type="ACCOUNT",
            tags=account_tags(environment, "access-from-outside", control=REVIEW),
            opts=child,
        )
        aws.accessanalyzer.Analyzer(
            f"{name}-unused",
            analyzer_name=f"{name}-unused",
            type="ACCOUNT_UNUSED_ACCESS",
            configuration={"unused_access": {"unused_access_age": detection.UNUSED_DAYS}},
            tags=account_tags(environment, "access-unused", control=REVIEW),
            opts=child,
        )
        self.detector_id = detector.id
        self.register_outputs({"detector_id": self.detector_id})

"""Sample events in the form of AWS, to test rules and functions with.

https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings_eventbridge.html
https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-cwe-event-formats.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]
TIME = "2026-03-01T12:00:00Z"
DETECTOR = "12abc34d567e8fa901bc2d34e56789f0"


@dataclass(frozen=True)
class SampleEvents:
    """Fields that AWS adds to every event of an account."""

    account: str
    region: str
    detector: str = DETECTOR

    def event(self, source: str, kind: str, detail: Event, id_: str) -> Event:
        return {
            "version": "0",
            "id": id_,
            "detail-type": kind,
            "source": source,
            "account": self.account,
            "time": TIME,
            "region": self.region,
            "resources": [],
            "detail": detail,
        }

    def guardduty(
        self,
        instance: str,
        *,
        severity: float = 8,
        kind: str = "CryptoCurrency:EC2/BitcoinTool.B!DNS",
        id_: str = "7b2f6d2e-6a5c-4b1e-9d1f-3a1b5c7d9e0f",
    ) -> Event:
        finding = "96c1d9a3e6b74f5ba8f0d2c4b6a8e0f1"
        where = f"arn:aws:guardduty:{self.region}:{self.account}:detector/{self.detector}"
        interface = {
            "networkInterfaceId": "eni-0abcdef0123456789",
            "privateIpAddress": "10.40.16.10",
            "subnetId": "subnet-0abcdef0123456789",
            "vpcId": "vpc-0abcdef0123456789",
            "securityGroups": [{"groupName": "base", "groupId": "sg-0abcdef0123456789"}],
            "ipv6Addresses": [],
        }
        detail = {
            "schemaVersion": "2.0",
            "accountId": self.account,
            "region": self.region,
            "partition": "aws",
            "id": finding,
            "arn": f"{where}/finding/{finding}",
            "type": kind,
            "resource": {
                "resourceType": "Instance",
                "instanceDetails": {
                    "instanceId": instance,
                    "instanceType": "t4g.small",
                    "launchTime": TIME,
                    "platform": None,
                    "productCodes": [],
                    "networkInterfaces": [interface],
                    "tags": [],
                    "instanceState": "running",
                    "availabilityZone": f"{self.region}a",
                    "imageId": "ami-0abcdef0123456789",
                    "imageDescription": "Debian 13",
                },
            },
            "service": {
                "serviceName": "guardduty",
                "detectorId": self.detector,
                "action": {
                    "actionType": "DNS_REQUEST",
                    "dnsRequestAction": {"domain": "pool.example", "protocol": "UDP"},
                },
                "resourceRole": "ACTOR",
                "additionalInfo": {"threatListName": "ProofPoint", "type": "default"},
                "eventFirstSeen": TIME,
                "eventLastSeen": TIME,
                "archived": False,
                "count": 1,
            },
            "severity": severity,
            "createdAt": TIME,
            "updatedAt": TIME,
            "title": "An instance asked for a domain of a mining pool.",
            "description": "An instance asked for a domain of a mining pool.",
        }
        return self.event("aws.guardduty", "GuardDuty Finding", detail, id_)

    def security_hub(
        self,
        instance: str,
        *,
        label: str = "HIGH",
        kind: str = "TTPs/Command and Control/Beaconing",
        product: str = "Example Detector",
        status: str = "NEW",
        id_: str = "0c9e8d7f-1a2b-4c3d-8e4f-5a6b7c8d9e0f",
    ) -> Event:
        where = f"arn:aws:securityhub:{self.region}:{self.account}:product"
        volume = f"arn:aws:ec2:{self.region}:{self.account}:volume/vol-0abcdef0123456789"
        machine = f"arn:aws:ec2:{self.region}:{self.account}:instance/{instance}"
        finding = {
            "SchemaVersion": "2018-10-08",
            "Id": f"{self.region}/{self.account}/96c1d9a3e6b74f5b",
            "ProductArn": f"{where}/{self.account}/default",
            "ProductName": product,
            "CompanyName": "Example",
            "GeneratorId": "beaconing",
            "AwsAccountId": self.account,
            "Types": [kind],
            "FirstObservedAt": TIME,
            "CreatedAt": TIME,
            "UpdatedAt": TIME,
            "Severity": {"Label": label, "Normalized": 70},
            "Title": "An instance talks to a command server",
            "Description": "An instance talks to a command server",
            "Resources": [
                {"Type": "AwsEc2Volume", "Id": volume, "Partition": "aws", "Region": self.region},
                {
                    "Type": "AwsEc2Instance",
                    "Id": machine,
                    "Partition": "aws",
                    "Region": self.region,
                    "Details": {"AwsEc2Instance": {"LaunchedAt": TIME}},
                },
            ],
            "WorkflowState": "NEW",
            "Workflow": {"Status": status},
            "RecordState": "ACTIVE",
        }
        kind_ = "Security Hub Findings - Imported"
        return self.event("aws.securityhub", kind_, {"findings": [finding]}, id_)

    def request(
        self,
        instance: str,
        *,
        kind: str = "Ringfence Containment Request",
        id_: str = "5d4c3b2a-9f8e-4d7c-a6b5-c4d3e2f1a0b9",
        **detail: str,
    ) -> Event:
        said = {"reason": "it answers strangely", "requested_by": "alice", **detail}
        return self.event("ringfence", kind, {"instance": instance, **said}, id_)

"""Alarms on the account's trail, as the CIS AWS Foundations Benchmark demands them.

The patterns are Security Hub's, because Security Hub compares them.
https://docs.aws.amazon.com/securityhub/latest/userguide/cloudwatch-controls.html
"""

from __future__ import annotations

from dataclasses import dataclass

METRICS = "Ringfence/Account"
"""Namespace of the metrics that count events in the trail."""


@dataclass(frozen=True)
class Alarm:
    key: str
    reference: str
    """Control that demands it: Security Hub's, or one of ours."""
    message: str
    pattern: str
    value: str = "1"
    """Amount per event: a number, or the name of a field."""
    threshold: int = 1
    seconds: int = 60
    """Period in which the count must reach the threshold."""
    when_missing: str = "notBreaching"


def _any(*events: str) -> str:
    return " || ".join(f"($.eventName={event})" for event in events)


def _of(service: str, *events: str) -> str:
    return f"{{($.eventSource={service}.amazonaws.com) && ({_any(*events)})}}"


ALARMS: tuple[Alarm, ...] = (
    Alarm(
        "root",
        "CloudWatch.1",
        "The root user acted",
        '{$.userIdentity.type="Root" && $.userIdentity.invokedBy NOT EXISTS '
        '&& $.eventType !="AwsServiceEvent"}',
    ),
    Alarm(
        "unauthorized",
        "CloudWatch.2",
        "AWS refused a call for lack of permission",
        '{($.errorCode="*UnauthorizedOperation") || ($.errorCode="AccessDenied*")}',
    ),
    Alarm(
        "console-without-mfa",
        "CloudWatch.3",
        "Somebody signed in without a second factor",
        '{ ($.eventName = "ConsoleLogin") && ($.additionalEventData.MFAUsed != "Yes") '
        '&& ($.userIdentity.type = "IAMUser") '
        '&& ($.responseElements.ConsoleLogin = "Success") }',
    ),
    Alarm(
        "iam",
        "CloudWatch.4",
        "An IAM policy was changed",
        _of(
            "iam",
            *("DeleteGroupPolicy", "DeleteRolePolicy", "DeleteUserPolicy", "PutGroupPolicy"),
            *("PutRolePolicy", "PutUserPolicy", "CreatePolicy", "DeletePolicy"),
            *("CreatePolicyVersion", "DeletePolicyVersion", "AttachRolePolicy"),
            *("DetachRolePolicy", "AttachUserPolicy", "DetachUserPolicy"),
            *("AttachGroupPolicy", "DetachGroupPolicy"),
        ),
    ),
    Alarm(
        "trail",
        "CloudWatch.5",
        "A trail was changed, started or stopped",
        f"{{{_any('CreateTrail', 'UpdateTrail', 'DeleteTrail', 'StartLogging', 'StopLogging')}}}",
    ),
    Alarm(
        "console-failures",
        "CloudWatch.6",
        "A sign-in failed",
        '{($.eventName=ConsoleLogin) && ($.errorMessage="Failed authentication")}',
    ),
    Alarm(
        "keys",
        "CloudWatch.7",
        "A key was disabled or scheduled for deletion",
        _of("kms", "DisableKey", "ScheduleKeyDeletion"),
    ),
    Alarm(
        "buckets",
        "CloudWatch.8",
        "Access to a bucket was changed",
        _of(
            "s3",
            *("PutBucketAcl", "PutBucketPolicy", "PutBucketCors", "PutBucketLifecycle"),
            *("PutBucketReplication", "DeleteBucketPolicy", "DeleteBucketCors"),
            *("DeleteBucketLifecycle", "DeleteBucketReplication"),
        ),
    ),
    Alarm(
        "config",
        "CloudWatch.9",
        "The recording of configurations was changed",
        _of(
            "config",
            *("StopConfigurationRecorder", "DeleteDeliveryChannel", "PutDeliveryChannel"),
            "PutConfigurationRecorder",
        ),
    ),
    Alarm(
        "security-groups",
        "CloudWatch.10",
        "A security group was changed",
        "{"
        + _any(
            *("AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"),
            *("RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress"),
            *("CreateSecurityGroup", "DeleteSecurityGroup"),
        )
        + "}",
    ),
    Alarm(
        "network-acls",
        "CloudWatch.11",
        "A network ACL was changed",
        "{"
        + _any(
            *("CreateNetworkAcl", "CreateNetworkAclEntry", "DeleteNetworkAcl"),
            *("DeleteNetworkAclEntry", "ReplaceNetworkAclEntry", "ReplaceNetworkAclAssociation"),
        )
        + "}",
    ),
    Alarm(
        "gateways",
        "CloudWatch.12",
        "An internet or customer gateway was changed",
        "{"
        + _any(
            *("CreateCustomerGateway", "DeleteCustomerGateway", "AttachInternetGateway"),
            *("CreateInternetGateway", "DeleteInternetGateway", "DetachInternetGateway"),
        )
        + "}",
    ),
    Alarm(
        "routes",
        "CloudWatch.13",
        "A route was changed",
        _of(
            "ec2",
            *("CreateRoute", "CreateRouteTable", "ReplaceRoute", "ReplaceRouteTableAssociation"),
            *("DeleteRouteTable", "DeleteRoute", "DisassociateRouteTable"),
        ),
    ),
    Alarm(
        "vpcs",
        "CloudWatch.14",
        "A VPC or its connections were changed",
        "{"
        + _any(
            *("CreateVpc", "DeleteVpc", "ModifyVpcAttribute", "AcceptVpcPeeringConnection"),
            *("CreateVpcPeeringConnection", "DeleteVpcPeeringConnection"),
            *("RejectVpcPeeringConnection", "AttachClassicLinkVpc", "DetachClassicLinkVpc"),
            *("DisableVpcClassicLink", "EnableVpcClassicLink"),
        )
        + "}",
    ),
)

"""Terraform's names for resources of Pulumi's AWS provider, which is made from Terraform's.

Pulumi's SDK says which properties are nested and whether once or often; the rest is the
bridge's rule for names, https://github.com/pulumi/pulumi-terraform-bridge: camel case, and
a plural where Terraform repeats a block. The tables list exceptions.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from keyword import iskeyword
from typing import Any

from pulumi import _types as sdk

from ringfence.rehearsal.record import RehearsalError

TYPES: Mapping[str, str] = {
    "aws:accessanalyzer/analyzer:Analyzer": "aws_accessanalyzer_analyzer",
    "aws:autoscaling/group:Group": "aws_autoscaling_group",
    "aws:autoscaling/lifecycleHook:LifecycleHook": "aws_autoscaling_lifecycle_hook",
    "aws:autoscaling/policy:Policy": "aws_autoscaling_policy",
    "aws:cfg/deliveryChannel:DeliveryChannel": "aws_config_delivery_channel",
    "aws:cfg/recorder:Recorder": "aws_config_configuration_recorder",
    "aws:cfg/recorderStatus:RecorderStatus": "aws_config_configuration_recorder_status",
    "aws:cfg/retentionConfiguration:RetentionConfiguration": "aws_config_retention_configuration",
    "aws:cfg/rule:Rule": "aws_config_config_rule",
    "aws:cloudtrail/trail:Trail": "aws_cloudtrail",
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": "aws_cloudwatch_composite_alarm",
    "aws:cloudwatch/eventBus:EventBus": "aws_cloudwatch_event_bus",
    "aws:cloudwatch/eventBusPolicy:EventBusPolicy": "aws_cloudwatch_event_bus_policy",
    "aws:cloudwatch/eventRule:EventRule": "aws_cloudwatch_event_rule",
    "aws:cloudwatch/eventTarget:EventTarget": "aws_cloudwatch_event_target",
    "aws:cloudwatch/logDataProtectionPolicy:LogDataProtectionPolicy": (
        "aws_cloudwatch_log_data_protection_policy"
    ),
    "aws:cloudwatch/logGroup:LogGroup": "aws_cloudwatch_log_group",
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": "aws_cloudwatch_log_metric_filter",
    "aws:cloudwatch/logResourcePolicy:LogResourcePolicy": "aws_cloudwatch_log_resource_policy",
    "aws:cloudwatch/logSubscriptionFilter:LogSubscriptionFilter": (
        "aws_cloudwatch_log_subscription_filter"
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": "aws_cloudwatch_metric_alarm",
    "aws:ebs/defaultKmsKey:DefaultKmsKey": "aws_ebs_default_kms_key",
    "aws:ebs/encryptionByDefault:EncryptionByDefault": "aws_ebs_encryption_by_default",
    "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess": (
        "aws_ebs_snapshot_block_public_access"
    ),
    "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl": "aws_default_network_acl",
    "aws:ec2/defaultRouteTable:DefaultRouteTable": "aws_default_route_table",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": "aws_default_security_group",
    "aws:ec2/defaultVpc:DefaultVpc": "aws_default_vpc",
    "aws:ec2/eip:Eip": "aws_eip",
    "aws:ec2/flowLog:FlowLog": "aws_flow_log",
    "aws:ec2/imageBlockPublicAccess:ImageBlockPublicAccess": "aws_ec2_image_block_public_access",
    "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults": (
        "aws_ec2_instance_metadata_defaults"
    ),
    "aws:ec2/internetGateway:InternetGateway": "aws_internet_gateway",
    "aws:ec2/launchTemplate:LaunchTemplate": "aws_launch_template",
    "aws:ec2/natGateway:NatGateway": "aws_nat_gateway",
    "aws:ec2/networkAcl:NetworkAcl": "aws_network_acl",
    "aws:ec2/networkAclRule:NetworkAclRule": "aws_network_acl_rule",
    "aws:ec2/networkInterface:NetworkInterface": "aws_network_interface",
    "aws:ec2/route:Route": "aws_route",
    "aws:ec2/routeTable:RouteTable": "aws_route_table",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "aws_route_table_association",
    "aws:ec2/securityGroup:SecurityGroup": "aws_security_group",
    "aws:ec2/securityGroupAssociation:SecurityGroupAssociation": (
        "aws_vpc_endpoint_security_group_association"
    ),
    "aws:ec2/serialConsoleAccess:SerialConsoleAccess": "aws_ec2_serial_console_access",
    "aws:ec2/subnet:Subnet": "aws_subnet",
    "aws:ec2/trafficMirrorFilter:TrafficMirrorFilter": "aws_ec2_traffic_mirror_filter",
    "aws:ec2/trafficMirrorFilterRule:TrafficMirrorFilterRule": "aws_ec2_traffic_mirror_filter_rule",
    "aws:ec2/trafficMirrorSession:TrafficMirrorSession": "aws_ec2_traffic_mirror_session",
    "aws:ec2/trafficMirrorTarget:TrafficMirrorTarget": "aws_ec2_traffic_mirror_target",
    "aws:ec2/vpc:Vpc": "aws_vpc",
    "aws:ec2/vpcBlockPublicAccessExclusion:VpcBlockPublicAccessExclusion": (
        "aws_vpc_block_public_access_exclusion"
    ),
    "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions": (
        "aws_vpc_block_public_access_options"
    ),
    "aws:ec2/vpcEndpoint:VpcEndpoint": "aws_vpc_endpoint",
    "aws:ec2/vpcEndpointPolicy:VpcEndpointPolicy": "aws_vpc_endpoint_policy",
    "aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation": (
        "aws_vpc_endpoint_route_table_association"
    ),
    "aws:ec2/vpcEndpointService:VpcEndpointService": "aws_vpc_endpoint_service",
    "aws:ec2/vpcEndpointServiceAllowedPrinciple:VpcEndpointServiceAllowedPrinciple": (
        "aws_vpc_endpoint_service_allowed_principal"
    ),
    "aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation": (
        "aws_vpc_endpoint_subnet_association"
    ),
    "aws:guardduty/detector:Detector": "aws_guardduty_detector",
    "aws:guardduty/detectorFeature:DetectorFeature": "aws_guardduty_detector_feature",
    "aws:guardduty/publishingDestination:PublishingDestination": (
        "aws_guardduty_publishing_destination"
    ),
    "aws:iam/accountPasswordPolicy:AccountPasswordPolicy": "aws_iam_account_password_policy",
    "aws:iam/group:Group": "aws_iam_group",
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment": "aws_iam_group_policy_attachment",
    "aws:iam/instanceProfile:InstanceProfile": "aws_iam_instance_profile",
    "aws:iam/policy:Policy": "aws_iam_policy",
    "aws:iam/role:Role": "aws_iam_role",
    "aws:iam/rolePolicy:RolePolicy": "aws_iam_role_policy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": "aws_iam_role_policy_attachment",
    "aws:iam/serviceLinkedRole:ServiceLinkedRole": "aws_iam_service_linked_role",
    "aws:kms/alias:Alias": "aws_kms_alias",
    "aws:kms/key:Key": "aws_kms_key",
    "aws:lambda/function:Function": "aws_lambda_function",
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": (
        "aws_lambda_function_event_invoke_config"
    ),
    "aws:lambda/permission:Permission": "aws_lambda_permission",
    "aws:lb/listener:Listener": "aws_lb_listener",
    "aws:lb/loadBalancer:LoadBalancer": "aws_lb",
    "aws:lb/targetGroup:TargetGroup": "aws_lb_target_group",
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": "aws_lb_target_group_attachment",
    "aws:macie2/account:Account": "aws_macie2_account",
    "aws:macie2/classificationExportConfiguration:ClassificationExportConfiguration": (
        "aws_macie2_classification_export_configuration"
    ),
    "aws:networkfirewall/firewall:Firewall": "aws_networkfirewall_firewall",
    "aws:networkfirewall/firewallPolicy:FirewallPolicy": "aws_networkfirewall_firewall_policy",
    "aws:networkfirewall/loggingConfiguration:LoggingConfiguration": (
        "aws_networkfirewall_logging_configuration"
    ),
    "aws:networkfirewall/ruleGroup:RuleGroup": "aws_networkfirewall_rule_group",
    "aws:route53/resolverDnsSecConfig:ResolverDnsSecConfig": "aws_route53_resolver_dnssec_config",
    "aws:route53/resolverEndpoint:ResolverEndpoint": "aws_route53_resolver_endpoint",
    "aws:route53/resolverFirewallConfig:ResolverFirewallConfig": (
        "aws_route53_resolver_firewall_config"
    ),
    "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList": (
        "aws_route53_resolver_firewall_domain_list"
    ),
    "aws:route53/resolverFirewallRule:ResolverFirewallRule": "aws_route53_resolver_firewall_rule",
    "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup": (
        "aws_route53_resolver_firewall_rule_group"
    ),
    "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation": (
        "aws_route53_resolver_firewall_rule_group_association"
    ),
    "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig": (
        "aws_route53_resolver_query_log_config"
    ),
    "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation": (
        "aws_route53_resolver_query_log_config_association"
    ),
    "aws:route53/resolverRule:ResolverRule": "aws_route53_resolver_rule",
    "aws:route53/resolverRuleAssociation:ResolverRuleAssociation": (
        "aws_route53_resolver_rule_association"
    ),
    "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock": (
        "aws_s3_account_public_access_block"
    ),
    "aws:s3/bucket:Bucket": "aws_s3_bucket",
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (
        "aws_s3_bucket_lifecycle_configuration"
    ),
    "aws:s3/bucketLogging:BucketLogging": "aws_s3_bucket_logging",
    "aws:s3/bucketNotification:BucketNotification": "aws_s3_bucket_notification",
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": (
        "aws_s3_bucket_object_lock_configuration"
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": "aws_s3_bucket_ownership_controls",
    "aws:s3/bucketPolicy:BucketPolicy": "aws_s3_bucket_policy",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "aws_s3_bucket_public_access_block",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "aws_s3_bucket_server_side_encryption_configuration"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": "aws_s3_bucket_versioning",
    "aws:secretsmanager/secret:Secret": "aws_secretsmanager_secret",
    "aws:secretsmanager/secretPolicy:SecretPolicy": "aws_secretsmanager_secret_policy",
    "aws:secretsmanager/secretRotation:SecretRotation": "aws_secretsmanager_secret_rotation",
    "aws:secretsmanager/secretVersion:SecretVersion": "aws_secretsmanager_secret_version",
    "aws:securityhub/account:Account": "aws_securityhub_account",
    "aws:securityhub/standardsSubscription:StandardsSubscription": (
        "aws_securityhub_standards_subscription"
    ),
    "aws:sns/topic:Topic": "aws_sns_topic",
    "aws:sns/topicPolicy:TopicPolicy": "aws_sns_topic_policy",
    "aws:sns/topicSubscription:TopicSubscription": "aws_sns_topic_subscription",
    "aws:sqs/queue:Queue": "aws_sqs_queue",
    "aws:sqs/queuePolicy:QueuePolicy": "aws_sqs_queue_policy",
    "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy": "aws_sqs_queue_redrive_allow_policy",
    "aws:sqs/redrivePolicy:RedrivePolicy": "aws_sqs_queue_redrive_policy",
    "aws:ssm/association:Association": "aws_ssm_association",
    "aws:ssm/document:Document": "aws_ssm_document",
    "aws:ssm/parameter:Parameter": "aws_ssm_parameter",
    "aws:vpc/endpointPrivateDns:EndpointPrivateDns": "aws_vpc_endpoint_private_dns",
    "aws:vpc/endpointServicePrivateDnsVerification:EndpointServicePrivateDnsVerification": (
        "aws_vpc_endpoint_service_private_dns_verification"
    ),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "aws_vpc_security_group_egress_rule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": (
        "aws_vpc_security_group_ingress_rule"
    ),
}
PLURAL_BLOCKS = frozenset(
    {
        *("block_device_mappings", "dimensions", "exclusion_by_resource_types"),
        *("ip_set_references", "ip_sets", "metric_data_queries", "metrics", "network_interfaces"),
        *("port_sets", "rule_variables", "run_command_targets", "tag_specifications", "targets"),
    }
)
"""Repeated blocks that have a plural in Terraform too."""
SINGULAR_LISTS: Mapping[str, str] = {
    "commands": "command",
    "definitions": "definition",
    "ends_withs": "ends_with",
    "entry_points": "entry_point",
    "not_ends_withs": "not_ends_with",
    "not_starts_withs": "not_starts_with",
    "starts_withs": "starts_with",
    "vpc_zone_identifiers": "vpc_zone_identifier",
}
"""Lists of plain values that have a singular in Terraform."""
RENAMED: Mapping[tuple[str, str], str] = {
    ("aws_cloudwatch_log_subscription_filter", "log_group"): "log_group_name",
    ("aws_cloudwatch_metric_alarm", "name"): "alarm_name",
    ("aws_lambda_function", "code"): "filename",
    ("aws_lambda_function", "name"): "function_name",
    ("aws_lambda_permission", "function"): "function_name",
    ("aws_sns_topic_subscription", "topic"): "topic_arn",
}
"""Attributes that Pulumi renames."""
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("ss", "ss"), ("s", ""))


def type_of(token: str) -> str:
    """Raises `RehearsalError` for a type that nobody entered here."""
    try:
        return TYPES[token]
    except KeyError:
        raise RehearsalError(
            f"{token} has no Terraform name, and would be missing in the plan; "
            "add it to TYPES in ringfence/rehearsal/output/terraform.py"
        ) from None


def attributes(token: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A resource's properties as a plan has them: every block is a list."""
    kind = type_of(token)
    named = _named(_resource_class(token), properties)
    return {RENAMED.get((kind, name), name): value for name, value in named.items()}


def attribute(token: str, name: str) -> str:
    """The name of one property."""
    (found,) = attributes(token, {name: None})
    return found


@cache
def _resource_class(token: str) -> type:
    module, name = token.split(":")[1].split("/")[0], token.split(":")[2]
    return getattr(import_module(f"pulumi_aws.{module}{'_' if iskeyword(module) else ''}"), name)


@cache
def _names_and_types(owner: type) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    if sdk.is_output_type(owner):
        return sdk._pulumi_to_py_names_from_py_properties(owner), sdk.output_type_types(owner)
    return sdk.resource_pulumi_to_py_names(owner), sdk.resource_types(owner)


def _named(owner: type, properties: Mapping[str, Any]) -> dict[str, Any]:
    names, types = _names_and_types(owner)
    return dict(
        _property(names.get(key, key).rstrip("_"), types.get(key), value)
        for key, value in properties.items()
    )


def _property(name: str, kind: Any, value: Any) -> tuple[str, Any]:
    if _is_object(kind):
        return name, [_named(kind, value)] if isinstance(value, Mapping) else value
    if typing.get_origin(kind) in (Sequence, list):
        item = sdk.unwrap_type(typing.get_args(kind)[0])
        if _is_object(item):
            blocks = value and [_named(item, each) for each in value]
            return (name if name in PLURAL_BLOCKS else _singular(name)), blocks
        return SINGULAR_LISTS.get(name, name), value
    return name, value


def _is_object(kind: Any) -> bool:
    return isinstance(kind, type) and sdk.is_output_type(kind)


def _singular(name: str) -> str:
    for ending, singular in _ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending) + singular
    return name

"""For every rule of the policy pack: a resource that breaks only this rule, and one that almost
does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stacks.policy.rules import DeclaredResource

ACCOUNT = "111122223333"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1"
TAGS = {
    "ringfence:environment": "payments-prod",
    "ringfence:control": "NET-01",
    "ringfence:class": "internal",
}
EGRESS = {**TAGS, "ringfence:group": "egress"}
SERVER = {**TAGS, "ringfence:group": "server-time"}
TAGGED, AS_EGRESS = {"tags": TAGS}, {"tags": EGRESS}

IMDS_V2 = {"httpTokens": "required", "httpPutResponseHopLimit": 1}
DISK = {"encrypted": True, "kmsKeyId": KEY}
TEMPLATE_DISK = {"deviceName": "/dev/xvda", "ebs": {"encrypted": "true", "kmsKeyId": KEY}}
HOST = {**TAGGED, "metadataOptions": IMDS_V2, "rootBlockDevice": DISK}
TEMPLATE = {**TAGGED, "metadataOptions": IMDS_V2, "blockDeviceMappings": [TEMPLATE_DISK]}
LOG_GROUP = {**TAGGED, "kmsKeyId": KEY, "retentionInDays": 180}
TRAIL = {
    **TAGGED,
    "s3BucketName": "trail",
    "kmsKeyId": KEY,
    "isMultiRegionTrail": True,
    "enableLogFileValidation": True,
}
BLOCK = {
    "blockPublicAcls": True,
    "blockPublicPolicy": True,
    "ignorePublicAcls": True,
    "restrictPublicBuckets": True,
}


def policy(*statements: dict[str, Any]) -> str:
    allow = {"Effect": "Allow"}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**allow, **s} for s in statements]})


def allow(action: Any, resource: Any, **others: Any) -> str:
    return policy({"Action": action, "Resource": resource, **others})


OWN = {"StringEquals": {"aws:PrincipalAccount": ACCOUNT, "aws:ResourceAccount": ACCOUNT}}
DIFFERENT = {"StringEquals": {"aws:PrincipalAccount": ACCOUNT, "aws:ResourceAccount": "1"}}
VIA = {"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}}
ROOT = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
KEY_USE = {"Principal": ROOT, "Action": "kms:Decrypt", "Resource": "*"}
RESOURCE_KEY = {
    **TAGGED,
    "enableKeyRotation": True,
    "policy": policy({**KEY_USE, "Condition": VIA}),
}
READ = {"Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"}
SOURCE = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
TRUST = policy({"Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"})
ROLE = {**TAGGED, "assumeRolePolicy": TRUST}
ONE = "arn:aws:s3:::bucket/one"


@dataclass(frozen=True)
class Case:
    rule: str
    type: str
    broken: dict[str, Any]
    passing: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.rule}-{self.type.rpartition(':')[2]}"


def group_rule(*cidrs: str) -> dict[str, Any]:
    return {"protocol": "tcp", "fromPort": 443, "toPort": 443, "cidrBlocks": [*cidrs]}


def ipv6_rule(*cidrs: str) -> dict[str, Any]:
    return {"protocol": "tcp", "fromPort": 443, "toPort": 443, "ipv6CidrBlocks": [*cidrs]}


def acl_rule(protocol: str, cidr: str, **others: Any) -> dict[str, Any]:
    place = {"networkAclId": "acl-1", "ruleNumber": 1, "ruleAction": "allow"}
    return {**place, "protocol": protocol, "cidrBlock": cidr, **others}


def acl_entry(protocol: str, action: str = "allow") -> dict[str, Any]:
    where = {"cidrBlock": "0.0.0.0/0", "fromPort": 0, "toPort": 0, "ruleNo": 1}
    return {**where, "protocol": protocol, "action": action}


CASES = (
    *(
        Case("no-gateway-out", token, {**TAGGED, **others}, {**AS_EGRESS, **others})
        for token, others in {
            "aws:ec2/internetGateway:InternetGateway": {"vpcId": "vpc-1"},
            "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway": {"vpcId": "vpc-1"},
            "aws:ec2/natGateway:NatGateway": {"subnetId": "subnet-1"},
            "aws:ec2/carrierGateway:CarrierGateway": {"vpcId": "vpc-1"},
        }.items()
    ),
    Case("no-public-address", "aws:ec2/eip:Eip", TAGGED, AS_EGRESS),
    Case(
        "no-public-address",
        "aws:ec2/subnet:Subnet",
        {**TAGGED, "mapPublicIpOnLaunch": True},
        {**TAGGED, "mapPublicIpOnLaunch": False},
    ),
    Case(
        "no-public-address",
        "aws:ec2/instance:Instance",
        {**HOST, "associatePublicIpAddress": True},
        {**HOST, "associatePublicIpAddress": False},
    ),
    Case(
        "no-public-address",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {**TEMPLATE, "networkInterfaces": [{}, {"associatePublicIpAddress": "true"}]},
        {**TEMPLATE, "networkInterfaces": [{}, {"associatePublicIpAddress": "false"}]},
    ),
    Case(
        "no-public-address",
        "aws:lb/loadBalancer:LoadBalancer",
        TAGGED,
        {**TAGGED, "internal": True},
    ),
    Case(
        "no-public-address",
        "aws:lb/loadBalancer:LoadBalancer",
        {**TAGGED, "internal": False, "loadBalancerType": "network"},
        {**TAGGED, "loadBalancerType": "gateway"},
    ),
    Case(
        "no-public-address",
        "aws:rds/instance:Instance",
        {**TAGGED, "storageEncrypted": True, "kmsKeyId": KEY, "publiclyAccessible": True},
        {**TAGGED, "storageEncrypted": True, "kmsKeyId": KEY},
    ),
    Case(
        "no-public-address",
        "aws:lambda/functionUrl:FunctionUrl",
        {"functionName": "contain", "authorizationType": "NONE"},
        {"functionName": "contain", "authorizationType": "AWS_IAM"},
    ),
    *(
        Case(
            "no-open-security-group",
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
            {**TAGGED, "securityGroupId": "sg-1", "ipProtocol": "tcp", name: everybody},
            {**TAGGED, "securityGroupId": "sg-1", "ipProtocol": "tcp", name: somebody},
        )
        for name, everybody, somebody in (
            ("cidrIpv4", "0.0.0.0/0", "10.0.0.0/8"),
            ("cidrIpv4", "128.0.0.0/1", "192.0.2.1/32"),
            ("cidrIpv6", "::/0", "fc00::/7"),
            ("cidrIpv6", "2000::/3", "2001:db8::/32"),
        )
    ),
    Case(
        "no-open-security-group",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        {**TAGGED, "securityGroupId": "sg-1", "ipProtocol": "-1", "cidrIpv4": "0.0.0.0/0"},
        {**TAGGED, "securityGroupId": "sg-1", "ipProtocol": "tcp", "prefixListId": "pl-1"},
    ),
    Case(
        "no-open-security-group",
        "aws:ec2/securityGroup:SecurityGroup",
        {**TAGGED, "egress": [group_rule("10.0.0.0/16"), ipv6_rule("::/0")]},
        {**TAGGED, "egress": [group_rule("10.0.0.0/16"), ipv6_rule("fd00::/8")]},
    ),
    Case(
        "no-open-security-group",
        "aws:ec2/securityGroupRule:SecurityGroupRule",
        {**group_rule("10.1.0.0/16", "0.0.0.0/0"), "type": "ingress", "securityGroupId": "sg-1"},
        {**group_rule("10.1.0.0/16"), "type": "ingress", "securityGroupId": "sg-1"},
    ),
    Case(
        "default-security-group-is-empty",
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        {**TAGGED, "ingress": [group_rule("10.0.0.0/16")]},
        {**TAGGED, "ingress": [], "egress": []},
    ),
    Case(
        "no-acl-that-allows-everything",
        "aws:ec2/networkAclRule:NetworkAclRule",
        acl_rule("-1", "0.0.0.0/0"),
        acl_rule("-1", "10.0.0.0/16"),
    ),
    Case(
        "no-acl-that-allows-everything",
        "aws:ec2/networkAclRule:NetworkAclRule",
        acl_rule("all", "0.0.0.0/0", egress=True),
        acl_rule("tcp", "0.0.0.0/0", egress=True),
    ),
    Case(
        "no-acl-that-allows-everything",
        "aws:ec2/networkAcl:NetworkAcl",
        {**TAGGED, "vpcId": "vpc-1", "ingress": [acl_entry("-1")]},
        {**TAGGED, "vpcId": "vpc-1", "ingress": [acl_entry("-1", "deny"), acl_entry("tcp")]},
    ),
    Case(
        "network-cannot-be-opened",
        "aws:ec2/vpcBlockPublicAccessOptions:VpcBlockPublicAccessOptions",
        {"internetGatewayBlockMode": "off"},
        {"internetGatewayBlockMode": "block-ingress"},
    ),
    *(
        Case(
            "endpoint-held-to-account",
            "aws:ec2/vpcEndpoint:VpcEndpoint",
            {**TAGGED, "vpcId": "vpc-1", "serviceName": "com.amazonaws.eu-central-1.s3", **broken},
            {**TAGGED, "vpcId": "vpc-1", **passing},
        )
        for broken, passing in (
            ({}, {"serviceName": "com.amazonaws.vpce.eu-central-1.vpce-svc-1"}),
            (
                {"policy": allow("*", "*", Principal="*", Condition=DIFFERENT)},
                {"policy": allow("*", "*", Principal="*", Condition=OWN)},
            ),
            (
                {"policy": allow("s3:GetObject", "arn:aws:s3:::*", Principal="*")},
                {"policy": allow("s3:GetObject", "arn:aws:s3:::amazon-ssm-x/*", Principal="*")},
            ),
        )
    ),
    Case(
        "endpoint-service-admits-by-name",
        "aws:ec2/vpcEndpointService:VpcEndpointService",
        {**TAGGED, "acceptanceRequired": False},
        {**TAGGED, "acceptanceRequired": True},
    ),
    Case(
        "endpoint-service-admits-by-name",
        "aws:ec2/vpcEndpointService:VpcEndpointService",
        {**TAGGED, "acceptanceRequired": True, "allowedPrincipals": ["*"]},
        {**TAGGED, "acceptanceRequired": True, "allowedPrincipals": [ROOT["AWS"]]},
    ),
    Case(
        "flow-log-of-all-traffic",
        "aws:ec2/flowLog:FlowLog",
        {**TAGGED, "vpcId": "vpc-1", "trafficType": "REJECT"},
        {**TAGGED, "transitGatewayId": "tgw-1"},
    ),
    *(
        Case("metadata-needs-session", token, {**good, "metadataOptions": options}, passing)
        for token, good, passing, options in (
            (
                "aws:ec2/launchTemplate:LaunchTemplate",
                TEMPLATE,
                {**TEMPLATE, "metadataOptions": {"httpEndpoint": "disabled"}},
                {"httpTokens": "optional", "httpPutResponseHopLimit": 1},
            ),
            (
                "aws:ec2/launchTemplate:LaunchTemplate",
                TEMPLATE,
                {**TEMPLATE, "metadataOptions": {**IMDS_V2, "httpPutResponseHopLimit": 1.0}},
                {"httpTokens": "required", "httpPutResponseHopLimit": 2},
            ),
            (
                "aws:ec2/instance:Instance",
                HOST,
                {**TAGGED, "launchTemplate": {"id": "lt-1"}},
                {"httpTokens": "required"},
            ),
        )
    ),
    Case(
        "metadata-needs-session",
        "aws:ec2/instanceMetadataDefaults:InstanceMetadataDefaults",
        {"httpTokens": "no-preference", "httpPutResponseHopLimit": 1},
        IMDS_V2,
    ),
    Case(
        "no-key-pair",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {**TEMPLATE, "keyName": "admin"},
        TEMPLATE,
    ),
    *(
        Case("encrypted-with-own-key", token, {**TAGGED, **broken}, {**TAGGED, **passing})
        for token, broken, passing in (
            ("aws:sns/topic:Topic", {}, {"kmsMasterKeyId": KEY}),
            (
                "aws:sns/topic:Topic",
                {"kmsMasterKeyId": "alias/aws/sns"},
                {"kmsMasterKeyId": "alias/alerts"},
            ),
            ("aws:sqs/queue:Queue", {"sqsManagedSseEnabled": True}, {"kmsMasterKeyId": KEY}),
            ("aws:secretsmanager/secret:Secret", {}, {"kmsKeyId": KEY}),
            ("aws:ebs/volume:Volume", {"kmsKeyId": KEY}, {"encrypted": True, "kmsKeyId": KEY}),
            ("aws:efs/fileSystem:FileSystem", {"encrypted": True}, DISK),
            ("aws:ssm/parameter:Parameter", {"type": "SecureString"}, {"type": "String"}),
            (
                "aws:cloudwatch/logGroup:LogGroup",
                {"retentionInDays": 180},
                {"retentionInDays": 180, "kmsKeyId": KEY},
            ),
            (
                "aws:dynamodb/table:Table",
                {"serverSideEncryption": {"enabled": True}},
                {"serverSideEncryption": {"enabled": True, "kmsKeyArn": KEY}},
            ),
        )
    ),
    Case(
        "encrypted-with-own-key",
        "aws:ebs/encryptionByDefault:EncryptionByDefault",
        {"enabled": False},
        {"enabled": True},
    ),
    Case(
        "disks-encrypted-with-own-key",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {**TEMPLATE, "blockDeviceMappings": [TEMPLATE_DISK, {"ebs": {"encrypted": "false"}}]},
        {**TEMPLATE, "blockDeviceMappings": [TEMPLATE_DISK, {"noDevice": "true"}]},
    ),
    Case(
        "disks-encrypted-with-own-key",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {**TEMPLATE, "blockDeviceMappings": [{"ebs": {"encrypted": "true"}}]},
        TEMPLATE,
    ),
    Case(
        "disks-encrypted-with-own-key",
        "aws:ec2/instance:Instance",
        {**HOST, "ebsBlockDevices": [{"deviceName": "/dev/xvdb"}]},
        {**HOST, "ebsBlockDevices": [{"deviceName": "/dev/xvdb", **DISK}]},
    ),
    Case(
        "disks-encrypted-with-own-key",
        "aws:ec2/instance:Instance",
        {**TAGGED, "metadataOptions": IMDS_V2},
        {**TAGGED, "launchTemplate": {"id": "lt-1"}},
    ),
    Case(
        "key-rotates",
        "aws:kms/key:Key",
        {**RESOURCE_KEY, "enableKeyRotation": False},
        {**TAGGED, "keyUsage": "SIGN_VERIFY", "customerMasterKeySpec": "RSA_2048"},
    ),
    *(
        Case(
            "key-serves-through-services",
            "aws:kms/key:Key",
            {**RESOURCE_KEY, "policy": policy({**KEY_USE, **broken})},
            {**RESOURCE_KEY, "policy": policy({**KEY_USE, **passing})},
        )
        for broken, passing in (
            ({}, {"Condition": VIA}),
            ({"Action": "kms:*"}, {"Action": ["kms:PutKeyPolicy", "kms:DescribeKey"]}),
            ({"Action": "kms:GenerateData*"}, {"Action": "kms:Describe*"}),
            (
                {"Action": ["kms:DescribeKey", "kms:Decrypt"], "Condition": SOURCE},
                {"Condition": {"StringLike": {"kms:EncryptionContext:aws:ssm:TargetId": "i-*"}}},
            ),
            (
                {"Principal": {"Service": "sns.amazonaws.com"}},
                {"Principal": {"Service": "sns.amazonaws.com"}, "Condition": SOURCE},
            ),
        )
    ),
    Case(
        "key-serves-through-services",
        "aws:kms/key:Key",
        {**TAGGED, "enableKeyRotation": True},
        RESOURCE_KEY,
    ),
    *(
        Case(
            "tls-13-only",
            "aws:lb/listener:Listener",
            {**TAGGED, "loadBalancerArn": "arn", **broken},
            {**TAGGED, "loadBalancerArn": "arn", **passing},
        )
        for broken, passing in (
            ({"protocol": "HTTP"}, {"protocol": "TCP"}),
            (
                {"protocol": "TLS", "sslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06"},
                {"protocol": "TLS", "sslPolicy": "ELBSecurityPolicy-TLS13-1-3-2021-06"},
            ),
            (
                {"protocol": "HTTPS"},
                {"protocol": "HTTPS", "sslPolicy": "ELBSecurityPolicy-TLS13-1-3-FIPS-2023-04"},
            ),
        )
    ),
    *(
        Case(
            "no-wildcard-permission",
            "aws:iam/rolePolicy:RolePolicy",
            {"role": "time", "policy": broken},
            {"role": "time", "policy": passing},
        )
        for broken, passing in (
            (allow("s3:*", ONE), allow("s3:GetObject", ONE)),
            (allow("*", ONE), allow("s3:GetObject", "arn:aws:s3:::bucket/*")),
            (allow("s3:GetObject", "*"), allow("ssmmessages:OpenDataChannel", "*")),
            (
                allow(["s3:GetObject", "sts:GetCallerIdentity"], "*"),
                allow("sts:GetCallerIdentity", ["*"]),
            ),
            (
                allow("ec2:ModifyNetworkInterfaceAttribute", "*", Condition=SOURCE),
                allow(
                    "ec2:ModifyNetworkInterfaceAttribute",
                    "*",
                    Condition={"StringEquals": {"aws:ResourceTag/ringfence:environment": "x"}},
                ),
            ),
            (
                policy({"NotAction": "iam:CreateUser", "Resource": ONE}),
                policy({"Effect": "Deny", "NotAction": "iam:CreateUser", "Resource": "*"}),
            ),
            (
                policy({"Action": "s3:GetObject", "NotResource": ONE}),
                policy({"Effect": "Deny", "Action": "*", "NotResource": ONE}),
            ),
        )
    ),
    Case(
        "no-wildcard-permission",
        "aws:iam/role:Role",
        {**ROLE, "inlinePolicies": [{"name": "a", "policy": allow("iam:*", "*")}]},
        {**ROLE, "inlinePolicies": [{"name": "a", "policy": allow("s3:GetObject", ONE)}]},
    ),
    Case(
        "no-broad-managed-policy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        {"role": "time", "policyArn": "arn:aws:iam::aws:policy/AmazonS3FullAccess"},
        {"role": "time", "policyArn": f"arn:aws:iam::{ACCOUNT}:policy/not-FullAccess"},
    ),
    Case(
        "no-broad-managed-policy",
        "aws:iam/role:Role",
        {**ROLE, "managedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]},
        {**ROLE, "managedPolicyArns": ["arn:aws:iam::aws:policy/SecurityAudit"]},
    ),
    Case(
        "server-role-has-boundary",
        "aws:iam/role:Role",
        {**ROLE, "tags": SERVER},
        {**ROLE, "tags": SERVER, "permissionsBoundary": "arn:aws:iam::1:policy/boundary"},
    ),
    *(
        Case(
            "no-resource-for-anybody",
            "aws:s3/bucketPolicy:BucketPolicy",
            {"bucket": "b", "policy": policy(broken)},
            {"bucket": "b", "policy": policy(passing)},
        )
        for broken, passing in (
            (READ, {**READ, "Condition": SOURCE}),
            ({**READ, "Principal": {"AWS": ["*"]}}, {**READ, "Principal": ROOT}),
            (
                {**READ, "Condition": {"StringEqualsIfExists": {"aws:SourceAccount": ACCOUNT}}},
                {**READ, "Effect": "Deny"},
            ),
            (
                {**READ, "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
                {**READ, "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:*:1:*"}}},
            ),
        )
    ),
    Case(
        "no-resource-for-anybody",
        "aws:iam/role:Role",
        {**TAGGED, "assumeRolePolicy": policy({"Principal": "*", "Action": "sts:AssumeRole"})},
        ROLE,
    ),
    Case(
        "no-resource-for-anybody",
        "aws:lambda/permission:Permission",
        {"action": "lambda:InvokeFunction", "function": "f", "principal": "events.amazonaws.com"},
        {
            "action": "lambda:InvokeFunction",
            "function": "f",
            "principal": "events.amazonaws.com",
            "sourceArn": "arn:aws:events:eu-central-1:1:rule/contain",
        },
    ),
    Case(
        "nothing-can-be-made-public",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        {**BLOCK, "bucket": "b", "restrictPublicBuckets": False},
        {**BLOCK, "bucket": "b"},
    ),
    Case(
        "nothing-can-be-made-public",
        "aws:s3/bucketAcl:BucketAcl",
        {"bucket": "b", "acl": "public-read"},
        {"bucket": "b", "acl": "private"},
    ),
    Case(
        "nothing-can-be-made-public",
        "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess",
        {"state": "unblocked"},
        {"state": "block-new-sharing"},
    ),
    Case(
        "log-has-retention",
        "aws:cloudwatch/logGroup:LogGroup",
        {**LOG_GROUP, "retentionInDays": 0},
        {**LOG_GROUP, "retentionInDays": 1},
    ),
    Case(
        "record-is-complete",
        "aws:cloudtrail/trail:Trail",
        {**TRAIL, "isMultiRegionTrail": False},
        TRAIL,
    ),
    Case(
        "record-is-complete",
        "aws:cloudtrail/trail:Trail",
        {**TRAIL, "enableLogging": False},
        {**TRAIL, "enableLogging": True},
    ),
    Case(
        "record-is-complete",
        "aws:cfg/recorderStatus:RecorderStatus",
        {"isEnabled": False},
        {"isEnabled": True},
    ),
    Case(
        "detection-stays-on",
        "aws:guardduty/detector:Detector",
        {**TAGGED, "enable": False},
        TAGGED,
    ),
    Case(
        "detection-stays-on",
        "aws:guardduty/detectorFeature:DetectorFeature",
        {"detectorId": "1", "name": "S3_DATA_EVENTS", "status": "DISABLED"},
        {"detectorId": "1", "name": "S3_DATA_EVENTS", "status": "ENABLED"},
    ),
    *(
        Case("tagged", "aws:ec2/vpc:Vpc", broken, {"tags": passing})
        for broken, passing in (
            ({}, TAGS),
            (
                {"tags": {"ringfence:control": "NET-01"}},
                {"ringfence:scope": "account", "ringfence:control": "NET-01"},
            ),
            ({"tags": {**TAGS, "ringfence:control": "network"}}, TAGS),
        )
    ),
    Case(
        "data-is-classified",
        "aws:cloudwatch/logGroup:LogGroup",
        {**LOG_GROUP, "tags": {k: v for k, v in TAGS.items() if k != "ringfence:class"}},
        LOG_GROUP,
    ),
)
ALWAYS = (
    ("no-access-key", "aws:iam/accessKey:AccessKey", {"user": "deploy"}),
    ("no-key-pair", "aws:ec2/keyPair:KeyPair", {"publicKey": "ssh-ed25519 AAAA"}),
    ("no-public-address", "aws:ec2/eipAssociation:EipAssociation", {"allocationId": "e-1"}),
    (
        "tls-13-only",
        "aws:elb/loadBalancer:LoadBalancer",
        {"internal": True, "listeners": [{"lbProtocol": "https", "lbPort": 443}]},
    ),
)
"""Resource types that are refused with any properties."""


@dataclass(frozen=True)
class StackCase:
    rule: str
    broken: tuple[DeclaredResource, ...]
    """The first of these resources breaks the rule."""
    passing: tuple[DeclaredResource, ...]


def one(name: str, token: str, properties: dict[str, Any], **references: str) -> DeclaredResource:
    made_from = {key: frozenset({urn}) for key, urn in references.items()}
    return DeclaredResource(name, token, properties, made_from)


ROUTE, TABLE = "aws:ec2/route:Route", "aws:ec2/routeTable:RouteTable"
VPC, FLOW_LOG = "aws:ec2/vpc:Vpc", "aws:ec2/flowLog:FlowLog"
BUCKET = "aws:s3/bucket:Bucket"
PRIVATE = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
GATEWAY = one("gateway", "aws:ec2/internetGateway:InternetGateway", {**AS_EGRESS, "id": "igw-1"})
BUCKET_ALONE = one("bucket", BUCKET, {})
BLOCKED = one("block", PRIVATE, {}, bucket="bucket")
KMS = {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEY}
AES = {"sseAlgorithm": "AES256"}


def encryption(default: dict[str, Any], bucket: str = "bucket") -> DeclaredResource:
    rules = {"rules": [{"applyServerSideEncryptionByDefault": default}]}
    return one("encryption", ENCRYPTION, rules, bucket=bucket)


ENCRYPTED_BUCKET = encryption(KMS)
POLICY = one("policy", "aws:s3/bucketPolicy:BucketPolicy", {}, bucket="bucket")
LOGGED = (POLICY, one("log", "aws:s3/bucketLogging:BucketLogging", {}, targetBucket="policy"))
STACK_CASES = (
    StackCase(
        "no-route-out",
        (one("route", ROUTE, {"gatewayId": "igw-2"}), GATEWAY),
        (one("route", ROUTE, {"gatewayId": "igw-1"}, gatewayId="gateway"), GATEWAY),
    ),
    StackCase(
        "no-route-out",
        (one("route", ROUTE, {"natGatewayId": "nat-2"}),),
        (one("route", ROUTE, {"gatewayId": "vgw-2"}),),
    ),
    StackCase(
        "no-route-out",
        (one("table", TABLE, {"routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": "igw-2"}]}),),
        # As after a refresh: the table also shows the separate route.
        (one("table", TABLE, {"routes": [{"gatewayId": "igw-1"}]}), GATEWAY),
    ),
    StackCase(
        "network-has-flow-log",
        (one("vpc", VPC, {}), one("log", FLOW_LOG, {}, vpcId="other")),
        (one("vpc", VPC, {}), one("log", FLOW_LOG, {}, vpcId="vpc")),
    ),
    StackCase(
        "bucket-has-public-access-block",
        (BUCKET_ALONE, one("block", PRIVATE, {}, bucket="other"), ENCRYPTED_BUCKET),
        (BUCKET_ALONE, BLOCKED, ENCRYPTED_BUCKET),
    ),
    *(
        StackCase(
            "bucket-encrypted-with-own-key",
            (BUCKET_ALONE, BLOCKED, broken),
            (BUCKET_ALONE, BLOCKED, *passing),
        )
        for broken, passing in (
            (encryption(KMS, bucket="other"), (encryption(KMS),)),
            # S3's access logs go to no other bucket.
            (encryption(AES), (encryption(AES), *LOGGED)),
            (encryption({"sseAlgorithm": "aws:kms"}), (POLICY, encryption(KMS, "policy"))),
        )
    ),
)

"""Permissions: none for everybody, and the least for each principal (IAM-07)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .rule import Properties, is_true, items
from .statements import Statement, allowing, condition_keys, is_for_anybody, label, limits, texts
from .tags import is_of_workload

ROLE = "aws:iam/role:Role"
PERMISSIONS = (
    "aws:iam/groupPolicy:GroupPolicy",
    "aws:iam/policy:Policy",
    ROLE,
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/userPolicy:UserPolicy",
)
WITHOUT_RESOURCES = frozenset(
    {
        *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances"),
        *("cloudwatch:GetMetricData", "cloudwatch:ListMetrics", "cloudwatch:PutMetricData"),
        *("ec2:DescribeIamInstanceProfileAssociations", "ec2:DescribeLaunchTemplates"),
        *("ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces"),
        *("ec2:DescribeSecurityGroups", "ec2:DescribeSnapshots", "ec2:DescribeSubnets"),
        *("ec2:DescribeTags", "ec2:DescribeTrafficMirrorSessions"),
        *("ec2:DescribeVolumes", "ec2:DescribeVpcs"),
        *("ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage"),
        *("ec2messages:FailMessage", "ec2messages:GetEndpoint", "ec2messages:GetMessages"),
        *("ec2messages:SendReply", "ecr:GetAuthorizationToken"),
        *("iam:GetAccountPasswordPolicy", "iam:ListVirtualMFADevices"),
        *("kms:GenerateRandom", "kms:ListAliases", "kms:ListKeys"),
        *("logs:DescribeQueries", "secretsmanager:GetRandomPassword", "secretsmanager:ListSecrets"),
        *("ssm:DescribeInstanceInformation", "ssm:DescribeSessions"),
        *("ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel"),
        *("ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"),
        *("sts:GetCallerIdentity", "xray:PutTelemetryRecords", "xray:PutTraceSegments"),
    }
)
"""Actions without narrower resources; a test compares them with AWS's definitions."""
RESOURCE_TAG = "resourcetag/"
"""Part of condition keys that restrict a statement to resources by their tags."""

ATTACHMENTS = (
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment",
    "aws:iam/policyAttachment:PolicyAttachment",
    ROLE,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:iam/userPolicyAttachment:UserPolicyAttachment",
)
BROAD = ("AdministratorAccess", "PowerUserAccess", "FullAccess")
"""Ends of the names of AWS policies that allow a whole service, or everything."""

RESOURCE_POLICIES: Mapping[str, str] = {
    "aws:ecr/repositoryPolicy:RepositoryPolicy": "policy",
    "aws:iam/role:Role": "assumeRolePolicy",
    "aws:kms/key:Key": "policy",
    "aws:kms/keyPolicy:KeyPolicy": "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:secretsmanager/secret:Secret": "policy",
    "aws:secretsmanager/secretPolicy:SecretPolicy": "policy",
    "aws:sns/topic:Topic": "policy",
    "aws:sns/topicPolicy:TopicPolicy": "policy",
    "aws:sqs/queue:Queue": "policy",
    "aws:sqs/queuePolicy:QueuePolicy": "policy",
}
PERMISSION = "aws:lambda/permission:Permission"
ANYBODY = (*RESOURCE_POLICIES, PERMISSION)
WHO = frozenset(
    {
        *("aws:principalaccount", "aws:principalarn", "aws:principalorgid", "aws:sourceaccount"),
        *("aws:sourcearn", "aws:sourceorgid", "aws:sourceowner", "kms:calleraccount"),
    }
)
"""Condition keys that identify the caller's account."""

BLOCKS = (
    "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
)
SWITCHES = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
WITH_ACL = ("aws:s3/bucket:Bucket", "aws:s3/bucketAcl:BucketAcl")
PRIVATE_ACLS = (None, "private", "bucket-owner-full-control", "bucket-owner-read")
SHARING: Mapping[str, str] = {
    "aws:ebs/snapshotBlockPublicAccess:SnapshotBlockPublicAccess": "unblocked",
    "aws:ec2/imageBlockPublicAccess:ImageBlockPublicAccess": "unblocked",
}
"""States that permit public snapshots and images."""
MADE_PUBLIC = (*BLOCKS, *WITH_ACL, *SHARING)

ACCESS_KEY = "aws:iam/accessKey:AccessKey"


def allows_everything(_: str, properties: Properties) -> Iterator[str]:
    inline = [each.get("policy") for each in items(properties.get("inlinePolicies"))]
    for policy in (properties.get("policy"), *inline):
        for statement in allowing(policy):
            yield from _wildcards(statement)


def _wildcards(statement: Statement) -> Iterator[str]:
    actions = texts(statement.get("Action"))
    if statement.get("NotAction") is not None:
        yield f"{label(statement)} allows every action except some"
    if wild := [action for action in actions if "*" in action]:
        yield f"{label(statement)} allows {', '.join(wild)}"
    if statement.get("NotResource") is not None:
        yield f"{label(statement)} allows it on every resource except some"
    if "*" in texts(statement.get("Resource")) and not _cannot_be_narrower(statement, actions):
        yield f"{label(statement)} allows {', '.join(actions)} on every resource"


def _cannot_be_narrower(statement: Statement, actions: Sequence[str]) -> bool:
    if any(RESOURCE_TAG in key for key in condition_keys(statement)):
        return True
    return bool(actions) and set(actions) <= WITHOUT_RESOURCES


def attaches_broad_policies(_: str, properties: Properties) -> Iterator[str]:
    for arn in (properties.get("policyArn"), *items(properties.get("managedPolicyArns"))):
        if arn is not None and ":aws:policy/" in str(arn) and str(arn).endswith(BROAD):
            yield f"{arn} allows more than needed"


def lacks_boundary(_: str, properties: Properties) -> Iterator[str]:
    if is_of_workload(properties) and properties.get("permissionsBoundary") is None:
        yield "it is the role of a host or an MCP server, and permissionsBoundary is absent"


def serves_anybody(kind: str, properties: Properties) -> Iterator[str]:
    if kind == PERMISSION:
        yield from _invoked_by_anybody(properties)
        return
    for statement in allowing(properties.get(RESOURCE_POLICIES[kind])):
        if is_for_anybody(statement) and not limits(statement, WHO):
            yield f"{label(statement)} allows it to everybody"


def _invoked_by_anybody(properties: Properties) -> Iterator[str]:
    """A service acts for every account, so a permission must name one."""
    principal = properties.get("principal")
    known = ("sourceAccount", "sourceArn", "principalOrgId")
    wide = principal == "*" or str(principal).endswith(".amazonaws.com")
    if wide and all(properties.get(name) is None for name in known):
        yield f"principal {principal} may call it from any account"


def may_be_made_public(kind: str, properties: Properties) -> Iterator[str]:
    if kind in BLOCKS:
        for name in SWITCHES:
            if not is_true(properties.get(name)):
                yield f"{name} is not true"
    if kind in WITH_ACL and properties.get("acl") not in PRIVATE_ACLS:
        yield f"acl is {properties['acl']}"
    if kind in SHARING and properties.get("state") == SHARING[kind]:
        yield f"state is {SHARING[kind]}"


def never_expires(_: str, __: Properties) -> Iterator[str]:
    yield "an access key never expires, even after it was stolen"

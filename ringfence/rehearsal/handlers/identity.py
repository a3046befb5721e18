"""IAM, and the identity of the caller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, iam_backends

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs, Look


def role(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    optional = {
        "PermissionsBoundary": inputs.get("permissionsBoundary"),
        "Description": inputs.get("description"),
        "MaxSessionDuration": inputs.get("maxSessionDuration"),
    }
    made = aws.client("iam").create_role(
        RoleName=physical(name, inputs),
        AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
        Path=inputs.get("path", "/"),
        Tags=tags(inputs),
        **{key: value for key, value in optional.items() if value is not None},
    )["Role"]
    outputs = {"arn": made["Arn"], "name": made["RoleName"], "uniqueId": made["RoleId"]}
    return Created(made["RoleName"], outputs)


def role_policy(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    policy = physical(name, inputs)
    aws.client("iam").put_role_policy(
        RoleName=inputs["role"], PolicyName=policy, PolicyDocument=inputs["policy"]
    )
    return Created(f"{inputs['role']}:{policy}", {"name": policy})


def policy(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = aws.client("iam").create_policy(
        PolicyName=physical(name, inputs, 128),
        Path=inputs.get("path", "/"),
        PolicyDocument=inputs["policy"],
        Description=inputs.get("description", ""),
        Tags=tags(inputs),
    )["Policy"]
    outputs = {"arn": made["Arn"], "name": made["PolicyName"], "policyId": made["PolicyId"]}
    return Created(made["Arn"], outputs)


def group(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = aws.client("iam").create_group(
        GroupName=physical(name, inputs, 128), Path=inputs.get("path", "/")
    )["Group"]
    outputs = {"arn": made["Arn"], "name": made["GroupName"], "uniqueId": made["GroupId"]}
    return Created(made["GroupName"], outputs)


def group_policy_attachment(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    aws.client("iam").attach_group_policy(GroupName=inputs["group"], PolicyArn=inputs["policyArn"])
    return Created(f"{inputs['group']}-{name}", {})


def role_policy_attachment(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    _offer(aws, inputs["policyArn"])
    aws.client("iam").attach_role_policy(RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
    return Created(f"{inputs['role']}-{name}", {})


def _offer(aws: EmulatedAccount, arn: str) -> None:
    """Add one of AWS's managed policies to the account.

    Every account has them. moto loads all 1,400, in a second, or none.
    """
    present = iam_backends[aws.id]["aws"].managed_policies
    name = arn.rsplit("/", 1)[1]
    if arn.startswith("arn:aws:iam::aws:policy/") and arn not in present:
        offered = _offered_by_aws()
        if name in offered:
            made = AWSManagedPolicy.from_data(name, aws.id, aws.region, offered[name])
            present[made.arn] = made


@cache
def _offered_by_aws() -> Mapping[str, Any]:
    return json.loads(aws_managed_policies_data)


def service_linked_role(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("iam").create_service_linked_role(
        AWSServiceName=inputs["awsServiceName"], Description=inputs.get("description", "")
    )["Role"]
    outputs = {"arn": made["Arn"], "name": made["RoleName"], "uniqueId": made["RoleId"]}
    return Created(made["Arn"], outputs)


def password_policy(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    given = {name[0].upper() + name[1:]: value for name, value in inputs.items()}
    if "AllowUsersToChangePassword" not in given:
        given["AllowUsersToChangePassword"] = True  # the provider's default, not AWS's
    aws.client("iam").update_account_password_policy(**given)
    return Created("iam-account-password-policy", {})


def caller_identity(aws: EmulatedAccount, _: Inputs) -> Inputs:
    caller = aws.client("sts").get_caller_identity()
    return {
        "accountId": caller["Account"],
        "arn": caller["Arn"],
        "userId": caller["UserId"],
        "id": caller["Account"],
    }


RESOURCES: Mapping[str, Create] = {
    "aws:iam/role:Role": role,
    "aws:iam/rolePolicy:RolePolicy": role_policy,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": role_policy_attachment,
    "aws:iam/serviceLinkedRole:ServiceLinkedRole": service_linked_role,
    "aws:iam/policy:Policy": policy,
    "aws:iam/group:Group": group,
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment": group_policy_attachment,
    "aws:iam/accountPasswordPolicy:AccountPasswordPolicy": password_policy,
}
FUNCTIONS: Mapping[str, Look] = {
    "aws:index/getCallerIdentity:getCallerIdentity": caller_identity,
}

"""IAM, and who one is."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import Account
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs, Look


def role(aws: Account, name: str, inputs: Inputs) -> Created:
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


def role_policy(aws: Account, name: str, inputs: Inputs) -> Created:
    policy = physical(name, inputs)
    aws.client("iam").put_role_policy(
        RoleName=inputs["role"], PolicyName=policy, PolicyDocument=inputs["policy"]
    )
    return Created(f"{inputs['role']}:{policy}", {"name": policy})


def caller_identity(aws: Account, _: Inputs) -> Inputs:
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
}
FUNCTIONS: Mapping[str, Look] = {
    "aws:index/getCallerIdentity:getCallerIdentity": caller_identity,
}

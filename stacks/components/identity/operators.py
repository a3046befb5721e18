"""The role in which administrators open sessions on hosts, for an hour and with MFA (IAM-03)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import sessions
from ringfence.cloud.roles import people_path
from ringfence.cloud.sign_in import MFA_HOURS
from ringfence.cloud.tags import tags
from ringfence.manifest.model import Environment

CONTROLS = ("IAM-03", "IAM-05")
JUST_IN_TIME, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class OperatorsArgs:
    environment: Environment
    account: str
    region: str
    document_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    """Key of the sessions."""


class Operators(pulumi.ComponentResource):
    role_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: OperatorsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:Operators", name, None, opts)
        child, environment = pulumi.ResourceOptions(parent=self), args.environment
        role = aws.iam.Role(
            name,
            assume_role_policy=sessions.operators_trust(environment, args.account),
            description=f"Opens sessions on hosts of {environment.name}",
            max_session_duration=MFA_HOURS * 3600,
            path=people_path(environment),
            tags=tags(environment, "operators", control=JUST_IN_TIME),
            opts=child,
        )
        aws.iam.RolePolicy(
            name,
            role=role.name,
            policy=pulumi.Output.all(document=args.document_arn, key=args.key_arn).apply(
                lambda found: sessions.operators_permissions(
                    environment,
                    account=args.account,
                    region=args.region,
                    document=found["document"],
                    key=found["key"],
                )
            ),
            opts=child,
        )
        self.role_arn = role.arn
        self.register_outputs({"role_arn": role.arn})

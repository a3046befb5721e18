"""Sign-in of people: the password policy of hosts, and no access without MFA (IAM-05, IAM-06)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import sign_in
from ringfence.cloud.passwords import password_policy
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import Environment

CONTROLS = ("IAM-04", "IAM-05", "IAM-06")
REVIEW, MFA, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class SignInArgs:
    environment: Environment
    account: str


class SignIn(pulumi.ComponentResource):
    group_name: pulumi.Output[str]
    """Every IAM user belongs to it."""
    audit_role_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: SignInArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:SignIn", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        passwords = password_policy()
        aws.iam.AccountPasswordPolicy(
            name,
            minimum_password_length=passwords.min_length,
            password_reuse_prevention=passwords.history,
            max_password_age=passwords.max_days,
            require_lowercase_characters=True,
            require_uppercase_characters=True,
            require_numbers=True,
            require_symbols=True,
            allow_users_to_change_password=True,
            # Users with an expired password change it at the next sign-in, without help.
            hard_expiry=False,
            opts=child,
        )
        mfa = aws.iam.Policy(
            f"{name}-mfa",
            policy=sign_in.mfa_policy(args.account),
            # AWS replaces the policy to change this text.
            description="Without a second factor: enrol one, and nothing else",
            tags=account_tags(args.environment, "mfa", control=MFA),
            opts=child,
        )
        group = aws.iam.Group(f"{name}-people", path=sign_in.PATH, opts=child)
        aws.iam.GroupPolicyAttachment(
            f"{name}-mfa", group=group.name, policy_arn=mfa.arn, opts=child
        )
        audit = aws.iam.Role(
            f"{name}-audit",
            assume_role_policy=sign_in.audit_trust(args.account),
            description="Reads the configuration of the account, and no data",
            max_session_duration=sign_in.MFA_HOURS * 3600,
            tags=account_tags(args.environment, "audit", control=REVIEW),
            opts=child,
        )
        aws.iam.RolePolicyAttachment(
            f"{name}-audit", role=audit.name, policy_arn=sign_in.AUDIT_POLICY, opts=child
        )
        self.group_name, self.audit_role_arn = group.name, audit.arn
        self.register_outputs(
            {"group_name": self.group_name, "audit_role_arn": self.audit_role_arn}
        )

"""Permissions of people in the AWS account: none without a second factor (IAM-05)."""

from __future__ import annotations

from ringfence.cloud.policies import document, root

MFA_HOURS = 1
"""A role that demands MFA accepts a one-time code for so long."""
PATH = "/ringfence/"
"""Identifies our group: IAM has no tags for groups."""
AUDIT_POLICY = "arn:aws:iam::aws:policy/SecurityAudit"
"""AWS keeps this policy up to date. It reads configurations and no data."""

_WITHOUT_MFA = {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}}

ACCOUNT_WIDE = ("iam:GetAccountPasswordPolicy", "iam:ListVirtualMFADevices")
"""Actions that AWS offers for the whole account only."""
OWN_DEVICE = ("iam:CreateVirtualMFADevice",)
OWN_USER = (
    *("iam:ChangePassword", "iam:EnableMFADevice", "iam:GetMFADevice", "iam:GetUser"),
    *("iam:ListMFADevices", "iam:ResyncMFADevice"),
)
SET_UP = (*ACCOUNT_WIDE, *OWN_DEVICE, *OWN_USER, "sts:GetSessionToken")
"""Actions needed to change a first password, and to enrol and use a device."""


def mfa_policy(account: str) -> str:
    """Allow a user without a second factor to enrol one for themselves, and nothing else.

    The device has the user's name, so stolen keys cannot enrol a second device: the name is taken.
    AWS's example lacks the statement ForOneselfOnly; without it, an administrator's password alone
    can enrol devices for everybody.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_examples_aws_my-sec-creds-self-manage-mfa-only.html
    """
    user = f"arn:aws:iam::{account}:user/${{aws:username}}"
    device = f"arn:aws:iam::{account}:mfa/${{aws:username}}"
    return document(
        {"Sid": "Look", "Effect": "Allow", "Action": list(ACCOUNT_WIDE), "Resource": "*"},
        {
            "Sid": "OwnDevice",
            "Effect": "Allow",
            "Action": [*OWN_DEVICE, "iam:DeleteVirtualMFADevice"],
            "Resource": device,
        },
        {
            "Sid": "OwnUser",
            "Effect": "Allow",
            "Action": [*OWN_USER, "iam:DeactivateMFADevice"],
            "Resource": user,
        },
        {
            "Sid": "NothingElseWithoutMfa",
            "Effect": "Deny",
            "NotAction": list(SET_UP),
            "Resource": "*",
            "Condition": _WITHOUT_MFA,
        },
        {
            "Sid": "ForOneselfOnly",
            "Effect": "Deny",
            "Action": [*OWN_DEVICE, *OWN_USER],
            "NotResource": [user, device],
            "Condition": _WITHOUT_MFA,
        },
    )


def audit_trust(account: str) -> str:
    """Trust policy for people of this account who have just used a second factor."""
    return document(
        {
            "Sid": "PeopleWithMfa",
            "Effect": "Allow",
            "Principal": root(account),
            "Action": "sts:AssumeRole",
            "Condition": {
                "Bool": {"aws:MultiFactorAuthPresent": "true"},
                "NumericLessThan": {"aws:MultiFactorAuthAge": str(MFA_HOURS * 3600)},
            },
        }
    )

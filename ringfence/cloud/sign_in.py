"""What people may do in the AWS account: nothing without a second factor (IAM-05)."""

from __future__ import annotations

from ringfence.cloud.policies import document, root

MFA_HOURS = 1
"""For which a code is worth something where a role demands one."""
PATH = "/ringfence/"
"""IAM has no tags for groups: this is how ours is known."""
AUDIT_POLICY = "arn:aws:iam::aws:policy/SecurityAudit"
"""AWS's own, which follows new services: it reads configurations and no data."""

_WITHOUT_MFA = {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}}

LOOK = ("iam:GetAccountPasswordPolicy", "iam:ListVirtualMFADevices")
"""Actions that AWS offers for the whole account only."""
OWN_DEVICE = ("iam:CreateVirtualMFADevice",)
OWN_USER = (
    *("iam:ChangePassword", "iam:EnableMFADevice", "iam:GetMFADevice", "iam:GetUser"),
    *("iam:ListMFADevices", "iam:ResyncMFADevice"),
)
SET_UP = (*LOOK, *OWN_DEVICE, *OWN_USER, "sts:GetSessionToken")
"""What it takes to get a first password changed and a device enrolled and used."""


def mfa_policy(account: str) -> str:
    """Without a second factor: enrol one, for oneself, and nothing else.

    The device has the user's own name: keys that were stolen cannot enrol a second one beside
    it, since the name is taken. Longer than AWS's example by the statement ForOneselfOnly:
    without it an administrator's password alone enrols devices for everybody.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_examples_aws_my-sec-creds-self-manage-mfa-only.html
    """
    user = f"arn:aws:iam::{account}:user/${{aws:username}}"
    device = f"arn:aws:iam::{account}:mfa/${{aws:username}}"
    return document(
        {"Sid": "Look", "Effect": "Allow", "Action": list(LOOK), "Resource": "*"},
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
    """People of this account, with a fresh second factor."""
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

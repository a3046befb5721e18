"""Password policy of the AWS account, with the figures of role `baseline` (IAM-06)."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from ringfence import ROLES

BASELINE = ROLES / "baseline" / "defaults" / "main.yml"


@dataclass(frozen=True)
class PasswordPolicy:
    min_length: int
    history: int
    max_days: int


def password_policy() -> PasswordPolicy:
    """Read the figures, within IAM's limits: 6 to 128 characters, 24 old passwords, 1095 days.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccountPasswordPolicy.html
    """
    host = yaml.safe_load(BASELINE.read_text(encoding="utf-8"))
    return PasswordPolicy(
        min_length=host["baseline_password_min_length"],
        history=min(host["baseline_password_history"], 24),
        max_days=min(host["baseline_password_max_days"], 1095),
    )

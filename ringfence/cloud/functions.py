"""What the stacks' functions have in common: where their code is, what runs it, who starts them."""

from __future__ import annotations

from ringfence.cloud.policies import document
from ringfence.paths import STACKS

CODE = STACKS / "functions"
RUNTIME, ARCHITECTURE = "python3.13", "arm64"
"""Arm is a fifth cheaper than x86_64 for the same, and the code is Python only.

https://aws.amazon.com/lambda/pricing/
"""


def trust() -> str:
    return document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )

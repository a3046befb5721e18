"""Lambda functions of the stacks: place of their code, runtime, and trust policy."""

from __future__ import annotations

from ringfence import STACKS
from ringfence.cloud.policies import service_trust

CODE = STACKS / "functions"
RUNTIME, ARCHITECTURE = "python3.13", "arm64"
"""Arm costs a fifth less than x86_64, and the code is pure Python.

https://aws.amazon.com/lambda/pricing/
"""


def trust() -> str:
    return service_trust("lambda.amazonaws.com")

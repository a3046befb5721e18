"""Paths of IAM roles: a policy can name a role by its path before the role exists.

Pulumi adds digits to the name of a role, and none to its path. A policy that names a path is as
strong as one that names the role: a principal that may create roles there may change that role too.
"""

from __future__ import annotations

from ringfence.manifest.model import Environment


def workload_path(environment: Environment, workload: str) -> str:
    """Path of the instance role of a host (by the name of its group), or of a function's role."""
    return f"{workloads_path(environment)}{workload}/"


def workloads_path(environment: Environment) -> str:
    return f"/ringfence/{environment.name}/workloads/"


def people_path(environment: Environment) -> str:
    return f"/ringfence/{environment.name}/people/"


def role_arns(*, account: str, path: str) -> str:
    """Pattern of every role below a path."""
    return f"{role_prefix(account=account, path=path)}*"


def role_prefix(*, account: str, path: str) -> str:
    return f"arn:aws:iam::{account}:role{path}"

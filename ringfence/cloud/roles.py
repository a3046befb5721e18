"""Paths of roles in IAM: who somebody is can be told before the role exists, and after a new one.

The name of a role has digits of Pulumi's, its path has none. A policy that names a path is no
weaker than one that names the role: whoever may create roles there may change that one, too.
"""

from __future__ import annotations

from ringfence.manifest.model import Environment


def workload_path(environment: Environment, workload: str) -> str:
    """Of the instance role of a host (by the name of its group), or of a function."""
    return f"{workloads_path(environment)}{workload}/"


def workloads_path(environment: Environment) -> str:
    return f"/ringfence/{environment.name}/workloads/"


def people_path(environment: Environment) -> str:
    return f"/ringfence/{environment.name}/people/"


def role_arns(account: str, path: str) -> str:
    """Every role below a path, as policies match it."""
    return f"{role_prefix(account, path)}*"


def role_prefix(account: str, path: str) -> str:
    return f"arn:aws:iam::{account}:role{path}"

"""IAM identities of the AWS account, with their policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from ringfence.verify.account.access import Document, IamPrincipal
from ringfence.verify.account.cloud import Cloud


@dataclass(frozen=True)
class IamIdentity:
    name: str
    arn: str
    path: str
    policies: tuple[Document, ...]
    """Policies of the identity; for a user, also those of its groups."""
    trust: Document | None = None
    """Trust policy of a role."""
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def principal(self) -> IamPrincipal:
        return IamPrincipal("AWS", self.arn)


class Identities:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._documents: dict[str, Document] = {}

    @cached_property
    def groups(self) -> tuple[IamIdentity, ...]:
        return tuple(map(self._group, self._details("Group", "GroupDetailList")))

    @cached_property
    def users(self) -> tuple[IamIdentity, ...]:
        by_name = {group.name: group for group in self.groups}
        return tuple(
            IamIdentity(
                each["UserName"],
                each["Arn"],
                each["Path"],
                (
                    *self._policies(each, "UserPolicyList"),
                    *(p for name in each.get("GroupList", ()) for p in by_name[name].policies),
                ),
            )
            for each in self._details("User", "UserDetailList")
        )

    @cached_property
    def roles(self) -> tuple[IamIdentity, ...]:
        return tuple(
            IamIdentity(
                each["RoleName"],
                each["Arn"],
                each["Path"],
                tuple(self._policies(each, "RolePolicyList")),
                _read(each["AssumeRolePolicyDocument"]),
                tuple((tag["Key"], tag["Value"]) for tag in each.get("Tags", ())),
            )
            for each in self._details("Role", "RoleDetailList")
        )

    @cached_property
    def written_here(self) -> tuple[tuple[str, Document], ...]:
        """Policies written in this account, not by AWS, each with the ARN that has it."""
        managed = (
            (each["Arn"], self.document(each["Arn"]))
            for each in self._cloud.all("iam", "list_policies", "Policies", Scope="Local")
        )
        inline = (
            (each["Arn"], _read(policy["PolicyDocument"]))
            for kind in ("User", "Group", "Role")
            for each in self._details(kind, f"{kind}DetailList")
            for policy in each.get(f"{kind}PolicyList", ())
        )
        return (*managed, *inline)

    def _group(self, each: Document) -> IamIdentity:
        policies = tuple(self._policies(each, "GroupPolicyList"))
        return IamIdentity(each["GroupName"], each["Arn"], each["Path"], policies)

    def _details(self, kind: str, key: str) -> list[Document]:
        query = ("iam", "get_account_authorization_details", key)
        return self._cloud.all(*query, Filter=[kind])

    def _policies(self, identity: Document, inline: str) -> Iterator[Document]:
        for attached in identity.get("AttachedManagedPolicies", ()):
            yield self.document(attached["PolicyArn"])
        for policy in identity.get(inline, ()):
            yield _read(policy["PolicyDocument"])

    def document(self, arn: str) -> Document:
        """Return the version of a managed policy that is in effect."""
        if arn not in self._documents:
            iam = self._cloud.client("iam")
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            found = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
            self._documents[arn] = _read(found["Document"])
        return self._documents[arn]


def _read(document: Any) -> Document:
    """Return a policy document. IAM URL-encodes it; boto3 decodes it in most answers."""
    return json.loads(unquote(document)) if isinstance(document, str) else document

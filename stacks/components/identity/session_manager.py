"""Shells on hosts without a network that leads there: encrypted, and written down (NET-03)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import sessions
from ringfence.cloud.services import retention_days
from ringfence.manifest.model import Environment
from stacks.components.data.key import protected_key

CONTROL = "NET-03"


@dataclass(frozen=True)
class SessionManagerArgs:
    environment: Environment
    account: str
    log_key_arn: pulumi.Input[str]
    tags: Callable[..., dict[str, str]]
    """As `ringfence.cloud.tags` makes them, of an environment or of the account."""
    of: str
    """Whose hosts these are."""
    document: str | None = None
    """Name, where AWS wants a certain one."""


class SessionManager(pulumi.ComponentResource):
    document_name: pulumi.Output[str]
    document_arn: pulumi.Output[str]
    log_group_name: pulumi.Output[str]
    log_group_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: SessionManagerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:SessionManager", name, None, opts)
        key = protected_key(
            self,
            name,
            f"Sessions on hosts of {args.of}",
            sessions.session_key_policy(args.account),
            # Of no data class: what is written down is under the class's own key.
            args.tags("key-sessions", CONTROL),
        )
        named = args.tags("sessions", CONTROL, sessions.SESSION_CLASS)
        group = aws.cloudwatch.LogGroup(
            name,
            kms_key_id=args.log_key_arn,
            retention_in_days=retention_days(args.environment, sessions.SESSION_CLASS),
            tags=named,
            # Evidence: who did what on which host.
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        document = aws.ssm.Document(
            name,
            name=args.document,
            document_type="Session",
            document_format="JSON",
            content=pulumi.Output.all(group.name, key.arn).apply(
                lambda found: sessions.session_document(found[0], found[1], args.of)
            ),
            tags=named,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.document_name, self.document_arn = document.name, document.arn
        self.log_group_name, self.log_group_arn = group.name, group.arn
        self.key_arn = key.arn
        self.register_outputs(
            {
                "document_name": self.document_name,
                "log_group_name": self.log_group_name,
                "key_arn": self.key_arn,
            }
        )

"""Session Manager: encrypted, recorded shells on hosts that no network leads to (NET-03)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.cloud import sessions
from ringfence.manifest.model import Environment
from stacks.components.data.key import protected_key
from stacks.components.monitoring.log_group import evidence_log_group

CONTROLS = ("NET-03", "MON-01")
PRIVATE_ACCESS, _ = CONTROLS


@dataclass(frozen=True, kw_only=True)
class SessionManagerArgs:
    environment: Environment
    account: str
    log_key_arn: pulumi.Input[str]
    tags: Callable[..., dict[str, str]]
    """`tags` or `account_tags` of `ringfence.cloud.tags`, bound to the environment."""
    owner: str
    """Environment or account that owns the hosts, for descriptions."""
    document: str | None = None
    """Name of the document, where AWS requires a certain one."""


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
            description=f"Sessions on hosts of {args.owner}",
            policy=sessions.session_key_policy(args.account),
            # No data class: the key of the class encrypts the record.
            tags=args.tags("key-sessions", control=PRIVATE_ACCESS),
        )
        named = args.tags("sessions", control=PRIVATE_ACCESS, data_class=sessions.SESSION_CLASS)
        group = evidence_log_group(
            self,
            name,
            environment=args.environment,
            data_class=sessions.SESSION_CLASS,
            key_arn=args.log_key_arn,
            tags=named,
        )
        document = aws.ssm.Document(
            name,
            name=args.document,
            document_type="Session",
            document_format="JSON",
            content=pulumi.Output.all(log_group=group.name, key=key.arn).apply(
                lambda found: sessions.session_document(
                    log_group=found["log_group"], key=found["key"], owner=args.owner
                )
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
